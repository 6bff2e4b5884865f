"""`<lake>/stedi.duckdb`: the tables of a local lake as views that any DuckDB opens.

Only definitions are in it: rows are read from the lake's files, as they are at that moment.
"""

from __future__ import annotations

import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from stedi_assets.engines.duckdb import DuckDBEngine, file_names, no_rows, quoted, text
from stedi_assets.lake import Lake, LocalStorage
from stedi_assets.tables import PARTITION, TABLES, Table

FILE = "stedi.duckdb"

_OLDEST_READER = "v1.0.0"
"""The DuckDB from which on the file can be opened; 2.0 would write one for itself alone."""


def write_views(lake: Lake, engine: DuckDBEngine) -> None:
    """Replace the file, in one step, if its views are not those that the lake should have.

    Views name files by their absolute paths, so that they can be read from any folder; in a lake
    that was moved they are other ones. A lake on S3 has no such file.

    Args:
        lake: whose tables they show.
        engine: writes them.

    Raises:
        duckdb.Error: a partition is damaged; the file is as it was.
    """
    storage = lake.storage
    if not isinstance(storage, LocalStorage):
        return
    queries = {
        name: _rows(table, storage.root) if lake.has_partitions(table) else _none(table)
        for name, table in TABLES.items()
    }
    # In the engine's folder, which the next process removes if this one is killed; but not where
    # DuckDB would take a question mark in the path for one in an address.
    where = None if "?" in str(engine.folder) else engine.folder
    with TemporaryDirectory(dir=where) as folder, engine.connection.cursor() as connection:
        if storage.find(FILE):
            # A copy, for DuckDB does not open what another process has opened to write to it.
            old = shutil.copyfile(storage.root / FILE, Path(folder, "old"))
            if _queries_in(old, connection) == queries:
                return
        database = Path(folder, "new")
        connection.execute(
            f"ATTACH {text(str(database))} AS views (STORAGE_VERSION {text(_OLDEST_READER)})"
        )
        connection.begin()
        for name, query in queries.items():
            view = f"views.{quoted(name)}"
            connection.execute(f"CREATE VIEW {view} AS {query}")
            # DuckDB keeps it in words of its own, by which nobody sees whether it is the same.
            connection.execute(f"COMMENT ON VIEW {view} IS {text(query)}")
        connection.commit()
        connection.execute("DETACH views")
        staged = shutil.copyfile(database, engine.folder / f"{uuid.uuid4().hex}.duckdb")
    storage.publish(staged, FILE)


def _queries_in(database: Path, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """What the views in a file are made from; none, where it cannot be read."""
    with suppress(duckdb.Error):
        connection.execute(f"ATTACH {text(str(database))} AS views (READ_ONLY)")
        try:
            return dict(
                connection.execute(
                    "SELECT view_name, comment FROM duckdb_views() "
                    "WHERE database_name = 'views' AND NOT internal"
                ).fetchall()
            )
        finally:
            connection.execute("DETACH views")
    return {}


def _rows(table: Table, root: Path) -> str:
    """SQL for the rows of all partitions that there are when it is read."""
    (folder,) = file_names([root / table.path])
    columns = ", ".join(map(quoted, [*table.column_names, PARTITION]))
    return (
        f"SELECT {columns} "
        f"FROM read_parquet({text(f'{folder}/{PARTITION}=*/part-0.parquet')}, "
        f"hive_partitioning = true, hive_types = {{{quoted(PARTITION)}: DATE}})"
    )


def _none(table: Table) -> str:
    """SQL for the table without rows: DuckDB 1 refuses to read no files at all."""
    return f"SELECT *, CAST(NULL AS DATE) AS {quoted(PARTITION)} FROM ({no_rows(table)})"
