"""A daemon and a code location's server that go on for long, and what they hold meanwhile.

Usage: python -m benchmarks.soak FOLDER TICKS RUNS; the folder is a new one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lakes import ROOT
from benchmarks.measuring import new_home
from stedi_assets.sample_data import write_sample

_SETTLED = 60
"""How many seconds ago a file that lands was written, so that it is read at once."""


@dataclass(frozen=True)
class Sample:
    """What a process holds at a moment.

    Attributes:
        megabytes: of memory that is its own.
        files: how many it has open.
        threads: how many it has.
    """

    megabytes: float
    files: int
    threads: int


@dataclass(frozen=True)
class Soaked:
    """What a soak has shown.

    Attributes:
        ticks: how many the sensors had.
        runs: how many there were; all succeeded.
        samples: of each process, in the order of time.
        left: files that nobody needs any more, in the lake and where temporary ones are.
        sizes: of Dagster's databases and their logs, in bytes.
    """

    ticks: int
    runs: int
    samples: Mapping[str, Sequence[Sample]]
    left: Sequence[str]
    sizes: Mapping[str, int]

    def grown(self, process: str, of: Callable[[Sample], float]) -> float:
        """How much more a process holds in the last quarter of the time than in the second.

        At the moments when it holds least: a run that it is about to start is none that it keeps.
        """
        values = [of(sample) for sample in self.samples[process]]
        quarter = len(values) // 4
        return min(values[-quarter:]) - min(values[quarter : 2 * quarter])


def soak(folder: Path, ticks: int, runs: int) -> Soaked:
    """Land files one after the other, and let the daemon have so many ticks and runs.

    Args:
        folder: a new one, for lake, Dagster instance and temporary files.
        ticks: of all sensors together, at least.
        runs: at least.

    Raises:
        RuntimeError: a run failed, or a process ended.
    """
    lake, temporary, home = folder / "lake", folder / "tmp", new_home(folder / "home")
    temporary.mkdir()
    write_sample(lake, customers=12, days=2)
    samples: dict[str, list[Sample]] = {"daemon": [], "code": []}
    landed = 0
    with _processes(lake, home, temporary) as processes:
        while True:
            had = _counts(home)
            if had["failed"]:
                raise RuntimeError(f"{had['failed']} runs failed")
            for name, process in processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"the {name} has ended: {process.returncode}")
                samples[name].append(_sample(process.pid))
            if had["waiting"] == 0 and had["ticks"] >= ticks and had["runs"] >= runs:
                break
            if had["waiting"] == 0 and had["runs"] < runs and had["runs"] >= landed:
                landed += 1
                _land(lake, landed)
            time.sleep(1)
    left = [
        str(path.relative_to(folder))
        for place in (lake / "_staging", lake / "_exchange", lake / "_pipes", temporary)
        for path in place.rglob("*")
        if path.is_file()
    ]
    sizes = {path.name: path.stat().st_size for path in home.glob("*.db*")}
    return Soaked(had["ticks"], had["runs"], samples, left, sizes)


@contextmanager
def _processes(
    lake: Path, home: Path, temporary: Path
) -> Iterator[Mapping[str, subprocess.Popen[bytes]]]:
    """The code location's server and the daemon, as on a server."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = str(listening.getsockname()[1])
    workspace = home / "workspace.yaml"
    server = {"host": "localhost", "port": int(port), "location_name": "stedi"}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    environment = {
        **os.environ,
        "STEDI_LAKE": str(lake),
        "DAGSTER_HOME": str(home),
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "TMPDIR": str(temporary),
    }
    commands = {
        "code": [
            "dagster",
            "api",
            "grpc",
            "-h",
            "localhost",
            "-p",
            port,
            "-m",
            "benchmarks.hurried",
        ],
        "daemon": ["benchmarks.hurried", "run", "-w", str(workspace)],
    }
    started: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context((home / f"{name}.log").open("wb"))
            started[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_end, started[name])
            if name == "code":
                _wait_for(int(port), started[name])
        yield started


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise RuntimeError("the code location's server has ended")


def _land(lake: Path, number: int) -> None:
    """A landing file of somebody's device, of a date of the sample."""
    days = sorted({file.parent for file in (lake / "step_trainer" / "landing").rglob("*.json*")})
    (file,) = (days[0] / f"soak {number}-1691348231000.json",)
    reading = {"sensorReadingTime": 1691348231000 + number, "serialNumber": "soak"}
    draft = lake / "draft"
    draft.write_text(json.dumps(reading | {"distanceFromObject": number}))
    then = time.time() - _SETTLED
    os.utime(draft, (then, then))
    draft.rename(file)


def _counts(home: Path) -> dict[str, int]:
    """How many ticks and runs there were, and how many of these have failed or have not ended."""

    def count(database: str, query: str) -> int:
        if not (home / database).exists():
            return 0
        with closing(sqlite3.connect(home / database, timeout=30)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {query}").fetchone()[0])

    return {
        "ticks": count("schedules.db", "job_ticks WHERE type = 'SENSOR'"),
        "runs": count("runs.db", "runs WHERE status = 'SUCCESS'"),
        "failed": count("runs.db", "runs WHERE status IN ('FAILURE', 'CANCELED')"),
        "waiting": count("runs.db", "runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"),
    }


def _sample(process: int) -> Sample:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    return Sample(
        (int(status["RssAnon"].split()[0])) / 1024,
        sum(1 for _ in Path(f"/proc/{process}/fd").iterdir()),
        int(status["Threads"]),
    )


def main() -> None:
    """Soak, and tell."""
    folder, ticks, runs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True)
    found = soak(folder, ticks, runs)
    print(f"{found.ticks:,} ticks, {found.runs:,} runs; left: {found.left or 'nothing'}")
    for process in found.samples:
        print(
            f"{process}: {found.grown(process, lambda sample: sample.megabytes):+.1f} MB, "
            f"{found.grown(process, lambda sample: sample.files):+.0f} files, "
            f"{found.grown(process, lambda sample: sample.threads):+.0f} threads "
            "from the second quarter of the time to the last"
        )
    print(", ".join(f"{name}: {size:,} bytes" for name, size in sorted(found.sizes.items())))


if __name__ == "__main__":
    main()
