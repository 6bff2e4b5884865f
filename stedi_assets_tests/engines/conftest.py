"""Both engines over one lake, with Spark as it is started once for all tests of a process."""

from collections.abc import Iterator

import pytest

from stedi_assets.engines.spark import SparkEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_engine
from stedi_assets_tests.both_engines import KEY, Both


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, quick_spark: dict[str, str]) -> Iterator[Both]:
    """Both engines, with one key of pseudonyms, over a lake that stays empty."""
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (quick_spark | {"STEDI_PSEUDONYM_KEY": KEY}).items():
            patch.setenv(name, value)
        with open_engine(lake) as duckdb:
            patch.setenv("STEDI_ENGINE", "spark")
            with open_engine(lake) as spark:
                assert isinstance(spark, SparkEngine)
                assert spark.session  # which starts Spark now, with these settings and for all
                yield Both(lake, duckdb, spark)


@pytest.fixture
def spark(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, quick_spark: dict[str, str]
) -> Iterator[SparkEngine]:
    """Spark over the empty lake."""
    for name, value in (quick_spark | {"STEDI_ENGINE": "spark"}).items():
        monkeypatch.setenv(name, value)
    with open_engine(lake) as opened:
        assert isinstance(opened, SparkEngine)
        yield opened
