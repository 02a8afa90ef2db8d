"""Whether the measurements of one server by several programs agree.

In: numbers of each program, by rounds. Out: rows of a table, with 95 % intervals. Where the
intervals of two programs have no value in common, the row has the factor by which they differ.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.rulers.programs import Numbers
from loadtest.stats.ratios import Ratio, paired, t_quantile

LEAST_ROUNDS = 3  # needed for an interval
OURS, LOADGEN, WRK, PERF = "this engine", "MLPerf LoadGen", "wrk", "perf_analyzer"
Runs = Mapping[str, Mapping[int, Numbers]]  # numbers by run and round


@dataclasses.dataclass(frozen=True)
class Row:
    """A number that several programs measure: its name, and the run of each program that has it."""

    what: str
    number: str
    runs: dict[str, str]  # program: run
    digits: int = 1


def rows_of(rate: float, at_triton: float) -> list[Row]:
    """The numbers that are compared."""
    one, eight = {OURS: "ours, 1", LOADGEN: "LoadGen, 1", WRK: "wrk, 1"}, {
        OURS: "ours, 8", LOADGEN: "LoadGen, 8", WRK: "wrk, 8",
    }  # fmt: skip
    timed = {OURS: "ours, 8", WRK: "wrk, 8"}
    together = {OURS: "ours, together", LOADGEN: "LoadGen, together"}
    chance = {OURS: "ours, random", LOADGEN: "LoadGen, random"}
    rows = [
        Row("1 at once (SingleStream), images/s", "rate", one),
        Row("1 at once, p90, ms", "p90", one, 2),
        Row("8 at once (Offline), images/s", "rate", eight),
        Row("8 at once, p90, ms", "p90", timed),
        Row("8 together, then the next 8 (MultiStream), p99, ms", "p99", together),
        Row(f"{rate:.0f}/s at random times (Server), p50, ms", "p50", chance, 2),
        Row(f"{rate:.0f}/s at random times (Server), p99, ms", "p99", chance),
    ]
    for what, run in (("1 at once", "1"), ("8 at once", "8")):
        runs = {OURS: f"ours at Triton, {run}", PERF: f"perf, {run}"}
        rows.append(Row(f"straight at Triton, {what}, images/s", "rate", runs))
        rows.append(Row(f"straight at Triton, {what}, p90, ms", "p90", runs, 2))
    runs = {OURS: "ours at Triton, random", PERF: "perf, random"}
    name = f"straight at Triton, {at_triton:.0f}/s at random times"
    return [*rows, Row(f"{name}, p50, ms", "p50", runs, 2), Row(f"{name}, p99, ms", "p99", runs)]


def compared(row: Row, runs: Runs) -> dict[str, Any] | None:
    """The row as plain data; None where fewer than two programs have measured it.

    `agree` is "yes", who differs by which factor, or "" where there are too few rounds to tell.
    """
    values = {}
    for program, run in row.runs.items():
        found = [each[row.number] for each in runs.get(run, {}).values() if row.number in each]
        if found:
            values[program] = interval(found)
    if len(values) < 2:
        return None
    apart = []
    for one, other in itertools.combinations(values, 2):
        if not overlap(values[one], values[other]):
            ratio = _ratio(row, runs, one, other)
            apart.append(f"NO: {other} ÷ {one} {ratio.text() if ratio else ''}")
    return {
        "what": row.what,
        "digits": row.digits,
        "values": values,
        "agree": "; ".join(apart) or ("yes" if all(map(known, values.values())) else ""),
    }


def _ratio(row: Row, runs: Runs, one: str, other: str) -> Ratio | None:
    first, second = (runs[row.runs[program]] for program in (one, other))
    pairs = [(first[n][row.number], second[n][row.number]) for n in first if n in second]
    return paired(pairs)


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """The geometric mean over the rounds and its 95 % interval, by Student's t of logarithms."""
    logs = [math.log(value) for value in values]
    mean = statistics.fmean(logs)
    if len(values) < LEAST_ROUNDS:
        return {"value": math.exp(mean), "low": None, "high": None, "rounds": len(values)}
    half = t_quantile(len(values) - 1) * statistics.stdev(logs) / math.sqrt(len(values))
    low, middle, high = (round(math.exp(mean + each), 4) for each in (-half, 0.0, half))
    return {"value": middle, "low": low, "high": high, "rounds": len(values)}


def known(interval: dict[str, float | None]) -> bool:
    """Whether there were enough rounds for an interval."""
    return interval["low"] is not None and interval["high"] is not None


def overlap(one: dict[str, float | None], other: dict[str, float | None]) -> bool:
    """Whether two intervals have values in common; true if one of them is unknown."""
    if not known(one) or not known(other):
        return True
    return bool(one["low"] <= other["high"] and other["low"] <= one["high"])  # type: ignore[operator] # floats
