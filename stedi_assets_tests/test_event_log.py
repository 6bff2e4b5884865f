"""The event log of one machine: what runs write, others read, and several write at once."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stedi_assets import runs
from stedi_assets.dates import Stretch
from stedi_assets.event_log import SqliteEventLog
from stedi_assets.jobs import BRING_UP_TO_DATE
from stedi_assets_tests.end_to_end.landing_files import partition_tags

ROOT = Path(__file__).parents[1]
RUNS = 5


@dg.op(out=dg.Out(dg.Nothing))
def note(context: dg.OpExecutionContext) -> None:
    context.log.info("noted")
    context.log_event(dg.AssetMaterialization("noted", metadata={"rows": 7}))


@dg.job(executor_def=dg.in_process_executor)
def noting() -> None:
    note()


@contextmanager
def instance_of(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def run_often(home: Path, times: int) -> list[str]:
    """Run the job in a fresh instance; the ids of the runs, all of which succeeded."""
    with instance_of(home) as instance:
        return [noting.execute_in_process(instance=instance).run_id for _ in range(times)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster home with the project's settings and nothing else."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    settings = (ROOT / "dagster_home" / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(settings)
    return tmp_path


def steps(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """The kinds of a run's events, in order, without those of the process around them."""
    return [
        entry.dagster_event.event_type_value
        for entry in instance.all_logs(run_id)
        if entry.dagster_event and entry.dagster_event.event_type_value != "ENGINE_EVENT"
    ]


NOTED = [
    "PIPELINE_START",
    "STEP_START",
    "ASSET_MATERIALIZATION",
    "STEP_OUTPUT",
    "STEP_SUCCESS",
    "PIPELINE_SUCCESS",
]


def test_the_settings_of_the_project_name_this_event_log(home: Path) -> None:
    with instance_of(home) as instance:
        assert isinstance(instance.event_log_storage, SqliteEventLog)
        assert not instance.telemetry_enabled


def test_a_second_instance_reads_what_the_first_one_wrote(home: Path) -> None:
    with instance_of(home) as first:
        run_id = noting.execute_in_process(instance=first).run_id
        with instance_of(home) as second:
            assert [kind for kind in steps(second, run_id) if kind in NOTED] == NOTED
            assert any(entry.user_message == "noted" for entry in second.all_logs(run_id))
            materialization = second.get_latest_materialization_event(dg.AssetKey("noted"))
            assert materialization
            assert materialization.asset_materialization
            assert materialization.asset_materialization.metadata["rows"].value == 7


def test_an_instance_sees_runs_that_others_write_while_it_is_open(home: Path) -> None:
    with instance_of(home) as reader:
        assert reader.get_runs_count() == 0
        for written in (1, 2):
            (run_id,) = run_often(home, 1)
            assert reader.get_runs_count() == written
            assert steps(reader, run_id)[-1] == "PIPELINE_SUCCESS"


def test_the_log_is_one_file_in_the_home_for_all_runs(home: Path) -> None:
    run_often(home, 3)
    databases = {str(path.relative_to(home)) for path in home.rglob("*.db")}
    assert databases == {"event_log.db", "runs.db", "schedules.db"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at open files in /proc")
def test_an_instance_that_is_done_leaves_no_connection_open(home: Path) -> None:
    run_often(home, 2)
    open_files = [str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir()]
    assert [name for name in open_files if name.startswith(str(home / "event_log.db"))] == []


@pytest.mark.long
def test_processes_that_write_runs_at_once_all_succeed(home: Path) -> None:
    with instance_of(home):
        pass  # Dagster's own run storage cannot be made by two processes at once
    program = (
        "import sys; from pathlib import Path; "
        "from stedi_assets_tests.test_event_log import run_often; "
        "print(end='ready', flush=True); sys.stdin.read(1); "
        f"print('', *run_often(Path(sys.argv[1]), {RUNS}))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(home)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.read(len("ready")) == "ready"
    # Side by side, so that none waits with the go for another one's end.
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(lambda process: process.communicate("\n", timeout=60), processes))
    assert [process.returncode for process in processes] == [0, 0], [error for _, error in ends]
    run_ids = [run_id for out, _ in ends for run_id in out.split()]
    assert len(set(run_ids)) == 2 * RUNS
    with instance_of(home) as reader:
        assert {run.run_id for run in reader.get_runs()} == set(run_ids)
        for run_id in run_ids:
            assert [kind for kind in steps(reader, run_id) if kind in NOTED] == NOTED


# Runs over several dates.

RUN_ID = "6e8ce0b1-8e4a-4f68-b60c-ac2a3b8d9bd2"
DAYS = ["2025-01-01", "2025-01-02", "2025-01-03"]
DAILY = dg.DailyPartitionsDefinition(start_date=DAYS[0], end_date="2025-01-04")


@dg.asset(partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run())
def readings() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"dagster/partition_row_count": 7})


