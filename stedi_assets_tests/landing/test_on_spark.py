"""Dividing landing files among Spark's workers, and what one of them does.

Beside DuckDB, with workers of Spark, `engines/test_parity.py` tries it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from stedi_assets.engines.duckdb import DuckDBEngine, rows_of_files
from stedi_assets.lake import Lake, StoredFile
from stedi_assets.landing import on_spark as module
from stedi_assets.landing.files import files_by_date
from stedi_assets.privacy.suppression import hidden
from stedi_assets.tables import Source, Table
from stedi_assets_tests.end_to_end.landing_files import device, land

FIFTH, SIXTH, SEVENTH = (date(2023, 8, day) for day in (5, 6, 7))
DEVICES = Source.STEP_TRAINER
FOLDER = "step_trainer/landing/ingestion_date=2023-08-05"


def of_size(key: str, size: int) -> StoredFile:
    return StoredFile(key, size, datetime(2023, 8, 5, tzinfo=UTC), "v1")


def test_files_are_read_together_until_they_are_large_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TASK", 10)
    a, b, c, d, e = (
        of_size(key, size) for key, size in zip("abcde", (10, 1, 9, 2, 1), strict=True)
    )
    tasks = module._tasks({FIFTH: [a, b, c], SIXTH: [], SEVENTH: [d, e]}, {c: Path("c here")})
    assert tasks == [
        [(FIFTH, {"a": a, "b": b})],
        [(FIFTH, {"c": Path("c here")}), (SEVENTH, {"d": d})],
        [(SEVENTH, {"e": e})],
    ]


def test_a_date_is_in_a_task_once_whatever_other_dates_and_tasks_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TASK", 10)
    a, b, c, d, e = (of_size(key, 11 if key == "a" else 1) for key in "abcde")
    tasks = module._tasks({FIFTH: [a], SIXTH: [b, c], SEVENTH: [d, e]}, {})
    assert tasks == [
        [(FIFTH, {"a": a})],
        [(SIXTH, {"b": b, "c": c}), (SEVENTH, {"d": d, "e": e})],
    ]


def test_without_files_there_is_one_task_with_nothing_to_do() -> None:
    assert module._tasks({}, {}) == [[]]


def done(read: module._Read, task: int, into: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What a worker wrote for a task, by the folder of the date."""
    into.mkdir()
    read(task, into)
    with duckdb.connect() as connection:
        return {
            path.parent.name: connection.execute(
                "SELECT sensorreadingtime, serialnumber, line, reason, record, records "
                "FROM read_parquet($path, hive_partitioning = false) ORDER BY ALL",
                {"path": str(path)},
            ).fetchall()
            for path in into.glob("*/*.parquet")
        }


@pytest.mark.parametrize("seen", [True, False], ids=["on its disk", "in the lake"])
def test_a_worker_hands_over_the_rows_the_rejects_and_the_counts_of_its_task(
    lake: Lake, tmp_path: Path, seen: bool
) -> None:
    land(lake, DEVICES, "2023-08-05", device(1, "s"), "oops", device(2, "t"))
    land(lake, DEVICES, "2023-08-06", device(3, "s"))
    land(lake, DEVICES, "2023-08-07", device(4, "s"), device(4, "s"))
    files = files_by_date(lake, DEVICES)
    tasks = [
        [(day, {f.key: lake.storage.fetch(f) if seen else f for f in files[day]}) for day in days]
        for days in ([FIFTH, SIXTH], [SEVENTH])
    ]
    read = module._Read(lake.storage.uri(), DEVICES, tasks, None, "key", "100MB")
    count = [(None,) * 5]
    assert done(read, 0, tmp_path / "0") == {
        "ingestion_date=2023-08-05": [
            (1, "s", None, None, None, None),
            (2, "t", None, None, None, None),
            (None, None, 2, "not valid JSON", "oops", None),
            (*count[0], 3),
        ],
        "ingestion_date=2023-08-06": [(3, "s", None, None, None, None), (*count[0], 1)],
    }
    assert done(read, 1, tmp_path / "1") == {
        "ingestion_date=2023-08-07": [(4, "s", None, None, None, None)] * 2 + [(*count[0], 2)]
    }


