"""A job that is larger than the memory it may have: it has to finish, on disk, and be right."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.lakes import copies, landing_rows
from benchmarks.measuring import floor, hold_against, in_turn, measure, stedi_run
from benchmarks.results import Comparison, Goal, ratio

SIZE = 300
LIMIT = "1GB"
INTERVAL = 0.1  # seconds between two looks at what is spilled


def run() -> Iterator[Comparison]:
    """Measure it beside the floor script, which may use all memory; counts are compared."""
    lake = copies(SIZE)
    limited = stedi_run(lake, f"stedi run, {LIMIT} of memory", STEDI_MEMORY_LIMIT=LIMIT)
    with most_spilled(lake) as spilled:
        whole, bare = in_turn([limited, floor(lake)], 1, landing_rows(lake), warm_up=False)
    comparison = Comparison(
        f"x{SIZE} with a memory limit of {LIMIT} for DuckDB, against eight statements without one",
        [whole, bare],
        [
            Goal(
                "spilled to disk at once, at most",
                max(spilled) / 1e6,
                0.1,
                at_least=True,
                unit="MB",
            ),
            *ratio("time of stedi run / of the floor script", whole, bare),
        ],
    )
    once = floor(copies(1))
    measure(once)
    # Each copy has other people and devices, so every table holds so many times the rows.
    expected = {table: rows * SIZE for table, rows in once.counts().items()}
    hold_against(f"{SIZE} times the rows of one copy", expected, limited.name, limited.counts())
    yield comparison


@contextmanager
def most_spilled(lake: Path) -> Iterator[list[int]]:
    """Look, while something runs, how many bytes lie in the folders that DuckDB spills into."""
    found = [0]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(INTERVAL):
            with suppress(OSError):  # a file went meanwhile
                found.append(sum(file.stat().st_size for file in lake.glob("*/*/spill/*")))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
