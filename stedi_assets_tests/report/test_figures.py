"""The figures of a report, against counts by hand: each row is in a table or left out with why."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from html import escape
from io import BytesIO

import pyarrow.parquet as pq
import pytest

from stedi_assets.lake import Lake
from stedi_assets.landing.sample import stated_counts
from stedi_assets.privacy.policies import Policy
from stedi_assets.report.charts import draw
from stedi_assets.report.figures import Figures
from stedi_assets.sample_data import MANIFEST
from stedi_assets.tables import TABLES, Source
from stedi_assets_tests.end_to_end.landing_files import (
    counts_by_date,
    customer,
    device,
    file_of,
    land,
    phone,
    run,
)
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.end_to_end.test_reference import STATED
from stedi_assets_tests.report.lakes import (
    ANN,
    CY,
    FIRST,
    SECOND,
    figures_of,
    page_of,
    problems_of,
    reported,
)
from stedi_assets_tests.storages import put, root_of


def accounts(figures: Figures) -> dict[str, tuple[int, dict[str, int], int]]:
    """What each table is made from, what of that is left out, and what is left."""
    return {a.table.name: (a.taken, dict(a.left_out), a.rows) for a in figures.accounts}


OF_LANDING = {
    "customer_landing": (5, {}, 5),
    "accelerometer_landing": (37, {"rejected: not valid JSON": 1}, 36),
    "step_trainer_landing": (9, {}, 9),
    "customer_trusted": (5, {"replaced by a later record": 1, "no consent": 1}, 3),
    "customers_curated": (3, {"no phone readings": 1}, 2),
}


def test_every_row_is_in_a_table_or_left_out_for_a_reason(town: Lake) -> None:
    figures = figures_of(town)
    assert accounts(figures) == OF_LANDING | {
        "accelerometer_trusted": (
            36,
            {"no consent": 1, "nobody's": 1, "delivered before": 2},
            32,
        ),
        "step_trainer_trusted": (
            9,
            {"no consent": 1, "nobody's": 1, "no phone readings": 1, "delivered before": 1},
            5,
        ),
        "machine_learning_curated": (7, {"of different customers": 0}, 7),
    }
    assert list(figures.problems()) == []


@pytest.mark.long
def test_under_the_policy_strict_more_is_left_out_and_that_adds_up_too(strict_town: Lake) -> None:
    figures = figures_of(strict_town)
    assert accounts(figures) == OF_LANDING | {
        "accelerometer_trusted": (
            36,
            {"no consent": 1, "nobody's": 1, "before the consent": 4, "delivered before": 1},
            29,
        ),
        "step_trainer_trusted": (
            9,
            {
                "no consent": 1,
                "nobody's": 1,
                "no phone readings": 1,
                "delivered before": 1,
                "no phone reading then": 3,
            },
            2,
        ),
        "machine_learning_curated": (3, {"of different customers": 1}, 2),
    }
    assert list(figures.problems()) == []
    assert figures.policy is Policy.STRICT
    assert figures.strangers == 0


def test_people_are_counted_by_how_far_they_come(town: Lake) -> None:
    assert list(figures_of(town).funnel.items()) == [
        ("are customers", 4),
        ("consent to research", 3),
        ("have phone readings", 2),
        ("are in machine_learning_curated", 2),
    ]


def test_rows_and_rejects_are_told_by_ingestion_date(town: Lake) -> None:
    figures = figures_of(town)
    first, second = map(date.fromisoformat, (FIRST, SECOND))
    assert figures.dates == [first, second]
    assert figures.rows["accelerometer_landing"] == {first: 34, second: 2}
    assert figures.rows["accelerometer_rejects"] == {first: 1, second: 0}
    for name in TABLES:
        by_hand = counts_by_date(town, name)
        assert {str(day): rows for day, rows in figures.rows[name].items()} == by_hand
    assert "1 of 37 records were rejected" in figures.rejects[Source.ACCELEROMETER].sentence


def test_the_axis_of_few_rows_counts_whole_ones(town: Lake) -> None:
    figures = figures_of(town)
    few = {**figures.rows, "customer_landing": dict.fromkeys(figures.dates, 1)}
    chart = draw(replace(figures, rows=few))["rows_and_rejects_by_date"].figure
    labels = [label.get_text() for label in chart.axes[0].get_yticklabels()]
    assert labels == [str(number) for number in range(len(labels))]


def test_missing_values_are_counted_by_column(town: Lake) -> None:
    found = {(t.name, c.name): n for (t, c), n in figures_of(town).nulls.items() if n}
    consents = [f"sharewith{whom}asofdate" for whom in ("public", "friends")]
    assert found == {
        ("customer_landing", "sharewithresearchasofdate"): 2,
        **{("customer_landing", column): 5 for column in consents},
        **{("customer_trusted", column): 3 for column in consents},
        **{("customers_curated", column): 2 for column in consents},
    }


def test_pairs_of_two_people_are_counted(town: Lake) -> None:
    assert figures_of(town).strangers == 3


def test_seconds_are_counted_by_how_many_readings_one_phone_or_device_took(town: Lake) -> None:
    phones, devices = figures_of(town).rates.values()
    assert (phones.subjects, phones.readings, dict(phones.seconds)) == (2, 32, {2: 1, 20: 1})
    assert list(phones.quartiles) == [2, 2, 30]  # dee's 2, and ann's 30
    assert (devices.subjects, devices.readings, dict(devices.seconds)) == (2, 5, {1: 1, 4: 1})


@pytest.mark.long
def test_a_phone_whose_user_is_spelled_in_two_ways_is_one(town: Lake) -> None:
    land(town, "accelerometer", "2023-08-08", phone(f" {ANN.upper()}", 127))
    assert run(town, "2023-08-08").success
    phones = figures_of(town).rates[Source.ACCELEROMETER]
    assert (phones.subjects, phones.readings, dict(phones.seconds)) == (2, 33, {2: 1, 20: 1})
    assert list(phones.quartiles) == [2, 2, 31]


# What is not as it should be.


def test_of_an_empty_lake_a_report_says_that_it_is_empty(lake: Lake) -> None:
    root_of(lake).mkdir()
    figures = figures_of(lake)
    assert list(figures.problems()) == [
        "The lake is empty: there are no landing files and no tables."
    ]
    assert not figures.accounts


def test_rows_that_no_table_holds_are_told(town: Lake) -> None:
    file_of(town, "accelerometer_landing", SECOND).unlink()
    problems = problems_of(town)
    assert "accelerometer_landing does not add up: 2 are in no table and not left out." in problems
    assert any(problem.endswith("partitions are not what they should be.") for problem in problems)


def test_rows_that_a_table_should_not_have_are_told(
    town: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another policy."""
    monkeypatch.setenv("STEDI_POLICY", Policy.STRICT)
    assert "accelerometer_trusted does not add up: 3 are too many." in problems_of(town)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_missing_is_told(town: Lake, name: str) -> None:
    for file in root_of(town).glob(f"{TABLES[name].path}/*/*.parquet"):
        file.unlink()
    figures = figures_of(town)
    problems = list(figures.problems())
    assert f"{name} is missing: it has no partition." in problems
    assert {stale.table.name for stale in figures.stale} >= {name}


