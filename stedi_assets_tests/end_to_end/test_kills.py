"""Jobs killed at calls of the storage and at random instants, on a disk and on S3.

After each kill a reader sees whole files, old or new; doing it again gives what an undisturbed job
gives, and nothing is left of what was unfinished.

`STEDI_TEST_KILLS` says how often each job is killed at a call, and half as often at an instant;
`STEDI_TEST_KILLS_SEED` which ones. Those kills come in rows: the job that is to mend the rest is
killed as well, and one in four left alone. `STEDI_TEST_KILLS_AT=each` kills at every call that
changes something instead, one by one, and `=all` also at those that only read.
"""

import itertools
import os
import random
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
IN_A_ROW = 4
"""How often a job and those that do it again are killed before one is left alone."""


@dataclass(frozen=True)
class Blow:
    """What kills a job.

    Attributes:
        where: in words.
        prepare: kills the process from within.
        seconds: of CPU time, after which it is killed from outside.
    """

    where: str
    prepare: Dying | None = None
    seconds: float | None = None


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


def kill(scene: Scene, blows: Iterator[Blow], in_a_row: int) -> int:
    """Have a job and those that do it again killed, and then leave one alone.

    Returns:
        How many were killed: one that has less to do than the first can end before it is hit.
    """
    scene.put_back()
    killed = 0
    before: list[str] = []
    for blow in itertools.islice(blows, in_a_row):
        job = scene.begin(blow.prepare)
        if blow.seconds is not None:
            job.kill_at(blow.seconds)
        before.append(blow.where)
        with told_with(f"killed {', then '.join(before)}, by seed {SEED}", job):
            assert job.wait() in (-signal.SIGKILL, 0)
            killed += job.wait() != 0
            scene.look_at_what_a_reader_sees(after_others=len(before) > 1)
    with told_with(f"killed {', then '.join(before)}, by seed {SEED}", job):
        scene.do_again()
    return killed


def at_calls(scene: Scene, points: Iterable[int]) -> Iterator[Blow]:
    for point in points:
        yield Blow(f"at {scene.points[point - 1]}", prepare=Dying(point))


def at_instants(scene: Scene, rng: random.Random) -> Iterator[Blow]:
    for number in itertools.count():
        # What mends the rest of a killed one has less to do.
        seconds = rng.uniform(0, scene.seconds / (2 if number % IN_A_ROW else 1))
        yield Blow(f"after {seconds:.3f} seconds of CPU", seconds=seconds)


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
        # Early calls first: one that is done is none that can be killed the next time.
        rows = [sorted(rng.sample(points, IN_A_ROW)) for _ in range(KILLS)]
    else:
        rows = [[point] for point in points]
    of_calls = of_instants = tries = 0
    for row in rows:
        if of_calls < KILLS or AT != "some":
            of_calls += kill(scene, at_calls(scene, row), len(row))
    assert of_calls >= (KILLS if AT == "some" else 0.9 * len(points))
    instants = at_instants(scene, rng)
    while of_instants < KILLS // 2 and tries < 3 * KILLS:
        tries += IN_A_ROW
        of_instants += kill(scene, instants, IN_A_ROW)
    print(f"\nkilled with seed {SEED}: {of_calls} at calls, {of_instants} at instants")
    assert of_instants >= KILLS // 2, "and so it was killed"
