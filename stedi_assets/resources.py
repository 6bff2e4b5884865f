"""What the lakehouse needs from outside: the settings of the environment, the lake and the engine.

The only module that reads the environment. What of it are Dagster resources: `run_resources.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from stedi_assets.catalog.catalog import Catalog, NoCatalog
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.engines.spark import SparkEngine
from stedi_assets.lake import Lake, LocalStorage
from stedi_assets.landing.files import Landed, look
from stedi_assets.privacy.policies import Policy
from stedi_assets.privacy.pseudonyms import local_key
from stedi_assets.tables import TABLES, Source, landing_table, rejects_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def lake_root() -> str:
    """Where the lake is: `STEDI_LAKE`, by default the folder `lake` in the working directory."""
    return os.environ.get("STEDI_LAKE") or "lake"


def cache_folder() -> Path:
    """Where copies of a lake on S3 are: `STEDI_CACHE`, by default `stedi` in the user's cache."""
    of_user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("STEDI_CACHE") or f"{of_user}/stedi")


def glue_database() -> str | None:
    """The database of Glue that runs tell of tables and partitions: `STEDI_GLUE_DATABASE`."""
    return os.environ.get("STEDI_GLUE_DATABASE") or None


def athena_workgroup() -> str | None:
    """The workgroup in which Athena counts what was published: `STEDI_ATHENA_WORKGROUP`."""
    return os.environ.get("STEDI_ATHENA_WORKGROUP") or None


def code_url() -> str | None:
    """Where the repository of what runs can be read in a browser: `STEDI_CODE_URL`."""
    return os.environ.get("STEDI_CODE_URL") or None


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


def policy() -> Policy:
    """The consent policy under which the lake is kept: `STEDI_POLICY`, by default `reference`.

    Raises:
        ValueError: there is no such policy.
    """
    value = os.environ.get("STEDI_POLICY") or Policy.REFERENCE
    try:
        return Policy(value)
    except ValueError:
        known = " or ".join(Policy)
        raise ValueError(f"STEDI_POLICY is {value!r}: set it to {known}") from None


def engines() -> dict[str, str]:
    """What computes each table, by its name: what `STEDI_ENGINE` says, `duckdb` by default.

    It begins with the engine of all tables. Exceptions may follow, as in `spark,customer*=duckdb`:
    patterns of table names and their engines, of which the last that matches counts. Rejects go
    with their landing table, for one reading of the files gives both.

    Raises:
        ValueError: there is no such engine or table, or PySpark is not installed.
    """
    value = os.environ.get("STEDI_ENGINE") or "duckdb"
    rejects = {rejects_table(source).name: landing_table(source).name for source in Source}
    found: dict[str, str] = {}
    for number, item in enumerate(value.split(",")):
        pattern, _, engine = item.rpartition("=") if number else ("*", "", item)
        if engine not in _ENGINES:
            raise ValueError(
                f"STEDI_ENGINE is {value!r}, with {engine!r} for an engine: set it to one of "
                f"{', '.join(_ENGINES)}, and behind it, if need be, to exceptions as in "
                "'spark,customer*=duckdb'"
            )
        named = [name for name in TABLES if name not in rejects and fnmatchcase(name, pattern)]
        if not named:
            raise ValueError(
                f"STEDI_ENGINE is {value!r}, and {pattern!r} matches no table: there are "
                f"{', '.join(name for name in TABLES if name not in rejects)}"
            )
        found |= dict.fromkeys(named, engine)
    found |= {name: found[landing] for name, landing in rejects.items()}
    if "spark" in found.values() and not find_spec("pyspark"):
        raise ValueError(
            f"STEDI_ENGINE is {value!r}, and PySpark is not installed: install stedi-assets[spark]"
        )
    return found


JOBS = ("glue", "emr-serverless")
"""The engines that are jobs on AWS, which runs start and wait for."""

_ENGINES = ("duckdb", "spark", *JOBS)


def glue_job() -> str:
    """The job of Glue that makes tables: `STEDI_GLUE_JOB`.

    Raises:
        ValueError: it is not set.
    """
    return _needed("STEDI_GLUE_JOB", "glue")


