"""Jobs killed at calls of the storage and at random instants, on a disk and on S3.

After each kill a reader sees whole files, old or new; doing it again gives what an undisturbed job
gives, and nothing is left of what was unfinished.

`STEDI_TEST_KILLS` says how often each job is killed at a call, and half as often at an instant;
`STEDI_TEST_KILLS_SEED` which ones. `STEDI_TEST_KILLS_AT=each` kills at every call that changes
something instead, and `=all` also at those that only read.
"""

import os
import random
import re
import signal
import time
from collections.abc import Iterator

import pytest

from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.dagster_dev import ROOT
from stedi_assets_tests.end_to_end.forked import Dying, InParts
from stedi_assets_tests.end_to_end.killing import (
    JOBS,
    InABucket,
    OnDisk,
    Place,
    Scene,
    told_with,
    town_in,
)
from stedi_assets_tests.storages import room_for_lakes

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("STEDI_TEST_KILLS", "24"))
SEED = os.environ.get("STEDI_TEST_KILLS_SEED", "1")
AT = os.environ.get("STEDI_TEST_KILLS_AT", "some")
IN_A_ROW = 3
"""How often a job and those that do it again are killed before one is left alone."""


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Where a lake is that `stedi run` has brought up to date."""
    with room_for_lakes() as room:
        if request.param == "s3":
            bucket: Bucket = request.getfixturevalue("bucket")
            settings = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
            made: Place = InABucket(room / "place", bucket, settings)
        else:
            made = OnDisk(room / "place", ROOT / "dagster_home" / "dagster.yaml")
        yield town_in(made)


def calls(scene: Scene, which: str) -> list[int]:
    """The points at calls: all; or of those between which nothing changes, one each."""
    if which == "all":
        return list(range(1, len(scene.points) + 1))
    # Listing and reading change nothing on a disk; on S3 a fetch changes the cache.
    names = "abort_uploads|forget_cached|publish|remove|remove_version|staging|writing"
    if isinstance(scene.place, InABucket):
        names += "|fetch|notes"
    found: list[int] = []
    after = ""
    for number, point in enumerate(scene.points, 1):
        if match := re.match(rf"\d+ (before|in|at the end of|after) (?:{names})(?: |$)", point):
            # From the end of one call to the beginning of the next one nothing changes.
            if after not in ("in", "after") or match[1] in ("in", "after"):
                found.append(number)
            after = match[1]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_a_job_that_is_killed_anywhere_leaves_whole_files_and_doing_it_again_mends_the_rest(
    place: Place, job: str
) -> None:
    arguments, prepare = JOBS[job]
    prepare(place)
    scene = Scene(place, *arguments, prepare=InParts() if isinstance(place, InABucket) else None)
    rng = random.Random(f"{SEED} {job}")
    points = calls(scene, AT)
    if AT == "some":
        points = sorted(rng.sample(points, min(KILLS, len(points))))
    at_calls = 0
    for point in points:
        scene.put_back()
        killed = scene.begin(Dying(point))
        with told_with(f"killed at {scene.points[point - 1]}", killed):
            # Threads can need some calls fewer than in the undisturbed job.
            assert killed.wait() in (-signal.SIGKILL, 0)
            at_calls += killed.wait() != 0
            scene.look_at_what_a_reader_sees()
            scene.do_again()
    at_instants, tries = 0, 0
    while at_instants < KILLS // 2 and tries < 2 * KILLS:
        scene.put_back()
        for _ in range(IN_A_ROW):
            tries += 1
            instant = rng.uniform(0, scene.seconds)
            killed = scene.begin()
            time.sleep(instant)
            killed.kill()
            with told_with(f"killed after {instant:.3f} seconds, by seed {SEED}", killed):
                assert killed.wait() in (-signal.SIGKILL, 0)
                at_instants += killed.wait() != 0
                scene.look_at_what_a_reader_sees()
        with told_with(f"killed {IN_A_ROW} times, by seed {SEED}", killed):
            scene.do_again()
    print(f"\nkilled with seed {SEED}: {at_calls} at calls, {at_instants} at instants")
    assert at_calls > 0.9 * len(points)
    assert at_instants >= KILLS // 4, "and so it was killed"
