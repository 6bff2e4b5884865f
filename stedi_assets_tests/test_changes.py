"""Which dates are to be made again, after each thing that can happen to a file."""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import pytest

from stedi_assets.changes import changed_dates
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_engine
from stedi_assets.tables import TABLES
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

SIXTH, SEVENTH, EIGHTH = date(2023, 8, 6), date(2023, 8, 7), date(2023, 8, 8)


def changed(lake: Lake, *tables: str) -> list[date]:
    with open_engine(lake) as engine:
        return changed_dates(lake, engine, [TABLES[name] for name in tables or TABLES])


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


def test_without_files_nothing_is_to_be_made(lake: Lake) -> None:
    assert changed(lake) == []


def test_a_new_file_is_to_be_read(lake: Lake) -> None:
    land(lake, "accelerometer", "2023-08-07", phone("ann@test.com", 100))
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    assert changed(lake) == [SIXTH, SEVENTH]


def test_after_a_run_everything_is_up_to_date(up_to_date: Lake) -> None:
    assert changed(up_to_date) == []


def test_a_run_over_one_date_leaves_the_others(lake: Lake) -> None:
    for day in ("2023-08-06", "2023-08-07", "2023-08-08"):
        land(lake, "customer", day, customer("ann@test.com", "s"))
    assert run(lake, "2023-08-07").success
    assert changed(lake) == [SIXTH, EIGHTH]


def test_a_second_file_of_a_date_changes_it(up_to_date: Lake) -> None:
    land(up_to_date, "customer", "2023-08-07", customer("cy@test.com", "u"), name="late.json")
    assert changed(up_to_date) == [SEVENTH]
    bring_up_to_date(up_to_date)
    assert changed(up_to_date) == []


def test_a_replaced_file_changes_its_date(up_to_date: Lake) -> None:
    land(up_to_date, "step_trainer", "2023-08-06", device(100, "s", distance=7))
    assert changed(up_to_date) == [SIXTH]


def test_a_file_replaced_by_one_of_the_same_size_and_time_changes_its_date(
    up_to_date: Lake,
) -> None:
    path = landed(up_to_date, "customer", "2023-08-06")
    stat = path.stat()
    land(up_to_date, "customer", "2023-08-06", customer("amy@test.com", "s"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert changed(up_to_date) == [SIXTH]


def test_a_touched_file_changes_its_date(up_to_date: Lake) -> None:
    path = landed(up_to_date, "customer", "2023-08-07")
    stat = path.stat()
    os.utime(path, ns=(1, 1))
    try:
        assert changed(up_to_date) == [SEVENTH]
    finally:  # other tests have the same file
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert changed(up_to_date) == []


def test_a_renamed_file_changes_its_date(up_to_date: Lake) -> None:
    path = landed(up_to_date, "customer", "2023-08-07")
    path.rename(path.with_name("another.json"))
    assert changed(up_to_date) == [SEVENTH]


def test_a_moved_file_changes_the_dates_from_which_and_to_which_it_went(up_to_date: Lake) -> None:
    to = landed(up_to_date, "customer", "2023-08-08")
    to.parent.mkdir()
    landed(up_to_date, "customer", "2023-08-07").rename(to)
    assert changed(up_to_date) == [SEVENTH, EIGHTH]


def test_a_deleted_file_changes_its_date_until_its_rows_are_gone(up_to_date: Lake) -> None:
    landed(up_to_date, "customer", "2023-08-07").unlink()
    assert changed(up_to_date) == [SEVENTH]
    bring_up_to_date(up_to_date)
    assert changed(up_to_date) == []
    assert rows_by_date(up_to_date, "customer_landing")["2023-08-07"].total() == 0


def test_a_file_of_one_source_changes_its_own_tables_and_all_derived_ones(up_to_date: Lake) -> None:
    land(up_to_date, "accelerometer", "2023-08-07", phone("bob@test.com", 1))
    assert {name for name in TABLES if changed(up_to_date, name)} == {
        "accelerometer_landing",
        "accelerometer_rejects",
        "customer_trusted",
        "accelerometer_trusted",
        "customers_curated",
        "step_trainer_trusted",
        "machine_learning_curated",
    }
    for name in TABLES:
        assert changed(up_to_date, name) in ([], [SEVENTH])


@pytest.mark.parametrize("name", TABLES)
def test_a_partition_that_somebody_deleted_is_to_be_made_again_and_no_other(
    up_to_date: Lake, name: str
) -> None:
    file_of(up_to_date, name, "2023-08-07").unlink()
    assert changed(up_to_date) == [SEVENTH]
    assert changed(up_to_date, name) == [SEVENTH]
    assert changed(up_to_date, *(set(TABLES) - {name})) == []


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def garble_footer(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-60] + b"\xff" * 40 + content[-20:])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda file: file.write_bytes(b"not parquet, but long enough to be looked at"),
    "empty": lambda file: file.write_bytes(b""),
    "cut short": cut_short,
    "garbled footer": garble_footer,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_partition_is_to_be_made_again(up_to_date: Lake, damage: str) -> None:
    for name in ("accelerometer_landing", "machine_learning_curated"):
        DAMAGES[damage](file_of(up_to_date, name, "2023-08-06"))
        assert changed(up_to_date, name) == [SIXTH]
    assert changed(up_to_date) == [SIXTH]
    assert changed(up_to_date, "customer_trusted") == []


def test_a_damaged_partition_without_landing_files_is_to_be_made_again(up_to_date: Lake) -> None:
    file = file_of(up_to_date, "customer_landing", "2023-08-08")
    file.parent.mkdir()
    file.write_bytes(b"PAR1")
    assert changed(up_to_date) == [EIGHTH]


RESTATED = [name for name, table in TABLES.items() if table.restated]


@pytest.mark.parametrize("names", [[name for name in TABLES if name not in RESTATED], RESTATED])
def test_a_run_mends_damaged_partitions(up_to_date: Lake, names: list[str]) -> None:
    before = {name: rows_by_date(up_to_date, name) for name in TABLES}
    for name in names:
        DAMAGES["other bytes"](file_of(up_to_date, name, "2023-08-06"))
    assert changed(up_to_date) == [SIXTH]
    assert run(up_to_date, "2023-08-06").success
    assert {name: rows_by_date(up_to_date, name) for name in TABLES} == before
    assert changed(up_to_date) == []


def test_a_run_of_another_date_does_not_hide_that_a_landing_partition_is_damaged(
    up_to_date: Lake,
) -> None:
    """What a partition was made from is unknown where the landing partition cannot be read."""
    DAMAGES["other bytes"](file_of(up_to_date, "step_trainer_landing", "2023-08-06"))
    land(up_to_date, "customer", "2023-08-07", customer("bob@test.com", "t", updated=11))
    run(up_to_date, "2023-08-07")
    assert SIXTH in changed(up_to_date)


def test_a_file_of_somebody_else_in_the_place_of_a_partition_is_to_be_made_again(
    up_to_date: Lake,
) -> None:
    own = file_of(up_to_date, "customer_rejects", "2023-08-06")
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1 AS a) TO '{own}' (FORMAT parquet)")
    assert changed(up_to_date, "customer_rejects") == [SIXTH]


