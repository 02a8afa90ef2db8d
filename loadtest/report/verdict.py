"""The verdict of one comparison: three sentences, one table, one plot.

In: a result of the kind `compare`. Out: the conclusions that the result supports, each number with
its 95 % interval; where an interval leaves a question open, the sentence says so.
"""

from collections.abc import Sequence
from typing import Any

from loadtest.compare import limits
from loadtest.compare.points import (
    counted_windows,
    latencies_of,
    recorded_cpu_ratio,
    recorded_ratio,
)
from loadtest.machine.conditions import NO_FAMILY
from loadtest.report import plots
from loadtest.report.page import Plot, Table
from loadtest.results import Result
from loadtest.stats.percentiles import Percentile, percentile
from loadtest.stats.ratios import Ratio, t_quantile

Point = dict[str, Any]
# The flags of a CPU that tell its generation, from the best one down, in the words of its maker.
INSTRUCTIONS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx2": "AVX2",
}
NEAR = 0.6  # the share of a model's capacity at which the verdict names latencies


def main_point(result: Result, model: str) -> Point | None:
    """The model at the greatest load of the closed loop, through the gateway."""
    closed: list[Point] = [p for p in result["points"] if not p["rate"] and p["way"] == "gateway"]
    most = max((p["concurrency"] for p in closed), default=0)
    for point in closed:
        if (point["model"], point["concurrency"]) == (model, most) and counted_windows(point):
            return point
    return None


def open_point(result: Result, model: str) -> Point | None:
    """The model in the open loop, at the rate nearest to NEAR of its capacity."""
    main = main_point(result, model)
    found: list[Point] = [p for p in result["points"] if p["rate"] and p["model"] == model]
    if main is None or not found:
        return None
    return min(found, key=lambda p: abs(p["rate"] / main["rate_measured"] - NEAR))


def faster(result: Result, other: str) -> Ratio | None:
    """Images per second of the first model ÷ those of another."""
    first, second = (main_point(result, model) for model in (next(iter(result["models"])), other))
    return recorded_ratio(second, first) if first and second else None


def faster_by_cpu(result: Result, other: str) -> Ratio | None:
    """The ratio of the two models by the CPU time of the model's process."""
    first, second = (main_point(result, model) for model in (next(iter(result["models"])), other))
    return recorded_cpu_ratio(second, first) if first and second else None


def rate_interval(point: Point) -> tuple[float, float, float]:
    """Images per second: mean of the windows and its 95 % interval."""
    rates = [window["rate"] for window in counted_windows(point)]
    mean = sum(rates) / len(rates)
    if len(rates) < 2:
        return mean, mean, mean
    spread = (sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1)) ** 0.5
    half = t_quantile(len(rates) - 1) * spread / len(rates) ** 0.5
    return mean, max(0.0, mean - half), mean + half


def level(point: Point | None, wanted: float) -> Percentile | None:
    """A percentile of the latency in milliseconds; None of too few requests."""
    return percentile(latencies_of(point), wanted) if point else None


def sentences(result: Result) -> list[str]:
    """The findings, in three sentences."""
    first, *others = result["models"]
    main = main_point(result, first)
    if main is None:
        return ["Nothing was measured that counts."]
    mean, low, high = rate_interval(main)
    speed = (
        f"On {machine(result)} {first} answers {mean:.1f} images per second "
        f"({low:.1f} to {high:.1f}) through the whole path, from a JPEG over HTTP"
    )
    compared = [text for other in others if (text := _compared(result, other))]
    found = [speed + (": " + "; ".join(compared) if compared else "") + "."]
    waits = [text for model in result["models"] if (text := _waits(result, model))]
    if waits:
        found.append(f"Requests at random times wait as follows: {'; '.join(waits)}.")
    settings = result["settings"]
    limit = limits.use(main, settings["cores"], settings["workers"]).limit
    total = sum(point["requests"] for point in result["points"])
    right = (
        f"all {total} answers, of all models together, were those recorded before the load"
        if result["ok"]
        else "SOME ANSWERS WERE WRONG"
    )
    found.append(f"What limits {first} is {_named(limit)}; {right}.")
    return found


def _compared(result: Result, other: str) -> str:
    ratio = faster(result, other)
    if ratio is None:
        return ""
    if not ratio.known:
        return f"{ratio.text()} times as many as {other}"
    if not ratio.differs:
        return f"no difference to {other} is shown, {ratio.text()}"
    return f"{ratio.text()} times as many as {other}"


