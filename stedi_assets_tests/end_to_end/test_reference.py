"""The real landing files through the command line: the counts that the project promises."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from stedi_assets.lake import Lake
from stedi_assets_tests.end_to_end.process import counts, files_in, stedi, succeeded

COUNTS = {
    "customer_landing": 956,
    "accelerometer_landing": 81_273,
    "step_trainer_landing": 28_680,
    "customer_trusted": 482,
    "accelerometer_trusted": 40_981,
    "customers_curated": 482,
    "step_trainer_trusted": 14_460,
    "machine_learning_curated": 43_681,
    "customer_rejects": 0,
    "accelerometer_rejects": 0,
    "step_trainer_rejects": 0,
}


@pytest.fixture
def dagster_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster instance of its own, set up as the project's."""
    home = tmp_path / "dagster home"
    home.mkdir()
    shutil.copy(Path(__file__).parents[2] / "dagster_home" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def number_of_runs(home: Path) -> int:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return instance.get_runs_count()


@pytest.mark.reference
def test_the_reference_files_give_the_known_counts_and_a_second_run_has_nothing_to_do(
    reference_lake: Lake, dagster_home: Path
) -> None:
    told = succeeded(stedi(reference_lake, "run"))
    assert counts(reference_lake) == COUNTS
    for line in (
        "Run 1 of 1: ingestion date 2023-08-06",
        "  accelerometer_landing            81,273 rows",
        "  machine_learning_curated         43,681 rows",
        "machine_learning_curated  curated         43,681",
    ):
        assert line in told.splitlines()
    assert "ERROR" not in told
    assert "warning" not in told

    before = files_in(reference_lake.storage.root)
    assert len(before) == len(COUNTS) + 1, "and what was found right"
    assert number_of_runs(dagster_home) == 1
    told = succeeded(stedi(reference_lake, "run"))
    assert told.startswith("All tables are up to date.\n")
    told = succeeded(stedi(reference_lake, "status"))
    assert told == "Every partition holds what it should.\n"
    assert number_of_runs(dagster_home) == 1
    assert files_in(reference_lake.storage.root) == before
    assert counts(reference_lake) == COUNTS
