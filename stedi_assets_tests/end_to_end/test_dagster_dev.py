"""`dagster dev` really running, as `make dev` starts it: files become tables without a click.

Nothing here is a stand-in: its own processes, its own Dagster home with the project's settings, and
files that are dropped, replaced and deleted while it runs.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from stedi_assets.definitions import defs
from stedi_assets.jobs import ONE_AT_A_TIME
from stedi_assets.lake import Lake
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.landing_files import (
    counts_by_date,
    customer,
    device,
    land,
    landed,
    phone,
    rows_by_date,
)
from stedi_assets_tests.storages import AnyPath, root_of

pytestmark = [pytest.mark.long, pytest.mark.s3]

ROOT = Path(__file__).parents[2]
PATIENCE = 150
"""How many seconds to wait for what should come; twenty are usual, on a machine at leisure."""

STARTED = dg.DagsterRunStatus.STARTED


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster home with the project's settings and nothing else."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


class DagsterDev:
    """`dagster dev` and all processes that it starts, which are one process group."""

    def __init__(self, home: Path, lake: Lake) -> None:
        self.home = home
        self.log = home.with_name("dagster dev.log")
        settings = {
            "DAGSTER_HOME": str(home),
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
            "STEDI_LAKE": str(root_of(lake)),
        }
        # A shell without a terminal has its background jobs ignore what Ctrl-C sends.
        ours = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with self.log.open("a") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "dagster", "dev", "--port", str(free_port())],
                    cwd=ROOT,  # where its workspace.yaml is
                    env={**os.environ, **settings},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        finally:
            signal.signal(signal.SIGINT, ours)

    def end(self, by: signal.Signals) -> None:
        """Send all of its processes a signal, and wait for each of them to be gone.

        Raises:
            AssertionError: some live on.
        """
        os.killpg(self.process.pid, by)
        self.process.wait(PATIENCE)
        until = time.monotonic() + PATIENCE
        while living := self.processes():
            assert time.monotonic() < until, f"these live on: {living}"
            time.sleep(0.5)

    def processes(self) -> list[str]:
        """Those of its processes that live."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True
        )
        fields = (line.split(maxsplit=2) for line in listed.stdout.splitlines())
        return [
            arguments
            for group, state, arguments in fields
            if int(group) == self.process.pid and not state.startswith("Z")
        ]

    def told(self) -> str:
        """What it wrote to the terminal."""
        return self.log.read_text()

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.RunRecord]:
        """The runs in its Dagster home, oldest first."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            wanted = dg.RunsFilter(statuses=statuses) if statuses else None
            return list(instance.get_run_records(wanted, ascending=True))

    def health(self) -> WorkerStatus:
        """Whether Dagster finds the process of the run that has started."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            (run,) = instance.get_runs(dg.RunsFilter(statuses=[STARTED]))
            return instance.run_launcher.check_run_worker_health(run).status

    def wait_until(self, what: str, came: Callable[[], bool]) -> None:
        """Wait for something to come about.

        Raises:
            AssertionError: it does not, or `dagster dev` ends before.
        """
        until = time.monotonic() + PATIENCE
        while not came():
            ended = self.process.poll() is not None
            assert not ended, f"dagster dev ended before {what}:\n{self.told()[-9000:]}"
            late = time.monotonic() > until
            assert not late, f"not {what} within {PATIENCE} seconds:\n{self.told()[-9000:]}"
            time.sleep(0.5)


