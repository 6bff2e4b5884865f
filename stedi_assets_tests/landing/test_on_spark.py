"""Dividing landing files among Spark's workers, and what one of them does.

Beside DuckDB, with workers of Spark, `engines/test_parity.py` tries it.
"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, StoredFile
from stedi_assets.landing import on_spark as module
from stedi_assets.landing.files import files_by_date
from stedi_assets.privacy.suppression import hidden
from stedi_assets.tables import Source
from stedi_assets_tests.end_to_end.landing_files import device, land

FIFTH, SIXTH, SEVENTH = (date(2023, 8, day) for day in (5, 6, 7))
DEVICES = Source.STEP_TRAINER


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
    land(lake, DEVICES, "2023-08-07", device(4, "s"))
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
        "ingestion_date=2023-08-07": [(4, "s", None, None, None, None), (*count[0], 1)]
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
