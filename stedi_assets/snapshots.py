"""Training sets that can be named: which rows, under which policy and consents, split by people.

A training set is one file that holds no rows: a hash of each row, by which it is found again in the
table for as long as it is there, and a hash of each person's pseudonym.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

from stedi_assets.engines.duckdb import (
    DuckDBEngine,
    Noted,
    file_list,
    kept_notes,
    normalised,
    quoted,
    rows_of_files,
    text,
)
from stedi_assets.lake import SNAPSHOTS, Lake, StorageError, StoredFile
from stedi_assets.lake.storage import GoneError
from stedi_assets.making import Stamp
from stedi_assets.tables import PARTITION, TABLES, Table

SPLITS = {"train": 70, "validation": 15, "test": 15}
"""How many of 100 devices each split has, about."""

_TWO_SPLITS = "of people in two splits"
_NOBODY = "of nobody in customers_curated"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_NOTE = "snapshot"
_ATTEMPTS = 5
_ROWS = TABLES["machine_learning_curated"]
_PEOPLE = TABLES["customers_curated"]
_HASH = "md5_number_lower"
"""DuckDB's function for 64 bits of a hash that, other than `hash`, is the same in every version."""


@dataclass(frozen=True)
class Snapshot:
    """What a training set says of itself. Times are ISO 8601, UTC.

    Attributes:
        name: of the training set.
        made_at: when it was made.
        table: whose rows they are.
        policy: under which the rows' partitions were made; several, where those that a change of
            policy left as they were stand beside those that it changed.
        consents_landed_until: the last ingestion date of customers_curated. Customer records of
            later dates are not reflected,
        consents_read_at: nor is what landed on that date after this time, when the table was last
            written.
        rows: how many there are.
        checksum: of the rows in any order.
        splits: rows and people of each split, by its name.
        left_out: how many rows of these dates are in no split, by why.
        salt: of the hash that gives each device a split.
        key_id: of the key that its pseudonyms were made with.
        partitions: the partitions of both curated tables, by table and date: version of the file,
            rows, checksum.
    """

    name: str
    made_at: str
    table: str
    policy: str
    consents_landed_until: str
    consents_read_at: str
    rows: int
    checksum: str
    splits: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]
    salt: str
    key_id: str
    partitions: Mapping[str, Mapping[str, Mapping[str, Any]]]


def fetched(lake: Lake, table: Table, first: date, last: date) -> list[Path]:
    """Local files with a table's partitions of some dates.

    Lists them again if one was replaced before it was fetched.

    Raises:
        FileNotFoundError: the table has no partition on any date.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(GoneError):
            return list(lake.storage.fetch_all(_partitions(lake, table, first, last).values()))
    return list(lake.storage.fetch_all(_partitions(lake, table, first, last).values()))


def _partitions(lake: Lake, table: Table, first: date, last: date) -> dict[date, StoredFile]:
    found = lake.partitions(table)
    if not found:
        raise FileNotFoundError(
            f"There is nothing of {table.name} below {lake.storage.uri()}: there is no lake, or "
            "`stedi run` has not made the table yet."
        )
    return {day: file for day, file in found.items() if first <= day <= last}


def take(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    name: str,
    first: date,
    last: date,
    salt: str,
) -> Snapshot:
    """Make a training set; see `Lakehouse.snapshot`.

    Nobody has to have the lake for writing: if a run changes what is read, all is read again.

    Args:
        lake: to read from, and to write the training set to.
        connection: to compute with; views and tables of its own stay in it.
        name: of the training set.
        first: ingestion date.
        last: ingestion date.
        salt: of the hash that splits.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a snapshot: take at most 100 letters, digits, '.', '_' and "
            "'-', and no '.' to begin with."
        )
    # By the listing: to look for one object that is not there takes the right to list all others.
    if any(file.key == _key(name) for file in lake.storage.list(SNAPSHOTS)):
        raise _taken(name)
    for _ in range(_ATTEMPTS):
        before = _both(lake, first, last)
        try:
            snapshot = _frozen(lake, connection, name, before, salt)
        except (duckdb.Error, GoneError):
            if _both(lake, first, last) == before:
                raise
            continue
        if _both(lake, first, last) == before:
            _publish(lake, connection, snapshot)
            return snapshot
    raise StorageError(
        f"{lake.storage.uri()} was written to while its rows were read, {_ATTEMPTS} times. Try "
        "again when no run is in progress."
    )


