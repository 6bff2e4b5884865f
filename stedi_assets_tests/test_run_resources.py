"""What runs are given: the lake for themselves, and an engine; what works without Dagster."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.lake.storage import locked
from stedi_assets_tests.end_to_end.landing_files import QUIET, resources_of


def run_over(lake: Lake, *assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        assets,
        resources=resources_of(lake.storage.root),
        run_config=QUIET,
        raise_on_error=False,
    )


def is_written(lake: Lake) -> bool:
    try:
        with locked(lake.storage.root / "_writing"):
            return False
    except BlockingIOError:
        return True


def test_a_run_with_an_engine_has_the_lake_for_itself_until_it_ends(lake: Lake) -> None:
    seen = []

    @dg.asset
    def looked_at(engine: dg.ResourceParam[DuckDBEngine]) -> None:
        seen.append((is_written(lake), engine.folder.is_relative_to(lake.storage.root)))

    assert run_over(lake, looked_at).success
    assert seen == [(True, True)]
    assert not is_written(lake)


def test_a_run_that_fails_leaves_the_lake_to_others_and_no_folder_behind(lake: Lake) -> None:
    folders: list[Path] = []

    @dg.asset
    def broken(engine: dg.ResourceParam[DuckDBEngine]) -> None:
        folders.append(engine.folder)
        raise ValueError("broken")

    assert not run_over(lake, broken).success
    assert not is_written(lake)
    assert not folders[0].exists()


def test_who_only_looks_at_the_lake_does_not_wait_for_runs(lake: Lake) -> None:
    seen = []

    @dg.asset
    def looked_at(lake: dg.ResourceParam[Lake]) -> None:
        seen.append((lake.storage.root / "_writing").exists() and is_written(lake))

    assert run_over(lake, looked_at).success
    assert seen == [False]


@pytest.mark.parametrize("module", ["resources", "making", "reconcile", "assets.definitions"])
def test_what_tables_should_hold_can_be_asked_without_dagster(module: str) -> None:
    """`stedi status` need not wait for it to be imported, which takes seconds."""
    program = (
        f"import sys, stedi_assets.{module}; "
        "print([name for name in sys.modules if name.partition('_')[0] == 'dagster'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr
