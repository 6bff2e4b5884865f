"""DuckDB over the lake's files: what it reads, what it writes, and what it notes."""

import gc
import hashlib
import os
import random
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi_assets.assets.curated import customers_curated
from stedi_assets.engines.duckdb import (
    Content,
    DuckDBEngine,
    Noted,
    Staged,
    no_rows,
    quoted,
)
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_engine
from stedi_assets.tables import PARTITION, TABLES, Table

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


def write(
    engine: DuckDBEngine,
    table: Table,
    rows: ir.Table,
    days: list[date],
    stamps: Mapping[date, str] | None = None,
    stored: Mapping[date, Content] | None = None,
) -> Staged:
    """Finished files of a table."""
    stamps = stamps or {}
    files = engine.write(table, rows, days, stamps, stored)
    return engine.sealed(table, files, stamps, engine.sql(rows))


def publish(lake: Lake, engine: DuckDBEngine, *rows: tuple[date, str, int]) -> dict[date, Path]:
    """Publish rows of accelerometer_trusted, the stamp of a day being the day's name."""
    days = sorted({day for day, *_ in rows})
    stamps = {day: f"of {day}" for day in days}
    for day, file in write(engine, PHONE, phone_rows(*rows), days, stamps).files.items():
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
        noted = {day: (of.stamp, of.content.rows) for day, of in engine.noted(files).items()}
        assert noted == {SIXTH: ("of 2023-08-06", 1), SEVENTH: ("of 2023-08-07", 1)}
        assert engine.measure(PHONE, files) == {
            day: of.content for day, of in engine.noted(files).items()
        }


def test_writing_one_day_takes_the_rows_of_that_day_alone(engine: DuckDBEngine) -> None:
    rows = phone_rows((SIXTH, "ann", 1), (SEVENTH, "bob", 2), (EIGHTH, "cy", 3))
    files = engine.write(PHONE, rows, [SEVENTH], {})
    assert values(files, "user") == {SEVENTH: ["bob"]}


def test_writing_several_days_gives_a_file_each_and_an_empty_one_where_there_are_no_rows(
    engine: DuckDBEngine,
) -> None:
    rows = phone_rows((EIGHTH, "cy", 3), (SIXTH, "ann", 1), (SIXTH, "ann", 1), (SIXTH, "bob", 0))
    files = engine.write(PHONE, rows, [EIGHTH, SIXTH, SEVENTH], {})
    assert values(files, "user") == {SIXTH: ["bob", "ann", "ann"], SEVENTH: [], EIGHTH: ["cy"]}
    assert {str(pq.ParquetFile(path).schema_arrow) for path in files.values()} == {
        str(pq.ParquetFile(files[SIXTH]).schema_arrow)
    }


def test_written_files_are_sorted_by_event_time(engine: DuckDBEngine) -> None:
    times = [(7919 * number) % 10_007 for number in range(10_000)]
    rows = phone_rows(*((SIXTH, "ann", time) for time in times))
    (path,) = engine.write(PHONE, rows, [SIXTH], {}).values()
    assert [row["timestamp"] for row in read(path)] == sorted(times)


def test_columns_are_stored_in_the_order_of_the_registry(engine: DuckDBEngine) -> None:
    rows = phone_rows((SIXTH, "ann", 1)).select("z", PARTITION, "y", "user", "timestamp", "x")
    (path,) = engine.write(PHONE, rows, [SIXTH], {}).values()
    assert read(path) == [{"user": "ann", "timestamp": 1, "x": 0.5, "y": -1.0, "z": 0.0}]


@pytest.mark.parametrize("days", [[SEVENTH], [SEVENTH, EIGHTH]])
def test_other_days_of_a_table_that_is_not_restated_are_not_written(
    engine: DuckDBEngine, days: list[date]
) -> None:
    rows = phone_rows((SIXTH, "new", 1), (SEVENTH, "new", 2))
    assert list(engine.write(PHONE, rows, days, {})) == days


