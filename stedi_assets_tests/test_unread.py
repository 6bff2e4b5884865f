"""Which partitions are to be made again, after each thing that can happen to a file."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pytest

from stedi_assets import making
from stedi_assets.engines.duckdb import Content, DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.landing.files import Landed
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import publish
from stedi_assets.reconcile import (
    Stale,
    examine,
    landing_partitions,
    reconcile,
    settled,
    unread,
)
from stedi_assets.resources import landed_now, open_engine
from stedi_assets.tables import TABLES, Source, Table, Zone
from stedi_assets_tests.end_to_end.landing_files import (
    customer,
    device,
    file_of,
    land,
    landed,
    phone,
    rows_by_date,
    run,
    twin,
)

pytestmark = pytest.mark.long

SIXTH, SEVENTH, EIGHTH = date(2023, 8, 6), date(2023, 8, 7), date(2023, 8, 8)
CUSTOMER, ACCELEROMETER, STEP_TRAINER = Source

NEW, CHANGED = "missing", "landing files changed"


def to_read(lake: Lake) -> dict[Source, dict[date, str]]:
    """The dates whose landing files are to be read, and why; of the sources that have any."""
    with open_engine(lake) as engine:
        found = unread(lake, engine, landed_now(lake))
    assert list(found) == list(Source)
    return {source: dates for source, dates in found.items() if dates}


def stale(lake: Lake) -> dict[tuple[str, date], str]:
    """The partitions that are not what they should be, and why."""
    with open_engine(lake) as engine:
        found = examine(lake, engine, Policy.REFERENCE, landed_now(lake)).stale
    whys = {(partition.table.name, partition.day): partition.why for partition in found}
    assert len(whys) == len(found), "a partition is told twice"
    return whys


def put_right(lake: Lake) -> dict[tuple[str, date], str]:
    """Make again what is not as it should be; returns what was found."""
    with open_engine(lake) as engine:
        found = reconcile_at(lake, engine, landed_now(lake))
    return {(partition.table.name, partition.day): partition.why for partition in found}


def reconcile_at(lake: Lake, engine: DuckDBEngine, landed: Landed) -> list[Stale]:
    """Make again what follows otherwise from landing files, as they were at some moment."""
    publishing = partial(publish, lake, engine)
    return reconcile(lake, engine, Policy.REFERENCE, landed, publishing)


def all_rows(lake: Lake) -> dict[str, object]:
    return {name: rows_by_date(lake, name) for name in TABLES}


def bring_up_to_date(lake: Lake, first: str = "2023-08-06", last: str = "2023-08-07") -> None:
    assert run(lake, first, last).success


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with files of each source on the sixth, customers on the seventh, and all tables."""
    lake = open_lake(str(tmp_path_factory.mktemp("made once")))
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    land(lake, "step_trainer", "2023-08-06", device(100, "s"))
    land(lake, "customer", "2023-08-07", customer("bob@test.com", "t"))
    bring_up_to_date(lake)
    return lake


@pytest.fixture
def up_to_date(made_once: Lake, tmp_path: Path) -> Lake:
    return twin(made_once, tmp_path / "up to date")


# Landing files.


def test_without_files_nothing_is_to_be_made(lake: Lake) -> None:
    assert to_read(lake) == {}
    assert stale(lake) == {}


def test_a_new_file_is_to_be_read(lake: Lake) -> None:
    land(lake, "accelerometer", "2023-08-07", phone("ann@test.com", 100))
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    assert to_read(lake) == {ACCELEROMETER: {SEVENTH: NEW}, CUSTOMER: {SIXTH: NEW}}


def test_files_of_the_first_date_and_of_the_last_are_to_be_read(lake: Lake) -> None:
    landed = landed_now(lake)
    for day in (landed.first, landed.last):
        land(lake, "customer", day.isoformat(), customer("ann@test.com", "s"))
    assert to_read(lake) == {CUSTOMER: {landed.first: NEW, landed.last: NEW}}


