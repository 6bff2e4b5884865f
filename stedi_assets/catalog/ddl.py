"""The tables as Athena's DDL, for people who keep it in files: Parquet tables and the raw JSON.

Writes text, and asks nobody; what stands in it comes from the registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from stedi_assets.catalog.hive import (
    PARTITION_COMMENT,
    PARTITION_TYPE,
    TYPES,
    comment,
    location,
    properties,
)
from stedi_assets.tables import PARTITION, TABLES, Source, Table, landing_table

_JSON = {
    "ignore.malformed.json": "FALSE",
    "dots.in.keys": "FALSE",
    "case.insensitive": "TRUE",
}


def statements(root: str, database: str, first: date) -> Iterator[str]:
    """The statements that make a database and all tables in it, none of which changes any.

    Args:
        root: the address of the lake, as its storage gives it.
        database: in which the tables are to be.
        first: the first ingestion date.
    """
    yield f"CREATE DATABASE IF NOT EXISTS {_quoted(database)}"
    for table in TABLES.values():
        yield _parquet(root, database, table, first)
    for source in Source:
        yield _json(root, database, source)


def _parquet(root: str, database: str, table: Table, first: date) -> str:
    columns = ((column.name, TYPES[column.type], comment(column)) for column in table.columns)
    return "\n".join(
        [
            f"CREATE EXTERNAL TABLE IF NOT EXISTS {_quoted(database)}.{_quoted(table.name)} (",
            *_lines([_column(*column) for column in columns]),
            ")",
            f"COMMENT {_text(table.description)}",
            f"PARTITIONED BY ({_column(PARTITION, PARTITION_TYPE, PARTITION_COMMENT)})",
            "STORED AS PARQUET",
            f"LOCATION {_text(location(root, table))}",
            "TBLPROPERTIES (",
            *_lines(_pairs(properties(root, table, first))),
            ")",
        ]
    )


def _json(root: str, database: str, source: Source) -> str:
    """A table of a source's landing files, with the columns as their producer spells them."""
    table = landing_table(source)
    name = f"{source}_landing_json"
    columns = ((column.key, TYPES[column.type], comment(column)) for column in table.columns)
    return "\n".join(
        [
            f"CREATE EXTERNAL TABLE IF NOT EXISTS {_quoted(database)}.{_quoted(name)} (",
            *_lines([_column(*column) for column in columns]),
            ")",
            f"COMMENT {_text(f'The landing files of {table.name}, unread.')}",
            "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'",
            "WITH SERDEPROPERTIES (",
            *_lines(_pairs(_JSON)),
            ")",
            "STORED AS TEXTFILE",
            f"LOCATION {_text(f'{root}/{source}/landing/')}",
            "TBLPROPERTIES ('classification' = 'json')",
        ]
    )


def _column(name: str, kind: str, meaning: str) -> str:
    return f"{_quoted(name)} {kind} COMMENT {_text(meaning)}"


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [f"{_text(name)} = {_text(value)}" for name, value in values.items()]


def _lines(items: Sequence[str]) -> list[str]:
    return [f"  {item}," for item in items[:-1]] + [f"  {items[-1]}"]


def _quoted(name: str) -> str:
    """A name as Hive's DDL takes it, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def _text(text: str) -> str:
    """A text as Hive's DDL takes it, whatever is in it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