def test_a_staged_file_is_in_a_folder_of_the_name_that_the_lake_gives_it(
    lake: Lake, engine: DuckDBEngine
) -> None:
    """So that a view over staged and published files takes the dates from the folders' names."""
    publish(lake, engine, (SIXTH, "ann", 1))
    files = engine.write(PHONE, phone_rows((SEVENTH, "bob", 2)), [SEVENTH, EIGHTH], {})
    assert [path.parent.name for path in files.values()] == [
        "ingestion_date=2023-08-07",
        "ingestion_date=2023-08-08",
    ]
    rows = engine.table(PHONE, {**lake.fetch(PHONE), **files}).to_pyarrow().to_pylist()
    assert {(row[PARTITION], row["user"]) for row in rows} == {(SIXTH, "ann"), (SEVENTH, "bob")}


def write_customers(
    lake: Lake, engine: DuckDBEngine, days: list[date], *rows: tuple[date, str, int]
) -> dict[date, list[str]]:
    """Write and publish customers_curated; returns the subjects of each written day."""
    stored = {day: noted.content for day, noted in engine.noted(lake.fetch(CUSTOMERS)).items()}
    staged = write(engine, CUSTOMERS, customer_rows(*rows), days, stored=stored)
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


def test_an_empty_day_that_stays_empty_is_not_restated(lake: Lake, engine: DuckDBEngine) -> None:
    write_customers(lake, engine, [SIXTH, SEVENTH], (SIXTH, "ann", 1))
    assert write_customers(lake, engine, [EIGHTH], (SIXTH, "ann", 1)) == {EIGHTH: []}


