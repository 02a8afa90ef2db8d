"""The part of the report about one comparison.

In: a result of the kind `compare`. Out: blocks: its conditions, failures first, then tables and
plots of throughput, latency, CPU time, the gateway's cost, limits, and what follows for a machine.
"""

import statistics
from typing import Any

from loadtest.compare import limits
from loadtest.compare.comparison import AGREEING
from loadtest.report import plots
from loadtest.report.page import Block, Facts, Heading, Plot, Table, Text
from loadtest.results import Result

Point = dict[str, Any]
GUIDE_RATES = (100, 500, 1000, 2000, 5000)  # images per second of a GPU


def blocks(result: Result) -> list[Block]:
    """All of it."""
    models = list(result["models"])
    return [
        Heading(f"Comparison: {', '.join(models)}"),
        *_verdict(result),
        *conditions(result),
        Heading("Throughput, closed loop", 3),
        throughput(result),
        Heading("Latency", 3),
        Text("Milliseconds, of all windows together, by interpolation between our own samples."),
        _latency(result),
        Plot(_name(result, "latency"), "Throughput and latency", _curves(result)),
        Plot(_name(result, "percentiles"), "Latency by percentile", _percentiles(result)),
        Heading("Where the time goes", 3),
        _phases(result),
        Heading("What the gateway costs", 3),
        *_gateway_cost(result),
        Heading("What was the limit", 3),
        limits_reached(result),
        Heading("Gateway cores for a GPU", 3),
        *_guide(result),
    ]


def _name(result: Result, what: str) -> str:
    return f"{result['file'].removesuffix('.json')}_{what}"


def _verdict(result: Result) -> list[Block]:
    found: list[Block] = []
    if not result["complete"]:
        found.append(Text("Broken off: these are the windows measured until then.", wrong=True))
    found += [
        Text(f"Failed {f['count']}×: {f['model']}, {f['load']}: {f['error']}", wrong=True)
        for f in result["failures"]
    ]
    if result["ok"]:
        total = sum(point["requests"] for point in result["points"])
        found.append(Text(f"All of {total} answers in the windows were there and right."))
    return found


def conditions(result: Result) -> list[Block]:
    """What the numbers depend on."""
    stated = {**result["conditions"], **result["settings"]}
    facts = [f"{key.replace('_', ' ')}: {value}" for key, value in stated.items()]
    for name, about in result.get("models", {}).items():
        provenance = about["provenance"]
        weights = "random weights" if provenance.get("random_weights") == "true" else "trained"
        size = f"{about['height']}×{about['width']}"
        facts.append(
            f"{name}: {weights}, {provenance.get('precision', '?')}, {size}, largest batch "
            f"{about['max_batch_size']}, delay {about['queue_delay_us']} µs, "
            f"{about['instances']} instances"
            + "".join(f", {k} {v}" for k, v in provenance.items() if k.startswith("session."))
        )
    return [Facts(facts)]


def paired_ratio(result: Result, first: str, point: Point) -> float | None:
    """Its rate ÷ that of `first` under the same load: the median over the rounds of each's ratio.

    Within a round, a machine that is slow for a while is slow for both.
    """
    other = find(result, first, point["way"], point["concurrency"], point["rate"])
    if other is None:
        return None
    theirs = {w["round"]: w["rate"] for w in other["windows"]}
    ratios = [w["rate"] / theirs[w["round"]] for w in point["windows"] if theirs.get(w["round"])]
    return statistics.median(ratios) if ratios else None


def cpu_ratio(result: Result, first: str, point: Point) -> float | None:
    """How much faster than `first` by the model's CPU time, which waiting does not change."""
    other = find(result, first, point["way"], point["concurrency"], point["rate"])
    theirs = limits.cpu_ms(other, "model") if other else None
    own = limits.cpu_ms(point, "model")
    return theirs / own if theirs and own else None


def find(result: Result, model: str, way: str, concurrency: int, rate: float = 0.0) -> Point | None:
    """The point of this model under this load."""
    wanted = (model, way, concurrency, rate)
    for point in result["points"]:
        if (point["model"], point["way"], point["concurrency"], point["rate"]) == wanted:
            return dict(point)
    return None


def _closed(result: Result) -> list[Point]:
    return [point for point in result["points"] if not point["rate"]]


def throughput(result: Result) -> Table:
    """Images per second in the closed loop, and the ratios."""
    first = next(iter(result["models"]))
    rows = []
    for point in _closed(result):
        windows = [w["rate"] for w in point["windows"]]
        batch = [w["average_batch"] for w in point["windows"] if w["average_batch"] is not None]
        rows.append((
            point["model"],
            point["way"],
            str(point["concurrency"]),
            f"{point['rate_measured']:.1f}",
            f"{min(windows):.1f} to {max(windows):.1f}{_doubt(point)}",
            number(paired_ratio(result, first, point), ".2f"),
            number(statistics.median(batch) if batch else None, ".2f"),
            number(limits.cpu_ms(point, "model"), ".1f"),
            number(cpu_ratio(result, first, point), ".2f"),
        ))  # fmt: skip
    head = (
        *("model", "way", "at once", "images/s", "windows", f"÷ {first}", "average batch"),
        *("model's CPU ms/image", f"speed by CPU time ÷ {first}"),
    )
    return Table(head, rows)


def _doubt(point: Point) -> str:
    if point["agrees"]:
        return ""
    return " unstable" if len(point["windows"]) >= AGREEING else ", too few windows"


