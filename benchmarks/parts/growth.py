"""What growth costs: `stedi run` by size, and a day by the length of the history it comes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.days import day_on, history_of
from benchmarks.lakes import copies, landing_rows
from benchmarks.measuring import in_turn, stedi_run
from benchmarks.results import Comparison, Goal, fits

SIZES = (1, 3, 10, 30, 100)
HISTORIES = (1, 30, 90, 364)
ROUNDS = 3


def run() -> Iterator[Comparison]:
    """Measure both."""
    yield by_size()
    yield by_history()


def by_size() -> Comparison:
    """The whole job on ever more landing files of one date."""
    measured = []
    for size in SIZES:
        lake = copies(size)
        contestant = stedi_run(lake, f"x{size}")
        measured += in_turn([contestant], ROUNDS, landing_rows(lake), warm_up=False)
    rows = [one.rows / 1e6 for one in measured]
    return Comparison(
        "The whole job, by size",
        measured,
        [
            Goal(of, size / measured[-1].rows, unit="bytes a landing row")
            for of, size in (
                ("landing files, as JSON", size_of(lake, "*/landing/*")),
                ("all tables, as Parquet", size_of(lake, "**/part-0.parquet")),
            )
        ],
        fits("stedi run", rows, measured, "million landing rows", "million landing rows"),
    )


def size_of(lake: Path, pattern: str) -> int:
    """The bytes of a lake's files."""
    return sum(file.stat().st_size for file in lake.glob(pattern))


def by_history() -> Comparison:
    """A day of the size of the landing files, on ever more days of history."""
    measured = in_turn([day_on(history_of(days)) for days in HISTORIES], ROUNDS)
    return Comparison(
        "A day, by the days of history",
        measured,
        fits=fits("a day", HISTORIES, measured, "day of history", "days of history"),
    )
