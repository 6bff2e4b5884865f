"""How rows come to Spark's workers and back: as Parquet files, on a disk or in the lake's bucket.

On one machine, and over a folder that all machines have, workers see the same files under the same
paths. The workers of another machine see the bucket alone, with credentials of their own.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import date
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from stedi_assets.lake import EXCHANGE, Storage
from stedi_assets.tables import PARTITION, ColumnType, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from stedi_assets.lake.s3 import S3Storage

_TYPES: dict[ColumnType, str] = {
    "string": "STRING",
    "int64": "BIGINT",
    "int32": "INT",
    "float64": "DOUBLE",
    "boolean": "BOOLEAN",
}
"""Spark's names of the registry's types."""

_AT_ONCE = 8

_GROUPS = 8
"""How many of a file's row groups, of 122,880 rows as DuckDB writes them, are worth a task."""

_TASKS = 200
"""How many tasks there are at most, as Spark's own shuffles have; each has several files then."""


class Exchange(Protocol):
    """Gives Spark the rows of local files, and this process files with rows that Spark computes.

    Attributes:
        by_bucket: whether workers do not see this machine's disk.
    """

    by_bucket: bool

    def read(self, session: SparkSession, table: Table, files: Sequence[Path]) -> DataFrame:
        """The rows of a table's files, with the date last, as the folder of a file says it."""

    def written(self, rows: DataFrame) -> AbstractContextManager[list[Path]]:
        """Have rows computed into local files, in folders of their dates, gone at the end."""

    def written_by(
        self, session: SparkSession, tasks: int, write: Callable[[int, Path], None]
    ) -> AbstractContextManager[list[Path]]:
        """Have workers write such files by themselves.

        Args:
            session: has the workers.
            tasks: how many there are.
            write: does a task, by its number, in an empty folder; it is sent to the workers.
        """


class ByDisk:
    """Workers read and write files of this machine's disk.

    Args:
        folder: private, for what they write.
    """

    by_bucket = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, session: SparkSession, table: Table, files: Sequence[Path]) -> DataFrame:
        """See `Exchange`."""
        by_root: dict[Path, list[str]] = {}
        for file in files:
            root = file.parent.parent if _date_of(file) else file.parent
            by_root.setdefault(root, []).append(_plain(file))
        # Spark takes the date from a folder's name once a file; SQL would do so once a row.
        reader = session.read.schema(_with_date(table))
        found = [
            reader.option("basePath", f"file:{root}").parquet(*of_root)
            for root, of_root in by_root.items()
        ]
        none = session.createDataFrame([], _with_date(table))
        return reduce(lambda one, other: one.union(other), found, none)

    @contextmanager
    def written(self, rows: DataFrame) -> Iterator[list[Path]]:
        """See `Exchange`."""
        with TemporaryDirectory(dir=self._folder) as folder:
            written = Path(folder, "rows")
            rows.write.partitionBy(PARTITION).parquet(f"file:{written}")
            yield sorted(written.glob("*/*.parquet"))

    @contextmanager
    def written_by(
        self, session: SparkSession, tasks: int, write: Callable[[int, Path], None]
    ) -> Iterator[list[Path]]:
        """See `Exchange`."""
        with TemporaryDirectory(dir=self._folder) as folder:

            def write_here(task: int) -> list[str]:
                own = Path(tempfile.mkdtemp(dir=folder))
                write(task, own)
                return [str(file) for file in own.glob("*/*.parquet")]

            yield list(map(Path, _told(session, tasks, write_here)))


