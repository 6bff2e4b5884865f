"""What only a lake on S3 has: pages, versions, a cache; and what it says if S3 does not answer."""

import os
import re
import socket
import stat
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stedi_assets.lake import Storage, StorageError, StoredFile, open_lake, s3
from stedi_assets.lake.s3 import S3Storage
from stedi_assets.lake.storage import GoneError
from stedi_assets_tests.conftest import Bucket

pytestmark = [pytest.mark.long, pytest.mark.s3]

KEY = "customer/landing/ingestion_date=2023-08-06/a.json"
TWO_DAYS = 48 * 3600


def opened(bucket: Bucket, tmp_path: Path) -> S3Storage:
    storage = open_lake(f"s3://{bucket.name}/lake", tmp_path / "cache").storage
    assert isinstance(storage, S3Storage)
    return storage


@pytest.fixture
def storage(bucket: Bucket, tmp_path: Path) -> S3Storage:
    return opened(bucket, tmp_path)


@pytest.fixture
def requests(storage: S3Storage) -> Counter[str]:
    """How often the storage asked for what."""
    made: Counter[str] = Counter()

    def count(model: Any, **_: object) -> None:
        made[model.name] += 1

    storage._client.meta.events.register("before-call.s3", count)
    return made


def put(bucket: Bucket, content: bytes, key: str = KEY, **more: Any) -> None:
    bucket.put(f"lake/{key}", content, **more)


def find(storage: Storage, key: str = KEY) -> StoredFile:
    found = storage.find(key)
    assert found
    return found


def copies(storage: S3Storage) -> list[Path]:
    """The copies of files in the cache."""
    return sorted(
        path
        for path in storage.folder.rglob("*")
        if path.is_file() and not path.name.endswith(".notes")
    )


# Names and listings.


@pytest.mark.parametrize(
    ("root", "uri"),
    [
        ("", "s3://{bucket}"),
        ("/", "s3://{bucket}"),
        ("/a/b", "s3://{bucket}/a/b"),
        ("/a b/", "s3://{bucket}/a b"),
        ("/a?b#c", "s3://{bucket}/a?b#c"),
    ],
)
def test_a_lake_may_be_a_whole_bucket_or_any_prefix_of_it(
    bucket: Bucket, tmp_path: Path, root: str, uri: str
) -> None:
    storage = open_lake(f"s3://{bucket.name}{root}", tmp_path).storage
    uri = uri.format(bucket=bucket.name)
    assert storage.uri() == uri
    assert storage.uri("customer/a.json") == f"{uri}/customer/a.json"
    (tmp_path / "staged").write_text("{}")
    storage.publish(tmp_path / "staged", "customer/a.json")
    assert [f"s3://{bucket.name}/{key}" for key in bucket.keys] == [f"{uri}/customer/a.json"]
    assert [file.key for file in storage.list("customer")] == ["customer/a.json"]


def test_a_listing_goes_on_where_a_page_ends(
    bucket: Bucket, storage: S3Storage, requests: Counter[str]
) -> None:
    for number in range(5):
        put(bucket, b"{}", f"customer/landing/{number}.json")
    pages = storage._client.get_paginator
    storage._client.get_paginator = lambda operation: _small(pages(operation))
    assert [file.key for file in storage.list("customer/landing")] == [
        f"customer/landing/{number}.json" for number in range(5)
    ]
    assert requests == {"ListObjectsV2": 3}


class _small:  # noqa: N801
    def __init__(self, paginator: Any) -> None:
        self.paginator = paginator

    def paginate(self, **of: Any) -> Iterator[Any]:
        pages: Iterator[Any] = self.paginator.paginate(**of, PaginationConfig={"PageSize": 2})
        return pages


def test_another_lake_in_the_bucket_and_markers_of_folders_are_not_listed(
    bucket: Bucket, storage: S3Storage
) -> None:
    put(bucket, b"{}")
    for other in ("lake/customer/landing/", f"lake 2/{KEY}", KEY, "lake/customer/landing/empty/"):
        bucket.put(other, b"")
    assert [file.key for file in storage.list("customer")] == [KEY]
    assert [file.key for file in storage.list("")] == [KEY]