def test_landing_files_that_were_not_read_yet_are_told(town: Lake) -> None:
    land(town, "step_trainer", "2023-08-08", device(7, "s"), device(8, "s"))
    problems = problems_of(town)
    assert "step_trainer_landing does not add up: 2 are in no table and not left out." in problems


@pytest.mark.long
def test_partitions_that_a_later_consent_makes_stale_are_told_until_they_are_made_again(
    town: Lake,
) -> None:
    land(town, "customer", "2023-08-08", customer(CY, "u", updated=20, consent=None))
    land(town, "accelerometer", "2023-08-08", phone(CY, 100))
    tables = ["customer_landing", "customer_rejects", "accelerometer_landing"]
    assert run(town, "2023-08-08", tables=[*tables, "accelerometer_rejects"]).success
    figures = figures_of(town)
    assert "customer_trusted does not add up: 1 are too many." in list(figures.problems())
    assert {stale.table.name for stale in figures.stale} >= {"customer_trusted"}
    succeeded(stedi(town, "run"))
    assert problems_of(town) == []


@pytest.mark.long
def test_more_rejects_than_a_day_may_have_are_told(town: Lake) -> None:
    land(town, "customer", "2023-08-08", "{spoilt", customer(CY, "u"))
    assert not run(town, "2023-08-08").success
    problems = problems_of(town)
    (told,) = [problem for problem in problems if problem.startswith("Too many")]
    assert "customer records were rejected: 1 of 7 records were rejected; at most 50.0%" in told


