"""The OpenAPI document against the running gateway: requests made from it, good and bad ones."""

import os
import subprocess
import sys
from pathlib import Path

from tests.stack import Gateway
from tests.waiting import CHECKOUT

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def test_every_answer_is_one_that_the_document_names(gateway: Gateway, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            *(f"{gateway.url}/openapi.json", "--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "15"),
            *("--seed", "1", "--no-color", "--generation-database", "none"),
            # What a machine that stands still for a second makes of Hypothesis and of an answer.
            *("--suppress-health-check", "too_slow", "--request-timeout", "60"),
        ],
        cwd=tmp_path,
        env=os.environ
        | {
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(CHECKOUT),
            "SCHEMATHESIS_HOOKS": "tests.system.schemathesis_hooks",
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Tested: 39" in done.stdout
