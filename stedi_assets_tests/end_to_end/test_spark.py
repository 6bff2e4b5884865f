"""The lake on Spark: the same tables, and neither engine finds anything to do after the other."""

import subprocess
from collections.abc import Collection, Iterator
from datetime import date
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given, settings

from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import cache_folder
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.histories import Event, Runner, compiled_once, histories
from stedi_assets_tests.end_to_end.landing_files import run
from stedi_assets_tests.end_to_end.process import counts, stedi, succeeded
from stedi_assets_tests.end_to_end.test_any_order import any_history, ends_up_as_a_fresh_lake
from stedi_assets_tests.end_to_end.test_reference import DAY, NO_REJECTS, STATED
from stedi_assets_tests.storages import AnyPath, files_in, root_of

pytestmark = pytest.mark.spark

UP_TO_DATE = "Every partition holds what it should.\n"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, quick_spark: dict[str, str]) -> None:
    for name, value in quick_spark.items():
        monkeypatch.setenv(name, value)


def on_spark(lake: Lake | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return stedi(lake, *arguments, STEDI_ENGINE="spark")


@pytest.mark.reference
def test_the_reference_files_give_the_known_counts_and_duckdb_has_nothing_to_do(
    reference_lake: Lake,
) -> None:
    told = succeeded(on_spark(reference_lake, "run"))
    assert "ERROR" not in told
    assert counts(reference_lake) == STATED | NO_REJECTS
    before = files_in(root_of(reference_lake))
    for engine in ("duckdb", "spark"):
        assert succeeded(stedi(reference_lake, "status", STEDI_ENGINE=engine)) == UP_TO_DATE
        told = succeeded(stedi(reference_lake, "run", STEDI_ENGINE=engine))
        assert told.startswith("All tables are up to date.\n")
    assert files_in(root_of(reference_lake)) == before


@pytest.mark.reference
def test_after_duckdb_spark_has_nothing_to_do_and_makes_what_is_lost_as_it_was(
    reference_lake: Lake,
) -> None:
    succeeded(stedi(reference_lake, "run"))
    assert succeeded(on_spark(reference_lake, "status")) == UP_TO_DATE
    assert succeeded(on_spark(reference_lake, "run")).startswith("All tables are up to date.\n")
    files = [path for path in files_in(root_of(reference_lake)) if path.name == "part-0.parquet"]
    assert len(files) == len(TABLES)
    for file in files:
        file.unlink()
    told = succeeded(on_spark(reference_lake, "reconcile"))
    assert "ERROR" not in told
    assert counts(reference_lake) == STATED | NO_REJECTS
    assert succeeded(stedi(reference_lake, "status")) == UP_TO_DATE


@pytest.mark.reference
def test_a_lake_on_s3_gives_the_same_counts(
    reference: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in reference.glob("*/landing/**/*"):
        if path.is_file():
            bucket.put(f"lake/{path.relative_to(reference).as_posix()}", path.read_bytes())
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "a key of a test")
    lake = open_lake(f"s3://{bucket.name}/lake", cache_folder())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEDI_ENGINE", "spark")
        assert run(lake, DAY).success
    before = bucket.objects
    assert counts(lake.storage.uri()) == STATED | NO_REJECTS
    assert succeeded(stedi(lake.storage.uri(), "status")) == UP_TO_DATE
    assert bucket.objects == before


# Any history.


class TurnTaker(Runner):
    """Each run and each reconciliation is of another engine than the one before."""

    def __init__(self, root: AnyPath) -> None:
        super().__init__(root)
        self._engines = cycle(["spark", "duckdb"])

    def run(self, days: Collection[date], tables: Collection[str]) -> set[tuple[str, date]]:
        self._take_turns()
        return super().run(days, tables)

    def reconcile(self, everything: bool, tables: Collection[str] = tuple(TABLES)) -> None:
        self._take_turns()
        super().reconcile(everything, tables)

    def _take_turns(self) -> None:
        self.end()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STEDI_ENGINE", next(self._engines))
            assert self.engine


@pytest.fixture(scope="module")
def _quickly() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.mark.usefixtures("_quickly")
@settings(any_history, max_examples=2)
@given(histories())
def test_any_history_of_a_lake_whose_engines_take_turns_ends_as_a_fresh_lake(
    events: list[Event],
) -> None:
    ends_up_as_a_fresh_lake(events, TurnTaker)
