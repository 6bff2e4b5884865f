"""This project beside what people would use instead, on the same landing files."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.lakes import WORK, copies, landing_rows
from benchmarks.measuring import (
    Contestant,
    counts_of_files,
    floor,
    in_turn,
    script,
    stedi_run,
)
from benchmarks.pyspark_jobs import JOBS
from benchmarks.results import Comparison, Fit, Goal, fits, java_version, ratio

DUCKDB, SPARK = "stedi run on DuckDB", "stedi run on Spark"
JOBS_AT_ONCE, PANDAS, FLOOR = "PySpark jobs", "pandas notebook", "floor script"
ROUNDS = {1: 5, 10: 3, 100: 3}  # by size


def run() -> Iterator[Comparison]:
    """Measure each size, the jobs as the documents run them, and fit lines through the sizes."""
    sizes = []
    for size, rounds in ROUNDS.items():
        sizes.append(at_size(size, rounds))
        yield sizes[-1]
    if java_version():
        yield a_process_each()
    yield Comparison("Lines through those sizes", fits=lines(sizes))


def contestants(lake: Path) -> list[Contestant]:
    """All of them, over a lake; those on Spark only where there is Java."""
    on_spark = [
        stedi_run(lake, SPARK, STEDI_ENGINE="spark"),
        script(JOBS_AT_ONCE, "pyspark_jobs", lake),
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
    duckdb, spark, jobs, pandas, floor_ = map(
        found.of, (DUCKDB, SPARK, JOBS_AT_ONCE, PANDAS, FLOOR)
    )
    large = found.size == 100
    least = {1: 4.0, 100: 5.0}.get(found.size)
    figures = [
        *ratio(f"time of the {JOBS_AT_ONCE} / of {DUCKDB}", jobs, duckdb, least, at_least=True),
        *ratio(
            f"time of {SPARK} / of the {JOBS_AT_ONCE}",
            spark,
            jobs,
            1.3 if found.size >= 10 else None,
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


def a_process_each() -> Comparison:
    """The PySpark jobs as the documents run them, each a process of its own, against all in one."""
    lake, out = copies(1), WORK / "out" / "five jobs"
    job = shlex.join([sys.executable, "-m", "benchmarks.pyspark_jobs", str(lake), str(out)])
    command = " && ".join(f"{job} {name}" for name in JOBS)
    five = Contestant(
        "five processes",
        ["sh", "-c", command],
        counts=lambda: counts_of_files(out),
    )
    apart, at_once = in_turn(
        [five, script("one process", "pyspark_jobs", lake)],
        rounds=2,
        rows=landing_rows(lake),
        warm_up=False,
    )
    return Comparison(
        "x1: the PySpark jobs as five processes against one",
        [apart, at_once],
        ratio("time of five processes / of one", apart, at_once),
    )


def lines(sizes: Sequence[Comparison]) -> list[Fit]:
    """Lines for each contestant, by millions of landing rows."""
    found: list[Fit] = []
    for last in sizes[-1].measured:
        each = [of for at in sizes if (of := at.of(last.name))]
        rows = [of.rows / 1e6 for of in each]
        found += fits(last.name, rows, each, "million landing rows", "million landing rows")
    return found
