"""What is taken out of Dagster's storage of old runs, and what is left; in PostgreSQL as well:
deploy/test_instance.py."""

import shutil
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetEventTagsTable
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS

from stedi_assets import jobs, pruning
from stedi_assets.pruning import Pruned, prune
from stedi_assets_tests.test_event_log import (
    DAILY,
    DAYS,
    ROOT,
    instance_of,
    noting,
    readings,
    run_days,
)
from stedi_assets_tests.test_event_log import home as home  # a fixture

MATERIALIZATION, EVALUATION = "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION"


class Runs:
    """Runs over three days, two of them, one of them: the last one after a moment."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.whole, self.first, self.second, self.third = (str(uuid.uuid4()) for _ in range(4))
        run_days(instance, self.whole, DAYS)
        run_days(instance, self.first, DAYS[1:])
        run_days(instance, self.second, DAYS[1:])
        self.moment = datetime.now(UTC)
        run_days(instance, self.third, DAYS[2:])


def events(instance: dg.DagsterInstance, run_id: str) -> Counter[str]:
    """How many events of each kind a run has."""
    return Counter(
        entry.dagster_event.event_type_value if entry.dagster_event else "a message"
        for entry in instance.all_logs(run_id)
    )


def known(instance: dg.DagsterInstance) -> list[object]:
    """What Dagster's pages know of tables, partitions and checks."""
    log = instance.event_log_storage
    log.wipe_asset_cached_status(readings.key)
    status = get_and_update_asset_status_cache_value(instance, readings.key, DAILY)
    assert status
    latest = log.get_latest_storage_id_by_partition(
        readings.key, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    records = instance.fetch_materializations(readings.key, limit=100).records
    check = dg.AssetCheckKey(readings.key, "looked_at")
    return [
        set(status.deserialize_materialized_partition_subsets(DAILY).get_partition_keys()),
        latest,
        {
            record.partition_key: record.asset_materialization
            for record in records
            if record.storage_id in latest.values()
        },
        instance.get_latest_materialization_event(readings.key),
        sorted(log.get_asset_check_partition_info([check]), key=str),
        log.get_latest_asset_check_execution_by_key([check]),
    ]


def everything(instance: dg.DagsterInstance) -> list[object]:
    """What there is in the storage of runs and events."""
    runs, log = instance.run_storage, instance.event_log_storage
    assert isinstance(runs, SqlRunStorage)
    assert isinstance(log, SqlEventLogStorage)
    tables = "event_logs", "asset_event_tags", "asset_check_executions"
    with log.index_connection() as connection:
        found: list[object] = [
            connection.execute(db.text(f"SELECT * FROM {table} ORDER BY id")).fetchall()
            for table in tables
        ]
    with runs.connect() as connection:
        for table in (RunsTable, RunTagsTable):
            found.append(connection.execute(db.select(table).order_by(table.c.id)).fetchall())
    return found


def only_what_tables_and_checks_are_known_by_is_left(
    instance: dg.DagsterInstance, runs: Runs
) -> None:
    """The same of every database."""
    before, untouched = known(instance), events(instance, runs.third)
    told = sum(events(instance, run).total() for run in (runs.whole, runs.first, runs.second))
    pruned = prune(instance, runs.moment)
    assert known(instance) == before
    assert before[0] == set(DAYS)
    assert events(instance, runs.third) == untouched
    assert events(instance, runs.whole) == {MATERIALIZATION: 1, EVALUATION: 1}, "of the first day"
    assert events(instance, runs.second)[MATERIALIZATION] == 1, "of the second day"
    assert not events(instance, runs.first)
    assert {run.run_id for run in instance.get_runs()} == {runs.whole, runs.second, runs.third}
    left = sum(events(instance, run).total() for run in (runs.whole, runs.second))
    assert pruned == Pruned(runs=1, events=told - left)
    assert left < 6 < told
    log, storage = instance.event_log_storage, instance.run_storage
    assert isinstance(log, SqlEventLogStorage)
    assert isinstance(storage, SqlRunStorage)
    with log.index_connection() as connection:
        ids = set(connection.scalars(db.text("SELECT id FROM event_logs")))
        assert set(connection.scalars(db.select(AssetEventTagsTable.c.event_id))) <= ids
        found = connection.execute(
            db.text("SELECT run_id, evaluation_event_storage_id FROM asset_check_executions")
        ).fetchall()
    assert {run_id for run_id, _ in found} == {runs.whole, runs.second, runs.third}
    assert {event for _, event in found} <= ids
    with storage.connect() as connection:
        tagged = set(connection.scalars(db.select(RunTagsTable.c.run_id)))
    assert tagged == {runs.whole, runs.second, runs.third}
    stored = everything(instance)
    assert prune(instance, runs.moment) == Pruned(runs=0, events=0)
    assert everything(instance) == stored


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runs]:
    """A Dagster home with runs, and what they are."""
    folder = tmp_path_factory.mktemp("written")
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder)
    with opened(folder) as instance:
        return folder, Runs(instance)


