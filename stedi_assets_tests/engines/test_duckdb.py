"""DuckDB over the lake's files: what it reads, what it writes, and what it notes."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi_assets.assets.curated import customers_curated
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_engine
from stedi_assets.tables import PARTITION, TABLES

PHONE = TABLES["accelerometer_trusted"]
CUSTOMERS = TABLES["customers_curated"]
SIXTH, SEVENTH, EIGHTH = date(2023, 8, 6), date(2023, 8, 7), date(2023, 8, 8)
KEY = "a key that nobody may read"


def phone_rows(*rows: tuple[date, str, int]) -> ir.Table:
    """A definition of accelerometer_trusted: date, user, timestamp."""
    return memory(
        PHONE.schema,
        [
            {PARTITION: day, "user": user, "timestamp": time, "x": 0.5, "y": -1.0, "z": 0.0}
            for day, user, time in rows
        ],
    )


def customer_rows(*rows: tuple[date, str, int]) -> ir.Table:
    """A definition of customers_curated: date, subject, time of the last update."""
    missing = dict.fromkeys(CUSTOMERS.column_names)
    return memory(
        CUSTOMERS.schema,
        [
            missing
            | {PARTITION: day, "subject_id": subject, "device_id": "d"}
            | {"registrationdate": 1, "lastupdatedate": time}
            for day, subject, time in rows
        ],
    )


def memory(schema: dict[str, str], rows: list[dict[str, Any]]) -> ir.Table:
    types = ibis.schema(schema)
    return ibis.memtable(pa.Table.from_pylist(rows, schema=types.to_pyarrow()), schema=types)


def publish(lake: Lake, engine: DuckDBEngine, *rows: tuple[date, str, int]) -> dict[date, Path]:
    """Publish rows of accelerometer_trusted, the stamp of a day being the day's name."""
    days = sorted({day for day, *_ in rows})
    stamps = {day: f"of {day}" for day in days}
    staged = engine.write(PHONE, phone_rows(*rows), days, {}, stamps)
    for day, file in staged.files.items():
        lake.publish(PHONE, day, file)
    return lake.fetch(PHONE)


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return rows


def values(files: dict[date, Path], name: str) -> dict[date, list[Any]]:
    return {day: [row[name] for row in read(path)] for day, path in files.items()}


@contextmanager
def opened(root: Path) -> Iterator[tuple[Lake, DuckDBEngine]]:
    lake = open_lake(str(root))
    with open_engine(lake) as engine:
        yield lake, engine


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_partitions_has_the_schema_of_the_registry_and_no_rows(
    engine: DuckDBEngine, name: str
) -> None:
    table = TABLES[name]
    rows = engine.table(table, {})
    assert rows.schema() == ibis.schema(table.schema)
    found = rows.to_pyarrow()
    assert found.num_rows == 0
    assert found.schema == ibis.schema(table.schema).to_pyarrow()
    assert list(table.schema)[-1] == PARTITION


def test_a_table_over_one_partition_has_the_date_of_its_folder(
    lake: Lake, engine: DuckDBEngine
) -> None:
    rows = engine.table(PHONE, publish(lake, engine, (SIXTH, "ann", 100)))
    assert rows.schema() == ibis.schema(PHONE.schema)
    assert rows.to_pyarrow().to_pylist() == [
        {"user": "ann", "timestamp": 100, "x": 0.5, "y": -1.0, "z": 0.0, PARTITION: SIXTH}
    ]


def test_a_table_over_three_partitions_has_the_rows_and_dates_of_all(
    lake: Lake, engine: DuckDBEngine
) -> None:
    given = {(SIXTH, "ann", 100), (SEVENTH, "bob", 50), (SEVENTH, "ann", 60), (EIGHTH, "cy", 1)}
    found = engine.table(PHONE, publish(lake, engine, *given)).to_pyarrow()
    assert found.schema == ibis.schema(PHONE.schema).to_pyarrow()
    rows = found.to_pylist()
    assert {(row[PARTITION], row["user"], row["timestamp"]) for row in rows} == given
    assert len(rows) == 4


def test_a_table_follows_the_partitions_that_it_is_given(lake: Lake, engine: DuckDBEngine) -> None:
    files = publish(lake, engine, (SIXTH, "ann", 100), (SEVENTH, "bob", 50))
    assert engine.table(PHONE, files).count().to_pyarrow().as_py() == 2
    only_one = engine.table(PHONE, {SEVENTH: files[SEVENTH]})
    assert only_one.select("user").to_pyarrow().to_pylist() == [{"user": "bob"}]
    assert engine.table(PHONE, {}).count().to_pyarrow().as_py() == 0