def _taken(name: str) -> FileExistsError:
    return FileExistsError(f"There is a snapshot {name!r} already: choose another name.")


def _both(lake: Lake, first: date, last: date) -> dict[str, dict[date, StoredFile]]:
    return {
        _ROWS.name: _partitions(lake, _ROWS, first, last),
        _PEOPLE.name: _partitions(lake, _PEOPLE, date.min, date.max),
    }


def _frozen(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    name: str,
    files: Mapping[str, Mapping[date, StoredFile]],
    salt: str,
) -> Snapshot:
    """Make the tables that a training set is written from, and what it says of itself.

    `frozen` has of each row a hash, and the split or why there is none; `people` has hashes of
    those who have rows in a split, as the phone's user or as holders of the device.
    """
    execute = connection.execute
    paths = {table: list(lake.storage.fetch_all(of.values())) for table, of in files.items()}
    for table, of in paths.items():
        rows = rows_of_files(TABLES[table], of)
        execute(f"CREATE OR REPLACE TEMP VIEW {table} AS {rows}")
    splits = ", ".join(map(text, SPLITS))
    # Each person has one device, so who shares one is found by it.
    execute(
        f"""
        CREATE OR REPLACE TEMP VIEW judged AS
        SELECT *, CASE WHEN own IS NULL OR theirs IS NULL THEN '{_NOBODY}'
                       WHEN own <> theirs THEN '{_TWO_SPLITS}' ELSE own END AS part
        FROM {_ROWS.name}
        LEFT JOIN (SELECT subject_id, {_split_of("device_id", salt)} AS own FROM {_PEOPLE.name})
            USING (subject_id)
        LEFT JOIN (SELECT DISTINCT device_id, {_split_of("device_id", salt)} AS theirs
                   FROM {_PEOPLE.name}) USING (device_id)
        """
    )
    execute(
        "CREATE OR REPLACE TEMP TABLE frozen AS "
        f"SELECT {PARTITION}, {_hash_of_row(_ROWS)} AS row, part FROM judged"
    )
    execute(
        f"""
        CREATE OR REPLACE TEMP TABLE people AS
        WITH of_rows AS (
            SELECT DISTINCT subject_id, device_id, part FROM judged WHERE part IN ({splits})
        ), of_either AS (
            SELECT subject_id, part FROM of_rows
            UNION
            SELECT p.subject_id, part FROM of_rows JOIN {_PEOPLE.name} AS p USING (device_id)
        )
        SELECT {_HASH}(subject_id) AS person, part AS split FROM of_either
        """
    )
    parts = dict(execute("SELECT part, count(*) FROM frozen GROUP BY part").fetchall())
    people = dict(execute("SELECT split, count(*) FROM people GROUP BY split").fetchall())
    ((count, total),) = execute(
        f"SELECT count(*), sum(row) FROM frozen WHERE part IN ({splits})"
    ).fetchall()
    if not count:
        raise ValueError("On these days there are no rows to make a snapshot of.")
    made_under = _made_under(connection, paths[_ROWS.name])
    of_people = files[_PEOPLE.name]
    return Snapshot(
        name=name,
        made_at=_moment(datetime.now(UTC)),
        table=_ROWS.name,
        policy=", ".join(sorted({policy for policy, _ in made_under})),
        key_id=" ".join({key_id for _, key_id in made_under}),
        consents_landed_until=max(of_people).isoformat(),
        consents_read_at=_moment(max(file.modified for file in of_people.values())),
        rows=count,
        checksum=f"{total:x}",
        splits={
            split: {"rows": parts.get(split, 0), "people": people.get(split, 0)} for split in SPLITS
        },
        left_out={why: parts[why] for why in (_TWO_SPLITS, _NOBODY) if why in parts},
        salt=salt,
        partitions={
            _ROWS.name: _partitions_of(connection, "frozen", "row", files[_ROWS.name]),
            _PEOPLE.name: _partitions_of(
                connection, _PEOPLE.name, _hash_of_row(_PEOPLE), files[_PEOPLE.name]
            ),
        },
    )


