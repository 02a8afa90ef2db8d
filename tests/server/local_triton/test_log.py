"""Triton's log lines become records of ours, and tell which models are loaded."""

import logging

import pytest

from server.local_triton.log import TritonLog


def test_logs_at_the_levels_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    triton_log = TritonLog()
    for line in (
        "2026-01-31T12:00:00Z I 7 model_lifecycle.cc:839] \"successfully loaded 'cat'\"",
        '2026-01-31T12:00:00Z W 7 file.cc:1] "beware"',
        '2026-01-31T12:00:00Z E 7 server.cc:241] "CudaDriverHelper has not been initialized."',
        '2026-01-31T12:00:00Z E 7 file.cc:2] "wrong: bad\\n\\nAt:\\n  model.py(12): initialize\\n"',
        "E0131 12:00:00.632502468    7039 chttp2_server.cc:1060]      UNKNOWN: no address",
        "| Model | Version |",
        "",
    ):
        triton_log.feed(line)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "successfully loaded 'cat'"),
        ("WARNING", "beware"),
        ("DEBUG", "CudaDriverHelper has not been initialized."),
        ("ERROR", "wrong: bad"),
        ("ERROR", "UNKNOWN: no address"),
        ("DEBUG", "| Model | Version |"),
    ]
    assert list(triton_log.errors) == ["wrong: bad", "UNKNOWN: no address"]
    assert list(triton_log.unformed) == ["| Model | Version |"]
