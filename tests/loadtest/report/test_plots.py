"""Plots: the same data give the same text, they parse, and say what they must."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

import matplotlib as mpl
import pytest

from loadtest.report import plots
from loadtest.report.plots import Series

X = [49.0, 100.0, 196.0, 400.0, 784.0, 1600.0]
LINE = Series(X, [0.4 * x for x in X], [0.39 * x for x in X], [0.41 * x for x in X])
WHEN = "Abacus, 2 cores, fp32 · 2026-01-02"
MADE: dict[str, Callable[[], str]] = {
    "bars": lambda: plots.bars(
        [("mixer_s16", 22, 21, 23, "22"), ("vit_s16", 18, 17, 19, "18")], "Title", WHEN, "images/s"
    ),
    "rate": lambda: plots.rate_and_latency(
        {"mixer_s16": {"p50": LINE, "p99": LINE}, "vit_s16": {"p50": LINE}}, "Title", WHEN
    ),
    "percentiles": lambda: plots.percentiles(
        {("mixer_s16", "gateway"): X * 20, ("vit_s16", "triton"): X * 20}, "Title", WHEN, 0.95
    ),
    "growth": lambda: plots.growth({"mixer_s16": LINE}, {"mixer_s16": LINE}, "Title", WHEN),
    "scatter": lambda: plots.scatter(
        {"Mixer": [(10, 80, "B"), (10.1, 80.1, "L")], "ViT": [(10, 80, "S")]}, "Title", WHEN,
        "images/s", "top-1, %",
    ),
    "stacked": lambda: plots.stacked(
        {"now": {"a": 5, "b": 9}}, {"a": "#0072b2", "b": "#d55e00"}, "Title", WHEN, "µs"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_a_plot_is_whole(kind: str) -> None:
    text = MADE[kind]()
    assert text == MADE[kind]()
    root = ET.fromstring(text)  # noqa: S314 - ours
    words = "".join(root.itertext())
    assert "Title" in words
    assert WHEN in words
    # Where the page is dark, so are the paper and the ink.
    assert "prefers-color-scheme: dark" in text
    for light in plots.DARK:
        assert f"fill: {light}" in text or f"stroke: {light}" in text


@pytest.mark.parametrize("kind", MADE)
def test_a_plot_shares_no_settings_with_the_rest_of_the_process(kind: str) -> None:
    text = MADE[kind]()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.titlesize": 40}):
        assert MADE[kind]() == text
        assert mpl.rcParams["font.size"] == 30
        assert mpl.rcParams["svg.fonttype"] == mpl.rcParamsDefault["svg.fonttype"]


def test_a_family_has_its_colours_wherever_it_appears() -> None:
    one = plots.looks(["mixer_s16", "vit_s16", "bit_r50x1"])
    other = plots.looks(["vit_s16", "mixer_s16", "mixer_s16_enlarged", "resnet"])
    assert one["vit_s16"] == other["vit_s16"]
    assert one["mixer_s16"] == other["mixer_s16"]
    assert len({look.colour for look in other.values()}) == 4


def test_colours_differ_on_both_backgrounds() -> None:
    """Contrast of at least 3 with white and with black, as WCAG 2 asks of graphics."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colours in plots.FAMILIES.values():
        for paper in ("#fefefe", "#0d1117"):
            pair = sorted((luminance(colours[0]), luminance(paper)))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3, (colours[0], paper)


def test_labels_do_not_cover_each_other() -> None:
    """Twelve points in one place: as many labels, each with a place of its own."""
    points = [(10 + 0.01 * n, 80 + 0.01 * n, f"network {n}") for n in range(8)]
    root = ET.fromstring(plots.scatter({"Mixer": points}, "T", "S", "x", "y"))  # noqa: S314
    places = []
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        if element.text and element.text.startswith("network"):
            style, at = element.get("style", ""), element.get("transform") or ""
            places.append((at or element.get("x"), element.get("y"), style))
    assert len(places) == 8
    assert len(set(places)) == 8
