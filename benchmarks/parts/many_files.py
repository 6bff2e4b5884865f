"""What looking for news costs among 100,000 files."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.lakes import ROOT, WORK, write_empty_files
from benchmarks.results import Comparison, Goal


def run() -> Iterator[Comparison]:
    """Measure it."""
    lake = WORK / "100,000 files"
    write_empty_files(lake, 100_000)
    seconds = [
        json.loads(
            subprocess.check_output(
                [sys.executable, "-m", "benchmarks.tick"],
                env={**os.environ, "STEDI_LAKE": str(lake)},
                cwd=ROOT,
            )
        )["without news"]["wall"]
        for _ in range(5)
    ]
    yield Comparison(
        "100,000 landing files: a tick of their sensor without news",
        goals=[Goal("a tick", statistics.median(seconds), 3, unit="s")],
    )
