"""The charts of what was measured: time by contestant and size, and what growth costs.

Contestants differ in colour, mark and dash, so that print and the colour-blind tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import RESULTS, Comparison, Parts

# The colours are Okabe's and Ito's, and a grey.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    {"color": "#0072B2", "marker": "^", "linestyle": "--"},
    {"color": "#009E73", "marker": "D", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "v", "linestyle": ":"},
    {"color": "#E69F00", "marker": "P", "linestyle": "--"},
    {"color": "#56B4E9", "marker": "X", "linestyle": "-."},
    {"color": "#666666", "marker": "*", "linestyle": ":"},
)
_SETTINGS: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "stedi",  # the same figures give the same file
}


def draw(parts: Parts, folder: Path = RESULTS) -> None:
    """Draw the charts of the parts that were measured."""
    with mpl.rc_context(_SETTINGS):
        if "speed" in parts:
            _save(_speed(parts["speed"].comparisons), folder / "speed.svg")
        if "growth" in parts:
            _save(_growth(parts["growth"].comparisons), folder / "growth.svg")


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None})


def _speed(comparisons: Sequence[Comparison]) -> Figure:
    """Seconds against size, both on logarithmic axes: a line a contestant, the slowest first."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    sizes = [found for found in comparisons if found.size]
    styled = zip(sizes[-1].measured, _STYLES, strict=False)
    for one, style in sorted(styled, key=lambda pair: -pair[0].median.wall):
        met = [(at.size, of) for at in sizes if (of := at.of(one.name))]
        seconds = [of.median.wall for _, of in met]
        axes.plot([size for size, _ in met], seconds, label=one.name, **style)
    axes.set(xscale="log", yscale="log", ylabel="seconds")
    axes.set_xticks([at.size for at in sizes], [f"x{at.size}" for at in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("the reference landing files, so many times")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _growth(comparisons: Sequence[Comparison]) -> Figure:
    """Seconds against size and against days of history: what was measured, and the fitted line."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    for number, comparison in enumerate(comparisons):
        _points(figure.add_subplot(1, len(comparisons), number + 1), comparison)
    return figure


def _points(axes: Axes, comparison: Comparison) -> None:
    fit = comparison.fits[0]  # of seconds
    xs, costs = zip(*fit.points, strict=True)
    axes.plot(xs, costs, "o", color="#D55E00", clip_on=False)
    ends = [0.0, max(xs)]
    label = f"{fit.line.fixed:.2f} s + {fit.line.each:.3g} s a {fit.more}"
    axes.plot(ends, [fit.line.at(x) for x in ends], "--", color="#000000", label=label)
    axes.set(xlabel=fit.many, ylabel="seconds", ylim=(0, None), xlim=(0, None))
    axes.set_title(comparison.title, fontsize=10, loc="left", wrap=True)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    axes.grid(alpha=0.3)
