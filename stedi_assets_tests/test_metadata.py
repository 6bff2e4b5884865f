"""What Dagster shows of a table and of each partition: what is said, what is plotted, which rows.

Of rows it shows some of curated tables, and none of any other.
"""

import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.specs import about
from stedi_assets.checks import keys_of_checks
from stedi_assets.definitions import defs
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.landing.sample import sample_into
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import Published, publish
from stedi_assets.tables import PARTITION, TABLES, Zone
from stedi_assets_tests.end_to_end.landing_files import (
    customer,
    device,
    file_of,
    land,
    phone,
    run,
)
from stedi_assets_tests.engines.test_duckdb import memory
from stedi_assets_tests.storages import on_disk, opened, room_for_lakes
from stedi_assets_tests.test_io_manager import metadata_by_partition

# Dagster says so of its own copies of sensors, which name no owner.
pytestmark = pytest.mark.filterwarnings("ignore:.*`owners`.*:dagster.BetaWarning")

CURATED = {"customers_curated", "machine_learning_curated"}
REJECTS = {"customer_rejects", "accelerometer_rejects", "step_trainer_rejects"}


# Of a table.


def test_every_table_says_what_a_row_is_whose_it_is_and_whether_it_names_people() -> None:
    assets = defs.resolve_asset_graph()
    for name, table in TABLES.items():
        node = assets.get(dg.AssetKey(name))
        assert node.description == table.description
        assert node.group_name == table.zone
        assert node.owners == [table.owner]
        assert node.kinds == {"duckdb", "parquet"}
        names_people = "pseudonyms" if name in CURATED else "names_people"
        assert {tag: node.tags[tag] for tag in ("source", "personal_data")} == {
            "source": table.source,
            "personal_data": names_people,
        }


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_a_lake_on_s3_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_LAKE", "s3://bucket/lake")
    assert about(TABLES[name])["kinds"] == {"duckdb", "parquet", "s3"}
    monkeypatch.setenv("STEDI_LAKE", "a folder/s3://bucket")
    assert about(TABLES[name])["kinds"] == {"duckdb", "parquet"}


def test_tables_of_readings_should_grow_every_day_and_those_of_customers_and_rejects_need_not() -> (
    None
):
    assets = defs.resolve_asset_graph()
    policies = {name: assets.get(dg.AssetKey(name)).freshness_policy for name in TABLES}
    daily = {name for name, policy in policies.items() if policy}
    assert daily == {
        "accelerometer_landing",
        "step_trainer_landing",
        "accelerometer_trusted",
        "step_trainer_trusted",
        "machine_learning_curated",
    }
    (policy,) = {policies[name] for name in daily}
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert policy.warn_window
    assert timedelta(days=1) < policy.warn_window.to_timedelta() < timedelta(days=2)
    assert policy.fail_window.to_timedelta() > timedelta(days=2)