def test_the_date_is_not_stored_in_the_file(lake: Lake, engine: DuckDBEngine) -> None:
    for path in publish(lake, engine, (SIXTH, "ann", 100)).values():
        assert pq.ParquetFile(path).schema_arrow.names == list(PHONE.column_names)


@pytest.mark.parametrize(
    "folder",
    [
        "with blank",
        "it's",
        'a "lake"',
        "back\\slash",
        "{a,b}",
        "100%41",
        "see é",
        "zone=1",
        "[ab]",
        "a[b",
        "a*",
        "what?",
    ],
)
def test_the_name_of_a_folder_above_the_lake_changes_nothing(tmp_path: Path, folder: str) -> None:
    given = {(SIXTH, "ann", 100), (SEVENTH, "bob", 50)}
    with opened(tmp_path / folder / "lake") as (lake, engine):
        files = publish(lake, engine, *given)
        rows = engine.table(PHONE, files).to_pyarrow().to_pylist()
        assert {(row[PARTITION], row["user"], row["timestamp"]) for row in rows} == given
        assert {row["x"] for row in rows} == {0.5}
        assert {day: found.rows for day, found in engine.statistics(PHONE, files).items()} == {
            SIXTH: 1,
            SEVENTH: 1,
        }
        assert engine.stamps(files) == {SIXTH: "of 2023-08-06", SEVENTH: "of 2023-08-07"}


def test_writing_one_day_takes_the_rows_of_that_day_alone(engine: DuckDBEngine) -> None:
    rows = phone_rows((SIXTH, "ann", 1), (SEVENTH, "bob", 2), (EIGHTH, "cy", 3))
    files = dict(engine.write(PHONE, rows, [SEVENTH], {}, {}).files)
    assert values(files, "user") == {SEVENTH: ["bob"]}


def test_writing_several_days_gives_a_file_each_and_an_empty_one_where_there_are_no_rows(
    engine: DuckDBEngine,
) -> None:
    rows = phone_rows((EIGHTH, "cy", 3), (SIXTH, "ann", 1), (SIXTH, "ann", 1), (SIXTH, "bob", 0))
    files = dict(engine.write(PHONE, rows, [EIGHTH, SIXTH, SEVENTH], {}, {}).files)
    assert values(files, "user") == {SIXTH: ["bob", "ann", "ann"], SEVENTH: [], EIGHTH: ["cy"]}
    assert {str(pq.ParquetFile(path).schema_arrow) for path in files.values()} == {
        str(pq.ParquetFile(files[SIXTH]).schema_arrow)
    }


def test_written_files_are_sorted_by_event_time(engine: DuckDBEngine) -> None:
    times = [(7919 * number) % 10_007 for number in range(10_000)]
    rows = phone_rows(*((SIXTH, "ann", time) for time in times))
    (path,) = engine.write(PHONE, rows, [SIXTH], {}, {}).files.values()
    assert [row["timestamp"] for row in read(path)] == sorted(times)


def test_columns_are_stored_in_the_order_of_the_registry(engine: DuckDBEngine) -> None:
    rows = phone_rows((SIXTH, "ann", 1)).select("z", PARTITION, "y", "user", "timestamp", "x")
    (path,) = engine.write(PHONE, rows, [SIXTH], {}, {}).files.values()
    assert read(path) == [{"user": "ann", "timestamp": 1, "x": 0.5, "y": -1.0, "z": 0.0}]


def test_other_days_of_a_table_that_is_not_restated_are_not_written(
    lake: Lake, engine: DuckDBEngine
) -> None:
    stored = publish(lake, engine, (SIXTH, "old", 1), (SEVENTH, "old", 2))
    rows = phone_rows((SIXTH, "new", 1), (SEVENTH, "new", 2))
    assert list(engine.write(PHONE, rows, [SEVENTH], stored, {}).files) == [SEVENTH]


def write_customers(
    lake: Lake, engine: DuckDBEngine, days: list[date], *rows: tuple[date, str, int]
) -> dict[date, list[str]]:
    """Write and publish customers_curated; returns the subjects of each written day."""
    stored = lake.fetch(CUSTOMERS)
    staged = engine.write(CUSTOMERS, customer_rows(*rows), days, stored, {})
    for day, file in staged.files.items():
        lake.publish(CUSTOMERS, day, file)
    return values({day: lake.fetch(CUSTOMERS)[day] for day in staged.files}, "subject_id")


