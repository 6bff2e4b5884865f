"""Lakes in which jobs are killed, on a disk and in a bucket, and what has to hold afterwards.

Looks at files by their bytes and reads them with a DuckDB of its own: nothing here asks the package
what is in a lake.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

import duckdb
import pyarrow.parquet as pq
from backports import zstd
from moto.backends import get_backend

from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.erasing import ANN, BOBS, KEY, SHARED, TOWN, build, traces
from stedi_assets_tests.end_to_end.forked import Both, Job, Telling, begin
from stedi_assets_tests.end_to_end.landing_files import Record, customer, device, phone
from stedi_assets_tests.storages import opened

Files = dict[str, bytes]
"""What lies below the root of a lake, by key."""

Rows = Counter[tuple[Any, ...]]

_P = TypeVar("_P", bound="Place")

_PARTITION = re.compile(
    r"(?:customer|accelerometer|step_trainer)/(?:landing_parquet|trusted|curated|rejected)/.*"
)
_CACHED = re.compile(r"objects/(?:ingestion_date=[\d-]+/)?[0-9a-f]{64}(?:\.\w+)*")


class Place(Protocol):
    """Where a lake is, and everything that jobs over it have to themselves."""

    folder: Path
    settings: Mapping[str, str]

    def files(self) -> Files:
        """What lies in the lake now."""

    def put(self, key: str, content: bytes | None) -> None:
        """Put a file there, or remove it."""

    def keep(self) -> Callable[[], None]:
        """Remember how everything is now; gives what puts it back."""

    def settle(self) -> None:
        """Let files be of an hour ago, so that nobody waits until they are left alone."""

    def unfinished(self) -> list[str]:
        """What is left of work that was begun, and should not be there for good."""


def _begin_anew(folder: Path, settings: dict[str, str]) -> dict[str, str]:
    """Private folders of a place, and the settings that lead to them."""
    for name in ("tmp", "home", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(folder / "home"),
        "STEDI_CACHE": str(folder / "cache"),
        "STEDI_PSEUDONYM_KEY": KEY,
        "TMPDIR": str(folder / "tmp"),
        **settings,
    }


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _left_in(folder: Path) -> list[str]:
    """Files that jobs left in the private folders of a place."""
    left = [f"{name}/{path}" for name in ("tmp", "home") for path in _names(folder / name)]
    for cache in (folder / "cache").iterdir():
        left += [
            f"cache/{path.relative_to(cache)}"
            for path in cache.rglob("*")
            if path.is_file() and not _CACHED.fullmatch(str(path.relative_to(cache)))
        ]
        left += [f"cache/{path}" for path in _names(cache) if path.startswith("_staging/")]
    return left


class OnDisk:
    """A lake in a folder, with a Dagster home."""

    def __init__(self, folder: Path, dagster_yaml: Path) -> None:
        self.folder = folder
        self.root = folder / "lake"
        self.root.mkdir(parents=True)
        dagster_home = folder / "dagster_home"
        dagster_home.mkdir()
        shutil.copy(dagster_yaml, dagster_home / "dagster.yaml")
        self.settings = _begin_anew(
            folder, {"STEDI_LAKE": str(self.root), "DAGSTER_HOME": str(dagster_home)}
        )

    def files(self) -> Files:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }

    def put(self, key: str, content: bytes | None) -> None:
        path = self.root / key
        path.unlink(missing_ok=True)  # another lake may have it by a link
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def keep(self) -> Callable[[], None]:
        kept = self.folder.with_name(f"{self.folder.name} as it was")
        # Links, for a file is never written to: its inode and its times are what tells versions.
        shutil.copytree(self.folder, kept, copy_function=os.link)
        home = Path("dagster_home")
        shutil.rmtree(kept / home)
        shutil.copytree(self.folder / home, kept / home)  # SQLite does write to its files

        def put_back() -> None:
            shutil.rmtree(self.folder)
            shutil.copytree(kept, self.folder, copy_function=os.link)
            shutil.rmtree(self.folder / home)
            shutil.copytree(kept / home, self.folder / home)

        return put_back

    def settle(self) -> None:
        an_hour_ago = time.time() - 3600
        for path in self.root.glob("*/landing/**/*"):
            os.utime(path, (an_hour_ago, an_hour_ago))

    def unfinished(self) -> list[str]:
        left = [name for name in _names(self.root) if name.startswith(("_staging/", "_exchange/"))]
        return left + _left_in(self.folder)


class InABucket:
    """A lake in a bucket, with a cache; and no Dagster home, as nobody needs one."""

    def __init__(self, folder: Path, bucket: Bucket, settings: dict[str, str]) -> None:
        self.folder = folder
        self.bucket = bucket
        self.settings = _begin_anew(folder, {"STEDI_LAKE": f"s3://{bucket.name}/lake", **settings})
        self._known: dict[tuple[str, str], bytes] = {}

    def _listed(self, prefix: str) -> dict[str, str]:
        """The version of each object below a prefix."""
        return {
            found["Key"].removeprefix(prefix): found["ETag"]
            for found in self.bucket.objects
            if found["Key"].startswith(prefix)
        }

    def files(self) -> Files:
        for key, version in (listed := self._listed("lake/")).items():
            if (key, version) not in self._known:
                answer = self.bucket.client.get_object(Bucket=self.bucket.name, Key=f"lake/{key}")
                self._known[key, version] = answer["Body"].read()
        return {key: self._known[key, version] for key, version in listed.items()}

    def put(self, key: str, content: bytes | None) -> None:
        if content is None:
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=f"lake/{key}")
        else:
            self.bucket.put(f"lake/{key}", content)

    def _copy(self, source: str, target: str) -> None:
        self.bucket.client.copy_object(
            Bucket=self.bucket.name,
            Key=target,
            CopySource={"Bucket": self.bucket.name, "Key": source},
        )

    def keep(self) -> Callable[[], None]:
        kept = self.folder.with_name(f"{self.folder.name} as it was")
        shutil.copytree(self.folder, kept, copy_function=os.link)
        for key in self._listed("lake/"):
            self._copy(f"lake/{key}", f"as it was/{key}")

        def put_back() -> None:
            shutil.rmtree(self.folder)
            shutil.copytree(kept, self.folder, copy_function=os.link)
            was, now = self._listed("as it was/"), self._listed("lake/")
            for key in now.keys() - was.keys():
                self.put(key, None)
            for key, version in was.items():
                if now.get(key) != version:
                    self._copy(f"as it was/{key}", f"lake/{key}")
            self.settle()
            for upload in self._uploads():
                self.bucket.client.abort_multipart_upload(
                    Bucket=self.bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )

        return put_back

    def settle(self) -> None:
        """By the means of moto, for S3 has none."""
        an_hour_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
        for account in get_backend("s3").values():
            if found := account["aws"].buckets.get(self.bucket.name):
                for key in found.keys.values():
                    key.last_modified = an_hour_ago

    def _uploads(self) -> list[dict[str, Any]]:
        found = self.bucket.client.list_multipart_uploads(Bucket=self.bucket.name)
        return list(found.get("Uploads", []))

    def unfinished(self) -> list[str]:
        left = [f"unfinished: {upload['Key']}" for upload in self._uploads()]
        left += [key for key in self._listed("lake/") if key.startswith("_exchange/")]
        return left + _left_in(self.folder)


# --- Lakes, and what is to be done to them --------------------------------------------------------


def town_in(place: _P) -> _P:
    """Put the town's landing files there, and bring the lake up to date."""
    with TemporaryDirectory() as folder:
        landed = Path(folder, "lake")
        build(opened(landed), {key: TOWN[key] for key in TOWN if "undated" not in key})
        for path in landed.rglob("*"):
            if path.is_file():
                place.put(str(path.relative_to(landed)), path.read_bytes())
    output = place.folder.with_name(f"{place.folder.name} told")
    begin("run", output=output, settings=place.settings).succeeded()
    return place