def test_the_query_of_equal_expressions_is_written_once(
    engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TABLES["customer_trusted"]
    written = engine.sql(engine.expression(table))
    monkeypatch.setattr(ibis, "to_sql", None)
    assert engine.sql(engine.expression(table)) == written
    with pytest.raises(TypeError):
        engine.sql(engine.expression(TABLES["customer_landing"]))


def test_rows_in_memory_do_not_live_as_long_as_the_engine(engine: DuckDBEngine) -> None:
    rows = memory({"a": "int64"}, [{"a": 1}])
    alive = weakref.ref(rows.op())
    assert "memtable" in engine.sql(rows)
    del rows
    gc.collect()
    assert alive() is None


def test_an_engine_writes_again_after_a_query_that_failed(engine: DuckDBEngine) -> None:
    fails = phone_rows((SIXTH, "ann", 1)).mutate(x=ibis.literal("no number").cast("float64"))
    with pytest.raises(duckdb.Error):
        engine.write(PHONE, fails, [SIXTH, SEVENTH], {})
    files = engine.write(PHONE, phone_rows((SIXTH, "bob", 1)), [SIXTH, SEVENTH], {})
    assert values(files, "user") == {SIXTH: ["bob"], SEVENTH: []}


def test_statistics_are_those_of_the_files(engine: DuckDBEngine) -> None:
    rows = customer_rows((SIXTH, "ann", 30), (SIXTH, "bob", -20), (SEVENTH, "cy", 2**62))
    files = engine.write(CUSTOMERS, rows, [SIXTH, SEVENTH, EIGHTH], {})
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


# What a file notes of itself.


def test_without_files_there_are_no_statistics_no_notes_and_no_contents(
    engine: DuckDBEngine,
) -> None:
    assert engine.statistics(PHONE, {}) == {}
    assert engine.notes({}) == {}
    assert engine.noted({}) == {}
    assert engine.measure(PHONE, {}) == {}
    assert engine.sealed(PHONE, {}, {}, "SELECT") == Staged({}, {}, {}, "SELECT")


def test_the_stamp_of_a_day_is_noted_in_its_file_also_where_it_has_no_rows(
    engine: DuckDBEngine,
) -> None:
    stamps = {SIXTH: "it's a;stamp", SEVENTH: "é"}
    staged = write(engine, PHONE, phone_rows((SIXTH, "a", 1)), [SIXTH, SEVENTH], stamps)
    assert {day: of.stamp for day, of in engine.noted(staged.files).items()} == stamps
    assert {day: of["stamp"] for day, of in engine.notes(staged.files).items()} == stamps
    assert pq.ParquetFile(staged.files[SIXTH]).metadata.metadata[b"stamp"] == b"it's a;stamp"


def test_a_day_without_a_stamp_has_an_empty_one(engine: DuckDBEngine) -> None:
    staged = write(engine, PHONE, phone_rows(), [SIXTH, SEVENTH], {SIXTH: "one"})
    assert {day: of.stamp for day, of in engine.noted(staged.files).items()} == {
        SIXTH: "one",
        SEVENTH: "",
    }


def test_what_a_sealed_file_holds_is_noted_in_it_as_it_is_measured(engine: DuckDBEngine) -> None:
    rows = phone_rows((SIXTH, "ann", 30), (SIXTH, "bob", -20), (SEVENTH, "cy", 2**62))
    staged = write(engine, PHONE, rows, [SIXTH, SEVENTH, EIGHTH])
    assert {day: (of.rows, of.first, of.last) for day, of in staged.contents.items()} == {
        SIXTH: (2, -20, 30),
        SEVENTH: (1, 2**62, 2**62),
        EIGHTH: (0, None, None),
    }
    assert len({of.checksum for of in staged.contents.values()}) == 3
    assert engine.noted(staged.files) == {day: staged.noted(day) for day in staged.files}
    assert engine.measure(PHONE, staged.files) == staged.contents
    assert staged.only([SEVENTH]) == Staged(
        {SEVENTH: staged.files[SEVENTH]},
        {SEVENTH: staged.contents[SEVENTH]},
        {SEVENTH: staged.stamps[SEVENTH]},
        staged.sql,
    )


def test_a_table_without_event_time_has_rows_and_a_checksum_alone(engine: DuckDBEngine) -> None:
    table = TABLES["customer_rejects"]
    reject = {"file": "a.json", "line": 1, "reason": "no JSON", "record": None, PARTITION: SIXTH}
    staged = write(engine, table, memory(table.schema, [reject]), [SIXTH, SEVENTH])
    found = staged.contents[SIXTH]
    assert (found.rows, found.first, found.last) == (1, None, None)
    assert engine.noted(staged.files)[SIXTH].content == found


def test_sealing_leaves_a_file_as_long_as_it_was_and_its_rows_readable_by_others(
    engine: DuckDBEngine,
) -> None:
    """The largest numbers that there are find their place."""
    rows = phone_rows(*((SIXTH, "ann", time) for time in (-(2**63), 2**63 - 1) for _ in range(99)))
    files = engine.write(PHONE, rows, [SIXTH, SEVENTH], {SIXTH: "s"})
    size = files[SIXTH].stat().st_size
    engine.sealed(PHONE, files, {}, "")
    assert files[SIXTH].stat().st_size == size
    noted = engine.noted(files)[SIXTH]
    assert (noted.content.rows, noted.content.first) == (198, -(2**63))
    assert noted.content.last == 2**63 - 1
    assert {row["timestamp"] for row in read(files[SIXTH])} == {-(2**63), 2**63 - 1}


PLACE = "to be sealed".ljust(120)


@pytest.mark.parametrize("stamp", ["", PLACE])
def test_a_value_that_reads_like_the_place_of_a_note_is_left_alone(
    engine: DuckDBEngine, stamp: str
) -> None:
    """Values stand in a file's footer as well, as the least and greatest of their column."""
    staged = write(engine, PHONE, phone_rows((SIXTH, PLACE, 1)), [SIXTH, SEVENTH], {SIXTH: stamp})
    assert engine.noted(staged.files)[SIXTH] == Noted(stamp, staged.contents[SIXTH])
    assert [row["user"] for row in read(staged.files[SIXTH])] == [PLACE]
    least = pq.ParquetFile(staged.files[SIXTH]).metadata.row_group(0).column(0).statistics
    assert least is None or least.min in (PLACE, None)


# The order of rows.

READINGS = """
    SELECT 'user' || timestamp % 100 AS user, timestamp, 0.5::DOUBLE AS x, 0.0::DOUBLE AS y,
           timestamp / 2 AS z FROM (SELECT unnest(range(500000)) AS timestamp)
"""


def times_in(file: Path, column: str = "timestamp") -> list[int]:
    found: list[int] = pq.ParquetFile(file).read([column])[column].to_pylist()
    return found


def test_a_table_that_comes_in_order_is_written_as_it_comes(engine: DuckDBEngine) -> None:
    table = TABLES["accelerometer_landing"]
    backwards = f"SELECT * FROM ({READINGS}) ORDER BY timestamp DESC"
    file, _ = engine.stage(table, SIXTH, backwards, {})
    assert times_in(file) == list(range(499_999, -1, -1))


def test_other_tables_are_sorted_by_event_time(engine: DuckDBEngine) -> None:
    backwards = f"SELECT * FROM ({READINGS} ORDER BY timestamp DESC)"
    file, _ = engine.stage(PHONE, SIXTH, backwards, {})
    assert times_in(file) == list(range(500_000))


def test_joined_readings_are_nearly_in_order(engine: DuckDBEngine) -> None:
    readings, _ = engine.stage(PHONE, SIXTH, READINGS, {})
    table = TABLES["machine_learning_curated"]
    joined = f"""
        SELECT sha256(phone.user) AS subject_id, sha256(phone.user) AS device_id,
               device.timestamp AS sensorreadingtime, 1::INTEGER AS distancefromobject,
               phone.timestamp, phone.x, phone.y, phone.z, true AS same_customer
        FROM read_parquet('{readings}') phone
        JOIN read_parquet('{readings}') device USING (timestamp)
        WHERE device.timestamp % 7 < 6
    """
    file, count = engine.stage(table, SIXTH, joined, {})
    assert count > 400_000
    backwards = sum(later < former for former, later in pairwise(times_in(file)))
    assert backwards < count / 100  # of rows in no order it would be half of them


# What changes a checksum.

SOME = [(SIXTH, user, time) for time in range(300) for user in ("ann", "bob", "cy")]


def contents_of(engine: DuckDBEngine, rows: ir.Table, table: Table = PHONE) -> Content:
    """What a partition with some rows of the sixth holds."""
    return write(engine, table, rows, [SIXTH, SEVENTH]).contents[SIXTH]


def test_the_checksum_does_not_depend_on_the_order_of_rows(engine: DuckDBEngine) -> None:
    """Files are sorted by time; rows of the same time are in any order."""
    shuffled = random.Random(3).sample(SOME, len(SOME))
    assert contents_of(engine, phone_rows(*shuffled)) == contents_of(engine, phone_rows(*SOME))


def test_a_file_in_another_order_with_other_row_groups_holds_the_same(
    engine: DuckDBEngine, tmp_path: Path
) -> None:
    staged = write(engine, PHONE, phone_rows(*SOME), [SIXTH, SEVENTH])
    backwards = pq.ParquetFile(staged.files[SIXTH]).read().sort_by([("timestamp", "descending")])
    pq.write_table(backwards, tmp_path / "part-0.parquet", row_group_size=7)
    again = engine.measure(PHONE, {SIXTH: tmp_path / "part-0.parquet"})[SIXTH]
    assert again == staged.contents[SIXTH]


@pytest.mark.parametrize("column", PHONE.column_names)
def test_the_checksum_changes_with_any_value(engine: DuckDBEngine, column: str) -> None:
    row: dict[str, Any] = {"user": "ann", "timestamp": 7, "x": 0.5, "y": -1.0, "z": 0.0}
    rows = [row | {PARTITION: SIXTH, "timestamp": time} for time in range(100)]
    other: dict[str, Any] = {"user": "anN", "timestamp": 51, "x": 0.5000000000000001}
    changed = [rows[0] | {column: other.get(column, 1e-300)}, *rows[1:]]
    found = [contents_of(engine, memory(PHONE.schema, each)) for each in (rows, changed)]
    assert found[0].rows == found[1].rows
    assert found[0].checksum != found[1].checksum


def test_the_checksum_changes_when_two_columns_or_two_rows_change_values(
    engine: DuckDBEngine,
) -> None:
    def of(*rows: tuple[str, int, float, float]) -> str:
        names = ("user", "timestamp", "x", "y")
        fixed = {"z": 0.0, PARTITION: SIXTH}
        given = [dict(zip(names, row, strict=True)) | fixed for row in rows]
        return contents_of(engine, memory(PHONE.schema, given)).checksum

    different = [
        of(("ann", 1, 1.0, 2.0), ("bob", 2, 3.0, 4.0)),
        of(("ann", 1, 2.0, 1.0), ("bob", 2, 3.0, 4.0)),
        of(("bob", 1, 1.0, 2.0), ("ann", 2, 3.0, 4.0)),
        of(("ann", 1, 3.0, 2.0), ("bob", 2, 1.0, 4.0)),
        of(("ann", 1, 1.0, 1.0), ("bob", 2, 4.0, 4.0)),
        of(("ann", 1, 2.0, 2.0), ("bob", 2, 3.0, 3.0)),
    ]
    assert len(set(different)) == len(different)


def test_a_repeated_row_changes_the_checksum_and_not_only_the_number_of_rows(
    engine: DuckDBEngine,
) -> None:
    found = [
        contents_of(engine, phone_rows(*rows))
        for rows in (SOME, [*SOME, SOME[0]], [*SOME[1:], SOME[1]], [*SOME, SOME[0], SOME[0]])
    ]
    assert len({of.checksum for of in found}) == 4
    assert [of.rows for of in found] == [900, 901, 900, 902]


def test_a_null_and_a_value_and_a_null_elsewhere_have_other_checksums(
    engine: DuckDBEngine,
) -> None:
    base = dict.fromkeys(CUSTOMERS.column_names) | {PARTITION: SIXTH, "subject_id": "s"}
    base |= {"device_id": "d", "registrationdate": 1, "lastupdatedate": 2}
    consents = [name for name in CUSTOMERS.column_names if name.endswith("asofdate")]
    variants = [{}, *({name: value} for name in consents for value in (0, 1))]
    checksums = [
        contents_of(engine, memory(CUSTOMERS.schema, [base | variant]), CUSTOMERS).checksum
        for variant in variants
    ]
    assert len(set(checksums)) == len(variants) == 7


def test_another_engine_gives_the_same_checksums(lake: Lake, engine: DuckDBEngine) -> None:
    files = publish(lake, engine, *SOME, (SEVENTH, "ann", 1))
    with open_engine(lake) as other:
        other.connection.execute("SET threads = 1")
        assert other.measure(PHONE, files) == engine.measure(PHONE, files)


# Files that were damaged or changed by others.


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def garble_footer(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-60] + b"\xff" * 40 + content[-20:])