def _split_of(device: str, salt: str) -> str:
    """SQL for the split of a device."""
    cases, below = "", 0
    for split, share in SPLITS.items():
        below += share
        cases += f"WHEN {_HASH}({text(salt + ' ')} || {device}) % 100 < {below} THEN '{split}' "
    return f"CASE {cases}END"


def _hash_of_row(table: Table) -> str:
    """SQL for a hash of a row's values, the date among them."""
    values = (f"coalesce({quoted(name)}::VARCHAR, '')" for name in table.schema)
    return f"{_HASH}(concat_ws(chr(31), {', '.join(values)}))"


def _made_under(
    connection: duckdb.DuckDBPyConnection, files: Collection[Path]
) -> set[tuple[str, str]]:
    """The policies and the one key that partitions with rows were made with.

    Raises:
        ValueError: they do not say so, or there are several keys.
    """
    found = set()
    for path, notes in kept_notes(connection, files).items():
        noted = Noted.read(notes)
        if noted and not noted.content.rows:
            continue  # whatever it was made with
        under = Stamp.read(noted.stamp).under if noted else None
        if under is None:
            raise ValueError(
                f"{path} does not say under which policy it was made, as those of older versions "
                "do not. Delete its folder; `stedi run` makes it again."
            )
        found.add(under)
    if len({key_id for _, key_id in found}) > 1:
        raise ValueError(
            "The table's partitions were made with different pseudonym keys: do `stedi run`."
        )
    return found


