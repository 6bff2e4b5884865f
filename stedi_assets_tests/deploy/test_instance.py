"""The Dagster instance of a server, deploy/aws/dagster.yaml, over a real PostgreSQL."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import dagster as dg
import pytest
import yaml
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster_aws.s3.compute_log_manager import S3ComputeLogManager

from stedi_assets.checks import keys_of_checks
from stedi_assets.event_log_postgres import PostgresEventLog
from stedi_assets.lake import Lake
from stedi_assets.sample_data import write_sample
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.deploy.postgres import postgres, rows
from stedi_assets_tests.end_to_end.dagster_dev import free_port
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.test_event_log import DAYS, LOOKED_AT, looked_at_each_date, run_days
from stedi_assets_tests.test_pruning import (
    Runs,
    only_what_tables_and_checks_are_known_by_is_left,
)

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "deploy" / "aws" / "dagster.yaml"
IMAGE = SETTINGS.with_name("Dockerfile")
SUCCESS = dg.DagsterRunStatus.SUCCESS


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    """A PostgreSQL server, for the tests of this module."""
    with postgres() as settings:
        yield settings


@pytest.fixture
def home(
    tmp_path: Path, database: dict[str, str], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A Dagster home with the server's settings, an empty database and a bucket for logs."""
    for table in rows(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        rows(database, f'DROP TABLE "{table[0]}" CASCADE; COMMIT; SELECT 1')
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(SETTINGS, folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("DAGSTER_LOGS_BUCKET", bucket.name)
    for name, value in database.items():
        monkeypatch.setenv(name, value)
    return folder


def instance_of(home: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(home))


def test_queue_and_retention_are_those_of_one_machine() -> None:
    here = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    there = yaml.safe_load(SETTINGS.read_text())
    for name in ("concurrency", "run_launcher", "run_monitoring", "retention", "telemetry"):
        assert there[name] == here[name]


def test_no_secret_is_in_the_settings() -> None:
    storage = yaml.safe_load(SETTINGS.read_text())["event_log_storage"]["config"]["postgres_db"]
    assert [name for name, value in storage.items() if isinstance(value, str)] == ["scheme"]


def test_the_instance_retries_runs_whose_process_was_lost_and_keeps_logs_in_the_bucket(
    home: Path,
) -> None:
    with instance_of(home) as instance:
        assert isinstance(instance.event_log_storage, PostgresEventLog)
        assert isinstance(instance.compute_log_manager, S3ComputeLogManager)
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 2
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "eu-central-1"])
def test_links_to_logs_are_signed_as_a_bucket_that_is_encrypted_by_kms_wants_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    """By version 4, which boto3 leaves to settings in the oldest regions."""
    (name,) = re.findall(r"AWS_CONFIG_FILE=/opt/dagster/(\S+)", IMAGE.read_text())
    monkeypatch.setenv("AWS_CONFIG_FILE", str(IMAGE.with_name(name)))
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which has read another file
    with instance_of(home) as instance:
        logs = instance.compute_log_manager
        assert isinstance(logs, S3ComputeLogManager)
        monkeypatch.setattr(logs, "is_capture_complete", lambda _: True)
        link = logs.download_url_for_type(["a run", "compute_logs", "a step"], ComputeIOType.STDOUT)
    assert link
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link


