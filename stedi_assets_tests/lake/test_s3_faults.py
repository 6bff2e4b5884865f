"""S3 that does not answer as it should, and what a killed or a second process leaves behind."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from stedi_assets.lake import ERASURES, Lake, Storage, StorageError, StoredFile, open_lake, s3
from stedi_assets.lake.s3 import S3Storage
from stedi_assets.lake.storage import BrokenOffError, GoneError
from stedi_assets.tables import TABLES, Source
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.faulty import (
    Exchange,
    Fault,
    FaultyServer,
    after,
    answered_by,
    cut_before_the_answer,
    cut_in_the_answer,
    cut_in_the_request,
    faulty_server,
    with_body,
)

pytestmark = pytest.mark.long

KEY = "customer/trusted/ingestion_date=2023-08-06/part-0.parquet"
LANDING = "customer/landing/ingestion_date=2023-08-06/a.json"
LARGE = 9 << 20
"""Goes up in two parts."""

PART = "^PUT .*partNumber="
LISTING = "^GET .*list-type="


@pytest.fixture
def server(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Stands before the server of S3, for all but the bucket's own client."""
    with faulty_server(os.environ["AWS_ENDPOINT_URL"]) as before:
        monkeypatch.setenv("AWS_ENDPOINT_URL", before.address)
        yield before


@pytest.fixture
def storage(bucket: Bucket, server: FaultyServer, tmp_path: Path) -> S3Storage:
    return opened(bucket, tmp_path)


@pytest.fixture
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_ATTEMPTS", 2)


def opened(bucket: Bucket, tmp_path: Path) -> S3Storage:
    storage = open_lake(f"s3://{bucket.name}/lake", tmp_path / "cache").storage
    assert isinstance(storage, S3Storage)
    return storage


def find(storage: Storage, key: str = KEY) -> StoredFile:
    found = storage.find(key)
    assert found
    return found


def put(bucket: Bucket, content: bytes, key: str = KEY) -> None:
    bucket.put(f"lake/{key}", content)


def stored(bucket: Bucket, key: str = KEY) -> bytes:
    """What S3 holds under a key of the lake."""
    answer = bucket.client.get_object(Bucket=bucket.name, Key=f"lake/{key}")
    content: bytes = answer["Body"].read()
    return content


def unfinished(bucket: Bucket) -> list[str]:
    """The keys of uploads that were begun and neither completed nor aborted."""
    found = bucket.client.list_multipart_uploads(Bucket=bucket.name)
    return sorted(upload["Key"] for upload in found.get("Uploads", []))


