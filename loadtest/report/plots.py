"""The report's images, as SVG text: the same data give the same text.

Text stays text, so that an image can be searched and is small.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.rcParams.update({
    "svg.hashsalt": "mixer-serving", "svg.fonttype": "none", "font.size": 9,
    "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False,
})  # fmt: skip
Line = Sequence[tuple[float, float]]
MARKERS = "os^Dv*"


def curves(
    lines: Mapping[str, Line],
    x: str,
    y: str,
    *,
    logarithmic: bool = False,
    fits: Mapping[str, Line] | None = None,
) -> str:
    """Lines with a marker at each point; `fits` are drawn dashed in the colour of their line."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        marker = MARKERS[number % len(MARKERS)]
        drawn = axes.plot(*zip(*sorted(points), strict=True), marker=marker, ms=4, label=name)
        if fits and name in fits:
            fit = list(zip(*fits[name], strict=True))
            axes.plot(*fit, ls="--", lw=1, color=drawn[0].get_color())
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False)
    return _svg(figure)


def scatter(groups: Mapping[str, Sequence[tuple[float, float, str]]], x: str, y: str) -> str:
    """Named points in groups; the horizontal axis is logarithmic."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(groups.items()):
        axes.scatter(
            [p[0] for p in points], [p[1] for p in points], marker=MARKERS[number], s=22, label=name
        )
        # By turns above and below, since neighbours come one after the other.
        for place, (px, py, text) in enumerate(sorted(points)):
            offset = (4, 3) if place % 2 else (4, -9)
            axes.annotate(text, (px, py), xytext=offset, textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())
