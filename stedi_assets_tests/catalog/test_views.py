"""The file of views: what any DuckDB reads through it, and when it is written."""

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stedi_assets.catalog.views import write_views
from stedi_assets.engines.duckdb import SQL_TYPES, DuckDBEngine, quoted
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_engine
from stedi_assets.tables import TABLES
from stedi_assets_tests.catalog.partitions import publish
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.landing_files import customer, land, phone, run
from stedi_assets_tests.end_to_end.process import counts, stedi, succeeded

pytestmark = pytest.mark.long

CUSTOMERS = TABLES["customer_landing"]
PHONES = TABLES["accelerometer_landing"]
SIXTH, SEVENTH = date(2023, 8, 6), date(2023, 8, 7)

COUNT = "SELECT ingestion_date, count(*) FROM {} GROUP BY 1 ORDER BY 1"


def file_of(lake: Lake) -> Path:
    return lake.storage.root / "stedi.duckdb"


def read(lake: Lake, query: str) -> list[Any]:
    with duckdb.connect(str(file_of(lake)), read_only=True) as connection:
        return connection.execute(query).fetchall()


def identity(lake: Lake) -> tuple[int, int]:
    stat = file_of(lake).stat()
    return stat.st_ino, stat.st_mtime_ns


def test_every_table_is_a_view_with_the_columns_and_types_of_the_registry(
    lake: Lake, engine: DuckDBEngine
) -> None:
    publish(lake, CUSTOMERS, SIXTH)
    write_views(lake, engine)
    for name, table in TABLES.items():
        described = read(lake, f"DESCRIBE {name}")
        assert {column: kind for column, kind, *_ in described} == {
            **{column.name: SQL_TYPES[column.type] for column in table.columns},
            "ingestion_date": "DATE",
        }
        assert [column for column, *_ in described] == [*table.column_names, "ingestion_date"]
    views = read(lake, "SELECT view_name FROM duckdb_views() WHERE NOT internal")
    assert {name for (name,) in views} == TABLES.keys()


def test_a_table_without_partitions_is_empty_until_it_has_some(
    lake: Lake, engine: DuckDBEngine
) -> None:
    write_views(lake, engine)
    for name in TABLES:
        assert read(lake, f"FROM {name}") == []
    publish(lake, PHONES, SIXTH, rows=3)
    write_views(lake, engine)
    assert read(lake, COUNT.format(PHONES.name)) == [(SIXTH, 3)]
    assert read(lake, f"FROM {CUSTOMERS.name}") == []


def test_a_new_partition_is_seen_at_once_in_the_same_file(lake: Lake, engine: DuckDBEngine) -> None:
    publish(lake, PHONES, SIXTH)
    write_views(lake, engine)
    before = identity(lake)
    with duckdb.connect(str(file_of(lake)), read_only=True) as reader:
        publish(lake, PHONES, SEVENTH, rows=2)
        assert reader.execute(COUNT.format(PHONES.name)).fetchall() == [(SIXTH, 1), (SEVENTH, 2)]
    write_views(lake, engine)
    assert identity(lake) == before


@pytest.mark.parametrize("writing", [True, False])
def test_the_views_are_the_same_whether_the_lake_was_listed_before_or_not(
    lake: Lake, engine: DuckDBEngine, writing: bool
) -> None:
    publish(lake, PHONES, SIXTH)
    write_views(lake, engine)
    before = identity(lake)
    with lake.writing():
        for table in TABLES.values():
            if writing:
                lake.partitions(table)
        write_views(lake, engine)
    assert identity(lake) == before


def test_only_the_partitions_that_a_query_wants_are_read(lake: Lake, engine: DuckDBEngine) -> None:
    publish(lake, PHONES, SIXTH)
    publish(lake, PHONES, SEVENTH)
    write_views(lake, engine)
    damaged = lake.storage.root / lake.partition_key(PHONES, SEVENTH)
    damaged.write_bytes(b"not parquet, but long enough to be looked at")
    query = f"SELECT timestamp FROM {PHONES.name} WHERE ingestion_date = DATE '2023-08-06'"
    assert read(lake, query) == [(None,)]


def test_other_files_in_the_folders_of_partitions_are_not_read(
    lake: Lake, engine: DuckDBEngine
) -> None:
    publish(lake, PHONES, SIXTH)
    write_views(lake, engine)
    folder = (lake.storage.root / lake.partition_key(PHONES, SIXTH)).parent
    (folder / "copy of part-0.parquet").write_bytes(b"something else")
    assert read(lake, COUNT.format(PHONES.name)) == [(SIXTH, 1)]


def test_a_lake_in_a_folder_of_any_name_is_read_from_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lake = open_lake('it\'s [a] *lake*? "of" x=1, {b}')
    with open_engine(lake) as engine:
        publish(lake, PHONES, SIXTH)
        write_views(lake, engine)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read(lake, COUNT.format(PHONES.name)) == [(SIXTH, 1)]


@pytest.mark.parametrize("and_kept", [False, True])
def test_a_lake_that_was_moved_or_copied_reads_its_own_files_once_they_are_written_there(
    lake: Lake, engine: DuckDBEngine, tmp_path: Path, and_kept: bool
) -> None:
    publish(lake, PHONES, SIXTH)
    write_views(lake, engine)
    shutil.copytree(lake.storage.root, tmp_path / "other")
    if not and_kept:
        shutil.rmtree(lake.storage.root / "accelerometer")
    other = open_lake(str(tmp_path / "other"))
    publish(other, PHONES, SEVENTH)
    with open_engine(other) as its_engine:
        write_views(other, its_engine)
    assert read(other, COUNT.format(PHONES.name)) == [(SIXTH, 1), (SEVENTH, 1)]


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_a_file_that_is_no_database_is_replaced(
    lake: Lake, engine: DuckDBEngine, content: bytes
) -> None:
    publish(lake, PHONES, SIXTH)
    file_of(lake).write_bytes(content)
    write_views(lake, engine)
    assert read(lake, COUNT.format(PHONES.name)) == [(SIXTH, 1)]


