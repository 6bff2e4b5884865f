"""This project beside what people would use instead, on the same landing files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.lakes import copies, landing_rows
from benchmarks.measuring import Contestant, floor, in_turn, script, scripts, stedi_run
from benchmarks.pyspark_jobs import JOBS
from benchmarks.results import Comparison, Fit, Goal, fits, java_version, ratio

DUCKDB, SPARK = "stedi run on DuckDB", "stedi run on Spark"
FIVE_JOBS, ONE_SESSION = "PySpark jobs", "PySpark jobs, one session"
PANDAS, FLOOR = "pandas notebook", "floor script"
ROUNDS = {1: 3, 10: 3, 100: 3}  # by size


def run() -> Iterator[Comparison]:
    """Measure each size, and fit lines through the sizes."""
    sizes = []
    for size, rounds in ROUNDS.items():
        sizes.append(at_size(size, rounds))
        yield sizes[-1]
    yield Comparison("Lines through those sizes", fits=lines(sizes))


def contestants(lake: Path) -> list[Contestant]:
    """All of them, over a lake; those on Spark only where there is Java."""
    on_spark = [
        stedi_run(lake, SPARK, STEDI_ENGINE="spark"),
        scripts(FIVE_JOBS, "pyspark_jobs", lake, JOBS),
        script(ONE_SESSION, "pyspark_jobs", lake),
    ]
    return [
        stedi_run(lake, DUCKDB, STEDI_ENGINE="duckdb"),
        *(on_spark if java_version() else []),
        script(PANDAS, "pandas_notebook", lake),
        script("pandas, PyArrow's reader", "pandas_notebook", lake, "pyarrow"),
        script("Polars script", "polars_script", lake),
        floor(lake),
    ]


def at_size(size: int, rounds: int) -> Comparison:
    """All contestants on so many copies of the landing files."""
    lake = copies(size)
    rows = landing_rows(lake)
    comparison = Comparison(
        f"x{size}: {rows:,} landing rows",
        in_turn(contestants(lake), rounds, rows, warm_up=size == 1),
        size=size,
        remark="" if java_version() else "What runs on Spark is left out: there is no Java here.",
    )
    return replace(comparison, goals=goals(comparison))


def goals(found: Comparison) -> list[Goal]:
    """The ratios of one size, beside what is promised for it."""
    duckdb, spark, pandas, floor_ = map(found.of, (DUCKDB, SPARK, PANDAS, FLOOR))
    large = found.size == 100
    least = {1: 4.0, 100: 5.0}.get(found.size)
    most = 1.3 if found.size >= 10 else None
    figures = [
        *(
            goal
            for jobs in (FIVE_JOBS, ONE_SESSION)
            for goal in (
                *ratio(
                    f"time of the {jobs} / of {DUCKDB}",
                    found.of(jobs),
                    duckdb,
                    least,
                    at_least=True,
                ),
                *ratio(f"time of {SPARK} / of the {jobs}", spark, found.of(jobs), most),
            )
        ),
        *ratio(
            f"time of the {PANDAS} / of {DUCKDB}",
            pandas,
            duckdb,
            5.0 if large else None,
            at_least=True,
        ),
        *ratio(
            f"memory of {DUCKDB} / of the {PANDAS}",
            duckdb,
            pandas,
            1 / 3 if large else None,
            of=lambda cost: cost.peak,
        ),
        *ratio(f"time of {DUCKDB} / of the {FLOOR}", duckdb, floor_, 2.0 if large else None),
    ]
    if large and duckdb:
        figures.append(Goal(f"memory of {DUCKDB}", duckdb.median.peak, 2048, unit="MB"))
    return figures


def lines(sizes: Sequence[Comparison]) -> list[Fit]:
    """Lines for each contestant, by millions of landing rows."""
    found: list[Fit] = []
    for last in sizes[-1].measured:
        each = [of for at in sizes if (of := at.of(last.name))]
        rows = [of.rows / 1e6 for of in each]
        found += fits(last.name, rows, each, "million landing rows", "million landing rows")
    return found
