"""What tests share: an empty lake, an engine over it, the reference files."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_engine

_ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not depend on the settings of whoever runs them."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "DAGSTER_")) or (
            name.startswith("STEDI_") and name != "STEDI_REFERENCE"
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake in a folder of its own."""
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture
def engine(lake: Lake) -> Iterator[DuckDBEngine]:
    """DuckDB over the empty lake."""
    with open_engine(lake) as opened:
        yield opened


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with the real landing files; without them the test is skipped, but in CI."""
    folder = Path(os.environ.get("STEDI_REFERENCE") or _ROOT.parent / "shared" / "reference")
    if not folder.is_dir():
        pytest.skip(f"the reference files are not at {folder}; set STEDI_REFERENCE")
    return folder


@pytest.fixture
def reference_lake(reference: Path, lake: Lake) -> Lake:
    """A lake that holds copies of the reference files and nothing else."""
    for source in ("customer", "accelerometer", "step_trainer"):
        shutil.copytree(
            reference / source,
            lake.storage.root / source,
            copy_function=shutil.copyfile,
        )
    return lake
