"""What is told of partitions that are published, and what processes have in common that make them.

That a partition keeps the contract, `test_contract.py` tries.
"""

import time
from collections.abc import Iterable
from datetime import date
from typing import Any

import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import Published, made_by, publish
from stedi_assets.resources import open_engine
from stedi_assets.tables import PARTITION, TABLES
from stedi_assets_tests.engines.test_duckdb import memory

FIFTH, SIXTH, SEVENTH = (date(2023, 8, day) for day in (5, 6, 7))


def published(lake: Lake, engine: DuckDBEngine, name: str, rows: list[dict[str, Any]]) -> Published:
    """Rows that were published as the fifth, the sixth and the seventh of a table."""
    table = TABLES[name]
    row = dict.fromkeys(table.column_names) | dict.fromkeys(table.required_names, 1)
    given = memory(table.schema, [row | {PARTITION: FIFTH} | of for of in rows])
    files = engine.write(table, given, [FIFTH, SIXTH, SEVENTH], {})
    return publish(lake, engine, table, engine.sealed(table, files, {}, "SELECT 1"))


def test_of_customers_the_share_is_told_that_consents_on_each_date_with_records(
    lake: Lake, engine: DuckDBEngine
) -> None:
    who = {"email": "ann@test.com", "serialnumber": "s"}
    consents = {FIFTH: [1655564376361, 0, None, None], SIXTH: [1]}
    rows = [
        who | {PARTITION: day, "sharewithresearchasofdate": since}
        for day, of_day in consents.items()
        for since in of_day
    ]
    assert published(lake, engine, "customer_landing", rows).consents == {FIFTH: 0.25, SIXTH: 1.0}
    found = published(lake, engine, "customer_trusted", rows[:1])
    assert found.consents == {}


def test_of_curated_tables_ten_rows_are_shown_with_four_digits_of_a_pseudonym(
    lake: Lake, engine: DuckDBEngine
) -> None:
    people = [
        {
            "subject_id": f"{number:04}56789",
            "device_id": f"dev{number % 10}56789",
            "registrationdate": number,
            "lastupdatedate": number,
        }
        for number in range(11)
    ]
    shown = published(lake, engine, "customers_curated", people).previews[FIFTH]
    assert [(row["subject_id"], row["device_id"]) for row in shown] == [
        (f"{number:04}…", f"dev{number}…") for number in range(10)
    ]
    assert [row["registrationdate"] for row in shown] == list(range(10))
    who = {"email": "ann@test.com", "serialnumber": "s"}
    assert published(lake, engine, "customer_trusted", [who]).previews == {}


def test_seconds_are_those_since_the_making_began(lake: Lake, engine: DuckDBEngine) -> None:
    before = time.monotonic()
    seconds = published(lake, engine, "customers_curated", []).seconds
    assert 0 < seconds < time.monotonic() - before


# What processes have in common.


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