# The cache.


def test_a_file_is_downloaded_once_by_all_processes_together(
    bucket: Bucket, storage: S3Storage, tmp_path: Path, requests: Counter[str]
) -> None:
    put(bucket, b"content")
    file = find(storage)
    path = storage.fetch(file)
    assert [storage.fetch(file), *storage.fetch_all([file, file])] == [path] * 3
    assert path.read_bytes() == b"content"
    assert requests["GetObject"] == 1
    other = opened(bucket, tmp_path)
    bucket.client.delete_object(Bucket=bucket.name, Key=f"lake/{KEY}")
    assert other.fetch(file) == path
    assert copies(storage) == [path]


def test_a_copy_that_was_cut_short_is_downloaded_again(bucket: Bucket, storage: S3Storage) -> None:
    put(bucket, b"all of it")
    copy = storage.fetch(find(storage))
    copy.write_bytes(b"all")
    assert storage.fetch(find(storage)).read_bytes() == b"all of it"


def test_what_is_downloaded_lies_meanwhile_where_it_is_removed_if_the_process_is_killed(
    bucket: Bucket, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, b"{}")
    meanwhile: list[str] = []
    read = storage._read

    def look(*arguments: Any) -> None:
        read(*arguments)
        found = (path.relative_to(storage.folder) for path in storage.folder.rglob("*"))
        meanwhile.extend(path.parts[0] for path in found if (storage.folder / path).is_file())

    monkeypatch.setattr(storage, "_read", look)
    assert storage.fetch(find(storage)).read_bytes() == b"{}"
    assert meanwhile == ["_staging"]


def test_a_file_that_was_replaced_is_downloaded_again(bucket: Bucket, storage: S3Storage) -> None:
    put(bucket, b"old")
    old = storage.fetch(find(storage))
    put(bucket, b"new")
    new = storage.fetch(find(storage))
    assert (old.read_bytes(), new.read_bytes()) == (b"old", b"new")


@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_not_there_any_more_as_it_was_listed_is_not_taken_for_it(
    bucket: Bucket, storage: S3Storage, is_there: bool
) -> None:
    put(bucket, b"old")
    listed = find(storage)
    if is_there:
        put(bucket, b"new")
    else:
        storage.remove(KEY)
    message = f"s3://{bucket.name}/lake/{KEY} was replaced or removed after it was listed"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        storage.fetch(listed)
    assert copies(storage) == []


@pytest.mark.parametrize(
    ("key", "folder", "extensions"),
    [
        ("customer/landing/a.json", "objects", ".json"),
        ("customer/landing/ingestion_date=2023-08-06/a.JSON.gz", "ingestion_date=2023-08-06", None),
        ("customer/landing/ingestion_date=2023-08-06/x=1/a.json", "objects", ".json"),
        ("customer/landing/user=2/a.ndjson.zst", "objects", ".ndjson.zst"),
        ("customer/landing/" + "ä" * 400 + ".json", "objects", ".json"),
        ("customer/landing/a.json~", "objects", ""),
        ("customer/landing/.json", "objects", ".json"),
    ],
)
def test_a_copy_has_the_extensions_of_the_file_and_the_folder_of_its_partition(
    bucket: Bucket, storage: S3Storage, key: str, folder: str, extensions: str | None
) -> None:
    put(bucket, b"content", key)
    path = storage.fetch(find(storage, key))
    assert path.parent.name == folder
    assert "".join(path.suffixes) == (".JSON.gz" if extensions is None else extensions)
    assert "=" not in str(path.relative_to(storage.folder)).removeprefix(f"objects/{folder}")
    assert path.read_bytes() == b"content"


def test_nobody_else_can_look_into_the_cache(bucket: Bucket, storage: S3Storage) -> None:
    old_mask = os.umask(0)
    try:
        put(bucket, b"content")
        assert storage.fetch(find(storage)).is_relative_to(storage.folder)
        assert stat.S_IMODE(storage.folder.stat().st_mode) == 0o700
    finally:
        os.umask(old_mask)