def test_landing_files_of_no_partition_are_told_without_their_names(town: Lake) -> None:
    land(town, "customer", "1999-01-01", customer(CY, "u"), name="ann@test.com.json")
    (told,) = problems_of(town)
    assert told == "There are landing files that no table can hold; `stedi status` names them."


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "the whole file": lambda content: b"nothing that is Parquet",
    "some bytes": lambda content: content[:4] + b"\xff" * 8 + content[12:],
}


@pytest.mark.parametrize("damage", [*DAMAGE, "a row less"])
@pytest.mark.parametrize("name", ["customer_landing", "step_trainer_trusted"])
def test_rows_of_a_damaged_partition_are_told_as_missing(
    town: Lake, name: str, damage: str
) -> None:
    file = file_of(town, name, FIRST)
    content = file.read_bytes()
    file.write_bytes(DAMAGE[damage](content) if damage in DAMAGE else _a_row_less(content))
    found = list(reported(town).figures.problems())
    assert f"{name} does not add up: 4 are in no table and not left out." in found
    assert "1 partitions are damaged: they count as if they were not there." in found
    page = page_of(town)
    assert all(escape(problem) in page for problem in found)
    assert "All figures add up" not in page


def _a_row_less(content: bytes) -> bytes:
    """A file that is as sound as it was, and says of itself what it said."""
    rows, draft = pq.ParquetFile(BytesIO(content)).read(), BytesIO()
    pq.write_table(rows.slice(1), draft)
    return draft.getvalue()


# What others state.


@pytest.mark.long
def test_the_counts_that_a_sample_states_are_told_beside_those_of_the_tables(lake: Lake) -> None:
    succeeded(stedi(lake, "sample", "--customers", "20", "--days", "2"))
    succeeded(stedi(lake, "run"))
    figures = figures_of(lake)
    assert {a.table.name: a.rows for a in figures.accounts} == {
        a.table.name: figures.stated[a.table.name] for a in figures.accounts
    }
    assert sum(figures.stated.values()) > 1000
    assert list(figures.problems()) == []


@pytest.mark.reference
def test_of_the_reference_files_everything_adds_up(reference_lake: Lake) -> None:
    succeeded(stedi(reference_lake, "run"))
    figures = figures_of(reference_lake)
    assert {a.table.name: a.rows for a in figures.accounts} == STATED
    assert list(figures.funnel.values()) == [956, 482, 482, 482]
    assert list(figures.problems()) == []


def test_of_a_table_that_others_do_not_state_a_report_says_so(town: Lake) -> None:
    put(root_of(town) / MANIFEST, json.dumps({"counts": {"customer_landing": 5}}).encode())
    reported(town)
    assert page_of(town).count("not stated") == 7


def test_of_other_files_nobody_states_counts(town: Lake) -> None:
    assert figures_of(town).stated == {}


@pytest.mark.parametrize("other", ["", "{", "[1]", '{"counts": 7}', '{"counts": {"a": "b"}}'])
def test_a_manifest_of_something_else_states_nothing(town: Lake, other: str) -> None:
    put(root_of(town) / MANIFEST, other.encode())
    assert stated_counts(town) == {}
