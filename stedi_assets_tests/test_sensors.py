"""The sensors tick by tick, as the daemon ticks them, and the runs that they ask for.

Ticks and runs are the project's own, on a real Dagster instance that is kept in memory; between the
ticks files come, change and go as they do in a landing zone.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._utils.schedules import cron_string_iterator

from stedi_assets import jobs, sensors
from stedi_assets.definitions import defs
from stedi_assets.lake import Lake
from stedi_assets.sensors import (
    MisplacedFilesError,
    every_night,
    finished_runs,
    landing_files,
    prune_every_night,
    settled_lake,
)
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.landing_files import (
    QUIET,
    Record,
    counts_by_date,
    customer,
    device,
    file_of,
    land,
    landed,
    phone,
    resources_of,
    rows_by_date,
    run,
    twin,
)
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.storages import (
    ON_S3,
    AnyPath,
    S3Path,
    files_in,
    only_on_disk,
    opened,
    room_for_lakes,
    root_of,
    same_files,
)

pytestmark = pytest.mark.filterwarnings(
    # Dagster says so of itself, whenever it gives the job of a sensor its resources.
    "ignore:Parameter .owners. of initializer .SensorDefinition:dagster.BetaWarning"
)

SETTINGS = Path(__file__).parents[1] / "dagster_home" / "dagster.yaml"

LONG_AGO = datetime(2023, 8, 1, tzinfo=UTC).timestamp()

ALREADY_MADE = "The tables are made from these landing files already."


class Daemon:
    """What Dagster's daemon does with the sensors of a lake: ticks, cursors, and runs."""

    def __init__(self, lake: Lake, instance: dg.DagsterInstance) -> None:
        self.lake = lake
        self.instance = instance
        self.cursors: dict[str, str | None] = {}

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The project's, over this lake."""
        return dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            jobs=defs.jobs,
            sensors=defs.sensors,
            schedules=defs.schedules,
            resources=resources_of(root_of(self.lake)),
            executor=defs.executor,
        )

    def tick(self, name: str = "landing_files") -> SensorExecutionData:
        """Evaluate a sensor; the next tick goes on from the cursor that it leaves."""
        repository = self.definitions.get_repository_def()
        sensor = repository.get_sensor_def(name)
        wanted = {"lake": self.lake} if "lake" in sensor.required_resource_keys else {}
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(name),
            repository_def=repository,
            resources=wanted,
        )
        found = sensor.evaluate_tick(context)
        self.cursors[name] = found.cursor
        return found

    def asked(self) -> list[dg.RunRequest]:
        """The runs that a tick over the landing files asks for."""
        found = self.tick()
        assert bool(found.run_requests) != bool(found.skip_message)
        return list(found.run_requests or [])

    def asked_for_one(self) -> dg.RunRequest:
        """The run that a tick over the landing files asks for, and no other."""
        (request,) = self.asked()
        return request

    def skips(self, name: str = "landing_files") -> str:
        """Why a tick asks for nothing."""
        found = self.tick(name)
        assert not found.run_requests
        assert found.skip_message
        return found.skip_message

    def asked_to_reconcile(self) -> dg.RunRequest:
        """The reconciliation that a tick over the runs asks for."""
        (request,) = self.tick("finished_runs").run_requests or []
        return request

    def asked_to_report(self) -> dg.RunRequest:
        """The report that a tick over the runs asks for."""
        (request,) = self.tick("settled_lake").run_requests or []
        return request

    def run(self, request: dg.RunRequest, job_name: str = "reconcile") -> dg.ExecuteInProcessResult:
        """Run what was asked for; the asset job, if assets were."""
        job = self.definitions.resolve_job_def(
            "bring_up_to_date" if request.asset_selection else job_name
        )
        if request.asset_selection:
            job = job.get_subset(
                asset_selection=set(request.asset_selection),
                asset_check_selection=set(request.asset_check_keys or []),
            )
        return job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            run_config={**request.run_config, **QUIET},
            raise_on_error=False,
        )

    def keep_up(self) -> None:
        """Tick and run until no sensor asks for anything."""
        while requests := [
            *(self.tick().run_requests or []),
            *(self.tick("finished_runs").run_requests or []),
        ]:
            for request in requests:
                assert self.run(request).success


