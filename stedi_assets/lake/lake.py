"""The lake: which file holds which partition, and which landing files it has.

Maps tables and dates to keys of the storage; what is in the files is the engine's business.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import date
from pathlib import Path

from stedi_assets.lake.storage import LocalStorage, Storage, StoredFile
from stedi_assets.tables import PARTITION, TABLES, Source, Table

ERASURES = "erasures"
"""The folder of what was erased."""

EXCHANGE = "_exchange"
"""The folder of what runs hand to other machines that compute for them, and these to them."""

SNAPSHOTS = "snapshots"
"""The folder of training sets, which data scientists write."""

RECONCILED = "_reconciled.parquet"
"""The file of what the last reconciliation found right."""

REPORTS = "reports"
"""The folder of what is told of the lake, in counts alone."""

_PARTITION = re.compile(rf"/{PARTITION}=(\d{{4}}-\d{{2}}-\d{{2}})/part-0\.parquet")

_OWN = (
    RECONCILED,
    f"{ERASURES}/",
    f"{EXCHANGE}/",
    f"{REPORTS}/",
    *(f"{table.path}/" for table in TABLES.values()),
)
"""How the keys begin that only who has the lake for writing publishes. Those of landing files are
not among them: their producers upload when they like, as others do where a lake is a bucket."""


class Lake:
    """The tables and landing files below one root."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._listed: dict[str, dict[date, StoredFile]] | None = None

    def partition_key(self, table: Table, day: date) -> str:
        """The key of the one file that holds a partition."""
        return f"{table.path}/{PARTITION}={day.isoformat()}/part-0.parquet"

    def partitions(self, table: Table) -> dict[date, StoredFile]:
        """The published partitions of a table, in the order of their dates; no other files.

        The only writer lists them once, and again after it published some: a listing of years of
        partitions takes longer than many a query.
        """
        if self._listed is None:
            return self._list(table)
        if table.name not in self._listed:
            self._listed[table.name] = self._list(table)
        return dict(self._listed[table.name])

    def has_partitions(self, table: Table) -> bool:
        """Whether a table has any published partition; looks no further than to the first."""
        if self._listed is not None and table.name in self._listed:
            return bool(self._listed[table.name])
        return any(True for _ in self._published(table))

    def _list(self, table: Table) -> dict[date, StoredFile]:
        return dict(sorted(self._published(table)))

    def _published(self, table: Table) -> Iterator[tuple[date, StoredFile]]:
        for file in self.storage.list(table.path):
            if match := _PARTITION.fullmatch(file.key.removeprefix(table.path)):
                with suppress(ValueError):  # digits that are no date
                    yield date.fromisoformat(match[1]), file

    def fetch(self, table: Table, days: Container[date] | None = None) -> dict[date, Path]:
        """Local files with the published partitions of `days`, or of all days, in order.

        Days without a published partition are left out.
        """
        files = {
            day: file for day, file in self.partitions(table).items() if days is None or day in days
        }
        return dict(zip(files, self.storage.fetch_all(files.values()), strict=True))

    def publish(
        self, table: Table, day: date, staged: Path, notes: Mapping[str, str] | None = None
    ) -> None:
        """Make a finished file the partition's content, in one step; see `Storage.publish`."""
        self.storage.publish(staged, self.partition_key(table, day), notes=notes)
        self.look_again(table)

    def look_again(self, table: Table) -> None:
        """List a table's partitions anew when somebody asks: some were published."""
        if self._listed is not None:
            self._listed.pop(table.name, None)

    def landing_files(self, source: Source) -> Iterator[StoredFile]:
        """All files that a source has dropped, whatever they are."""
        return self.storage.list(f"{source}/landing")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Held by the one process that publishes; others wait for it."""
        with self.storage.writing():
            self.storage.abort_uploads(lambda key: key.startswith(_OWN))
            for left in self.storage.list(EXCHANGE):  # by a process that was killed
                self.storage.remove(left.key)
            self._listed = {}
            try:
                yield
            finally:
                self._listed = None

    def staging(self) -> AbstractContextManager[Path]:
        """A private folder for files that are not finished, removed at the end."""
        return self.storage.staging()


def open_lake(root: str, cache: Path = Path("~/.cache/stedi")) -> Lake:
    """The lake at `root`, which need not exist yet.

    Args:
        root: a local folder, or `s3://bucket/prefix`.
        cache: below it lie the local copies of a lake on S3.

    Raises:
        ValueError: no lake can be there; says what to set.
    """
    storage: Storage
    if root.startswith("s3://"):
        from stedi_assets.lake.s3 import open_s3  # it takes a second to import

        storage, setting = open_s3(root, cache), f"The cache of {root!r} is {str(cache)!r}"
        remedy = "Set STEDI_CACHE to another path."
    elif "://" in root:
        raise ValueError(
            f"STEDI_LAKE is {root!r}: a lake is a local folder or on S3. Set it to a path, or to "
            "s3://bucket/prefix."
        )
    else:
        storage, setting = LocalStorage(Path(root)), f"STEDI_LAKE is {root!r}"
        remedy = "Choose another path."
        if storage.folder.is_file():
            raise ValueError(f"{setting}, which is a file: set it to a folder.")
    columns = {
        *(PARTITION, "filename"),  # as DuckDB calls the file of a row
        *(name for table in TABLES.values() for name in table.column_names),
    }
    for folder in storage.folder.parts:
        if folder.partition("=")[0].lower() in columns and "=" in folder:
            raise ValueError(
                f"{setting}: readers of partitioned tables take the folder {folder!r} "
                f"for a column. {remedy}"
            )
    return Lake(storage)