def _latency(result: Result) -> Table:
    levels = ("50", "90", "95", "99", "99.9", "100")
    rows = [
        (
            point["model"],
            point["way"],
            f"{point['rate']:g}/s" if point["rate"] else f"{point['concurrency']} at once",
            f"{point['rate_measured']:.1f}",
            str(point["requests"]),
            *(number(point["milliseconds"].get(level), ".1f") for level in levels),
        )
        for point in result["points"]
    ]
    names = [f"p{level}" for level in levels[:-1]] + ["most"]
    return Table(("model", "way", "load", "images/s", "requests", *names), rows)


def _curves(result: Result) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in result["points"]:
        if point["way"] == "gateway" and point["milliseconds"]:
            kind = "open loop" if point["rate"] else "closed loop"
            at = (point["rate_measured"], point["milliseconds"]["50"])
            lines.setdefault(f"{point['model']}, {kind}", []).append(at)
    return plots.curves(lines, "images per second, through the gateway", "median latency, ms")


def _percentiles(result: Result) -> str:
    most = max((p["concurrency"] for p in _closed(result)), default=0)
    lines = {
        f"{model}, {way}": [(float(level), ms) for level, ms in point["milliseconds"].items()]
        for model in result["models"]
        for way in ("gateway", "triton")
        if (point := find(result, model, way, most)) and point["milliseconds"]
    }
    return plots.curves(lines, f"percentile, {most} at once", "latency, ms")


def _phases(result: Result) -> Table:
    rows = []
    for point in result["points"]:
        windows = point["windows"]
        phases = [w["phases"] for w in windows if w["phases"]]

        def mean(values: list[float | None]) -> str:
            found = [value for value in values if value is not None]
            return number(statistics.mean(found) if found else None, ".2f")

        rows.append((
            point["model"],
            point["way"],
            f"{point['rate']:g}/s" if point["rate"] else f"{point['concurrency']} at once",
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


def _gateway_cost(result: Result) -> list[Block]:
    rows = []
    for point in _closed(result):
        direct = find(result, point["model"], "triton", point["concurrency"])
        if point["way"] != "gateway" or direct is None or not direct["milliseconds"]:
            continue
        more = point["milliseconds"].get("50", 0.0) - direct["milliseconds"]["50"]
        rows.append((
            point["model"],
            str(point["concurrency"]),
            f"{point['rate_measured']:.1f}",
            f"{direct['rate_measured']:.1f}",
            number(_over(point["rate_measured"], direct["rate_measured"]), ".2f"),
            f"{more:+.1f}",
            number(limits.cpu_ms(point, "gateway"), ".2f"),
        ))  # fmt: skip
    head = (
        *("model", "at once", "through the gateway, images/s", "straight at Triton"),
        *("ratio", "median latency, ms more", "gateway's CPU ms/image"),
    )
    about = (
        "Straight at Triton, images come decoded and resized; the difference is what the gateway "
        "does: HTTP, decoding, resizing, labels."
    )
    return [Text(about), Table(head, rows)]


def _over(one: float, other: float) -> float | None:
    return one / other if other else None


def limits_reached(result: Result) -> Table:
    """What each point used of each part's capacity, and which was used up."""
    settings = result["settings"]
    rows = []
    for point in result["points"]:
        used = limits.use(point, settings["cores"], settings["workers"])
        shares = (used.model, used.decode, used.event_loop, used.triton, used.cores, used.generator)
        rows.append((
            point["model"],
            point["way"],
            f"{point['rate']:g}/s" if point["rate"] else f"{point['concurrency']} at once",
            *(number(share, ".0%") for share in shares),
            f"{used.late_ms:.1f}" if point["rate"] else "",
            used.limit,
        ))  # fmt: skip
    head = (
        *("model", "way", "load", "model busy", "decoding threads", "gateway's event loop"),
        *("Triton", "all cores", "load generator", "generator late, ms", "limit"),
    )
    return Table(head, rows)


def repeat_blocks(results: list[Result]) -> list[Block]:
    """How far runs that compared the same models agree in their ratios."""
    found: list[Block] = []
    for models in dict.fromkeys(tuple(result["models"]) for result in results):
        runs = [result for result in results if tuple(result["models"]) == models]
        if len(runs) < 2 or len(models) < 2:
            continue
        rows = []
        for point in _closed(runs[0]):
            load = (point["way"], point["concurrency"])
            again = [find(run, point["model"], *load) for run in runs]
            for kind, ratio_of in (("images/s", paired_ratio), ("CPU time", cpu_ratio)):
                ratios = [
                    ratio_of(run, models[0], each) if each else None
                    for run, each in zip(runs, again, strict=True)
                ]
                known = [ratio for ratio in ratios if ratio]
                if point["model"] != models[0] and known:
                    apart = max(known) / min(known) - 1
                    cells = (number(ratio, ".3f") for ratio in ratios)
                    named = (point["model"], load[0], str(load[1]), kind)
                    rows.append((*named, *cells, f"{apart:.1%}"))
        head = (
            *("model", "way", "at once", "speed by"),
            *(run["conditions"]["date"] for run in runs),
            "apart",
        )
        found += [
            Heading(f"Repeated: {', '.join(models)}"),
            Text(f"Speed ÷ that of {models[0]}, in each of {len(runs)} runs."),
            Table(head, rows),
        ]
    return found


def _guide(result: Result) -> list[Block]:
    most = max((p["concurrency"] for p in _closed(result)), default=0)
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