class ByBucket:
    """Workers read published partitions where they are, and write objects that are fetched here.

    They do so in Python, and not by Hadoop's S3: so they need no other packages than this one's,
    and no committer whose work might be seen half done.

    Args:
        storage: the lake's.
        folder: private, for what is fetched.
    """

    by_bucket = True

    def __init__(self, storage: S3Storage, folder: Path) -> None:
        self._storage = storage
        self._folder = folder
        self._objects = storage.as_filesystem()
        self._below = f"{EXCHANGE}/{uuid.uuid4().hex}"

    def read(self, session: SparkSession, table: Table, files: Sequence[Path]) -> DataFrame:
        """See `Exchange`."""
        tasks = [
            (key, _date_of(file), range(first, min(first + _GROUPS, groups)))
            for file in files
            for key, groups in [(self._key(file), pq.read_metadata(file).num_row_groups)]
            for first in range(0, groups, _GROUPS)
        ]
        objects, schema = self._objects, ibis.schema(table.schema).to_pyarrow()

        def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for number in _numbers(batches):
                key, day, groups = tasks[number]
                with pq.ParquetFile(key, filesystem=objects) as file:
                    for rows in file.iter_batches(row_groups=list(groups)):
                        dated = rows.append_column(
                            PARTITION, pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows)
                        )
                        yield pa.RecordBatch.from_arrays(
                            [
                                dated[column.name]
                                if column.name in dated.schema.names
                                else pa.nulls(rows.num_rows, column.type)
                                for column in schema
                            ],
                            schema=schema,
                        )

        return _spread(session, len(tasks)).mapInArrow(read, _with_date(table))

    def _key(self, file: Path) -> str:
        """Where workers find a local file."""
        if (key := self._storage.key_of(file)) is None:  # it is not published
            key = f"{self._below}/{uuid.uuid4().hex}.parquet"
            pa.fs.copy_files(str(file), key, destination_filesystem=self._objects)
        return key

    def written(self, rows: DataFrame) -> AbstractContextManager[list[Path]]:
        """See `Exchange`."""
        objects, below = self._objects, self._below

        def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            writers: dict[date, pq.ParquetWriter] = {}
            names = []
            with ExitStack() as opened:
                for batch in batches:
                    for day in batch[PARTITION].unique().to_pylist():
                        of_day = batch.filter(pc.equal(batch[PARTITION], day))
                        of_day = of_day.drop_columns([PARTITION])
                        if day not in writers:
                            names.append(f"{PARTITION}={day}/{uuid.uuid4().hex}.parquet")
                            writers[day] = opened.enter_context(
                                pq.ParquetWriter(
                                    f"{below}/{names[-1]}",
                                    of_day.schema,
                                    filesystem=objects,
                                    compression="zstd",
                                )
                            )
                        writers[day].write_batch(of_day)
            yield _batch(names)

        return self._fetched(lambda: _names(rows.mapInArrow(write, _NAMES)))

    def written_by(
        self, session: SparkSession, tasks: int, write: Callable[[int, Path], None]
    ) -> AbstractContextManager[list[Path]]:
        """See `Exchange`."""
        objects, below = self._objects, self._below

        def upload(task: int) -> list[str]:
            with TemporaryDirectory() as folder:
                write(task, Path(folder))
                files = {
                    f"{file.parent.name}/{uuid.uuid4().hex}.parquet": file
                    for file in Path(folder).glob("*/*.parquet")
                }
                for name, file in files.items():
                    pa.fs.copy_files(str(file), f"{below}/{name}", destination_filesystem=objects)
            return list(files)

        return self._fetched(lambda: _told(session, tasks, upload))

    @contextmanager
    def _fetched(self, compute: Callable[[], list[str]]) -> Iterator[list[Path]]:
        """Local copies of what workers say they wrote: of a task that failed there may be a part.

        Args:
            compute: has them write; returns the names.
        """
        try:
            with TemporaryDirectory(dir=self._folder) as folder:
                files = {f"{self._below}/{name}": Path(folder, name) for name in compute()}
                for file in files.values():
                    file.parent.mkdir(exist_ok=True)
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    list(pool.map(self._fetch, files.keys(), files.values()))
                yield list(files.values())
        finally:
            for left in self._storage.list(self._below):
                self._storage.remove(left.key)

    def _fetch(self, key: str, file: Path) -> None:
        pa.fs.copy_files(key, str(file), source_filesystem=self._objects)


def exchange(session: SparkSession, storage: Storage, folder: Path) -> Exchange:
    """The way of rows to a session's workers and back.

    Args:
        session: of Spark.
        storage: the lake's.
        folder: private, on this machine.
    """
    from pyspark.sql import is_remote

    from stedi_assets.lake.s3 import S3Storage

    if isinstance(storage, S3Storage) and (
        is_remote() or not str(session.sparkContext.master).startswith("local")
    ):
        return ByBucket(storage, folder)
    return ByDisk(folder)


_NAMES = "name STRING"


def _told(session: SparkSession, tasks: int, do: Callable[[int], list[str]]) -> list[str]:
    """What workers return of tasks."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for task in _numbers(batches):
            yield _batch(do(task))

    return _names(_spread(session, tasks).mapInArrow(run, _NAMES))


def _names(rows: DataFrame) -> list[str]:
    return sorted(row.name for row in rows.collect())


def _batch(names: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"name": names}, pa.schema({"name": pa.string()}))


def _spread(session: SparkSession, tasks: int) -> DataFrame:
    """The numbers of tasks, for workers to do them."""
    return session.range(0, tasks, 1, max(1, min(tasks, _TASKS)))


def _numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    """The numbers of the tasks that a worker is given."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def _with_date(table: Table) -> str:
    """A table's columns as Spark declares them, with the date last."""
    columns = ", ".join(f"`{column.name}` {_TYPES[column.type]}" for column in table.columns)
    return f"{columns}, {PARTITION} DATE"


def _plain(file: Path) -> str:
    """A local path as Spark's readers take it, with what would be a pattern made plain."""
    return "file:" + re.sub(r"([\\*?{}\[\]])", r"\\\1", str(file))


def _date_of(file: Path) -> date | None:
    """The date of the folder of a file; None where it is in no partition's folder."""
    name, _, day = file.parent.name.partition("=")
    return date.fromisoformat(day) if name == PARTITION else None
