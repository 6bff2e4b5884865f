"""Storing whole files under keys: list, fetch, publish, remove; on a local folder.

What any storage does is `Storage`; the one on S3 is in `s3.py`. Knows nothing of tables.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

_log = logging.getLogger(__name__)

_STAGING = "_staging"
_WRITING = "_writing"
_UNFINISHED = ".stedi-"
_OTHERS = stat.S_IRWXO
"""The rights of those who are neither the owner nor of the group."""

_DELIVERED = re.compile(r"[^/]+/landing/")
"""What is below such a folder others have put there: no link is followed."""

LINK = "a link"
LINK_TO_FOLDER = "a link to a folder"
LINK_TO_NOTHING = "a link to no file"
TOO_DEEP = "a folder in so many others that the system opens nothing in it"
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class StorageError(OSError):
    """A storage that is not there, cannot be reached or refuses; says which and what to do."""


class GoneError(StorageError, FileNotFoundError):
    """A file that was replaced or removed since it was listed."""


class BrokenOffError(StorageError):
    """A file of which only a part came."""


@dataclass(frozen=True)
class StoredFile:
    """A file in the lake.

    Attributes:
        key: path relative to the lake's root, with slashes.
        size: in bytes.
        modified: when its content last changed, UTC.
        version: changes whenever the content does.
        version_id: of an old version, by which the storage knows it.
        odd: what it is, if it is no file: a link below a landing folder, a pipe, a device.
    """

    key: str
    size: int
    modified: datetime
    version: str
    version_id: str | None = None
    odd: str = ""


class Storage(Protocol):
    """Whole files under keys. One is replaced whole, in one step, or not at all.

    Everything raises `StorageError`, an `OSError`, where the storage does not answer or refuses.
    """

    @property
    def folder(self) -> Path:
        """The local folder below which `fetch` and `staging` give files."""

    def uri(self, key: str = "") -> str:
        """Where `key`, or the root, is, for people."""

    def exists(self) -> bool:
        """Whether there is anything at the root."""

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """All files below the folder `prefix`, at any depth; none where there is no such folder.

        So that nothing is lost without a word, it also gives what is no file, and is not to be
        opened: see `StoredFile.odd`.

        Raises:
            OSError: a folder cannot be read.
        """

    def find(self, key: str) -> StoredFile | None:
        """The file of `key`, if there is one."""

    def fetch(self, file: StoredFile) -> Path:
        """A local file with the content of `file`; not to be written to.

        It has the extensions of the key and, if the file lies in the folder of a partition, lies
        in a folder of that name.

        Raises:
            GoneError: it was replaced or removed since it was listed. A local file is not opened
                here: whoever reads it reads what is there then, or finds it missing.
        """

    def fetch_all(self, files: Collection[StoredFile]) -> Sequence[Path]:
        """The same for several files, in their order; faster than one after the other."""

    def notes(self, files: Collection[StoredFile]) -> Sequence[Mapping[str, str]]:
        """What `publish` was told to note with files, in their order; none where it is not kept.

        Raises:
            GoneError: one was replaced or removed since it was listed.
        """

    def publish(
        self,
        staged: Path,
        key: str,
        delivered: datetime | None = None,
        notes: Mapping[str, str] | None = None,
        *,
        only_new: bool = False,
    ) -> None:
        """Make the finished file `staged`, from `staging`, the content of `key`.

        A reader sees the old content or the new one, also after a crash.

        Args:
            staged: may be gone afterwards.
            key: whose content it becomes.
            delivered: for a landing file that is written anew, when it came: `delivered` still
                gives it, and what the system lets others do with the file stays.
            notes: what `notes` may give without a look into the file; short, of ASCII, and by
                names of small letters.
            only_new: whether to leave alone what is there already.

        Raises:
            FileExistsError: there is a file of `key`, and it was to be a new one.
        """

    def delivered(self, file: StoredFile) -> datetime:
        """When a landing file came, UTC: it was last written by anybody but `publish`."""

    def remove(self, key: str) -> None:
        """Remove `key`; nothing happens where there is none. Old versions stay."""

    def old_versions(self, prefix: str = "") -> Iterator[StoredFile]:
        """What the storage still has of files below a folder that were replaced or removed."""

    def remove_version(self, file: StoredFile) -> None:
        """Remove one of `old_versions` for good, and with the last one that the file ever was."""

    def abort_uploads(self, is_left: Callable[[str], bool]) -> None:
        """Discard what killed processes had stored of a file that they were publishing.

        Args:
            is_left: whether nobody publishes a key now.
        """

    def forget_cached(self) -> None:
        """Remove all local copies of files; they are fetched again when they are needed."""

    def writing(self) -> AbstractContextManager[None]:
        """The only writer of the lake, after waiting for the one before; ends with the process."""

    def staging(self) -> AbstractContextManager[Path]:
        """A private folder for unfinished files, removed at the end.

        What a killed process left behind is removed by the next one that comes here.
        """


class LocalFolder:
    """A folder on a local disk in which one process writes and several have unfinished files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Storage`."""
        folder = self.folder / _WRITING
        make_folder(folder)
        with ExitStack() as at_end:
            try:
                at_end.enter_context(locked(folder))
            except BlockingIOError:
                _log.warning("Waiting for another process, which writes %s.", self.folder)
                at_end.enter_context(locked(folder, wait=True))
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """See `Storage`. The folder's lock ends with the process."""
        parent = self.folder / _STAGING
        make_folder(parent)
        with ExitStack() as at_end:
            with locked(parent, wait=True):
                for leftover in parent.iterdir():
                    if leftover.is_symlink() or not leftover.is_dir():  # somebody else's
                        leftover.unlink(missing_ok=True)
                        continue
                    # A living process holds its folder's lock, and may just be removing it.
                    with suppress(BlockingIOError, FileNotFoundError), locked(leftover):
                        shutil.rmtree(leftover)
                folder = Path(tempfile.mkdtemp(dir=parent))
                at_end.enter_context(locked(folder))
                at_end.callback(shutil.rmtree, folder)
            yield folder


class LocalStorage(LocalFolder):
    """A folder on a local disk. What is staged lies on the same one: publishing is a rename.

    Where a folder in it is a link to another disk, it is a rename there, of a copy.

    What is made here, other users of the machine can neither read nor write; the group can, if the
    system's mask lets it.
    """

    @property
    def root(self) -> Path:
        """Where the files are."""
        return self.folder

    def uri(self, key: str = "") -> str:
        """See `Storage`."""
        return str(self.root / key)

    def exists(self) -> bool:
        """Whether the root is a folder."""
        return self.root.is_dir()

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `Storage`."""
        folders = [(os.path.join(self.root, prefix), prefix)]  # noqa: PTH118
        while folders:  # no recursion, for who delivers can put a thousand into each other
            folder, key = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):  # removed since the folder was read
                            below = f"{key}/{entry.name}" if key else entry.name
                            if entry.is_symlink() and _DELIVERED.match(below):
                                found = entry.stat(follow_symlinks=False)
                                yield _stored(below, found, _leads_to(entry))
                            elif entry.is_dir():
                                folders.append((entry.path, below))
                            else:
                                yield _stored(below, entry.stat())
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG or not _DELIVERED.match(key):
                    raise
                yield StoredFile(key, 0, _moment(0), "", odd=TOO_DEEP)

    def find(self, key: str) -> StoredFile | None:
        """See `Storage`."""
        try:
            return _stored(key, self._path(key).stat())
        except FileNotFoundError:
            return None

    def fetch(self, file: StoredFile) -> Path:
        """See `Storage`: the file itself."""
        return self._path(file.key)

    def fetch_all(self, files: Collection[StoredFile]) -> Sequence[Path]:
        """See `Storage`."""
        return [self._path(file.key) for file in files]

    def notes(self, files: Collection[StoredFile]) -> Sequence[Mapping[str, str]]:
        """None: whoever wants to know looks into the file, which is here."""
        return [{} for _ in files]

    def publish(
        self,
        staged: Path,
        key: str,
        delivered: datetime | None = None,
        notes: Mapping[str, str] | None = None,
        *,
        only_new: bool = False,
    ) -> None:
        """See `Storage`."""
        target = self._path(key)
        make_folder(target.parent)
        staged.chmod(stat.S_IMODE(staged.stat().st_mode) & ~_OTHERS)
        if delivered:
            moment = delivered.timestamp()
            os.utime(staged, (moment, moment))
            with suppress(FileNotFoundError):
                shutil.copymode(target, staged)
        write_through(staged)
        try:
            _take_name(staged, target, only_new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with _beside(staged, target) as copy:
                _take_name(copy, target, only_new)
        write_through(target.parent)

    def delivered(self, file: StoredFile) -> datetime:
        """See `Storage`."""
        return file.modified

    def remove(self, key: str) -> None:
        """See `Storage`."""
        self._path(key).unlink(missing_ok=True)

    def old_versions(self, prefix: str = "") -> Iterator[StoredFile]:
        """None: a disk keeps no old versions."""
        return iter(())

    def remove_version(self, file: StoredFile) -> None:
        """Nothing: there are none."""

    def abort_uploads(self, is_left: Callable[[str], bool]) -> None:
        """Nothing: what is not published yet is in a staging folder."""

    def forget_cached(self) -> None:
        """Nothing: there are no copies."""

    def _path(self, key: str) -> Path:
        """Where the file of a key is; below the root, whatever the key is."""
        if key.startswith("/") or ".." in key.split("/"):
            raise StorageError(f"{key!r} is no key: it leads out of {self.uri()}.")
        return self.root / key


def _take_name(file: Path, name: Path, only_new: bool) -> None:
    if only_new:
        name.hardlink_to(file)
    else:
        file.replace(name)


@contextmanager
def _beside(file: Path, target: Path) -> Iterator[Path]:
    """A copy on the disk of `target`, where its folder is a link to, or the root of, another one.

    It always has the same name, so that whoever does again what was killed takes the copy's place.
    """
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    copy = target.with_name(f"{_UNFINISHED}{name}")
    copy.unlink(missing_ok=True)  # it may be anything, where others may write
    try:
        # Nobody else may read it before it has the rights of the file.
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with file.open("rb") as content, os.fdopen(descriptor, "wb") as out:
            shutil.copyfileobj(content, out)
        shutil.copystat(file, copy)
        write_through(copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _leads_to(link: os.DirEntry[str]) -> str:
    try:
        mode = link.stat().st_mode
    except OSError:  # also where links lead to each other
        return LINK_TO_NOTHING
    if stat.S_ISDIR(mode):
        return LINK_TO_FOLDER
    return LINK if stat.S_ISREG(mode) else LINK_TO_NOTHING


def _stored(key: str, of: os.stat_result, odd: str = "") -> StoredFile:
    return StoredFile(
        key,
        of.st_size,
        _moment(of.st_mtime),
        f"{of.st_mtime_ns}-{of.st_ino}",
        odd=odd or _KINDS.get(stat.S_IFMT(of.st_mode), ""),
    )


def _moment(seconds: float) -> datetime:
    """A file's time; who delivers it can give it one that is in no calendar, as in year 33658."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):
        return (datetime.max if seconds > 0 else datetime.min).replace(tzinfo=UTC)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, into which other users cannot look."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(0o777 & ~_OTHERS, exist_ok=True)


def write_through(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk, where a loss of power leaves it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process.

    Raises:
        BlockingIOError: another process holds it, and `wait` is off.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
