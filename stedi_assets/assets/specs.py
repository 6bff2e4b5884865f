"""What Dagster is told of a table, from the registry: so that an asset is its definition alone."""

from __future__ import annotations

from typing import Any

import dagster as dg

from stedi_assets.assets.definition import Definition
from stedi_assets.io_manager import IO_MANAGER_KEY
from stedi_assets.metadata import column_schema
from stedi_assets.partitions import DAILY, MAPPINGS, SINGLE_RUN
from stedi_assets.tables import Table


def about(table: Table) -> dict[str, Any]:
    """What an asset and an output of a multi-asset are told alike."""
    return {
        "group_name": table.zone.value,
        "description": table.description,
        "owners": [table.owner],
        "kinds": {"duckdb", "parquet"},
        "tags": {"source": table.source.value},
        "metadata": {"dagster/column_schema": column_schema(table)},
        "io_manager_key": IO_MANAGER_KEY,
    }


def derived_asset(definition: Definition) -> dg.AssetsDefinition:
    """A table's definition as an asset."""
    made: dg.AssetsDefinition = dg.asset(
        ins={
            name: dg.AssetIn(partition_mapping=MAPPINGS[need])
            for name, need in definition.needs.items()
        },
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        **about(definition.table),
    )(definition.rows)
    return made