def test_of_a_restated_table_the_changed_other_days_are_written_too_and_only_those(
    lake: Lake, engine: DuckDBEngine
) -> None:
    first = [(SIXTH, "ann", 1), (SIXTH, "bob", 2), (SEVENTH, "cy", 3)]
    assert write_customers(lake, engine, [SIXTH, SEVENTH], *first) == {
        SIXTH: ["ann", "bob"],
        SEVENTH: ["cy"],
    }
    # Ann's record of the eighth takes the place of that of the sixth; the seventh is as it was.
    then = [(SIXTH, "bob", 2), (SEVENTH, "cy", 3), (EIGHTH, "ann", 9)]
    assert write_customers(lake, engine, [EIGHTH], *then) == {SIXTH: ["bob"], EIGHTH: ["ann"]}


def test_a_restated_day_that_loses_its_last_row_becomes_an_empty_file(
    lake: Lake, engine: DuckDBEngine
) -> None:
    write_customers(lake, engine, [SIXTH], (SIXTH, "ann", 1))
    assert write_customers(lake, engine, [SEVENTH]) == {SIXTH: [], SEVENTH: []}


def test_a_restated_day_that_was_not_there_is_written_when_it_gets_rows(
    lake: Lake, engine: DuckDBEngine
) -> None:
    written = write_customers(lake, engine, [SEVENTH], (SIXTH, "ann", 1), (SEVENTH, "bob", 2))
    assert written == {SIXTH: ["ann"], SEVENTH: ["bob"]}


def test_a_change_of_one_value_or_of_the_number_of_equal_rows_restates_a_day(
    lake: Lake, engine: DuckDBEngine
) -> None:
    write_customers(lake, engine, [SIXTH, SEVENTH], (SIXTH, "ann", 1), (SEVENTH, "bob", 2))
    assert write_customers(lake, engine, [EIGHTH], (SIXTH, "ann", 7), (SEVENTH, "bob", 2)) == {
        SIXTH: ["ann"],
        EIGHTH: [],
    }
    twice = [(SIXTH, "ann", 7), (SEVENTH, "bob", 2), (SEVENTH, "bob", 2)]
    assert write_customers(lake, engine, [EIGHTH], *twice) == {
        SEVENTH: ["bob", "bob"],
        EIGHTH: [],
    }


def test_what_is_the_same_again_restates_no_other_day(lake: Lake, engine: DuckDBEngine) -> None:
    rows = [(SIXTH, "ann", 1), (SEVENTH, "bob", 2)]
    write_customers(lake, engine, [SIXTH, SEVENTH], *rows)
    assert write_customers(lake, engine, [SEVENTH], *rows) == {SEVENTH: ["bob"]}


def test_an_engine_writes_again_after_a_query_that_failed(engine: DuckDBEngine) -> None:
    fails = phone_rows((SIXTH, "ann", 1)).mutate(x=ibis.literal("no number").cast("float64"))
    with pytest.raises(duckdb.Error):
        engine.write(PHONE, fails, [SIXTH, SEVENTH], {}, {})
    files = dict(engine.write(PHONE, phone_rows((SIXTH, "bob", 1)), [SIXTH, SEVENTH], {}, {}).files)
    assert values(files, "user") == {SIXTH: ["bob"], SEVENTH: []}


def test_statistics_are_those_of_the_files(engine: DuckDBEngine) -> None:
    rows = customer_rows((SIXTH, "ann", 30), (SIXTH, "bob", -20), (SEVENTH, "cy", 2**62))
    files = engine.write(CUSTOMERS, rows, [SIXTH, SEVENTH, EIGHTH], {}, {}).files
    found = engine.statistics(CUSTOMERS, files)
    assert {day: (of.rows, of.first, of.last) for day, of in found.items()} == {
        SIXTH: (2, -20, 30),
        SEVENTH: (1, 2**62, 2**62),
        EIGHTH: (0, None, None),
    }
    optional = {
        "birthyear",
        "sharewithresearchasofdate",
        "sharewithpublicasofdate",
        "sharewithfriendsasofdate",
    }
    for day, rows_of_day in ((SIXTH, 2), (SEVENTH, 1), (EIGHTH, 0)):
        assert found[day].nulls == {
            name: rows_of_day if name in optional else 0 for name in CUSTOMERS.column_names
        }
        assert found[day].types == {
            "subject_id": "VARCHAR",
            "device_id": "VARCHAR",
            "birthyear": "INTEGER",
            "registrationdate": "BIGINT",
            "lastupdatedate": "BIGINT",
            "sharewithresearchasofdate": "BIGINT",
            "sharewithpublicasofdate": "BIGINT",
            "sharewithfriendsasofdate": "BIGINT",
        }


