"""The report's plots, as SVG text: the same data give the same text.

Each model has one colour in all plots, and a marker. The colours are Okabe and Ito's palette, which
colour-blind readers can tell apart. The style of a line shows the way (gateway or Triton). Every
plot has a title, the machine and the day, and axes with units. A plot has light colours, and
changes to dark ones by itself on a dark page. Text stays text in the SVG, large enough for a phone.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from loadtest.report.point_labels import GUIDE, label_points

INK, PAPER, GRID = "#1f2329", "#fefefe", "#d0d7df"
STYLE = {
    "svg.hashsalt": "mixer-serving", "svg.fonttype": "none", "font.size": 10,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "text.color": INK,
    "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "legend.frameon": False,
    "legend.fontsize": 9,
}  # fmt: skip
# Our style on top of matplotlib's defaults: settings of other code and of a user's matplotlibrc
# have no effect.
_own_style = style.context(STYLE, after_reset=True)
# The replacements of three of these colours on a dark page.
DARK = {INK: "#e6edf3", PAPER: "#0d1117", GRID: "#30363d"}
SIZE = (5.0, 4.0)  # inches: text of 10 points has about 10 pixels on a phone
# By family, so that a family has the same colours on every page. Okabe and Ito, 2008.
FAMILIES = {
    "mixer": ("#0072b2", "#56b4e9", "#6a5acd"),
    "vit": ("#d55e00", "#e69f00", "#a65628"),
    "bit": ("#009e73", "#66c2a5", "#4d9221"),
}
OTHERS = ("#cc79a7", "#888888", "#b59f00")
MARKERS = {"mixer": "os^", "vit": "DvP", "bit": "Xh*"}


class Look(NamedTuple):
    """How a model is drawn."""

    colour: str
    marker: str


class Series(NamedTuple):
    """Points of a line, with a band around it where one is known."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def looks(names: Sequence[str]) -> dict[str, Look]:
    """The look of each model, by its family and its place among those of its family."""
    found: dict[str, Look] = {}
    counts: dict[str, int] = {}
    for name in names:
        family = next((f for f in FAMILIES if name.lower().startswith(f)), "")
        place = counts.get(family, 0)
        counts[family] = place + 1
        colours = FAMILIES.get(family, OTHERS)
        markers = MARKERS.get(family, "o<>")
        found[name] = Look(colours[place % len(colours)], markers[place % len(markers)])
    return found


