"""Reading a day's landing files into rows and rejects, with DuckDB's JSON reader.

One set of SQL expressions says what a good record is. The fast path runs it over all files at once
and wants a row for every line; a file that gives anything else is read on its own, and one that
DuckDB cannot read is cut into records first, which are judged one by one. Where many small files
are not plain, the records of several are judged together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import duckdb

from stedi_assets.engines.duckdb import (
    SQL_TYPES,
    DuckDBEngine,
    file_names,
    no_rows,
    quoted,
    trimmed,
)
from stedi_assets.landing.records import (
    BATCH,
    UnreadableFileError,
    batches,
    count_lines,
    count_written_lines,
    records,
    write_without,
)
from stedi_assets.privacy.suppression import ERASED, is_erased, mentions_erased
from stedi_assets.tables import Column, Source, Table, landing_table, rejects_table

_LARGE = 2_000_000
"""Bytes of landing files that take longer to read than a query takes to plan."""
_LINES = "newline_delimited"
_AT_ONCE = 2_000
"""Files of a query: for each DuckDB 2.0 keeps a tenth of a megabyte to the end, and with tens of
thousands is far slower."""

_FEW = 20
"""Files of a day that are looked at by themselves because they are not plain. Where there are more,
small ones are read record by record without that: fifty thousand would take an hour."""
_SMALL = 1 << 20
"""Bytes of files that are not worth a query that may fail."""


_T = TypeVar("_T")


@dataclass(frozen=True)
class Day:
    """A day's landing files of one source.

    Attributes:
        files: local files by their keys in the lake.
        stamp: what to note in the files that are written.
    """

    files: Mapping[str, Path]
    stamp: str


def read_days(
    engine: DuckDBEngine, source: Source, days: Mapping[date, Day], kept_out: str = ""
) -> tuple[dict[date, Path], dict[date, Path]]:
    """Read landing files of one source.

    Args:
        engine: runs the queries and stages the result.
        source: whose files they are.
        days: the files by ingestion date.
        kept_out: the name of a table of whom erasures keep out; nobody without it.

    Returns:
        By date, two Parquet files, still to be sealed: the landing table's rows, and the rejects.

    Raises:
        OSError: a file cannot be opened.
    """
    table, rejects = landing_table(source), rejects_table(source)
    plain = engine.in_parallel(
        lambda together, connection: _DayReader(engine, table, connection, kept_out).stage_plain(
            {day: days[day] for day in together}
        ),
        _together(days),
    )
    rows: dict[date, Path] = {}
    rejected: dict[date, Path] = {}
    for of_days in plain.values():
        for day, found in of_days.items():
            if found:
                rows[day], rejected[day] = found
            else:
                records = read_into_tables(engine, source, days[day].files, kept_out)
                notes = {"stamp": days[day].stamp, "records": str(records)}
                rows[day], _ = engine.stage(table, day, "SELECT * FROM landed", notes)
                rejected[day], _ = engine.stage(rejects, day, "SELECT * FROM rejected", notes)
    return rows, rejected


def read_into_tables(
    engine: DuckDBEngine, source: Source, files: Mapping[str, Path], kept_out: str = ""
) -> int:
    """Read landing files into the tables `landed` and `rejected`; returns how many records.

    Args:
        engine: has the tables then.
        source: whose files they are.
        files: local files by their keys in the lake.
        kept_out: see `read_days`.

    Raises:
        OSError: a file cannot be opened.
    """
    return _DayReader(engine, landing_table(source), engine.connection, kept_out).read(files)


def _together(days: Mapping[date, Day]) -> list[tuple[date, ...]]:
    """The days, those with small files several at a time: planning a query takes longer."""
    found: list[tuple[date, ...]] = []
    size = 0
    for day, of in days.items():
        of_day = sum(path.stat().st_size for path in of.files.values())
        if not found or size + of_day > _LARGE:
            found.append((day,))
            size = of_day
        else:
            found[-1] += (day,)
            size += of_day
    return found


def count_records(files: Iterable[Path]) -> int:
    """How many records files hold, good or not; one that cannot be read at all counts as one."""
    return sum(map(_count_records, files))


def _count_records(file: Path) -> int:
    try:
        return sum(1 for _ in records(file))
    except UnreadableFileError:
        return 1


def write_without_erased(
    engine: DuckDBEngine, source: Source, file: Path, to: Path, kept_out: str
) -> int:
    """Write a landing file again, without the records of people that are to be erased.

    Args:
        engine: runs the queries.
        source: whose file it is.
        file: the landing file.
        to: the file to write; its name ends as the other's does.
        kept_out: the name of the table that says who is to be erased.

    Returns:
        How many records were left out.

    Raises:
        UnreadableFileError, OSError: as `write_without`.
    """
    reader = _DayReader(engine, landing_table(source), engine.connection, kept_out)
    return write_without(file, to, reader.are_erased)


def reading_sql(engine: DuckDBEngine, source: Source) -> str:
    """The query that reads a source's landing files where all records are good."""
    reader = _DayReader(engine, landing_table(source), engine.connection)
    return reader.plain_rows(reader.keys)