def garble_rows(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"\xff" * 40 + content[48:])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda file: file.write_bytes(b"not parquet, but long enough to be looked at"),
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
    "cut short": cut_short,
    "garbled footer": garble_footer,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_left_out_and_the_others_are_not(
    lake: Lake, engine: DuckDBEngine, damage: str
) -> None:
    days = [date(2023, 8, day) for day in range(1, 8)]
    files = publish(lake, engine, *((day, "ann", day.day) for day in days))
    before = engine.noted(files)
    assert list(before) == days
    damaged = {days[0], days[4], days[6]}
    for day in damaged:
        DAMAGES[damage](files[day])
    whole = [day for day in days if day not in damaged]
    assert engine.noted(files) == {day: before[day] for day in whole}
    assert engine.measure(PHONE, files) == {day: before[day].content for day in whole}
    assert list(engine.notes(files)) == whole


def test_a_file_whose_rows_cannot_be_read_notes_what_it_held_and_has_no_content(
    lake: Lake, engine: DuckDBEngine
) -> None:
    files = publish(lake, engine, *SOME, (SEVENTH, "ann", 1))
    before = engine.noted(files)
    garble_rows(files[SIXTH])
    assert engine.noted(files) == before
    assert engine.measure(PHONE, files) == {SEVENTH: before[SEVENTH].content}


