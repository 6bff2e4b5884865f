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
        for folder, _, names in os.walk(self.root / prefix, onerror=_raise, followlinks=True):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118 - pathlib doubles the time
                with suppress(FileNotFoundError):  # removed since the folder was read
                    stat = os.stat(path)  # noqa: PTH116
                    yield StoredFile(
                        os.path.relpath(path, self.root),
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


def _raise(error: OSError) -> None:
    """What os.walk would pass over: files that cannot be seen are not files that are gone."""
    if not isinstance(error, FileNotFoundError):
        raise error


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
