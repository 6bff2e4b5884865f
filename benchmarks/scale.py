"""What other sizes would take: the lines through what was measured, and prices, as tables.

`python -m benchmarks.scale` writes them anew into docs/scale.md, which says what they assume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.lakes import ROOT
from benchmarks.lines import Line, fit
from benchmarks.parts.speed import SPARK
from benchmarks.results import Comparison, Fit, Parts, load, table

PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- by python -m benchmarks.scale -->", "<!-- until here -->"

READINGS_A_DAY = (10**7, 10**8, 10**9, 10**10)
"""The third is the size that the page plans for."""

PHONES = 0.74
"""The share of phones' readings in all."""

MOMENTS = 24 * 3600 * 1000
"""The milliseconds of a day."""

CORES = 16
"""Of the machine for which the page counts."""

SHARE = 0.7
"""Of its cores, how much work: the rest waits for disks, network and each other."""

MACHINE_HOUR = 0.7
"""Dollars for an hour of 16 cores (c7g.4xlarge 0.58, m7i.4xlarge 0.81)."""

DPU_HOUR = 0.44
"""Dollars for an hour of a DPU of Glue: 4 cores and 16 GB."""

SERVERLESS_HOUR = 4 * 0.0526 + 16 * 0.0058
"""Dollars for an hour of as much at EMR Serverless: 4 cores and 16 GB, each with its price."""

GB_MONTH = 0.023
"""Dollars for a month of a GB in S3."""


@dataclass(frozen=True)
class Model:
    """What the benchmarks found, as the page takes it.

    Attributes:
        cpu: CPU seconds of `stedi run` on DuckDB, by million landing rows.
        spark_cpu: the same on Spark.
        history: seconds of a day's run, by days of history.
        landing_bytes: of a landing row, as JSON.
        table_bytes: of all tables together, for a landing row.
    """

    cpu: Line
    spark_cpu: Line
    history: Line
    landing_bytes: float
    table_bytes: float


def model(parts: Parts) -> Model:
    """The model of what was kept; KeyError where a part of it was not measured."""
    growth = {of.title: of for of in parts["growth"].comparisons}
    by_size, by_history = growth["The whole job, by size"], growth["A day, by the days of history"]
    of_spark = [
        (found.rows / 1e6, found.median.cpu)
        for size in parts["speed"].comparisons
        for found in [size.of(SPARK)]
        if size.size and found
    ]
    bytes_of = {goal.text: goal.value for goal in by_size.goals}
    return Model(
        _line(by_size, "CPU s"),
        fit(of_spark),
        _line(by_history, "s"),
        bytes_of["landing files, as JSON"],
        bytes_of["all tables, as Parquet"],
    )


def _line(comparison: Comparison, unit: str) -> Line:
    fits: dict[str, Fit] = {found.unit: found for found in comparison.fits}
    return fits[unit].line


def tables(found: Model) -> str:
    """The page's tables."""
    return "\n\n".join([measured(found), by_readings(found), by_price(found), by_partitions(found)])


def measured(found: Model) -> str:
    """What the model takes from the benchmarks."""
    rows = [
        ("CPU of a run on DuckDB", _of(found.cpu, "CPU s", "million readings")),
        ("CPU of a run on Spark", _of(found.spark_cpu, "CPU s", "million readings")),
        ("time of a day's run", _of(found.history, "s", "date of history", 4)),
        ("landing files", f"{found.landing_bytes:.0f} bytes a reading"),
        ("tables and rejects", f"{found.table_bytes:.0f} bytes a reading"),
    ]
    return table(("measured", "figure"), rows)


def _of(line: Line, unit: str, more: str, digits: int = 2) -> str:
    return f"{line.fixed:.1f} {unit} + {line.each:.{digits}f} {unit} a {more}"


def by_readings(found: Model) -> str:
    """What a day is, by how many readings it has."""
    rows = [
        (
            f"{readings:,}",
            f"{readings * found.landing_bytes / 1e9:,.1f} GB",
            f"{readings * found.table_bytes / 1e9:,.2f} GB",
            f"{_hours(found.cpu, readings):,.2f} h",
            f"{_hours(found.cpu, readings) / 24 / (CORES * SHARE) * 3600:,.0f} s",
            f"{_hours(found.spark_cpu, readings):,.2f} h",
            f"{readings**2 * PHONES * (1 - PHONES) / MOMENTS:,.0f}",
        )
        for readings in READINGS_A_DAY
    ]
    heads = (
        "readings a day",
        "JSON",
        "Parquet",
        "CPU on DuckDB",
        f"an hour's run on {CORES} cores",
        "CPU on Spark",
        "pairs of strangers",
    )
    return table(heads, rows)


def by_price(found: Model) -> str:
    """What a day costs, by how many readings it has."""
    rows = []
    for readings in READINGS_A_DAY:
        dpus = _hours(found.spark_cpu, readings) / SHARE / 4
        kept = readings * (found.landing_bytes + found.table_bytes) / 1e9
        dollars = (
            _hours(found.cpu, readings) / SHARE / CORES * MACHINE_HOUR,
            dpus * SERVERLESS_HOUR,
            dpus * DPU_HOUR,
            kept * GB_MONTH,
        )
        rows.append((f"{readings:,}", *(f"{of:,.2f}" for of in dollars)))
    heads = (
        "dollars for a day, by readings a day",
        "DuckDB on EC2",
        "Spark on EMR Serverless",
        "Spark on Glue",
        "S3, a month of the day's files",
    )
    return table(heads, rows)


def _hours(cpu: Line, readings: int) -> float:
    """CPU hours of a day in 24 runs."""
    return 24 * cpu.at(readings / 1e6 / 24) / 3600


def by_partitions(found: Model) -> str:
    """What history adds to a run, by how many partitions a table has."""
    years: Sequence[tuple[str, int]] = (
        ("a year of days", 365),
        ("ten years of days", 3_650),
        ("a year of hours", 8_760),
        ("ten years of hours", 87_600),
        ("ten years, compacted: 7 days of hours, 13 months of days, months", 168 + 396 + 107),
    )
    rows = [
        (name, f"{partitions:,}", f"{found.history.each * partitions:,.1f} s")
        for name, partitions in years
    ]
    return table(("history", "partitions a table", "added to each run"), rows)


def renewed(page: str, parts: Parts) -> str:
    """The page with the tables that the kept results give; ValueError where it has no place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the lines between which its tables are")
    return f"{before}{begin}\n\n{tables(model(parts))}\n\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(), load()))