@dataclass(frozen=True)
class _File:
    key: str
    path: Path
    lines: int  # with anything but blanks
    size: int  # decompressed


class _DayReader:
    def __init__(
        self,
        engine: DuckDBEngine,
        table: Table,
        connection: duckdb.DuckDBPyConnection,
        kept_out: str = "",
    ) -> None:
        self.engine = engine
        self.connection = connection
        self.table = table
        self.kept_out = kept_out
        self.not_plain = 0
        self.keys = {column.name: column.key for column in table.columns}
        self._columns = ", ".join(map(quoted, table.column_names))

    def stage_plain(self, days: Mapping[date, Day]) -> dict[date, tuple[Path, Path] | None]:
        """Two files for each day, with its rows and without a reject.

        None for a day whose landing files hold anything but a good record a line.
        """
        lines = {day: _count_lines(of.files.values()) for day, of in days.items()}
        readable = {day: count for day, count in lines.items() if count is not None}
        count = sum(len(days[day].files) for day in readable)
        together = len(readable) > 1 or count > _AT_ONCE
        if together:
            try:
                self._read_together([path for day in readable for path in days[day].files.values()])
            except _BAD_FILE:  # some day's files are not plain
                if len(days) == 1:
                    return dict.fromkeys(days)
                alone = (self.stage_plain({day: days[day]}) for day in readable)
                return dict.fromkeys(days) | {d: f for of_day in alone for d, f in of_day.items()}
        return dict.fromkeys(days) | {
            day: self._stage_plain(day, days[day], count, together)
            for day, count in readable.items()
        }

    def _read_together(self, files: Sequence[Path]) -> None:
        """Put the rows of files into the temporary table `together`."""
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE together AS "
            f"SELECT *, NULL::VARCHAR AS filename FROM ({no_rows(self.table)})"
        )
        for some in _portions(files):
            self._verify_keys(some, self.keys)
            self.connection.execute(
                f"INSERT INTO together {self.plain_rows(self.keys, with_file=True)}",
                {"files": file_names(some)},
            )

    def _stage_plain(
        self, day: date, of: Day, lines: int, together: bool
    ) -> tuple[Path, Path] | None:
        notes = {"stamp": of.stamp}
        files = list(of.files.values())
        try:
            if not files:
                query, names = no_rows(self.table), None
            elif together:
                query = (
                    f"SELECT {self._columns} FROM together "
                    "WHERE filename IN (SELECT unnest($files))"
                )
                names = {"files": list(map(str, files))}
            else:
                self._verify_keys(files, self.keys)
                query, names = self.plain_rows(self.keys), {"files": file_names(files)}
            rows, count = self.engine.stage(
                self.table,
                day,
                query,
                {**notes, "records": str(lines)},
                names,
                self.connection,
            )
        except _BAD_FILE:
            return None
        if count != lines or self._holds_erased(self.table.name, {day: rows}):
            return None
        rejects = rejects_table(self.table.source)
        none, _ = self.engine.stage(
            rejects, day, no_rows(rejects), notes, connection=self.connection
        )
        return rows, none

    def read(self, files: Mapping[str, Path]) -> int:
        """Read files into the temporary tables `landed` and `rejected`; returns their records."""
        types = ", ".join(f"{quoted(c.name)} {SQL_TYPES[c.type]}" for c in self.table.columns)
        self.connection.execute(f"CREATE OR REPLACE TABLE landed ({types})")
        self.connection.execute(
            "CREATE OR REPLACE TABLE rejected "
            "(file VARCHAR, line BIGINT, reason VARCHAR, record VARCHAR)"
        )
        readable: list[_File] = []
        unreadable = 0
        for key, path in files.items():
            try:
                readable.append(_File(key, path, *count_written_lines(path)))
            except UnreadableFileError as error:
                unreadable += self._reject_file(key, error)
        return unreadable + sum(map(self._read, _portions(readable)))

    def _read(self, files: Sequence[_File]) -> int:
        lines = sum(file.lines for file in files)
        if not files or self._insert(files, self.keys, _LINES, lines) is not None:
            return lines
        if self.not_plain >= _FEW and sum(file.size for file in files) <= _SMALL:
            return self._read_small(files)
        if len(files) > 1:  # halving finds the few files that are not plain
            return self._read(files[: len(files) // 2]) + self._read(files[len(files) // 2 :])
        self.not_plain += 1
        return self._read_alone(*files)

    def _read_small(self, files: Sequence[_File]) -> int:
        """Read files record by record, several with a query; of each all, or one reject."""
        count = 0

        def found() -> Iterator[tuple[str, int, str]]:
            nonlocal count
            for file in files:
                try:
                    yield from [(file.key, *record) for record in records(file.path)]
                except UnreadableFileError as error:
                    count += self._reject_file(file.key, error)

        for batch in batches(found(), BATCH):
            self._insert_judged(batch)
            count += len(batch)
        return count

    def _read_alone(self, file: _File) -> int:
        # Here no count of lines can tell of an error that DuckDB lost; with one thread none is.
        ((threads,),) = self.connection.execute("SELECT current_setting('threads')").fetchall()
        self.connection.execute("SET threads = 1")
        try:
            keys = self._spelling([file.path])
            rows = self._insert([file], keys, "auto", None) if keys else None
        finally:
            self.connection.execute(f"SET threads = {threads}")
        return self._read_by_record(file.key, file.path) if rows is None else rows

    def _insert(
        self, files: Sequence[_File], keys: Mapping[str, str], form: str, lines: int | None
    ) -> int | None:
        """Put the rows of files into `landed`, all or none; how many, or None if it was none.

        DuckDB 2.0 can lose a reader's error where several threads read several files, and the rows
        behind it: so there have to be as many as `lines`, if they are given.
        """
        paths = [file.path for file in files]
        self.connection.execute("BEGIN")
        try:
            self._verify_keys(paths, keys)
            ((rows,),) = self.connection.execute(
                f"INSERT INTO landed {self.plain_rows(keys, form)}", {"files": file_names(paths)}
            ).fetchall()
            if lines is not None and rows != lines:
                raise duckdb.InvalidInputException("not a row for every line")
            if self._holds_erased("landed"):
                raise duckdb.InvalidInputException("records of people who were erased")
        except _BAD_FILE:
            self.connection.execute("ROLLBACK")
            return None
        self.connection.execute("COMMIT")
        return int(rows)

    def _verify_keys(self, files: Collection[Path], keys: Mapping[str, str]) -> None:
        """Look whether reading by `keys` sees every column that the files hold.

        A required column under a key of another case it misses, and fails. An optional one it
        would take for absent, so the keys have to be looked at.

        Raises:
            duckdb.InvalidInputException: it does not.
        """
        every_column_required = len(self.table.required_names) == len(self.table.columns)
        if not every_column_required and self._spelling(files) != keys:
            raise duckdb.InvalidInputException("optional columns under unusual keys")

    def _holds_erased(self, name: str, files: Mapping[date, Path] | None = None) -> bool:
        """Whether the good rows of a table, or of files, are of people whom erasures keep out."""
        if not self.kept_out:
            return False
        if files:
            self.engine.create_view(self.table, files, self.connection)
        ((found,),) = self.connection.execute(
            f"SELECT EXISTS (FROM {name} WHERE {is_erased(self.table, name, self.kept_out)})"
        ).fetchall()
        return bool(found)

    def _spelling(self, files: Collection[Path]) -> dict[str, str] | None:
        """The one key under which the files hold each column; None: more than one, or unreadable.

        A column that they do not hold at all has its usual key.
        """
        query = """
            SELECT lower(key), list(DISTINCT key)
            FROM (SELECT unnest(json_keys(json)) AS key
                  FROM read_json_objects($files, format = 'auto'))
            WHERE lower(key) IN (SELECT unnest($names))
            GROUP BY ALL
        """
        parameters = {"files": file_names(files), "names": list(self.keys)}
        try:
            found = self.connection.execute(query, parameters).fetchall()
        except _BAD_FILE:
            return None
        if any(len(keys) > 1 for _, keys in found):
            return None
        return self.keys | {name: key for name, (key,) in found}

    def plain_rows(
        self, keys: Mapping[str, str], form: str = _LINES, *, with_file: bool = False
    ) -> str:
        """SQL that reads `$files`, and fails where a record is not a good one.

        Args:
            keys: under which the columns are.
            form: of the files, as DuckDB has it.
            with_file: whether a further column, `filename`, says from which file a row is.
        """
        types = ", ".join(f"{quoted(key)}: 'JSON'" for key in keys.values())
        more = ", filename" if with_file else ""
        good = " AND ".join(f"({_is_good(column)})" for column in self.table.columns)
        return f"""
            SELECT {self._columns}{more}
            FROM (SELECT {self._values({n: quoted(k) for n, k in keys.items()})}{more}
                  FROM read_json($files, columns = {{{types}}}, format = '{form}',
                                 hive_partitioning = false))
            WHERE CASE WHEN {good} THEN true ELSE error('not a good record') END
        """

    def _values(self, raw: Mapping[str, str]) -> str:
        """SQL for each column's typed value and, as `name?`, whether the record has one."""
        return ", ".join(
            f"{_typed(column, raw[column.name])} AS {quoted(column.name)}, "
            f"{raw[column.name]} IS NOT NULL AS {quoted(column.name + '?')}"
            for column in self.table.columns
        )

    def _read_by_record(self, key: str, path: Path) -> int:
        """Read one file record by record: all of it, or one reject that says why not."""
        count = 0
        self.connection.execute("BEGIN")
        try:
            found = ((key, *record) for record in records(path))
            for batch in batches(found, BATCH):
                self._insert_judged(batch)
                count += len(batch)
        except UnreadableFileError as error:
            self.connection.execute("ROLLBACK")
            return self._reject_file(key, error)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return count

    def _reject_file(self, key: str, error: UnreadableFileError) -> int:
        self.connection.execute(
            "INSERT INTO rejected VALUES ($file, NULL, $reason, NULL)",
            {"file": _as_text(key), "reason": str(error)},
        )
        return 1

    def are_erased(self, batch: Sequence[tuple[int, str]]) -> list[bool]:
        """Whether each of some records is of somebody who is to be erased."""
        self._judge(batch)
        found = self.connection.execute(
            "SELECT coalesce(reason = $erased, false) FROM judged ORDER BY position",
            {"erased": ERASED},
        ).fetchall()
        return [is_theirs for (is_theirs,) in found]

    def _insert_judged(self, batch: Sequence[tuple[str, int, str]]) -> None:
        self._judge([(line, text) for _, line, text in batch])
        self.connection.execute(
            f"INSERT INTO landed SELECT {self._columns} FROM judged WHERE reason IS NULL"
        )
        self.connection.execute(
            "INSERT INTO rejected SELECT $files[position + 1], line, reason, "
            "CASE WHEN reason <> $erased THEN record END FROM judged WHERE reason IS NOT NULL",
            {"files": [_as_text(key) for key, *_ in batch], "erased": ERASED},
        )

    def _judge(self, batch: Sequence[tuple[int, str]]) -> None:
        """Put records, their values and what is wrong with them into the table `judged`."""
        columns = self.table.columns
        candidates = ", ".join(
            f"list_filter(keys, lambda key: lower(key) = '{c.name}') AS {quoted(c.name + ' keys')}"
            for c in columns
        )
        # The producers' own spelling goes before another one.
        chosen = ", ".join(
            f"CASE WHEN list_contains({k}, '{c.key}') "
            f"THEN list_filter({k}, lambda key: key = '{c.key}') ELSE {k} END AS {k}"
            for c in columns
            for k in [quoted(c.name + " keys")]
        )
        raw = {
            c.name: f"nullif(CAST(json -> {quoted(c.name + ' keys')}[1] AS VARCHAR), 'null')"
            for c in columns
        }
        reasons = " ".join(
            f"WHEN len({quoted(c.name + ' keys')}) > 1 THEN '{c.name} is given more than once'"
            f" WHEN NOT ({_is_good(c)}) THEN {_reason(c)}"
            for c in columns
        )
        self.connection.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE judged AS
            WITH raw AS (
                SELECT unnest($lines) AS line, unnest($texts) AS record,
                       unnest(range(len($lines))) AS position
            ), parsed AS (
                SELECT *, CASE WHEN json_valid(record) THEN CAST(record AS JSON) END AS json,
                       CASE WHEN json_type(json) = 'OBJECT' THEN json_keys(json) END AS keys
                FROM raw
            ), found AS (SELECT *, {candidates} FROM parsed),
            chosen AS (SELECT * REPLACE ({chosen}) FROM found),
            typed AS (SELECT *, {self._values(raw)} FROM chosen)
            SELECT *, CASE WHEN json IS NULL THEN 'not valid JSON'
                           WHEN keys IS NULL THEN 'not a JSON object' {reasons} END AS reason
            FROM typed
            """,
            {"lines": [line for line, _ in batch], "texts": [text for _, text in batch]},
        )
        if self.kept_out:
            self.connection.execute(
                f"UPDATE judged SET reason = $erased "
                f"WHERE {is_erased(self.table, 'judged', self.kept_out)} "
                f"OR (reason IS NOT NULL AND {mentions_erased('record', self.kept_out)})",
                {"erased": ERASED},
            )


def _count_lines(files: Iterable[Path]) -> int | None:
    """How many lines files have; None if one cannot be read."""
    try:
        return sum(map(count_lines, files))
    except UnreadableFileError:
        return None


def _portions(files: Sequence[_T]) -> list[Sequence[_T]]:
    return [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]


def _as_text(key: str) -> str:
    """A key as a table can hold it: a file's name may be any bytes."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_BAD_FILE = (
    duckdb.InvalidInputException,
    duckdb.IOException,
    duckdb.ConversionException,
    UnicodeDecodeError,  # DuckDB's message quotes the file, and may cut a character in two
)


def _typed(column: Column, raw: str) -> str:
    """SQL for the value of a column, NULL where the JSON value `raw` is not of its type.

    An integer is a JSON number without fraction and exponent that fits; a double is any finite
    JSON number. DuckDB's own casts would take 12.7 and `true` for integers, and "1" for a number.
    """
    text = f"CAST({raw} AS VARCHAR)"
    cast = f"try_cast({text} AS {SQL_TYPES[column.type]})"
    match column.type:
        case "string":
            # Parsing again is needed for escapes alone, and is slow.
            return (
                f"CASE WHEN NOT starts_with({text}, '\"') THEN NULL "
                rf"WHEN contains({text}, '\') THEN json_extract_string({raw}, '$') "
                f"ELSE substr({text}, 2, length({text}) - 2) END"
            )
        case "float64":
            # Of the two zeros one is kept: they are equal, and equal rows must be the same rows.
            return f"CASE WHEN isfinite({cast}) THEN {cast} + 0.0 END"
        case _:
            is_whole = " AND ".join(f"NOT contains({text}, '{sign}')" for sign in ".eE")
            return f"CASE WHEN {is_whole} THEN {cast} END"


def _is_good(column: Column) -> str:
    """SQL for whether a column's typed value is one that the landing table takes."""
    name = quoted(column.name)
    if not column.required:
        return f"{name} IS NOT NULL OR NOT {quoted(column.name + '?')}"
    if column.type == "string":
        # Trimming every value takes longer than parsing it, and few begin with a blank.
        return f"{name} IS NOT NULL AND ({name} > '!' OR {trimmed(name)} <> '')"
    return f"{name} IS NOT NULL"


def _reason(column: Column) -> str:
    """SQL for what is wrong with a column's value; names no value, for it may be personal."""
    name = quoted(column.name)
    return (
        f"CASE WHEN NOT {quoted(column.name + '?')} THEN '{column.name} is missing' "
        f"WHEN {name} IS NULL THEN '{column.name} is not a valid {column.type}' "
        f"ELSE '{column.name} is blank' END"
    )
