"""Storing whole files: what readers see while they are replaced, and what is left behind."""

import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from stedi_assets.lake import (
    TOO_DEEP,
    LocalStorage,
    Storage,
    StorageError,
    StoredFile,
    open_lake,
)
from stedi_assets.lake.storage import GoneError, locked
from stedi_assets_tests.conftest import Bucket

KEY = "customer/trusted/ingestion_date=2023-08-06/part-0.parquet"

STAY_IN_STAGING = """
import sys, time
from pathlib import Path
from stedi_assets.lake import LocalStorage
with LocalStorage(Path(sys.argv[1])).staging() as folder:
    (folder / "half.parquet").write_text("PAR1")
    (folder / "spill").mkdir()
    print(folder, flush=True)
    time.sleep(600)
"""

STAY_WRITING = """
import sys, time
from pathlib import Path
from stedi_assets.lake import LocalStorage
with LocalStorage(Path(sys.argv[1])).writing():
    print("writing", flush=True)
    time.sleep(600)
"""

COUNT_WHILE_WRITING = """
import sys, time
from pathlib import Path
from stedi_assets.lake import LocalStorage
storage, counter = LocalStorage(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    with storage.writing():
        found = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(found + 1))
"""


MAKE_FOLDERS = """
import os, sys
for _ in range(int(sys.argv[1])):
    os.mkdir("d")
    os.chdir("d")
open("b.json", "w").close()
"""


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "lake")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A storage of each kind."""
    if request.param == "local":
        storage: Storage = request.getfixturevalue("local")
        return storage
    bucket: Bucket = request.getfixturevalue("bucket")
    return open_lake(f"s3://{bucket.name}/pre fix/=2", tmp_path / "cache").storage


def publish(
    storage: Storage, content: bytes, key: str = KEY, delivered: datetime | None = None
) -> None:
    with storage.staging() as folder:
        staged = folder / "finished"
        staged.write_bytes(content)
        storage.publish(staged, key, delivered)


def find(storage: Storage, key: str = KEY) -> StoredFile:
    found = storage.find(key)
    assert found, key
    return found


def content(storage: Storage, key: str = KEY) -> bytes:
    return storage.fetch(find(storage, key)).read_bytes()


@contextmanager
def process(program: str, root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that stays where it is, and the line that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_listing_a_folder_that_is_not_there_gives_nothing(storage: Storage) -> None:
    assert list(storage.list("customer/landing")) == []


def test_listing_gives_each_file_below_the_folder_with_its_size_and_time(storage: Storage) -> None:
    start = datetime.now(UTC)
    publish(storage, b"four", "customer/landing/a.json")
    publish(storage, b"", "customer/landing/deep/er/b [1]*.json")
    publish(storage, b"other", "customer/landing_parquet/c.parquet")
    publish(storage, b"other", "customer/trusted/c.json")
    found = {file.key: file for file in storage.list("customer/landing")}
    assert {key: file.size for key, file in found.items()} == {
        "customer/landing/a.json": 4,
        "customer/landing/deep/er/b [1]*.json": 0,
    }
    for file in found.values():
        assert abs(file.modified - start) < timedelta(seconds=10)
        alone = find(storage, file.key)
        # Some servers tell in a listing more than the seconds that the object's own answer has.
        assert timedelta(0) <= file.modified - alone.modified < timedelta(seconds=1)
        assert replace(alone, modified=file.modified) == file


NAMES = [
    "a b.json",
    'it\'s "quoted".json',
    "100%25 %2F.json",
    "x=1/ä+ö&?#;.json",
    "日本語 👟.json.gz",
    "back\\slash.json",
    "*[1]?.json",
    "~.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_stored_listed_fetched_and_removed(
    storage: Storage, name: str
) -> None:
    key = f"customer/landing/{name}"
    publish(storage, name.encode(), key)
    assert [file.key for file in storage.list("customer/landing")] == [key]
    assert content(storage, key) == name.encode()
    assert storage.uri(key).endswith(key)
    storage.remove(key)
    assert storage.find(key) is None


def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    publish(storage, b"content")
    assert storage.find("no/such/file") is None
    assert storage.find(KEY[:-1]) is None


def test_a_storage_exists_as_soon_as_there_is_something_in_it(storage: Storage) -> None:
    assert not storage.exists()
    publish(storage, b"content")
    assert storage.exists()


def test_several_files_are_fetched_in_their_order(storage: Storage) -> None:
    keys = [f"customer/landing/{number}.json" for number in (3, 1, 2)]
    for key in keys:
        publish(storage, key.encode(), key)
    paths = storage.fetch_all([find(storage, key) for key in keys])
    assert [path.read_text() for path in paths] == keys
    assert list(storage.fetch_all([])) == []


def test_a_changed_file_has_another_version(storage: Storage) -> None:
    publish(storage, b"one")
    before = find(storage)
    publish(storage, b"two")
    assert find(storage).version != before.version


def test_a_file_that_is_replaced_can_keep_the_moment_at_which_it_was_delivered(
    storage: Storage,
) -> None:
    moment = datetime(2023, 8, 6, 23, 59, 59, 999000, tzinfo=UTC)
    publish(storage, b"two people")
    delivered = storage.delivered(find(storage))
    assert abs(delivered - datetime.now(UTC)) < timedelta(seconds=10)
    publish(storage, b"one person", KEY, moment)
    assert storage.delivered(find(storage)) == moment
    assert content(storage) == b"one person"
    publish(storage, b"new")
    assert storage.delivered(find(storage)) > moment


def test_a_file_that_is_replaced_so_is_still_for_those_for_whom_it_was(
    local: LocalStorage,
) -> None:
    publish(local, b"two people")
    (local.root / KEY).chmod(0o640)
    publish(local, b"one person", KEY, datetime(2023, 8, 6, tzinfo=UTC))
    assert stat.S_IMODE((local.root / KEY).stat().st_mode) == 0o640


def test_a_storage_without_old_versions_has_none(storage: Storage) -> None:
    publish(storage, b"old")
    publish(storage, b"new")
    assert list(storage.old_versions()) == []
    storage.forget_cached()
    assert content(storage) == b"new"


def test_a_link_to_a_folder_elsewhere_is_listed_as_a_folder(
    local: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.json").write_text("{}")
    (local.root / "customer").mkdir(parents=True)
    (local.root / "customer" / "landing").symlink_to(tmp_path / "elsewhere")
    assert [file.key for file in local.list("customer/landing")] == ["customer/landing/a.json"]


@pytest.fixture
def on_another_disk(local: LocalStorage) -> Iterator[Path]:
    """The landing folder of customers: a link to a folder on another disk."""
    other, root = Path("/dev/shm"), local.root.parent
    if not other.is_dir() or other.stat().st_dev == root.stat().st_dev:
        pytest.skip("there is no second disk")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        (local.root / "customer").mkdir(parents=True)
        (local.root / "customer" / "landing").symlink_to(folder)
        yield Path(folder)


def publish_landing(local: LocalStorage, delivered: datetime) -> None:
    with local.staging() as folder:
        (folder / "new").write_text("new")
        local.publish(folder / "new", "customer/landing/a.json", delivered)


def test_a_file_on_another_disk_is_replaced_as_others_are(
    local: LocalStorage, on_another_disk: Path
) -> None:
    file, delivered = on_another_disk / "a.json", datetime(2023, 8, 6, 12, tzinfo=UTC)
    file.write_text("old")
    file.chmod(0o640)
    publish_landing(local, delivered)
    (found,) = local.list("customer/landing")
    assert (found.key, found.modified) == ("customer/landing/a.json", delivered)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o640)


def test_what_fails_on_another_disk_leaves_the_old_file_and_nothing_beside_it(
    local: LocalStorage, on_another_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (on_another_disk / "a.json").write_text("old")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        publish_landing(local, datetime(2023, 8, 6, tzinfo=UTC))
    assert [file.name for file in on_another_disk.iterdir()] == ["a.json"]
    assert (on_another_disk / "a.json").read_text() == "old"


def test_killed_while_it_copies_to_another_disk_leaves_nothing_once_it_is_done_again(
    local: LocalStorage, on_another_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: object, out: BinaryIO) -> None:
        out.write(b"ne")
        out.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    delivered = datetime(2023, 8, 6, tzinfo=UTC)
    (on_another_disk / "a.json").write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", killed)
        process = get_context("fork").Process(target=publish_landing, args=(local, delivered))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(on_another_disk.iterdir())) == 2
    assert (on_another_disk / "a.json").read_text() == "old"
    publish_landing(local, delivered)
    assert [file.name for file in on_another_disk.iterdir()] == ["a.json"]
    assert (on_another_disk / "a.json").read_text() == "new"


def test_a_link_where_a_file_on_another_disk_is_prepared_leads_to_nothing(
    local: LocalStorage, on_another_disk: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    others.write_text("not to be touched")
    name = hashlib.sha256(b"a.json").hexdigest()[:16]
    (on_another_disk / f".stedi-{name}").symlink_to(others)
    publish_landing(local, datetime(2023, 8, 6, tzinfo=UTC))
    assert others.read_text() == "not to be touched"
    assert [file.name for file in on_another_disk.iterdir()] == ["a.json"]


def test_a_link_to_nothing_is_not_listed(local: LocalStorage) -> None:
    (local.root / "customer").mkdir(parents=True)
    (local.root / "customer" / "gone.json").symlink_to("nowhere")
    assert list(local.list("customer")) == []


@pytest.mark.parametrize("depth", [1_500, 3_000])
def test_folders_in_each_other_by_thousands_keep_no_other_file_from_being_listed(
    local: LocalStorage, depth: int
) -> None:
    landing = local.root / "customer" / "landing"
    landing.mkdir(parents=True)
    (landing / "a.json").write_text("{}")
    # A process of its own, for only who goes from folder to folder comes so deep.
    subprocess.run([sys.executable, "-c", MAKE_FOLDERS, str(depth)], cwd=landing, check=True)
    try:
        found = {file.key.replace("/d", ""): file.odd for file in local.list("customer/landing")}
        assert found.pop("customer/landing/a.json") == ""
        # What is so deep that no path leads there is told as what it is.
        assert found in ({"customer/landing/b.json": ""}, {"customer/landing": TOO_DEEP})
        assert (TOO_DEEP in found.values()) == (depth > 2_000)
    finally:
        subprocess.run(["rm", "-rf", landing], check=True)


@pytest.mark.parametrize(("seconds", "shown"), [(10**12, datetime.max), (-(10**12), datetime.min)])
def test_a_file_of_a_time_that_is_in_no_calendar_is_listed(
    seconds: int, shown: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not every file system keeps such a time, so the system's answer is another one here.
    (tmp_path / "a.json").write_text("{}")
    real = (tmp_path / "a.json").stat()
    moment = SimpleNamespace(
        st_mode=real.st_mode,
        st_size=2,
        st_mtime=float(seconds),
        st_mtime_ns=seconds * 10**9,
        st_ino=1,
    )
    monkeypatch.setattr(Path, "stat", lambda _: moment)
    file = LocalStorage(tmp_path).find("a.json")
    assert file
    assert file.modified == shown.replace(tzinfo=UTC)


def test_publishing_the_same_bytes_again_makes_another_version(local: LocalStorage) -> None:
    publish(local, b"same")
    (before,) = local.list("customer")
    publish(local, b"same")
    (after,) = local.list("customer")
    assert (before.key, before.size) == (after.key, after.size)
    assert before.version != after.version


def test_touching_a_file_makes_another_version(local: LocalStorage) -> None:
    publish(local, b"same")
    (before,) = local.list("customer")
    os.utime(local.root / KEY, ns=(1, 1))
    (after,) = local.list("customer")
    assert before.version != after.version


def test_a_published_file_is_fetched_as_it_was_staged(storage: Storage) -> None:
    publish(storage, b"content")
    assert content(storage) == b"content"


def test_a_relative_root_stays_where_it_was_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = LocalStorage(Path("lake"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    publish(storage, b"content")
    assert (tmp_path / "lake" / KEY).read_bytes() == b"content"


def test_a_reader_that_holds_the_old_file_open_reads_it_whole(local: LocalStorage) -> None:
    publish(local, b"old" * 100_000)
    with (local.root / KEY).open("rb") as reader:
        start = reader.read(3)
        publish(local, b"new")
        assert start + reader.read() == b"old" * 100_000
    assert content(local) == b"new"


def test_readers_see_the_old_or_the_new_file_while_it_is_replaced(storage: Storage) -> None:
    contents = {bytes([letter]) * size for letter, size in ((65, 300_000), (66, 700_000))}
    publish(storage, min(contents))
    seen: set[bytes] = set()
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                found = content(storage)
            except GoneError:  # on S3, if it is replaced between the look and the download
                continue
            except OSError as error:
                wrong.append(error)
                return
            seen.add(found)
            if found not in contents:
                wrong.append(len(found))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(40):
        for each in contents:
            publish(storage, each)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert seen


def test_what_is_to_be_new_replaces_nothing(storage: Storage) -> None:
    with storage.staging() as folder:
        for number, said in enumerate((b"first", b"second")):
            staged = folder / str(number)
            staged.write_bytes(said)
            with pytest.raises(FileExistsError) if number else nullcontext():
                storage.publish(staged, KEY, only_new=True)
    assert content(storage) == b"first"
    assert [file.key for file in storage.list("customer")] == [KEY]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_when_it_is_published(
    local: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing that was told to be done is undone by a loss of power."""
    written: list[tuple[Path, bool]] = []
    target = local.root / "customer/trusted/part-0.parquet"

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        written.append((name, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with local.staging() as folder:
        staged = folder / "staged"
        staged.write_bytes(b"rows")
        local.publish(staged, "customer/trusted/part-0.parquet")
    assert written == [(staged, False), (target.parent, True)]


def test_publishing_leaves_nothing_beside_the_file(storage: Storage) -> None:
    publish(storage, b"old")
    publish(storage, b"new")
    assert [file.key for file in storage.list("customer")] == [KEY]


def test_what_cannot_be_published_leaves_the_old_file(storage: Storage) -> None:
    publish(storage, b"old")
    with storage.staging() as folder, pytest.raises(FileNotFoundError):
        storage.publish(folder / "never written", KEY)
    assert content(storage) == b"old"


def test_a_removed_file_is_gone_and_removing_it_again_does_nothing(storage: Storage) -> None:
    publish(storage, b"content")
    storage.remove(KEY)
    assert list(storage.list("customer")) == []
    storage.remove(KEY)
    storage.remove("no/such/folder")


def test_the_staging_folder_is_private_and_on_the_disk_of_the_lake_or_the_cache(
    storage: Storage,
) -> None:
    old_mask = os.umask(0)
    try:
        with storage.staging() as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert folder.is_relative_to(storage.folder)
            assert folder.stat().st_dev == storage.folder.stat().st_dev
    finally:
        os.umask(old_mask)


def test_the_staging_folder_is_removed_after_use(storage: Storage) -> None:
    with storage.staging() as folder:
        (folder / "spill").mkdir()
        (folder / "spill" / "block").write_text("x")
    assert not folder.exists()


def test_the_staging_folder_is_removed_after_an_exception(storage: Storage) -> None:
    folders = []

    def interrupted() -> None:
        with storage.staging() as folder:
            folders.append(folder)
            (folder / "half.parquet").write_text("PAR1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not folders[0].exists()


def test_two_in_one_process_have_a_staging_folder_each(storage: Storage) -> None:
    with storage.staging() as first:
        with storage.staging() as second:
            assert first != second
            assert first.is_dir()
        assert first.is_dir()
        assert not second.exists()


def test_no_table_holds_what_is_staged(storage: Storage) -> None:
    with storage.staging() as folder:
        (folder / "half.parquet").write_text("PAR1")
        for source in ("customer", "accelerometer", "step_trainer"):
            assert list(storage.list(source)) == []


def test_what_a_living_process_stages_is_left_alone_and_what_a_killed_one_left_is_removed(
    local: LocalStorage,
) -> None:
    with process(STAY_IN_STAGING, local.root) as (other, told):
        theirs = Path(told)
        assert (theirs / "half.parquet").is_file()
        with local.staging():
            assert (theirs / "half.parquet").is_file()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert theirs.is_dir(), "a killed process cannot tidy up"
        with local.staging() as ours:
            assert not theirs.exists()
            assert list(ours.parent.iterdir()) == [ours]


# One writer at a time.


def is_written(storage: Storage) -> bool:
    """Whether somebody has the lake for writing."""
    try:
        with locked(storage.folder / "_writing"):
            return False
    except BlockingIOError:
        return True


def test_while_one_writes_no_other_can_and_afterwards_another_can(storage: Storage) -> None:
    with storage.writing():
        assert is_written(storage)
    assert not is_written(storage)
    with storage.writing():
        assert is_written(storage)


def test_writing_ends_with_an_exception(storage: Storage) -> None:
    def interrupted() -> None:
        with storage.writing():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not is_written(storage)


def test_the_lake_is_free_again_when_the_process_that_wrote_it_is_killed(
    local: LocalStorage,
) -> None:
    with process(STAY_WRITING, local.root) as (other, told):
        assert told == "writing"
        assert is_written(local)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert not is_written(local)
        with local.writing():
            assert is_written(local)


def test_processes_that_write_at_once_write_one_after_the_other(
    local: LocalStorage, tmp_path: Path
) -> None:
    """Each reads a number and writes the next one: none is lost if nobody comes between."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT_WHILE_WRITING, str(local.root), str(counter)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for each in processes:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    for each in processes:
        with each:
            assert each.wait(timeout=60) == 0
    assert counter.read_text() == "90"


def test_who_writes_and_who_only_reads_have_staging_folders_at_the_same_time(
    local: LocalStorage,
) -> None:
    with process(STAY_WRITING, local.root) as (_, told), local.staging() as folder:
        assert told == "writing"
        assert is_written(local)
        assert folder.is_dir()
    with local.writing(), process(STAY_IN_STAGING, local.root) as (_, theirs):
        assert Path(theirs).is_dir()


def test_what_marks_a_writer_is_in_no_folder_of_a_source(storage: Storage) -> None:
    with storage.writing():
        for source in ("customer", "accelerometer", "step_trainer"):
            assert list(storage.list(source)) == []


def test_a_folder_that_another_one_holds_is_not_waited_for_unless_one_wants_to(
    tmp_path: Path,
) -> None:
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path):
        raise AssertionError("it is held")
    with locked(tmp_path, wait=True):
        pass


@pytest.mark.parametrize("key", ["../a", "/etc/a", "customer/../../a", "customer/trusted/.."])
def test_no_key_leads_out_of_the_lake(local: LocalStorage, key: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    file = StoredFile(key, 4, datetime.now(UTC), "1")
    with local.staging() as folder:
        (folder / "staged").write_text("theirs")
        for act in (
            lambda: local.publish(folder / "staged", key),
            lambda: local.remove(key),
            lambda: local.find(key),
            lambda: local.fetch(file),
            lambda: local.fetch_all([file]),
        ):
            with pytest.raises(StorageError, match="leads out of"):
                act()
    assert (tmp_path / "a").read_text() == "mine"


def test_what_somebody_put_among_unfinished_files_is_removed_and_what_links_lead_to_is_not(
    local: LocalStorage, tmp_path: Path
) -> None:
    staging = local.root / "_staging"
    staging.mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").write_text("a")
    (staging / "link").symlink_to(tmp_path / "theirs")
    (staging / "file").write_text("a")
    os.mkfifo(staging / "pipe")  # who opens it would wait for ever
    with local.staging() as folder:
        assert list(staging.iterdir()) == [folder]
    assert (tmp_path / "theirs" / "a").read_text() == "a"


@pytest.mark.parametrize(("mask", "mode"), [(0o000, 0o660), (0o022, 0o640), (0o077, 0o600)])
def test_nobody_but_the_group_that_the_mask_lets_in_reads_what_is_published(
    local: LocalStorage, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        publish(local, b"content")
    finally:
        os.umask(before)
    (file,) = (path for path in local.root.rglob("*") if path.is_file())
    assert stat.S_IMODE(file.stat().st_mode) == mode
    for folder in (local.root, *(path for path in local.root.rglob("*") if path.is_dir())):
        assert not stat.S_IMODE(folder.stat().st_mode) & 0o007
