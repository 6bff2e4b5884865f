"""What a large instance costs: 10,000 partitions, 100,000 landing files, 1,000 runs.

In CPU seconds, for they say what is done, however busy the machine is. How memory grows with time:
`benchmarks/soak.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.lakes import ROOT, WORK, write_small_files
from benchmarks.measuring import STEDI, Contestant, in_turn, new_home
from benchmarks.replayed import replay
from benchmarks.results import Comparison, Goal
from stedi_assets.pruning import prune

FILES, DAYS, RUNS = 100_000, 910, 1000
_FIRST = date(2022, 1, 1)
_LAST = _FIRST + timedelta(days=DAYS - 1)


def run() -> Iterator[Comparison]:
    """Make it, and measure."""
    lake, home = WORK / "load", WORK / "home of load"
    settings = {"STEDI_LAKE": str(lake), "DAGSTER_HOME": str(home)}
    if not (home / "done").exists():
        write_small_files(lake, FILES, DAYS)
        new_home(home)
        _stedi(settings, "run")
        _new_file(lake)
        _stedi(settings, "run")
        replay(home, _LAST, [_FIRST + timedelta(days=run % DAYS) for run in range(RUNS)])
        (home / "done").touch()

    def with_news() -> Mapping[str, str]:
        _new_file(lake)
        return settings

    ticks = _printed(settings, "benchmarks.tick")
    commands = in_turn(
        [
            Contestant("stedi status", [STEDI, "status"], lambda: settings),
            Contestant("stedi counts", [STEDI, "counts"], lambda: settings),
            Contestant("stedi run, one new file", [STEDI, "run"], with_news),
        ],
        rounds=3,
        warm_up=False,
    )
    limits = {"stedi status": 15, "stedi counts": 5, "stedi run, one new file": 25}
    yield Comparison(
        f"{11 * DAYS:,} partitions, {FILES:,} landing files: looking, and one new file",
        commands,
        [
            *(
                Goal(f"CPU of a sensor's tick, {name}", cost["cpu"], limit, unit="s")
                for limit, (name, cost) in zip((8, 4, 6), ticks.items(), strict=True)
            ),
            *(
                Goal(f"CPU of {found.name}", found.median.cpu, limits[found.name], unit="s")
                for found in commands
            ),
            *(
                Goal(f"memory of {found.name}", found.median.peak, 1000, unit="MB")
                for found in commands
            ),
        ],
    )
    yield _pages(f"{RUNS:,} runs: the UI's pages", settings)
    pruned = WORK / "pruned home of load"
    shutil.rmtree(pruned, ignore_errors=True)
    shutil.copytree(home, pruned)
    before = _megabytes(pruned)
    os.environ["DAGSTER_HOME"] = str(pruned)
    with dg.DagsterInstance.from_config(str(pruned)) as instance:
        prune(instance, datetime.now(UTC))
    yield Comparison(
        f"{RUNS:,} runs: Dagster's databases",
        goals=[
            Goal("of them all", before, 1500, unit="MB"),
            Goal("after all that ended was pruned, of before", _megabytes(pruned) / before, 0.5),
        ],
    )
    yield _pages("The same pages then", {**settings, "DAGSTER_HOME": str(pruned)})


def _pages(title: str, settings: Mapping[str, str]) -> Comparison:
    limits = {"the catalog of tables": 20, "a table": 15}
    return Comparison(
        title,
        goals=[
            Goal(f"CPU of the UI's server for {name}", cpu, limits.get(name, 6), unit="s")
            for name, cpu in _printed(settings, "benchmarks.pages").items()
        ],
    )


def _stedi(settings: Mapping[str, str], *arguments: str) -> None:
    subprocess.run(
        [STEDI, *arguments],
        env={**os.environ, **settings},
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _printed(settings: Mapping[str, str], module: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module]
    printed = subprocess.check_output(command, env={**os.environ, **settings}, cwd=ROOT)
    found: dict[str, Any] = json.loads(printed)
    return found


def _new_file(lake: Path) -> None:
    """Replace a landing file of the last date."""
    file = lake / "customer" / "landing" / f"ingestion_date={_LAST}" / "new.json"
    file.write_text(json.dumps({"at": str(datetime.now(UTC))}))  # a reject
    os.utime(file, (file.stat().st_mtime - 60,) * 2)


def _megabytes(home: Path) -> float:
    return sum(path.stat().st_size for path in home.glob("*.db*")) / 1_000_000