def altered(file: Path, alter: Callable[[pa.Table], pa.Table]) -> None:
    """Change a file's rows, and keep its notes."""
    found = pq.ParquetFile(file).read()
    notes = found.schema.metadata
    assert {b"stamp", b"content"} <= notes.keys()
    pq.write_table(alter(found).replace_schema_metadata(notes), file)


@pytest.mark.parametrize(
    "alter",
    [
        lambda rows: rows.slice(1),
        lambda rows: rows.slice(0, 0),
        lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
        lambda rows: pa.concat_tables([rows.slice(1), rows.slice(1, 1)]),
        lambda rows: rows.set_column(2, "x", pa.array([0.5] * (len(rows) - 1) + [0.25])),
    ],
    ids=["a row less", "no rows", "a row twice", "a row for another", "another value"],
)
def test_rows_that_were_altered_while_the_notes_were_kept_are_told_by_measuring(
    lake: Lake, engine: DuckDBEngine, alter: Callable[[pa.Table], pa.Table]
) -> None:
    files = publish(lake, engine, *SOME, (SEVENTH, "ann", 1))
    before = engine.noted(files)
    altered(files[SIXTH], alter)
    assert engine.noted(files) == before
    measured = engine.measure(PHONE, files)
    assert measured[SIXTH] != before[SIXTH].content
    assert measured[SIXTH].checksum != before[SIXTH].content.checksum
    assert measured[SEVENTH] == before[SEVENTH].content


