"""What starting takes: a run of one small day against its imports."""

import sys
from collections.abc import Iterator

from benchmarks.lakes import copies
from benchmarks.measuring import Contestant, in_turn, stedi_run
from benchmarks.results import Comparison, ratio


def run() -> Iterator[Comparison]:
    """Measure it."""
    imports = Contestant("imports", [sys.executable, "-c", "import dagster, ibis"])
    whole, alone = in_turn([stedi_run(copies(1)), imports], rounds=7)
    yield Comparison(
        'The landing files once: the whole job against `python -c "import dagster, ibis"`',
        [whole, alone],
        ratio("time of the whole job / of its imports", whole, alone, 3.0),
    )