@dg.asset(partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run(), deps=[readings])
def broken() -> None:
    raise ValueError("broken")


@dg.asset_check(asset=readings, partitions_def=DAILY)
def looked_at() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=True, metadata={"finding": "7 a day", "by_date": dict.fromkeys(DAYS, 7)}
    )


@dg.asset_check(asset=broken, partitions_def=DAILY)
def never_looked_at() -> dg.AssetCheckResult:
    raise AssertionError("its asset is not there")


several_days = dg.Definitions(
    assets=[readings, broken],
    asset_checks=[looked_at, never_looked_at],
    jobs=[dg.define_asset_job(BRING_UP_TO_DATE.name)],
    executor=dg.in_process_executor,
)


def run_days(
    instance: dg.DagsterInstance,
    run_id: str = RUN_ID,
    days: Sequence[str] = DAYS,
) -> None:
    """Run over an unbroken stretch of days."""
    several_days.resolve_job_def(BRING_UP_TO_DATE.name).execute_in_process(
        instance=instance,
        tags=partition_tags(days[0], days[-1]),
        raise_on_error=False,
        run_id=run_id,
    )


def rows(home: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "event_log.db")) as connection:
        return connection.execute(query).fetchall()


def stored(home: Path) -> list[list[tuple[Any, ...]]]:
    """What the tables of the event log hold, without what differs from run to run."""
    return [
        rows(home, query)
        for query in (
            "SELECT id, dagster_event_type, step_key, asset_key, partition FROM event_logs",
            "SELECT event_id, asset_key, key FROM asset_event_tags ORDER BY id",
            "SELECT asset_key, last_materialization ->> 'storage_id', last_run_id FROM asset_keys",
            "SELECT id, asset_key, check_name, partition, run_id FROM asset_check_executions",
            "SELECT evaluation_event_storage_id, execution_status, evaluation_event ->> 'run_id' "
            "FROM asset_check_executions WHERE check_name = 'never_looked_at' ORDER BY id",
        )
    ]


@pytest.mark.parametrize("batch_size", ["0", "2", "1000"])
def test_events_are_stored_as_dagster_stores_them_however_many_at_once(
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: str,
) -> None:
    dagsters = tmp_path_factory.mktemp("dagsters")
    settings = (home / "dagster.yaml").read_text()
    own = settings.replace("stedi_assets.event_log", "dagster._core.storage.event_log")
    own = own.replace("SqliteEventLog", "ConsolidatedSqliteEventLogStorage")
    (dagsters / "dagster.yaml").write_text(own)
    monkeypatch.setenv("DAGSTER_HOME", str(dagsters))
    with instance_of(dagsters) as instance:
        assert not isinstance(instance.event_log_storage, SqliteEventLog)
        run_days(instance)

    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    with instance_of(home) as instance:
        run_days(instance)
        assert instance.get_materialized_partitions(dg.AssetKey("readings")) == set(DAYS)
    assert stored(home) == stored(dagsters)
    assert [len(table) for table in stored(home)][1:] == [3, 2, 6 + 1, 3]


LOOKED_AT = (
    "SELECT c.partition, execution_status, e.dagster_event_type, m.partition "
    "FROM asset_check_executions c JOIN event_logs e ON e.id = evaluation_event_storage_id "
    "LEFT JOIN event_logs m ON m.id = materialization_event_storage_id "
    "WHERE check_name = 'looked_at' ORDER BY c.partition NULLS LAST"
)
"""What is stored of a check after `run_days`, whatever the database."""


