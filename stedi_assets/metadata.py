"""What Dagster shows of tables and partitions, under the metadata keys that it knows."""

from __future__ import annotations

from functools import cache
from typing import Any

import dagster as dg

from stedi_assets.engines.duckdb import FileStatistics
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


def of_partition(
    table: Table, statistics: FileStatistics, *, uri: str, size: int, sql: str
) -> dict[str, Any]:
    """The figures of one materialized partition.

    Args:
        table: whose partition it is.
        statistics: what its file's footer says.
        uri: where it is.
        size: of its file, in bytes.
        sql: the query that made it.
    """
    figures: dict[str, Any] = {
        "dagster/partition_row_count": statistics.rows,
        "dagster/column_schema": column_schema(table),
        "dagster/uri": uri,
        "bytes": size,
        "nulls": dict(statistics.nulls),
        "sql": dg.MetadataValue.md(f"```sql\n{sql}\n```"),
    }
    if statistics.first is not None and statistics.last is not None:
        figures["first_event"] = dg.MetadataValue.timestamp(statistics.first / 1000)
        figures["last_event"] = dg.MetadataValue.timestamp(statistics.last / 1000)
    return figures