def test_lakes_do_not_share_a_cache(bucket: Bucket, storage: S3Storage, tmp_path: Path) -> None:
    other = open_lake(f"s3://{bucket.name}/lake/2", tmp_path / "cache").storage
    assert other.folder != storage.folder
    assert opened(bucket, tmp_path).folder == storage.folder


def test_of_a_cache_that_is_too_large_the_files_go_that_were_not_used_for_longest(
    bucket: Bucket, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "CACHE_LIMIT", 25)
    ago = time.time() - TWO_DAYS
    paths = []
    for number in range(4):
        put(bucket, b"ten bytes!", f"customer/landing/{number}.json")
        paths.append(storage.fetch(find(storage, f"customer/landing/{number}.json")))
        os.utime(paths[-1], (ago + number, ago))
    storage.fetch(find(storage, "customer/landing/0.json"))  # and so it is used again
    with storage.staging():
        assert copies(storage) == sorted([paths[0], paths[3]])


def test_what_a_process_may_still_read_stays_in_a_cache_that_is_too_large(
    bucket: Bucket, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "CACHE_LIMIT", 0)
    put(bucket, b"content")
    path = storage.fetch(find(storage))
    with storage.staging():
        assert copies(storage) == [path]


def test_after_forgetting_nothing_is_left_of_any_file(
    bucket: Bucket, storage: S3Storage, requests: Counter[str]
) -> None:
    put(bucket, b"content")
    storage.fetch(find(storage))
    storage.forget_cached()
    assert copies(storage) == []
    assert storage.fetch(find(storage)).read_bytes() == b"content"
    assert requests["GetObject"] == 2
    storage.forget_cached()
    storage.forget_cached()


# When a file was delivered.


def test_when_a_file_was_delivered_is_asked_once_for_each_version(
    bucket: Bucket, storage: S3Storage, tmp_path: Path, requests: Counter[str]
) -> None:
    put(bucket, b"content")
    file = find(storage)
    requests.clear()
    assert storage.delivered(file) == storage.delivered(file) == file.modified
    assert opened(bucket, tmp_path).delivered(file) == file.modified
    assert requests == {"HeadObject": 1}
    put(bucket, b"other content", Metadata={"stedi-delivered": "1691280000000"})
    assert storage.delivered(find(storage)) == datetime(2023, 8, 6, tzinfo=UTC)


def test_what_somebody_else_noted_is_no_moment(bucket: Bucket, storage: S3Storage) -> None:
    put(bucket, b"content", Metadata={"stedi-delivered": "yesterday"})
    file = find(storage)
    assert storage.delivered(file) == file.modified


def test_the_moment_is_noted_beside_the_object(
    bucket: Bucket, storage: S3Storage, tmp_path: Path
) -> None:
    (tmp_path / "staged").write_text("{}")
    storage.publish(tmp_path / "staged", KEY, datetime(2023, 8, 6, tzinfo=UTC))
    head = bucket.client.head_object(Bucket=bucket.name, Key=f"lake/{KEY}")
    assert head["Metadata"]["stedi-delivered"] == "1691280000000"


# What is published, and what is noted with it.


def publish(storage: S3Storage, content: bytes, **notes: str) -> None:
    with storage.staging() as folder:
        (folder / "finished").write_bytes(content)
        storage.publish(folder / "finished", KEY, notes=notes)


def test_what_was_published_here_is_not_downloaded(
    bucket: Bucket, storage: S3Storage, requests: Counter[str]
) -> None:
    publish(storage, b"content")
    assert storage.fetch(find(storage)).read_bytes() == b"content"
    assert "GetObject" not in requests
    put(bucket, b"other content")
    assert storage.fetch(find(storage)).read_bytes() == b"other content"


