"""A stretch of dates in one run gives the same tables as its dates one after the other."""

import random

import pytest

from stedi_assets.lake import Lake
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.landing_files import (
    Record,
    customer,
    device,
    land,
    phone,
    rows_by_date,
    run,
    twin,
)
from stedi_assets_tests.storages import AnyPath, opened

pytestmark = pytest.mark.long

DAYS = ["2023-08-06", "2023-08-07", "2023-08-08", "2023-08-09"]


@pytest.fixture
def landed_only(lakes: AnyPath) -> Lake:
    """Files of people whose consent never changes, each with a reading on the day they come.

    A consent that changes, and a first reading that comes after the readings of the device, change
    what the large tables should hold on earlier dates. Those are made again by runs that
    reconciliation asks for, and not by a run over the date on which the change came.
    """
    lake = opened(lakes / "landed only")
    rng = random.Random(7)
    people: list[tuple[str, str]] = []
    sent: dict[str, list[Record]] = {"customer": [], "accelerometer": [], "step_trainer": []}
    for number, day in enumerate(DAYS):
        files: dict[str, list[Record]] = {source: [] for source in sent}
        new = [(f"person{number}{n}@test.com", f"s{number}{n}") for n in range(6)]
        for n, (email, serial) in enumerate(new):
            consent = 5 if n % 3 else None
            files["customer"].append(customer(email, serial, consent=consent, updated=number))
        people += new
        for email, serial in people:
            user = rng.choice([email, email.upper(), f" {email}"])
            times = [rng.randrange(50) for _ in range(5)]
            files["accelerometer"] += [phone(user, time, rng.random()) for time in times]
            files["step_trainer"] += [device(time, serial, rng.randrange(300)) for time in times]
        for source, records in files.items():
            again = rng.sample(sent[source], len(sent[source]) // 5)  # delivered once more
            sent[source] += records
            spoilt = ["{spoilt"] if number == 2 and source != "customer" else []
            land(lake, source, day, *records, *again, *spoilt)
    return lake


def test_one_run_over_a_stretch_gives_the_tables_of_a_run_a_date(
    landed_only: Lake, lakes: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "the same for both")
    at_once, by_date = (twin(landed_only, lakes / name) for name in ("at once", "by date"))
    assert run(at_once, DAYS[0], DAYS[-1]).success
    for day in DAYS:
        assert run(by_date, day).success
    found = {name: rows_by_date(at_once, name) for name in TABLES}
    assert {name: rows_by_date(by_date, name) for name in TABLES} == found
    for name, rows in found.items():
        assert list(rows) == DAYS
        assert any(of.total() for of in rows.values()) == (name != "customer_rejects"), name
    # 24 people, a third of whom does not consent.
    assert sum(of.total() for of in found["customers_curated"].values()) == 16


def test_dates_in_any_order_give_the_tables_of_one_run(
    landed_only: Lake, lakes: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two customer tables, which later runs restate; the large ones reconciliation mends."""
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "the same for both")
    at_once, shuffled = (twin(landed_only, lakes / name) for name in ("at once", "shuffled"))
    assert run(at_once, DAYS[0], DAYS[-1]).success
    for day in (DAYS[2], DAYS[0], DAYS[3], DAYS[1]):
        assert run(shuffled, day).success
    for name in ("customer_trusted", "customers_curated"):
        assert rows_by_date(shuffled, name) == rows_by_date(at_once, name)