@pytest.fixture
def daemon(lake: Lake) -> Iterator[Daemon]:
    """The daemon over an empty lake."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(lake, instance)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake with two dates, on the first of which each source has a file, and all tables."""
    with room_for_lakes(tmp_path_factory.mktemp("made once")) as root:
        lake = opened(root)
        drop(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
        drop(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
        drop(lake, "step_trainer", "2023-08-06", device(100, "s"))
        drop(lake, "customer", "2023-08-07", customer("bob@test.com", "t"))
        drop(lake, "accelerometer", "2023-08-07", phone("ann@test.com", 200))
        assert run(lake, "2023-08-06", "2023-08-07").success
        yield lake


@pytest.fixture
def made(made_once: Lake, lakes: AnyPath) -> Iterator[Daemon]:
    """The daemon over a lake whose files it has seen, and whose tables are made from them."""
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(twin(made_once, lakes / "made"), instance)
        assert daemon.skips() == ALREADY_MADE
        yield daemon


def drop(
    lake: Lake, source: str, day: str, *records: Record | str, name: str = "file.json"
) -> AnyPath:
    """Write a landing file, and leave it alone for long enough."""
    return leave_alone(land(lake, source, day, *records, name=name))


def leave_alone(path: AnyPath, seconds: float | None = None) -> AnyPath:
    """Make a file one that was last written so many seconds ago, or long ago; not one on S3."""
    if isinstance(path, Path):
        modified = LONG_AGO if seconds is None else time.time() - seconds
        os.utime(path, (modified, modified))
    return path


NEEDS_TIMES = only_on_disk("nobody but S3 says when an object was written")


@pytest.fixture(autouse=True)
def _nothing_waits_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """For no test can make an object old; that it waits until it was left alone is tested below."""
    if ON_S3:
        for module in (jobs, sensors):
            monkeypatch.setattr(module, "SETTLED_AFTER", timedelta(0))


JUST_NOW = -4
"""Seconds since a file was written, by the clock of a disk that runs ahead of the machine's: so a
tick on a slow machine still comes within five seconds."""


def names(request: dg.RunRequest) -> set[str]:
    """The tables that a run makes."""
    return {key.to_user_string() for key in request.asset_selection or []}


def dates(request: dg.RunRequest) -> tuple[str, str]:
    """The first and the last ingestion date of a run."""
    if request.partition_key:
        return request.partition_key, request.partition_key
    return (
        request.tags["dagster/asset_partition_range_start"],
        request.tags["dagster/asset_partition_range_end"],
    )


def held(lake: Lake) -> dict[str, dict[str, Counter[tuple[Any, ...]]]]:
    """The rows of all tables by date, of dates that have rows."""
    return {
        name: {day: rows for day, rows in rows_by_date(lake, name).items() if rows}
        for name in TABLES
    }


def made_at_once(lake: Lake, root: AnyPath, first: str, last: str) -> Lake:
    """A fresh lake with the same landing files, from one run over them."""
    fresh = opened(root)
    same_files(root_of(lake), "*/landing/*/*", root)
    assert run(fresh, first, last).success
    return fresh


# What a tick sees, and what it asks for.


def test_without_files_nothing_is_asked_for(daemon: Daemon) -> None:
    assert daemon.skips() == "There are no landing files."
    assert daemon.skips() == "There are no landing files."


@pytest.mark.s3
def test_a_new_file_is_asked_for_once(daemon: Daemon) -> None:
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    assert dates(daemon.asked_for_one()) == ("2023-08-06", "2023-08-06")
    assert daemon.skips() == "No landing file is new, replaced or gone on 1 ingestion dates."
    assert daemon.skips() == "No landing file is new, replaced or gone on 1 ingestion dates."


def test_the_run_that_is_asked_for_makes_the_tables(daemon: Daemon) -> None:
    lake = daemon.lake
    drop(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    drop(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100), phone("x@test.com", 100))
    drop(lake, "step_trainer", "2023-08-06", device(100, "s"), device(100, "x"), device(101, "s"))
    assert daemon.run(daemon.asked_for_one()).success
    assert {name: counts_by_date(lake, name) for name in TABLES} == {
        name: {"2023-08-06": rows}
        for name, rows in {
            "customer_landing": 1,
            "accelerometer_landing": 2,
            "step_trainer_landing": 3,
            "customer_trusted": 1,
            "accelerometer_trusted": 1,
            "customers_curated": 1,
            "step_trainer_trusted": 2,
            "machine_learning_curated": 1,
            "customer_rejects": 0,
            "accelerometer_rejects": 0,
            "step_trainer_rejects": 0,
        }.items()
    }
    assert daemon.skips() == "No landing file is new, replaced or gone on 1 ingestion dates."


@pytest.mark.s3
@pytest.mark.long
def test_a_second_file_of_a_date_is_asked_for(made: Daemon) -> None:
    drop(made.lake, "customer", "2023-08-07", customer("cy@test.com", "u"), name="late.json")
    assert dates(made.asked_for_one()) == ("2023-08-07", "2023-08-07")
    assert made.skips().startswith("No landing file is new")


@pytest.mark.s3
def test_a_replaced_file_is_asked_for_by_another_run_key(daemon: Daemon) -> None:
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    drop(daemon.lake, "customer", "2023-08-08", customer("bob@test.com", "t"))
    first, _ = daemon.asked()
    drop(daemon.lake, "customer", "2023-08-06", customer("amy@test.com", "s"))
    again = daemon.asked_for_one()
    assert dates(again) == dates(first) == ("2023-08-06", "2023-08-06")
    assert again.run_key != first.run_key


@pytest.mark.s3
def test_a_file_that_was_written_to_is_asked_for(made: Daemon) -> None:
    path = landed(made.lake, "accelerometer", "2023-08-07")
    content = path.read_bytes()
    path.unlink()  # the file of the lake that this one is a twin of stays as it is
    path.write_bytes(content)
    leave_alone(path)
    if ON_S3:
        assert made.skips().startswith("No landing file is new"), "the same bytes, the same ETag"
    else:
        assert dates(made.asked_for_one()) == ("2023-08-07", "2023-08-07")
    path.write_bytes(content + json.dumps(phone("ann@test.com", 201)).encode() + b"\n")
    leave_alone(path)
    assert dates(made.asked_for_one()) == ("2023-08-07", "2023-08-07")


@pytest.mark.s3
def test_a_moved_file_is_asked_for_on_the_dates_from_which_and_to_which_it_went(
    made: Daemon,
) -> None:
    to = landed(made.lake, "accelerometer", "2023-08-10")
    to.parent.mkdir()
    landed(made.lake, "accelerometer", "2023-08-07").rename(to)
    assert list(map(dates, made.asked())) == [
        ("2023-08-07", "2023-08-07"),
        ("2023-08-10", "2023-08-10"),
    ]


@pytest.mark.long
def test_rows_of_a_deleted_file_leave_its_table_and_all_that_hang_on_it(
    made: Daemon, lakes: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "the same for both")
    landed(made.lake, "customer", "2023-08-06").unlink()
    request = made.asked_for_one()
    assert dates(request) == ("2023-08-06", "2023-08-06")
    assert made.skips().startswith("No landing file is new")
    assert made.run(request).success
    for name in (
        "customer_landing",
        "customer_trusted",
        "accelerometer_trusted",
        "customers_curated",
        "step_trainer_trusted",
        "machine_learning_curated",
    ):
        assert counts_by_date(made.lake, name)["2023-08-06"] == 0, name
    assert counts_by_date(made.lake, "accelerometer_trusted")["2023-08-07"] == 1
    made.keep_up()  # the reading of a later date was ann's as well
    assert counts_by_date(made.lake, "accelerometer_trusted")["2023-08-07"] == 0
    fresh = made_at_once(made.lake, lakes / "fresh", "2023-08-06", "2023-08-07")
    assert held(made.lake) == held(fresh)


def test_the_last_file_of_a_date_leaves_nothing_of_it_that_is_looked_for(made: Daemon) -> None:
    for source in ("customer", "accelerometer"):
        landed(made.lake, source, "2023-08-07").unlink()
    assert dates(made.asked_for_one()) == ("2023-08-07", "2023-08-07")
    assert made.skips() == "No landing file is new, replaced or gone on 1 ingestion dates."


@pytest.mark.s3
def test_when_all_files_are_gone_the_tick_after_says_so(made: Daemon) -> None:
    for path in root_of(made.lake).glob("*/landing/*/*"):
        path.unlink()
    assert dates(made.asked_for_one()) == ("2023-08-06", "2023-08-07")
    assert made.skips() == "There are no landing files."


# Several dates at once.


@pytest.mark.long
def test_three_dates_in_a_row_are_one_run(daemon: Daemon) -> None:
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    drop(daemon.lake, "accelerometer", "2023-08-07", phone("ann@test.com", 100))
    drop(daemon.lake, "step_trainer", "2023-08-08", device(100, "s"))
    request = daemon.asked_for_one()
    assert dates(request) == ("2023-08-06", "2023-08-08")
    assert names(request) == TABLES.keys()
    assert daemon.run(request).success
    assert counts_by_date(daemon.lake, "machine_learning_curated")["2023-08-08"] == 1
    assert counts_by_date(daemon.lake, "customer_landing") == {
        "2023-08-06": 1,
        "2023-08-07": 0,
        "2023-08-08": 0,
    }


def test_three_dates_with_a_gap_are_two_runs(daemon: Daemon) -> None:
    for day in ("2023-08-06", "2023-08-07", "2023-08-09"):
        drop(daemon.lake, "step_trainer", day, device(100, "s"))
    requests = daemon.asked()
    assert list(map(dates, requests)) == [
        ("2023-08-06", "2023-08-07"),
        ("2023-08-09", "2023-08-09"),
    ]
    assert requests[0].run_key != requests[1].run_key


def test_dates_between_which_nothing_changed_are_two_runs(daemon: Daemon) -> None:
    for day in ("2023-08-06", "2023-08-07", "2023-08-08"):
        drop(daemon.lake, "step_trainer", day, device(100, "s"))
    assert len(daemon.asked()) == 1
    for day in ("2023-08-06", "2023-08-08"):
        drop(daemon.lake, "step_trainer", day, device(101, "s"))
    assert list(map(dates, daemon.asked())) == [
        ("2023-08-06", "2023-08-06"),
        ("2023-08-08", "2023-08-08"),
    ]


def test_dates_across_a_month_and_a_leap_day_are_one_run(daemon: Daemon) -> None:
    for day in ("2024-02-28", "2024-02-29", "2024-03-01"):
        drop(daemon.lake, "step_trainer", day, device(100, "s"))
    assert dates(daemon.asked_for_one()) == ("2024-02-28", "2024-03-01")


# Which tables.

AFTER = {
    "customer": {
        "customer_landing",
        "customer_rejects",
        "customer_trusted",
        "accelerometer_trusted",
        "customers_curated",
        "step_trainer_trusted",
        "machine_learning_curated",
    },
    "accelerometer": {
        "accelerometer_landing",
        "accelerometer_rejects",
        "customer_trusted",
        "accelerometer_trusted",
        "customers_curated",
        "step_trainer_trusted",
        "machine_learning_curated",
    },
    "step_trainer": {
        "step_trainer_landing",
        "step_trainer_rejects",
        "customer_trusted",
        "customers_curated",
        "step_trainer_trusted",
        "machine_learning_curated",
    },
}
RECORDS: dict[str, Record] = {
    "customer": customer("cy@test.com", "u"),
    "accelerometer": phone("bob@test.com", 300),
    "step_trainer": device(200, "s"),
}


@pytest.mark.parametrize("source", AFTER)
def test_a_file_of_a_source_makes_its_tables_and_all_after_them_and_no_other(
    made: Daemon, source: str
) -> None:
    drop(made.lake, source, "2023-08-07", RECORDS[source], name="more.json")
    before = files_in(root_of(made.lake))
    request = made.asked_for_one()
    assert names(request) == AFTER[source]
    checked = {check.asset_key.to_user_string() for check in request.asset_check_keys or []}
    assert checked == AFTER[source]
    result = made.run(request)
    assert result.success
    assert {
        evaluation.asset_key.to_user_string() for evaluation in result.get_asset_check_evaluations()
    } == AFTER[source]
    after = files_in(root_of(made.lake))
    written = {path for path, file in after.items() if before.get(path) != file}
    of_the_date = {file_of(made.lake, name, "2023-08-07") for name in AFTER[source]}
    # A table that is restated writes the other dates whose rows are others now, and no more.
    restated = {
        path
        for name in ("customer_trusted", "customers_curated")
        for path in (root_of(made.lake) / TABLES[name].path).rglob("*.parquet")
    }
    assert of_the_date <= written <= of_the_date | restated


def test_files_of_two_sources_make_the_tables_after_either(made: Daemon) -> None:
    for source in ("accelerometer", "step_trainer"):
        drop(made.lake, source, "2023-08-07", RECORDS[source], name="more.json")
    assert names(made.asked_for_one()) == AFTER["accelerometer"] | AFTER["step_trainer"]


def test_every_date_in_a_run_of_its_own_has_its_own_tables(made: Daemon) -> None:
    drop(made.lake, "step_trainer", "2023-08-06", device(7, "s"), name="more.json")
    drop(made.lake, "customer", "2023-08-10", customer("cy@test.com", "u"))
    assert [(dates(request)[0], names(request)) for request in made.asked()] == [
        ("2023-08-06", AFTER["step_trainer"]),
        ("2023-08-10", AFTER["customer"]),
    ]


# States that come back.


@pytest.mark.s3
@pytest.mark.long
def test_a_state_that_comes_back_runs_again(daemon: Daemon, lakes: AnyPath) -> None:
    """A run key that named only the state would be one that Dagster has seen, and drop the run."""
    lake = daemon.lake
    path = drop(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    first = state(path)
    requests = [daemon.asked_for_one()]
    path.rename(lakes / "aside")
    drop(lake, "customer", "2023-08-06", customer("bob@test.com", "t"))
    requests.append(daemon.asked_for_one())
    assert daemon.run(requests[-1]).success
    (lakes / "aside").replace(path)
    assert state(path) == first
    requests.append(daemon.asked_for_one())
    assert daemon.run(requests[-1]).success
    assert len({request.run_key for request in requests}) == 3
    (row,) = rows_by_date(lake, "customer_landing")["2023-08-06"]
    assert "ann@test.com" in row


@pytest.mark.s3
def test_a_file_that_is_deleted_and_restored_runs_each_time(daemon: Daemon, lakes: AnyPath) -> None:
    path = drop(daemon.lake, "accelerometer", "2023-08-07", phone("ann@test.com", 100))
    first, keys = state(path), [daemon.asked_for_one().run_key]
    for _ in range(2):
        path.rename(lakes / "aside")
        keys.append(daemon.asked_for_one().run_key)
        (lakes / "aside").rename(path)
        assert state(path) == first
        keys.append(daemon.asked_for_one().run_key)
    assert len(set(keys)) == 5


def state(path: AnyPath) -> tuple[object, ...]:
    """All by which a file is told from another one."""
    if isinstance(path, S3Path):
        found = path.parent.listed()[path]
        return found["Size"], found["ETag"]
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def test_a_state_that_comes_back_before_anything_ran_needs_no_run(
    made: Daemon, lakes: AnyPath
) -> None:
    path = landed(made.lake, "accelerometer", "2023-08-07")
    path.rename(lakes / "aside")
    assert len(made.asked()) == 1
    (lakes / "aside").rename(path)
    assert made.skips() == ALREADY_MADE


def test_a_tick_that_is_repeated_after_a_crash_asks_for_the_same_runs(daemon: Daemon) -> None:
    """Dagster then knows by the run keys those that it started before."""
    for day in ("2023-08-06", "2023-08-08"):
        drop(daemon.lake, "customer", day, customer("ann@test.com", "s"))
    first = daemon.asked()
    daemon.cursors.clear()
    assert daemon.asked() == first
    before = dict(daemon.cursors)
    drop(daemon.lake, "customer", "2023-08-06", customer("amy@test.com", "s"))
    second = daemon.asked()
    daemon.cursors = before
    assert daemon.asked() == second
    assert not {request.run_key for request in first} & {request.run_key for request in second}


def test_after_the_cursor_was_reset_other_files_are_run_by_other_run_keys(daemon: Daemon) -> None:
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    first = daemon.asked_for_one()
    daemon.cursors.clear()
    drop(daemon.lake, "customer", "2023-08-06", customer("amy@test.com", "s"))
    second = daemon.asked_for_one()
    assert dates(second) == dates(first)
    assert second.run_key != first.run_key


# Tables that somebody else made.


@pytest.mark.s3
@pytest.mark.long
def test_the_first_tick_over_a_lake_that_stedi_run_made_asks_for_nothing(daemon: Daemon) -> None:
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    drop(daemon.lake, "accelerometer", "2023-08-08", phone("ann@test.com", 100))
    succeeded(stedi(daemon.lake, "run"))
    assert daemon.skips() == ALREADY_MADE
    assert daemon.skips() == "No landing file is new, replaced or gone on 2 ingestion dates."
    drop(daemon.lake, "customer", "2023-08-06", customer("amy@test.com", "s"))
    assert dates(daemon.asked_for_one()) == ("2023-08-06", "2023-08-06")


def test_of_a_lake_that_is_made_in_part_the_first_tick_asks_for_the_rest(made: Daemon) -> None:
    drop(made.lake, "step_trainer", "2023-08-07", device(200, "s"))
    drop(made.lake, "customer", "2023-08-09", customer("cy@test.com", "u"))
    made.cursors.clear()
    assert [(dates(request)[0], names(request)) for request in made.asked()] == [
        ("2023-08-07", AFTER["step_trainer"]),
        ("2023-08-09", AFTER["customer"]),
    ]


def test_a_new_file_that_somebody_else_has_read_is_not_read_again(made: Daemon) -> None:
    drop(made.lake, "customer", "2023-08-08", customer("cy@test.com", "u"))
    assert run(made.lake, "2023-08-08").success
    assert made.skips() == ALREADY_MADE
    assert made.skips() == "No landing file is new, replaced or gone on 3 ingestion dates."


@pytest.mark.s3
def test_a_file_that_was_deleted_while_nobody_looked_is_found_at_the_first_tick(
    made_once: Lake, lakes: AnyPath
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(twin(made_once, lakes / "lake"), instance)
        landed(daemon.lake, "customer", "2023-08-07").unlink()
        assert dates(daemon.asked_for_one()) == ("2023-08-07", "2023-08-07")


# Runs that fail.


@pytest.mark.long
def test_after_a_failed_run_the_same_files_are_not_asked_for_again_but_mended_ones_are(
    daemon: Daemon,
) -> None:
    lake = daemon.lake
    drop(lake, "customer", "2023-08-06", "{spoilt", "{spoilt as well")
    failed = daemon.asked_for_one()
    assert not daemon.run(failed).success
    assert daemon.skips() == "No landing file is new, replaced or gone on 1 ingestion dates."
    assert counts_by_date(lake, "customer_rejects") == {"2023-08-06": 2}
    assert counts_by_date(lake, "customer_trusted") == {}
    drop(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    mended = daemon.asked_for_one()
    assert mended.run_key != failed.run_key
    assert daemon.run(mended).success
    assert counts_by_date(lake, "customer_rejects") == {"2023-08-06": 0}
    assert counts_by_date(lake, "customer_trusted") == {"2023-08-06": 1}


def test_a_failed_run_holds_up_no_other_date(made: Daemon) -> None:
    drop(made.lake, "customer", "2023-08-09", "{spoilt")
    assert not made.run(made.asked_for_one()).success
    drop(made.lake, "customer", "2023-08-11", customer("cy@test.com", "u"))
    assert dates(made.asked_for_one()) == ("2023-08-11", "2023-08-11")


# Files that belong to no partition.


def misplaced(lake: Lake, day: str) -> str:
    """Drop a file of a date that has no partition; its key."""
    path = drop(lake, "customer", day, customer("old@test.com", "o"))
    return path.relative_to(root_of(lake)).as_posix()


BEFORE_THE_FIRST = r"2021-12-31 .* set STEDI_START_DATE to 2021-12-31 or earlier"
NO_DATE = r"'ingestion_date=2023-02-30' is no date; rename it to ingestion_date=YYYY-MM-DD"


@pytest.mark.s3
@pytest.mark.parametrize(
    ("day", "remedy"), [("2021-12-31", BEFORE_THE_FIRST), ("2023-02-30", NO_DATE)]
)
def test_a_misplaced_file_fails_the_tick_with_file_and_remedy_until_it_is_gone(
    daemon: Daemon, day: str, remedy: str
) -> None:
    key = misplaced(daemon.lake, day)
    for _ in range(2):
        with pytest.raises(MisplacedFilesError, match=f"{key}.*{remedy}"):
            daemon.tick()
    (root_of(daemon.lake) / key).unlink()
    assert daemon.skips() == "There are no landing files."


def test_a_file_of_a_date_to_come_fails_the_tick_with_file_and_remedy(daemon: Daemon) -> None:
    day = datetime.now(UTC).date() + timedelta(days=2)
    key = misplaced(daemon.lake, day.isoformat())
    with pytest.raises(MisplacedFilesError, match=f"{key}.*{day} is in the future: give the files"):
        daemon.tick()


@pytest.mark.s3
def test_todays_file_has_a_partition(daemon: Daemon) -> None:
    today = datetime.now(UTC).date()
    drop(daemon.lake, "customer", str(today), customer("ann@test.com", "s"))
    assert dates(daemon.asked_for_one()) == (str(today), str(today))


@pytest.mark.parametrize(
    ("day", "remedy"),
    [("2021-12-31", "set STEDI_START_DATE to"), ("2023-02-30", "rename it to ingestion_date=")],
)
def test_other_dates_go_on_in_the_tick_that_tells_of_a_misplaced_file(
    daemon: Daemon, day: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = daemon.lake
    key = misplaced(lake, day)
    drop(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    request = daemon.asked_for_one()
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "ERROR" in line]
    assert key in told
    assert remedy in told
    assert dates(request) == ("2023-08-06", "2023-08-06")
    before = dict(daemon.cursors)
    with pytest.raises(MisplacedFilesError, match=key):
        daemon.tick()
    assert daemon.cursors == before
    drop(lake, "customer", "2023-08-08", customer("bob@test.com", "t"))
    assert dates(daemon.asked_for_one()) == ("2023-08-08", "2023-08-08")


def test_of_many_misplaced_files_the_message_names_some_and_counts_the_rest(daemon: Daemon) -> None:
    for number in range(8):
        drop(daemon.lake, "customer", "2021-12-31", RECORDS["customer"], name=f"{number}.json")
    with pytest.raises(MisplacedFilesError, match=r"/0\.json, .*/4\.json and 3 more: "):
        daemon.tick()


@only_on_disk("S3 has no folders; what it refuses is in lake/test_s3.py")
def test_a_folder_that_cannot_be_read_fails_the_tick_and_is_not_taken_for_an_empty_one(
    made: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the system's refusal, for tests may run as root, who may read everything."""
    scandir, before = os.scandir, dict(made.cursors)

    def refuse(path: str) -> object:
        if "accelerometer/landing" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        with pytest.raises(PermissionError, match="accelerometer/landing"):
            made.tick()
    assert made.cursors == before
    assert made.skips() == "No landing file is new, replaced or gone on 2 ingestion dates."


# Files that are still being written.


def test_a_file_of_just_now_waits_until_it_was_left_alone(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "SETTLED_AFTER", timedelta(seconds=3))
    land(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    assert "ingestion_date=2023-08-06/file.json may still be written to" in daemon.skips()
    time.sleep(4)
    assert dates(daemon.asked_for_one()) == ("2023-08-06", "2023-08-06")


@NEEDS_TIMES
def test_a_file_that_may_still_be_written_to_waits_for_the_next_tick(daemon: Daemon) -> None:
    path = land(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    leave_alone(path, JUST_NOW)
    key = "customer/landing/ingestion_date=2023-08-06/file.json"
    for _ in range(2):
        assert daemon.skips() == (
            f"{key} may still be written to; it is read when it has been left alone for 5 seconds."
        )
    leave_alone(path, 5)
    assert dates(daemon.asked_for_one()) == ("2023-08-06", "2023-08-06")


@NEEDS_TIMES
def test_a_file_that_grows_does_not_hold_up_other_dates(daemon: Daemon) -> None:
    lake = daemon.lake
    for day in ("2023-08-06", "2023-08-07", "2023-08-08"):
        drop(lake, "customer", day, customer("ann@test.com", "s"))
    growing = leave_alone(landed(lake, "customer", "2023-08-07"), JUST_NOW)
    assert list(map(dates, daemon.asked())) == [
        ("2023-08-06", "2023-08-06"),
        ("2023-08-08", "2023-08-08"),
    ]
    assert "ingestion_date=2023-08-07/file.json may still be written to" in daemon.skips()
    leave_alone(growing)
    assert dates(daemon.asked_for_one()) == ("2023-08-07", "2023-08-07")


@NEEDS_TIMES
def test_a_date_of_a_source_waits_as_a_whole_for_a_file_that_grows(made: Daemon) -> None:
    """So that files of a day that come one after the other are one run."""
    landed(made.lake, "accelerometer", "2023-08-07").unlink()
    growing = drop(made.lake, "accelerometer", "2023-08-07", phone("x@test.com", 1), name="2.json")
    leave_alone(growing, JUST_NOW)
    assert "may still be written to" in made.skips()
    leave_alone(growing)
    request = made.asked_for_one()
    assert dates(request) == ("2023-08-07", "2023-08-07")
    assert names(request) == AFTER["accelerometer"]


@pytest.mark.long
@NEEDS_TIMES
def test_a_file_that_is_written_to_without_end_keeps_no_withdrawal_out(made: Daemon) -> None:
    withdrawn = customer("ann@test.com", "s", updated=20, consent=None)
    drop(made.lake, "customer", "2023-08-07", withdrawn, name="2.json")
    growing = drop(made.lake, "accelerometer", "2023-08-07", phone("x@test.com", 1), name="2.json")
    leave_alone(growing, JUST_NOW)
    request = made.asked_for_one()
    assert dates(request) == ("2023-08-07", "2023-08-07")
    assert names(request) == AFTER["customer"]
    assert made.run(request).success
    leave_alone(growing, JUST_NOW)
    assert made.run(made.asked_to_reconcile()).success
    assert sum(counts_by_date(made.lake, "accelerometer_trusted").values()) == 0
    assert counts_by_date(made.lake, "accelerometer_landing")["2023-08-07"] == 1, "not read yet"
    leave_alone(growing)
    assert names(made.asked_for_one()) == AFTER["accelerometer"]


@NEEDS_TIMES
def test_what_was_seen_of_a_date_is_not_forgotten_while_a_file_of_it_grows(made: Daemon) -> None:
    growing = drop(made.lake, "customer", "2023-08-07", customer("cy@test.com", "u"), name="2.json")
    leave_alone(growing, JUST_NOW)
    drop(made.lake, "customer", "2023-08-09", customer("di@test.com", "v"))
    assert dates(made.asked_for_one()) == ("2023-08-09", "2023-08-09")
    growing.unlink()
    assert made.skips() == "No landing file is new, replaced or gone on 3 ingestion dates."


@pytest.mark.long
@NEEDS_TIMES
def test_a_reconciliation_does_not_read_a_file_that_may_still_be_written_to(made: Daemon) -> None:
    half = '{"user": "ann@test.com", "timest'
    drop(made.lake, "customer", "2023-08-07", customer("cy@test.com", "u"), name="2.json")
    assert made.run(made.asked_for_one()).success
    growing = drop(made.lake, "accelerometer", "2023-08-07", half, name="2.json")
    leave_alone(growing, JUST_NOW)
    assert "may still be written to" in made.skips()
    request = made.asked_to_reconcile()
    leave_alone(growing, JUST_NOW)
    assert made.run(request).success
    assert counts_by_date(made.lake, "accelerometer_rejects")["2023-08-07"] == 0
    assert counts_by_date(made.lake, "accelerometer_landing")["2023-08-07"] == 1


@NEEDS_TIMES
def test_a_file_from_a_clock_that_is_an_hour_ahead_is_not_waited_for(daemon: Daemon) -> None:
    path = land(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    leave_alone(path, -3600)
    assert dates(daemon.asked_for_one()) == ("2023-08-06", "2023-08-06")


UNFINISHED = ["file.json.tmp", "file.json.part", ".file.json", ".rsync/file.json", "file.json~"]


@pytest.mark.s3
@pytest.mark.parametrize("name", UNFINISHED)
def test_a_temporary_file_is_not_read_until_it_has_its_final_name(made: Daemon, name: str) -> None:
    path = landed(made.lake, "customer", "2023-08-08", name)
    path.parent.mkdir(parents=True)
    drop(made.lake, "customer", "2023-08-08", customer("cy@test.com", "u"), name=name)
    assert made.skips() == "No landing file is new, replaced or gone on 2 ingestion dates."
    leave_alone(path, JUST_NOW)
    assert made.skips() == "No landing file is new, replaced or gone on 2 ingestion dates."
    path.rename(landed(made.lake, "customer", "2023-08-08"))
    leave_alone(landed(made.lake, "customer", "2023-08-08"))
    assert dates(made.asked_for_one()) == ("2023-08-08", "2023-08-08")


@pytest.mark.long
def test_rows_of_temporary_files_are_not_read_with_the_others_of_a_date(daemon: Daemon) -> None:
    for number, name in enumerate(UNFINISHED):
        path = landed(daemon.lake, "customer", "2023-08-06", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        drop(daemon.lake, "customer", "2023-08-06", customer(f"{number}@test.com", "x"), name=name)
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    assert daemon.run(daemon.asked_for_one()).success
    assert counts_by_date(daemon.lake, "customer_landing") == {"2023-08-06": 1}
    assert counts_by_date(daemon.lake, "customer_rejects") == {"2023-08-06": 0}


# The cursor.


def test_a_year_is_one_run_and_a_cursor_no_longer_than_that_of_a_day(daemon: Daemon) -> None:
    """Dagster stores the cursor with every tick, and keeps those ticks that asked for nothing."""
    drop(daemon.lake, "customer", "2022-12-31", RECORDS["customer"])
    daemon.asked_for_one()
    of_a_day = daemon.cursors["landing_files"]
    first = date(2023, 1, 1)
    days = [(first + timedelta(days=number)).isoformat() for number in range(365)]
    for day in days:
        for source, record in RECORDS.items():
            drop(daemon.lake, source, day, record)
    assert dates(daemon.asked_for_one()) == (days[0], days[-1])
    cursor = daemon.cursors["landing_files"]
    assert cursor
    assert of_a_day
    assert len(cursor) == len(of_a_day) < 40
    assert daemon.skips() == "No landing file is new, replaced or gone on 366 ingestion dates."
    assert daemon.cursors["landing_files"] == cursor


@pytest.mark.parametrize("cursor", ['{"states": {}, "changes": 7}', "7:0123456789abcdef", "seven"])
def test_a_cursor_that_says_nothing_that_is_known_begins_anew(made: Daemon, cursor: str) -> None:
    """As one that somebody set by hand, or of another version, or of a database put back."""
    drop(made.lake, "step_trainer", "2023-08-07", device(200, "s"))
    made.cursors["landing_files"] = cursor
    request = made.asked_for_one()
    assert (dates(request)[0], names(request)) == ("2023-08-07", AFTER["step_trainer"])
    assert made.skips() == "No landing file is new, replaced or gone on 2 ingestion dates."


def test_the_cursor_names_no_file(made: Daemon) -> None:
    cursor = made.cursors["landing_files"]
    assert cursor
    assert "file.json" not in cursor


@only_on_disk("counts the folders that are listed")
def test_a_tick_without_news_lists_each_landing_folder_once_and_opens_nothing(
    made: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many files, partitions and dates there are."""
    listed: list[str] = []
    scandir = os.scandir

    def counted(path: str) -> object:
        listed.append(str(path))
        return scandir(path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be opened")

    monkeypatch.setattr(os, "scandir", counted)
    monkeypatch.setattr(sensors, "open_engine", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    found = made.tick()
    monkeypatch.undo()
    assert found.skip_message == "No landing file is new, replaced or gone on 2 ingestion dates."
    root = root_of(made.lake)
    folders = {str(path) for path in root.glob("*/landing/**") if path.is_dir()}
    assert sorted(listed) == sorted(folders)


def test_a_tick_that_asks_for_nothing_new_leaves_the_cursor_as_it_is(made: Daemon) -> None:
    before = dict(made.cursors)
    made.skips()
    assert made.cursors == before


@pytest.mark.s3
def test_a_tick_leaves_the_lake_as_it_is(made: Daemon) -> None:
    drop(made.lake, "customer", "2023-08-07", customer("cy@test.com", "u"), name="late.json")
    root = root_of(made.lake)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert made.asked()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert not list((made.lake.storage.folder / "_staging").iterdir())


# Runs that ended.


def test_without_runs_no_reconciliation_is_asked_for(daemon: Daemon) -> None:
    none = "No run has ended since the last reconciliation was asked for."
    assert daemon.skips("finished_runs") == none
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    daemon.asked()
    assert daemon.skips("finished_runs") == none


@pytest.mark.parametrize("record", [customer("ann@test.com", "s"), "{spoilt"])
def test_a_run_that_ended_well_or_not_is_reconciled_once(
    daemon: Daemon, record: Record | str
) -> None:
    drop(daemon.lake, "customer", "2023-08-06", record)
    assert daemon.run(daemon.asked_for_one()).success == (record != "{spoilt")
    assert daemon.run(daemon.asked_to_reconcile()).success
    for _ in range(2):  # not of itself either
        assert daemon.skips("finished_runs") == (
            "No run has ended since the last reconciliation was asked for."
        )


REPORTED = {
    dg.DagsterRunStatus.QUEUED: dg.DagsterEventType.PIPELINE_ENQUEUED,
    dg.DagsterRunStatus.STARTING: dg.DagsterEventType.PIPELINE_STARTING,
    dg.DagsterRunStatus.STARTED: dg.DagsterEventType.PIPELINE_START,
    dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.PIPELINE_SUCCESS,
    dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.PIPELINE_FAILURE,
    dg.DagsterRunStatus.CANCELING: dg.DagsterEventType.PIPELINE_CANCELING,
    dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.PIPELINE_CANCELED,
}


def report(
    daemon: Daemon, status: dg.DagsterRunStatus, job: str = "bring_up_to_date", run_id: str = ""
) -> str:
    """Report to Dagster what becomes of a run, a new one by default, without running it; its id."""
    if not run_id:
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
        definition = daemon.definitions.resolve_job_def(job)
        run_id = daemon.instance.create_run_for_job(
            definition,
            tags=dict(definition.run_tags),
            remote_job_origin=RemoteJobOrigin(repository, job),
        ).run_id
    event = dg.DagsterEvent(event_type_value=REPORTED[status].value, job_name=job)
    daemon.instance.report_dagster_event(event, run_id)
    found = daemon.instance.get_run_by_id(run_id)
    assert found
    assert found.status is status
    return run_id


QUEUED, STARTED = dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


def test_each_run_that_ended_is_reconciled_by_a_run_key_of_its_own(daemon: Daemon) -> None:
    report(daemon, SUCCESS)
    first = daemon.asked_to_reconcile()
    report(daemon, SUCCESS)
    second = daemon.asked_to_reconcile()
    assert first.run_key != second.run_key
    assert None not in (first.run_key, second.run_key)


def test_several_runs_that_ended_since_the_last_tick_are_reconciled_once(daemon: Daemon) -> None:
    for status in (SUCCESS, FAILURE):
        report(daemon, status)
    assert daemon.asked_to_reconcile()
    assert daemon.skips("finished_runs")


@pytest.mark.parametrize(
    "status",
    [
        QUEUED,
        dg.DagsterRunStatus.STARTING,
        STARTED,
        dg.DagsterRunStatus.CANCELING,
    ],
)
def test_a_run_that_has_not_ended_is_not_reconciled(
    daemon: Daemon, status: dg.DagsterRunStatus
) -> None:
    report(daemon, status)
    assert daemon.skips("finished_runs") == (
        "No run has ended since the last reconciliation was asked for."
    )


def test_a_run_that_was_cancelled_midway_is_reconciled(daemon: Daemon) -> None:
    """It may have changed customers, and left what hangs on them as it was."""
    report(daemon, dg.DagsterRunStatus.CANCELED)
    assert daemon.asked_to_reconcile()


def test_while_a_reconciliation_is_queued_no_other_is_asked_for(daemon: Daemon) -> None:
    queued = report(daemon, QUEUED, "reconcile")
    report(daemon, SUCCESS)
    waits = "A reconciliation is in the queue; it will look at all that ended."
    assert daemon.skips("finished_runs") == waits
    assert daemon.skips("finished_runs") == waits
    report(daemon, STARTED, "reconcile", queued)
    assert daemon.asked_to_reconcile()  # for this one may have looked before the other ended
    assert daemon.skips("finished_runs").startswith("No run has ended")


def test_a_run_that_ends_while_a_reconciliation_runs_is_reconciled_after_it(
    daemon: Daemon,
) -> None:
    """That one may have looked at its tables before."""
    report(daemon, SUCCESS)
    assert daemon.asked_to_reconcile()
    report(daemon, STARTED, "reconcile")
    report(daemon, SUCCESS)
    assert daemon.asked_to_reconcile()


def test_a_run_that_began_before_another_and_ended_after_it_is_reconciled(daemon: Daemon) -> None:
    long = report(daemon, STARTED)
    report(daemon, SUCCESS)
    first = daemon.asked_to_reconcile()
    report(daemon, SUCCESS, run_id=long)
    assert daemon.asked_to_reconcile().run_key != first.run_key


def test_after_old_runs_were_removed_nothing_is_reconciled_or_reported(daemon: Daemon) -> None:
    report(daemon, SUCCESS)
    assert daemon.asked_to_reconcile()
    report(daemon, SUCCESS, "reconcile")
    assert daemon.asked_to_report()
    report(daemon, SUCCESS, "prune")
    for sensor in ("finished_runs", "settled_lake"):
        assert daemon.skips(sensor).startswith("No run has ended")


def test_reconciliations_that_ended_are_not_reconciled(daemon: Daemon) -> None:
    report(daemon, SUCCESS)
    assert daemon.asked_to_reconcile()
    for status in (SUCCESS, FAILURE):
        report(daemon, status, "reconcile")
        assert daemon.skips("finished_runs") == (
            "No run has ended since the last reconciliation was asked for."
        )


@pytest.mark.long
def test_a_table_that_somebody_made_by_a_click_is_reconciled(made: Daemon) -> None:
    drop(made.lake, "customer", "2023-08-06", customer("ann@test.com", "s", consent=None))
    job = made.definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey(name) for name in ("customer_landing", "customer_rejects")}
    )
    clicked = job.execute_in_process(
        instance=made.instance, partition_key="2023-08-06", run_config=QUIET
    )
    assert clicked.success
    assert counts_by_date(made.lake, "machine_learning_curated")["2023-08-06"] == 1
    assert made.run(made.asked_to_reconcile()).success
    assert counts_by_date(made.lake, "machine_learning_curated")["2023-08-06"] == 0


@pytest.mark.s3
@pytest.mark.long
def test_sensors_alone_bring_all_tables_to_what_one_run_over_all_files_gives(
    daemon: Daemon, lakes: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings come before their customers, consent late, and is withdrawn; a file is replaced."""
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "the same for both")
    lake = daemon.lake
    drop(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100), phone("b@test.com", 101))
    drop(lake, "step_trainer", "2023-08-07", device(100, "s"), device(101, "t"))
    daemon.keep_up()
    assert not any(counts_by_date(lake, "accelerometer_trusted").values())
    drop(lake, "customer", "2023-08-08", customer("ann@test.com", "s"), customer("b@test.com", "t"))
    daemon.keep_up()
    assert counts_by_date(lake, "machine_learning_curated")["2023-08-07"] == 2
    late = customer("ann@test.com", "s", updated=20, consent=None)
    drop(lake, "customer", "2023-08-10", late)
    drop(lake, "step_trainer", "2023-08-07", device(101, "t", distance=7))
    daemon.keep_up()
    assert counts_by_date(lake, "machine_learning_curated")["2023-08-07"] == 1
    fresh = made_at_once(lake, lakes / "fresh", "2023-08-06", "2023-08-10")
    assert held(lake) == held(fresh)
    assert daemon.skips()
    assert daemon.skips("finished_runs")


# Reports.


AFTER_RECONCILIATION = "A report follows the next reconciliation that succeeds."


@pytest.mark.long
def test_a_report_is_written_once_when_the_run_and_its_reconciliation_have_succeeded(
    daemon: Daemon,
) -> None:
    assert daemon.skips("settled_lake").startswith("No run has ended")
    drop(daemon.lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    assert daemon.run(daemon.asked_for_one()).success
    assert daemon.skips("settled_lake") == AFTER_RECONCILIATION
    assert daemon.run(daemon.asked_to_reconcile()).success
    assert not (root_of(daemon.lake) / "reports").exists()
    result = daemon.run(daemon.asked_to_report(), "report")
    assert result.success
    assert (root_of(daemon.lake) / "reports" / "latest.html").is_file()
    for sensor in ("settled_lake", "finished_runs"):  # neither of them follows a report
        assert daemon.skips(sensor).startswith("No run has ended")
    (made,) = result.asset_materializations_for_node("lakehouse_report")
    assert made.metadata["rows of customer_trusted"].value == 1
    assert made.metadata["people who consent to research"].value == 1
    assert made.metadata["problems"].value == 0
    pictures = [
        found
        for found in made.metadata.values()
        if isinstance(found, dg.MarkdownMetadataValue) and "](data:image/png;base64," in found.value
    ]
    assert len(pictures) == 4


@pytest.mark.parametrize("status", [QUEUED, STARTED])
def test_a_report_waits_while_a_run_that_writes_the_lake_is_waiting_or_running(
    daemon: Daemon, status: dg.DagsterRunStatus
) -> None:
    other = report(daemon, status)
    report(daemon, SUCCESS, "reconcile")
    told = daemon.skips("settled_lake")
    assert told == "A run is to write the lake; a report follows when all have ended."
    report(daemon, SUCCESS, run_id=other)
    assert daemon.skips("settled_lake") == AFTER_RECONCILIATION
    report(daemon, SUCCESS, "reconcile")
    assert daemon.asked_to_report()


def test_no_report_follows_a_reconciliation_that_failed(daemon: Daemon) -> None:
    report(daemon, SUCCESS)
    report(daemon, FAILURE, "reconcile")
    assert daemon.skips("settled_lake") == AFTER_RECONCILIATION


def test_each_reconciliation_is_reported_by_a_run_key_of_its_own(daemon: Daemon) -> None:
    report(daemon, SUCCESS, "reconcile")
    first = daemon.asked_to_report()
    report(daemon, SUCCESS, "report")
    report(daemon, SUCCESS, "reconcile")
    assert daemon.asked_to_report().run_key != first.run_key


# Every night.


def test_every_night_everything_is_looked_at(made: Daemon) -> None:
    """Also a partition that was damaged without a trace in what the disk says of its file."""
    file = file_of(made.lake, "accelerometer_trusted", "2023-08-06")
    rows = rows_by_date(made.lake, "accelerometer_trusted")["2023-08-06"]
    assert made.run(nightly(made)).success  # and remembers the file as one that is right
    right = hashlib.sha256(file.read_bytes()).digest()
    content = file.read_bytes()
    if isinstance(file, Path):
        stat = file.stat()
        file.write_bytes(content[:4] + b"\xff" * 8 + content[12:])
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:  # S3 tells by another ETag
        file.write_bytes(content[:4] + b"\xff" * 8 + content[12:])
    assert hashlib.sha256(file.read_bytes()).digest() != right
    assert made.run(nightly(made)).success
    assert rows_by_date(made.lake, "accelerometer_trusted")["2023-08-06"] == rows


def nightly(daemon: Daemon) -> dg.RunRequest:
    """The run for which the schedule asks."""
    schedule = daemon.definitions.get_repository_def().get_schedule_def("every_night")
    context = dg.build_schedule_context(
        instance=daemon.instance, repository_def=daemon.definitions.get_repository_def()
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    return request


@pytest.mark.parametrize("schedule", [every_night, prune_every_night])
def test_every_night_is_once_a_day(schedule: dg.ScheduleDefinition) -> None:
    noon = datetime(2023, 8, 6, 12, tzinfo=UTC)
    at = cron_string_iterator(
        noon.timestamp(), str(schedule.cron_schedule), schedule.execution_timezone
    )
    first, second, third = (next(at) for _ in range(3))
    assert second - first == third - second == timedelta(days=1)
    assert first.utcoffset() == timedelta(0)


# What people see of them.


def test_sensors_and_schedules_are_on_without_a_click() -> None:
    repository = defs.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "landing_files",
        "finished_runs",
        "settled_lake",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "every_night",
        "prune_every_night",
    }
    assert {sensor.default_status for sensor in repository.sensor_defs} == {
        dg.DefaultSensorStatus.RUNNING
    }
    assert {schedule.default_status for schedule in repository.schedule_defs} == {
        dg.DefaultScheduleStatus.RUNNING
    }


def test_sensors_and_schedules_say_what_they_do() -> None:
    for described in (landing_files, finished_runs, settled_lake, every_night, prune_every_night):
        assert len(str(described.description)) > 20


def test_sensors_start_the_jobs_that_are_the_projects() -> None:
    assert landing_files.job_name == "bring_up_to_date"
    assert finished_runs.job_name == every_night.job_name == "reconcile"
    assert settled_lake.job_name == "report"
    assert prune_every_night.job_name == "prune"
