"""The lake and the engine as Dagster resources: what assets, checks and jobs ask for by name."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
from dagster_duckdb import DuckDBResource

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import duckdb_settings, lake_root, open_engine


@dg.resource(config_schema={"root": dg.Field(str, description="A local folder.")})
def lake_resource(context: dg.InitResourceContext) -> Lake:
    """The lake that runs read and write."""
    return open_lake(context.resource_config["root"])


@dg.resource(required_resource_keys={"duckdb", "lake"})
def engine_resource(context: dg.InitResourceContext) -> Iterator[DuckDBEngine]:
    """DuckDB in memory, one for all steps of a run in this process.

    A run has the lake for itself: the customer tables' earlier partitions, which a run of any date
    may write, must not be written by two.
    """
    lake: Lake = context.resources.lake
    duckdb: DuckDBResource = context.resources.duckdb
    with lake.writing(), open_engine(lake, duckdb.get_connection) as engine:
        yield engine


def resources() -> dict[str, object]:
    """The resources of all assets and checks but the IO manager, as the environment says."""
    return {
        "lake": lake_resource.configured({"root": lake_root()}),
        "duckdb": DuckDBResource(database=":memory:", connection_config=duckdb_settings()),
        "engine": engine_resource,
    }
