"""`report`: makes pages of Markdown with their plots, and one HTML file, from results.

In: result files. Out: the first page with the verdict; in a folder of that page's name a page for
each question and the plots; and the HTML file. The same results give the same pages.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from contracts.counting import counted
from loadtest.report import bare, claims, comparison, front, growth, page, rulers, studies
from loadtest.report.comparison import conditions, trouble
from loadtest.report.page import Block, Heading, Page, Table, Text
from loadtest.report.tables import number
from loadtest.results import Result, ResultsError
from loadtest.stats.shares import mcnemar, wilson

TITLE = "Is a Mixer faster?"
PLOTS = "plots"


def pages(results: Sequence[Result], trained: Sequence[studies.Trained] = ()) -> list[Page]:
    """All pages, the first one first."""
    kinds: dict[str, list[Result]] = {}
    for result in results:
        kinds.setdefault(result["kind"], []).append(result)
    compared = kinds.get("compare", [])
    sizes = [result for result in compared if _one_family(result)]
    families = [result for result in compared if result not in sizes]
    evidence = claims.Evidence(
        _calm(families), _calm(kinds.get("sweep", [])), trained, _calm(sizes)
    )
    found = [
        Page("speed", "How fast is each model, through the whole path?", _speed(compared)),
        Page(
            "growth",
            "How does the cost grow with resolution?",
            _each(growth.blocks, kinds, "sweep"),
        ),
        Page("claims", "Which of the claims hold?", claims.blocks(evidence)),
        Page("accuracy", "How accurate are they?", _accuracy(kinds, compared, trained)),
        Page("bare", "How fast are the bare models?", _each(bare.blocks, kinds, "bare")),
        Page(
            "rulers",
            "Do independent programs measure the same?",
            _each(rulers.blocks, kinds, "rulers"),
        ),
        Page("tuned", "Which settings are best?", _each(_tune, kinds, "tune")),
    ]
    there = [each for each in found if each.blocks]
    return [Page("", TITLE, front.blocks(families, kinds.get("sweep", []), there)), *there]


def _one_family(result: Result) -> bool:
    """Whether a comparison is of one model at several resolutions or precisions."""
    return len({model.partition("_")[0] for model in result["models"]}) == 1 < len(result["models"])


def _calm(results: Sequence[Result]) -> list[Result]:
    return [each for each in results if not each["disturbed"] and each["ok"]]


def _each(
    make: Callable[[Result], list[Block]], kinds: dict[str, list[Result]], kind: str
) -> list[Block]:
    return [block for result in kinds.get(kind, []) for block in make(result)]


def _speed(results: Sequence[Result]) -> list[Block]:
    found: list[Block] = []
    for result in results:
        found += comparison.blocks(result)
        if not result["disturbed"]:
            found += bare.served_blocks(result)
    return found + comparison.repeat_blocks(list(results))


def _accuracy(
    kinds: dict[str, list[Result]],
    compared: list[Result],
    trained: Sequence[studies.Trained],
) -> list[Block]:
    measured = kinds.get("evaluate", [])
    found = [block for result in measured for block in _evaluate(result)]
    found += _pairs(measured)
    found += studies.blocks(trained)
    return found + bare.published_blocks(_calm(compared))


def _tune(result: Result) -> list[Block]:
    rows = [
        (
            *(str(value) for value in trial["knobs"].values()),
            f"{trial['rate']:.1f}",
            number(trial["p99_ms"], ".0f"),
            trial["note"],
        )
        for trial in result["trials"]
    ]
    names = list(result["trials"][0]["knobs"]) if result["trials"] else []
    head = (*names, "images/s within the p99", "p99, ms", "")
    about = (
        f"The most images per second with a 99th percentile of at most {result['slo_p99_ms']:g} ms."
    )
    return [
        Heading(f"Tuned: {result['model']}"),
        *trouble(result | {"failures": []}),
        Text(about),
        Table(head, rows),
        conditions(result),
    ]


def _evaluate(result: Result) -> list[Block]:
    confused = [(each["true"], each["said"], str(each["count"])) for each in result["confused"]]
    count = result["pictures"]
    top1, top5 = (wilson(round(result[key] * count), count) for key in ("top1", "top5"))
    return [
        Heading(f"Accuracy of {result['model']}, over HTTP"),
        *trouble(result),
        Text(
            f"Top-1 {top1.text()}, top-5 {top5.text()}, of {counted(count, 'image')}, "
            f"{result['pictures_per_second']:.0f} per second; 95 % intervals by Wilson."
        ),
        Table(("is", "was called", "times"), confused),
        conditions(result),
    ]


def _pairs(results: Sequence[Result]) -> list[Block]:
    """Models that were measured on the same images, by McNemar's test."""
    rows = []
    for place, one in enumerate(results):
        for other in results[place + 1 :]:
            same = one.get("images_sha256") == other.get("images_sha256")
            if not same or not one.get("hits") or one["model"] == other["model"]:
                continue
            pairs = list(zip(one["hits"], other["hits"], strict=True))
            only = [sum(pair == split for pair in pairs) for split in (("1", "0"), ("0", "1"))]
            chance = mcnemar(*only)
            rows.append((one["model"], other["model"], str(only[0]), str(only[1]), f"{chance:.2g}"))
    if not rows:
        return []
    return [
        Heading("The same images, two models"),
        Text("What only one of the two got right, and the chance of that if both were as good."),
        Table(("one", "the other", "only the one", "only the other", "chance"), rows),
    ]


def write(
    results: Sequence[Result],
    markdown: Path | None,
    html: Path | None,
    trained: Sequence[studies.Trained] = (),
) -> None:
    """Write the pages that have a path: further pages and plots into a folder beside the first.

    Raises ResultsError.
    """
    made = pages(results, trained)
    try:
        if markdown is not None:
            folder = markdown.parent / markdown.stem
            for each in made:
                for plot in page.plots(each.blocks):
                    _write(folder / PLOTS / f"{plot.name}.svg", plot.svg)
                if each.name:
                    _write(folder / f"{each.name}.md", page.markdown(each, PLOTS))
            text = page.markdown(made[0], f"{markdown.stem}/{PLOTS}")
            _write(markdown, text.replace("](results/", f"]({markdown.stem}/"))
        if html is not None:
            _write(html, page.html_page(made))
    except OSError as error:
        raise ResultsError(f"{error.filename}: cannot be written: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