def emr_application() -> dict[str, str]:
    """The application of EMR Serverless that makes tables, its role, and the program in it.

    `STEDI_EMR_APPLICATION`, `STEDI_EMR_ROLE` and `STEDI_EMR_ENTRY_POINT`, by their names there.

    Raises:
        ValueError: one of them is not set.
    """
    return {
        "applicationId": _needed("STEDI_EMR_APPLICATION", "emr-serverless"),
        "executionRoleArn": _needed("STEDI_EMR_ROLE", "emr-serverless"),
        "entryPoint": _needed("STEDI_EMR_ENTRY_POINT", "emr-serverless"),
    }


def _needed(name: str, engine: str) -> str:
    if value := os.environ.get(name):
        return value
    raise ValueError(f"{name} is not set, and STEDI_ENGINE has tables made by {engine}: set both")


def settings_of_jobs(lake: Lake, policy: Policy) -> dict[str, str]:
    """The settings by which a job keeps a lake as this process does. No secret is among them."""
    secret = os.environ.get("STEDI_PSEUDONYM_KEY_SECRET")
    return {
        "STEDI_ENGINE": "spark",
        "STEDI_LAKE": lake.storage.uri(),
        "STEDI_POLICY": policy.value,
        "STEDI_START_DATE": start_date().isoformat(),
        "STEDI_ATHENA_WORKGROUP": "",  # Athena is asked when Glue knows what was published
        **({"STEDI_PSEUDONYM_KEY_SECRET": secret} if secret else {}),
    }


def use_settings(settings: Mapping[str, str]) -> None:
    """Take settings for this process in the place of those of its environment."""
    os.environ.update(settings)


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


def keep_runs() -> timedelta:
    """How long runs that ended are kept: `STEDI_KEEP_RUNS_DAYS`, by default 90 days.

    Raises:
        ValueError: it is no number of days.
    """
    value = os.environ.get("STEDI_KEEP_RUNS_DAYS") or "90"
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 36500:
        raise ValueError(
            f"STEDI_KEEP_RUNS_DAYS is {value!r}: set it to a number of days, from 1 to 36500"
        )
    return timedelta(days=int(value))


