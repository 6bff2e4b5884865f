"""The lake's files as objects of an S3 bucket, with a local cache of those that were read.

The only module that speaks with S3, and that puts what S3 answers into words.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NotConnectedError
from dagster_aws.s3 import S3Resource

from stedi_assets.lake.storage import (
    BrokenOffError,
    GoneError,
    LocalFolder,
    StorageError,
    StoredFile,
)
from stedi_assets.tables import PARTITION

if TYPE_CHECKING:
    import pyarrow.fs

CACHE_LIMIT = 20_000_000_000
"""Bytes of the cache above which the files that were not used for longest are removed."""

_IN_USE = 24 * 3600
"""Seconds for which a process may still read a file that it fetched."""

_ATTEMPTS = 8
_AT_ONCE = 8
_LARGEST_PUT = 5 << 30
_DELIVERED = "stedi-delivered"
_NOTE = "stedi-note-"
_UPLOAD = "stedi-upload"
"""Of an object's metadata: by which its writer knows it from that of another one."""
_OBJECTS = "objects"
_PARTITION_FOLDER = re.compile(rf"(?:^|/)({PARTITION}=\d{{4}}-\d{{2}}-\d{{2}})/[^/]*$")
_EXTENSIONS = re.compile(r"(?:\.[A-Za-z0-9]{1,10})*$")

_moments: dict[tuple[Path, StoredFile], datetime] = {}
"""When files were delivered, by the storage's folder: a sensor opens the lake again and again."""


def open_s3(root: str, cache: Path) -> S3Storage:
    """The storage at `s3://bucket/prefix`.

    Endpoint, region and credentials are those that boto3 finds, in `AWS_...` or its files. With an
    endpoint it names the bucket in the path, as other servers than Amazon's want it.

    Args:
        root: bucket and prefix.
        cache: the folder in which each storage has one for its local files.

    Raises:
        ValueError: there is no bucket in `root`.
        StorageError: boto3 cannot be set up.
    """
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    if not bucket:
        raise ValueError(f"STEDI_LAKE is {root!r}: set it to s3://bucket or s3://bucket/prefix")
    with _told(root, "", bucket):
        client = S3Resource(max_attempts=_ATTEMPTS).get_client()
    return S3Storage(client, bucket, prefix.strip("/"), cache)