def as_lines(*records: Record) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def before_run(place: Place) -> None:
    """Readings of a new date, a file in another one's place; and Carl, who had consented, does not
    any more: readings of earlier dates go."""
    withdrawn = customer("carl@x.com", SHARED, updated=50, consent=None)
    place.put("customer/landing/ingestion_date=2023-08-08/a.json", as_lines(withdrawn))
    walked = [phone("bob@x.com", time) for time in range(500, 540)]
    place.put("accelerometer/landing/ingestion_date=2023-08-08/a.json", as_lines(*walked))
    stepped = [device(time, BOBS) for time in range(500, 540)]
    place.put("step_trainer/landing/ingestion_date=2023-08-08/a.json", as_lines(*stepped))
    key = "accelerometer/landing/accelerometer-1691366400000.json"
    place.put(key, as_lines(phone("carl@x.com", 300), phone("bob@x.com", 301)))


def before_reconcile(place: Place) -> None:
    """Partitions that were deleted, torn, or put in another one's place, and a landing file that
    is gone."""
    files = place.files()

    def partition(table: str, day: str = "06") -> str:
        return f"{table}/ingestion_date=2023-08-{day}/part-0.parquet"

    place.put(partition("customer/trusted"), None)
    torn = partition("accelerometer/landing_parquet", "07")
    place.put(torn, files[torn][: len(files[torn]) // 2])
    place.put(partition("step_trainer/curated"), files[partition("step_trainer/curated", "07")])
    place.put(partition("customer/rejected", "07"), None)
    place.put("step_trainer/landing/step_trainer-1691366400000.json.gz", None)


JOBS: dict[str, tuple[tuple[str, ...], Callable[[Place], None]]] = {
    "run": (("run",), before_run),
    "reconcile": (("reconcile",), before_reconcile),
    "forget": (("forget", ANN, "--asked-by", "ticket 4711"), lambda place: None),
}


# --- What is in a lake ---------------------------------------------------------------------------


@dataclass
class Reader:
    """Reads files by SQL, each content once."""

    _read: dict[str, Rows | None] = field(default_factory=dict)

    def rows(self, content: bytes) -> Rows | None:
        """The rows of a Parquet file; nothing if it cannot be read."""
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._read:
            self._read[digest] = _parquet(content)
        return self._read[digest]

    def state(self, key: str, content: bytes) -> Any:
        """What a file says, whatever else is in it, such as when it was written."""
        if key.endswith(".parquet"):
            rows = self.rows(content)
            return content if rows is None else rows
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        return zstd.decompress(content) if content.startswith(b"\x28\xb5\x2f\xfd") else content

    def tables(self, files: Files) -> dict[str, Any]:
        """What each landing file and each partition says, by key."""
        return {
            key: self.state(key, content)
            for key, content in files.items()
            if _PARTITION.fullmatch(key) or "/landing/" in key
        }


def _parquet(content: bytes) -> Rows | None:
    with TemporaryDirectory() as folder, duckdb.connect(config={"threads": 1}) as connection:
        path = Path(folder, "file.parquet")
        path.write_bytes(content)
        try:
            return Counter(connection.read_parquet(str(path)).fetchall())
        except duckdb.Error:
            return None


def receipts(files: Files) -> list[dict[str, Any]]:
    """The receipts of erasures, without when they were."""
    found = [json.loads(files[key]) for key in sorted(files) if re.match(r"erasures/.*json", key)]
    for receipt in found:
        assert receipt.pop("asked_at")
        assert receipt.pop("finished_at"), "it did not come to its end"
    return found


def kept_out(files: Files) -> set[bytes]:
    """Of whom and what the lists say that they are to be kept out, by its hash."""
    found: set[Any] = set()
    for key in files:
        if re.match(r"erasures/.*parquet", key):
            with pq.ParquetFile(BytesIO(files[key])) as file:
                found.update(file.read()["hash"].to_pylist())
    return found


def traces_of_ann(files: Files) -> dict[str, set[str]]:
    """Where something of a person who was erased is left."""
    with TemporaryDirectory() as folder:
        for key, content in files.items():
            path = Path(folder, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return traces(Path(folder))


def names(files: Files) -> Counter[str]:
    """Which files there are, whenever they were made."""
    return Counter(re.sub(r"erasures/\d{8}T\d{6}Z", "erasures/", key) for key in files)


# --- A job that is disturbed ---------------------------------------------------------------------


class Scene:
    """A lake as it is before a job, that job undisturbed, and the same with something in its way.

    Args:
        place: with the lake as it is before.
        arguments: of the job.
        prepare: for every job of the scene, the undisturbed one too.
    """

    def __init__(
        self, place: Place, *arguments: str, prepare: Callable[[], object] | None = None
    ) -> None:
        self.place = place
        self.arguments = arguments
        self._prepare = prepare
        self._told = 0
        self.reader = Reader()
        place.settle()
        self.put_back = place.keep()
        self.before = self.reader.tables(place.files())
        points = place.folder / "points"
        self.begin(Telling(points)).succeeded()
        self.points = points.read_text().splitlines()
        self.after = self.reader.tables(place.files())
        assert self.after != self.before
        self.put_back()
        undisturbed = self.begin()
        self.seconds = undisturbed.kill_at(math.inf)
        undisturbed.succeeded()
        self.look_for_leftovers()
        self.begin().succeeded()
        self.files = place.files()
        assert self.reader.tables(self.files) == self.after, "doing it again changed something"

    def begin(
        self,
        prepare: Callable[[], object] | None = None,
        output: Path | None = None,
        **more: str,
    ) -> Job:
        """Start the job, with more settings than the place's."""
        self._told += 1
        return begin(
            *self.arguments,
            output=output
            or self.place.folder.with_name(f"{self.place.folder.name} told {self._told}"),
            settings={**self.place.settings, **more},
            folder=self.place.folder,
            prepare=Both(self._prepare, prepare)
            if self._prepare and prepare
            else prepare or self._prepare,
        )

    def look_at_what_a_reader_sees(self, after_others: bool = False) -> None:
        """Every file is whole, and the old one or the new one.

        Args:
            after_others: jobs were killed before this one. What they had done it does not do
                again, so it can make a table of rows old and new, until the rest is mended.
        """
        seen = self.reader.tables(self.place.files())
        for key, state in seen.items():
            assert "/landing/" in key or key.endswith("/part-0.parquet"), f"{key} is no partition"
            is_one = state in (self.before.get(key), self.after.get(key))
            assert is_one or (after_others and isinstance(state, Counter)), f"{key} is neither"
        assert self.before.keys() & self.after.keys() <= seen.keys(), "something is gone"

    def do_again(self) -> None:
        """Doing it again ends as if nothing had been in its way, and leaves nothing behind."""
        self.begin().succeeded()
        files = self.place.files()
        assert self.reader.tables(files) == self.after
        assert names(files) == names(self.files)
        assert receipts(files) == receipts(self.files)
        assert kept_out(files) == kept_out(self.files)
        if self.arguments[0] == "forget":
            assert traces_of_ann(files) == {}
        self.look_for_leftovers()

    def look_for_leftovers(self) -> None:
        """Nothing of unfinished work is left."""
        assert self.place.unfinished() == []


@contextmanager
def told_with(what: str, job: Job) -> Iterator[None]:
    """Say of a failure what had happened before."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{what}; it had printed:\n{job.told()}")
        raise
