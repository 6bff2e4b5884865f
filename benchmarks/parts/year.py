"""What a year of days costs, each of the size of the landing files, and a day after it."""

import sys
from collections.abc import Iterator

from benchmarks.days import day_on, history_of
from benchmarks.lakes import copies, landing_rows
from benchmarks.measuring import STEDI, Contestant, floor, in_turn, stedi_run
from benchmarks.results import Comparison, ratio


def run() -> Iterator[Comparison]:
    """Measure its first load, looking at all of it, and the day after."""
    year = copies(365, dates=True)
    whole, bare = in_turn([stedi_run(year), floor(year)], 1, landing_rows(year), warm_up=False)
    yield Comparison(
        "365 days: a first load in one run against eight bare statements",
        [whole, bare],
        ratio("time of stedi run / of the floor script", whole, bare, 2.5),
    )
    here = {"STEDI_LAKE": str(year)}
    status, scan = in_turn(
        [
            Contestant("stedi status", [STEDI, "status"], lambda: here),
            Contestant("plain DuckDB scan", [sys.executable, "-m", "benchmarks.scan", str(year)]),
        ],
        rounds=5,
    )
    yield Comparison(
        "Those 365 days: is everything as it should be, against reading and hashing it",
        [status, scan],
        ratio("time of stedi status / of the scan", status, scan, 2.0),
    )
    history = history_of(364)
    after, alone = in_turn([day_on(history), stedi_run(history.day, "on an empty lake")], rounds=5)
    yield Comparison(
        "A day: after 364 others against alone",
        [after, alone],
        [
            *ratio("time after / alone", after, alone, 1.3),
            *ratio("memory after / alone", after, alone, 1.3, of=lambda cost: cost.peak),
        ],
    )
