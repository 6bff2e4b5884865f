"""Reading landing files on Spark: its workers run the very reader of `reader.py`.

So a good record is the same one, and rejects have the same reasons and lines. Spark only says who
reads which files, and collects the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from stedi_assets.engines.duckdb import DuckDBEngine, quoted
from stedi_assets.engines.spark import SparkEngine
from stedi_assets.landing.reader import Day, read_into_tables
from stedi_assets.tables import PARTITION, Column, Source, Table, landing_table, rejects_table

if TYPE_CHECKING:
    import pyarrow as pa

_TASK = 4_000_000
"""Bytes of landing files that are worth a task."""

_AT_ONCE = 20_000
"""Rows that a worker hands over together."""

_KEPT_OUT = "kept_out"

_Task = list[tuple[date, dict[str, Path]]]


def read_days_on_spark(
    engine: SparkEngine, source: Source, days: Mapping[date, Day], kept_out: str = ""
) -> tuple[dict[date, Path], dict[date, Path]]:
    """The same as `read_days`; each file is read by one of Spark's tasks, and all are at once."""
    table, rejects = landing_table(source), rejects_table(source)
    ((memory,),) = engine.connection.execute("SELECT current_setting('memory_limit')").fetchall()
    read = _Read(
        source,
        _tasks(days),
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
            notes = {"stamp": days[day].stamp, "records": str(records.get(day, 0))}
            of_day = f"FROM {view} WHERE {PARTITION} = $day AND records IS NULL AND reason IS"

            def staged(of: Table, which: str) -> Path:
                query = f"SELECT {', '.join(map(quoted, of.column_names))} {of_day} {which}"
                return engine.stage(of, day, query, notes, {"day": day}, connection)[0]

            return staged(table, "NULL"), staged(rejects, "NOT NULL")

        found = engine.in_parallel(stage, list(days))
    return (
        {day: rows for day, (rows, _) in found.items()},
        {day: rejected for day, (_, rejected) in found.items()},
    )


def _tasks(days: Mapping[date, Day]) -> list[_Task]:
    """Which files are read together: a few large ones, or many small ones of several dates."""
    tasks: list[_Task] = [[]]
    size = 0
    for day, of in days.items():
        for key, path in of.files.items():
            if size > _TASK:
                tasks.append([])
                size = 0
            if not tasks[-1] or tasks[-1][-1][0] != day:
                tasks[-1].append((day, {}))
            tasks[-1][-1][1][key] = path
            size += path.stat().st_size
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
        source: whose files are read.
        tasks: the files of each task, by date and key.
        erased: whom erasures keep out; None if nobody.
        pseudonym_key: by which they are known.
        memory: above this, it works on disk.
    """

    source: Source
    tasks: list[_Task]
    erased: pa.Table | None
    pseudonym_key: str
    memory: str

    def __call__(self, task: int) -> Iterator[pa.RecordBatch]:
        columns = ", ".join(map(quoted, _handed_over(self.source).column_names))
        settings = {"threads": "1", "memory_limit": self.memory}
        with (
            tempfile.TemporaryDirectory() as folder,
            duckdb.connect(config={**settings}) as connection,
        ):
            engine = DuckDBEngine(connection, self.pseudonym_key, Path(folder))
            if self.erased is not None:
                connection.register(_KEPT_OUT, self.erased)
            for day, files in self.tasks[task]:
                kept_out = "" if self.erased is None else _KEPT_OUT
                records = read_into_tables(engine, self.source, files, kept_out)
                found = connection.sql(
                    f"SELECT {columns}, $day::DATE AS {PARTITION} FROM (FROM landed "
                    "UNION ALL BY NAME FROM rejected "
                    "UNION ALL BY NAME SELECT $records::BIGINT AS records)",
                    params={"day": day, "records": records},
                )
                yield from found.to_arrow_reader(_AT_ONCE)