def test_after_a_run_everything_is_up_to_date(up_to_date: Lake) -> None:
    assert to_read(up_to_date) == {}
    assert stale(up_to_date) == {}


def test_a_run_over_one_date_leaves_the_others(lake: Lake) -> None:
    for day in ("2023-08-06", "2023-08-07", "2023-08-08"):
        land(lake, "customer", day, customer("ann@test.com", "s"))
    assert run(lake, "2023-08-07").success
    assert to_read(lake) == {CUSTOMER: {SIXTH: NEW, EIGHTH: NEW}}


def test_a_second_file_of_a_date_changes_it(up_to_date: Lake) -> None:
    land(up_to_date, "customer", "2023-08-07", customer("cy@test.com", "u"), name="late.json")
    assert to_read(up_to_date) == {CUSTOMER: {SEVENTH: CHANGED}}
    bring_up_to_date(up_to_date)
    assert to_read(up_to_date) == {}


def test_a_replaced_file_changes_its_date(up_to_date: Lake) -> None:
    land(up_to_date, "step_trainer", "2023-08-06", device(100, "s", distance=7))
    assert to_read(up_to_date) == {STEP_TRAINER: {SIXTH: CHANGED}}


def test_a_file_replaced_by_one_of_the_same_size_and_time_changes_its_date(
    up_to_date: Lake,
) -> None:
    path = landed(up_to_date, "customer", "2023-08-06")
    stat = path.stat()
    land(up_to_date, "customer", "2023-08-06", customer("amy@test.com", "s"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert to_read(up_to_date) == {CUSTOMER: {SIXTH: CHANGED}}


def test_a_touched_file_changes_its_date(up_to_date: Lake) -> None:
    path = landed(up_to_date, "customer", "2023-08-07")
    stat = path.stat()
    os.utime(path, ns=(1, 1))
    try:
        assert to_read(up_to_date) == {CUSTOMER: {SEVENTH: CHANGED}}
    finally:  # other tests have the same file
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert to_read(up_to_date) == {}


def test_a_renamed_file_changes_its_date(up_to_date: Lake) -> None:
    path = landed(up_to_date, "customer", "2023-08-07")
    path.rename(path.with_name("another.json"))
    assert to_read(up_to_date) == {CUSTOMER: {SEVENTH: CHANGED}}


def test_a_moved_file_changes_the_dates_from_which_and_to_which_it_went(up_to_date: Lake) -> None:
    to = landed(up_to_date, "customer", "2023-08-08")
    to.parent.mkdir()
    landed(up_to_date, "customer", "2023-08-07").rename(to)
    assert to_read(up_to_date) == {CUSTOMER: {SEVENTH: CHANGED, EIGHTH: NEW}}


def test_a_deleted_file_changes_its_date_until_its_rows_are_gone(up_to_date: Lake) -> None:
    landed(up_to_date, "customer", "2023-08-07").unlink()
    assert to_read(up_to_date) == {CUSTOMER: {SEVENTH: CHANGED}}
    bring_up_to_date(up_to_date)
    assert to_read(up_to_date) == {}
    assert rows_by_date(up_to_date, "customer_landing")["2023-08-07"].total() == 0


def test_hidden_and_unfinished_files_change_nothing(up_to_date: Lake) -> None:
    for name in (".hidden.json", "_SUCCESS", "coming.json.part", "draft.json~"):
        land(up_to_date, "customer", "2023-08-08", customer("cy@test.com", "u"), name=name)
    assert to_read(up_to_date) == {}
    assert stale(up_to_date) == {}


def test_a_folder_that_names_no_date_is_told_and_other_files_go_on(up_to_date: Lake) -> None:
    path = land(up_to_date, "customer", "2023-08-32", customer("cy@test.com", "u"))
    land(up_to_date, "customer", "2023-08-08", customer("dee@test.com", "v"))
    assert to_read(up_to_date) == {CUSTOMER: {EIGHTH: NEW}}
    (told,) = landed_now(up_to_date).misplaced
    assert told == (
        f"landing file {path.relative_to(up_to_date.storage.root)}: 'ingestion_date=2023-08-32' "
        "is no date; rename it to ingestion_date=YYYY-MM-DD"
    )
    assert put_right(up_to_date)
    assert rows_by_date(up_to_date, "customer_landing")["2023-08-08"].total() == 1
    assert stale(up_to_date) == {}


@pytest.mark.parametrize("day", ["2021-12-31", "2999-01-01"])
def test_a_file_of_a_date_that_has_no_partition_is_not_to_be_read(
    up_to_date: Lake, day: str
) -> None:
    land(up_to_date, "customer", day, customer("cy@test.com", "u"))
    assert to_read(up_to_date) == {}
    assert stale(up_to_date) == {}


def test_a_folder_that_cannot_be_read_is_an_error_and_no_deletion(
    up_to_date: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the system's refusal, for tests may run as root, who may read everything."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if "accelerometer/landing" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for look in (to_read, stale, put_right):
        with pytest.raises(PermissionError, match="accelerometer/landing"):
            look(up_to_date)


# What hangs on them.


def test_of_what_hangs_on_a_file_those_partitions_are_stale_whose_rows_change(
    up_to_date: Lake,
) -> None:
    """A reading makes Bob a curated customer; no device took one at that moment.

    The seventh was made once, from no phone's files.
    """
    land(up_to_date, "accelerometer", "2023-08-07", phone("bob@test.com", 1))
    assert stale(up_to_date) == {
        ("accelerometer_landing", SEVENTH): CHANGED,
        ("accelerometer_rejects", SEVENTH): CHANGED,
        ("accelerometer_trusted", SEVENTH): "upstream rows changed",
        ("customers_curated", SEVENTH): "upstream rows changed",
    }
    land(up_to_date, "step_trainer", "2023-08-08", device(1, "t"))
    assert stale(up_to_date) == {
        ("accelerometer_landing", SEVENTH): CHANGED,
        ("accelerometer_rejects", SEVENTH): CHANGED,
        ("accelerometer_trusted", SEVENTH): "upstream rows changed",
        ("customers_curated", SEVENTH): "upstream rows changed",
        ("step_trainer_landing", EIGHTH): NEW,
        ("step_trainer_rejects", EIGHTH): NEW,
        ("step_trainer_trusted", EIGHTH): NEW,
        ("machine_learning_curated", EIGHTH): NEW,
    }


def test_a_file_replaced_by_an_equal_one_makes_its_landing_partitions_stale_and_nothing_else(
    up_to_date: Lake,
) -> None:
    land(up_to_date, "customer", "2023-08-07", customer("bob@test.com", "t"))
    assert stale(up_to_date) == {
        ("customer_landing", SEVENTH): CHANGED,
        ("customer_rejects", SEVENTH): CHANGED,
    }


# Stored partitions.


@pytest.mark.parametrize("name", TABLES)
def test_a_partition_that_somebody_deleted_is_to_be_made_again_and_no_other(
    up_to_date: Lake, name: str
) -> None:
    before = rows_by_date(up_to_date, name)
    file_of(up_to_date, name, "2023-08-06").unlink()
    landing = TABLES[name].name.endswith(("_landing", "_rejects"))
    assert to_read(up_to_date) == ({TABLES[name].source: {SIXTH: "missing"}} if landing else {})
    assert put_right(up_to_date) == {(name, SIXTH): "missing"}
    assert rows_by_date(up_to_date, name) == before
    assert stale(up_to_date) == {}


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def garble_footer(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-60] + b"\xff" * 40 + content[-20:])


def garble_rows(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:8] + bytes(len(content[8:48])) + content[48:])


def garble_note(file: Path) -> None:
    """One byte of what the file notes of its content."""
    content = file.read_bytes()
    at = content.rindex(b"content") + len(b"content")
    at = content.index(b"[", at)
    file.write_bytes(content[:at] + b"{" + content[at + 1 :])


def replace_by_other_columns(file: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1 AS a) TO '{file}' (FORMAT parquet)")


def take_out_a_row(file: Path) -> None:
    """And keep the notes, which now say something else than what the file holds."""
    rewrite(file, "SELECT * FROM rows LIMIT (SELECT count(*) - 1 FROM rows)")


def double_the_rows(file: Path) -> None:
    rewrite(file, "FROM rows UNION ALL FROM rows")


def rewrite(file: Path, query: str) -> None:
    with duckdb.connect() as connection:
        notes: dict[str, str] = dict(
            connection.execute(
                f"SELECT decode(key), decode(value) FROM parquet_kv_metadata('{file}')"
            ).fetchall()
        )
        connection.execute(
            f"CREATE TABLE rows AS FROM read_parquet('{file}', hive_partitioning = false)"
        )
        noted = ", ".join(f"{name}: ${name}" for name in notes)
        connection.execute(
            f"COPY ({query}) TO '{file}' (FORMAT parquet, KV_METADATA {{{noted}}})", notes
        )


DAMAGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda file: file.write_bytes(b"not parquet, but long enough to be looked at"),
    "empty": lambda file: file.write_bytes(b""),
    "cut short": cut_short,
    "garbled footer": garble_footer,
    "garbled rows": garble_rows,
    "garbled note": garble_note,
    "a file of somebody else": replace_by_other_columns,
    "a row taken out": take_out_a_row,
    "rows doubled": double_the_rows,
}


