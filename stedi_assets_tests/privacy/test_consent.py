"""Who is one person, which record counts, and what consent is."""

from datetime import date
from itertools import product
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.privacy.consent import consents_to_research, latest_records, person
from stedi_assets.tables import PARTITION

EARLIER, LATER = date(2023, 7, 31), date(2023, 8, 1)
COLUMNS = {
    "email": "string",
    "phone": "string",
    "lastupdatedate": "int64",
    "registrationdate": "int64",
    "sharewithresearchasofdate": "int64",
    PARTITION: "date",
}


def evaluate(engine: DuckDBEngine, expression: Any) -> Any:
    return engine.ibis.to_pyarrow(expression)


def record(
    email: str, updated: int, registered: int, day: date, research: int | None, phone: str = ""
) -> tuple[Any, ...]:
    return email, phone, updated, registered, research, day


def table(*records: tuple[Any, ...]) -> ir.Table:
    rows = [dict(zip(COLUMNS, values, strict=True)) for values in records]
    return ibis.memtable(pa.Table.from_pylist(rows, schema=ibis.schema(COLUMNS).to_pyarrow()))


def latest(engine: DuckDBEngine, *records: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    found = latest_records(table(*records))
    return sorted(
        tuple(row[name] for name in COLUMNS) for row in evaluate(engine, found).to_pylist()
    )


@pytest.mark.parametrize(
    ("email", "who"),
    [
        ("ann@stedi.com", "ann@stedi.com"),
        ("Ann.Lee@STEDI.com", "ann.lee@stedi.com"),
        ("  ann@stedi.com ", "ann@stedi.com"),
        ("\tann@stedi.com\t", "ann@stedi.com"),
        (" \t\r\n ann@stedi.com\n \t", "ann@stedi.com"),
        ("a nn@stedi.com", "a nn@stedi.com"),
        ("ZOË@stedi.com", "zoë@stedi.com"),
    ],
)
def test_an_email_stands_for_a_person_trimmed_and_in_lower_case(
    engine: DuckDBEngine, email: str, who: str
) -> None:
    assert evaluate(engine, person(ibis.literal(email))).as_py() == who


def test_no_email_stands_for_nobody(engine: DuckDBEngine) -> None:
    assert evaluate(engine, person(ibis.null("string"))).as_py() is None


@pytest.mark.parametrize(
    ("research", "consents"), [(None, False), (0, False), (1, True), (1_655_564_444_103, True)]
)
def test_consent_is_a_date_that_is_neither_missing_nor_zero(
    engine: DuckDBEngine, research: int | None, consents: bool
) -> None:
    customers = table(record("ann", 1, 1, EARLIER, research))
    assert evaluate(engine, consents_to_research(customers)).to_pylist() == [consents]


def test_there_is_one_record_a_person_with_the_columns_that_went_in(engine: DuckDBEngine) -> None:
    emails = ["ann", "ANN ", "\tann", "bob", "bob"]
    customers = table(*(record(email, 1, 1, EARLIER, 0) for email in emails))
    found = latest_records(customers)
    assert found.schema() == customers.schema()
    emails = evaluate(engine, found).column("email").to_pylist()
    assert sorted(email.strip().lower() for email in emails) == ["ann", "bob"]


def test_the_latest_record_counts_whether_it_consents_or_not(engine: DuckDBEngine) -> None:
    old, new = record("ann", 1, 1, EARLIER, 5), record("Ann", 2, 1, EARLIER, None)
    other = record("bob", 1, 1, EARLIER, 0)
    assert latest(engine, old, new, other) == [new, other]


def test_of_any_two_records_the_right_one_counts_in_either_order(engine: DuckDBEngine) -> None:
    """Every pair of two records over two updates, registrations, dates and four consents."""
    values = list(product((1, 2), (1, 2), (EARLIER, LATER), (None, 0, 7, -7)))
    records, counts = [], {}
    for number, (one, two) in enumerate(product(values, values)):
        email = f"person {number:03}"
        records += [record(email, *one, phone="one"), record(email, *two, phone="two")]
        # Later goes before earlier; where all three dates agree, no consent before consent.
        counts[email] = max(one, two, key=lambda v: (v[0], v[1], v[2], not v[3]))
    found = {row[0]: row for row in latest(engine, *records)}
    assert found.keys() == counts.keys()
    wrong = {
        email: (found[email], right)
        for email, right in counts.items()
        if (found[email][2], found[email][3], found[email][5], bool(found[email][4]))
        != (right[0], right[1], right[2], bool(right[3]))
    }
    assert not wrong
