"""Straight lines through what was measured: a fixed cost, and a cost of each more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A fitted line, fixed + each · x.

    Attributes:
        fixed: the cost of nothing.
        each: of one more.
        error: by which share of a point the line is off at most.
    """

    fixed: float
    each: float
    error: float

    def at(self, x: float) -> float:
        """The cost that the line gives."""
        return self.fixed + self.each * x


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """The line with the least squares of relative errors, so that small points count like large.

    Args:
        points: x and cost; costs are above 0, and at least two x differ.
    """
    # Weights 1/y² make errors relative; the rest is the textbook's weighted regression.
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    if not spread:
        raise ValueError("a line needs points at two different places")
    each = (
        sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True))
        / spread
    )
    fixed = mean_y - each * mean_x
    return Line(fixed, each, max(abs(fixed + each * x - y) / y for x, y in points))
