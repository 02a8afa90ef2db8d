"""Labels beside the points of a plot, each where it covers neither a point nor another label.

In: a plot whose axes are complete, and its named points. Out: the labels in it. A label that is far
from its point is joined to it by a line.
"""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

GUIDE = "#888888"  # lines that are no data
Side = Literal["left", "center", "right"]
# Positions of a label beside its point, and the end of the label that is next to the point.
SIDES: tuple[tuple[float, float, Side], ...] = (
    (1, 0, "left"), (-1, 0, "right"), (0.4, 1, "left"), (0.4, -1, "left"),
    (-0.4, 1, "right"), (-0.4, -1, "right"), (0, 1, "center"), (0, -1, "center"),
)  # fmt: skip


def label_points(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Put each label where it covers neither a point nor another label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - to measure text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib has no type
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]  # matplotlib has no type
    frame = axes.get_window_extent()
    taken = [
        (px - 4, py - 4, px + 4, py + 4)
        for px, py in (axes.transData.transform((x, y)) for x, y, _ in points)
    ]
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent(renderer).extents)
    for x, y, name in sorted(points):
        text = axes.annotate(
            name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=7.5, ha="left",
            va="center",
        )  # fmt: skip
        best: tuple[float, float, Side] = (6.0, 0.0, "left")
        least = float("inf")
        for distance in (6, 12, 20, 30):
            for dx, dy, side in SIDES:
                text.set_position((dx * distance, dy * distance))
                text.set_horizontalalignment(side)
                box = text.get_window_extent(renderer).extents
                outside = (
                    max(0, frame.x0 - box[0]) + max(0, box[2] - frame.x1)
                    + max(0, frame.y0 - box[1]) + max(0, box[3] - frame.y1)
                )  # fmt: skip
                cost = sum(_overlap(box, other) for other in taken) + 50 * outside + distance
                if cost < least:
                    best, least = (dx * distance, dy * distance, side), cost
        text.set_position(best[:2])
        text.set_horizontalalignment(best[2])
        if abs(best[0]) + abs(best[1]) > 14:
            text.arrow_patch = None
            axes.annotate(
                "", (x, y), xytext=best[:2], textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": GUIDE, "lw": 0.6},
            )  # fmt: skip
        taken.append(text.get_window_extent(renderer).extents)


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return float(wide * high) if wide > 0 and high > 0 else 0.0