def code_of(name: str) -> Any:
    (reference,) = about(TABLES[name])["metadata"]["dagster/code_references"].code_references
    return reference


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("name", TABLES)
def test_the_link_to_the_code_leads_to_where_the_table_is_defined(
    name: str, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_POLICY", policy)
    reference = code_of(name)
    path = Path(reference.file_path)
    assert path.is_absolute()
    lines = path.read_text().splitlines()[reference.line_number - 1 :]
    function = next(line for line in lines if line.startswith("def "))
    if name in DEFINITIONS[policy]:
        assert lines[0].startswith("@derived(")
        assert function.startswith(f"def {name}(")
        is_strict = DEFINITIONS[policy][name] != DEFINITIONS[Policy.REFERENCE][name]
        assert (path.name == "strict.py") == is_strict
    else:
        assert function.startswith("def read_days(")


def test_the_link_leads_to_the_repository_that_the_settings_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = code_of("customers_curated").line_number
    monkeypatch.setenv("STEDI_CODE_URL", "https://git.example.com/stedi/blob/v1/")
    url = "https://git.example.com/stedi/blob/v1/stedi_assets/assets/curated.py"
    assert code_of("customers_curated").url == f"{url}#L{line}"


# Figures of partitions.

DAYS = ("2023-08-06", "2023-08-07", "2023-08-08")


Told = dict[str, dict[str | None, dict[str, Any]]]


@pytest.fixture(scope="module")
def three_dates() -> Iterator[tuple[Lake, Told]]:
    """A lake after a run over three dates, and what that tells of the partitions of each table.

    On the first of four customers one consents; on the second all do, and a record is spoilt.
    """
    with room_for_lakes() as room:
        lake = opened(room / "lake")
        land(
            lake,
            "customer",
            DAYS[0],
            customer("ann@test.com", "s"),
            customer("bob@test.com", "t", consent=0),
            customer("cy@test.com", "u", consent=None),
            customer("di@test.com", "v", consent=None),
        )
        others = [customer(f"{number}@test.com", f"{number}") for number in range(30)]
        land(lake, "customer", DAYS[1], *others, "{")
        phones = [phone("ann@test.com", time) for time in range(100, 200)]
        land(lake, "accelerometer", DAYS[0], *phones, '{"x": 1}', '{"user": 1}', "[1]")
        land(lake, "step_trainer", DAYS[0], *(device(time, "s") for time in range(100, 130)))
        result = run(lake, DAYS[0], DAYS[-1])
        assert result.success
        yield lake, {name: metadata_by_partition(result, name) for name in TABLES}


@pytest.fixture
def told(three_dates: tuple[Lake, Told]) -> Told:
    return three_dates[1]


def test_rejects_stand_beside_the_rows_of_the_same_files(told: Told) -> None:
    assert {
        name: [of.get("rejects") for of in by_date.values()] for name, by_date in told.items()
    } == {name: [None, None, None] for name in TABLES} | {
        "customer_landing": [0, 1, 0],
        "accelerometer_landing": [3, 0, 0],
        "step_trainer_landing": [0, 0, 0],
    }
    for source in ("customer", "accelerometer", "step_trainer"):
        of_rejects = told[f"{source}_rejects"].values()
        counts = [of["dagster/partition_row_count"] for of in of_rejects]
        assert counts == [of["rejects"] for of in told[f"{source}_landing"].values()]


def test_the_share_of_consent_is_that_of_the_records_that_came_on_a_date(
    told: Told,
) -> None:
    shares = [of.get("share_of_consent") for of in told["customer_landing"].values()]
    assert shares == [0.25, 1.0, None]  # a date without records has none
    others = TABLES.keys() - {"customer_landing"}
    assert not any("share_of_consent" in of for name in others for of in told[name].values())


def test_seconds_and_rows_a_second_go_together_with_the_rows(told: Told) -> None:
    for name in TABLES.keys() - REJECTS:
        figures = list(told[name].values())
        rows = sum(of["dagster/partition_row_count"] for of in figures)
        seconds = sum(of["seconds"] for of in figures)
        assert 0 < seconds < 60
        for of in figures:
            assert of["rows_a_second"] == pytest.approx(rows / seconds, rel=0.1, abs=1)
    for name in REJECTS:
        assert not any({"seconds", "rows_a_second"} & of.keys() for of in told[name].values())


def test_a_table_without_rows_is_not_quick_or_slow(lake: Lake) -> None:
    (of,) = metadata_by_partition(run(lake, DAYS[0]), "customer_landing").values()
    assert of["dagster/partition_row_count"] == 0
    assert of["seconds"] > 0
    assert "rows_a_second" not in of


# Rows.


def rows_in(lake: Lake, name: str, day: str) -> list[dict[str, Any]]:
    """The rows of a partition in the file's order, with pseudonyms cut to four digits."""
    with on_disk([file_of(lake, name, day)]) as (file,), duckdb.connect() as connection:
        rows = connection.read_parquet(str(file), hive_partitioning=False).fetchall()
    return [
        {
            name: f"{value[:4]}…" if name in ("subject_id", "device_id") else value
            for name, value in zip(TABLES[name].column_names, row, strict=True)
        }
        for row in rows
    ]


@pytest.mark.s3
def test_the_first_ten_rows_of_a_curated_partition_are_shown(
    three_dates: tuple[Lake, Told],
) -> None:
    lake, told = three_dates
    counts = {}
    for name in CURATED:
        for day, of in told[name].items():
            records = of["preview"].records if "preview" in of else []
            shown = [dict(record.data) for record in records]
            counts[name, day] = len(shown)
            assert shown == rows_in(lake, name, str(day))[:10]
            if shown:
                columns = [column.name for column in of["preview"].schema.columns]
                assert columns == list(TABLES[name].column_names)
    assert {key: count for key, count in counts.items() if count} == {
        ("customers_curated", DAYS[0]): 1,
        ("machine_learning_curated", DAYS[0]): 10,
    }


def events_of(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """All that the events of a run say, by the table or the step that they are about."""
    found: dict[str, str] = {}
    for event in result.all_events:
        whom = event.asset_key.to_user_string() if event.asset_key else str(event.step_key)
        found[whom] = found.get(whom, "") + dg.serialize_value(event)
    return found


def test_no_event_of_a_table_below_curated_shows_a_value_of_a_row(lake: Lake) -> None:
    """Also not under a name that nobody thinks of: each value here is nowhere else."""
    naming = ["Zoe@Test.com", "zoe@test.com", "5550123987", "serial-0777", "1901-02-03"]
    who = customer("Zoe@Test.com", "serial-0777", phone="5550123987", birthDay="1901-02-03")
    land(lake, "customer", DAYS[0], who)
    reading = {"x": 0.987654321, "y": -0.123456789, "z": 0.246813579}
    phones = [phone("zoe@test.com", time) | reading for time in range(100, 130)]
    land(lake, "accelerometer", DAYS[0], *phones, "nobody can read this")
    land(lake, "step_trainer", DAYS[0], device(100, "serial-0777"))
    result = run(lake, DAYS[0])
    assert result.success
    said = events_of(result)
    assert said.keys() >= TABLES.keys()
    readings = [str(value) for value in reading.values()]
    for whom, text in said.items():
        in_it = [value for value in (*naming, *readings, "nobody can read") if value in text]
        assert in_it == (readings if whom == "machine_learning_curated" else []), whom
        assert ("TableRecord" in text) == (whom in CURATED), whom


def test_of_many_partitions_made_together_the_latest_month_is_shown(
    lake: Lake, engine: DuckDBEngine
) -> None:
    table = TABLES["customers_curated"]
    first = date(2023, 8, 1)
    days = [first + timedelta(days=number) for number in range(40)]
    nobody = dict.fromkeys(table.column_names) | {"registrationdate": 1, "lastupdatedate": 2}
    customers = [
        nobody | {"subject_id": f"{day:%d%m}-somebody", "device_id": "some device", PARTITION: day}
        for day in days
    ]
    rows = memory(table.schema, customers)
    staged = engine.sealed(table, engine.write(table, rows, days, {}), {}, "")
    published = publish(lake, engine, table, staged)
    assert sorted(published.sizes) == days
    assert sorted(published.previews) == days[-31:]
    assert {len(rows) for rows in published.previews.values()} == {1}


def test_what_was_published_is_the_same_after_it_was_told_as_json(
    lake: Lake, engine: DuckDBEngine
) -> None:
    land(lake, "customer", DAYS[0], customer("ann@test.com", "s"))
    land(lake, "accelerometer", DAYS[0], phone("ann@test.com", 100))
    assert run(lake, DAYS[0]).success
    for name in ("customer_landing", "customers_curated"):
        table, day = TABLES[name], date.fromisoformat(DAYS[0])
        stored = lake.fetch(table, [day])
        engine.create_view(table, stored)
        copied = engine.write(table, engine.expression(table), [day], {})
        published = publish(lake, engine, table, engine.sealed(table, copied, {}, "SELECT 1"))
        assert bool(published.previews) == (table.zone is Zone.CURATED)
        assert bool(published.consents) == (name == "customer_landing")
        assert Published.from_json(json.loads(json.dumps(published.as_json()))) == published


# Checks.


def test_what_every_check_finds_is_a_sentence_with_figures(lake: Lake) -> None:
    sample_into(lake, customers=20, days=2, seed=1)
    result = run(lake, "2023-08-06", "2023-08-07")
    told = [found for found in result.get_asset_check_evaluations() if found.description]
    assert {found.asset_check_key for found in told} == keys_of_checks(TABLES)
    for found in told:
        sentence = found.description or ""
        assert re.search(r"\d", sentence), (found.asset_check_key, sentence)
        assert len(sentence.split()) > 4, (found.asset_check_key, sentence)