@pytest.mark.parametrize(
    "name", ["accelerometer_landing", "customer_trusted", "machine_learning_curated"]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_partition_is_to_be_made_again_and_no_other(
    up_to_date: Lake, damage: str, name: str
) -> None:
    before = rows_by_date(up_to_date, name)
    DAMAGES[damage](file_of(up_to_date, name, "2023-08-06"))
    is_landing = name == "accelerometer_landing"
    assert to_read(up_to_date) == ({ACCELEROMETER: {SIXTH: "damaged"}} if is_landing else {})
    assert put_right(up_to_date) == {(name, SIXTH): "damaged"}
    assert rows_by_date(up_to_date, name) == before
    assert stale(up_to_date) == {}


@pytest.mark.parametrize("source", Source)
def test_a_damaged_file_of_rejects_is_to_be_read_again(up_to_date: Lake, source: Source) -> None:
    DAMAGES["other bytes"](file_of(up_to_date, f"{source}_rejects", "2023-08-06"))
    assert to_read(up_to_date) == {source: {SIXTH: "damaged"}}


def test_a_damaged_partition_without_landing_files_is_to_be_made_again(up_to_date: Lake) -> None:
    file = file_of(up_to_date, "customer_landing", "2023-08-08")
    file.parent.mkdir()
    file.write_bytes(b"PAR1")
    assert to_read(up_to_date) == {CUSTOMER: {EIGHTH: "damaged"}}
    assert put_right(up_to_date)[("customer_landing", EIGHTH)] == "damaged"
    assert rows_by_date(up_to_date, "customer_landing")["2023-08-08"].total() == 0
    assert stale(up_to_date) == {}


RESTATED = [name for name, table in TABLES.items() if table.restated]


@pytest.mark.parametrize("names", [[name for name in TABLES if name not in RESTATED], RESTATED])
def test_a_run_mends_damaged_partitions(up_to_date: Lake, names: list[str]) -> None:
    before = all_rows(up_to_date)
    for name in names:
        DAMAGES["other bytes"](file_of(up_to_date, name, "2023-08-06"))
    assert {name for name, _ in stale(up_to_date)} == set(names)
    assert run(up_to_date, "2023-08-06").success
    assert all_rows(up_to_date) == before
    assert stale(up_to_date) == {}


def test_a_run_of_another_date_leaves_a_damaged_partition_out_and_does_not_hide_it(
    up_to_date: Lake,
) -> None:
    before = all_rows(up_to_date)
    DAMAGES["other bytes"](file_of(up_to_date, "step_trainer_landing", "2023-08-06"))
    DAMAGES["other bytes"](file_of(up_to_date, "accelerometer_trusted", "2023-08-06"))
    bob = customer("bob@test.com", "t", updated=11)
    land(up_to_date, "customer", "2023-08-07", bob)
    assert run(up_to_date, "2023-08-07").success
    assert to_read(up_to_date) == {STEP_TRAINER: {SIXTH: "damaged"}}
    found = put_right(up_to_date)
    assert found[("step_trainer_landing", SIXTH)] == "damaged"
    assert found[("accelerometer_trusted", SIXTH)] == "damaged"
    after = all_rows(up_to_date)
    for name in TABLES:
        if name not in {"customer_landing", "customer_trusted"}:  # in which Bob's record is newer
            assert after[name] == before[name]
    assert stale(up_to_date) == {}


# Definitions.


def test_another_pseudonym_key_changes_the_tables_that_have_pseudonyms_and_no_landing_table(
    up_to_date: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "another")
    assert to_read(up_to_date) == {}
    assert stale(up_to_date) == {
        ("customers_curated", SIXTH): "definition changed",
        ("machine_learning_curated", SIXTH): "definition changed",
    }
    bring_up_to_date(up_to_date)
    assert stale(up_to_date) == {}


def test_landing_files_are_read_again_when_the_way_of_reading_them_has_changed(
    up_to_date: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for another version of the program, which reads customers otherwise."""
    query = making.reading_sql
    monkeypatch.setattr(
        making,
        "reading_sql",
        lambda engine, source: query(engine, source) + " " * (source is CUSTOMER),
    )
    why = "definition changed"
    assert to_read(up_to_date) == {CUSTOMER: {SIXTH: why, SEVENTH: why}}
    land(up_to_date, "customer", "2023-08-07", customer("cy@test.com", "u"))
    assert to_read(up_to_date) == {CUSTOMER: {SIXTH: why, SEVENTH: CHANGED}}
    put_right(up_to_date)
    assert to_read(up_to_date) == {}


# What is read to see that.


def test_rows_are_read_of_files_alone_that_are_not_those_that_were_right(
    up_to_date: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_right(up_to_date)
    read: list[tuple[str, date]] = []
    landed = landed_now(up_to_date)
    everything = {
        (name, day) for name, table in TABLES.items() for day in up_to_date.partitions(table)
    }
    of_landing = {(name, day) for name, day in everything if TABLES[name].zone is Zone.LANDING}
    with open_engine(up_to_date) as engine:
        measure = engine.measure

        def measured(table: Table, files: Mapping[date, Path]) -> dict[date, Content]:
            read.extend((table.name, day) for day in files)
            return measure(table, files)

        monkeypatch.setattr(engine, "measure", measured)
        for look, expected in (
            (lambda: settled(up_to_date, engine, Policy.REFERENCE, landed, ()), set()),
            (lambda: unread(up_to_date, engine, landed), set()),
            (lambda: landing_partitions(up_to_date, engine, landed), of_landing),
            (lambda: examine(up_to_date, engine, Policy.REFERENCE, landed), everything),
            (lambda: reconcile_at(up_to_date, engine, landed), everything),
        ):
            read.clear()
            assert look() is not False
            assert sorted(read) == sorted(expected)
        file_of(up_to_date, "customer_trusted", "2023-08-06").unlink()
        read.clear()
        assert len(reconcile_at(up_to_date, engine, landed)) == 1
        assert sorted(read) == sorted(everything - {("customer_trusted", SIXTH)})


# Dates that are held back.


@pytest.mark.parametrize(("good", "is_held_back"), [(19, False), (18, True)])
def test_a_date_is_held_back_of_which_more_than_one_record_in_twenty_was_rejected(
    lake: Lake, good: int, is_held_back: bool
) -> None:
    records = (customer(f"{n}@test.com", f"s{n}") for n in range(good))
    land(lake, "customer", "2023-08-06", *records, "{spoilt")
    with open_engine(lake) as engine:
        found = examine(lake, engine, Policy.REFERENCE, landed_now(lake)).stale
    trusted = {
        (each.reason, each.held_back, each.missing, each.extra, each.changed)
        for each in found
        if each.table.name == "customer_trusted"
    }
    if is_held_back:
        assert trusted == {("missing, held back: too many rejects of its date", True, 0, 0, 0)}
    else:
        assert trusted == {("missing", False, good, 0, 0)}


# Files that change meanwhile.


@pytest.mark.parametrize("half", ["customer_landing", "customer_rejects"])
def test_a_date_whose_files_grow_waits_also_where_one_half_of_it_is_gone(
    up_to_date: Lake, half: str
) -> None:
    before = all_rows(up_to_date)
    file_of(up_to_date, half, "2023-08-06").unlink()
    landed = landed_now(up_to_date, timedelta(days=1))
    assert (CUSTOMER, SIXTH) in landed.growing
    with open_engine(up_to_date) as engine:
        found = examine(up_to_date, engine, Policy.REFERENCE, landed).stale
    assert Zone.LANDING not in {each.table.zone for each in found}
    put_right(up_to_date)
    assert all_rows(up_to_date) == before


def test_a_file_that_grows_holds_up_its_own_source_alone(up_to_date: Lake) -> None:
    land(up_to_date, "customer", "2023-08-06", customer("cy@test.com", "u"), name="2.json")
    land(up_to_date, "accelerometer", "2023-08-06", phone("x@test.com", 1), name="2.json")
    landed = landed_now(up_to_date)
    files = landed.by_date[ACCELEROMETER][SIXTH]
    landed = replace(landed, growing={(ACCELEROMETER, SIXTH): files})
    with open_engine(up_to_date) as engine:
        found = unread(up_to_date, engine, landed)
    assert found == {CUSTOMER: {SIXTH: CHANGED}, ACCELEROMETER: {}, STEP_TRAINER: {}}


@pytest.mark.parametrize("damaged", ["accelerometer_landing", "accelerometer_rejects"])
def test_a_damaged_partition_of_a_date_whose_files_grow_is_made_again_with_its_other_half(
    up_to_date: Lake, damaged: str
) -> None:
    """Rows and rejects are of one reading, or a record would be in neither."""
    land(up_to_date, "accelerometer", "2023-08-06", phone("x@test.com", 1), "{bad", name="2.json")
    before = {name: rows_by_date(up_to_date, name) for name in TABLES}
    landed = landed_now(up_to_date, timedelta(hours=1))
    assert (ACCELEROMETER, SIXTH) in landed.growing
    with open_engine(up_to_date) as engine:
        assert unread(up_to_date, engine, landed)[ACCELEROMETER] == {}
        assert reconcile_at(up_to_date, engine, landed) == []
    assert {name: rows_by_date(up_to_date, name) for name in TABLES} == before
    DAMAGES["other bytes"](file_of(up_to_date, damaged, "2023-08-06"))
    with open_engine(up_to_date) as engine:
        reconcile_at(up_to_date, engine, landed)
    rows, rejects = (
        rows_by_date(up_to_date, name)["2023-08-06"].total() - (before[name]["2023-08-06"].total())
        for name in ("accelerometer_landing", "accelerometer_rejects")
    )
    assert (rows, rejects) == (1, 1)
    assert stale(up_to_date) == {}


def test_a_file_that_comes_during_a_reconciliation_is_left_to_the_next_one(
    up_to_date: Lake,
) -> None:
    land(up_to_date, "accelerometer", "2023-08-06", phone("x@test.com", 1), name="2.json")
    landed = landed_now(up_to_date)
    land(up_to_date, "accelerometer", "2023-08-06", phone("x@test.com", 2), name="3.json")
    before = rows_by_date(up_to_date, "accelerometer_landing")["2023-08-06"].total()
    with open_engine(up_to_date) as engine:
        reconcile_at(up_to_date, engine, landed)
    after = rows_by_date(up_to_date, "accelerometer_landing")["2023-08-06"].total()
    assert after == before + 1
    assert to_read(up_to_date) == {ACCELEROMETER: {SIXTH: CHANGED}}
    put_right(up_to_date)
    assert stale(up_to_date) == {}
