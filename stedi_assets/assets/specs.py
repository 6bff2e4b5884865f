"""What Dagster is told of a table, from the registry: so that an asset is its definition alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg
import ibis.expr.types as ir

from stedi_assets.assets.by_jobs import made_by_job
from stedi_assets.assets.definitions import DEFINITIONS, needs_of
from stedi_assets.io_manager import IO_MANAGER_KEY
from stedi_assets.metadata import code_of, column_schema
from stedi_assets.partitions import DAILY, MAPPINGS, SINGLE_RUN
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import JOBS, code_url, engines, lake_root, policy
from stedi_assets.tables import TABLES, Table

_DAILY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=2, hours=2), warn_window=timedelta(days=1, hours=2)
)
"""A day in which a table was not made is a warning, two are an error; two hours are grace."""


def about(table: Table) -> dict[str, Any]:
    """What an asset and an output of a multi-asset are told alike."""
    kinds = {engines()[table.name].removesuffix("-serverless"), "parquet"}
    identifies = any(column.personal.identifies for column in table.columns)
    return {
        "group_name": table.zone.value,
        "description": table.description,
        "owners": [table.owner],
        "kinds": kinds | {"s3"} if lake_root().startswith("s3://") else kinds,
        "tags": {
            "source": table.source.value,
            "personal_data": "names_people" if identifies else "pseudonyms",
        },
        "metadata": {
            "dagster/column_schema": column_schema(table),
            "dagster/code_references": code_of(table, policy(), code_url()),
        },
        "freshness_policy": _DAILY if table.grows_daily else None,
        "io_manager_key": IO_MANAGER_KEY,
    }


def derived_asset(name: str) -> dg.AssetsDefinition:
    """A table's definition as an asset: that of the policy under which a run keeps the lake."""
    table, needs = TABLES[name], needs_of(name)
    if engines()[name] in JOBS:
        deps = [dg.AssetDep(read, partition_mapping=MAPPINGS[need]) for read, need in needs.items()]
        return made_by_job(name, {name: dg.AssetOut(**about(table))}, deps)

    def rows(policy: dg.ResourceParam[Policy], **tables: ir.Table) -> ir.Table:
        definition = DEFINITIONS[policy][name]
        return definition(**{read: tables[read] for read in definition.needs})

    made: dg.AssetsDefinition = dg.asset(
        name=name,
        ins={read: dg.AssetIn(partition_mapping=MAPPINGS[need]) for read, need in needs.items()},
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        **about(table),
    )(rows)
    return made