def batch_events() -> None:
    """Let Dagster store a step's events together, which takes a fifth of the time on many dates.

    It reads `DAGSTER_EVENT_BATCH_SIZE`, and stores each by itself if that is not set.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")


def pseudonym_key(lake: Lake) -> str:
    """What pseudonyms are made with: `STEDI_PSEUDONYM_KEY`, else a local lake's own key.

    Instead, `STEDI_PSEUDONYM_KEY_SECRET` may name the secret of AWS Secrets Manager that holds it.

    Raises:
        ValueError: the lake is on S3, and the key is not set; its secret cannot be read; or it is
            blank.
    """
    if key := os.environ.get("STEDI_PSEUDONYM_KEY"):
        return _not_blank(key, "STEDI_PSEUDONYM_KEY")
    if secret := os.environ.get("STEDI_PSEUDONYM_KEY_SECRET"):
        return _not_blank(_secret(secret), f"STEDI_PSEUDONYM_KEY_SECRET is {secret!r}, which")
    if isinstance(lake.storage, LocalStorage):
        return local_key(lake.storage.root)
    raise ValueError(
        "STEDI_PSEUDONYM_KEY is not set: set it to a secret, and keep that, for another one gives "
        f"everybody another pseudonym. It is not kept in {lake.storage.uri()}: whoever reads the "
        "tables there could tell by it whose rows they are."
    )


def _not_blank(key: str, what: str) -> str:
    if key.strip():
        return key
    raise ValueError(f"{what} is blank: without a key anybody can make everybody's pseudonym")


def _secret(name: str) -> str:
    import boto3  # it takes a second
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = boto3.client("secretsmanager").get_secret_value(SecretId=name)
        return str(answer["SecretString"])
    except (BotoCoreError, ClientError, KeyError) as error:
        raise ValueError(
            f"STEDI_PSEUDONYM_KEY_SECRET is {name!r}, and Secrets Manager gives no text for it: "
            f"{error}"
        ) from error


def open_catalog(lake: Lake, database: str | None) -> Catalog:
    """The catalog that is told of a lake's tables and partitions.

    Args:
        lake: whose they are.
        database: of Glue; without one nobody is told.

    Raises:
        ValueError: Glue's readers do not find the lake.
        CatalogError: the catalog cannot be set up.
    """
    if not database:
        return NoCatalog()
    if isinstance(lake.storage, LocalStorage):
        raise ValueError(
            f"STEDI_GLUE_DATABASE is {database!r}, and the lake is {lake.storage.uri()}: who finds "
            "a table in Glue cannot read it there. Set STEDI_LAKE to s3://bucket/prefix, or unset "
            "STEDI_GLUE_DATABASE."
        )
    from stedi_assets.catalog.glue import open_glue  # boto3 takes a second to import

    return open_glue(database, lake, start_date())


def landed_now(lake: Lake, settled_after: timedelta = timedelta(0)) -> Landed:
    """The landing files that there are, for the partitions from the first one to today's.

    Args:
        lake: has them.
        settled_after: see `look`.
    """
    return look(lake, start_date(), datetime.now(UTC), settled_after)


def landed_and_left_alone(lake: Lake, settled_after: timedelta) -> Landed:
    """The same, after waiting once for files that may still be written to."""
    landed = landed_now(lake, settled_after)
    if landed.growing:
        time.sleep(settled_after.total_seconds())
        landed = landed_now(lake, settled_after)
    return landed


def duckdb_settings() -> dict[str, str]:
    """DuckDB's settings.

    What does not fit into `STEDI_MEMORY_LIMIT`, by default 1600MB, it puts on the disk. No query
    fetches an extension, takes a variable of Python for a table, or finds anybody's credentials.
    """
    return {
        "memory_limit": os.environ.get("STEDI_MEMORY_LIMIT") or "1600MB",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "allow_persistent_secrets": "false",
        "python_enable_replacements": "false",
    }


def in_memory() -> duckdb.DuckDBPyConnection:
    """DuckDB in memory: the lake's files are the only state.

    Raises:
        ValueError: `STEDI_MEMORY_LIMIT` is no amount of memory.
    """
    settings = duckdb_settings()
    try:
        return duckdb.connect(config={**settings})
    except duckdb.ParserException:
        limit = settings["memory_limit"]
        raise ValueError(
            f"STEDI_MEMORY_LIMIT is {limit!r}: set it to an amount such as 1600MB"
        ) from None


def spark_session() -> SparkSession:
    """A session of Spark, with views and functions of its own.

    It is of the Spark that `SPARK_REMOTE` leads to, by Spark Connect, or that has started this
    process as a job of its own. Without both Spark is on all cores of this machine, and ends with
    this process; of memory it has `STEDI_SPARK_MEMORY`, by default 2g.
    """
    from pyspark.sql import SparkSession

    # Of the new pandas, of which nothing is used here: rows go by Arrow.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    builder = SparkSession.builder.appName("stedi")
    if os.environ.get("SPARK_REMOTE"):
        return builder.create()
    if not os.environ.get("PYSPARK_GATEWAY_PORT"):  # which `spark-submit` sets
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # and not what the PATH has
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings: dict[str, str | bool | int | float | None] = {
            "spark.driver.memory": os.environ.get("STEDI_SPARK_MEMORY") or "2g",
            "spark.log.level": "ERROR",
            "spark.sql.shuffle.partitions": "4",  # each is a task; many small ones cost more
            "spark.sql.warehouse.dir": tempfile.gettempdir(),  # or it makes a folder where it is
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        builder = builder.config(map=settings)
    return builder.getOrCreate().newSession()


@contextmanager
def open_engine(
    lake: Lake, connect: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]] = in_memory
) -> Iterator[DuckDBEngine]:
    """An engine over the lake, with a private folder from `staging`.

    It is Spark for the tables that `STEDI_ENGINE` has computed by it. What jobs make, it looks at,
    and computes only where there is no run for it, as in reconciliations.
    """
    key = pseudonym_key(lake)
    on_spark = {table for table, engine in engines().items() if engine == "spark"}
    with lake.staging() as folder, connect() as connection:
        if on_spark:
            yield SparkEngine(connection, key, folder, spark_session, lake.storage, on_spark)
        else:
            yield DuckDBEngine(connection, key, folder)