def looked_at_each_date(found: list[Any]) -> None:
    """Of the check there is an evaluation for each date, and one for all."""
    evaluated = "SUCCEEDED", "ASSET_CHECK_EVALUATION"
    assert [row[:3] for row in found] == [(day, *evaluated) for day in [*DAYS, None]]
    assert [row[3] for row in found[:3]] == DAYS


@pytest.mark.parametrize("batch_size", ["0", "1000"])
def test_a_check_without_a_partition_looked_at_each_one_of_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    with instance_of(home) as instance:
        run_days(instance)
    looked_at_each_date(rows(home, LOOKED_AT))


def test_of_a_check_over_several_partitions_only_one_row_has_the_figures_of_all(home: Path) -> None:
    with instance_of(home) as instance:
        run_days(instance)
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("readings"), "looked_at"), limit=10
        )
    told = {}
    for record in history:
        assert record.event
        assert record.event.dagster_event
        told[record.partition] = set(
            record.event.dagster_event.asset_check_evaluation_data.metadata
        )
    assert told == {None: {"finding", "by_date"}} | {day: {"finding"} for day in DAYS}


def test_of_a_batch_that_fails_no_event_is_stored_twice(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    store_tags = SqliteEventLog._store_asset_event_tags

    def fail_in_batches(
        self: SqliteEventLog, connection: Any, events: Sequence[Any], ids: Sequence[int]
    ) -> None:
        if len(events) > 1:
            raise OSError("the disk is full")
        store_tags(self, connection, events, ids)

    monkeypatch.setattr(SqliteEventLog, "_store_asset_event_tags", fail_in_batches)
    with instance_of(home) as instance:
        run_days(instance)
    assert "storing event batch: the disk is full" in capsys.readouterr().err
    for kind in ("ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION"):
        query = f"SELECT partition FROM event_logs WHERE dagster_event_type = '{kind}'"
        assert rows(home, f"{query} AND asset_key = '[\"readings\"]'") == [(day,) for day in DAYS]


def run_until_told(home: Path) -> None:
    """Run over the days, and be killed by the first listener that hears what was made."""

    def kill(entry: dg.EventLogEntry) -> None:
        if entry.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            os.kill(os.getpid(), signal.SIGKILL)

    with instance_of(home) as instance:
        instance.add_event_listener(RUN_ID, kill)
        run_days(instance)


@pytest.mark.long
def test_what_listeners_were_told_outlives_a_process_that_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    program = (
        "import sys; from pathlib import Path; "
        "from stedi_assets_tests.test_event_log import run_until_told; "
        "run_until_told(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    made = "SELECT partition FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
    assert rows(home, made) == [(day,) for day in DAYS]


def test_a_run_over_dates_stores_its_events_in_batches(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    store = SqliteEventLog.store_event_batch

    def measured(self: SqliteEventLog, events: Sequence[dg.EventLogEntry]) -> None:
        sizes.append(len(events))
        store(self, events)

    monkeypatch.setattr(SqliteEventLog, "store_event_batch", measured)
    monkeypatch.setattr(runs, "defs", several_days)
    looked_at = dg.AssetCheckKey(dg.AssetKey("readings"), "looked_at")
    monkeypatch.setattr(runs, "keys_of_checks", lambda tables: {looked_at})
    told: list[str] = []
    made: set[tuple[str, date]] = set()
    stretch = Stretch(date(2025, 1, 1), date(2025, 1, 3))
    assert runs.run_dates(stretch, ["readings"], told.append, made)
    assert made == {("readings", date(2025, 1, day)) for day in (1, 2, 3)}
    assert sizes == [len(DAYS) + 1, len(DAYS)], "what is planned, and what was made"
    assert told == ["  readings                             21 rows"]


def test_nobody_else_can_look_into_the_folder_of_runs(tmp_path: Path) -> None:
    for folder in (tmp_path / "there", tmp_path / "new"):
        if folder.name == "there":
            folder.mkdir(mode=0o755)
        SqliteEventLog(str(folder)).dispose()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
