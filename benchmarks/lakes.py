"""Lakes to measure on: the reference files, or made-up ones like them, copied many times over."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.floor import COLUMNS

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmarks" / "work"
REFERENCE = Path(os.environ.get("STEDI_REFERENCE") or ROOT.parent / "shared" / "reference")
MADE_UP = not REFERENCE.is_dir()  # whoever has no reference files measures on others of their size
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
_MADE_UP = {
    # As many people, devices and readings of a person as in the reference files.
    "customer": """
        SELECT 'Person ' || i AS customerName, 'person.' || i || '@example.com' AS email,
               '8015551212' AS phone, 1900 + i % 100 || '-01-01' AS birthDay,
               md5(i::VARCHAR)::UUID::VARCHAR AS serialNumber, $start + i AS registrationDate,
               $start + i AS lastUpdateDate,
               CASE WHEN i < 482 THEN $start + i END AS shareWithResearchAsOfDate,
               CASE WHEN i % 2 = 0 THEN $start + i END AS shareWithPublicAsOfDate,
               CASE WHEN i % 3 = 0 THEN $start + i END AS shareWithFriendsAsOfDate
        FROM range(956) people(i)""",
    "accelerometer": """
        SELECT 'person.' || i || '@example.com' AS user, $start + (i * 30 + j) * 11 AS timestamp,
               (k % 3 - 1)::DOUBLE AS x, (j % 3 - 1)::DOUBLE AS y, -(i % 2)::DOUBLE AS z
        FROM range(956) people(i), range(30) moments(j), range(3) readings(k)
        WHERE k < 2 OR j < 25""",
    "step_trainer": """
        SELECT $start + (i * 30 + j) * 11 AS sensorReadingTime,
               md5(i::VARCHAR)::UUID::VARCHAR AS serialNumber,
               201 + (i + j) % 100 AS distanceFromObject
        FROM range(956) people(i), range(30) moments(j)""",
}


def copies(number: int, *, dates: bool = False) -> Path:
    """The lake of so many copies of the landing files, see `write_copies`; it is written once."""
    original = WORK / "made up" if MADE_UP else REFERENCE
    if MADE_UP:
        write_made_up(original)
    lake = (
        WORK
        / ("copies of made up" if MADE_UP else "copies")
        / (f"{number} days" if dates else f"x{number}")
    )
    write_copies(original, lake, number, dates=dates)
    return lake


def landing_rows(lake: Path) -> int:
    """How many records a lake's landing files hold: a line each."""
    rows = 0
    for file in lake.glob("*/landing/*"):
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                rows += chunk.count(b"\n")
    return rows


def write_made_up(lake: Path) -> None:
    """Write landing files of made-up people, of the size of the reference files, into a new lake.

    They hold nothing that has to be rejected, and no record twice.
    """
    if lake.exists():
        return
    draft = lake.with_name(lake.name + ".draft")
    with duckdb.connect() as connection:
        for source, query in _MADE_UP.items():
            folder = draft / source / "landing"
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{source}-{FIRST}.json"
            connection.execute(
                f"COPY ({query}) TO '{file}' (FORMAT json)", {"start": FIRST - DAY}
            ).fetchall()
    draft.rename(lake)


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


def write_small_files(lake: Path, files: int, days: int) -> None:
    """Write landing files of a record or three each, spread over dates from 2022 on.

    Each person sends a file of each source on one date, and one of two consents.
    """
    if lake.exists():
        return
    draft = lake.with_name(lake.name + ".draft")
    first = datetime(2022, 1, 1, tzinfo=UTC)
    for number in range(files):
        person, day = divmod(number // 3, days)
        source = list(COLUMNS)[number % 3]
        moment = int(first.timestamp() * 1000) + day * DAY + person * 1000
        email, serial = f"{day}.{person}@example.com", f"serial-{day}-{person}"
        records: list[dict[str, object]] = {
            "customer": [
                {
                    "email": email,
                    "serialNumber": serial,
                    "registrationDate": moment,
                    "lastUpdateDate": moment,
                    "shareWithResearchAsOfDate": moment if person % 2 else None,
                }
            ],
            "accelerometer": [
                {"user": email, "timestamp": moment + later, "x": 1.0, "y": 0.0, "z": -1.0}
                for later in range(3)
            ],
            "step_trainer": [
                {
                    "sensorReadingTime": moment + later,
                    "serialNumber": serial,
                    "distanceFromObject": 200 + later,
                }
                for later in range(3)
            ],
        }[source]
        folder = draft / source / "landing" / f"ingestion_date={first.date() + timedelta(days=day)}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.json").write_text("\n".join(map(json.dumps, records)))
    draft.rename(lake)