@pytest.fixture
def copy(written: tuple[Path, Runs], tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(written[0], tmp_path / "home")


@contextmanager
def opened(folder: Path) -> Iterator[dg.DagsterInstance]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DAGSTER_HOME", str(folder))
        with instance_of(folder) as instance:
            yield instance


def test_of_old_runs_what_tables_and_checks_are_known_by_is_left_and_nothing_else(
    written: tuple[Path, Runs], copy: Path
) -> None:
    with opened(copy) as instance:
        only_what_tables_and_checks_are_known_by_is_left(instance, written[1])


def test_a_run_that_has_not_ended_is_left_as_it_is_however_old(home: Path) -> None:
    with instance_of(home) as instance:
        statuses = dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED
        ids = [instance.create_run_for_job(noting, status=status).run_id for status in statuses]
        for run_id in ids:
            instance.report_engine_event("waits", run_id=run_id, job_name="noting")
        assert prune(instance, datetime.now(UTC) + timedelta(days=1)) == Pruned(0, 0)
        assert [len(instance.all_logs(run_id)) for run_id in ids] == [1, 1]
        assert {run.run_id for run in instance.get_runs()} == {*ids}


@dg.op(config_schema={"email": str})
def erase(context: dg.OpExecutionContext) -> None:
    context.log_event(dg.AssetMaterialization("erased"))


@dg.job(executor_def=dg.in_process_executor)
def erasing() -> None:
    erase()


def test_the_configuration_of_an_old_run_which_may_name_somebody_is_nowhere_in_the_files(
    home: Path,
) -> None:
    email = b"ann@example.com"

    def naming() -> list[str]:
        return [path.name for path in home.glob("*.db*") if email in path.read_bytes()]

    with instance_of(home) as instance:
        config = {"ops": {"erase": {"config": {"email": email.decode()}}}}
        runs = [erasing.execute_in_process(config, instance=instance) for _ in range(2)]
        with open_for_good(home / "runs.db"):  # as the UI has it
            assert naming()
            updated = instance.get_run_records()
            prune(instance, datetime.now(UTC))
            (left,) = instance.get_run_records()
            assert left.dagster_run.run_id == runs[1].run_id, "which has the materialization"
            assert left.dagster_run.run_config == {}
            assert left.dagster_run.status is dg.DagsterRunStatus.SUCCESS
            assert left.update_timestamp in {record.update_timestamp for record in updated}
            assert naming() == []


@contextmanager
def open_for_good(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT count(*) FROM runs").fetchall()
        yield


def test_what_old_runs_printed_goes_with_their_events(home: Path) -> None:
    with instance_of(home) as instance:
        runs = [noting.execute_in_process(instance=instance).run_id for _ in range(2)]
        moment = datetime.now(UTC)
        runs.append(noting.execute_in_process(instance=instance).run_id)
        folder = home / "storage"
        assert {path.name for path in folder.iterdir()} >= set(runs)
        prune(instance, moment)
        assert {path.name for path in folder.iterdir()} & set(runs) == {runs[2]}


def test_what_was_interrupted_goes_on(
    written: tuple[Path, Runs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each step, and between two portions of what a step removes."""
    home, runs = written
    monkeypatch.setattr(pruning, "_AT_ONCE", 20)

    def pruned(stop: int) -> tuple[bool, list[object]]:
        """What is left if it is stopped after so many steps, and done again; whether it was."""
        stopped = False
        with opened(shutil.copytree(home, tmp_path / str(stop))) as instance:
            with monkeypatch.context() as patched:
                stop_after(stop, patched, instance)
                try:
                    prune(instance, runs.moment)
                except InterruptedError:
                    stopped = True
            if stopped:
                prune(instance, runs.moment)
            return stopped, everything(instance)

    stopped, undisturbed = pruned(1000)
    assert not stopped
    stops = 0
    while True:
        stopped, found = pruned(stops + 1)
        assert found == undisturbed
        if not stopped:
            break
        stops += 1
    assert stops > 3 + 3 + 1, "logs and events of three runs, one run whole"


def stop_after(steps: int, patched: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
    """Interrupt what is done next after so many steps."""
    done = 0

    def counted() -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise InterruptedError

    def wrapped(does: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*arguments: Any, **more: Any) -> Any:
            does(*arguments, **more)
            counted()

        return doing

    portions = pruning._portions

    def counted_portions(ids: Sequence[int]) -> Iterator[list[int]]:
        for portion in portions(ids):
            yield portion
            counted()

    patched.setattr(pruning, "_portions", counted_portions)
    for owner, name in (
        (type(instance.run_storage), "delete_run"),
        (type(instance.compute_log_manager), "delete_logs"),
    ):
        patched.setattr(owner, name, wrapped(getattr(owner, name)))


def test_a_run_that_writes_while_old_ones_are_removed_loses_nothing(
    written: tuple[Path, Runs], copy: Path
) -> None:
    _, runs = written
    with opened(copy) as instance:
        thread = Thread(target=run_days, args=(instance, late := str(uuid.uuid4()), DAYS[2:]))
        thread.start()
        prunings = 0
        while thread.is_alive():
            prune(instance, runs.moment)
            prunings += 1
        thread.join()
        assert prunings
        assert events(instance, late) == events(instance, runs.third)
        assert {run.run_id for run in instance.get_runs()} == {
            runs.whole,
            runs.second,
            runs.third,
            late,
        }


def test_who_writes_does_not_wait_for_who_reads_while_old_runs_are_removed(
    written: tuple[Path, Runs], copy: Path
) -> None:
    """Shrinking the log of a database waits for readers, and lets nobody write meanwhile."""
    with opened(copy) as instance, closing(sqlite3.connect(copy / "event_log.db")) as reader:
        reader.execute("BEGIN")
        seen = reader.execute("SELECT count(*) FROM event_logs").fetchall()
        began = time.monotonic()
        assert prune(instance, written[1].moment).events
        assert time.monotonic() - began < SQLITE_BUSY_TIMEOUT_SECONDS / 2
        assert reader.execute("SELECT count(*) FROM event_logs").fetchall() == seen


def test_the_file_of_events_gets_smaller_when_more_than_half_of_it_is_free(
    written: tuple[Path, Runs], copy: Path
) -> None:
    _, runs = written
    file = copy / "event_log.db"
    with opened(copy) as instance:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(
                "INSERT INTO event_logs (run_id, event, dagster_event_type) "
                "SELECT ?, e.event, 'STEP_OUTPUT' FROM event_logs e, event_logs",
                [runs.first],
            )
        before = file.stat().st_size
        prune(instance, runs.moment)
        assert file.stat().st_size < before / 2
        assert not (copy / "event_log.db-wal").stat().st_size


def test_the_job_keeps_runs_as_long_as_the_setting_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_KEEP_RUNS_DAYS", "3")
    with instance_of(home) as instance:
        ids = {days: noting.execute_in_process(instance=instance).run_id for days in (4, 2, 0)}
        storage = instance.run_storage
        assert isinstance(storage, SqlRunStorage)
        for days, run_id in ids.items():
            ended = datetime.now(UTC) - timedelta(days=days)
            with storage.connect() as connection:
                connection.execute(
                    db.update(RunsTable)
                    .where(RunsTable.c.run_id == run_id)
                    .values(update_timestamp=ended.replace(tzinfo=None))
                )
        result = jobs.PRUNE.execute_in_process(instance=instance)
        assert result.success
        assert {run.run_id for run in instance.get_runs()} == {ids[2], ids[0], result.run_id}
        (told,) = (
            entry.user_message
            for entry in instance.all_logs(result.run_id)
            if "these runs whole" in entry.user_message
        )
        assert "and 1 of these runs whole" in told
