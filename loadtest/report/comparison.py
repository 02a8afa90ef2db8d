"""The part of the report about one comparison.

In: a result of the kind `compare`. Out: blocks: the verdict, then tables and plots of throughput,
latency, CPU time, the gateway's cost, bottlenecks, and a guide for choosing a machine; last the
conditions.
"""

from loadtest.compare.points import latencies_of
from loadtest.report import plots, verdict
from loadtest.report.page import Block, Details, Facts, Heading, Plot, Table, Text
from loadtest.report.tables import (
    closed_points,
    drifts,
    find,
    gateway_cost,
    guide,
    latency,
    limits_reached,
    others,
    phases,
    ratio_text,
    throughput,
)
from loadtest.results import Result
from loadtest.stats.percentiles import LEVELS, percentile


def blocks(result: Result) -> list[Block]:
    """All blocks of one comparison."""
    models = list(result["models"])
    found: list[Block] = [
        Heading(f"{', '.join(models)}: {verdict.precisions(result)}, {verdict.machine(result)}")
    ]
    found += trouble(result)
    if result["disturbed"]:
        return [*found, conditions(result)]
    found.append(Text(" ".join(verdict.sentences(result))))
    found.append(verdict.table(result))
    found += [plot for plot in (verdict.plot(result, _name(result, "speed")),) if plot]
    found += [
        *_curves(result),
        *_percentiles(result),
        *_ramps(result),
        Details("Throughput of every load, and how well it is known", [
            Text(THROUGHPUT), throughput(result), *drifts(result),
        ]),
        Details("Latency of every load", [Text(LATENCY), latency(result)]),
        Details("Where the time goes", [phases(result)]),
        Details("What the gateway costs", gateway_cost(result)),
        Details("What was the limit", [limits_reached(result)]),
        Details("Gateway cores for a GPU", guide(result)),
        Details("What other programs did meanwhile", [Text(OTHERS), others(result)]),
        conditions(result),
    ]  # fmt: skip
    return found


THROUGHPUT = (
    "A load is called unstable where the rates or the mean latencies of its last three windows "
    "differ by more than 10 %. Ratios come from pairs of windows of one round, so they need not be "
    "the quotient of two numbers in the table."
)
LATENCY = (
    "Milliseconds from when a request was due, of all windows that count. A request that failed "
    "is slower than all others. A percentile with too few requests is not named: the 90th needs "
    "64, the 95th 130, the 99th 662, the 99.9th 6,636 (MLPerf's early stopping)."
)
OTHERS = (
    "Cores that other programs took are the machine's busy time without our own processes; a "
    "window with more than 5 % of the cores was repeated. Pressure is the share of the time in "
    "which somebody waited for a core, our own threads included."
)


def _name(result: Result, what: str) -> str:
    return f"{result['file'].removesuffix('.json')}_{what}"


def trouble(result: Result) -> list[Block]:
    """The problems of a result, which stand before everything else."""
    found: list[Block] = []
    if result.get("disturbed"):
        found.append(Text(f"Disturbed, so that it compares nothing: {result['disturbed']}.", True))
    elif not result["complete"]:
        found.append(Text("Broken off: these are the windows measured until then.", wrong=True))
    found += [
        Text(f"Failed {f['count']}×: {f['model']}, {f['load']}: {f['error']}", wrong=True)
        for f in result["failures"]
        if isinstance(f, dict)
    ]
    found += [Text(f"Failed: {f}", wrong=True) for f in result["failures"] if isinstance(f, str)]
    return found


def conditions(result: Result) -> Details:
    """The conditions of the measurement, folded away."""
    stated = {**result["conditions"], **result["settings"]}
    facts = [f"{key.replace('_', ' ')}: {value}" for key, value in stated.items()]
    for name, about in result.get("models", {}).items():
        provenance = about["provenance"]
        weights = "random weights" if provenance.get("random_weights") == "true" else "trained"
        size = f"{about['height']}×{about['width']}"
        facts.append(
            f"{name}: {weights}, {provenance.get('precision', '?')}, {size}, largest batch "
            f"{about['max_batch_size']}, delay {about['queue_delay_us']} µs, "
            f"{about['instances']} instances, threads {about.get('threads') or 'all cores'}"
            + "".join(f", {k} {v}" for k, v in provenance.items() if k.startswith("session."))
        )
    return Details("Conditions of these numbers", [Facts(facts), Text(f"From `{result['file']}`.")])


