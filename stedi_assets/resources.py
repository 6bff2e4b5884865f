"""What the lakehouse needs from outside: the settings of the environment, the lake and the engine.

The only module that reads the environment. What of it are Dagster resources: `run_resources.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.landing.files import Landed, look
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


def batch_events() -> None:
    """Let Dagster store a step's events together, which takes a fifth of the time on many dates.

    It reads `DAGSTER_EVENT_BATCH_SIZE`, and stores each by itself if that is not set.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")


def pseudonym_key(lake: Lake) -> str:
    """What pseudonyms are made with: `STEDI_PSEUDONYM_KEY`, else the lake's own key."""
    return os.environ.get("STEDI_PSEUDONYM_KEY") or local_key(lake.storage.root)


def landed_now(lake: Lake, settled_after: timedelta = timedelta(0)) -> Landed:
    """The landing files that there are, for the partitions from the first one to today's.

    Args:
        lake: has them.
        settled_after: see `look`.
    """
    return look(lake, start_date(), datetime.now(UTC), settled_after)


def duckdb_settings() -> dict[str, str]:
    """DuckDB's settings.

    What does not fit into `STEDI_MEMORY_LIMIT`, by default 1600MB, it puts on the lake's disk.
    """
    return {"memory_limit": os.environ.get("STEDI_MEMORY_LIMIT") or "1600MB"}


def in_memory() -> duckdb.DuckDBPyConnection:
    """DuckDB in memory: the lake's files are the only state."""
    return duckdb.connect(config={**duckdb_settings()})


@contextmanager
def open_engine(
    lake: Lake, connect: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]] = in_memory
) -> Iterator[DuckDBEngine]:
    """An engine over the lake, with a private folder on the lake's disk."""
    with lake.staging() as folder, connect() as connection:
        yield DuckDBEngine(connection, pseudonym_key(lake), folder)