def _partitions_of(
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    hashed: str,
    files: Mapping[date, StoredFile],
) -> dict[str, dict[str, Any]]:
    found = {
        day: (count, total)
        for day, count, total in connection.execute(
            f"SELECT {PARTITION}, count(*), sum({hashed}) FROM {rows} GROUP BY {PARTITION}"
        ).fetchall()
    }
    return {
        day.isoformat(): {"version": file.version, "rows": count, "checksum": f"{total:x}"}
        for day, file in files.items()
        for count, total in [found.get(day, (0, 0))]
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _publish(lake: Lake, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> None:
    with lake.staging() as folder:
        path = folder / "snapshot.parquet"
        connection.execute(
            f"""
            COPY (
                SELECT row, NULL::UBIGINT AS person, part AS split FROM frozen
                WHERE part IN ({", ".join(map(text, SPLITS))})
                UNION ALL SELECT NULL, person, split FROM people
                ORDER BY ALL
            ) TO $path (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{_NOTE}: $note}})
            """,
            {"path": str(path), "note": json.dumps(asdict(snapshot))},
        ).fetchall()
        try:
            lake.storage.publish(path, _key(snapshot.name), only_new=True)
        except FileExistsError:  # others were making one of this name meanwhile
            raise _taken(snapshot.name) from None


def load(lake: Lake, connection: duckdb.DuckDBPyConnection, name: str) -> Snapshot:
    """The training set of a name.

    Raises:
        FileNotFoundError: there is none.
    """
    found = _read(connection, _files(lake, name))
    if found:
        return found[0]
    known = load_all(lake, connection)
    raise FileNotFoundError(
        f"There is no snapshot {name!r} in {lake.storage.uri()}. There "
        + (f"are {', '.join(of.name for of in known)}." if known else "is none yet.")
    )


def load_all(lake: Lake, connection: duckdb.DuckDBPyConnection) -> list[Snapshot]:
    """All training sets, the oldest first."""
    found = _read(connection, _files(lake))
    return sorted(found, key=lambda snapshot: (snapshot.made_at, snapshot.name))


def _read(connection: duckdb.DuckDBPyConnection, files: Mapping[str, Path]) -> list[Snapshot]:
    found = []
    for name, path in files.items():
        try:
            notes = kept_notes(connection, [path])[path]
            if _NOTE in notes:  # else it is somebody else's file
                found.append(Snapshot(**json.loads(notes[_NOTE])))
        except (duckdb.Error, ValueError, TypeError) as error:
            # Passed over, it would not tell who was in it.
            raise ValueError(
                f"{_key(name)} cannot be read as a snapshot: put it back from a copy, or remove "
                f"it. {str(error).splitlines()[0]}"
            ) from error
    return found


def _files(lake: Lake, name: str | None = None) -> dict[str, Path]:
    """Local files of the training sets, or of one, by their names."""
    files = [
        file
        for file in lake.storage.list(SNAPSHOTS)
        if file.key.endswith(".parquet") and name in (None, _name(file))
    ]
    paths = lake.storage.fetch_all(files)
    return {_name(file): path for file, path in zip(files, paths, strict=True)}


def _name(file: StoredFile) -> str:
    return file.key.removeprefix(f"{SNAPSHOTS}/").removesuffix(".parquet")


def _key(name: str) -> str:
    return f"{SNAPSHOTS}/{name}.parquet"


def frozen_rows(lake: Lake, snapshot: Snapshot, split: str | None) -> str:
    """SQL for those rows of a training set that the lake still has, with their split.

    Args:
        lake: has them.
        snapshot: the training set.
        split: to take; all without.
    """
    table = TABLES[snapshot.table]
    days = sorted(map(date.fromisoformat, snapshot.partitions[table.name]))
    files = fetched(lake, table, days[0], days[-1])
    (file,) = _files(lake, snapshot.name).values()
    wanted = f" AND split = {text(split)}" if split else ""
    # Of rows that are equal in every column there are no more than there were.
    return (
        f"SELECT rows.*, listed.split FROM ({rows_of_files(table, files)}) AS rows "
        f"JOIN (SELECT row, split, count(*) AS times FROM {_rows_of(file)} "
        f"WHERE row IS NOT NULL{wanted} GROUP BY ALL) AS listed "
        f"ON {_hash_of_row(table)} = listed.row "
        "QUALIFY row_number() OVER (PARTITION BY listed.row) <= listed.times"
    )


def _rows_of(file: Path) -> str:
    """SQL for the rows of a training set's file, whatever the folders are called that it is in."""
    return f"read_parquet({file_list([file])}, hive_partitioning = false)"


def subject_id(engine: DuckDBEngine, email: str) -> str:
    """The pseudonym of who an email stands for."""
    ((pseudonym,),) = engine.connection.execute(
        f"SELECT pseudonym({normalised('$email')})", {"email": email}
    ).fetchall()
    return str(pseudonym)


def held(lake: Lake, connection: duckdb.DuckDBPyConnection, subject_id: str) -> dict[str, str]:
    """The names of the training sets that held rows of a person, and the splits they were in.

    Args:
        lake: has them.
        connection: to compute with.
        subject_id: the person's pseudonym, made with the key of the training sets.
    """
    found = {}
    for name, path in _files(lake).items():
        if not _read(connection, {name: path}):
            continue  # somebody else's file
        for (split,) in connection.execute(
            f"SELECT split FROM {_rows_of(path)} WHERE person = {_HASH}($who)",
            {"who": subject_id},
        ).fetchall():
            found[name] = split
    return found
