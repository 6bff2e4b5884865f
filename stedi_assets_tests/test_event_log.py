"""The event log of one machine: what runs write, others read, and several write at once."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from stedi_assets.event_log import SqliteEventLog

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
