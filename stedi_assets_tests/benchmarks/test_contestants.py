"""What benchmarks compare makes the same tables: else their times would compare nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lakes import ROOT, landing_rows, write_copies, write_made_up
from benchmarks.measuring import counts_of_files
from stedi_assets.lake import Lake
from stedi_assets_tests.end_to_end.process import counts, stedi, succeeded
from stedi_assets_tests.end_to_end.test_reference import NO_REJECTS, STATED
from stedi_assets_tests.storages import root_of

DERIVED = {table: rows for table, rows in STATED.items() if not table.endswith("_landing")}
SCRIPTS = [
    ("pandas_notebook",),
    ("pandas_notebook", "pyarrow"),
    ("polars_script",),
    pytest.param(("pyspark_jobs",), marks=pytest.mark.spark),
]


def made_by(script: tuple[str, ...], lake: Path, out: Path) -> dict[str, int]:
    module, *arguments = script
    command = [sys.executable, "-m", f"benchmarks.{module}", str(lake), str(out), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    return dict(counts_of_files(out))


@pytest.mark.reference
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_gives_the_stated_counts_of_the_five_tables(
    script: tuple[str, ...], reference: Path, tmp_path: Path
) -> None:
    assert made_by(script, reference, tmp_path / "out") == DERIVED


@pytest.mark.reference
def test_the_floor_gives_the_stated_counts_of_all_eight(reference: Path, tmp_path: Path) -> None:
    assert made_by(("floor",), reference, tmp_path / "out") == STATED


@pytest.mark.reference
def test_three_copies_are_of_other_people_and_give_three_times_the_rows(
    reference: Path, tmp_path: Path
) -> None:
    lake = tmp_path / "x3"
    write_copies(reference, lake, 3)
    found = made_by(("floor",), lake, tmp_path / "out")
    assert found == {table: rows * 3 for table, rows in STATED.items()}


@pytest.mark.long
def test_made_up_files_have_the_size_of_the_reference_files_and_are_read_whole(
    tmp_path: Path, lake: Lake
) -> None:
    made_up = root_of(lake)
    write_made_up(made_up)
    sources = ("customer", "accelerometer", "step_trainer")
    stated = sum(STATED[f"{source}_landing"] for source in sources)
    assert landing_rows(made_up) == pytest.approx(stated, rel=0.01)
    floor = made_by(("floor",), made_up, tmp_path / "floor")
    assert floor == pytest.approx(STATED, rel=0.1)
    pandas = made_by(("pandas_notebook", "pyarrow"), made_up, tmp_path / "pandas")
    assert pandas == {table: floor[table] for table in DERIVED}
    succeeded(stedi(lake, "run"))
    assert counts(lake) == floor | NO_REJECTS