def test_hidden_and_unfinished_files_change_nothing(up_to_date: Lake) -> None:
    for name in (".hidden.json", "_SUCCESS", "coming.json.part", "draft.json~"):
        land(up_to_date, "customer", "2023-08-08", customer("cy@test.com", "u"), name=name)
    assert changed(up_to_date) == []


def test_a_folder_that_names_no_date_is_an_error_that_says_what_to_do(up_to_date: Lake) -> None:
    land(up_to_date, "customer", "2023-08-32", customer("cy@test.com", "u"))
    with pytest.raises(
        ValueError, match=r"2023-08-32. is no date; rename .* to ingestion_date=YYYY"
    ):
        changed(up_to_date)


def test_another_pseudonym_key_changes_all_tables_but_the_landing_ones(
    up_to_date: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "another")
    assert changed(up_to_date) == [SIXTH, SEVENTH]
    for source in ("customer", "accelerometer", "step_trainer"):
        assert changed(up_to_date, f"{source}_landing", f"{source}_rejects") == []
    bring_up_to_date(up_to_date)
    assert changed(up_to_date) == []


def test_another_pseudonym_key_makes_all_but_landing_anew(
    up_to_date: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "another key")
    assert changed(up_to_date, "customer_landing", "customer_rejects") == []
    assert changed(up_to_date, "customers_curated") == [SIXTH, SEVENTH]
    bring_up_to_date(up_to_date)
    assert changed(up_to_date) == []


def test_a_damaged_partition_of_a_restated_table_is_mended_by_a_run(up_to_date: Lake) -> None:
    damaged = file_of(up_to_date, "customer_trusted", "2023-08-06")
    before = rows_by_date(up_to_date, "customer_trusted")
    damaged.write_bytes(b"garbage")
    assert changed(up_to_date) == [SIXTH]
    assert run(up_to_date, "2023-08-06").success
    assert rows_by_date(up_to_date, "customer_trusted") == before
    assert changed(up_to_date) == []


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
    with pytest.raises(PermissionError, match="accelerometer/landing"):
        changed(up_to_date)