def test_what_somebody_else_published_at_the_same_moment_is_not_taken_for_it(
    bucket: Bucket, storage: S3Storage
) -> None:
    def replace(**_: object) -> None:
        put(bucket, b"theirs!", Metadata={"stedi-note-stamp": "theirs"})

    storage._client.meta.events.register_first("before-call.s3.HeadObject", replace)
    publish(storage, b"content", stamp="ours")
    storage._client.meta.events.unregister("before-call.s3.HeadObject", replace)
    assert copies(storage) == []
    assert storage.fetch(find(storage)).read_bytes() == b"theirs!"
    assert storage.notes([find(storage)]) == [{"stamp": "theirs"}]


def test_what_somebody_removed_at_the_same_moment_was_published(
    bucket: Bucket, storage: S3Storage
) -> None:
    def remove(**_: object) -> None:
        bucket.client.delete_object(Bucket=bucket.name, Key=f"lake/{KEY}")

    storage._client.meta.events.register_first("before-call.s3.HeadObject", remove)
    publish(storage, b"content")
    assert storage.find(KEY) is None
    assert copies(storage) == []


def test_notes_are_given_without_the_file_and_asked_for_once_by_all_processes_together(
    bucket: Bucket, storage: S3Storage, tmp_path: Path, requests: Counter[str]
) -> None:
    other = open_lake(f"s3://{bucket.name}/lake", tmp_path / "cache of another machine").storage
    with other.staging() as folder:
        (folder / "finished").write_bytes(b"content")
        other.publish(folder / "finished", KEY, notes={"stamp": "a:b", "content": '[1, "c", null]'})
    (file,) = storage.list("customer")
    noted = {"stamp": "a:b", "content": '[1, "c", null]'}
    assert storage.notes([file, file]) == [noted, noted]
    asked = requests["HeadObject"]
    assert storage.notes([file]) == [noted]
    assert requests["HeadObject"] == asked
    assert "GetObject" not in requests
    bucket.client.delete_object(Bucket=bucket.name, Key=f"lake/{KEY}")
    assert opened(bucket, tmp_path).notes([file]) == [noted]


def test_with_what_somebody_else_put_there_nothing_is_noted(
    bucket: Bucket, storage: S3Storage
) -> None:
    put(bucket, b"content", Metadata={"stamp": "theirs"})
    assert storage.notes([find(storage)]) == [{}]


def test_notes_of_what_was_replaced_since_it_was_listed_are_not_given(
    bucket: Bucket, storage: S3Storage
) -> None:
    publish(storage, b"old", stamp="old")
    listed = find(storage)
    storage.forget_cached()
    publish(storage, b"new", stamp="new")
    with pytest.raises(GoneError):
        storage.notes([listed])
    assert storage.notes([find(storage)]) == [{"stamp": "new"}]


# Old versions.


@pytest.fixture
def versioned(bucket: Bucket) -> Bucket:
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    return bucket


def left(bucket: Bucket) -> tuple[int, int]:
    """How many versions and marks of deletion the bucket holds."""
    found = bucket.client.list_object_versions(Bucket=bucket.name)
    return len(found.get("Versions", [])), len(found.get("DeleteMarkers", []))


def test_what_was_replaced_or_removed_is_an_old_version_and_can_be_fetched(
    versioned: Bucket, storage: S3Storage
) -> None:
    for content in (b"first", b"second", b"third"):
        put(versioned, content)
    put(versioned, b"gone", "customer/landing/gone.json")
    put(versioned, b"other", "customer/landing_parquet/gone.json")
    versioned.put(KEY, b"of another lake")
    versioned.put(KEY, b"of another lake")
    storage.remove("customer/landing/gone.json")
    storage.remove("customer/landing_parquet/gone.json")
    old = list(storage.old_versions("customer/landing"))
    assert sorted((file.key, storage.fetch(file).read_bytes()) for file in old) == [
        ("customer/landing/gone.json", b"gone"),
        (KEY, b"first"),
        (KEY, b"second"),
    ]
    assert len(list(storage.old_versions())) == 4
    assert storage.fetch(find(storage)).read_bytes() == b"third"
    assert [file.key for file in storage.list("customer/landing")] == [KEY]


