"""Storing whole files under keys: list, fetch, publish, remove, on a local folder.

Knows nothing of tables or partitions.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_STAGING = "_staging"
_WRITING = "_writing"


@dataclass(frozen=True)
class StoredFile:
    """A file in the lake.

    Attributes:
        key: path relative to the lake's root, with slashes.
        size: in bytes.
        modified: when its content last changed, UTC.
        version: changes whenever the content does.
    """

    key: str
    size: int
    modified: datetime
    version: str


class LocalStorage:
    """A folder on a local disk. A file is replaced whole, in one step, or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """All files below the folder `prefix`, at any depth; none where there is no such folder.

        Raises:
            OSError: a folder cannot be read.
        """
        with suppress(FileNotFoundError):
            yield from self._below(os.path.join(self.root, prefix), prefix)  # noqa: PTH118

    def _below(self, folder: str, key: str) -> Iterator[StoredFile]:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed since the folder was read
                    if entry.is_dir():
                        yield from self._below(entry.path, f"{key}/{entry.name}")
                    else:
                        stat = entry.stat()
                        yield StoredFile(
                            f"{key}/{entry.name}",
                            stat.st_size,
                            datetime.fromtimestamp(stat.st_mtime, UTC),
                            f"{stat.st_mtime_ns}-{stat.st_ino}",
                        )

    def fetch(self, key: str) -> Path:
        """A local file with the content of `key`; not to be written to."""
        return self.root / key

    def uri(self, key: str) -> str:
        """Where `key` is, for people."""
        return str(self.root / key)

    def publish(self, staged: Path, key: str) -> None:
        """Make the finished file `staged`, from `staging`, the content of `key`.

        A reader sees the old content or the new one, also after a crash.
        """
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(target)

    def remove(self, key: str) -> None:
        """Remove `key`; nothing happens where there is none."""
        (self.root / key).unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The only writer of the lake, after waiting for the one before; ends with the process."""
        folder = self.root / _WRITING
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=True):
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A private folder for unfinished files, removed at the end.

        It lies on the lake's own disk, so that publishing is a rename. Its lock ends with the
        process: what a killed process left behind is removed by the next one that comes here.
        """
        parent = self.root / _STAGING
        parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as at_end:
            with locked(parent, wait=True):
                for leftover in parent.iterdir():
                    # A living process holds its folder's lock, and may just be removing it.
                    with suppress(BlockingIOError, FileNotFoundError), locked(leftover):
                        shutil.rmtree(leftover)
                folder = Path(tempfile.mkdtemp(dir=parent))
                at_end.enter_context(locked(folder))
                at_end.callback(shutil.rmtree, folder)
            yield folder


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process.

    Raises:
        BlockingIOError: another process holds it, and `wait` is off.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
