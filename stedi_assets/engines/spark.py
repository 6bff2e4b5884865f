"""Computing definitions on Spark, from the lake's files and back into files.

The same Ibis expressions as DuckDB's; where functions of the two differ, Spark's are replaced.
"""

from __future__ import annotations

import hashlib
import sys
import uuid
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
from ibis.backends.sql.compilers.pyspark import PySparkCompiler

from stedi_assets.engines.duckdb import Bind, DuckDBEngine, rows_of_files
from stedi_assets.lake import Storage
from stedi_assets.tables import PARTITION, TABLES, Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from stedi_assets.engines.exchange import Exchange


class SparkEngine(DuckDBEngine):
    """Spark for what all rows pass through, and DuckDB to look at files and to lay them down.

    Args:
        connection: DuckDB's.
        pseudonym_key: what pseudonyms are made with.
        folder: private, for finished files that are not published yet; Spark writes there too.
        connect: gives a session of Spark, of which views and functions are this engine's alone. It
            is asked once there is something to compute: starting Spark takes seconds.
        storage: the lake's, by which rows get to workers that do not see this machine's disk.
        tables: the names of the tables that Spark computes; DuckDB computes the others.
    """

    keeps_order = False

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        pseudonym_key: str,
        folder: Path,
        connect: Callable[[], SparkSession],
        storage: Storage,
        tables: Collection[str],
    ) -> None:
        super().__init__(connection, pseudonym_key, folder)
        self._connect = connect
        self._storage = storage
        self._tables = tables
        self._files: dict[str, list[Path]] = {}

    def computes(self, table: Table) -> bool:
        """Whether Spark computes a table."""
        return table.name in self._tables

    @cached_property
    def _ibis_of_spark(self) -> Any:
        backend = ibis.pyspark.from_connection(self._connect())
        backend.compiler = _Compiler()
        return backend

    @cached_property
    def session(self) -> SparkSession:
        """Spark's session, with the functions that definitions need."""
        session: SparkSession = self._ibis_of_spark._session
        key = self.pseudonym_key

        def pseudonym(value: str | None) -> str | None:
            return None if value is None else hashlib.sha256((key + value).encode()).hexdigest()

        # In Python and not in SQL, so that the key shows in no plan and no log of Spark's.
        session.udf.register("pseudonym", pseudonym, "string")
        capitals, small = self._letters()
        session.sql(
            "CREATE OR REPLACE TEMPORARY FUNCTION lowercase(text STRING) RETURNS STRING "
            f"RETURN translate(text, '{capitals}', '{small}')"
        )
        return session

    @cached_property
    def exchange(self) -> Exchange:
        """The way of rows to Spark's workers and back."""
        from stedi_assets.engines.exchange import exchange

        return exchange(self.session, self._storage, self.folder)

    def _letters(self) -> tuple[str, str]:
        """All letters that DuckDB's `lower` changes, and what it makes of each."""
        found = self.connection.execute(
            "SELECT chr(code::INTEGER) AS letter, lower(letter) AS small "
            f"FROM range(1, {sys.maxunicode + 1}) AS t(code) "
            "WHERE code NOT BETWEEN 55296 AND 57343 AND letter <> small"  # halves of surrogates
        ).fetchall()
        return "".join(letter for letter, _ in found), "".join(small for _, small in found)

    def create_view(
        self,
        table: Table,
        files: Mapping[date, Path],
        connection: duckdb.DuckDBPyConnection | None = None,
        also: str | None = None,
    ) -> None:
        """See `DuckDBEngine`; what all connections see, definitions on Spark see too."""
        super().create_view(table, files, connection, also)
        if connection is None:
            self._files[table.name] = list(files.values())
            if also:
                path = self.folder / f"{uuid.uuid4().hex}.parquet"
                self.connection.execute(f"COPY ({also}) TO $path", {"path": str(path)})
                self._files[table.name].append(path)

    def create_small_view(
        self, table: Table, files: Mapping[date, Path], made_from: Hashable
    ) -> None:
        """See `DuckDBEngine`."""
        super().create_small_view(table, files, made_from)
        self._files[table.name] = list(files.values())

    def write_each(
        self,
        table: Table,
        rows: ir.Table,
        days: Collection[date],
        stamps: Mapping[date, str],
        bind: Bind,
    ) -> dict[date, Path]:
        """See `DuckDBEngine`; on Spark all at once, which keeps all cores busy by itself."""
        if not self.computes(table):
            return super().write_each(table, rows, days, stamps, bind)
        if not days:
            return {}
        bind(days)
        return self.write(table, rows, days, stamps)

    @contextmanager
    def _computed(
        self, table: Table, rows: ir.Table, days: Collection[date] | None
    ) -> Iterator[tuple[str, bool]]:
        # Rows in this process are not many.
        if not self.computes(table) or rows.op().find(ops.InMemoryTable):
            with super()._computed(table, rows, days) as found:
                yield found
            return
        for read in rows.op().find(ops.DatabaseTable):
            seen = self.exchange.read(self.session, TABLES[read.name], self._files[read.name])
            seen.createOrReplaceTempView(read.name)
        result = self.session.sql(self._ibis_of_spark.compile(rows))
        result = result.select(*table.column_names, PARTITION)
        if days is not None:
            result = result.where(result[PARTITION].isin(list(days)))
        with self.exchange.written(result) as files:
            yield self._see(files, table), True

    @contextmanager
    def spread(self, write: Callable[[int, Path], None], tasks: int, table: Table) -> Iterator[str]:
        """Have Spark's workers do tasks in Python, and let DuckDB's SQL see the rows.

        Args:
            write: does a task, by its number: it writes Parquet files in folders of partitions
                into an empty folder. It is sent to the workers.
            tasks: how many there are.
            table: has the columns of the files.

        Returns:
            The name of a view of the rows, with the date last.
        """
        with self.exchange.written_by(self.session, tasks, write) as files:
            yield self._see(files, table)

    def _see(self, files: Collection[Path], table: Table) -> str:
        """Let SQL see the rows of files that Spark wrote; the name of the view."""
        self.connection.execute(f"CREATE OR REPLACE VIEW of_spark AS {rows_of_files(table, files)}")
        return "of_spark"


class _Compiler(PySparkCompiler):  # type: ignore[misc]
    """Ibis' own, but for the functions that Spark has otherwise than DuckDB."""

    __slots__ = ()

    # By Java, a sigma that ends a word is another one, and a dotted capital I two characters.
    SIMPLE_OPS = {ops.Lowercase: "lowercase"}  # noqa: RUF012