@pytest.mark.parametrize(
    "alter",
    [
        lambda rows: rows.drop_columns(["z"]),
        lambda rows: rows.rename_columns(["user", "timestamp", "x", "y", "zed"]),
        lambda rows: rows.set_column(1, "timestamp", pa.array(["soon"] * len(rows))),
        lambda rows: rows.set_column(1, "timestamp", rows.column(1).cast(pa.int32())),
        lambda rows: rows.set_column(1, "timestamp", rows.column(1).cast(pa.string())),
        lambda rows: rows.append_column("more", rows.column(1)),
    ],
    ids=[
        "a column less",
        "another name",
        "another type",
        "a narrower type",
        "numbers as text",
        "a column more",
    ],
)
@pytest.mark.parametrize("day", [SIXTH, SEVENTH])
def test_a_file_with_other_columns_does_not_hold_what_it_noted_and_spoils_no_other(
    lake: Lake, engine: DuckDBEngine, alter: Callable[[pa.Table], pa.Table], day: date
) -> None:
    files = publish(lake, engine, *SOME, (SEVENTH, "ann", 1), (EIGHTH, "bob", 1))
    before = engine.noted(files)
    altered(files[day], alter)
    measured = engine.measure(PHONE, files)
    assert measured.get(day) != before[day].content
    others = {other: of.content for other, of in before.items() if other != day}
    assert {other: of for other, of in measured.items() if other != day} == others


def test_a_file_of_somebody_else_notes_nothing(engine: DuckDBEngine, tmp_path: Path) -> None:
    path = tmp_path / "part-0.parquet"
    pq.write_table(pa.table({"user": ["ann"]}), path)
    assert engine.noted({SIXTH: path}) == {}
    assert "stamp" not in engine.notes({SIXTH: path})[SIXTH]


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"no JSON",
        b"null",
        b"[1, 2]",
        b"[1, 2, 3, 4, 5]",
        b"\xff\xfe",
    ],
)
def test_a_file_that_does_not_note_what_it_holds_counts_as_damaged(
    lake: Lake, engine: DuckDBEngine, note: bytes
) -> None:
    """A byte that fell over in the note, or a note of somebody else under the same name."""
    files = publish(lake, engine, (SIXTH, "ann", 1), (SEVENTH, "bob", 2))
    before = engine.noted(files)
    rows = pq.ParquetFile(files[SIXTH]).read()
    notes = {**rows.schema.metadata, b"content": note}
    pq.write_table(rows.replace_schema_metadata(notes), files[SIXTH])
    assert engine.noted(files) == {SEVENTH: before[SEVENTH]}


