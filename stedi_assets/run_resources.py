"""What assets, checks and jobs ask for by name, as Dagster resources: lake, engine, catalog."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource

from stedi_assets.catalog.catalog import Catalog
from stedi_assets.catalog.views import write_views
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import (
    JOBS,
    cache_folder,
    duckdb_settings,
    engines,
    glue_database,
    lake_root,
    open_catalog,
    open_engine,
    policy,
)


@dg.resource(config_schema={"root": dg.Field(str, description="A folder, or s3://bucket/prefix.")})
def lake_resource(context: dg.InitResourceContext) -> Lake:
    """The lake that runs read and write."""
    return open_lake(context.resource_config["root"], cache_folder())


@dg.resource(required_resource_keys={"duckdb", "lake"})
def engine_resource(context: dg.InitResourceContext) -> Iterator[DuckDBEngine]:
    """DuckDB in memory, one for all steps of a run in this process.

    A run has the lake for itself: the customer tables' earlier partitions, which a run of any date
    may write, must not be written by two. At its end the lake's views show what there is now.
    """
    lake: Lake = context.resources.lake
    settings: DuckDBResource = context.resources.duckdb
    with lake.writing(), open_engine(lake, settings.get_connection) as engine:
        yield engine
        with suppress(duckdb.Error):  # a damaged partition; who mends it writes them
            write_views(lake, engine)


@dg.resource(config_schema={"name": dg.Field(str, description="reference or strict.")})
def policy_resource(context: dg.InitResourceContext) -> Policy:
    """The consent policy under which the lake is kept."""
    return Policy(context.resource_config["name"])


@dg.resource(
    required_resource_keys={"lake"},
    config_schema={"database": dg.Field(str, description="Of Glue; empty without a catalog.")},
)
def catalog_resource(context: dg.InitResourceContext) -> Catalog:
    """The catalog that runs tell what they publish."""
    return open_catalog(context.resources.lake, context.resource_config["database"])


def resources() -> dict[str, object]:
    """The resources of all assets and checks but the IO manager, as the environment says."""
    return {
        "lake": lake_resource.configured({"root": lake_root()}),
        "duckdb": DuckDBResource(database=":memory:", connection_config=duckdb_settings()),
        "engine": engine_resource,
        "policy": policy_resource.configured({"name": policy().value}),
        "catalog": catalog_resource.configured({"database": glue_database() or ""}),
        **_jobs(),
    }


def _jobs() -> dict[str, object]:
    """What starts those of the jobs that make tables."""
    used = {engine for engine in engines().values() if engine in JOBS}
    if not used:
        return {}
    from stedi_assets.job_clients import jobs  # dagster-aws takes a second to import

    return jobs(used)