def staged(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "staged"
    path.write_bytes(content)
    return path


def copies(storage: S3Storage) -> list[Path]:
    """The files of the cache."""
    return sorted(path for path in storage.folder.rglob("*") if path.is_file())


# What S3 does not do at once, or refuses.


@dataclass(frozen=True)
class Operation:
    """Something that a storage does with `KEY`, which holds `old`.

    Attributes:
        request: a regular expression of the request that it makes.
        do: does it.
        of: the key or folder that an error is to name.
        done: what `do` then gives.
    """

    request: str
    do: Callable[[S3Storage, Path], object]
    of: str
    done: object


def keys_found(storage: S3Storage, _: Path) -> object:
    return [file.key for file in storage.list("customer")]


def size_found(storage: S3Storage, _: Path) -> object:
    return find(storage).size


def fetched(storage: S3Storage, _: Path) -> object:
    (file,) = storage.list("customer")
    return storage.fetch(file).read_bytes()


def published(size: int) -> Callable[[S3Storage, Path], object]:
    def do(storage: S3Storage, folder: Path) -> object:
        storage.publish(staged(folder, b"n" * size), KEY)
        return find(storage).size

    return do


def removed(storage: S3Storage, _: Path) -> object:
    storage.remove(KEY)
    return list(storage.list("customer"))


OPERATIONS = {
    "list": Operation(LISTING, keys_found, "customer", [KEY]),
    "find": Operation("^HEAD .*parquet", size_found, KEY, 3),
    "fetch": Operation("^GET .*parquet", fetched, KEY, b"old"),
    "publish": Operation("^PUT", published(100), KEY, 100),
    "publish in parts: begin": Operation("^POST .*uploads", published(LARGE), KEY, LARGE),
    "publish in parts: a part": Operation(PART, published(LARGE), KEY, LARGE),
    "publish in parts: end": Operation("^POST .*uploadId=", published(LARGE), KEY, LARGE),
    "remove": Operation("^DELETE", removed, KEY, []),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)

OUT_OF_ORDER = r"http://127\.0\.0\.1:\d+ is overloaded or out of order: .*\({}\).* wait some"
NO_ANSWER = r"http://127\.0\.0\.1:\d+ does not answer: .* whether the network lets you reach it"
PASSING: dict[str, tuple[Fault, str]] = {
    "500": (answered_by(500, "InternalError"), OUT_OF_ORDER.format("InternalError|500")),
    "503": (answered_by(503, "SlowDown"), OUT_OF_ORDER.format("SlowDown|503")),
    "cut": (cut_in_the_request, NO_ANSWER),
}


@each_operation
@pytest.mark.s3
@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(
    bucket: Bucket,
    server: FaultyServer,
    storage: S3Storage,
    tmp_path: Path,
    name: str,
    fault: str,
) -> None:
    operation = OPERATIONS[name]
    put(bucket, b"old")
    server.make(PASSING[fault][0], operation.request, times=2)
    assert operation.do(storage, tmp_path) == operation.done
    asked = [request for request in server.requests if re.search(operation.request, request)]
    assert len(asked) >= 3, "twice in vain"
    assert unfinished(bucket) == []


@each_operation
@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_is_told_with_what_it_was_of_and_leaves_what_was_there(
    bucket: Bucket,
    server: FaultyServer,
    few_attempts: None,
    storage: S3Storage,
    tmp_path: Path,
    name: str,
    fault: str,
) -> None:
    operation, (what, says) = OPERATIONS[name], PASSING[fault]
    put(bucket, b"old")
    server.make(what, operation.request)
    with pytest.raises(StorageError, match=says) as error:
        operation.do(storage, tmp_path)
    assert str(error.value).startswith(f"s3://{bucket.name}/lake/{operation.of}: ")
    assert error.value.__cause__ is None, "it would be told instead"
    assert stored(bucket) == b"old"
    assert unfinished(bucket) == []
    assert copies(storage) == []


REFUSED = {
    "no bucket": (404, "NoSuchBucket", "there is no bucket 'BUCKET' at http://127.0.0.1:"),
    "denied": (403, "AccessDenied", "Give whoever the credentials are for the right to list, read"),
    "expired": (400, "ExpiredToken", "the credentials are not valid (any more)"),
    "unknown": (403, "InvalidAccessKeyId", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and"),
}
OF_HEAD = REFUSED | {"unknown": (403, "", REFUSED["denied"][2])}  # it says no more than the number


@each_operation
@pytest.mark.parametrize("refusal", REFUSED)
def test_what_is_refused_is_told_at_once_with_where_it_was_and_what_to_do(
    bucket: Bucket,
    server: FaultyServer,
    storage: S3Storage,
    tmp_path: Path,
    name: str,
    refusal: str,
) -> None:
    operation = OPERATIONS[name]
    status, code, says = (OF_HEAD if name == "find" else REFUSED)[refusal]
    put(bucket, b"old")
    server.make(answered_by(status, code), operation.request)
    if (name, refusal) == ("find", "no bucket"):
        assert storage.find(KEY) is None, "to HEAD a bucket that is not there is none with the key"
        return
    with pytest.raises(StorageError, match=re.escape(says.replace("BUCKET", bucket.name))) as error:
        operation.do(storage, tmp_path)
    assert str(error.value).startswith(f"s3://{bucket.name}/lake/{operation.of}: ")
    assert error.value.__cause__ is None, "it would be told instead"
    asked = [request for request in server.requests if re.search(operation.request, request)]
    assert len(asked) <= 2, "each of two parts once, or after a look for another region"
    assert stored(bucket) == b"old"


# Downloads.


def test_a_download_that_breaks_off_is_tried_again(
    bucket: Bucket, server: FaultyServer, storage: S3Storage
) -> None:
    content = os.urandom(300_000)
    put(bucket, content)
    server.make(cut_in_the_answer, "^GET .*parquet", times=2)
    assert storage.fetch(find(storage)).read_bytes() == content
    assert sum(request.startswith("GET") for request in server.requests) == 3


def test_a_download_that_always_breaks_off_leaves_no_copy_and_says_what_it_was(
    bucket: Bucket, server: FaultyServer, few_attempts: None, storage: S3Storage
) -> None:
    put(bucket, os.urandom(300_000))
    server.make(cut_in_the_answer, "^GET .*parquet")
    with pytest.raises(BrokenOffError, match=rf"lake/{KEY}: reading it broke off: .* Try again"):
        storage.fetch(find(storage))
    assert copies(storage) == []


def of_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def of_twice(content: bytes) -> bytes:
    return content * 2


def of_another_letter(content: bytes) -> bytes:
    return b"?" + content[1:]


def checksum(content: bytes) -> str:
    """As S3 says it beside an object."""
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


CONTENT = b"what was listed"
WRONG_BODIES = {
    "shorter": (with_body(of_half), "of 15 bytes 7 came"),
    "longer": (with_body(of_twice), "of 15 bytes 30 came"),
    "changed": (
        with_body(of_another_letter, x_amz_checksum_crc32=checksum(CONTENT)),
        "reading it broke off: .*checksum",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_BODIES)
def test_a_body_that_is_not_that_of_the_object_is_not_taken_for_it_and_fetched_again(
    bucket: Bucket, server: FaultyServer, storage: S3Storage, wrong: str
) -> None:
    put(bucket, CONTENT)
    server.make(WRONG_BODIES[wrong][0], "^GET .*parquet", times=1)
    assert storage.fetch(find(storage)).read_bytes() == CONTENT
    assert sum(request.startswith("GET") for request in server.requests) == 2


@pytest.mark.parametrize("wrong", WRONG_BODIES)
def test_a_body_that_never_is_that_of_the_object_leaves_no_copy_and_says_what_it_was(
    bucket: Bucket, server: FaultyServer, few_attempts: None, storage: S3Storage, wrong: str
) -> None:
    fault, says = WRONG_BODIES[wrong]
    put(bucket, CONTENT)
    server.make(fault, "^GET .*parquet")
    with pytest.raises(BrokenOffError, match=f"lake/{KEY}: {says}"):
        storage.fetch(find(storage))
    assert copies(storage) == []


def test_another_version_than_was_asked_for_is_not_taken_for_it(
    bucket: Bucket, server: FaultyServer, storage: S3Storage
) -> None:
    """Of the same size, and from a server that does not look at what has to match."""
    put(bucket, b"old")
    listed = find(storage)
    server.make(with_body(lambda _: b"new", ETag='"of the new one"'), "^GET .*parquet")
    with pytest.raises(GoneError, match=f"lake/{KEY} was replaced or removed after it was listed"):
        storage.fetch(listed)
    assert copies(storage) == []


def test_notes_of_another_version_than_was_asked_for_are_not_taken_for_its(
    bucket: Bucket, server: FaultyServer, storage: S3Storage
) -> None:
    put(bucket, b"old")
    listed = find(storage)
    server.make(with_body(lambda _: b"", ETag='"of the new one"'), "^HEAD .*parquet")
    with pytest.raises(GoneError, match=f"lake/{KEY} was replaced or removed after it was listed"):
        storage.notes([listed])
    server.mend()
    assert storage.notes([listed]) == [{}]


# Uploads.


def test_an_upload_whose_end_nobody_heard_of_is_whole(
    bucket: Bucket, server: FaultyServer, storage: S3Storage, tmp_path: Path
) -> None:
    put(bucket, b"old")
    server.make(cut_before_the_answer, "^PUT|^POST .*uploads", times=3)
    content = os.urandom(LARGE)
    storage.publish(staged(tmp_path, content), KEY)
    assert stored(bucket) == content
    storage.publish(staged(tmp_path, b"small"), KEY)
    assert stored(bucket) == b"small"


def test_a_new_file_whose_end_nobody_heard_of_is_not_taken_for_somebody_elses(
    bucket: Bucket, server: FaultyServer, storage: S3Storage, tmp_path: Path
) -> None:
    server.make(cut_before_the_answer, "^PUT", times=1)
    storage.publish(staged(tmp_path, b"new"), KEY, only_new=True)
    assert stored(bucket) == b"new"
    with pytest.raises(FileExistsError):
        storage.publish(staged(tmp_path, b"another"), KEY, only_new=True)
    assert stored(bucket) == b"new"


def test_an_error_that_comes_after_all_was_well_ends_an_upload_as_well(
    bucket: Bucket, server: FaultyServer, few_attempts: None, storage: S3Storage, tmp_path: Path
) -> None:
    """S3 says 200 before it puts the parts together, and then perhaps that it could not."""
    put(bucket, b"old")
    server.make(answered_by(200, "InternalError"), "^POST .*uploadId=")
    with pytest.raises(StorageError, match=OUT_OF_ORDER.format("InternalError")):
        storage.publish(staged(tmp_path, b"n" * LARGE), KEY)
    assert stored(bucket) == b"old"
    assert unfinished(bucket) == []
    server.mend()
    server.make(answered_by(200, "InternalError"), "^POST .*uploadId=", times=1)
    storage.publish(staged(tmp_path, b"n" * LARGE), KEY)
    assert stored(bucket) == b"n" * LARGE


def test_a_large_landing_file_goes_up_as_a_whole_and_cut_off_leaves_nothing(
    bucket: Bucket, server: FaultyServer, few_attempts: None, storage: S3Storage, tmp_path: Path
) -> None:
    put(bucket, b"old", LANDING)
    delivered = storage.delivered(find(storage, LANDING))
    server.make(cut_in_the_request, "^PUT")
    with pytest.raises(StorageError, match=NO_ANSWER):
        storage.publish(staged(tmp_path, b"n" * LARGE), LANDING, delivered)
    assert stored(bucket, LANDING) == b"old"
    server.mend()
    storage.publish(staged(tmp_path, b"n" * LARGE), LANDING, delivered)
    assert stored(bucket, LANDING) == b"n" * LARGE
    assert not [request for request in server.requests if "upload" in request]


# Listings that change under way.


@pytest.mark.s3
def test_a_listing_that_changes_between_its_pages_has_all_that_was_there_all_the_time_once(
    bucket: Bucket, server: FaultyServer, storage: S3Storage
) -> None:
    def key(number: int) -> str:
        return f"customer/landing/{number}.json"

    def change() -> None:
        for number in (0, 7):
            put(bucket, b"added", key(number))
        for number in (1, 6):
            put(bucket, b"replaced", key(number))
        for number in (2, 5):
            bucket.client.delete_object(Bucket=bucket.name, Key=f"lake/{key(number)}")

    for number in range(1, 7):
        put(bucket, b"was there", key(number))
    storage._client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 3}
    )
    server.make(after(change), f"{LISTING}.*continuation", times=1)
    listed = list(storage.list("customer/landing"))
    assert [file.key for file in listed] == [key(number) for number in (1, 2, 3, 4, 6, 7)]

    contents: dict[str, bytes] = {}
    for file in listed:
        try:
            contents[file.key] = storage.fetch(file).read_bytes()
        except GoneError as error:
            assert f"lake/{file.key} was replaced or removed" in str(error)  # noqa: PT017
    assert contents == {
        key(3): b"was there",
        key(4): b"was there",
        key(6): b"replaced",
        key(7): b"added",
    }
    again = {file.key: storage.fetch(file).read_bytes() for file in storage.list("customer")}
    assert again == contents | {key(0): b"added", key(1): b"replaced"}


def test_a_listing_that_breaks_off_is_an_error_and_not_a_shorter_one(
    bucket: Bucket, server: FaultyServer, few_attempts: None, storage: S3Storage
) -> None:
    for number in range(4):
        put(bucket, b"{}", f"customer/landing/{number}.json")
    storage._client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    server.make(answered_by(500, "InternalError"), f"{LISTING}.*continuation")
    listing = storage.list("customer/landing")
    assert [next(listing).key for _ in range(2)] == [f"customer/landing/{n}.json" for n in (0, 1)]
    with pytest.raises(StorageError, match=OUT_OF_ORDER.format("InternalError")):
        next(listing)


# Several processes.

PUBLISH_AGAIN_AND_AGAIN = """
import sys
from itertools import count
from pathlib import Path
from stedi_assets.lake import open_lake
root, key, name, size, folder = sys.argv[1:]
storage, staged = open_lake(root, Path(folder)).storage, Path(folder, name)
for number in count():
    of_this = f"{name} {number:013d};".encode()
    staged.write_bytes(of_this * (int(size) // len(of_this)))
    storage.publish(staged, key)
"""

WRITE = """
import sys
from pathlib import Path
from stedi_assets.lake import open_lake
root, key, staged, cache = sys.argv[1:]
lake = open_lake(root, Path(cache))
with lake.writing():
    lake.storage.publish(Path(staged), key)
"""


def python(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)])


