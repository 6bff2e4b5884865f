"""What processes have in common that make the same; that they publish it, `test_making.py`,
`test_contract.py` and `test_metadata.py` try."""

from collections.abc import Iterable

import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import made_by
from stedi_assets.resources import open_engine
from stedi_assets.tables import TABLES

NAMES = [name for name in TABLES if not name.endswith("_rejects")]


def found(
    engine: DuckDBEngine, policy: Policy = Policy.REFERENCE, names: Iterable[str] = NAMES
) -> dict[str, str]:
    return made_by(engine, policy, [TABLES[name] for name in names])


def test_two_processes_that_make_the_same_tables_have_all_in_common(
    lake: Lake, engine: DuckDBEngine
) -> None:
    names = ["customer_landing", "customer_trusted"]
    ours = found(engine, names=names)
    assert list(ours) == [
        "the key of pseudonyms",
        "DuckDB's hash of rows",
        "the definition of customer_landing",
        "the definition of customer_trusted",
    ]
    assert len(set(ours.values())) == len(ours)
    with open_engine(lake) as other:
        assert found(other, names=names) == ours


def test_with_another_key_they_differ_in_that_alone(
    lake: Lake, engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "another")
    with open_engine(lake) as other:
        differ = found(engine).items() ^ found(other).items()
    assert {what for what, _ in differ} == {"the key of pseudonyms"}


def test_under_another_policy_they_differ_in_the_tables_that_it_defines_otherwise(
    engine: DuckDBEngine,
) -> None:
    differ = found(engine).items() ^ found(engine, Policy.STRICT).items()
    assert {what for what, _ in differ} == {
        "the definition of accelerometer_trusted",
        "the definition of step_trainer_trusted",
        "the definition of machine_learning_curated",
    }
