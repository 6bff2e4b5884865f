"""What Dagster shows of tables and partitions, under the metadata keys that it knows."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.lineage import lineage
from stedi_assets.lake import Lake
from stedi_assets.landing.reader import read_days
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import Published
from stedi_assets.tables import Table, rejects_table

_REPOSITORY = Path(__file__).parents[1]


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


def code_of(table: Table, policy: Policy, root: str | None) -> dg.CodeReferencesMetadataValue:
    """Where a table's definition is written, or what reads its landing files.

    Args:
        table: whose code it is.
        policy: under which the lake is kept.
        root: the address of a copy of the repository; without one it is the very file that runs,
            which opens where Dagster runs.
    """
    definition = DEFINITIONS[policy].get(table.name)
    code = (definition.rows if definition else read_days).__code__
    file, line = Path(code.co_filename), code.co_firstlineno
    if not root:
        found = dg.LocalFileCodeReference(file_path=str(file), line_number=line)
        return dg.CodeReferencesMetadataValue(code_references=[found])
    in_repository = file.relative_to(_REPOSITORY).as_posix()
    url = f"{root.rstrip('/')}/{in_repository}#L{line}"
    return dg.CodeReferencesMetadataValue(code_references=[dg.UrlCodeReference(url=url)])


def of_partitions(
    lake: Lake, table: Table, published: Published, policy: Policy
) -> dict[date, dict[str, Any]]:
    """The figures of each materialized partition. Dagster plots those that are numbers.

    Args:
        lake: has them.
        table: whose partitions they are.
        published: what is known of them.
        policy: under which the lake is kept.
    """
    rows = sum(found.rows for found in published.statistics.values())
    # Of the rejects it would say nothing: one reading gives both, and took its time for the rows.
    is_timed = table != rejects_table(table.source)
    made_of = {
        "sql": dg.MetadataValue.md(f"```sql\n{published.sql}\n```"),
        "policy": policy.value,
        "dagster/column_schema": column_schema(table),
        "dagster/column_lineage": column_lineage(table, policy),
    }
    figures: dict[date, dict[str, Any]] = {}
    for day, found in published.statistics.items():
        of_day = figures[day] = {"dagster/partition_row_count": found.rows}
        if day in published.rejects:
            of_day["rejects"] = published.rejects[day]
        if day in published.consents:
            of_day["share_of_consent"] = round(published.consents[day], 4)
        of_day["bytes"] = published.sizes[day]
        if is_timed:
            # Of each an equal share, so that they add up to what all of them took together.
            of_day["seconds"] = round(published.seconds / len(published.statistics), 4)
        if is_timed and rows:
            of_day["rows_a_second"] = round(rows / published.seconds)
        if found.first is not None and found.last is not None:
            of_day["first_event"] = dg.MetadataValue.timestamp(found.first / 1000)
            of_day["last_event"] = dg.MetadataValue.timestamp(found.last / 1000)
        if day in published.previews:
            records = [dg.TableRecord(row) for row in published.previews[day]]
            of_day["preview"] = dg.MetadataValue.table(records, schema=column_schema(table))
        of_day["nulls"] = dict(found.nulls)
        of_day["dagster/uri"] = lake.storage.uri(lake.partition_key(table, day))
        of_day.update(made_of)
    return figures
