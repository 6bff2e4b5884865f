"""What jobs are asked for: which tables hang on a source, and what a reconciliation puts right."""

from datetime import date

import pytest

from stedi_assets.jobs import What, tables_after
from stedi_assets.reconcile import Stale
from stedi_assets.tables import TABLES, Source

CUSTOMER, ACCELEROMETER, STEP_TRAINER = Source
AFTER_READINGS = ["machine_learning_curated", "step_trainer_trusted"]
RESTATED = ["customer_trusted", "customers_curated"]


@pytest.mark.parametrize(
    ("sources", "tables"),
    [
        ([], []),
        (
            [CUSTOMER],
            [
                "customer_landing",
                "customer_rejects",
                "customer_trusted",
                "accelerometer_trusted",
                "customers_curated",
                *AFTER_READINGS,
            ],
        ),
        (
            [ACCELEROMETER],
            [
                "accelerometer_landing",
                "accelerometer_rejects",
                "accelerometer_trusted",
                *RESTATED,
                *AFTER_READINGS,
            ],
        ),
        (
            [STEP_TRAINER],
            ["step_trainer_landing", "step_trainer_rejects", *RESTATED, *AFTER_READINGS],
        ),
        (
            [STEP_TRAINER, ACCELEROMETER],
            [name for name in TABLES if name not in {"customer_landing", "customer_rejects"}],
        ),
        (list(Source), list(TABLES)),
    ],
    ids=["none", "customers", "phones", "devices", "phones and devices", "all"],
)
def test_for_files_of_a_source_its_own_tables_are_made_those_after_them_and_customers_anew(
    sources: list[Source], tables: list[str]
) -> None:
    found = tables_after(sources)
    assert sorted(found) == sorted(tables)
    assert tables_after(reversed(sources)) == found


def stale(table: str, day: int) -> Stale:
    return Stale(TABLES[table], date(2023, 8, day), "missing", 1, 0, 0)


def test_without_limits_everything_is_put_right() -> None:
    what = What()
    assert what.everything
    assert all(what.has(stale(name, day)) for name in TABLES for day in (1, 31))


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ("2023-08-02", None, [2, 3, 4]),
        (None, "2023-08-02", [1, 2]),
        ("2023-08-02", "2023-08-03", [2, 3]),
        ("2023-08-03", "2023-08-03", [3]),
    ],
)
def test_dates_limit_it_both_ends_included(
    first: str | None, last: str | None, days: list[int]
) -> None:
    what = What(first=first, last=last)
    assert [day for day in (1, 2, 3, 4) if what.has(stale("customer_trusted", day))] == days


def test_tables_limit_it_and_none_at_all_are_none() -> None:
    what = What(tables=["customer_trusted", "customer_rejects"])
    assert [name for name in TABLES if what.has(stale(name, 1))] == [
        "customer_trusted",
        "customer_rejects",
    ]
    assert not any(What(tables=[]).has(stale(name, 1)) for name in TABLES)


def test_dates_and_tables_limit_it_together() -> None:
    what = What(first="2023-08-02", tables=["customer_trusted"])
    found = [
        (name, day)
        for name in ("customer_trusted", "customers_curated")
        for day in (1, 2)
        if what.has(stale(name, day))
    ]
    assert found == [("customer_trusted", 2)]
