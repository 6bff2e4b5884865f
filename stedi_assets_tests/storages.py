"""Where tests have their lakes, on a disk or on S3, and the files there, by hand.

Tests put, read and damage files by these paths alike. They speak with the disk and with boto3, and
not through the code under test.
"""

import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from stedi_assets.lake import Lake, LocalStorage, open_lake
from stedi_assets.resources import cache_folder

_ENDPOINT = os.environ.get("STEDI_TEST_S3_ENDPOINT")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
)

SETTINGS = (
    {
        "AWS_DEFAULT_REGION": "us-east-1",
        **{name: os.environ[name] for name in _CREDENTIALS if name in os.environ},
        "AWS_ENDPOINT_URL": _ENDPOINT,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "STEDI_PSEUDONYM_KEY": "that of lakes on S3, which have none of their own",
    }
    if _ENDPOINT
    else {}
)
"""What leads to the server of `STEDI_TEST_S3_ENDPOINT`, with the caller's credentials; if it is
given, tests have their lakes there."""

ON_S3 = bool(SETTINGS)


def only_on_disk(why: str) -> pytest.MarkDecorator:
    """Leave a test out over S3, where it makes no sense."""
    return pytest.mark.skipif(ON_S3, reason=f"only on a disk: {why}")


class S3Path(PurePosixPath):
    """An object or a folder of objects in a bucket, with as much of `Path` as tests need.

    As text it is the address by which settings name it.
    """

    def __str__(self) -> str:
        return f"s3://{super().__str__()}"

    @property
    def _object(self) -> dict[str, str]:
        bucket, *key = self.parts
        return {"Bucket": bucket, "Key": "/".join(key)}

    def relative_to(self, *other: Any) -> PurePosixPath:  # type: ignore[override]
        return PurePosixPath(*super().relative_to(*other).parts)

    def listed(self) -> dict["S3Path", dict[str, Any]]:
        """All objects below, and what S3 says of each."""
        bucket, *key = self.parts
        pages = client().get_paginator("list_objects_v2")
        return {
            S3Path(bucket, found["Key"]): found
            for page in pages.paginate(Bucket=bucket, Prefix="".join(f"{name}/" for name in key))
            for found in page.get("Contents", [])
        }

    def glob(self, pattern: str) -> list["S3Path"]:
        """The objects below that match; no folders, for there are none."""
        regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        return [path for path in self.listed() if re.fullmatch(regex, str(path.relative_to(self)))]

    def rglob(self, pattern: str) -> list["S3Path"]:
        return self.glob(f"**/{pattern}")

    def exists(self) -> bool:
        return self.is_file() or bool(self.listed())

    def is_file(self) -> bool:
        try:
            client().head_object(**self._object)
        except ClientError:
            return False
        return True

    def mkdir(self, **_: bool) -> None:
        """Nothing: an object needs no folder."""

    def read_bytes(self) -> bytes:
        try:
            content: bytes = client().get_object(**self._object)["Body"].read()
        except client().exceptions.NoSuchKey:
            raise FileNotFoundError(str(self)) from None
        return content

    def write_bytes(self, content: bytes) -> None:
        client().put_object(**self._object, Body=content)

    def write_text(self, content: str) -> None:
        self.write_bytes(content.encode())

    def is_symlink(self) -> bool:
        return False

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the object; S3 does not say whether there was one."""
        client().delete_object(**self._object)

    def copy_to(self, target: "S3Path") -> None:
        client().copy_object(**target._object, CopySource=self._object)

    def replace(self, target: "S3Path") -> "S3Path":
        self.copy_to(target)
        self.unlink()
        return target

    rename = replace


AnyPath = Path | S3Path


@cache
def client() -> Any:
    """boto3's, of the server that the settings lead to."""
    return boto3.client("s3")


@cache
def _bucket() -> S3Path:
    """A bucket of this process; `remove_bucket` takes it away again."""
    made = S3Path(f"stedi-tests-{uuid.uuid4()}")
    client().create_bucket(Bucket=made.name)
    return made


def remove_bucket() -> None:
    """Take away the bucket in which lakes were, if there were any."""
    if _bucket.cache_info().currsize:
        client().delete_bucket(Bucket=_bucket().name)


@contextmanager
def room_for_lakes(folder: Path | None = None) -> Iterator[AnyPath]:
    """Where lakes can be: an empty folder, or an empty prefix of the bucket, gone at the end.

    Args:
        folder: of a disk, for lakes that are not on S3; by default where writing is quick.
    """
    if ON_S3:
        made = _bucket() / str(uuid.uuid4())
        yield made
        for path in made.listed():
            path.unlink()
    elif folder:
        yield folder
    else:
        shared = "/dev/shm"
        where = shared if os.access(shared, os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=where) as quick:
            yield Path(quick)


def opened(root: AnyPath) -> Lake:
    """The lake at a root."""
    return open_lake(str(root), cache_folder())


def root_of(lake: Lake) -> AnyPath:
    """The root of a lake."""
    if isinstance(lake.storage, LocalStorage):
        return lake.storage.root
    return S3Path(lake.storage.uri().removeprefix("s3://"))


def put(file: AnyPath, content: bytes) -> None:
    """Put another file in the place of one, in one step."""
    if isinstance(file, S3Path):
        file.write_bytes(content)
    else:
        draft = file.with_name(".draft")
        draft.write_bytes(content)
        draft.replace(file)


def files_in(root: AnyPath, pattern: str = "**/*.parquet") -> dict[AnyPath, tuple[object, object]]:
    """Which file each path is, and when it was written."""
    if isinstance(root, Path):
        return {
            path: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in sorted(root.glob(pattern))
        }
    wanted, listed = root.glob(pattern), root.listed()
    return {path: (listed[path]["ETag"], listed[path]["LastModified"]) for path in wanted}


@contextmanager
def on_disk(files: Iterable[AnyPath]) -> Iterator[list[Path]]:
    """The files themselves, or copies with the same names and folders."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as pool:

        def copied(file: AnyPath) -> Path:
            if isinstance(file, Path):
                return file
            copy = Path(folder, *file.parts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
            return copy

        yield list(pool.map(copied, files))


def same_files(root: AnyPath, pattern: str, target: AnyPath) -> None:
    """Give another lake files of one: by links, or on S3 copies, which have the same ETag."""
    for path in root.glob(pattern):
        to = target / path.relative_to(root)
        if isinstance(path, S3Path):
            path.copy_to(to)
        elif path.is_file():
            to.parent.mkdir(parents=True, exist_ok=True)
            to.hardlink_to(path)
