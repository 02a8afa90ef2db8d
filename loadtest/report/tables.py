"""The tables of the report about one comparison.

In: a result of the kind `compare`. Out: tables of throughput, latency, the phases of a request, the
gateway's cost, bottlenecks, and the use of the machine by other programs.
"""

import statistics
from typing import Any

from loadtest.compare import limits
from loadtest.compare.points import (
    counted_windows,
    latencies_of,
    recorded_cpu_ratio,
    recorded_ratio,
)
from loadtest.report.page import Block, Facts, Table, Text
from loadtest.results import Result
from loadtest.stats.percentiles import LEVELS, percentile
from loadtest.stats.ratios import Ratio
from loadtest.stats.steadiness import AGREEING, drift

Point = dict[str, Any]
GUIDE_RATES = (100, 500, 1000, 2000, 5000)  # images per second of a GPU


def find(result: Result, model: str, way: str, concurrency: int, rate: float = 0.0) -> Point | None:
    """The point of this model under this load."""
    wanted = (model, way, concurrency, rate)
    for point in result["points"]:
        if (point["model"], point["way"], point["concurrency"], point["rate"]) == wanted:
            return dict(point)
    return None


def closed_points(result: Result) -> list[Point]:
    return [p for p in result["points"] if not p["rate"] and counted_windows(p)]


def load_text(point: Point) -> str:
    return f"{point['rate']:g}/s" if point["rate"] else f"{point['concurrency']} at once"


def throughput(result: Result) -> Table:
    """Images per second in the closed loop, and the ratios."""
    first = next(iter(result["models"]))
    rows = []
    for point in closed_points(result):
        windows = [w["rate"] for w in counted_windows(point)]
        base = find(result, first, point["way"], point["concurrency"])
        batches = [w["average_batch"] for w in counted_windows(point)]
        known = [batch for batch in batches if batch is not None]
        itself = point["model"] == first
        rows.append((
            point["model"],
            point["way"],
            str(point["concurrency"]),
            f"{point['rate_measured']:.1f}",
            f"{min(windows):.1f} to {max(windows):.1f}{_doubt(point)}",
            "" if itself else ratio_text(recorded_ratio(base, point) if base else None),
            "" if itself else ratio_text(recorded_cpu_ratio(base, point) if base else None),
            number(statistics.median(known) if known else None, ".2f"),
            number(limits.cpu_ms(point, "model"), ".1f"),
        ))  # fmt: skip
    head = (
        *(
            "model",
            "way",
            "at once",
            "images/s, median",
            "windows",
            f"rate ÷ that of {first} (95 %)",
        ),
        *(f"speed by CPU time ÷ that of {first} (95 %)", "average batch", "model's CPU ms/image"),
    )
    return Table(head, rows)


def ratio_text(ratio: Ratio | None) -> str:
    return "–" if ratio is None else ratio.text()


def _doubt(point: Point) -> str:
    if point["agrees"]:
        return ""
    return " unstable" if len(counted_windows(point)) >= AGREEING else ", too few windows"


def drifts(result: Result) -> list[Block]:
    """Points whose speed changed from the first window to the last, beyond chance."""
    lines = []
    for point in closed_points(result):
        found = drift([w["rate"] for w in counted_windows(point)])
        if found is not None and found.excludes(1) and abs(found.value - 1) > 0.03:
            name = f"{point['model']}, {point['way']}, {load_text(point)}"
            lines.append(
                f"{name}: {found.value - 1:+.0%} from the first window to the last "
                f"({found.low - 1:+.0%} to {found.high - 1:+.0%})"
            )
    if not lines:
        return [Text("No load drifted from its first window to its last by more than chance.")]
    return [Text("These drifted; pairs of windows see little of it:"), Facts(lines)]


def latency(result: Result) -> Table:
    rows = []
    for point in result["points"]:
        latencies = latencies_of(point)
        found = [percentile(latencies, level) for level in LEVELS]
        rows.append((
            point["model"],
            point["way"],
            load_text(point),
            number(point["rate_measured"], ".1f"),
            str(len(latencies)),
            *("–" if each is None else each.text() for each in found),
        ))  # fmt: skip
    names = [f"p{level:g}" for level in LEVELS]
    return Table(("model", "way", "load", "images/s", "requests", *names), rows)


