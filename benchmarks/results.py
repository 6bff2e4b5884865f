"""What was measured, on which machine: kept in results.json, told in results.md.

A part that is run anew replaces what was kept of it; the others stay.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.lakes import MADE_UP, ROOT
from benchmarks.lines import Line, fit
from benchmarks.measuring import Cost, Measured

RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("duckdb", "dagster", "ibis-framework", "pyspark", "pandas", "polars", "pyarrow")


@dataclass(frozen=True)
class Goal:
    """A figure beside what it should be.

    Attributes:
        text: what the figure says.
        value: the figure.
        limit: what it should be, at most or at least; None where nothing is promised.
        at_least: which of the two.
        unit: of both; "times" is that of ratios.
    """

    text: str
    value: float
    limit: float | None = None
    at_least: bool = False
    unit: str = "times"

    @property
    def figure(self) -> str:
        """The figure and its unit."""
        whole = self.value >= 1000 or self.value == int(self.value)
        return f"{self.value:{',.0f' if whole else '.2f'}} {self.unit}"

    @property
    def told(self) -> str:
        """What is wanted, and whether it is so."""
        if self.limit is None:
            return ""
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        wanted = f"{'at least' if self.at_least else 'at most'} {self.limit:g} {self.unit}"
        return f"{wanted}: {'met' if met else '**missed**'}"


@dataclass(frozen=True)
class Fit:
    """A fitted line.

    Attributes:
        name: whose cost it is.
        unit: of the cost.
        more: what there is one more of.
        many: what several of them are called.
        points: how many of those, and the cost.
        line: through the points.
    """

    name: str
    unit: str
    more: str
    many: str
    points: Sequence[tuple[float, float]]
    line: Line


@dataclass(frozen=True)
class Comparison:
    """What was measured in turn, and what follows.

    Attributes:
        title: what the contestants did.
        measured: each of them, in order.
        goals: figures beside what they should be.
        fits: lines, for those who want to know about other sizes.
        size: by which comparisons of one kind differ: copies of the landing files, or days.
        remark: what a reader should know besides.
    """

    title: str
    measured: Sequence[Measured] = field(default_factory=list)
    goals: Sequence[Goal] = field(default_factory=list)
    fits: Sequence[Fit] = field(default_factory=list)
    size: int = 0
    remark: str = ""

    def of(self, name: str) -> Measured | None:
        """What a contestant took, if it took part."""
        return next((found for found in self.measured if found.name == name), None)


@dataclass(frozen=True)
class Part:
    """What one run of a part found.

    Attributes:
        on: when, on what machine, with which versions and files.
        comparisons: what it found.
    """

    on: dict[str, str]
    comparisons: Sequence[Comparison]


Parts = dict[str, Part]
_KEPT = TypeAdapter(Parts)


def ratio(
    text: str,
    one: Measured | None,
    other: Measured | None,
    limit: float | None = None,
    *,
    at_least: bool = False,
    of: Callable[[Cost], float] = lambda cost: cost.wall,
) -> list[Goal]:
    """One contestant's median over another's, by default of time; none where one took no part."""
    if not one or not other:
        return []
    return [Goal(text, of(one.median) / of(other.median), limit, at_least)]


def fits(
    name: str, xs: Sequence[float], measured: Sequence[Measured], more: str, many: str
) -> list[Fit]:
    """Lines through the medians of seconds, of CPU seconds and of memory.

    Args:
        name: whose they are.
        xs: how many there are of `many`, for each of `measured`.
        measured: what they cost.
        more: see `Fit`.
        many: see `Fit`.
    """
    costs: dict[str, Callable[[Cost], float]] = {
        "s": lambda cost: cost.wall,
        "CPU s": lambda cost: cost.cpu,
        "MB": lambda cost: cost.peak,
    }
    found = []
    for unit, of in costs.items():
        points = [(x, of(one.median)) for x, one in zip(xs, measured, strict=True)]
        found.append(Fit(name, unit, more, many, points, fit(points)))
    return found


def environment() -> dict[str, str]:
    """When and on what is measured: date, machine, versions, and which landing files.

    The load is that of the minute before: it tells whether the machine had other things to do.
    """
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "processor": models[0] if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "Java": java_version() or "none",
        "landing files": "made up" if MADE_UP else "the reference files",
    }


def java_version() -> str | None:
    """The version of the Java that Spark would start; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java" if home else "java")
    if not java:
        return None
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    return told.split('"')[1] if '"' in told else None