# Parts of it.


def test_what_is_made_in_parallel_is_in_the_order_of_the_days(engine: DuckDBEngine) -> None:
    for days in ([EIGHTH, SIXTH, SEVENTH], [SEVENTH], []):
        found = engine.in_parallel(lambda day, _: f"of {day}", days)
        assert list(found.items()) == [(day, f"of {day}") for day in days]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core does one thing at a time")
def test_several_days_are_made_at_the_same_time(engine: DuckDBEngine) -> None:
    meeting = threading.Barrier(2, timeout=60)
    found = engine.in_parallel(lambda *_: meeting.wait(), [SIXTH, SEVENTH])
    assert set(found.values()) == {0, 1}


def test_an_error_of_one_day_is_the_error_of_all(engine: DuckDBEngine) -> None:
    def fail(day: date, _: duckdb.DuckDBPyConnection) -> None:
        if day == SEVENTH:
            raise OSError(f"no room for {day}")

    with pytest.raises(OSError, match="no room for 2023-08-07"):
        engine.in_parallel(fail, [SIXTH, SEVENTH, EIGHTH])


@pytest.mark.parametrize("days", [[SIXTH], [SIXTH, SEVENTH, EIGHTH]])
def test_what_is_made_in_parallel_sees_the_tables(
    lake: Lake, engine: DuckDBEngine, days: list[date]
) -> None:
    engine.create_view(PHONE, publish(lake, engine, *((day, "ann", day.day) for day in days)))

    def look(day: date, connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
        query = f"SELECT timestamp FROM {PHONE.name} WHERE {PARTITION} = $day"
        return connection.execute(query, {"day": day}).fetchall()

    assert engine.in_parallel(look, days) == {day: [(day.day,)] for day in days}


def test_what_one_connection_is_let_see_the_others_do_not_see(
    lake: Lake, engine: DuckDBEngine
) -> None:
    days = [SIXTH, SEVENTH, EIGHTH]
    files = publish(lake, engine, *((day, "ann", day.day) for day in days))
    count = f"SELECT timestamp, getvariable('pseudonym_key') IS NULL FROM {PHONE.name}"

    def look(day: date, connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
        engine.create_view(PHONE, {day: files[day]}, connection)
        return connection.execute(count).fetchall()

    engine.create_view(PHONE, {})
    assert engine.in_parallel(look, days) == {day: [(day.day, False)] for day in days}
    assert engine.connection.execute(count).fetchall() == []


def test_partitions_written_each_by_itself_are_those_of_the_whole_table(
    lake: Lake, engine: DuckDBEngine
) -> None:
    files = publish(lake, engine, *SOME, (SEVENTH, "ann", 1), (EIGHTH, "bob", 2))
    rows = engine.table(PHONE, files)
    whole = engine.sealed(PHONE, engine.write(PHONE, rows, list(files), {}), {}, "")
    seen: list[date] = []

    def bind(days: Collection[date], connection: duckdb.DuckDBPyConnection | None = None) -> None:
        seen.extend(days)
        engine.create_view(PHONE, {day: files[day] for day in days}, connection)

    stamps = {day: f"of {day}" for day in files}
    each = engine.write_each(PHONE, rows, [EIGHTH, SIXTH, SEVENTH], stamps, bind)
    assert sorted(seen) == list(each) == [SIXTH, SEVENTH, EIGHTH]
    assert engine.sealed(PHONE, each, {}, "").contents == whole.contents
    assert {day: of.stamp for day, of in engine.noted(each).items()} == stamps
    assert engine.write_each(PHONE, rows, [], {}, bind) == {}


def test_rows_of_a_small_table_are_kept_while_they_are_made_from_the_same(
    lake: Lake, engine: DuckDBEngine
) -> None:
    def seen() -> list[str]:
        return sorted(engine.expression(PHONE).user.to_pyarrow().to_pylist())

    files = publish(lake, engine, (SIXTH, "ann", 1))
    engine.create_small_view(PHONE, files, "first")
    more = publish(lake, engine, (SEVENTH, "bob", 1))
    engine.create_small_view(PHONE, files | more, "first")
    assert seen() == ["ann"]
    engine.create_small_view(PHONE, files | more, "second")
    assert seen() == ["ann", "bob"]
    engine.create_small_view(PHONE, {}, "third")
    assert seen() == []


def test_a_staged_file_comes_with_the_number_of_its_rows(engine: DuckDBEngine) -> None:
    for rows in (0, 1, 900):
        columns = "'ann' AS user, i AS timestamp, 1.0 AS x, 1.0 AS y, 1.0 AS z"
        query = f"SELECT {columns} FROM range({rows}) AS r(i)"
        path, count = engine.stage(PHONE, SIXTH, query, {"stamp": ""})
        assert count == rows == pq.read_metadata(path).num_rows


def test_what_is_kept_is_made_again_only_when_it_is_made_from_something_else(
    engine: DuckDBEngine,
) -> None:
    def kept() -> list[tuple[Any, ...]]:
        return engine.connection.execute('FROM "a kept one"').fetchall()

    engine.keep("a kept one", ("a", 1), "SELECT 1")
    engine.keep("a kept one", ("a", 1), "SELECT 2")
    assert kept() == [(1,)]
    engine.keep("a kept one", ("a", 2), "SELECT 2")
    assert kept() == [(2,)]


@pytest.mark.parametrize("name", TABLES)
def test_no_rows_of_a_table_have_its_columns_and_types(engine: DuckDBEngine, name: str) -> None:
    table = TABLES[name]
    staged, _ = engine.stage(table, SIXTH, no_rows(table), {"stamp": ""})
    (path,) = engine.sealed(table, {SIXTH: staged}, {}, "").files.values()
    found = pq.ParquetFile(path).schema_arrow
    schema = ibis.Schema.from_pyarrow(found)
    assert {column: str(kind) for column, kind in schema.items()} == {
        column: kind for column, kind in table.schema.items() if column != PARTITION
    }


@pytest.mark.parametrize("name", ["a", 'say "a"', "with blank", "it's", "ä", "a;b"])
def test_a_quoted_name_is_a_name_whatever_is_in_it(engine: DuckDBEngine, name: str) -> None:
    found = engine.connection.execute(f"SELECT 1 AS {quoted(name)}")
    assert [column[0] for column in found.description] == [name]


def test_a_pseudonym_is_the_hash_of_key_and_value(lake: Lake) -> None:
    with duckdb.connect() as connection, lake.staging() as folder:
        DuckDBEngine(connection, KEY, folder)
        ((found,),) = connection.execute("SELECT pseudonym('ann@test.com')").fetchall()
    assert found == hashlib.sha256(f"{KEY}ann@test.com".encode()).hexdigest()


def test_the_pseudonym_key_is_in_no_query_and_no_file(lake: Lake) -> None:
    customers, readings = TABLES["customer_trusted"], TABLES["accelerometer_trusted"]
    missing = dict.fromkeys(customers.column_names)
    ann = {"email": "ann@test.com", "serialnumber": "s", "registrationdate": 1, "lastupdatedate": 2}
    with duckdb.connect() as connection, lake.staging() as folder:
        connection.execute("CALL enable_logging('QueryLog')")
        engine = DuckDBEngine(connection, KEY, folder)
        for table, rows in (
            (customers, memory(customers.schema, [missing | ann | {PARTITION: SIXTH}])),
            (readings, phone_rows((SIXTH, "ann@test.com", 1))),
        ):
            for day, file in write(engine, table, rows, [SIXTH, SEVENTH]).files.items():
                lake.publish(table, day, file)
        inputs = [engine.table(table, lake.fetch(table)) for table in (customers, readings)]
        staged = write(engine, CUSTOMERS, customers_curated(*inputs), [SIXTH, SEVENTH])
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