def phases(result: Result) -> Table:
    rows = []
    for point in result["points"]:
        windows = counted_windows(point)
        phases = [w["phases"] for w in windows if w["phases"]]

        def mean(values: list[float | None]) -> str:
            found = [value for value in values if value is not None]
            return number(statistics.mean(found) if found else None, ".2f")

        rows.append((
            point["model"],
            point["way"],
            load_text(point),
            *(mean([p.get(name) for p in phases]) for name in ("queue", "decode", "inference")),
            mean([w["queue_ms"] for w in windows]),
            mean([w["compute_ms"] for w in windows]),
            *(
                number(limits.cpu_ms(point, role), ".2f")
                for role in ("gateway", "triton", "model", "generator")
            ),
        ))  # fmt: skip
    head = (
        *("model", "way", "load", "wait for a thread, ms", "decode, ms", "inference, ms"),
        *("Triton's queue, ms", "one batch, ms"),
        *("CPU ms/image: gateway", "Triton", "model", "load generator"),
    )
    return Table(head, rows)


def gateway_cost(result: Result) -> list[Block]:
    rows = []
    for point in closed_points(result):
        direct = find(result, point["model"], "triton", point["concurrency"])
        if point["way"] != "gateway" or direct is None:
            continue
        ours, theirs = (percentile(latencies_of(each), 50) for each in (point, direct))
        more = f"{ours.value - theirs.value:+.1f}" if ours and theirs else "–"
        rows.append((
            point["model"],
            str(point["concurrency"]),
            number(point["rate_measured"], ".1f"),
            number(direct["rate_measured"], ".1f"),
            ratio_text(recorded_ratio(direct, point)),
            more,
            number(limits.cpu_ms(point, "gateway"), ".2f"),
        ))  # fmt: skip
    head = (
        *("model", "at once", "through the gateway, images/s", "straight at Triton"),
        *("ratio (95 %)", "median latency, ms more", "gateway's CPU ms/image"),
    )
    about = (
        "Straight at Triton, images come decoded and resized; the difference is what the gateway "
        "does: HTTP, decoding, resizing, labels."
    )
    return [Text(about), Table(head, rows)]


def limits_reached(result: Result) -> Table:
    """The share of each part's capacity that each point used, and the part that was used up."""
    settings = result["settings"]
    rows = []
    for point in (p for p in result["points"] if counted_windows(p)):
        used = limits.use(point, settings["cores"], settings["workers"])
        shares = (used.model, used.decode, used.event_loop, used.triton, used.cores, used.generator)
        rows.append((
            point["model"],
            point["way"],
            load_text(point),
            *(number(share, ".0%") for share in (*shares, used.others)),
            f"{used.late_ms:.1f}" if point["rate"] else "",
            used.limit,
        ))  # fmt: skip
    head = (
        *("model", "way", "load", "model busy", "decoding threads", "gateway's event loop"),
        *("Triton", "all cores", "load generator", "other programs", "generator late, ms"),
        "limit",
    )
    return Table(head, rows)


def others(result: Result) -> Table:
    rows = []
    for point in result["points"]:
        seen = [w["machine"] for w in point["windows"] if w["machine"]]
        if not seen:
            continue
        rows.append((
            point["model"],
            point["way"],
            load_text(point),
            str(len(point["windows"])),
            str(len(point["windows"]) - len(counted_windows(point))),
            *(_most(seen, key, form) for key, form in (
                ("foreign_cores", ".2f"), ("steal_cores", ".2f"), ("pressure", ".0%"),
            )),
        ))  # fmt: skip
    head = (
        *("model", "way", "load", "windows", "disturbed", "most cores of other programs"),
        *("most cores of other guests", "most pressure"),
    )
    return Table(head, rows)


def _most(seen: list[dict[str, Any]], key: str, form: str) -> str:
    known = [each[key] for each in seen if each[key] is not None]
    return number(max(known) if known else None, form)


def guide(result: Result) -> list[Block]:
    most = max((p["concurrency"] for p in closed_points(result)), default=0)
    rows = []
    for model in result["models"]:
        point = find(result, model, "gateway", most)
        cost = limits.cpu_ms(point, "gateway") if point else None
        if cost is not None:
            cores = (f"{rate * cost / 1e3:.1f}" for rate in GUIDE_RATES)
            rows.append((model, f"{cost:.2f}", *cores))
    if not rows:
        return [Text("Not measured: the gateway was not started here, its CPU time is unknown.")]
    about = (
        "A GPU that answers so many images per second keeps so many gateway cores busy, with these "
        "images: images per second × the gateway's CPU time per image."
    )
    head = ("model", "gateway's CPU ms/image", *(f"{rate} images/s" for rate in GUIDE_RATES))
    return [Text(about), Table(head, rows)]


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else format(value, form)