def _waits(result: Result, model: str) -> str:
    point, main = open_point(result, model), main_point(result, model)
    half = level(point, 50)
    if point is None or main is None or half is None:
        return ""
    load = point["rate"] / main["rate_measured"]
    text = f"{model}, at {load:.0%} of its own greatest rate, half within {half.text('.0f')} ms"
    slow = level(point, 99)
    if slow is not None:
        return f"{text}, 99 % within {slow.text('.0f')} ms"
    tail = level(point, 95) or level(point, 90)
    return f"{text}, {tail.level:g} % within {tail.text('.0f')} ms" if tail else text


def _named(limit: str) -> str:
    return {
        "model": "the model itself",
        "decode": "decoding",
        "gateway": "the gateway's event loop",
        "none": "nothing yet: it was not pressed hard enough",
    }.get(limit, limit)


def table(result: Result) -> Table:
    """One row for each model."""
    first = next(iter(result["models"]))
    settings = result["settings"]
    rows = []
    for model in result["models"]:
        main, point = main_point(result, model), open_point(result, model)
        if main is None:
            continue
        mean, low, high = rate_interval(main)
        rows.append((
            model,
            f"{mean:.1f} ({low:.1f} to {high:.1f})",
            _times(faster(result, model)) if model != first else "",
            _times(faster_by_cpu(result, model)) if model != first else "",
            *(_shown(level(point, each)) for each in (50, 95, 99)),
            limits.use(main, settings["cores"], settings["workers"]).limit,
        ))  # fmt: skip
    head = (
        *("model", "images/s", f"speed of {first} ÷ this one's", "the same by CPU time"),
        *(f"{name}, ms, at {NEAR:.0%}" for name in ("p50", "p95", "p99")),
        "limit",
    )
    return Table(head, rows)


def _times(ratio: Ratio | None) -> str:
    return "–" if ratio is None else ratio.text()


def _shown(found: Percentile | None) -> str:
    """A percentile with its interval; a dash where there were too few requests."""
    if found is None:
        return "–"
    high = f"{found.high:.0f}" if found.high != float("inf") else "?"
    return f"{found.text('.0f')} ({found.low:.0f} to {high})"


def plot(result: Result, name: str) -> Plot | None:
    """Images per second of each model, with intervals."""
    first = next(iter(result["models"]))
    rows = []
    for model in result["models"]:
        main = main_point(result, model)
        if main is None:
            continue
        ratio = faster(result, model) if model != first else None
        mean, low, high = rate_interval(main)
        slower = f" ({ratio.inverse().value:.2f} × {first})" if ratio else ""
        rows.append((model, mean, low, high, f"{mean:.1f}{slower}"))
    if not rows:
        return None
    about = ", ".join(f"{row[0]} {row[1]:.1f}" for row in rows)
    load = main_point(result, first)
    at_once = load["concurrency"] if load else 0
    svg = plots.bars(
        rows, "Images per second, through the whole path", subtitle(result),
        f"images per second, {at_once} requests at once, 95 % intervals",
    )  # fmt: skip
    return Plot(name, f"Bars of images per second: {about}", svg)


def subtitle(result: Result) -> str:
    """Machine, precision and day, below the title of a plot."""
    precision = precisions(result)
    about = f", {precision}" if precision else ""
    return f"{machine(result)}{about} · {result['conditions']['date'][:10]}"


def machine(result: Result) -> str:
    """The device that computed: the GPU, else the CPU with what tells its generation.

    Virtual machines call CPUs of several generations by one name, for example "AMD EPYC". Older
    results have no family, so the best of the instructions stands beside it.
    """
    stated = result["conditions"]
    if stated["gpu"] != "none":
        return str(stated["gpu"]).partition(",")[0]
    name, _, cores = stated["cpu"].rpartition(", ")
    flags = stated.get("cpu_flags", "").split(", ")
    best = next((text for flag, text in INSTRUCTIONS.items() if flag in flags), "")
    family = stated.get("cpu_family", NO_FAMILY)
    told = ", ".join(each for each in (best, "" if family == NO_FAMILY else family) if each)
    return f"{name} ({told}), {cores}" if told else f"{name}, {cores}"


def by_machine(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each machine, in the order in which the machines come."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(machine(result), []).append(result)
    return found


def precisions(result: Result) -> str:
    """The precision of the models, as they were exported."""
    found = {
        about["provenance"].get("precision", "") for about in result.get("models", {}).values()
    }
    return ", ".join(sorted(found - {""}))
