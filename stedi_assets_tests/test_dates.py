"""Dates as stretches, and partition keys as dates."""

from datetime import date, timedelta

import pytest

from stedi_assets.dates import Stretch, days, stretches


def day(text: str) -> date:
    return date.fromisoformat(text)


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ([], []),
        (["2023-08-01"], ["2023-08-01"]),
        (["2023-08-01", "2023-08-02", "2023-08-03"], ["2023-08-01 to 2023-08-03"]),
        (["2023-08-03", "2023-08-01", "2023-08-02"], ["2023-08-01 to 2023-08-03"]),
        (["2023-08-01", "2023-08-03"], ["2023-08-01", "2023-08-03"]),
        (["2023-08-01", "2023-08-01"], ["2023-08-01"]),
        (["2023-08-02", "2023-08-01", "2023-08-01"], ["2023-08-01 to 2023-08-02"]),
        (["2023-02-28", "2023-03-01"], ["2023-02-28 to 2023-03-01"]),
        (["2024-02-28", "2024-03-01"], ["2024-02-28", "2024-03-01"]),
        (["2022-12-31", "2023-01-01"], ["2022-12-31 to 2023-01-01"]),
        (["2023-08-05", "2023-08-01", "2023-08-04"], ["2023-08-01", "2023-08-04 to 2023-08-05"]),
    ],
)
def test_dates_are_the_fewest_stretches_that_hold_exactly_them(
    dates: list[str], expected: list[str]
) -> None:
    assert list(map(str, stretches(map(day, dates)))) == expected


def test_a_stretch_holds_both_its_ends_and_what_is_between() -> None:
    stretch = Stretch(day("2023-08-01"), day("2023-08-03"))
    around = [day("2023-07-31") + timedelta(days=number) for number in range(5)]
    assert [one in stretch for one in around] == [False, True, True, True, False]
    assert "2023-08-02" not in stretch


def test_partition_keys_are_dates() -> None:
    assert days(["2023-08-01", "2022-01-01"]) == [day("2023-08-01"), day("2022-01-01")]
