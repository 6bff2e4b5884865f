"""Jobs on a disk that is full or read-only, with little memory, and with a clock that goes back.

A disk is full, and read-only, in earnest: it is a small one in memory. The clock of a job is its
own: what the package and Dagster ask for the time is told another one.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.dagster_dev import ROOT
from stedi_assets_tests.end_to_end.erasing import ANN, ANNS_OWN
from stedi_assets_tests.end_to_end.forked import Clock, Job, Memory
from stedi_assets_tests.end_to_end.killing import (
    JOBS,
    InABucket,
    OnDisk,
    Place,
    Scene,
    as_lines,
    town_in,
)
from stedi_assets_tests.end_to_end.landing_files import device, phone

pytestmark = pytest.mark.long


@contextmanager
def small_disk(folder: Path, size: str = "24m") -> Iterator[Path]:
    """A disk of its own, in memory, at a folder."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def may_mount() -> bool:
    """Whether this process may mount disks, as root of a machine or of a container can."""
    if os.geteuid() != 0:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="only root can mount a disk")


def errors(job: Job) -> list[str]:
    """What a job that failed said of it, each in a line."""
    assert job.wait() == 1, job.told()
    told = job.told()
    assert "Traceback" not in told
    found = [line for line in told.splitlines() if line.lstrip().lower().startswith("error")]
    assert found, told
    return found


def says_full(job: Job) -> bool:
    """Whether a job that failed said that it is for want of room."""
    return any("No space left" in line or "disk is neither full" in line for line in errors(job))


def fill(disk: Path, free: int) -> Path:
    """Fill a disk but for some bytes; the file that does it."""
    ballast = disk / "ballast"
    state = os.statvfs(disk)
    ballast.write_bytes(bytes(max(state.f_bavail * state.f_frsize - free, 0)))
    return ballast


FREE = (0, 20_000, 60_000, 150_000)
"""Bytes: nothing can be written; some partitions can; some more."""


@needs_mounts
@pytest.mark.parametrize("job", JOBS)
def test_on_a_full_disk_a_job_says_so_and_when_there_is_room_another_one_mends_the_rest(
    tmp_path: Path, job: str
) -> None:
    arguments, prepare = JOBS[job]
    with small_disk(tmp_path / "disk") as disk:
        place = town_in(OnDisk(disk / "place", ROOT / "dagster_home" / "dagster.yaml"))
        prepare(place)
        scene = Scene(place, *arguments)
        failed = 0
        for free in FREE:
            scene.put_back()
            ballast = fill(disk, free)
            full = scene.begin(output=tmp_path / "told")
            if full.wait():
                failed += 1
                assert says_full(full), full.told()
            scene.look_at_what_a_reader_sees()
            ballast.unlink()
            scene.do_again()
    assert failed >= 2


@needs_mounts
@pytest.mark.parametrize("setting", ["DAGSTER_HOME", "TMPDIR", "STEDI_CACHE"])
def test_where_a_folder_beside_the_lake_is_on_a_full_disk_the_lake_is_whole_and_the_rest_mended(
    tmp_path: Path, request: pytest.FixtureRequest, setting: str
) -> None:
    arguments, prepare = JOBS["run"]
    place: Place
    if setting == "STEDI_CACHE":
        aws = request.getfixturevalue("bucket")
        assert isinstance(aws, Bucket)
        settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        place = InABucket(tmp_path / "place", aws, settings)
    else:
        place = OnDisk(tmp_path / "place", ROOT / "dagster_home" / "dagster.yaml")
    prepare(town_in(place))
    scene = Scene(place, *arguments)
    for free in (0, 20_000):
        scene.put_back()
        with small_disk(tmp_path / "disk", "4m") as disk:
            if setting == "DAGSTER_HOME":
                shutil.copy(ROOT / "dagster_home" / "dagster.yaml", disk)
            fill(disk, free)
            full = scene.begin(output=tmp_path / "told", **{setting: str(disk)})
            if full.wait():
                assert says_full(full), full.told()
            else:
                assert setting == "TMPDIR", "what is not needed may be full"
        scene.look_at_what_a_reader_sees()
        scene.do_again()


@needs_mounts
@pytest.mark.parametrize("job", JOBS)
def test_on_a_read_only_disk_a_job_says_so_and_changes_nothing(tmp_path: Path, job: str) -> None:
    arguments, prepare = JOBS[job]
    with small_disk(tmp_path / "disk") as disk:
        place = town_in(OnDisk(disk / "place", ROOT / "dagster_home" / "dagster.yaml"))
        prepare(place)
        scene = Scene(place, *arguments)
        scene.put_back()
        before = place.files()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        refused = scene.begin(output=tmp_path / "told")
        assert any("Read-only file system" in line for line in errors(refused))
        assert place.files() == before
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        scene.do_again()


@pytest.mark.parametrize("job", JOBS)
def test_with_too_little_memory_a_job_says_so_or_makes_do_and_the_lake_is_whole(
    tmp_path: Path, job: str
) -> None:
    arguments, prepare = JOBS[job]
    place = town_in(OnDisk(tmp_path / "place", ROOT / "dagster_home" / "dagster.yaml"))
    prepare(place)
    scene = Scene(place, *arguments)
    for limit in ("1MB", "4MB"):
        scene.put_back()
        little = scene.begin(STEDI_MEMORY_LIMIT=limit)
        if little.wait():
            assert any("emory" in line for line in errors(little)), little.told()
        scene.look_at_what_a_reader_sees()
        scene.do_again()
    for more in (8 << 20, 64 << 20):  # bytes beside those that it has at its beginning
        scene.put_back()
        ended = scene.begin(Memory(more)).wait()  # it may be an error, or a signal
        assert ended != 0 or more > 8 << 20
        scene.look_at_what_a_reader_sees()
        scene.do_again()


DAY = 24 * 3600


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("asked", [0, 20], ids=["before it", "in its midst"])
def test_a_clock_that_goes_back_a_day_changes_no_row(tmp_path: Path, job: str, asked: int) -> None:
    arguments, prepare = JOBS[job]
    place = town_in(OnDisk(tmp_path / "place", ROOT / "dagster_home" / "dagster.yaml"))
    prepare(place)
    scene = Scene(place, *arguments)
    scene.put_back()
    scene.begin(Clock(-DAY, asked)).succeeded()
    assert scene.reader.tables(place.files()) == scene.after
    scene.do_again()


def test_what_landed_tomorrow_by_a_clock_that_went_back_waits_and_nothing_of_it_is_lost(
    tmp_path: Path,
) -> None:
    place = town_in(OnDisk(tmp_path / "place", ROOT / "dagster_home" / "dagster.yaml"))
    today = datetime.now(UTC).date()
    place.put(f"accelerometer/landing/ingestion_date={today}/a.json", as_lines(phone(ANN, 400)))
    place.put(
        f"step_trainer/landing/ingestion_date={today}/a.json", as_lines(device(400, ANNS_OWN))
    )
    scene = Scene(place, "run")
    with_today = place.files()
    # The clock is behind when files of its tomorrow are there, and then when tables are, too.
    for files in (scene.put_back, lambda: None):
        files()
        before = scene.reader.tables(place.files())
        behind = scene.begin(Clock(-2 * DAY))
        assert behind.wait() == 1
        assert f"the ingestion date {today} is in the future" in behind.told()
        assert scene.reader.tables(place.files()) == before
        scene.do_again()
    assert scene.reader.tables(with_today) == scene.after
