"""The lake for who reads it: tables and training sets as Ibis tables, from Python.

Needs the right to read what is asked for and nothing else: no key of pseudonyms, no Dagster. What
a training set is, `snapshots.py` says.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import warnings
import weakref
from collections.abc import Mapping
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path

import duckdb
import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from stedi_assets.engines.duckdb import quoted, rows_of_files
from stedi_assets.lake import LocalStorage, open_lake
from stedi_assets.resources import cache_folder, in_memory, lake_root
from stedi_assets.snapshots import Snapshot, fetched, frozen_rows, load, load_all, take
from stedi_assets.tables import TABLES


class Lakehouse:
    """A lake to read from.

    Any number of them can be open, and threads can share one and what it gave.

    Args:
        root: a folder, or `s3://bucket/prefix`; without it what `STEDI_LAKE` says.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no lake can be there.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self._lake = open_lake(lake_root() if root is None else str(root), cache_folder())
        if isinstance(self._lake.storage, LocalStorage) and not self._lake.storage.exists():
            raise FileNotFoundError(
                f"There is no lake at {self._lake.storage.uri()}. Name the folder that holds "
                "customer/landing and the others, here or by STEDI_LAKE."
            )
        self._backend = _Backend.from_connection(in_memory())
        # Otherwise DuckDB would put what does not fit into memory where anybody can read it.
        folder = tempfile.mkdtemp(prefix="stedi-")
        self._backend.con.execute("SET temp_directory = $folder", {"folder": folder})
        weakref.finalize(self._backend, shutil.rmtree, folder, ignore_errors=True)
        self._numbers = count(1)

    def read(
        self, table: str, start: date | str | None = None, end: date | str | None = None
    ) -> ir.Table:
        """The rows of a table that came from one day to another.

        Nothing is computed yet: `.to_pandas()`, `.to_polars()` and `.to_pyarrow()` do that, and
        what is filtered or selected before them is not read. Of a lake on S3 the partitions of
        these days are fetched here, and rows stay as they were then. Of a folder it is the
        partitions of now, as they are when rows are computed; in the instant in which one is
        replaced, DuckDB, which opens a file twice, may fail: compute them again. Either way a
        partition is as one run left it, and two may be as different runs did: for what has to stay
        the same there is `snapshot`.

        Args:
            table: its name, such as `machine_learning_curated`.
            start: the first ingestion date, as a date or YYYY-MM-DD; without it from the first on.
            end: the last one, likewise.

        Raises:
            ValueError: there is no such table or date, or `start` is later than `end`.
            FileNotFoundError: the lake has nothing of this table.
            StorageError: the storage does not answer or refuses.
        """
        if table not in TABLES:
            raise ValueError(f"There is no table {table!r}. There are {', '.join(TABLES)}.")
        of, (first, last) = TABLES[table], _dates(start, end)
        files = fetched(self._lake, of, first, last)
        return self._table(table, of.schema, rows_of_files(of, files))

    def snapshot(
        self,
        name: str,
        start: date | str | None = None,
        end: date | str | None = None,
        salt: str = "stedi",
    ) -> Snapshot:
        """Freeze the rows of `machine_learning_curated` as a training set, and split it by people.

        Kept below `<lake>/snapshots/` is what tells these rows from others, and no copy of them:
        `read_snapshot` gives them for as long as the lake may hold them.

        Nobody is in two of the splits train, validation and test (70, 15 and 15 of 100 devices).
        Who shares a device goes with those who share it. Pairs of one person's phone and another
        one's device are left out, and counted, if the two went to different splits.

        Args:
            name: letters, digits, `.`, `_` and `-`.
            start: the first ingestion date, as a date or YYYY-MM-DD; without it from the first on.
            end: the last one, likewise.
            salt: another one splits otherwise. The same device goes to the same split whenever
                the salt is the same, so that whom one model was tested on trains no other.

        Raises:
            FileExistsError: there is one of this name.
            FileNotFoundError: the lake has no curated tables.
            ValueError: the name will not do, or there are no rows on these days.
            StorageError: the lake was written to again and again, or the storage refuses.
        """
        first, last = _dates(start, end)
        with self._backend.con.cursor() as connection:
            return take(self._lake, connection, name, first, last, salt)

    def snapshots(self) -> list[Snapshot]:
        """All training sets, the oldest first."""
        with self._backend.con.cursor() as connection:
            return load_all(self._lake, connection)

    def read_snapshot(self, name: str, split: str | None = None) -> ir.Table:
        """The rows of a training set, with the split they belong to.

        Rows that were frozen, and no others, whatever has come since. What the lake may not hold
        any more is not among them: of people who withdrew their consent or were erased, or whose
        records were corrected; and what it does not hold under another policy or with another key
        of pseudonyms. A warning says how many are missing.

        Args:
            name: of the training set.
            split: `train`, `validation` or `test`; without it all three, which the column `split`
                tells apart.

        Raises:
            FileNotFoundError: there is no such training set.
            ValueError: there is no such split.
            StorageError: the storage does not answer or refuses.
        """
        with self._backend.con.cursor() as connection:
            snapshot = load(self._lake, connection, name)
        if split is not None and split not in snapshot.splits:
            raise ValueError(
                f"There is no split {split!r}. There are {', '.join(snapshot.splits)}."
            )
        schema = {**TABLES[snapshot.table].schema, "split": "string"}
        rows = self._table(name, schema, frozen_rows(self._lake, snapshot, split))
        frozen = snapshot.splits[split]["rows"] if split else snapshot.rows
        if (gone := frozen - rows.count().to_pyarrow().as_py()) > 0:
            warnings.warn(
                f"Of the {frozen:,} rows of snapshot {name!r}{f', {split},' if split else ''} "
                f"{gone:,} are not in the lake any more: people withdrew their consent or were "
                "erased, records were corrected, or the lake has another policy or key by now.",
                stacklevel=2,
            )
        return rows

    def _table(self, name: str, schema: Mapping[str, str], query: str) -> ir.Table:
        """What a query gives, by a view of its own: the query is as long as there are files."""
        view = f"{name}_{next(self._numbers)}"
        self._backend.con.execute(f"CREATE VIEW {quoted(view)} AS {query}")
        return ops.DatabaseTable(view, schema=ibis.schema(schema), source=self._backend).to_expr()


class _Backend(Backend):  # type: ignore[misc]
    """Ibis over DuckDB in memory; each thread has a connection of its own to the same views.

    For a connection refuses what a second thread asks of it.
    """

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """The connection of this thread."""
        try:
            mine: duckdb.DuckDBPyConnection = self._of_threads.connection
        except AttributeError:
            mine = self._of_threads.connection = self._connection.cursor()
        return mine

    @con.setter
    def con(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._of_threads = threading.local()
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # Ibis sets it for one connection


def _dates(start: date | str | None, end: date | str | None) -> tuple[date, date]:
    first, last = _date(start, date.min), _date(end, date.max)
    if first > last:
        raise ValueError(f"start is {first}, which is later than end, {last}.")
    return first, last


def _date(value: date | str | None, otherwise: date) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no date: say it as YYYY-MM-DD.") from None
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).date()
    if isinstance(value, date | None):
        return value or otherwise
    raise ValueError(f"{value!r} is no date: say it as YYYY-MM-DD.")
