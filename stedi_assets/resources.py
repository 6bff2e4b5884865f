"""What runs need from outside: the settings of the environment, the lake and the engine.

The only module that reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.privacy.pseudonyms import local_key


def lake_root() -> str:
    """Where the lake is: `STEDI_LAKE`, by default the folder `lake` in the working directory."""
    return os.environ.get("STEDI_LAKE") or "lake"


def start_date() -> date:
    """The first partition: `STEDI_START_DATE`, by default 2022-01-01.

    Raises:
        ValueError: it is no date.
    """
    value = os.environ.get("STEDI_START_DATE") or "2022-01-01"
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError(f"STEDI_START_DATE is {value!r}: set it to a date, YYYY-MM-DD") from None


def dagster_home() -> str | None:
    """The folder of the Dagster instance that keeps runs: `DAGSTER_HOME`, if it is set.

    Raises:
        ValueError: it is no folder.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return None
    if not Path(home).is_dir():
        raise ValueError(f"DAGSTER_HOME is {home!r}: set it to the path of an existing folder")
    return str(Path(home).absolute())


def pseudonym_key(lake: Lake) -> str:
    """What pseudonyms are made with: `STEDI_PSEUDONYM_KEY`, else the lake's own key."""
    return os.environ.get("STEDI_PSEUDONYM_KEY") or local_key(lake.storage.root)


@dg.resource(config_schema={"root": dg.Field(str, description="A local folder.")})
def lake_resource(context: dg.InitResourceContext) -> Lake:
    """The lake that runs read and write."""
    return open_lake(context.resource_config["root"])


@contextmanager
def open_engine(lake: Lake, duckdb: DuckDBResource) -> Iterator[DuckDBEngine]:
    """An engine over the lake, with a private folder on the lake's disk."""
    with lake.staging() as folder, duckdb.get_connection() as connection:
        yield DuckDBEngine(connection, pseudonym_key(lake), folder)


@dg.resource(required_resource_keys={"duckdb", "lake"})
def engine_resource(context: dg.InitResourceContext) -> Iterator[DuckDBEngine]:
    """DuckDB in memory, one for all steps of a run in this process."""
    with open_engine(context.resources.lake, context.resources.duckdb) as engine:
        yield engine


def duckdb_resource() -> DuckDBResource:
    """DuckDB in memory: the lake's files are the only state.

    What does not fit into `STEDI_MEMORY_LIMIT`, by default 1600MB, it puts on the lake's disk.
    """
    limit = os.environ.get("STEDI_MEMORY_LIMIT") or "1600MB"
    return DuckDBResource(database=":memory:", connection_config={"memory_limit": limit})


def resources() -> dict[str, object]:
    """The resources of all assets and checks but the IO manager, as the environment says."""
    return {
        "lake": lake_resource.configured({"root": lake_root()}),
        "duckdb": duckdb_resource(),
        "engine": engine_resource,
    }
