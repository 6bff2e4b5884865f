"""Rows and tables for definitions: one word for what a test is about, the rest has a default."""

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.tables import PARTITION, TABLES

Row = Mapping[str, Any]

KEY = "the tests' own key"
SINCE = 1_655_564_444_103
DAY = date(2023, 8, 1)


def table(name: str, *rows: Row) -> ir.Table:
    """A table of the registry with the given rows, in memory."""
    schema = ibis.schema(TABLES[name].schema).to_pyarrow()
    for row in rows:
        assert set(row) == set(schema.names), f"not a row of {name}: {row}"
    return ibis.memtable(pa.Table.from_pylist([dict(row) for row in rows], schema=schema))


def rows_of(engine: DuckDBEngine, expression: ir.Table) -> list[dict[str, Any]]:
    """What a definition gives, in an order that depends on nothing but the values."""
    rows: list[dict[str, Any]] = engine.ibis.to_pyarrow(expression).to_pylist()
    return sorted(rows, key=lambda row: [(row[n] is not None, row[n]) for n in sorted(row)])


def values(engine: DuckDBEngine, expression: ir.Table, column: str) -> list[Any]:
    """One column of what a definition gives, sorted."""
    return sorted(row[column] for row in rows_of(engine, expression))


def customer(
    email: str = "ann@stedi.com",
    research: int | None = SINCE,
    *,
    serial: str = "serial of ann",
    updated: int = 2_000,
    registered: int = 1_000,
    phone: str | None = "8015551212",
    birthday: str | None = "1990-06-15",
    day: date = DAY,
    **others: Any,
) -> Row:
    return {
        "customername": "Ann Lee",
        "email": email,
        "phone": phone,
        "birthday": birthday,
        "serialnumber": serial,
        "registrationdate": registered,
        "lastupdatedate": updated,
        "sharewithresearchasofdate": research,
        "sharewithpublicasofdate": None,
        "sharewithfriendsasofdate": None,
        PARTITION: day,
    } | others


def phone_reading(
    user: str = "ann@stedi.com",
    time: int = 5_000,
    *,
    x: float = 1.0,
    y: float = 0.0,
    z: float = -1.0,
    day: date = DAY,
) -> Row:
    return {"user": user, "timestamp": time, "x": x, "y": y, "z": z, PARTITION: day}


def device_reading(
    serial: str = "serial of ann", time: int = 5_000, *, distance: int = 250, day: date = DAY
) -> Row:
    return {
        "sensorreadingtime": time,
        "serialnumber": serial,
        "distancefromobject": distance,
        PARTITION: day,
    }


def pseudonym_of(value: str) -> str:
    return hashlib.sha256((KEY + value).encode()).hexdigest()


def curated(
    person: str = "ann@stedi.com", *, serial: str = "serial of ann", day: date = DAY
) -> Row:
    """The row of customers_curated of a person, by the normalised email."""
    return {
        "subject_id": pseudonym_of(person),
        "device_id": pseudonym_of(serial),
        "birthyear": 1990,
        "registrationdate": 1_000,
        "lastupdatedate": 2_000,
        "sharewithresearchasofdate": SINCE,
        "sharewithpublicasofdate": None,
        "sharewithfriendsasofdate": None,
        PARTITION: day,
    }