def test_an_old_version_is_removed_alone_and_for_good(
    versioned: Bucket, storage: S3Storage
) -> None:
    for content in (b"first", b"second", b"third"):
        put(versioned, content)
    _, first = storage.old_versions()
    storage.remove_version(first)
    assert [storage.fetch(file).read_bytes() for file in storage.old_versions()] == [b"second"]
    assert storage.fetch(find(storage)).read_bytes() == b"third"
    with pytest.raises(GoneError):
        storage.fetch(first)


def test_with_the_last_version_of_a_file_nothing_is_left_of_it_but_other_files_stay(
    versioned: Bucket, storage: S3Storage
) -> None:
    other = f"{KEY}.gz"  # begins with the same key
    for key in (KEY, other):
        put(versioned, b"first", key)
        storage.remove(key)
        put(versioned, b"second", key)
        storage.remove(key)
    assert left(versioned) == (4, 4)
    first, second = (file for file in storage.old_versions() if file.key == KEY)
    storage.remove_version(first)
    assert left(versioned) == (3, 4)
    storage.remove_version(second)
    assert left(versioned) == (2, 2)
    assert {file.key for file in storage.old_versions()} == {other}


def test_removing_the_last_old_version_leaves_the_file_that_is_there(
    versioned: Bucket, storage: S3Storage
) -> None:
    put(versioned, b"old")
    storage.remove(KEY)
    put(versioned, b"new")
    (old,) = storage.old_versions()
    storage.remove_version(old)
    assert storage.fetch(find(storage)).read_bytes() == b"new"


# A large file.


def test_a_large_file_goes_up_in_parts_and_comes_down_whole(
    storage: S3Storage, tmp_path: Path, requests: Counter[str]
) -> None:
    content = os.urandom(20 << 20)
    (tmp_path / "staged").write_bytes(content)
    storage.publish(tmp_path / "staged", KEY)
    assert requests["UploadPart"] == 3
    file = find(storage)
    assert file.size == len(content)
    assert storage.fetch(file).read_bytes() == content


# Errors.


def test_a_bucket_that_is_not_there_is_told_whatever_is_asked(
    bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "staged").write_text("{}")
    storage = open_lake("s3://no-such-bucket", tmp_path).storage
    for ask in (
        storage.exists,
        lambda: list(storage.list("customer")),
        lambda: list(storage.old_versions()),
        lambda: storage.publish(tmp_path / "staged", KEY),
    ):
        with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket' at http"):
            ask()


def test_that_there_are_no_credentials_is_told_with_what_to_set(
    storage: S3Storage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"no credentials for S3: .*Set AWS_ACCESS_KEY_ID"):
        opened(bucket, tmp_path).exists()


def test_a_profile_that_is_not_there_is_told_with_what_to_set(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match=r"\(nobody\) could not be found.*or AWS_PROFILE"):
        opened(bucket, tmp_path)


def test_a_server_that_does_not_answer_is_told_with_where_it_was_looked_for(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(s3, "_ATTEMPTS", 1)
    says = rf"http://127\.0\.0\.1:{port} does not answer: .* whether AWS_ENDPOINT_URL"
    with pytest.raises(StorageError, match=says):
        opened(bucket, tmp_path).exists()


def test_a_cache_that_is_somebody_elses_or_a_link_is_not_used(
    bucket: Bucket, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, b"content")
    storage.folder.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "theirs").mkdir(mode=0o755)
    storage.folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(StorageError, match="set STEDI_CACHE to a folder that is yours"):
        storage.fetch(find(storage))
    assert list((tmp_path / "theirs").iterdir()) == []
    assert stat.S_IMODE((tmp_path / "theirs").stat().st_mode) == 0o755
    storage.folder.unlink()
    storage.folder.mkdir()
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    with pytest.raises(StorageError, match="set STEDI_CACHE"):
        storage.fetch(find(storage))