def test_a_worker_keeps_out_who_was_erased(
    lake: Lake, engine: DuckDBEngine, tmp_path: Path
) -> None:
    land(lake, DEVICES, "2023-08-05", device(1, "s"), device(2, "t"))
    device_s = hidden("device", "'s'")
    erased = engine.connection.sql(
        f"SELECT {device_s} AS hash, 9::BIGINT AS until"
    ).to_arrow_table()
    tasks = module._tasks(files_by_date(lake, DEVICES), {})
    read = module._Read(lake.storage.uri(), DEVICES, tasks, erased, engine.pseudonym_key, "100MB")
    assert done(read, 0, tmp_path / "0") == {
        "ingestion_date=2023-08-05": [
            (2, "t", None, None, None, None),
            (None, None, 1, "erased", None, None),
            (None, None, None, None, None, 2),
        ]
    }


class Workers(DuckDBEngine):
    """Stands in for the engine on Spark: this process does the tasks, one after the other."""

    exchange = SimpleNamespace(by_bucket=False)

    @contextmanager
    def spread(self, write: Callable[[int, Path], None], tasks: int, table: Table) -> Iterator[str]:
        with TemporaryDirectory(dir=self.folder) as folder:
            for task in range(tasks):
                into = Path(folder, str(task))
                into.mkdir()
                write(task, into)
            files = list(Path(folder).glob("*/*/*.parquet"))
            self.connection.execute(f"CREATE VIEW handed_over AS {rows_of_files(table, files)}")
            yield "handed_over"


@pytest.mark.parametrize("by_bucket", [False, True])
@pytest.mark.parametrize("is_erased", [False, True])
def test_what_workers_hand_over_is_staged_by_date_with_its_stamp_and_count(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_bucket: bool, is_erased: bool
) -> None:
    monkeypatch.setattr(module, "_TASK", 1)
    monkeypatch.setattr(Workers, "exchange", SimpleNamespace(by_bucket=by_bucket))
    if by_bucket:  # what is fetched here, workers do not see
        monkeypatch.setattr(lake.storage, "fetch_all", lambda files: 1 / 0)
    land(lake, DEVICES, "2023-08-05", device(1, "s", 250), "oops", device(2, "t", 251))
    land(lake, DEVICES, "2023-08-05", device(3, "t", 252), name="second.json")
    land(lake, DEVICES, "2023-08-06", "5")
    files = {SEVENTH: [], **files_by_date(lake, DEVICES)}
    stamps = {day: f"of {day}" for day in files}
    with duckdb.connect() as connection:
        engine = Workers(connection, "key", tmp_path)
        s = hidden("device", "'s'")
        connection.execute(f"CREATE TABLE erased AS SELECT {s} AS hash, 9::BIGINT AS until")
        staged = module.read_days_on_spark(
            lake,
            engine,  # type: ignore[arg-type]
            DEVICES,
            files,
            stamps,
            "erased" if is_erased else "",
        )
        rows, rejects = (
            {
                day: connection.execute(
                    "FROM read_parquet($path, hive_partitioning = false) ORDER BY ALL",
                    {"path": str(path)},
                ).fetchall()
                for day, path in of_table.items()
            }
            for of_table in staged
        )
        notes = [engine.notes(of_table) for of_table in staged]
    (key,) = {file.key for file in files[FIFTH]} - {f"{FOLDER}/second.json"}
    of_s = [(key, 1, "erased", None)] if is_erased else []
    assert rows == {
        FIFTH: ([] if is_erased else [(1, "s", 250)]) + [(2, "t", 251), (3, "t", 252)],
        SIXTH: [],
        SEVENTH: [],
    }
    assert rejects == {
        FIFTH: [*of_s, (key, 2, "not valid JSON", "oops")],
        SIXTH: [(files[SIXTH][0].key, 1, "not a JSON object", "5")],
        SEVENTH: [],
    }
    for of_table in notes:
        assert {day: of["stamp"] for day, of in of_table.items()} == stamps
        assert {day: of["records"] for day, of in of_table.items()} == {
            FIFTH: "4",
            SIXTH: "1",
            SEVENTH: "0",
        }
