"""What Dagster is told of a table, from the registry: so that an asset is its definition alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg

from stedi_assets.io_manager import IO_MANAGER_KEY
from stedi_assets.metadata import column_schema
from stedi_assets.partitions import DAILY, SINGLE_RUN
from stedi_assets.tables import TABLES, Table


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


def derived(
    **upstream: dg.PartitionMapping,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorates a table's definition: an asset named as the function.

    Args:
        upstream: for each upstream table, which of its partitions one of this table may need.
    """

    def decorate(definition: Callable[..., Any]) -> dg.AssetsDefinition:
        made: dg.AssetsDefinition = dg.asset(
            ins={name: dg.AssetIn(partition_mapping=need) for name, need in upstream.items()},
            partitions_def=DAILY,
            backfill_policy=SINGLE_RUN,
            **about(TABLES[definition.__name__]),
        )(definition)
        return made

    return decorate
