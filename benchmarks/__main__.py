"""Runs the benchmarks and prints medians and their ratios, each beside its goal.

Whole processes are measured, in turn, A B A B …, so that a machine whose speed drifts slows both.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.lakes import write_copies

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmarks" / "work"
REFERENCE = Path(os.environ.get("STEDI_REFERENCE") or ROOT.parent / "shared" / "reference")
STEDI = str(Path(sys.executable).parent / "stedi")


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds by the clock, and megabytes at its peak."""

    wall: float
    peak: float


@dataclass(frozen=True)
class Contestant:
    """A command to measure, and what to do before each of its runs."""

    name: str
    command: list[str]
    before: Callable[[], Mapping[str, str]] = dict


def measure(contestant: Contestant) -> Cost:
    """Run the command once; RuntimeError where it fails."""
    environment = {**os.environ, **contestant.before()}
    started = time.perf_counter()
    process = subprocess.Popen(
        contestant.command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{contestant.name} failed: {contestant.command}")
    return Cost(wall, usage.ru_maxrss / 1024)


def compare(first: Contestant, second: Contestant, rounds: int) -> tuple[Cost, Cost]:
    """Medians of both, measured in turn, after one round that is not counted."""
    costs: dict[str, list[Cost]] = {first.name: [], second.name: []}
    for number in range(rounds + 1):
        for contestant in (first, second):
            cost = measure(contestant)
            if number:
                costs[contestant.name].append(cost)
    one, other = (
        Cost(statistics.median(c.wall for c in found), statistics.median(c.peak for c in found))
        for found in costs.values()
    )
    return one, other


def stedi_run(lake: Path) -> Contestant:
    """`stedi run` on a lake that holds landing files alone, in a Dagster instance with no runs."""
    home = WORK / "dagster_home"

    def before() -> Mapping[str, str]:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        shutil.copy(ROOT / "dagster_home" / "dagster.yaml", home)
        for folder in lake.glob("*/*"):
            if folder.name != "landing":
                shutil.rmtree(folder)
        return {"STEDI_LAKE": str(lake), "DAGSTER_HOME": str(home)}

    return Contestant("stedi run", [STEDI, "run"], before)


def floor(lake: Path, out: Path) -> Contestant:
    """The bare DuckDB script on the same landing files."""
    command = [sys.executable, "-m", "benchmarks.floor", str(lake), str(out)]
    return Contestant("floor script", command)


def check_counts(lake: Path, out: Path) -> None:
    """RuntimeError where both did not give the same rows."""
    found = json.loads(
        subprocess.check_output(
            [STEDI, "counts", "--format", "json"], env={**os.environ, "STEDI_LAKE": str(lake)}
        )
    )
    with duckdb.connect() as connection:
        for file in out.glob("*.parquet"):
            ((rows,),) = connection.execute(
                "SELECT count(*) FROM read_parquet($file)", {"file": str(file)}
            ).fetchall()
            if rows != found[file.stem]:
                raise RuntimeError(f"{file.stem}: {rows} rows here, {found[file.stem]} there")


def show(title: str, one: str, other: str, costs: tuple[Cost, Cost], goals: str) -> None:
    """Print one comparison."""
    first, second = costs
    print(f"\n{title}")
    for name, cost in ((one, first), (other, second)):
        print(f"  {name:<28}{cost.wall:8.2f} s{cost.peak:9.0f} MB")
    print(f"  {'ratio':<28}{first.wall / second.wall:8.2f}  {first.peak / second.peak:9.2f}")
    print(f"  goal: {goals}", flush=True)


def main() -> None:
    """Run all comparisons."""
    if not REFERENCE.is_dir():
        sys.exit(f"no reference files at {REFERENCE}: set STEDI_REFERENCE")
    WORK.mkdir(exist_ok=True)
    small, large, out = WORK / "x1", WORK / "x100", WORK / "floor"
    write_copies(REFERENCE, small, 1)
    imports = Contestant("imports", [sys.executable, "-c", "import dagster, ibis"])
    show(
        "Reference files: the whole job against its imports",
        "stedi run",
        'python -c "import dagster, ibis"',
        compare(stedi_run(small), imports, rounds=7),
        "at most 3.0 times the time",
    )
    write_copies(REFERENCE, large, 100)
    costs = compare(stedi_run(large), floor(large, out), rounds=5)
    check_counts(large, out)
    show(
        "Reference files x100, 1 GB of JSON: the whole job against eight bare statements",
        "stedi run",
        "floor script",
        costs,
        "at most 2.5 times the time, and 2048 MB",
    )


if __name__ == "__main__":
    main()
