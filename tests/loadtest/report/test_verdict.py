"""What a comparison is said to have found, where its truth is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from loadtest.compare.limits import GENERATOR, OTHERS, cpu_ms, use
from loadtest.report import bare, claims, comparison, front, records, studies, verdict
from loadtest.report.page import Table
from tests.loadtest.compare import made


def compared(first: list[float], second: list[float]) -> dict[str, Any]:
    """A Mixer and a ViT."""
    points = [
        made.point("mixer_x", first),
        made.point("vit_x", second),
        made.point("mixer_x", [13.0] * 6, rate=13.0),
        made.point("vit_x", [11.0] * 6, rate=11.0),
    ]
    return made.comparison(points)


def test_a_difference_is_named_with_its_interval() -> None:
    first, second, third = verdict.sentences(compared(made.MIXER, made.VIT))
    assert first == (
        "On Abacus, 2 cores mixer_x answers 22.1 images per second (21.9 to 22.4) through the "
        "whole path, from a JPEG over HTTP: 1.22 (1.22 to 1.23) times as many as vit_x."
    )
    assert second.startswith(
        "Requests at random times wait as follows: mixer_x, at 59% of its own greatest rate, half"
    )
    assert "99 % within" in second  # 780 requests
    assert third.startswith("What limits mixer_x is the model itself; all ")


def test_no_difference_is_called_none() -> None:
    (first, *_) = verdict.sentences(compared(made.MIXER, made.SAME))
    assert "no difference to vit_x is shown, 1.00 (" in first


def test_too_few_windows_are_said() -> None:
    (first, *_) = verdict.sentences(compared(made.MIXER[:3], made.VIT[:3]))
    assert "1.22 (interval unknown, 3 pairs) times as many as vit_x" in first


def test_the_table_has_the_numbers_of_the_sentences() -> None:
    table = verdict.table(compared(made.MIXER, made.VIT))
    assert table.rows[0][:2] == ("mixer_x", "22.1 (21.9 to 22.4)")
    assert table.rows[1][2] == "1.22 (1.22 to 1.23)"
    assert table.rows[1][-1] == "model"


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"busy": 0.3}, "none"),
        ({"busy": 0.95}, "model"),
        ({"busy": 0.3, "phases": {"decode": 80.0}}, "decode"),
        ({"busy": 0.3, "cpu_seconds": made.CPU | {"event_loop": 9.9}}, "gateway"),
        # Most of what the gateway uses is decoding, which is spread over the cores.
        ({"busy": 0.3, "cpu_seconds": made.CPU | {"gateway": 9.9}}, "none"),
        ({"busy": 0.3, "cpu_seconds": made.CPU | {"triton": 17.0}}, "Triton"),
        ({"cpu_seconds": made.CPU | {"generator": 9.0}}, GENERATOR),
        ({"late_ms": 50.0}, GENERATOR),
        ({"busy": 0.7, "cpu_seconds": made.CPU | {"model": 14.5}}, "all cores, model most"),
        ({"machine": made.CALM | {"foreign_cores": 0.5}}, OTHERS),
    ],
)
def test_the_limit_that_was_hit_is_named(changes: dict[str, Any], limit: str) -> None:
    point = {"windows": [made.window(1, 22.0, **changes)]}
    assert use(point, cores=2, workers=1).limit == limit


def test_what_was_not_measured_is_not_guessed() -> None:
    point = {"windows": [made.window(1, 22.0, cpu_seconds={"generator": 1.0}, machine=None)]}
    found = use(point, cores=2, workers=1)
    assert (found.event_loop, found.triton, found.cores, found.others) == (None, None, None, None)
    assert cpu_ms(point, "model") is None


def rows(evidence: claims.Evidence) -> dict[str, tuple[str, str]]:
    """Finding and evidence by claim."""
    found = [block for block in claims.blocks(evidence) if isinstance(block, Table)]
    return {row[0]: (row[1], row[2]) for row in found[0].rows}


NOTHING = claims.Evidence((), (), (), ())


def test_without_evidence_nothing_is_claimed() -> None:
    found = rows(NOTHING)
    for claim, (finding, _) in found.items():
        if "matrix products" not in claim:  # the graph, which a test looks at
            assert finding == "not shown here", claim


@pytest.mark.parametrize(
    ("second", "finding"),
    [(made.VIT, "yes, on this machine"), (made.SAME, "in part, on this machine")],
)
def test_speed_is_claimed_as_far_as_it_was_measured(second: list[float], finding: str) -> None:
    evidence = dataclasses.replace(NOTHING, comparisons=[compared(made.MIXER, second)])
    word, text = rows(evidence)["Mixer is faster at inference than ViT of like size"]
    assert word == finding
    assert "mixer_x against vit_x, fp32: 1." in text
    assert "On GPUs with fused attention published figures say 0.84 to 1.19" in text


def test_records_of_others_are_divided_rightly() -> None:
    low, high = records.gpu_range()
    assert low == pytest.approx(6875 / 8215)
    assert high == pytest.approx(1595 / 1339)
    (table,) = (block for block in records.blocks() if isinstance(block, Table))
    paper = next(row for row in table.rows if "paper" in row[0])
    assert paper[-4:] == ("1.85", "–", "1.61", "1.50")


def test_the_first_page_says_it_in_three_sentences() -> None:
    found = front.sentences([compared(made.MIXER, made.VIT)], [])
    assert "mixer_x answers 1.22 (1.22 to 1.23) times as many images per second as ViT" in found[0]
    assert "nothing was measured against" not in found[0]
    assert found[-1].startswith("**On GPUs with fused attention published results")


def test_cpus_that_a_virtual_machine_calls_by_one_name_are_told_apart() -> None:
    """The faster one first; each has its own sentence, row and columns."""
    conditions = {"cpu": "AMD EPYC, 2 cores", "gpu": "none", "date": "2026-01-02 03:04 UTC"}
    newer = conditions | {"cpu_flags": "avx2, avx512f, avx512_vnni"}
    older = conditions | {"cpu_flags": "avx2"}
    on_newer = compared(made.MIXER, made.VIT) | {"conditions": newer}
    on_older = compared(made.MIXER, made.SAME) | {"conditions": older}
    both = [on_newer, on_older]
    first, second, _ = front.sentences(both, [])
    assert first.startswith("**On AMD EPYC (AVX-512 VNNI), 2 cores, from a JPEG")
    assert "mixer_x answers 1.22 " in first
    assert " and mixer_x " not in first
    assert second.startswith("**On AMD EPYC (AVX2), 2 cores, from a JPEG")
    assert "mixer_x answers 1.00 " in second
    assert [row[2] for row in front.table(both).rows] == [
        "AMD EPYC (AVX-512 VNNI), 2 cores",
        "AMD EPYC (AVX2), 2 cores",
    ]
    evidence = dataclasses.replace(NOTHING, comparisons=both)
    word, text = rows(evidence)["Mixer is faster at inference than ViT of like size"]
    assert word == "in part, on these machines"
    assert "on AMD EPYC (AVX2), 2 cores mixer_x against vit_x, fp32: 1.00" in text
    # Runs of two machines do not repeat each other.
    assert comparison.repeat_blocks(both) == []
    assert len(comparison.repeat_blocks([*both, on_older])) == 3
    (published,) = (b for b in bare.published_blocks(both) if isinstance(b, Table))
    assert published.head[-2:] == tuple(
        f"images/s, measured on AMD EPYC ({best}), 2 cores, FP32"
        for best in ("AVX-512 VNNI", "AVX2")
    )


def test_generations_with_the_same_instructions_are_told_apart_by_their_family() -> None:
    conditions = {"cpu": "AMD EPYC, 2 cores", "cpu_flags": "avx2", "gpu": "none"}
    results = [
        {"conditions": conditions | {"cpu_family": family}}
        for family in ("family 23, model 49", "family 25, model 1", "not told")
    ]
    assert list(verdict.by_machine(results)) == [
        "AMD EPYC (AVX2, family 23, model 49), 2 cores",
        "AMD EPYC (AVX2, family 25, model 1), 2 cores",
        "AMD EPYC (AVX2), 2 cores",
    ]


def test_a_gpu_is_the_machine_where_there_is_one() -> None:
    conditions = {"cpu": "Xeon, 2 cores", "cpu_flags": "avx2", "gpu": "NVIDIA H200, driver 550"}
    result = compared(made.MIXER, made.VIT) | {"conditions": conditions | {"date": "2026-01-02"}}
    assert front.sentences([result], [])[0].startswith("**On NVIDIA H200, from a JPEG")


def test_a_gain_is_paired_by_images() -> None:
    values = np.array([1.0] * 60 + [0.0] * 30 + [-1.0] * 10)
    found = studies.difference(values)
    assert found.text() == "+50.0 points (+36.8 to +63.2)"
    assert found.excludes(0)
    assert not studies.difference(np.array([1.0, -1.0] * 50)).excludes(0)
