"""Lakes to measure on: the reference files, copied many times over."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.floor import COLUMNS

FIRST = 1_691_348_231_000  # the files' names end in epoch milliseconds, here of 2023-08-06
DAY = 86_400_000
_OF_OTHERS = {
    # Other people and devices in each copy, an hour later than in the one before.
    "customer": "* REPLACE ($copy || '.' || email AS email, "
    "serialNumber || '-' || $copy AS serialNumber)",
    "accelerometer": "* REPLACE ($copy || '.' || user AS user, "
    "timestamp + $copy * 3600000 AS timestamp)",
    "step_trainer": "* REPLACE (serialNumber || '-' || $copy AS serialNumber, "
    "sensorReadingTime + $copy * 3600000 AS sensorReadingTime)",
}
_OF_LATER = {
    # The same people and devices, a day later than in the copy before.
    "customer": "* REPLACE (lastUpdateDate + $copy * 86400000::BIGINT AS lastUpdateDate)",
    "accelerometer": "* REPLACE (timestamp + $copy * 86400000::BIGINT AS timestamp)",
    "step_trainer": "* REPLACE (sensorReadingTime + $copy * 86400000::BIGINT AS sensorReadingTime)",
}


def write_copies(reference: Path, lake: Path, copies: int, *, dates: bool = False) -> None:
    """Write the reference's landing files `copies` times into a new lake.

    A lake that is there already is left as it is.

    Args:
        reference: has the landing files.
        lake: the folder to write.
        copies: how many.
        dates: whether each copy is another day of the same people, with an ingestion date of its
            own; else all are of the same date and of other people.
    """
    if lake.exists():
        return
    draft = lake.with_name(lake.name + ".draft")
    changed = _OF_LATER if dates else _OF_OTHERS
    with duckdb.connect() as connection:
        for source, columns in COLUMNS.items():
            folder = draft / source / "landing"
            folder.mkdir(parents=True, exist_ok=True)
            connection.execute(
                f"CREATE OR REPLACE TABLE rows AS "
                f"FROM read_json('{reference}/{source}/landing/*.json', columns = {columns})"
            )
            for copy in range(copies):
                name = f"{source}-{FIRST + copy * (DAY if dates else 1)}.json"
                connection.execute(
                    f"COPY (SELECT {changed[source]} FROM rows) TO '{folder / name}' (FORMAT json)",
                    {"copy": copy},
                ).fetchall()
    draft.rename(lake)


def move_last_date(lake: Path, to: Path) -> None:
    """Make a lake of the landing files of the last date of another, which then lacks them."""
    if to.exists():
        return
    draft = to.with_name(to.name + ".draft")
    for source in COLUMNS:
        last = max((lake / source / "landing").iterdir())
        (draft / source / "landing").mkdir(parents=True, exist_ok=True)
        last.rename(draft / source / "landing" / last.name)
    draft.rename(to)


def link_tree(lake: Path, to: Path) -> None:
    """A copy of a lake that takes no room; files are replaced in lakes, and never written to."""
    shutil.copytree(lake, to, copy_function=_link, dirs_exist_ok=True)


def _link(file: str, to: str) -> None:
    Path(to).hardlink_to(file)


def write_empty_files(lake: Path, files: int) -> None:
    """Write empty landing files of a year's dates, so many that listing them takes time."""
    if lake.exists():
        return
    draft = lake.with_name(lake.name + ".draft")
    first: date = datetime.fromtimestamp(FIRST / 1000, UTC).date()
    for number in range(files):
        source = list(COLUMNS)[number % 3]
        day = first + timedelta(days=number // 3 % 365)
        folder = draft / source / "landing" / f"ingestion_date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.json").touch()
    draft.rename(lake)