def _figure(title: str, subtitle: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    axes = figure.subplots()
    axes.set_title(subtitle, loc="left", fontsize=8.5)
    return figure, axes


@_own_style
def bars(
    rows: Sequence[tuple[str, float, float, float, str]], title: str, subtitle: str, x: str
) -> str:
    """Horizontal bars; a row has name, value, both ends of its interval, text at the bar's end."""
    figure, axes = _figure(title, subtitle, (SIZE[0], 1.3 + 0.55 * len(rows)))
    look = looks([row[0] for row in rows])
    most = max(high for _, _, _, high, _ in rows)
    for place, (name, value, low, high, text) in enumerate(list(reversed(rows))):
        axes.barh(place, value, height=0.6, color=look[name].colour)
        axes.plot([low, high], [place, place], color=INK, lw=1.4, solid_capstyle="butt")
        axes.annotate(
            text, (max(high, value), place), xytext=(6, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.55 * most)
    axes.set_xlabel(x)
    return _svg(figure)


@_own_style
def rate_and_latency(models: Mapping[str, Mapping[str, Series]], title: str, subtitle: str) -> str:
    """Latency against the rate, for each model and percentile ("p50", "p99"), with bands."""
    figure, axes = _figure(title, subtitle)
    look = looks(list(models))
    styles = {"p50": "-", "p99": "--"}
    for model, levels in models.items():
        for level, series in levels.items():
            if not series.x:
                continue
            colour = look[model].colour
            axes.plot(
                series.x, series.y, styles[level], marker=look[model].marker, ms=5, color=colour,
                label=f"{model}, {level}", markerfacecolor=colour if level == "p50" else PAPER,
            )  # fmt: skip
            if series.low:
                axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, lw=0)
    axes.set_yscale("log")
    _plain(axes, "y")
    axes.set_xlim(left=0)
    axes.set_xlabel("images per second, at random times, through the gateway")
    axes.set_ylabel("latency, ms (logarithmic)")
    axes.legend(loc="upper left")
    return _svg(figure)


@_own_style
def percentiles(
    lines: Mapping[tuple[str, str], Sequence[float]], title: str, subtitle: str, furthest: float
) -> str:
    """Latency by percentile, on an axis of 1 ÷ (1 - p); lines by model and way.

    `furthest` is the greatest percentile that the samples suffice for, as a share.
    """
    figure, axes = _figure(title, subtitle)
    look = looks(list(dict.fromkeys(model for model, _ in lines)))
    for (model, way), samples in lines.items():
        ordered = np.sort(samples)
        count = len(ordered)
        shares = (np.arange(count) + 0.5) / count
        inside = shares <= furthest
        line = "-" if way == "gateway" else ":"
        label = f"{model}, {way}"
        axes.plot(
            1 / (1 - shares[inside]), ordered[inside], line, color=look[model].colour, label=label
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    marks = [each for each in (0.5, 0.9, 0.99, 0.999) if each <= furthest + 1e-9]
    axes.set_xticks([1 / (1 - mark) for mark in marks], [f"p{100 * mark:g}" for mark in marks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    _plain(axes, "y")
    axes.set_xlabel("percentile, spaced as 1 ÷ (1 − p)")
    axes.set_ylabel("latency, ms (logarithmic)")
    axes.legend()
    return _svg(figure)


@_own_style
def growth(
    models: Mapping[str, Series],
    theory: Mapping[str, Series],
    title: str,
    subtitle: str,
) -> str:
    """Time against the number of patches, both logarithmic, beside the growth of the arithmetic.

    `theory` is the dotted line: the arithmetic, scaled so that it begins at the first point.
    """
    figure, axes = _figure(title, subtitle, (SIZE[0], 4.6))
    axes.set_xscale("log")
    axes.set_yscale("log")
    look = looks(list(models))
    for model, series in models.items():
        colour, marker = look[model]
        axes.plot(series.x, series.y, marker=marker, ms=5, color=colour, label=model)
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, lw=0)
        if model in theory:
            scale = series.y[0] / theory[model].y[0]
            scaled = [scale * value for value in theory[model].y]
            axes.plot(theory[model].x, scaled, ":", lw=1.3, color=colour)
    first = next(iter(models.values()))
    start, end = first.x[0], first.x[-1]
    base = 0.55 * min(series.y[0] for series in models.values())
    top = 1.8 * max(max(series.y) for series in models.values())
    for name, slope in (("linear", 1), ("quadratic", 2)):
        # The line ends at the edge of the plot.
        last = min(end, start * (top / base) ** (1 / slope))
        height = base * (last / start) ** slope
        axes.plot((start, last), (base, height), color=GUIDE, lw=1, ls=(0, (6, 4)))
        axes.annotate(
            name, (last, height), xytext=(-4, -4), textcoords="offset points",
            ha="right" if last == end else "left", va="top", color=GUIDE, fontsize=8.5,
        )  # fmt: skip
    axes.set_xticks(first.x, [f"{x:g}" for x in first.x], rotation=45)
    axes.xaxis.set_minor_formatter(NullFormatter())
    _plain(axes, "y")
    axes.set_xlabel("patches of 16 × 16 pixels (logarithmic)")
    axes.set_ylabel("CPU time of the model per image, ms (logarithmic)")
    axes.legend(title="dotted: as arithmetic grows", title_fontsize=8.5)
    return _svg(figure)


@_own_style
def scatter(
    groups: Mapping[str, Sequence[tuple[float, float, str]]],
    title: str,
    subtitle: str,
    x: str,
    y: str,
) -> str:
    """Named points in groups; the horizontal axis is logarithmic. Labels keep apart."""
    figure, axes = _figure(title, subtitle, (SIZE[0], 4.8))
    look = looks(list(groups))
    axes.set_xscale("log")
    for name, points in groups.items():
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        axes.scatter(xs, ys, marker=look[name].marker, s=34, color=look[name].colour, label=name)
    axes.margins(0.14, 0.1)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(loc="best")
    _plain(axes, "x")
    every = [point for points in groups.values() for point in points]
    label_points(figure, axes, every)
    return _svg(figure)


@_own_style
def stacked(
    rows: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], title: str, subtitle: str,
    x: str,
) -> str:  # fmt: skip
    """Horizontal bars made of parts; the value of a part stands in it if there is room."""
    figure, axes = _figure(title, subtitle, (SIZE[0] + 1.5, 2.1 + 0.6 * len(rows)))
    most = max(sum(parts.values()) for parts in rows.values())
    for place, parts in enumerate(list(rows.values())[::-1]):
        left = 0.0
        for part, value in parts.items():
            axes.barh(place, value, left=left, height=0.62, color=colours[part], label=part)
            if value > 0.04 * most:
                axes.text(
                    left + value / 2, place, f"{value:.0f}", ha="center", va="center",
                    color="white", fontsize=9,
                )  # fmt: skip
            left += value
        axes.annotate(
            f"{left:.0f}", (left, place), xytext=(5, 0), textcoords="offset points", va="center",
            fontweight="bold",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows)[::-1])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.12 * most)
    axes.set_xlabel(x)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return _svg(figure)


def _plain(axes: Axes, which: str) -> None:
    """Numbers such as 200 on a logarithmic axis, instead of powers of ten."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axis.get_view_interval()
    if high / max(low, 1e-9) < 30:  # a decade or so has too few ticks of its own
        axis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if _leading(value) in {2, 5} else "")
        )
    else:
        axis.set_minor_formatter(NullFormatter())


def _leading(value: float) -> int:
    return round(float(value / 10 ** np.floor(np.log10(value) + 1e-9)))


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())
    changes = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    css = f"<style>@media (prefers-color-scheme: dark){{{changes}}}</style>"
    # Our style goes after the opening tag of the root, since a line break stands where matplotlib's
    # own style element ends; both places have the same effect.
    return re.sub(r"(<svg [^>]*>)", lambda found: f"{found[1]}\n {css}", text, count=1)
