"""The page on other sizes says what the model gives, and the model what was measured."""

from dataclasses import replace

import pytest

from benchmarks import scale
from benchmarks.lines import Line
from benchmarks.parts.growth import fits
from benchmarks.parts.speed import SPARK
from benchmarks.results import Comparison, Goal, Part, Parts, load
from benchmarks.scale import (
    BEGIN,
    END,
    PAGE,
    Model,
    by_partitions,
    by_price,
    by_readings,
    model,
    renewed,
)
from stedi_assets_tests.benchmarks.test_results import measured

MEASURED = Model(Line(2, 2.5, 0), Line(30, 10, 0), Line(3, 0.001, 0), 100, 10)


def kept() -> Parts:
    """A run takes 1 s and 2 s a million rows, twice that of CPU; on Spark 20 s and 10 s."""
    runs = [measured("x1", 1_000_000, 3.0), measured("x10", 10_000_000, 21.0)]
    days = [measured("none", 0, 2.0), measured("100", 0, 2.5)]
    on_spark = [measured(SPARK, 1_000_000, 30.0), measured(SPARK, 10_000_000, 120.0)]
    growth = [
        Comparison(
            "The whole job, by size",
            runs,
            [Goal("landing files, as JSON", 95.0), Goal("all tables, as Parquet", 11.0)],
            fits("stedi run", [1, 10], runs, "million", "millions"),
        ),
        Comparison("A day, by the days of history", fits=fits("a day", [0, 100], days, "", "")),
    ]
    sizes = [Comparison("", [of], size=size) for of, size in zip(on_spark, (1, 10), strict=True)]
    return {"growth": Part({}, growth), "speed": Part({}, sizes)}


def test_the_page_has_the_tables_that_the_kept_results_give() -> None:
    assert PAGE.read_text() == renewed(PAGE.read_text(), load()), "run python -m benchmarks.scale"


def test_the_model_is_what_was_measured() -> None:
    found = model(kept())
    assert (found.cpu.fixed, found.cpu.each) == (pytest.approx(2), pytest.approx(4))
    assert (found.spark_cpu.fixed, found.spark_cpu.each) == (pytest.approx(40), pytest.approx(20))
    assert found.history.each == pytest.approx(0.005)
    assert (found.landing_bytes, found.table_bytes) == (95, 11)


def cells(told: str, row: str) -> list[str]:
    (line,) = (line for line in told.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_day_costs_its_runs_and_its_rows() -> None:
    found = cells(by_readings(MEASURED), "1,000,000,000")
    cpu = (24 * 2 + 1000 * 2.5) / 3600
    on_spark = (24 * 30 + 1000 * 10) / 3600
    assert found[:4] == ["1,000,000,000", "100.0 GB", "10.00 GB", f"{cpu:.2f} h"]
    assert found[4:6] == [f"{cpu * 3600 / 24 / (16 * 0.7):,.0f} s", f"{on_spark:.2f} h"]
    dollars = cells(by_price(MEASURED), "1,000,000,000")
    assert dollars[1] == f"{cpu / (16 * 0.7) * scale.MACHINE_HOUR:.2f}"
    assert dollars[3] == f"{on_spark / 0.7 / 4 * 0.44:.2f}"
    assert dollars[4] == f"{110 * 0.023:.2f}"


def test_pairs_of_strangers_grow_with_the_square_of_the_readings() -> None:
    told = by_readings(MEASURED)
    ten, hundred = (
        float(cells(told, f"{readings:,}")[-1].replace(",", "")) for readings in (10**8, 10**9)
    )
    assert hundred / ten == pytest.approx(100)
    assert hundred == pytest.approx(0.74e9 * 0.26e9 / 86_400_000, abs=1)


def test_history_adds_to_a_run_by_its_partitions() -> None:
    assert cells(by_partitions(MEASURED), "ten years of hours")[1:] == ["87,600", "87.6 s"]


def test_a_page_without_a_place_for_the_tables_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^scale\.md lacks the lines"):
        renewed(f"a page\n{BEGIN}{END[:-1]}", kept())


def test_a_part_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(KeyError):
        model({name: replace(part, comparisons=[]) for name, part in kept().items()})
