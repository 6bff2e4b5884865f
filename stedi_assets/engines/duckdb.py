"""Computing on one machine: the lake's files as Ibis tables, and queries into Parquet files.

Knows SQL and Parquet; which file is which partition, and when it is published, others decide.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import duckdb
import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir

from stedi_assets.tables import PARTITION, ColumnType, Table

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")

SQL_TYPES: dict[ColumnType, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "float64": "DOUBLE",
    "boolean": "BOOLEAN",
}
"""DuckDB's names of the registry's types."""


class Bind(Protocol):
    """Lets SQL see what the partitions of days may need, and no more."""

    def __call__(
        self, days: Collection[date], connection: duckdb.DuckDBPyConnection | None = None
    ) -> None:
        """For one connection alone, if it is given."""


@dataclass(frozen=True)
class FileStatistics:
    """What the footer of a partition's file says.

    Attributes:
        rows: how many there are.
        types: DuckDB's type by column, as they are stored.
        nulls: missing values by column.
        first: earliest event time, epoch milliseconds; None without rows or event time.
        last: latest event time, likewise.
    """

    rows: int
    types: Mapping[str, str]
    nulls: Mapping[str, int]
    first: int | None
    last: int | None


@dataclass(frozen=True)
class Content:
    """What rows a partition's file holds.

    Attributes:
        rows: how many there are.
        checksum: of the rows in any order; begins with what says which hash made it.
        first: earliest event time, epoch milliseconds; None without rows or event time.
        last: latest event time, likewise.
    """

    rows: int
    checksum: str
    first: int | None
    last: int | None


@dataclass(frozen=True)
class Noted:
    """What a partition's file says of itself.

    Attributes:
        stamp: what it was made from.
        content: what it holds, as it was when it was written.
    """

    stamp: str
    content: Content

    @classmethod
    def read(cls, notes: Mapping[str, str]) -> Noted | None:
        """From a file's notes; nothing where it is somebody else's file."""
        try:
            return cls(notes[_STAMP], Content(*json.loads(notes[_CONTENT])))
        except (KeyError, ValueError, TypeError):
            return None

    def as_notes(self) -> dict[str, str]:
        """As notes, by name."""
        return {_STAMP: self.stamp, _CONTENT: json.dumps(astuple(self.content))}


@dataclass(frozen=True)
class Staged:
    """Finished files of a table that are not published yet.

    Attributes:
        files: a file for each partition.
        contents: what each file holds.
        stamps: what each file was made from.
        sql: the query that made them.
        began: when making them began, by `time.monotonic`.
        rejects: how many records of each could not be read, where it is landing files that were.
    """

    files: Mapping[date, Path]
    contents: Mapping[date, Content]
    stamps: Mapping[date, str]
    sql: str
    began: float = field(default_factory=time.monotonic, compare=False)
    rejects: Mapping[date, int] = field(default_factory=dict)

    def noted(self, day: date) -> Noted:
        """What the file of a day says of itself."""
        return Noted(self.stamps[day], self.contents[day])

    def only(self, days: Collection[date]) -> Staged:
        """The files of some of the dates."""
        return replace(
            self,
            files={day: self.files[day] for day in days},
            contents={day: self.contents[day] for day in days},
            stamps={day: self.stamps[day] for day in days},
        )


def _query(rows: ops.Node) -> str:
    return str(ibis.to_sql(rows.to_expr(), dialect="duckdb"))


class DuckDBEngine:
    """DuckDB in memory, over the lake's Parquet files.

    Args:
        connection: to use for everything.
        pseudonym_key: what pseudonyms are made with. SQL names it only as a variable, so that it
            shows in no query.
        folder: private, on the lake's disk; for finished files that are not published yet, and
            for what does not fit into memory.
    """

    keeps_order = True
    """Whether queries give rows in the order of what they read."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, pseudonym_key: str, folder: Path
    ) -> None:
        self.connection = connection
        self.pseudonym_key = pseudonym_key
        self.folder = folder
        self.key_id = hashlib.sha256(f"id of {pseudonym_key}".encode()).hexdigest()[:8]
        self._kept: dict[str, Hashable] = {}
        # A DuckDB that hashes otherwise gives others here, so that nobody compares the two.
        ((probe,),) = connection.execute(
            "SELECT hash('a', 1::BIGINT, 1::INTEGER, 0.5::DOUBLE, true, NULL)"
        ).fetchall()
        self.hash_id = f"{probe:016x}"[:4]
        self._no_rows = Content(0, f"{self.hash_id}-0", None, None)
        connection.execute("SET temp_directory = $folder", {"folder": str(folder / "spill")})
        self._know_key(connection)
        connection.execute(
            "CREATE OR REPLACE MACRO pseudonym(value) AS "
            "sha256(getvariable('pseudonym_key') || value)"
        )
        self.ibis = ibis.duckdb.from_connection(connection)
        # One reconciliation asks for the query of a definition several times; Ibis takes longer
        # to write one than DuckDB to answer it over a small lake. Ibis holds expressions for equal
        # that differ in 0.0 and -0.0 alone: no definition may.
        self._query = lru_cache(maxsize=64)(_query)

    def table(self, table: Table, files: Mapping[date, Path]) -> ir.Table:
        """A table over the partitions in `files`, with the partition column last."""
        self.create_view(table, files)
        return self.expression(table)

    def expression(self, table: Table) -> ir.Table:
        """A table over whatever `create_view` lets see of it when it is computed."""
        # The registry knows the schema; asking DuckDB for it takes longer than many a query.
        return ops.DatabaseTable(
            table.name, schema=ibis.schema(table.schema), source=self.ibis
        ).to_expr()

    def create_view(
        self,
        table: Table,
        files: Mapping[date, Path],
        connection: duckdb.DuckDBPyConnection | None = None,
        also: str | None = None,
    ) -> None:
        """Let SQL see the partitions in `files` as a view with the table's name.

        Args:
            table: whose partitions they are.
            files: their files.
            connection: one of `in_parallel`, which then alone sees this view, instead of all.
            also: a query for more rows, with some of the table's columns.
        """
        alone = "" if connection is None else "TEMP"
        more = f" UNION ALL BY NAME {also}" if also else ""
        (connection or self.connection).execute(
            f"CREATE OR REPLACE {alone} VIEW {quoted(table.name)} AS "
            f"{rows_of_files(table, files.values())}{more}"
        )

    def create_small_view(
        self, table: Table, files: Mapping[date, Path], made_from: Hashable
    ) -> None:
        """The same of a small table, whose rows are kept in memory while `made_from` is the same.

        Opening hundreds of files takes longer than reading the few rows in them.
        """
        rows = f"{table.name} rows"
        self.keep(rows, made_from, rows_of_files(table, files.values()))
        self.connection.execute(
            f"CREATE OR REPLACE VIEW {quoted(table.name)} AS FROM {quoted(rows)}"
        )

    def write(
        self,
        table: Table,
        rows: ir.Table,
        days: Collection[date],
        stamps: Mapping[date, str],
        stored: Mapping[date, Content] | None = None,
    ) -> dict[date, Path]:
        """Compute a table and write the partitions of `days`, a file each, still to be sealed.

        Args:
            table: says the order of columns and rows.
            rows: the table's definition, for any days.
            days: the partitions to write.
            stamps: what to note in a day's file.
            stored: what the table's other partitions hold; if given, those are written as well
                whose rows are others now.
        """
        kept = days if stored is None else None  # also rows of other days can have become others
        with self._computed(table, rows, kept) as (source, is_stored):
            if stored is not None:
                now = self._contents(table, f"FROM {source}", PARTITION)
                none = self._no_rows
                other = (day for day in stored if now.get(day, none) != stored[day])
                days = {*days, *other, *(now.keys() - stored.keys())}
            query = f"SELECT {_list(table.column_names)} FROM {source} WHERE {PARTITION} = $day"

            def stage(day: date, connection: duckdb.DuckDBPyConnection) -> Path:
                return self._stage_day(table, query, stamps, day, connection)

            if is_stored:
                return self.in_parallel(stage, sorted(days))
            return {day: stage(day, self.connection) for day in days}

    @contextmanager
    def _computed(
        self, table: Table, rows: ir.Table, days: Collection[date] | None
    ) -> Iterator[tuple[str, bool]]:
        """Let SQL see the rows of a table's definition on some dates, or on all without dates.

        Gives the name of what holds them, and whether they are computed, or will be when read.
        """
        if rows.op().find(ops.InMemoryTable):  # Ibis hands it over to DuckDB
            self.ibis.create_view("definition", rows, overwrite=True)
        else:  # Ibis would ask for the view's columns by Arrow, which takes long to import
            self.connection.execute(f"CREATE OR REPLACE VIEW definition AS {self.sql(rows)}")
        if days is not None and len(days) < 2:
            yield "definition", False
            return
        kept = "true" if days is None else f"{PARTITION} IN (SELECT unnest($days))"
        self.connection.execute(
            f"CREATE OR REPLACE TABLE result AS FROM definition WHERE {kept}",
            None if days is None else {"days": list(days)},
        )
        yield "result", True
        self.connection.execute("DROP TABLE result")

    def write_each(
        self,
        table: Table,
        rows: ir.Table,
        days: Collection[date],
        stamps: Mapping[date, str],
        bind: Bind,
    ) -> dict[date, Path]:
        """The same, each partition by itself and several at once.

        Args:
            table: says the order of columns and rows.
            rows: the table's definition, for any days.
            days: the partitions to write.
            stamps: what to note in a day's file.
            bind: lets the engine, or one connection, see what partitions may need, and no more.
        """
        query = (
            f"SELECT {_list(table.column_names)} FROM ({self.sql(rows)}) WHERE {PARTITION} = $day"
        )

        def write(day: date, connection: duckdb.DuckDBPyConnection) -> Path:
            bind([day], connection)
            return self._stage_day(table, query, stamps, day, connection)

        return self.in_parallel(write, sorted(days))

    def _stage_day(
        self,
        table: Table,
        query: str,
        stamps: Mapping[date, str],
        day: date,
        connection: duckdb.DuckDBPyConnection,
    ) -> Path:
        notes = {_STAMP: stamps.get(day, "")}
        path, _ = self.stage(table, day, query, notes, {"day": day}, connection)
        return path

    def stage(
        self,
        table: Table,
        day: date,
        query: str,
        notes: Mapping[str, str],
        parameters: Mapping[str, Any] | None = None,
        connection: duckdb.DuckDBPyConnection | None = None,
    ) -> tuple[Path, int]:
        """Write the rows of a query, in the table's order, into a new file.

        Sorting takes longer than it is worth where rows are nearly in order: DuckDB writes them as
        the query gives them, give or take the few thousand that threads take at once.

        Args:
            table: says the order.
            day: whose partition it is.
            query: gives the table's columns.
            notes: what to note in the file, by name.
            parameters: the query's.
            connection: to use instead of the engine's, in another thread.

        Returns:
            The file's path, and how many rows the query gave.
        """
        # As the lake has it, so that a view over both takes the date from the folder's name.
        path = self.folder / f"{PARTITION}={day}" / f"{uuid.uuid4().hex}.parquet"
        path.parent.mkdir(exist_ok=True)
        notes = {**notes, _CONTENT: _UNSEALED}
        noted = ", ".join(f"{quoted(name)}: ${quoted('note ' + name)}" for name in notes)
        values = {f"note {name}": value for name, value in notes.items()}
        in_order = table.in_order and self.keeps_order
        order = "" if in_order else f" ORDER BY {_list(table.sort_order)}"
        copied = (connection or self.connection).execute(
            f"COPY ({query}{order}) TO $path "
            f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{noted}}})",
            {"path": str(path), **values, **(parameters or {})},
        )
        ((count,),) = copied.fetchall()
        return path, int(count)

    def in_parallel(
        self, make: Callable[[_K, duckdb.DuckDBPyConnection], _T], items: Collection[_K]
    ) -> dict[_K, _T]:
        """What `make` gives for each item, with a connection to the same tables and views.

        Several at once, for one alone keeps only one core busy.
        """
        connections: SimpleQueue[duckdb.DuckDBPyConnection] = SimpleQueue()
        for _ in range(min(len(items), os.cpu_count() or 1)):
            connections.put(self._know_key(self.connection.cursor()))

        def make_one(item: _K) -> _T:
            connection = connections.get()
            try:
                return make(item, connection)
            finally:
                connections.put(connection)

        with ThreadPoolExecutor(max(connections.qsize(), 1)) as pool:
            return dict(zip(items, pool.map(make_one, items), strict=True))

    def _know_key(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        return connection.execute("SET VARIABLE pseudonym_key = $key", {"key": self.pseudonym_key})

    def sql(self, rows: ir.Table) -> str:
        """The query of an expression."""
        node = rows.op()
        if node.find(ops.InMemoryTable):  # they would live as long as the engine
            return _query(node)
        return self._query(node)

    def sealed(
        self, table: Table, files: Mapping[date, Path], stamps: Mapping[date, str], sql: str
    ) -> Staged:
        """Finished files: those that were written, with what they hold noted in them.

        Args:
            table: whose partitions they are.
            files: as `write` and `stage` give them.
            stamps: as they were noted in the files.
            sql: the query that made them.
        """
        contents = self._seal(table, files)
        return Staged(files, contents, {day: stamps.get(day, "") for day in files}, sql)

    def _seal(self, table: Table, files: Mapping[date, Path]) -> dict[date, Content]:
        # DuckDB takes a file's notes before it writes the rows: a space is left for this one.
        contents = self._measured(table, files)
        for day, path in files.items():
            with path.open("r+b") as file:
                file.seek(-8, os.SEEK_END)
                footer_size = int.from_bytes(file.read(4), "little")
                start = file.seek(-8 - footer_size, os.SEEK_END)
                at = file.read(footer_size).rindex(_UNSEALED.encode())  # behind all other notes
                file.seek(start + at)
                file.write(_written(contents[day]).encode())
        return contents

    def measure(self, table: Table, files: Mapping[date, Path]) -> dict[date, Content]:
        """What partitions hold, by reading all their rows.

        Without those that cannot be read, or have other columns or types than the table.
        """
        types = [(column.name, SQL_TYPES[column.type]) for column in table.columns]

        def look(files: Mapping[date, Path]) -> dict[date, list[tuple[Any, ...]]]:
            found = self._types(files)
            return {day: found[str(path)] for day, path in files.items()}

        as_registered = {day for day, found in _of_readable(look, files).items() if found == types}
        return self._measured(table, {day: files[day] for day in files if day in as_registered})

    def _measured(self, table: Table, files: Mapping[date, Path]) -> dict[date, Content]:
        def look(files: Mapping[date, Path]) -> dict[date, Content]:
            found = self._contents(
                table,
                "FROM read_parquet($files, filename = true, hive_partitioning = false)",
                "filename",
                {"files": file_names(files.values())},
            )
            return {day: found.get(str(path), self._no_rows) for day, path in files.items()}

        return _of_readable(look, files)

    def _contents(
        self, table: Table, rows: str, by: str, parameters: Mapping[str, Any] | None = None
    ) -> dict[Any, Content]:
        """What rows hold, by the value of a column."""
        time = quoted(table.event_time) if table.event_time else "NULL::BIGINT"
        found = self.connection.execute(
            f"SELECT {by}, count(*), sum(hash({_list(table.column_names)})), "
            f"min({time}), max({time}) {rows} GROUP BY {by}",
            parameters,
        ).fetchall()
        return {
            value: Content(count, f"{self.hash_id}-{int(total):x}", first, last)
            for value, count, total, first, last in found
        }

    def noted(self, files: Mapping[date, Path]) -> dict[date, Noted]:
        """What partitions say of themselves; without those that are damaged or somebody else's."""
        return {
            day: noted
            for day, notes in self.notes(files).items()
            for noted in [Noted.read(notes)]
            if noted
        }

    def keep(self, name: str, made_from: Hashable, query: str) -> None:
        """Make a table of a query in memory, unless it is there and made from the same."""
        if self._kept.get(name) != made_from:
            self.connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS {query}")
            self._kept[name] = made_from

    def statistics(self, table: Table, files: Mapping[date, Path]) -> dict[date, FileStatistics]:
        """What the footers of partitions say, by date."""
        if not files:
            return {}
        types = self._types(files)
        columns = self._by_file(
            "SELECT file_name, path_in_schema, sum(row_group_num_rows)::BIGINT, "
            "sum(stats_null_count)::BIGINT, "
            f"min(CASE WHEN path_in_schema = '{table.event_time}' "
            "THEN try_cast(stats_min_value AS BIGINT) END), "
            f"max(CASE WHEN path_in_schema = '{table.event_time}' "
            "THEN try_cast(stats_max_value AS BIGINT) END) "
            "FROM parquet_metadata($files) GROUP BY ALL",
            file_names(files.values()),
        )
        return {
            day: _statistics(types[name], columns.get(name, []), table.event_time)
            for day, name in ((day, str(path)) for day, path in files.items())
        }

    def first_rows(
        self, table: Table, files: Mapping[date, Path], count: int
    ) -> dict[date, list[dict[str, Any]]]:
        """The rows with which partitions begin, by date; of a date without rows, none."""
        if not files:
            return {}
        rows = self._by_file(
            f"SELECT filename, {_list(table.column_names)} FROM read_parquet($files, "
            f"filename = true, file_row_number = true) WHERE file_row_number < {count} "
            "ORDER BY filename, file_row_number",
            file_names(files.values()),
        )
        return {
            day: [dict(zip(table.column_names, row, strict=True)) for row in rows[str(path)]]
            for day, path in files.items()
            if str(path) in rows
        }

    def notes(self, files: Mapping[date, Path]) -> dict[date, dict[str, str]]:
        """What is noted in partitions' files, by name; without those that are no Parquet."""

        def look(files: Mapping[date, Path]) -> dict[date, dict[str, str]]:
            found = kept_notes(self.connection, files.values())
            return {day: found[path] for day, path in files.items()}

        return _of_readable(look, files)

    def _types(self, files: Mapping[date, Path]) -> dict[str, list[tuple[Any, ...]]]:
        """Columns and DuckDB's types of them, by file."""
        return self._by_file(
            "SELECT file_name, name, duckdb_type FROM parquet_schema($files) "
            "WHERE num_children IS NULL ORDER BY column_id",
            file_names(files.values()),
        )

    def _by_file(self, query: str, names: list[str]) -> dict[str, list[tuple[Any, ...]]]:
        found: dict[str, list[tuple[Any, ...]]] = {}
        for name, *values in self.connection.execute(query, {"files": names}).fetchall():
            found.setdefault(name, []).append(tuple(values))
        return found


_STAMP = "stamp"
_CONTENT = "content"
_UNSEALED = "to be sealed".ljust(120)


def _written(content: Content) -> str:
    """As a note of always the same length."""
    return json.dumps(astuple(content)).ljust(len(_UNSEALED))


def _of_readable(
    look: Callable[[Mapping[date, Path]], dict[date, _T]], files: Mapping[date, Path]
) -> dict[date, _T]:
    """What looking at files gives, without the files that DuckDB cannot read."""
    if not files:
        return {}
    try:
        return look(files)
    except duckdb.Error:
        found: dict[date, _T] = {}
        halves = list(files.items())
        middle = len(halves) // 2
        for half in (halves[:middle], halves[middle:]) if middle else ():
            found |= _of_readable(look, dict(half))
        return found


def _statistics(
    types: list[tuple[Any, ...]], columns: list[tuple[Any, ...]], event_time: str
) -> FileStatistics:
    ranges = {name: (first, last) for name, _, _, first, last in columns}
    first, last = ranges.get(event_time, (None, None))
    return FileStatistics(
        rows=columns[0][1] if columns else 0,  # a file without rows has no row group
        types=dict(types),
        nulls=dict.fromkeys(dict(types), 0) | {name: nulls for name, _, nulls, *_ in columns},
        first=first,
        last=last,
    )


def kept_notes(
    connection: duckdb.DuckDBPyConnection, files: Collection[Path]
) -> dict[Path, dict[str, str]]:
    """What is noted in Parquet files, by name."""
    found: dict[str, dict[str, str]] = {str(path): {} for path in files}
    if found:
        for path, name, note in connection.execute(
            "SELECT file_name, decode(key), decode(value) FROM parquet_kv_metadata($files)",
            {"files": file_names(files)},
        ).fetchall():
            found[path][name] = note
    return {path: found[str(path)] for path in files}


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def trimmed(text: str) -> str:
    """SQL for a text without blanks around it, as Ibis' `strip` has it."""
    return rf"trim({text}, E' \t\n\r\f\x0B')"


def normalised(text: str) -> str:
    """SQL for a text in lower case without blanks around it: who an email stands for."""
    return f"lower({trimmed(text)})"


def text(value: str) -> str:
    """SQL for a text, where a query takes no parameters."""
    return "'" + value.replace("'", "''") + "'"


def file_list(paths: Collection[Path]) -> str:
    """SQL for the files at some paths, as DuckDB's readers take them."""
    return f"[{', '.join(map(text, file_names(paths)))}]"


def file_names(paths: Collection[Path]) -> list[str]:
    """Paths as DuckDB's readers take them, with what they would read as a pattern made plain."""
    return [str(path).translate(_PLAIN) for path in paths]


_PLAIN = str.maketrans({c: f"[{c}]" for c in "*?["})


def rows_of_files(table: Table, files: Collection[Path]) -> str:
    """SQL for the rows of partitions' files, with the partition column last."""
    if not files:
        return f"SELECT *, CAST(NULL AS DATE) AS {PARTITION} FROM ({no_rows(table)})"
    return (
        f"SELECT {_list(table.column_names)}, CAST({PARTITION} AS DATE) AS {PARTITION} "
        f"FROM read_parquet({file_list(files)}, hive_partitioning = true)"
    )


def no_rows(table: Table) -> str:
    """SQL for the table's columns without rows."""
    columns = (f"CAST(NULL AS {SQL_TYPES[c.type]}) AS {quoted(c.name)}" for c in table.columns)
    return f"SELECT {', '.join(columns)} WHERE false"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))
