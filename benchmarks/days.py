"""A day's landing files, and lakes whose history they come to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lakes import ROOT, WORK, copies, link_tree, move_last_date
from benchmarks.measuring import STEDI, Contestant, new_home, remove_tables


@dataclass(frozen=True)
class History:
    """Days that a lake knows, and the one that comes.

    Attributes:
        days: how many it knows.
        lake: with their tables.
        home: the Dagster instance that made them.
        day: a lake with the landing files of the day that comes.
    """

    days: int
    lake: Path
    home: Path
    day: Path


def history_of(days: int) -> History:
    """So many days of the same people, in a lake that is up to date; it is made once."""
    whole = copies(days + 1, dates=True)
    found = History(
        days,
        whole.with_name(f"{days} days of history"),
        whole.with_name(f"home of {days} days"),
        whole.with_name(f"the day after {days}"),
    )
    done = found.home / "done"
    if not done.exists():
        for folder in (found.lake, found.day):
            shutil.rmtree(folder, ignore_errors=True)
        link_tree(whole, found.lake)
        remove_tables(found.lake)
        move_last_date(found.lake, found.day)
        settings = {"STEDI_LAKE": str(found.lake), "DAGSTER_HOME": str(new_home(found.home))}
        subprocess.run(
            [STEDI, "run"],
            env={**os.environ, **settings},
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        done.touch()
    return found


def day_on(history: History) -> Contestant:
    """`stedi run` when the day's files come to a lake and a Dagster instance with that history."""
    lake, home = WORK / "day on history", WORK / "home with history"

    def before() -> Mapping[str, str]:
        for folder in (lake, home):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(history.home, home)
        link_tree(history.lake, lake)
        for landing in history.day.glob("*/landing"):
            link_tree(landing, lake / landing.relative_to(history.day))
        return {"STEDI_LAKE": str(lake), "DAGSTER_HOME": str(home)}

    return Contestant(f"on {history.days} days of history", [STEDI, "run"], before)