def load(folder: Path = RESULTS) -> Parts:
    """What was kept."""
    file = folder / "results.json"
    return _KEPT.validate_json(file.read_bytes()) if file.exists() else {}


def save(parts: Parts, folder: Path = RESULTS) -> None:
    """Keep what was measured, and tell it."""
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_bytes(_KEPT.dump_json(parts, indent=1) + b"\n")
    (folder / "results.md").write_text(tell(parts))


def tell(parts: Parts) -> str:
    """All of it as Markdown."""
    told = [
        "# What was measured",
        "`make bench` writes this page. Seconds are those of whole processes, from their start to "
        "their end; memory is what all of a contestant's processes held together when they held "
        "most. Figures are medians; `results.json` has every run.",
    ]
    summary = in_short(parts["speed"].comparisons) if "speed" in parts else ""
    if summary:
        told += ["## In short", summary]
    for name, part in parts.items():
        told += [f"## {name}", _told_on(part.on), *map(tell_one, part.comparisons)]
    return "\n\n".join(told) + "\n"


def _told_on(on: dict[str, str]) -> str:
    return "Measured on: " + ", ".join(f"{name} {value}" for name, value in on.items()) + "."


def tell_one(comparison: Comparison) -> str:
    """A comparison as Markdown."""
    told = [f"### {comparison.title}"]
    if comparison.remark:
        told.append(comparison.remark)
    if comparison.measured:
        rows = []
        for one in comparison.measured:
            cost = one.median
            speed = f"{one.rows / cost.wall:,.0f}" if one.rows else ""
            rows.append(
                (
                    one.name,
                    f"{cost.wall:.2f}",
                    f"{cost.cpu:.2f}",
                    f"{cost.peak:,.0f}",
                    speed,
                    f"{len(one.costs)}",
                )
            )
        heads = ("", "seconds", "CPU seconds", "memory, MB", "landing rows a second", "runs")
        told.append(table(heads, rows))
    if comparison.goals:
        figures = [(goal.text, goal.figure, goal.told) for goal in comparison.goals]
        told.append(table(("", "figure", "goal"), figures))
    if comparison.fits:
        lines = [
            (
                fit.name,
                f"{three_digits(fit.line.fixed)} {fit.unit}",
                f"{three_digits(fit.line.each)} {fit.unit} a {fit.more}",
                f"{fit.line.error:.0%}",
            )
            for fit in comparison.fits
        ]
        told.append(table(("fitted line", "fixed", "and", "off by at most"), lines))
    return "\n\n".join(told)


def in_short(comparisons: Sequence[Comparison]) -> str:
    """The table of README: each contestant's seconds by size, and the rest at the largest size."""
    sizes = [found for found in comparisons if found.size]
    if not sizes:
        return ""
    largest = sizes[-1]
    rows = []
    for one in largest.measured:
        seconds = [found.of(one.name) for found in sizes]
        cost = one.median
        rows.append(
            (
                one.name,
                *(f"{found.median.wall:.1f} s" if found else "" for found in seconds),
                f"{cost.cpu:.0f} s",
                f"{cost.peak:,.0f} MB",
                f"{one.rows / cost.wall:,.0f}",
            )
        )
    at = f"x{largest.size}"
    heads = ["", *(f"x{found.size}" for found in sizes)]
    return table([*heads, f"CPU at {at}", f"memory at {at}", f"rows a second at {at}"], rows)


def three_digits(value: float) -> str:
    """A figure with three digits or more, and never with an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown: names to the left, figures to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
