"""Spark over the lake's files: what is its own, beside making the same as DuckDB."""

from datetime import date
from pathlib import Path

import pytest

from stedi_assets.engines.spark import SparkEngine
from stedi_assets.tables import PARTITION, TABLES
from stedi_assets_tests.both_engines import Both, rows_in

pytestmark = pytest.mark.spark

SIXTH, SEVENTH = date(2023, 8, 6), date(2023, 8, 7)


# Definitions.


def test_letters_become_small_on_spark_as_they_do_in_duckdb(both: Both) -> None:
    letters = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF]
    ((by_duckdb,),) = both.duckdb.connection.execute(
        "SELECT lower($letters)", {"letters": "".join(letters)}
    ).fetchall()
    ((by_spark,),) = both.spark.session.sql(
        "SELECT lowercase(:letters)", args={"letters": "".join(letters)}
    ).collect()
    assert by_spark == by_duckdb
    assert len(by_spark) == len(letters)


@pytest.mark.parametrize("name", ["a lake", "50% {a,b} [c]*?", "\\d", "é😀", "#a&b;c:d"])
def test_a_lake_may_be_in_a_folder_of_any_name(
    tmp_path: Path, spark: SparkEngine, name: str
) -> None:
    files = {
        SIXTH: tmp_path / name / f"{PARTITION}={SIXTH}" / "part-0.parquet",
        SEVENTH: tmp_path / name / f"{PARTITION}={SEVENTH}" / "part-0.parquet",
    }
    for number, file in enumerate(files.values()):
        file.parent.mkdir(parents=True)
        spark.connection.execute(
            "COPY (SELECT 'a' AS \"user\", $time::BIGINT AS timestamp, 0.5::DOUBLE AS x, "
            "0.0::DOUBLE AS y, 1.0::DOUBLE AS z) TO $path (FORMAT parquet)",
            {"path": str(file), "time": number},
        )
    table = TABLES["accelerometer_trusted"]
    written = spark.write(table, spark.table(table, files), [SIXTH, SEVENTH], {})
    assert {day: rows_in(file) for day, file in written.items()} == {
        day: rows_in(file) for day, file in files.items()
    }


def test_no_plan_of_spark_and_no_file_holds_the_key_of_pseudonyms(
    spark: SparkEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = spark.session.sql("SELECT pseudonym('ann')")
    asked.explain(mode="extended")
    told = capfd.readouterr().out
    assert "pseudonym(ann)" in told, "or this would look at nothing"
    assert spark.pseudonym_key not in told
    settings = spark.session.sql("SET").collect()
    assert spark.pseudonym_key not in str(settings)
