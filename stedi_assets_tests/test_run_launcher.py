"""Whether the process of a run is there, as the monitor of Dagster's daemon asks.

That a run which was killed makes room in the queue: `end_to_end/test_dagster_dev.py`.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._grpc.client import DagsterGrpcClient

from stedi_assets.lake import open_lake
from stedi_assets.run_launcher import PROCESS
from stedi_assets_tests.end_to_end.dagster_dev import free_port
from stedi_assets_tests.end_to_end.landing_files import customer, land
from stedi_assets_tests.end_to_end.process import stedi, succeeded

ROOT = Path(__file__).parents[1]


@dg.job
def nothing() -> None:
    pass


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """One with the project's settings."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster_home" / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


def health(
    instance: dg.DagsterInstance, server: dict[str, str | int] | None, **tags: str
) -> WorkerStatus:
    """Of a run that has started, on that server."""
    if server:
        tags[".dagster/grpc_info"] = json.dumps(server)
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags=tags)
    return instance.run_launcher.check_run_worker_health(run).status


def test_the_launcher_is_asked_whether_the_process_of_a_run_is_there(
    instance: dg.DagsterInstance,
) -> None:
    assert instance.run_monitoring_enabled
    assert instance.run_launcher.supports_check_run_worker_health


def test_a_run_that_no_server_started_is_left_alone(instance: dg.DagsterInstance) -> None:
    assert health(instance, None) is WorkerStatus.RUNNING


def test_a_run_of_the_command_line_is_there_as_long_as_its_process(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        tags = {PROCESS: f"{process.pid}@{socket.gethostname()}"}
        elsewhere = {PROCESS: f"{process.pid}@elsewhere"}
        assert health(instance, None, **tags) is WorkerStatus.RUNNING
        process.kill()
    assert health(instance, None, **tags) is WorkerStatus.NOT_FOUND
    # On another machine, or in another container, the number is another process.
    assert health(instance, None, **elsewhere) is WorkerStatus.RUNNING


def test_a_run_of_the_command_line_says_which_process_it_is(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    succeeded(stedi(lake, "run", DAGSTER_HOME=str(tmp_path)))
    (process,) = {run.tags[PROCESS] for run in instance.get_runs()}
    assert int(process.partition("@")[0]) != os.getpid()
    assert health(instance, None, **{PROCESS: process}) is WorkerStatus.NOT_FOUND, "it has ended"


def test_a_run_whose_server_is_gone_is_gone(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    gone: dict[str, str | int] = {"host": "localhost", "socket": str(tmp_path / "gone")}
    assert health(instance, gone) is WorkerStatus.NOT_FOUND


@contextmanager
def server(**where: str) -> Iterator[None]:
    """A server of definitions that has started no run, at a socket or at a port."""
    ((kind, value),) = where.items()
    command = [sys.executable, "-m", "dagster", "api", "grpc", f"--{kind}", value, "-m", __name__]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            client = DagsterGrpcClient(
                host="localhost", socket=where.get("socket"), port=int(where.get("port", 0)) or None
            )
            until = time.monotonic() + 60
            while True:
                try:
                    client.ping("there")
                    break
                except dg.DagsterError:
                    assert time.monotonic() < until, "no server"
                    time.sleep(0.1)
            yield
        finally:
            process.kill()  # asked to end as it begins to serve, it can go on for ever


@pytest.mark.long
def test_a_run_that_the_server_at_a_socket_does_not_know_is_left_alone(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """After a reload of the definitions another server answers, and the run goes on."""
    path = str(tmp_path / "socket")
    with server(socket=path):
        there = health(instance, {"host": "localhost", "socket": path})
        assert there is WorkerStatus.RUNNING


@pytest.mark.long
def test_a_run_that_the_server_at_a_port_does_not_know_is_gone(
    instance: dg.DagsterInstance,
) -> None:
    """A container that was started anew answers where the one before did."""
    port = free_port()
    with server(port=str(port)):
        there = health(instance, {"host": "localhost", "port": port})
        assert there is WorkerStatus.NOT_FOUND
