"""The picture of a profile says what, where and when, and refuses what it cannot compare."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from loadtest.bench import profile
from loadtest.bench.profile import Profile
from loadtest.usage import UsageError


def made(cpu: str = "Abacus, 2 cores", date: str = "2026-01-02 10:00 UTC") -> Profile:
    spent = {part: 10.0 + place for place, part in enumerate(profile.COLOURS)}
    return Profile(cpu=cpu, date=date, commit="0123456789ab", microseconds=spent)


def test_the_picture_has_a_title_an_axis_with_its_unit_the_machine_and_the_day(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.json").write_text(json.dumps(made()))
    (tmp_path / "two.json").write_text(json.dumps(made(date="2026-01-03 10:00 UTC")))
    svg = tmp_path / "profile.svg"
    bars = (f"before={tmp_path / 'one.json'}", f"after={tmp_path / 'two.json'}")
    assert profile.draw_command(svg, bars) == 0
    words = " ".join("".join(ET.fromstring(svg.read_text()).itertext()).split())  # noqa: S314 - ours
    assert "Where the CPU time of a request goes" in words
    assert "Abacus, 2 cores; tiny model, 32 requests under way · 2026-01-02, 2026-01-03" in words
    assert "CPU time of all servers per request, µs" in words
    for part in profile.COLOURS:
        assert part in words
    for label in ("before (0123456)", "after (0123456)", "145"):
        assert label in words


def test_bars_of_two_machines_are_not_drawn_together() -> None:
    with pytest.raises(UsageError, match="different machines: Abacus, 2 cores; Quipu, 4 cores"):
        profile.draw({"before": made(), "after": made("Quipu, 4 cores")})


def test_a_file_that_is_no_profile_is_named(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"cpu": "Abacus", "gRPC": 7}')
    with pytest.raises(UsageError, match=r"other\.json: commit, date, microseconds missing"):
        profile.draw_command(tmp_path / "profile.svg", (f"now={other}",))
    for content in ("no JSON", "[1]", "7"):
        other.write_text(content)
        with pytest.raises(UsageError, match=r"other\.json: no file of `measure`: "):
            profile.draw_command(tmp_path / "profile.svg", (f"now={other}",))
    with pytest.raises(UsageError, match=r"none\.json: no file of `measure`: "):
        profile.draw_command(tmp_path / "profile.svg", (f"now={tmp_path / 'none.json'}",))


def test_the_innermost_frame_that_is_known_names_the_part() -> None:
    shares = profile.parts(
        "run (asyncio/runners.py:1);classify (server/serving/classify.py:2);load (PIL/i.py:3) 3\n"
        "run (asyncio/runners.py:1);data_received (uvicorn/protocols/http/h.py:2) 1\n"
    )
    assert shares["decode and resize"] == 0.75
    assert shares["HTTP"] == 0.25
    assert sum(shares.values()) == 1


def test_samples_of_threads_that_only_wait_do_not_count() -> None:
    shares = profile.parts(
        "run (asyncio/runners.py:1);classify (server/serving/classify.py:2) 1\n"
        "Thread._bootstrap (threading.py:1002);Thread._bootstrap_inner (threading.py:1045);"
        "Thread.run (threading.py:982);_worker (concurrent/futures/thread.py:81) 7\n"
    )
    assert shares["gateway"] == 1