def test_a_view_that_was_replaced_by_hand_is_written_anew(lake: Lake, engine: DuckDBEngine) -> None:
    publish(lake, PHONES, SIXTH)
    write_views(lake, engine)
    with duckdb.connect(str(file_of(lake))) as connection:
        connection.execute(f"CREATE OR REPLACE VIEW {quoted(PHONES.name)} AS SELECT 1 AS mine")
    write_views(lake, engine)
    assert read(lake, COUNT.format(PHONES.name)) == [(SIXTH, 1)]


def test_a_duckdb_of_version_1_can_open_the_file(lake: Lake, engine: DuckDBEngine) -> None:
    """By the version of storage that the file's head names; 1.0 itself cannot run here."""
    write_views(lake, engine)
    head = file_of(lake).read_bytes()[:20]
    assert (head[8:12], int.from_bytes(head[12:20], "little")) == (b"DUCK", 64)


def test_a_lake_on_s3_has_no_such_file(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "a key of a test")
    lake = open_lake(f"s3://{bucket.name}/lake")
    with open_engine(lake) as engine:
        write_views(lake, engine)
    assert bucket.keys == []


# Runs.


def test_a_run_writes_the_views_and_a_second_one_leaves_them(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(
        lake,
        "accelerometer",
        "2023-08-06",
        *(phone("ann@test.com", t) for t in range(40)),
        "no JSON",
    )
    succeeded(stedi(lake, "run"))
    found = {name: read(lake, f"SELECT count(*) FROM {name}")[0][0] for name in TABLES}
    assert found == counts(lake)
    assert (found["accelerometer_landing"], found["accelerometer_rejects"]) == (40, 1)
    before = identity(lake)
    succeeded(stedi(lake, "run"))
    assert identity(lake) == before


def test_a_run_of_the_ui_writes_the_views_as_well(lake: Lake) -> None:
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 1))
    assert run(lake, "2023-08-06").success
    assert read(lake, COUNT.format(PHONES.name)) == [(SIXTH, 1)]


def test_where_a_partition_is_damaged_the_run_that_mends_it_writes_the_views(lake: Lake) -> None:
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 1))
    land(lake, "accelerometer", "2023-08-07", phone("ann@test.com", 2))
    assert run(lake, "2023-08-06", "2023-08-07").success
    file_of(lake).unlink()
    damaged = lake.storage.root / lake.partition_key(PHONES, SIXTH)
    damaged.write_bytes(b"not parquet, but long enough to be looked at")
    assert run(lake, "2023-08-07", tables=[PHONES.name, "accelerometer_rejects"]).success
    assert not file_of(lake).exists()
    succeeded(stedi(lake, "run"))
    assert read(lake, COUNT.format(PHONES.name)) == [(SIXTH, 1), (SEVENTH, 1)]


@contextmanager
def reader(lake: Lake, *, read_only: bool) -> Iterator["subprocess.Popen[str]"]:
    """Another process with the file open, which counts phone readings for each line it is given."""
    program = f"""
import duckdb, sys
connection = duckdb.connect({str(file_of(lake))!r}, read_only={read_only})
print("open", flush=True)
for _ in sys.stdin:
    print(connection.execute("SELECT count(*) FROM accelerometer_landing").fetchall(), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            assert process.stdin
            process.stdin.close()


def ask(process: "subprocess.Popen[str]") -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_who_has_the_file_open_reads_on_while_a_run_replaces_it(lake: Lake) -> None:
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 1))
    assert run(lake, "2023-08-06", tables=[PHONES.name, "accelerometer_rejects"]).success
    before = identity(lake)
    with reader(lake, read_only=True) as process:
        assert ask(process) == "[(1,)]"
        land(lake, "customer", "2023-08-07", customer("ann@test.com", "s"))
        land(lake, "accelerometer", "2023-08-07", phone("ann@test.com", 2))
        done = threading.Event()
        answers: set[str] = set()

        def read_on() -> None:
            while not done.is_set():
                answers.add(ask(process))

        asking = threading.Thread(target=read_on)
        asking.start()
        try:
            succeeded(stedi(lake, "run"))
        finally:
            done.set()
            asking.join()
        assert answers <= {"[(1,)]", "[(2,)]"}
        assert ask(process) == "[(2,)]"
    assert identity(lake) != before, "customers have partitions now"
    assert read(lake, COUNT.format(CUSTOMERS.name)) == [(SEVENTH, 1)]


def test_who_has_the_file_open_to_write_to_it_stops_no_run(
    lake: Lake, engine: DuckDBEngine
) -> None:
    publish(lake, PHONES, SIXTH)
    write_views(lake, engine)
    with reader(lake, read_only=False) as process:
        write_views(lake, engine)
        publish(lake, CUSTOMERS, SIXTH)
        write_views(lake, engine)
        assert ask(process) == "[(1,)]"
        assert read(lake, COUNT.format(CUSTOMERS.name)) == [(SIXTH, 1)]


def test_views_are_made_where_what_a_killed_process_leaves_is_removed(
    lake: Lake, engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/not/there")
    write_views(lake, engine)
    assert file_of(lake).exists()