class S3Storage(LocalFolder):
    """The objects below a prefix of a bucket.

    `writing` holds among the processes of one machine only: whoever writes the same lake from two
    machines has to see to it that they take turns.

    Args:
        client: boto3's, of S3.
        bucket: has to exist.
        prefix: of all keys; empty for the whole bucket.
        cache: below it lie the local files of this storage, in a folder that is made private.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, cache: Path) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix and f"{prefix}/"
        self._fetched: dict[Path, str] = {}
        of_this = "\n".join([client.meta.endpoint_url, bucket, prefix])
        super().__init__(cache.expanduser() / hashlib.sha256(of_this.encode()).hexdigest()[:16])

    def uri(self, key: str = "") -> str:
        """See `Storage`."""
        return f"s3://{self._bucket}/{self._prefix}{key}".rstrip("/")

    def exists(self) -> bool:
        """Whether there is any object below the prefix."""
        with self._told(""):
            found = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1
            )
        return bool(found["KeyCount"])

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `Storage`. Markers of empty folders, whose keys end with a slash, are no files."""
        for page in self._pages("list_objects_v2", prefix):
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):
                    yield self._stored(found)

    def find(self, key: str) -> StoredFile | None:
        """See `Storage`."""
        try:
            with self._told(key):
                head = self._client.head_object(**self._at(key))
        except GoneError:
            return None
        return _described(key, head)

    def fetch(self, file: StoredFile) -> Path:
        """See `Storage`: a copy in the cache, where the file's own is not there yet."""
        path = self._cached(file)
        self._fetched[path] = file.key
        with suppress(FileNotFoundError):
            stat = path.stat()
            # The time of the last use. That of the last change stays: it is one file for readers.
            os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))
            if stat.st_size == file.size:  # else the machine stopped before all was on its disk
                return path
        self._download(file, path)
        return path

    def fetch_all(self, files: Collection[StoredFile]) -> Sequence[Path]:
        """See `Storage`."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.fetch, files))

    def _cached(self, file: StoredFile) -> Path:
        """Where the copy of a file is: by hash, for a key can be longer than a file's name."""
        name = hashlib.sha256(f"{file.key}\n{file.version}".encode()).hexdigest()
        extensions = _EXTENSIONS.search(file.key.rpartition("/")[2])
        of_partition = _PARTITION_FOLDER.search(file.key)
        folder = self.folder / _OBJECTS / (of_partition[1] if of_partition else "")
        return folder / f"{name}{extensions[0] if extensions else ''}"

    @contextmanager
    def _new_copy(self, path: Path) -> Iterator[Path]:
        """A draft of a file of the cache, which takes its place at the end.

        Of who is killed meanwhile it is left to the next one, as all that is staged.
        """
        self._make_folder()
        with super().staging() as folder:
            draft = folder / "draft"
            yield draft
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(path)

    def _download(self, file: StoredFile, path: Path) -> None:
        with self._new_copy(path) as draft:
            for attempt in count(1):
                try:
                    with self._told(file.key), draft.open("wb") as copy:
                        self._read(file, copy)
                    break
                except BrokenOffError:  # boto3 tries again only what has not begun to answer
                    if attempt == _ATTEMPTS:
                        raise
                    time.sleep(random.uniform(0, 0.05 * 2**attempt))

    def _read(self, file: StoredFile, copy: IO[bytes]) -> None:
        uri = self.uri(file.key)
        answer = self._as_listed(self._client.get_object, file)
        try:
            shutil.copyfileobj(answer["Body"], copy, 1 << 20)
        except (FlexibleChecksumError, HTTPClientError, IncompleteReadError) as error:
            raise BrokenOffError(f"{uri}: reading it broke off: {error}. Try again.") from None
        if (came := copy.tell()) != file.size:
            raise BrokenOffError(f"{uri}: of {file.size:,} bytes {came:,} came. Try again.")

    def key_of(self, copy: Path) -> str | None:
        """The key of the file that a local one is a copy of, if it is one that `fetch` gave."""
        return self._fetched.get(copy)

    def as_filesystem(self) -> pyarrow.fs.FileSystem:
        """The storage's objects by their keys, also for other machines, to which it can be sent.

        There it finds credentials of its own, as the tools of AWS do.
        """
        import pyarrow.fs

        client = self._client.meta
        objects = pyarrow.fs.S3FileSystem(
            region=client.region_name, endpoint_override=client.endpoint_url
        )
        return pyarrow.fs.SubTreeFileSystem(f"{self._bucket}/{self._prefix}", objects)

    def notes(self, files: Collection[StoredFile]) -> Sequence[Mapping[str, str]]:
        """See `Storage`: the object's metadata, of which a copy is in the cache, too."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._notes, files))

    def _notes(self, file: StoredFile) -> dict[str, str]:
        path = _notes_beside(self._cached(file))
        with suppress(FileNotFoundError, ValueError):
            notes: dict[str, str] = json.loads(path.read_text())
            return notes
        with self._told(file.key):
            head = self._as_listed(self._client.head_object, file)
        return self._keep_notes(path, head["Metadata"])

    def _keep_notes(self, path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
        notes = {
            name.removeprefix(_NOTE): note
            for name, note in metadata.items()
            if name.startswith(_NOTE)
        }
        with self._new_copy(path) as draft:
            draft.write_text(json.dumps(notes))
        return notes

    def publish(
        self,
        staged: Path,
        key: str,
        delivered: datetime | None = None,
        notes: Mapping[str, str] | None = None,
        *,
        only_new: bool = False,
    ) -> None:
        """See `Storage`. A large file goes up in parts, which are no object before the last.

        A landing file goes up as a whole if S3 takes it so: of parts that a killed process left
        nobody could tell whether a producer is still at them.
        """
        config = TransferConfig(multipart_threshold=_LARGEST_PUT) if delivered else TransferConfig()
        metadata = {_UPLOAD: uuid.uuid4().hex}
        metadata |= {f"{_NOTE}{name}": note for name, note in (notes or {}).items()}
        if delivered:
            metadata[_DELIVERED] = str(int(delivered.timestamp() * 1000))
        is_there = only_new and self._is_there_before(staged, key, metadata)
        if not only_new:
            with self._told(key), create_transfer_manager(self._client, config) as transfer:
                transfer.upload(
                    str(staged), self._bucket, self._prefix + key, {"Metadata": metadata}
                ).result()
        with suppress(StorageError), self._told(key):  # if in doubt, it is fetched when needed
            head = self._client.head_object(**self._at(key))
            if head["Metadata"] == metadata:  # else somebody else has replaced it already
                is_there = False  # but for this one, of which the first answer was lost
                path = self._cached(_described(key, head))
                self._keep_notes(_notes_beside(path), metadata)
                staged.replace(path)
        if is_there:
            raise FileExistsError(f"{self.uri(key)} is there already")

    def _is_there_before(self, staged: Path, key: str, metadata: Mapping[str, str]) -> bool:
        """Upload a file whose key has to be new; tell whether there was one, which stays."""
        try:
            with self._told(key), staged.open("rb") as body:
                self._client.put_object(
                    **self._at(key), Body=body, Metadata=metadata, IfNoneMatch="*"
                )
        except GoneError:  # so S3 answers whatever was asked to be otherwise
            return True
        return False

    def delivered(self, file: StoredFile) -> datetime:
        """See `Storage`; asks once for each version of a file."""
        if (known := _moments.get((self.folder, file))) is None:
            with self._told(file.key):
                head = self._client.head_object(**self._at(file.key, file))
            noted = head["Metadata"].get(_DELIVERED, "")
            known = _moments[self.folder, file] = (
                datetime.fromtimestamp(int(noted) / 1000, UTC)
                if noted.isdecimal()
                else head["LastModified"]
            )
        return known

    def remove(self, key: str) -> None:
        """See `Storage`."""
        with self._told(key):
            self._client.delete_object(**self._at(key))

    def old_versions(self, prefix: str = "") -> Iterator[StoredFile]:
        """See `Storage`: the noncurrent versions of a bucket that keeps them."""
        for page in self._pages("list_object_versions", prefix):
            for found in page.get("Versions", []):
                if not found["IsLatest"]:
                    yield self._stored(found)

    def remove_version(self, file: StoredFile) -> None:
        """See `Storage`. With the last version go the marks that say it was deleted."""
        key = self._prefix + file.key
        with self._told(file.key):
            self._client.delete_object(**self._at(file.key, file))
            marks = []
            for page in self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=key
            ):
                if any(found["Key"] == key for found in page.get("Versions", [])):
                    return
                marks += [mark for mark in page.get("DeleteMarkers", []) if mark["Key"] == key]
            for mark in marks:
                self._client.delete_object(**self._at(file.key), VersionId=mark["VersionId"])

    def abort_uploads(self, is_left: Callable[[str], bool]) -> None:
        """See `Storage`."""
        for page in self._pages("list_multipart_uploads", ""):
            for found in page.get("Uploads", []):
                key = found["Key"].removeprefix(self._prefix)
                if is_left(key):
                    with suppress(GoneError), self._told(key):
                        self._client.abort_multipart_upload(
                            **self._at(key), UploadId=found["UploadId"]
                        )

    def forget_cached(self) -> None:
        """See `Storage`."""
        with self.staging() as folder, suppress(FileNotFoundError):
            # What is there is removed with the folder, also if the process is killed before.
            (self.folder / _OBJECTS).rename(folder / _OBJECTS)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Storage`; among the processes of this machine only."""
        self._make_folder()
        with super().writing():
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """See `Storage`. Who begins to compute brings the cache below its limit."""
        self._make_folder()
        self._shrink_cache()
        with super().staging() as folder:
            yield folder

    def _make_folder(self) -> None:
        """Make the folder of local files, which only its owner can read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StorageError(
                f"{self.folder} is no folder of the user whom this runs as, so somebody else might "
                "read or change what is copied there. Remove it, or set STEDI_CACHE to a folder "
                "that is yours."
            )
        self.folder.chmod(0o700)

    def _shrink_cache(self) -> None:
        found = []
        for folder, _, names in os.walk(self.folder / _OBJECTS):
            for path in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):  # another process does the same
                    stat = path.stat()
                    found.append((stat.st_atime, stat.st_size, path))
        size = sum(of_file for _, of_file, _ in found)
        for used, of_file, path in sorted(found):
            if size <= CACHE_LIMIT or used > time.time() - _IN_USE:
                return
            path.unlink(missing_ok=True)
            size -= of_file

    def _pages(self, operation: str, prefix: str) -> Iterator[Any]:
        below = self._prefix + (prefix and f"{prefix}/")
        with self._told(prefix):
            pages = self._client.get_paginator(operation)
            yield from pages.paginate(Bucket=self._bucket, Prefix=below)

    def _at(self, key: str, version: StoredFile | None = None) -> dict[str, str]:
        at = {"Bucket": self._bucket, "Key": self._prefix + key}
        if version and version.version_id:
            at["VersionId"] = version.version_id
        return at

    def _as_listed(self, ask: Callable[..., Any], file: StoredFile) -> Any:
        answer = ask(**self._at(file.key, file), IfMatch=f'"{file.version}"')
        if _version(answer) != file.version:  # not every server looks at what has to match
            raise GoneError(_REPLACED.format(self.uri(file.key)))
        return answer

    def _stored(self, found: Any) -> StoredFile:
        return StoredFile(
            found["Key"].removeprefix(self._prefix),
            found["Size"],
            found["LastModified"],
            _version(found),
            found.get("VersionId"),
        )

    def _told(self, key: str) -> AbstractContextManager[None]:
        return _told(self.uri(key), self._client.meta.endpoint_url, self._bucket)


def _described(key: str, head: Any) -> StoredFile:
    return StoredFile(key, head["ContentLength"], head["LastModified"], _version(head))


def _notes_beside(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.notes")


def _version(answer: Any) -> str:
    return str(answer["ETag"]).strip('"')


_REPLACED = "{} was replaced or removed after it was listed: try again"
_GONE = {"404", "NoSuchKey", "NoSuchVersion", "412", "PreconditionFailed"}
_DENIED = {"403", "AccessDenied", "AllAccessDisabled"}
_NOT_KNOWN = {
    "400",  # to HEAD, to which S3 answers without a word
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_OF_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)


@contextmanager
def _told(uri: str, endpoint: str, bucket: str) -> Iterator[None]:
    """Turn boto3's errors into one that says what is wrong with what, and what to do.

    It has no cause, for of a run's error the last cause is what the command line tells.

    Raises:
        GoneError: there is no such object, or not in the version that was asked for.
        StorageError: anything else is wrong.
    """
    log_in = (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they are "
        "temporary), or AWS_PROFILE, to credentials that are valid now."
    )
    try:
        yield
    except _OF_CREDENTIALS as error:
        raise StorageError(f"{uri}: there are no credentials for S3: {error}. {log_in}") from None
    except (NotConnectedError, HTTPClientError) as error:
        raise StorageError(
            f"{uri}: {endpoint} does not answer: {error}. Look whether the network lets you reach "
            "it, and whether AWS_ENDPOINT_URL and AWS_DEFAULT_REGION are right."
        ) from None
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        said = str(error).rstrip(".")
        if code in _GONE:
            raise GoneError(_REPLACED.format(uri)) from None
        if code == "NoSuchUpload":
            raise GoneError(
                f"{uri}: its upload was ended by somebody else, as a run on another machine does "
                "when it begins. See to it that only one machine writes the lake, then run again."
            ) from None
        if code == "NoSuchBucket":
            problem = (
                f"there is no bucket {bucket!r} at {endpoint}. Make it, or set STEDI_LAKE to "
                "s3://bucket/prefix of one that is there."
            )
        elif code in _DENIED:
            problem = (
                f"access denied: {said}. Give whoever the credentials are for the right to list, "
                f"read, write and delete objects of the bucket {bucket!r}, or set AWS_PROFILE or "
                "AWS_ACCESS_KEY_ID to somebody who has it."
            )
        elif code in _NOT_KNOWN:
            problem = f"the credentials are not valid (any more): {said}. {log_in}"
        elif error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            problem = (
                f"{endpoint} is overloaded or out of order: {said}. Nothing is lost: wait some "
                "minutes, then do it again."
            )
        else:
            problem = str(error)
        raise StorageError(f"{uri}: {problem}") from None
    except BotoCoreError as error:
        raise StorageError(f"{uri}: {error}") from None