@pytest.mark.parametrize("batch_size", ["0", "1000"])
def test_a_check_without_a_partition_looked_at_each_one_of_the_run(
    home: Path, database: dict[str, str], monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    with instance_of(home) as instance:
        run_days(instance)
    looked_at_each_date(rows(database, LOOKED_AT))


def test_of_old_runs_only_what_tables_and_checks_are_known_by_is_left(home: Path) -> None:
    with instance_of(home) as instance:
        only_what_tables_and_checks_are_known_by_is_left(instance, Runs(instance))


OTHERS = "FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"


def test_connections_are_kept_and_closed_at_the_end(home: Path, database: dict[str, str]) -> None:
    def connections() -> list[int]:
        return [pid for (pid,) in rows(database, f"SELECT pid {OTHERS}")]

    with instance_of(home) as instance:
        run_days(instance)
        kept = connections()
        assert len(kept) == 1
        assert instance.get_materialized_partitions(dg.AssetKey("readings")) == set(DAYS)
        assert connections() == kept
    assert connections() == []


def test_an_instance_outlives_connections_that_the_database_closes(
    home: Path, database: dict[str, str]
) -> None:
    with instance_of(home) as instance:
        run_days(instance)
        rows(database, f"SELECT pg_terminate_backend(pid) {OTHERS}")
        assert instance.get_materialized_partitions(dg.AssetKey("readings")) == set(DAYS)


def test_what_a_run_over_the_sample_tells_is_seen_by_another_instance(
    home: Path, lake: Lake
) -> None:
    write_sample(lake.storage.root, customers=12, days=2)
    told = succeeded(stedi(lake, "run", DAGSTER_HOME=str(home)))
    assert "differs" not in told
    with instance_of(home) as first, instance_of(home) as second:
        for instance in (first, second):
            (run,) = instance.get_runs(dg.RunsFilter(job_name="bring_up_to_date"))
            assert run.is_success
            assert len(instance.all_logs(run.run_id)) > 100
            for name in TABLES:
                key = dg.AssetKey(name)
                assert instance.get_latest_materialization_event(key), name
                assert len(instance.get_materialized_partitions(key)) == 2, name
            for check in keys_of_checks(TABLES):
                history = instance.event_log_storage.get_asset_check_execution_history(check, 10)
                assert {record.status for record in history} <= {
                    AssetCheckExecutionRecordStatus.SUCCEEDED,
                    AssetCheckExecutionRecordStatus.FAILED,  # a warning
                }, check
                assert {record.partition for record in history} >= set(run_dates(run)), check


def run_dates(run: dg.DagsterRun) -> list[str]:
    """The first and the last date of a run."""
    return [run.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end")]


class Servers:
    """The code location and the daemon over a lake, each a process, as their containers start them.

    The code location's is that of the image, but for its port.
    """

    def __init__(self, home: Path, lake: Lake) -> None:
        self.home = home
        self.port = str(free_port())
        workspace = SETTINGS.with_name("workspace.yaml").read_text().replace("4000", self.port)
        (home / "workspace.yaml").write_text(workspace)
        self.environment = {
            **os.environ,
            "STEDI_LAKE": str(lake.storage.root),
            "STEDI_CODE_HOST": "localhost",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, *arguments: str, cwd: Path) -> "subprocess.Popen[bytes]":
        """A process, which leads a group of all that it starts."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=cwd,
            env=self.environment,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def start_code(self) -> "subprocess.Popen[bytes]":
        (line,) = re.findall(r"^CMD (.*)$", IMAGE.read_text(), re.MULTILINE)
        program, *arguments = json.loads(
            line.replace("4000", self.port).replace("0.0.0.0", "localhost")
        )
        assert program == "dagster"
        process = self.start("dagster", *arguments, cwd=ROOT)
        health = [sys.executable, "-m", "dagster", "api", "grpc-health-check", "-p", self.port]
        wait_until(lambda: subprocess.run(health, capture_output=True).returncode == 0)
        return process

    def start_daemon(self) -> None:
        self.start("dagster._daemon", "run", "-w", "workspace.yaml", cwd=self.home)


@pytest.fixture
def servers(home: Path, lake: Lake) -> Iterator[Servers]:
    made = Servers(home, lake)
    yield made
    for process in reversed(made.processes):
        with suppress(ProcessLookupError):  # it has ended, with all that it started
            # Asked to end at a bad moment, Dagster's servers can go on for ever.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_servers_of_the_image_run_what_lands_and_log_it_in_the_bucket(
    home: Path, lake: Lake, bucket: Bucket, servers: Servers
) -> None:
    write_sample(lake.storage.root, customers=12, days=2)
    servers.start_code()
    servers.start_daemon()
    with instance_of(home) as instance:
        succeeded_runs = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
        jobs = {"bring_up_to_date", "reconcile", "report"}
        wait_until(lambda: {run.job_name for run in instance.get_runs(succeeded_runs)} == jobs)
    wait_until(lambda: any(key.startswith("dagster/storage/") for key in bucket.keys))


def test_a_run_that_ended_with_its_container_is_started_again_in_the_next_one(
    home: Path, lake: Lake, servers: Servers
) -> None:
    """It has the only place in the queue, and the server that answers now is not the one it had."""
    write_sample(lake.storage.root, customers=12, days=2)
    code = servers.start_code()
    servers.start_daemon()
    with instance_of(home) as instance:

        def runs(status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
            return list(instance.get_runs(dg.RunsFilter(statuses=[status])))

        with lake.writing():  # so that no run can end
            wait_until(lambda: bool(runs(dg.DagsterRunStatus.STARTED)))
            (lost,) = runs(dg.DagsterRunStatus.STARTED)
            assert instance.run_launcher.check_run_worker_health(lost).status is (
                WorkerStatus.RUNNING
            )
            os.killpg(code.pid, signal.SIGKILL)
            code.wait(60)
            servers.start_code()
        wait_until(lambda: lost.run_id in {run.root_run_id for run in runs(SUCCESS)})
        found = instance.get_run_by_id(lost.run_id)
        assert found
        assert found.status is dg.DagsterRunStatus.FAILURE


def wait_until(came: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not came():
        assert time.monotonic() < until
        time.sleep(0.5)
