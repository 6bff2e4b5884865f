"""What Dagster shows of tables and partitions, under the metadata keys that it knows."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any

import dagster as dg

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.lineage import lineage
from stedi_assets.engines.duckdb import FileStatistics
from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import Published
from stedi_assets.tables import Table


@cache
def column_schema(table: Table) -> dg.TableSchema:
    """A table's columns: type, meaning, what a null says, what personal data it is."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=f"{column.description} Null: {column.null_means}."
                if column.null_means
                else column.description,
                constraints=dg.TableColumnConstraints(nullable=not column.required),
                tags={"personal": column.personal.value.replace(" ", "_")},
            )
            for column in table.columns
        ]
    )


@cache
def column_lineage(table: Table, policy: Policy) -> dg.TableColumnLineage:
    """From which columns a table's columns come; from none, where it is read from landing files."""
    definition = DEFINITIONS[policy].get(table.name)
    return dg.TableColumnLineage(
        {
            column: [
                dg.TableColumnDep(dg.AssetKey(origin.table), origin.column)
                for origin in sorted(origins)
            ]
            for column, origins in (lineage(definition) if definition else {}).items()
            if column in table.column_names
        }
    )


def of_partitions(
    lake: Lake, table: Table, published: Published, policy: Policy
) -> dict[date, dict[str, Any]]:
    """The figures of each materialized partition.

    Args:
        lake: has them.
        table: whose partitions they are.
        published: what is known of them.
        policy: under which the lake is kept.
    """
    return {
        day: _of_partition(
            table,
            statistics,
            uri=lake.storage.uri(lake.partition_key(table, day)),
            size=published.sizes[day],
            sql=published.sql,
            policy=policy,
        )
        for day, statistics in published.statistics.items()
    }


def _of_partition(
    table: Table, statistics: FileStatistics, *, uri: str, size: int, sql: str, policy: Policy
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "dagster/partition_row_count": statistics.rows,
        "dagster/column_schema": column_schema(table),
        "dagster/column_lineage": column_lineage(table, policy),
        "dagster/uri": uri,
        "bytes": size,
        "policy": policy.value,
        "nulls": dict(statistics.nulls),
        "sql": dg.MetadataValue.md(f"```sql\n{sql}\n```"),
    }
    if statistics.first is not None and statistics.last is not None:
        figures["first_event"] = dg.MetadataValue.timestamp(statistics.first / 1000)
        figures["last_event"] = dg.MetadataValue.timestamp(statistics.last / 1000)
    return figures
