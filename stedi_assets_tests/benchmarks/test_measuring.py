"""What benchmarks say of a process is what it took; what made other tables is not compared."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.floor import STATEMENTS
from benchmarks.lakes import ROOT
from benchmarks.measuring import (
    Contestant,
    Cost,
    CountsDifferError,
    Measured,
    hold_against,
    in_turn,
    measure,
)

COUNTS = dict.fromkeys(STATEMENTS, 7)
BUSY = """
    import time
    held = bytearray({megabytes} << 20)
    print("holding", flush=True)
    while time.process_time() < {seconds}:
        pass
    time.sleep({idle})
"""


def python(code: str, **values: float) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code).format(**values)]


def test_time_processor_and_memory_of_one_process() -> None:
    cost = measure(Contestant("busy", python(BUSY, megabytes=100, seconds=0.3, idle=0.5)))
    assert 0.3 <= cost.cpu < 0.8
    assert cost.wall >= 0.8
    assert 100 < cost.peak < 150


def test_what_a_process_starts_counts_even_if_nobody_waits_for_it() -> None:
    # As Spark's JVM, which outlives the Python that started it.
    left_behind = f"""
        import subprocess, sys, time
        held = bytearray(100 << 20)
        child = {python(BUSY, megabytes=150, seconds=0.5, idle=2)!r}
        assert subprocess.Popen(child, stdout=subprocess.PIPE).stdout.readline()
        time.sleep(1)
    """
    cost = measure(Contestant("with a child", [sys.executable, "-c", textwrap.dedent(left_behind)]))
    assert 0.5 <= cost.cpu < 1.5
    assert 250 < cost.peak < 350


def test_a_process_that_fails_is_no_result() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)broken failed.*no such thing"):
        measure(Contestant("broken", python("raise SystemExit('no such thing')")))


def test_contestants_run_in_turn_after_a_round_that_does_not_count(tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    def noting(name: str) -> Contestant:
        return Contestant(name, ["sh", "-c", f"echo {name} >> {notes}"], counts=lambda: COUNTS)

    found = in_turn([noting("a"), noting("b")], rounds=2, rows=10)
    assert notes.read_text().split() == ["a", "b"] * 3
    assert [(one.name, one.rows, len(one.costs)) for one in found] == [("a", 10, 2), ("b", 10, 2)]


def test_other_counts_stop_a_comparison() -> None:
    right = Contestant("right", ["true"], counts=lambda: COUNTS)
    wrong = Contestant("wrong", ["true"], counts=lambda: COUNTS | {"step_trainer_trusted": 8})
    with pytest.raises(
        CountsDifferError, match="step_trainer_trusted: 7 rows by right, 8 by wrong"
    ):
        in_turn([right, wrong], rounds=1, warm_up=False)


@pytest.mark.parametrize("table", STATEMENTS)
def test_a_table_that_one_or_both_lack_is_a_difference(table: str) -> None:
    fewer = {name: rows for name, rows in COUNTS.items() if name != table}
    for one, other in ((COUNTS, fewer), (fewer, COUNTS), (fewer, fewer)):
        with pytest.raises(CountsDifferError, match=table):
            hold_against("one", one, "other", other)


def test_landing_tables_count_where_both_have_them() -> None:
    hold_against("one", COUNTS | {"customer_landing": 1}, "other", COUNTS)
    with pytest.raises(CountsDifferError, match="customer_landing: 1 rows by one, 2 by other"):
        hold_against(
            "one", COUNTS | {"customer_landing": 1}, "other", COUNTS | {"customer_landing": 2}
        )


def test_medians_are_taken_figure_by_figure() -> None:
    costs = Cost(1, 9, 20), Cost(5, 2, 30), Cost(3, 4, 10)
    assert Measured("a", 0, costs).median == Cost(3, 4, 20)


def test_an_unknown_part_is_an_error_that_names_the_known_ones() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks", "spead"], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "no such part: spead; there are speed, growth" in told.stderr