@contextmanager
def dagster_dev(home: Path, lake: Lake) -> Iterator[DagsterDev]:
    """`dagster dev` over a lake; what of it lives at the end is killed."""
    dev = DagsterDev(home, lake)
    try:
        yield dev
    finally:
        if dev.processes():
            dev.end(signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def leave_alone(*paths: AnyPath) -> None:
    """Make files ones that were written long enough ago to be read; on S3 they have to wait."""
    for path in paths:
        if isinstance(path, Path):
            os.utime(path, (1_691_280_000, 1_691_280_000))


def counts(lake: Lake) -> dict[str, dict[str, int]]:
    """The number of rows of every table by date, of dates that have rows."""
    return {
        name: {day: rows for day, rows in counts_by_date(lake, name).items() if rows}
        for name in TABLES
    }


def errors(told: str) -> list[str]:
    """Lines that say that something went wrong."""
    return [
        line
        for line in told.splitlines()
        if re.search(r"\b(ERROR|CRITICAL|Traceback|\w+Error|\w*Exception)\b", line)
    ]


def test_the_settings_let_one_run_at_a_time_write_the_lake(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue
        assert queue.max_concurrent_runs == 4
        ((key, value),) = ONE_AT_A_TIME.items()
        assert queue.tag_concurrency_limits == [{"key": key, "value": value, "limit": 1}]
        assert instance.run_monitoring_enabled


@pytest.mark.filterwarnings(
    # Dagster says so of itself, whenever it gives the job of a sensor its resources.
    "ignore:Parameter .owners. of initializer .SensorDefinition:dagster.BetaWarning"
)
def test_every_job_is_one_that_writes_the_lake() -> None:
    jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    assert {job.name for job in jobs} == {"bring_up_to_date", "forget", "reconcile", "report"}
    for job in jobs:
        assert ONE_AT_A_TIME.items() <= job.run_tags.items()


FIRST, THIRD, LATER = "2023-08-06", "2023-08-08", "2023-08-09"


def drop_two_dates(lake: Lake) -> None:
    """Files of all sources on one date, and of two on another; bob does not consent."""
    ann, bob = customer("ann@test.com", "s"), customer("bob@test.com", "t", consent=None)
    phones = [phone("ann@test.com", time) for time in range(100, 120)]
    leave_alone(
        land(lake, "customer", FIRST, ann, bob),
        land(lake, "accelerometer", FIRST, *phones, phone("bob@test.com", 100), "{spoilt"),
        land(lake, "step_trainer", FIRST, device(100, "s"), device(101, "t")),
        # The reading of 101 was delivered before.
        land(lake, "accelerometer", THIRD, phone("ann@test.com", 101), phone("ann@test.com", 200)),
        land(lake, "step_trainer", THIRD, device(200, "s")),
    )


OF_TWO_DATES = {
    "customer_landing": {FIRST: 2},
    "accelerometer_landing": {FIRST: 21, THIRD: 2},
    "step_trainer_landing": {FIRST: 2, THIRD: 1},
    "customer_trusted": {FIRST: 1},
    "accelerometer_trusted": {FIRST: 20, THIRD: 1},
    "customers_curated": {FIRST: 1},
    "step_trainer_trusted": {FIRST: 1, THIRD: 1},
    "machine_learning_curated": {FIRST: 1, THIRD: 1},
    "customer_rejects": {},
    "accelerometer_rejects": {FIRST: 1},
    "step_trainer_rejects": {},
}


@pytest.mark.long
def test_files_become_tables_and_earlier_dates_follow_later_ones(home: Path, lake: Lake) -> None:
    with dagster_dev(home, lake) as dev:
        dev.wait_until("there", lambda: "Serving dagster-webserver" in dev.told())
        with lake.writing():  # so that no run can end
            drop_two_dates(lake)
            dev.wait_until("two runs were asked for", lambda: len(dev.runs()) == 2)
            dev.wait_until("one of them had started", lambda: bool(dev.runs(STARTED)))
            assert sorted(map(dates, dev.runs())) == [(FIRST, FIRST), (THIRD, THIRD)]
            assert not any(counts(lake).values())
        dev.wait_until("the tables of two dates were made", lambda: counts(lake) == OF_TWO_DATES)
        dev.wait_until("at rest", lambda: at_rest(dev.runs()))

        # Bob consents, late, and a file that was there is not there any more.
        consent = land(lake, "customer", LATER, customer("bob@test.com", "t", updated=20))
        landed(lake, "step_trainer", THIRD).unlink()
        leave_alone(consent)
        followed = OF_TWO_DATES | {
            "customer_landing": {FIRST: 2, LATER: 1},
            "step_trainer_landing": {FIRST: 2},
            "customer_trusted": {FIRST: 1, LATER: 1},
            "accelerometer_trusted": {FIRST: 21, THIRD: 1},
            "customers_curated": {FIRST: 1, LATER: 1},
            "step_trainer_trusted": {FIRST: 2},
            "machine_learning_curated": {FIRST: 3},
        }
        dev.wait_until("earlier dates followed later ones", lambda: counts(lake) == followed)
        pairs = [
            dict(zip(TABLES["machine_learning_curated"].column_names, row, strict=True))
            for row in rows_by_date(lake, "machine_learning_curated")[FIRST].elements()
        ]
        assert sorted((row["sensorreadingtime"], row["same_customer"]) for row in pairs) == [
            (100, False),  # ann's device and bob's phone
            (100, True),
            (101, False),  # bob's device and ann's phone
        ]

        runs: list[dg.RunRecord] = []

        def rests() -> bool:
            runs[:] = dev.runs()  # a look later there may be a new one
            return at_rest(runs)

        dev.wait_until("at rest", rests)
        assert counts(lake) == followed
        dev.end(signal.SIGINT)  # as Ctrl-C does

    assert {run.dagster_run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert (root_of(lake) / "reports" / "latest.html").is_file()
    made = [run for run in runs if run.dagster_run.job_name == "bring_up_to_date"]
    asked = [(FIRST, FIRST), (THIRD, THIRD)]
    # A tick sees both changes, or the third date's alone, while the consent is not yet left alone;
    # and what a reconciliation that starts just then reads, nobody has to ask for.
    third, later = (THIRD, THIRD), (LATER, LATER)
    then = [[], [third], [later], [(THIRD, LATER)], [third, later]]
    assert sorted(dates(run) for run in made) in [asked + more for more in then]
    times = sorted((run.start_time or 0, run.end_time or 0) for run in runs)
    for (_, end), (start, _) in pairwise(times):
        assert end <= start, "two runs wrote the lake at the same time"
    assert errors(dev.told()) == []


def dates(run: dg.RunRecord) -> tuple[str, str]:
    """The first and the last ingestion date of a run."""
    tags = run.dagster_run.tags
    return (
        tags.get("dagster/partition") or tags["dagster/asset_partition_range_start"],
        tags.get("dagster/partition") or tags["dagster/asset_partition_range_end"],
    )


def at_rest(runs: list[dg.RunRecord]) -> bool:
    """Whether all runs have ended, the last of them a reconciliation, and a report after it."""
    in_order = sorted(runs, key=lambda run: run.start_time or 0)
    return all(run.dagster_run.is_finished for run in runs) and [
        run.dagster_run.job_name for run in in_order[-2:]
    ] == ["reconcile", "report"]


@pytest.mark.long
def test_what_was_killed_in_the_middle_of_a_run_goes_on_when_it_is_started_again(
    home: Path, lake: Lake
) -> None:
    """The run that was killed must not keep its place in the queue, where there is one place."""
    with dagster_dev(home, lake) as dev:
        dev.wait_until("there", lambda: "Serving dagster-webserver" in dev.told())
        with lake.writing():  # so that no run can end
            drop_two_dates(lake)
            dev.wait_until("a run had started", lambda: bool(dev.runs(STARTED)))
            assert dev.health() is WorkerStatus.RUNNING
            dev.end(signal.SIGKILL)
            assert dev.health() is WorkerStatus.NOT_FOUND
        assert not any(counts(lake).values())
    with dagster_dev(home, lake) as dev:
        dev.wait_until("the tables of two dates were made", lambda: counts(lake) == OF_TWO_DATES)
