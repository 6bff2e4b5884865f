"""Computing on one machine: the lake's files as Ibis tables, and queries into Parquet files.

Knows SQL and Parquet; which file is which partition, and when it is published, others decide.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir

from stedi_assets.tables import PARTITION, ColumnType, Table

SQL_TYPES: dict[ColumnType, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "float64": "DOUBLE",
    "boolean": "BOOLEAN",
}
"""DuckDB's names of the registry's types."""


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
class Staged:
    """Finished files of a table that are not published yet.

    Attributes:
        files: a file for each partition.
        sql: the query that made them.
    """

    files: Mapping[date, Path]
    sql: str


class DuckDBEngine:
    """DuckDB in memory, over the lake's Parquet files.

    Args:
        connection: to use for everything.
        pseudonym_key: what pseudonyms are made with. SQL names it only as a variable, so that it
            shows in no query.
        folder: private, on the lake's disk; for finished files that are not published yet, and
            for what does not fit into memory.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, pseudonym_key: str, folder: Path
    ) -> None:
        self.connection = connection
        self.folder = folder
        self.key_id = hashlib.sha256(f"id of {pseudonym_key}".encode()).hexdigest()[:8]
        self._kept: dict[str, Hashable] = {}
        connection.execute("SET temp_directory = $folder", {"folder": str(folder / "spill")})
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET VARIABLE pseudonym_key = $key", {"key": pseudonym_key})
        connection.execute(
            "CREATE OR REPLACE MACRO pseudonym(value) AS "
            "sha256(getvariable('pseudonym_key') || value)"
        )
        self.ibis = ibis.duckdb.from_connection(connection)

    def table(self, table: Table, files: Mapping[date, Path]) -> ir.Table:
        """A table over the partitions in `files`, with the partition column last."""
        self.create_view(table, files)
        # The registry knows the schema; asking DuckDB for it takes longer than many a query.
        return ops.DatabaseTable(
            table.name, schema=ibis.schema(table.schema), source=self.ibis
        ).to_expr()

    def create_view(self, table: Table, files: Mapping[date, Path]) -> None:
        """Let SQL see the partitions in `files` as a view with the table's name."""
        if files:
            rows = self.connection.read_parquet(file_names(files.values()), hive_partitioning=True)
            columns = f"{_list(table.column_names)}, CAST({PARTITION} AS DATE) AS {PARTITION}"
            rows.project(columns).create_view(table.name, replace=True)
        else:
            self.connection.execute(
                f"CREATE OR REPLACE VIEW {quoted(table.name)} AS "
                f"SELECT *, CAST(NULL AS DATE) AS {PARTITION} FROM ({no_rows(table)})"
            )

    def write(
        self,
        table: Table,
        rows: ir.Table,
        days: Collection[date],
        stored: Mapping[date, Path],
        stamps: Mapping[date, str],
    ) -> Staged:
        """Compute a table and write the partitions of `days`, a finished file each.

        Args:
            table: says the order of columns and rows.
            rows: the table's definition, for any days.
            days: the partitions to write. Of a restated table, also those are written whose rows
                are no longer the `stored` ones.
            stored: the table's published files.
            stamps: what to note in a day's file.
        """
        self.ibis.create_view("definition", rows, overwrite=True)
        if table.restated or len(days) > 1:
            self.connection.execute("CREATE OR REPLACE TEMP TABLE result AS FROM definition")
            result = "result"
            if table.restated:
                days = {*days, *self._changed(table, stored)}
        else:
            result = "definition"
        query = f"SELECT {_list(table.column_names)} FROM {result} WHERE {PARTITION} = $day"
        files = {
            day: self.stage(table, query, {"stamp": stamps.get(day, "")}, {"day": day})
            for day in sorted(days)
        }
        self.connection.execute("DROP TABLE IF EXISTS temp.result")
        return Staged(files, ibis.to_sql(rows, dialect="duckdb"))

    def _changed(self, table: Table, stored: Mapping[date, Path]) -> set[date]:
        """The days on which the temporary table `result` differs from what is stored."""
        self.create_view(table, stored)
        columns = _list((*table.column_names, PARTITION))
        new, old = f"SELECT {columns} FROM result", f"SELECT {columns} FROM {quoted(table.name)}"
        days = self.connection.execute(
            f"SELECT DISTINCT {PARTITION} FROM "
            f"(({new} EXCEPT ALL {old}) UNION ALL ({old} EXCEPT ALL {new}))"
        ).fetchall()
        return {day for (day,) in days}

    def stage(
        self,
        table: Table,
        query: str,
        notes: Mapping[str, str],
        parameters: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the rows of a query, in the table's order, into a new file; returns its path.

        Args:
            table: says the order.
            query: gives the table's columns.
            notes: what to note in the file, by name.
            parameters: the query's.
        """
        path = self.folder / f"{uuid.uuid4().hex}.parquet"
        noted = ", ".join(f"{quoted(name)}: ${quoted('note ' + name)}" for name in notes)
        values = {f"note {name}": value for name, value in notes.items()}
        self.connection.execute(
            f"COPY ({query} ORDER BY {_list(table.sort_order)}) TO $path "
            f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{noted}}})",
            {"path": str(path), **values, **(parameters or {})},
        ).fetchall()
        return path

    def count(self, file: Path) -> int:
        """The number of rows of a file."""
        ((rows,),) = self.connection.execute(
            "SELECT num_rows FROM parquet_file_metadata($file)", {"file": file_names([file])}
        ).fetchall()
        return int(rows)

    def keep(self, name: str, made_from: Hashable, query: str) -> None:
        """Make a temporary table of a query, unless it is there and made from the same."""
        if self._kept.get(name) != made_from:
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS {query}")
            self._kept[name] = made_from

    def statistics(self, table: Table, files: Mapping[date, Path]) -> dict[date, FileStatistics]:
        """What the footers of partitions say, by date."""
        if not files:
            return {}
        names = file_names(files.values())
        rows = self._by_file("SELECT file_name, num_rows FROM parquet_file_metadata($files)", names)
        types = self._by_file(
            "SELECT file_name, name, duckdb_type FROM parquet_schema($files) "
            "WHERE num_children IS NULL ORDER BY column_id",
            names,
        )
        columns = self._by_file(
            "SELECT file_name, path_in_schema, sum(stats_null_count)::BIGINT, "
            f"min(CASE WHEN path_in_schema = '{table.event_time}' "
            "THEN try_cast(stats_min_value AS BIGINT) END), "
            f"max(CASE WHEN path_in_schema = '{table.event_time}' "
            "THEN try_cast(stats_max_value AS BIGINT) END) "
            "FROM parquet_metadata($files) GROUP BY ALL",
            names,
        )
        return {
            day: _statistics(rows[name], types[name], columns.get(name, []), table.event_time)
            for day, name in ((day, str(path)) for day, path in files.items())
        }

    def stamps(self, files: Mapping[date, Path]) -> dict[date, str]:
        """The stamps that were noted in partitions' files, by date."""
        return self.notes("stamp", files)

    def notes(self, name: str, files: Mapping[date, Path]) -> dict[date, str]:
        """What was noted under a name in partitions' files when they were written, by date."""
        if not files:
            return {}
        found = dict(
            self.connection.execute(
                "SELECT file_name, decode(value) FROM parquet_kv_metadata($files) "
                "WHERE decode(key) = $name",
                {"files": file_names(files.values()), "name": name},
            ).fetchall()
        )
        return {day: found[str(path)] for day, path in files.items() if str(path) in found}

    def readable(self, files: Mapping[date, Path]) -> dict[date, Path]:
        """Those of the files that are whole Parquet files."""
        try:
            self.notes("stamp", files)
        except duckdb.Error:
            if len(files) == 1:
                return {}
            return {day: path for day, path in files.items() if self.readable({day: path})}
        return dict(files)

    def _by_file(self, query: str, names: list[str]) -> dict[str, list[tuple[Any, ...]]]:
        found: dict[str, list[tuple[Any, ...]]] = {}
        for name, *values in self.connection.execute(query, {"files": names}).fetchall():
            found.setdefault(name, []).append(tuple(values))
        return found


def _statistics(
    rows: list[tuple[Any, ...]],
    types: list[tuple[Any, ...]],
    columns: list[tuple[Any, ...]],
    event_time: str,
) -> FileStatistics:
    ranges = {name: (first, last) for name, _, first, last in columns}
    first, last = ranges.get(event_time, (None, None))
    return FileStatistics(
        rows=rows[0][0],
        types=dict(types),
        nulls=dict.fromkeys(dict(types), 0) | {name: nulls for name, nulls, *_ in columns},
        first=first,
        last=last,
    )


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def trimmed(text: str) -> str:
    """SQL for a text without blanks around it, as Ibis' `strip` has it."""
    return rf"trim({text}, E' \t\n\r\f\x0B')"


def file_names(paths: Collection[Path]) -> list[str]:
    """Paths as DuckDB's readers take them, with what they would read as a pattern made plain."""
    return ["".join(f"[{c}]" if c in "*?[" else c for c in str(path)) for path in paths]


def no_rows(table: Table) -> str:
    """SQL for the table's columns without rows."""
    columns = (f"CAST(NULL AS {SQL_TYPES[c.type]}) AS {quoted(c.name)}" for c in table.columns)
    return f"SELECT {', '.join(columns)} WHERE false"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))