def within(seconds: float) -> Iterator[None]:
    """Again and again, until it has taken too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)
    pytest.fail(f"not within {seconds} seconds")


@pytest.mark.s3
def test_of_two_that_publish_the_same_partition_at_once_a_reader_sees_one_and_whole(
    bucket: Bucket, tmp_path: Path
) -> None:
    storage = opened(bucket, tmp_path)
    writers = [
        python(PUBLISH_AGAIN_AND_AGAIN, f"s3://{bucket.name}/lake", KEY, name, LARGE, tmp_path)
        for name in "ab"
    ]
    try:
        came: list[bytes] = []
        for _ in within(120):
            assert [writer.poll() for writer in writers] == [None, None]
            if not (file := storage.find(KEY)):
                continue
            try:
                content = storage.fetch(file).read_bytes()
            except GoneError:
                continue  # it was replaced in between, and not taken for the new one
            of_this = content[:16]
            assert content == of_this * (LARGE // 16)
            if of_this not in came:
                came.append(of_this)
            turns = sum(one[:1] != other[:1] for one, other in pairwise(came))
            if turns >= 4:
                break
    finally:
        for writer in writers:
            with writer:
                writer.kill()


def begun(bucket: Bucket, key: str) -> None:
    """Begin an upload, and store a part of it."""
    of_upload = {"Bucket": bucket.name, "Key": key}
    of_upload["UploadId"] = bucket.client.create_multipart_upload(**of_upload)["UploadId"]
    bucket.client.upload_part(**of_upload, PartNumber=1, Body=b"half")


@pytest.mark.s3
def test_a_process_killed_in_an_upload_leaves_the_old_object_and_the_next_writer_nothing_of_it(
    bucket: Bucket, server: FaultyServer, tmp_path: Path
) -> None:
    put(bucket, b"old")
    producers = f"lake/{LANDING}"
    begun(bucket, producers)
    root, cache = f"s3://{bucket.name}/lake", tmp_path / "cache"

    writer = python(WRITE, root, KEY, staged(tmp_path, b"n" * LARGE), cache)
    server.make(after(lambda: (writer.send_signal(signal.SIGKILL), writer.wait())), PART, times=1)
    assert writer.wait(timeout=60) == -signal.SIGKILL
    assert stored(bucket) == b"old"
    assert unfinished(bucket) == sorted([f"lake/{KEY}", producers]), "it was killed in the middle"

    server.mend()
    lake = open_lake(root, cache)
    with lake.writing():
        assert unfinished(bucket) == [producers]
        lake.storage.publish(staged(tmp_path, b"n" * LARGE), KEY)
    assert stored(bucket) == b"n" * LARGE
    assert unfinished(bucket) == [producers]


@pytest.mark.s3
@pytest.mark.parametrize("prefix", ["lake/", ""])
def test_a_writer_discards_what_was_left_of_all_that_only_writers_publish_and_nothing_else(
    bucket: Bucket, server: FaultyServer, tmp_path: Path, prefix: str
) -> None:
    day = "ingestion_date=2023-08-06"
    own = [f"{table.path}/{day}/part-0.parquet" for table in TABLES.values()]
    own += ["_reconciled.parquet", f"{ERASURES}/20230806T000000Z-0.parquet"]
    others = [f"{source}/landing/{day}/a b%+ü.json" for source in Source]
    others += [
        "customer/trusted.parquet",
        "customer/landing_2/a.json",
        "notebooks/_a.parquet",
        "_incoming/a",
    ]
    elsewhere = [f"another lake/{key}" for key in own]
    for key in (*own, *others):
        begun(bucket, f"{prefix}{key}")
    for key in elsewhere:
        begun(bucket, key)
    lake = open_lake(f"s3://{bucket.name}/{prefix}", tmp_path / "cache")
    with lake.writing():
        assert unfinished(bucket) == sorted([*(f"{prefix}{key}" for key in others), *elsewhere])
    assert sum("uploads" in request for request in server.requests) == 1


def test_a_second_machine_that_begins_to_write_ends_an_upload_and_the_first_is_told_so(
    bucket: Bucket, server: FaultyServer, storage: S3Storage, tmp_path: Path
) -> None:
    put(bucket, b"old")

    def write(exchange: Exchange) -> None:
        with open_lake(f"s3://{bucket.name}/lake", tmp_path / "cache of the other").writing():
            assert unfinished(bucket) == []
        answered_by(404, "NoSuchUpload")(exchange)  # as S3 does; moto falls over

    server.make(write, "^POST .*uploadId=", times=1)
    says = rf"lake/{KEY}: its upload was ended by somebody else.* only one machine writes the lake"
    with Lake(storage).writing(), pytest.raises(StorageError, match=says):
        storage.publish(staged(tmp_path, b"n" * LARGE), KEY)
    assert stored(bucket) == b"old"
    assert unfinished(bucket) == []


def test_an_upload_that_is_gone_when_it_is_to_be_discarded_is_no_error(
    bucket: Bucket, server: FaultyServer, storage: S3Storage
) -> None:
    begun(bucket, f"lake/{KEY}")

    def abort() -> None:
        (upload,) = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
        bucket.client.abort_multipart_upload(
            Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
        )

    server.make(after(abort), "^DELETE", times=1)
    with Lake(storage).writing():
        assert unfinished(bucket) == []