def _curves(result: Result) -> list[Block]:
    models: dict[str, dict[str, plots.Series]] = {}
    for model in result["models"]:
        points = sorted(
            (p for p in result["points"] if p["model"] == model and p["rate"]),
            key=lambda p: float(p["rate"]),
        )
        levels = {}
        for name, level in (("p50", 50.0), ("p99", 99.0)):
            found = [(p["rate"], percentile(latencies_of(p), level)) for p in points]
            known = [(x, each) for x, each in found if each and each.high != float("inf")]
            levels[name] = plots.Series(
                [x for x, _ in known],
                [each.value for _, each in known],
                [each.low for _, each in known],
                [each.high for _, each in known],
            )
        if levels["p50"].x:
            models[model] = levels
    if not models:
        return []
    svg = plots.rate_and_latency(models, "Latency against load", verdict.subtitle(result))
    about = "Curves of latency against images per second, p50 " + "; ".join(
        f"{model} from {levels['p50'].y[0]:.0f} ms at {levels['p50'].x[0]:g} per second to "
        f"{levels['p50'].y[-1]:.0f} ms at {levels['p50'].x[-1]:g}"
        for model, levels in models.items()
    )
    text = "Bands are 95 % intervals. A p99 is drawn where there were 662 requests."
    return [Plot(_name(result, "latency"), about, svg), Text(text)]


def _percentiles(result: Result) -> list[Block]:
    most = max((p["concurrency"] for p in closed_points(result)), default=0)
    lines = {
        (model, way): latencies
        for model in result["models"]
        for way in ("gateway", "triton")
        if (point := find(result, model, way, most))
        and (latencies := [each for each in latencies_of(point) if each != float("inf")])
        and percentile(latencies, 50)
    }
    if not lines:
        return []
    levels = [
        max(level for level in LEVELS if percentile(samples, level)) for samples in lines.values()
    ]
    furthest = max(levels) / 100
    title = f"Latency by percentile, {most} requests at once"
    svg = plots.percentiles(lines, title, verdict.subtitle(result), furthest)
    about = f"Latency by percentile up to p{100 * furthest:g}, through the gateway and at Triton"
    return [Details(title, [Plot(_name(result, "percentiles"), about, svg)])]


def _ramps(result: Result) -> list[Block]:
    rows = []
    for each in result["ramps"]:
        kept = [trial for trial in each["trials"] if trial["kept"]]
        best = max(kept, key=lambda trial: float(trial["rate"]), default=None)
        rows.append((
            each["model"],
            f"{each['slo_p99_ms']:g}",
            f"{best['rate']:.1f}" if best else "none",
            f"{best['goodput']:.1f}" if best else "–",
            f"{best['late']} of {best['requests']}" if best else "–",
            ", ".join(f"{t['rate']:.1f} {'kept' if t['kept'] else 'not'}" for t in each["trials"]),
        ))  # fmt: skip
    if not rows:
        return []
    head = (
        *("model", "p99 within, ms", "greatest rate, images/s", "goodput, images/s"),
        *("later than that", "tried"),
    )
    return [
        Heading("The greatest rate within a limit", 3),
        Text("Requests at random times; kept with 99 % confidence, as MLPerf's Server scenario."),
        Table(head, rows),
    ]


def repeat_blocks(results: list[Result]) -> list[Block]:
    """How far runs that compared the same models on one machine agree in their ratios."""
    found: list[Block] = []
    same: dict[tuple[tuple[str, ...], str, str], list[Result]] = {}
    for result in results:
        if not result["disturbed"]:
            key = (tuple(result["models"]), verdict.precisions(result), verdict.machine(result))
            same.setdefault(key, []).append(result)
    for (models, precision, machine), runs in same.items():
        if len(runs) < 2 or len(models) < 2:
            continue
        rows = []
        for other in models[1:]:
            ratios = [verdict.faster(run, other) for run in runs]
            known = [ratio for ratio in ratios if ratio is not None]
            agree = all(one.overlaps(two) for one in known for two in known)
            cells = [ratio_text(ratio) for ratio in ratios]
            rows.append((other, *cells, "yes" if agree else "NO"))
        dates = [run["conditions"]["date"] for run in runs]
        found += [
            Heading(f"Repeated: {', '.join(models)}, {precision}, {machine}"),
            Text(f"How many times as fast {models[0]} is as each other model, in each run."),
            Table(("model", *dates, "intervals overlap"), rows),
        ]
    return found
