"""`dagster dev` really running, as `make dev` starts it: files become tables without a click.

Nothing here is a stand-in: its own processes, its own Dagster home with the project's settings, and
files that are dropped, replaced and deleted while it runs.
"""

import os
import re
import signal
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from stedi_assets.definitions import defs
from stedi_assets.jobs import ONE_AT_A_TIME
from stedi_assets.lake import Lake
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.dagster_dev import STARTED, dagster_dev, new_home
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

pytestmark = pytest.mark.long


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster home with the project's settings and nothing else."""
    folder = new_home(tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def leave_alone(*paths: AnyPath) -> None:
    """Make files ones that were written long enough ago to be read."""
    for path in paths:
        os.utime(str(path), (1_691_280_000, 1_691_280_000))


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
def test_every_job_that_writes_the_lake_is_one_at_a_time() -> None:
    jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    names = {"bring_up_to_date", "forget", "reconcile", "report", "sample_files"}
    assert {job.name for job in jobs} == {*names, "prune"}
    for job in jobs:
        assert (ONE_AT_A_TIME.items() <= job.run_tags.items()) == (job.name in names)


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
