"""`dagster dev` as `make dev` starts it, over a lake and a Dagster home of a test's own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.launcher import WorkerStatus

from stedi_assets.lake import Lake
from stedi_assets_tests.storages import root_of

ROOT = Path(__file__).parents[2]
PATIENCE = 150
"""How many seconds to wait for what should come; twenty are usual, on a machine at leisure."""

STARTED = dg.DagsterRunStatus.STARTED


def new_home(folder: Path) -> Path:
    """Make a Dagster home with the project's settings and nothing else."""
    folder.mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder)
    return folder


class DagsterDev:
    """`dagster dev` and all processes that it starts, which are one process group."""

    def __init__(self, home: Path, lake: Lake, **more: str) -> None:
        self.home = home
        self.log = home.with_name("dagster dev.log")
        self.port = free_port()
        settings = {
            "DAGSTER_HOME": str(home),
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
            "STEDI_LAKE": str(root_of(lake)),
            **more,
        }
        # A shell without a terminal has its background jobs ignore what Ctrl-C sends.
        ours = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with self.log.open("a") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "dagster", "dev", "--port", str(self.port)],
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
def dagster_dev(home: Path, lake: Lake, **settings: str) -> Iterator[DagsterDev]:
    """`dagster dev` over a lake; what of it lives at the end is killed."""
    dev = DagsterDev(home, lake, **settings)
    try:
        yield dev
    finally:
        if dev.processes():
            dev.end(signal.SIGKILL)


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
