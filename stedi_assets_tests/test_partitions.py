"""The partitions there are, and which of them another partition needs."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from stedi_assets.assets.definition import Need
from stedi_assets.dates import Stretch, days, stretches
from stedi_assets.partitions import DAILY, EVERY_DATE, MAPPINGS, SINGLE_RUN, UP_TO_THIS_DATE
from stedi_assets.resources import start_date


def upstream(mapping: dg.PartitionMapping, *keys: str) -> list[str]:
    """The upstream partitions that partitions need; all of them exist."""
    needed = mapping.get_upstream_mapped_partitions_result_for_partitions(
        DAILY.subset_with_partition_keys(keys), DAILY, DAILY
    )
    assert not needed.required_but_nonexistent_subset
    return sorted(needed.partitions_subset.get_partition_keys())


def test_today_has_a_partition_and_tomorrow_has_none() -> None:
    before = datetime.now(UTC).date()
    last = DAILY.get_last_partition_key()
    after = datetime.now(UTC).date()
    assert last in {before.isoformat(), after.isoformat()}
    assert DAILY.timezone == "UTC"


def test_every_day_from_the_first_one_on_has_a_partition() -> None:
    keys = DAILY.get_partition_keys()
    assert stretches(days(keys)) == [Stretch(*days([keys[0], keys[-1]]))]
    assert len(set(keys)) == len(keys)


def test_a_range_of_dates_is_a_single_run() -> None:
    assert dg.BackfillPolicy.single_run() == SINGLE_RUN


def test_up_to_this_date_is_all_earlier_dates_and_itself_and_none_later() -> None:
    keys = DAILY.get_partition_keys()
    for position in (0, 1, 100, len(keys) - 1):
        assert upstream(UP_TO_THIS_DATE, keys[position]) == keys[: position + 1]


def test_up_to_some_dates_is_up_to_the_last_of_them() -> None:
    keys = DAILY.get_partition_keys()
    assert upstream(UP_TO_THIS_DATE, keys[3], keys[10]) == keys[:11]


def test_every_date_is_all_dates_for_any() -> None:
    keys = DAILY.get_partition_keys()
    for position in (0, 100, len(keys) - 1):
        assert upstream(EVERY_DATE, keys[position]) == keys


def test_each_need_of_a_definition_has_its_mapping() -> None:
    assert {
        Need.EVERY_DATE: EVERY_DATE,
        Need.USERS_OF_EVERY_DATE: EVERY_DATE,
        Need.SAME_MOMENTS: UP_TO_THIS_DATE,
    } == MAPPINGS
    assert MAPPINGS.keys() == set(Need)


def first_partition(setting: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from stedi_assets.partitions import DAILY; print(DAILY.get_first_partition_key())",
        ],
        env={**os.environ} | ({} if setting is None else {"STEDI_START_DATE": setting}),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("setting", "first"),
    [(None, "2022-01-01"), ("2019-05-06", "2019-05-06"), ("2023-08-01", "2023-08-01")],
)
def test_the_environment_says_which_partition_is_the_first(setting: str | None, first: str) -> None:
    assert first_partition(setting).stdout.split() == [first]


def test_a_first_partition_that_is_no_date_is_an_error_that_says_what_to_set() -> None:
    failed = first_partition("01.01.2022")
    assert failed.returncode != 0
    last = failed.stderr.splitlines()[-1]
    assert last == "ValueError: STEDI_START_DATE is '01.01.2022': set it to a date, YYYY-MM-DD"


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_START_DATE", "")
    assert start_date() == date(2022, 1, 1)
