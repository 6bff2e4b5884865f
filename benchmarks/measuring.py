"""Contestants, and how they are measured: whole processes, in turn, each run's counts compared.

In turn, A B A B …, so that a machine whose speed drifts slows all of them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from benchmarks.floor import STATEMENTS
from benchmarks.lakes import ROOT, WORK
from stedi_assets.tables import TABLES

MOST_ROUNDS = int(os.environ.get("STEDI_BENCH_ROUNDS") or 100)  # 1: only to see that all works
STEDI = str(Path(sys.executable).parent / "stedi")

Counts = Mapping[str, int]


class CountsDifferError(Exception):
    """Contestants did not make the same tables, so their times compare nothing."""


@dataclass(frozen=True)
class Cost:
    """What a command took, with all processes that it started.

    Attributes:
        wall: seconds by the clock.
        cpu: seconds of all cores together.
        peak: megabytes at the moment when it held most.
    """

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Contestant:
    """A command to measure.

    Attributes:
        name: in tables and charts.
        command: its words.
        before: what to do before each run; returns what to add to the environment.
        counts: counts the rows of the tables that a run made; by default it makes none.
    """

    name: str
    command: list[str]
    before: Callable[[], Mapping[str, str]] = dict
    counts: Callable[[], Counts] = dict


@dataclass(frozen=True)
class Measured:
    """What the runs of a contestant took.

    Attributes:
        name: whose they are.
        rows: how many landing rows a run reads; 0 where that is not the point.
        costs: a run each.
    """

    name: str
    rows: int
    costs: tuple[Cost, ...]

    @property
    def median(self) -> Cost:
        """The medians of all runs."""
        return Cost(
            statistics.median(cost.wall for cost in self.costs),
            statistics.median(cost.cpu for cost in self.costs),
            statistics.median(cost.peak for cost in self.costs),
        )


def measure(contestant: Contestant) -> Cost:
    """Run the command once; RuntimeError where it fails."""
    environment = {**os.environ, **contestant.before()}
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.measured", *contestant.command],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if found.returncode:
        command = " ".join(contestant.command)
        raise RuntimeError(f"{contestant.name} failed: {command}\n{found.stderr[-4000:]}")
    return Cost(**json.loads(found.stdout))


def in_turn(
    contestants: Sequence[Contestant], rounds: int, rows: int = 0, *, warm_up: bool = True
) -> list[Measured]:
    """Measure contestants in turn.

    Args:
        contestants: those that make tables make the same ones.
        rounds: how many runs of each, at most `STEDI_BENCH_ROUNDS`.
        rows: of the landing files that they read.
        warm_up: whether one more round goes before, which is not counted.

    Raises:
        CountsDifferError: a run gave other counts than the first one.
    """
    costs: dict[str, list[Cost]] = {contestant.name: [] for contestant in contestants}
    first: tuple[str, Counts] | None = None
    rounds, warm_up = min(rounds, MOST_ROUNDS), warm_up and MOST_ROUNDS > 1
    for number in range(rounds + warm_up):
        for contestant in contestants:
            print(f"  … {contestant.name}", file=sys.stderr, flush=True)
            cost = measure(contestant)
            if number >= warm_up:
                costs[contestant.name].append(cost)
            if counts := contestant.counts():
                first = first or (contestant.name, counts)
                hold_against(*first, contestant.name, counts)
    return [Measured(name, rows, tuple(found)) for name, found in costs.items()]


def hold_against(name: str, counts: Counts, other: str, others: Counts) -> None:
    """CountsDifferError where two have not the same counts, or one of the five tables is missing.

    Landing tables are compared where both have them: most contestants make none.
    """
    tables = {*STATEMENTS} | (counts.keys() & others.keys() & TABLES.keys())
    differing = [
        f"{table}: {counts.get(table)} rows by {name}, {others.get(table)} by {other}"
        for table in sorted(tables)
        if table not in counts or counts[table] != others.get(table)
    ]
    if differing:
        raise CountsDifferError("; ".join(differing))


def counts_of_files(out: Path) -> Counts:
    """The rows of the tables in a folder: a Parquet file each, or a folder of them."""
    with duckdb.connect() as connection:
        found = {}
        for path in out.glob("*.parquet"):
            files = str(path / "*.parquet" if path.is_dir() else path)
            ((rows,),) = connection.execute(
                "SELECT count(*) FROM read_parquet($files)", {"files": files}
            ).fetchall()
            found[path.stem] = rows
    return found


def counts_of_lake(lake: Path) -> Counts:
    """What `stedi counts` says."""
    environment = {**os.environ, "STEDI_LAKE": str(lake)}
    printed = subprocess.check_output([STEDI, "counts", "--format", "json"], env=environment)
    found: Counts = json.loads(printed)
    return found


def script(name: str, module: str, lake: Path, *arguments: str) -> Contestant:
    """A contestant's script on a lake's landing files; what it wrote before is taken away first."""
    out = WORK / "out" / name

    def before() -> Mapping[str, str]:
        shutil.rmtree(out, ignore_errors=True)
        return {}

    command = [sys.executable, "-m", f"benchmarks.{module}", str(lake), str(out), *arguments]
    return Contestant(name, command, before, lambda: counts_of_files(out))


def scripts(name: str, module: str, lake: Path, jobs: Iterable[str]) -> Contestant:
    """The same, with a process for each of the script's jobs, one after the other."""
    alone = script(name, module, lake)
    each = (shlex.join([*alone.command, job]) for job in jobs)
    return replace(alone, command=["sh", "-c", " && ".join(each)])


def floor(lake: Path) -> Contestant:
    """The bare DuckDB script."""
    return script("floor script", "floor", lake)


def stedi_run(lake: Path, name: str = "stedi run", **settings: str) -> Contestant:
    """`stedi run` on a lake that holds landing files alone, in a Dagster instance with no runs."""

    def before() -> Mapping[str, str]:
        remove_tables(lake)
        home = new_home(WORK / "dagster_home")
        return {"STEDI_LAKE": str(lake), "DAGSTER_HOME": str(home), **settings}

    return Contestant(name, [STEDI, "run"], before, lambda: counts_of_lake(lake))


def new_home(home: Path) -> Path:
    """A Dagster instance with no runs."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", home)
    return home


def remove_tables(lake: Path) -> None:
    """Leave a lake its landing files alone."""
    (lake / "_reconciled.parquet").unlink(missing_ok=True)
    for folder in lake.glob("*/*"):
        if folder.name != "landing":
            shutil.rmtree(folder)
