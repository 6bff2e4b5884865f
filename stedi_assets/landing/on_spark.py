"""Reading landing files on Spark: its workers run the very reader of `reader.py`.

So a good record is the same one, and rejects have the same reasons and lines. Spark only says who
reads which files, and collects the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from stedi_assets.engines.duckdb import DuckDBEngine, quoted
from stedi_assets.engines.spark import SparkEngine
from stedi_assets.lake import Lake, StoredFile, open_lake
from stedi_assets.landing.reader import read_into_tables
from stedi_assets.tables import PARTITION, Column, Source, Table, landing_table, rejects_table

if TYPE_CHECKING:
    import pyarrow as pa

_TASK = 32_000_000
"""Bytes of landing files that are worth a task: beginning one takes a tenth of a second."""

_KEPT_OUT = "kept_out"

_Task = list[tuple[date, dict[str, Path | StoredFile]]]


def read_days_on_spark(
    lake: Lake,
    engine: SparkEngine,
    source: Source,
    files: Mapping[date, Collection[StoredFile]],
    stamps: Mapping[date, str],
    kept_out: str = "",
) -> tuple[dict[date, Path], dict[date, Path]]:
    """The same as `read_days`; each file is read by one of Spark's tasks, and all are at once.

    Args:
        lake: has the files; workers that do not see this machine's disk open it by its address.
        engine: has the workers.
        source: whose landing files they are.
        files: the landing files by date.
        stamps: what is noted in the partitions of each date.
        kept_out: see `read_days`.

    Returns:
        See `read_days`.
    """
    table, rejects = landing_table(source), rejects_table(source)
    ((memory,),) = engine.connection.execute("SELECT current_setting('memory_limit')").fetchall()
    read = _Read(
        lake.storage.uri(),
        source,
        _tasks(files, {} if engine.exchange.by_bucket else _fetched(lake, files)),
        engine.connection.sql(f"FROM {kept_out}").to_arrow_table() if kept_out else None,
        engine.pseudonym_key,
        memory,
    )
    with engine.spread(read, len(read.tasks), _handed_over(source)) as view:
        records = dict(
            engine.connection.execute(
                f"SELECT {PARTITION}, sum(records)::BIGINT FROM {view} GROUP BY ALL"
            ).fetchall()
        )

        def stage(day: date, connection: duckdb.DuckDBPyConnection) -> tuple[Path, Path]:
            notes = {"stamp": stamps[day], "records": str(records.get(day, 0))}
            of_day = f"FROM {view} WHERE {PARTITION} = $day AND records IS NULL AND reason IS"

            def staged(of: Table, which: str) -> Path:
                query = f"SELECT {', '.join(map(quoted, of.column_names))} {of_day} {which}"
                return engine.stage(of, day, query, notes, {"day": day}, connection)[0]

            return staged(table, "NULL"), staged(rejects, "NOT NULL")

        found = engine.in_parallel(stage, list(files))
    return (
        {day: rows for day, (rows, _) in found.items()},
        {day: rejected for day, (_, rejected) in found.items()},
    )


def _fetched(lake: Lake, files: Mapping[date, Collection[StoredFile]]) -> dict[StoredFile, Path]:
    every = [file for of_day in files.values() for file in of_day]
    return dict(zip(every, lake.storage.fetch_all(every), strict=True))


def _tasks(
    files: Mapping[date, Collection[StoredFile]], fetched: Mapping[StoredFile, Path]
) -> list[_Task]:
    """Which files are read together: a few large ones, or many small ones of several dates."""
    tasks: list[_Task] = [[]]
    size = 0
    for day, of_day in files.items():
        for file in of_day:
            if size > _TASK:
                tasks.append([])
                size = 0
            if not tasks[-1] or tasks[-1][-1][0] != day:
                tasks[-1].append((day, {}))
            tasks[-1][-1][1][file.key] = fetched.get(file, file)
            size += file.size
    return tasks


def _handed_over(source: Source) -> Table:
    """What workers hand over: rows, rejects, and for each date how many records they read."""
    records = Column("records", "int64", "How many were read.", null_means="a row or a reject")
    table, rejects = landing_table(source), rejects_table(source)
    return replace(table, columns=(*table.columns, *rejects.columns, records))


@dataclass(frozen=True)
class _Read:
    """What a worker does.

    Attributes:
        root: of the lake.
        source: whose files are read.
        tasks: the files of each task, by date.
        erased: whom erasures keep out; None if nobody.
        pseudonym_key: by which they are known.
        memory: above this, it works on disk.
    """

    root: str
    source: Source
    tasks: list[_Task]
    erased: pa.Table | None
    pseudonym_key: str
    memory: str

    def __call__(self, task: int, into: Path) -> None:
        columns = ", ".join(map(quoted, _handed_over(self.source).column_names))
        settings = {"threads": "1", "memory_limit": self.memory}
        with (
            tempfile.TemporaryDirectory() as folder,
            duckdb.connect(config={**settings}) as connection,
        ):
            engine = DuckDBEngine(connection, self.pseudonym_key, Path(folder))
            if self.erased is not None:
                connection.register(_KEPT_OUT, self.erased)
            # Only where the files are elsewhere: on S3 it takes a tenth of a second.
            storage = cache(lambda: open_lake(self.root, Path(folder)).storage)
            for day, of_day in self.tasks[task]:
                kept_out = "" if self.erased is None else _KEPT_OUT
                files = {
                    key: file if isinstance(file, Path) else storage().fetch(file)
                    for key, file in of_day.items()
                }
                records = read_into_tables(engine, self.source, files, kept_out)
                path = into / f"{PARTITION}={day}" / "rows.parquet"
                path.parent.mkdir()
                connection.execute(
                    f"COPY (SELECT {columns} FROM (FROM landed UNION ALL BY NAME FROM rejected "
                    "UNION ALL BY NAME SELECT $records::BIGINT AS records)) "
                    "TO $path (FORMAT parquet)",
                    {"records": records, "path": str(path)},
                )
