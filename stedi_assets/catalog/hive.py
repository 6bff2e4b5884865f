"""A table in Hive's words, which Athena and Glue share: types, comments, where its rows are.

Derived from the registry. How it is written as DDL, or told to Glue, is in `ddl.py` and `glue.py`.
"""

from __future__ import annotations

from datetime import date

from stedi_assets.tables import PARTITION, Column, ColumnType, Table

DATABASE = "stedi"
"""The database that tables are in where none is named."""

TYPES: dict[ColumnType, str] = {
    "string": "string",
    "int64": "bigint",
    "int32": "int",
    "float64": "double",
    "boolean": "boolean",
}
"""Hive's names of the registry's types."""

PARTITION_TYPE = "date"
PARTITION_COMMENT = "The ingestion date, UTC."


def comment(column: Column) -> str:
    """What a column's values say, and what a missing one does."""
    missing = f" Null: {column.null_means}." if column.null_means else ""
    return column.description + missing


def location(root: str, table: Table) -> str:
    """The folder of a table's partitions.

    Args:
        root: the address of the lake, as its storage gives it.
        table: whose partitions they are.
    """
    return f"{root}/{table.path}/"


def partition_location(root: str, table: Table, day: str) -> str:
    """The folder of a partition; `day` is its date, or what stands for it."""
    return f"{location(root, table)}{PARTITION}={day}/"


def properties(root: str, table: Table, first: date) -> dict[str, str]:
    """What a table's properties say: what files it has, and which partitions there may be.

    Athena works out the partitions by itself, from the first ingestion date to today's, and asks
    nobody for a list.

    Args:
        root: the address of the lake, as its storage gives it.
        table: whose they are.
        first: the first ingestion date.
    """
    return {
        "classification": "parquet",
        "projection.enabled": "true",
        f"projection.{PARTITION}.type": "date",
        f"projection.{PARTITION}.format": "yyyy-MM-dd",
        f"projection.{PARTITION}.range": f"{first.isoformat()},NOW",
        f"projection.{PARTITION}.interval": "1",
        f"projection.{PARTITION}.interval.unit": "DAYS",
        "storage.location.template": partition_location(root, table, f"${{{PARTITION}}}"),
    }