def test_statistics_sum_up_all_row_groups_of_a_file(engine: DuckDBEngine, tmp_path: Path) -> None:
    path = tmp_path / "part-0.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT CASE WHEN i % 10 = 0 THEN NULL ELSE 'ann' END AS user, i AS timestamp, "
            f"0.5 AS x, 0.5 AS y, 0.5 AS z FROM range(10000) rows(i)) TO '{path}' "
            "(FORMAT parquet, ROW_GROUP_SIZE 2048)"
        )
    assert pq.ParquetFile(path).num_row_groups > 1
    found = engine.statistics(PHONE, {SIXTH: path})[SIXTH]
    assert (found.rows, found.nulls["user"], found.first, found.last) == (10_000, 1_000, 0, 9_999)


def test_without_files_there_are_no_statistics_and_no_stamps(engine: DuckDBEngine) -> None:
    assert engine.statistics(PHONE, {}) == {}
    assert engine.stamps({}) == {}


def test_the_stamp_of_a_day_is_noted_in_its_file_also_where_it_has_no_rows(
    engine: DuckDBEngine,
) -> None:
    stamps = {SIXTH: "it's a;stamp", SEVENTH: "é"}
    files = engine.write(PHONE, phone_rows((SIXTH, "a", 1)), [SIXTH, SEVENTH], {}, stamps).files
    assert engine.stamps(files) == stamps
    assert pq.ParquetFile(files[SIXTH]).metadata.metadata[b"stamp"] == b"it's a;stamp"


def test_a_file_of_somebody_else_has_no_stamp(engine: DuckDBEngine, tmp_path: Path) -> None:
    path = tmp_path / "part-0.parquet"
    pq.write_table(pa.table({"user": ["ann"]}), path)
    assert engine.stamps({SIXTH: path}) == {}


def test_a_pseudonym_is_the_hash_of_key_and_value(lake: Lake) -> None:
    with duckdb.connect() as connection, lake.staging() as folder:
        DuckDBEngine(connection, KEY, folder)
        ((found,),) = connection.execute("SELECT pseudonym('ann@test.com')").fetchall()
    assert found == hashlib.sha256(f"{KEY}ann@test.com".encode()).hexdigest()


def test_the_pseudonym_key_is_in_no_query_and_no_file(lake: Lake) -> None:
    customers, readings = TABLES["customer_trusted"], TABLES["accelerometer_trusted"]
    missing = dict.fromkeys(customers.column_names)
    ann = {"email": "ann@test.com", "serialnumber": "s", "registrationdate": 1, "lastupdatedate": 2}
    definition = customers_curated.op.compute_fn.decorated_fn
    with duckdb.connect() as connection, lake.staging() as folder:
        connection.execute("CALL enable_logging('QueryLog')")
        engine = DuckDBEngine(connection, KEY, folder)
        for table, rows in (
            (customers, memory(customers.schema, [missing | ann | {PARTITION: SIXTH}])),
            (readings, phone_rows((SIXTH, "ann@test.com", 1))),
        ):
            for day, file in engine.write(table, rows, [SIXTH], {}, {}).files.items():
                lake.publish(table, day, file)
        inputs = [engine.table(table, lake.fetch(table)) for table in (customers, readings)]
        staged = engine.write(CUSTOMERS, definition(*inputs), [SIXTH], {}, {})
        (row,) = read(staged.files[SIXTH])
        assert row["subject_id"] == hashlib.sha256(f"{KEY}ann@test.com".encode()).hexdigest()
        queries = [
            message for (message,) in connection.sql("SELECT message FROM duckdb_logs").fetchall()
        ]
        assert KEY.encode() not in staged.files[SIXTH].read_bytes()
    assert any("pseudonym_key" in query for query in queries), "queries are not logged"
    assert any("COPY" in query for query in queries)
    assert [query for query in queries if KEY in query] == []
    assert "PSEUDONYM(" in staged.sql
    assert KEY not in staged.sql


def test_what_does_not_fit_into_memory_goes_to_the_private_folder(engine: DuckDBEngine) -> None:
    ((found,),) = engine.connection.execute("SELECT current_setting('temp_directory')").fetchall()
    assert Path(found).is_relative_to(engine.folder)
