"""What a job of Glue or EMR Serverless runs: it makes the partitions of one step, on its Spark.

A run of Dagster starts it, has the lake for both, and waits. Dagster Pipes brings it what to make,
and takes back what was made. The program that calls `main` is deploy/aws/job.py.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from dagster_pipes import (
    PipesCliArgsParamsLoader,
    PipesContext,
    PipesEnvVarParamsLoader,
    PipesParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

from stedi_assets.resources import cache_folder, lake_root, open_engine, policy, use_settings
from stedi_assets.tables import TABLES, Table, Zone

if TYPE_CHECKING:
    from stedi_assets.engines.duckdb import DuckDBEngine, Staged
    from stedi_assets.lake import Lake


class OtherVersionError(Exception):
    """A job that would not make what the run makes that started it; says what differs."""


def main() -> None:
    """Make what the run asks for and tell it; errors are told as well, and end the process."""
    with _opened_pipes() as pipes, tempfile.TemporaryDirectory(prefix="stedi-") as cache:
        use_settings({"STEDI_CACHE": cache, **pipes.get_extra("settings")})
        from stedi_assets.lake import open_lake

        lake = open_lake(lake_root(), cache_folder())
        with open_engine(lake) as engine:
            _make(pipes, lake, engine)


def _opened_pipes() -> PipesContext:
    """The way to the run: named on the command line, as by Glue, or in the environment."""
    ways: list[PipesParamsLoader] = [
        PipesCliArgsParamsLoader(),  # type: ignore[no-untyped-call]
        PipesEnvVarParamsLoader(),  # type: ignore[no-untyped-call]
    ]
    params = next((way for way in ways if way.is_dagster_pipes_process()), None)
    if not params:
        raise SystemExit("Runs start this, for the tables that STEDI_ENGINE has made by jobs.")
    if "bucket" not in params.load_context_params():  # files, where both are on one machine
        return open_dagster_pipes(params_loader=params)
    import boto3  # it takes a second

    s3 = boto3.client("s3")
    return open_dagster_pipes(
        params_loader=params,
        context_loader=PipesS3ContextLoader(s3),
        message_writer=PipesS3MessageWriter(s3),
    )


def _make(pipes: PipesContext, lake: Lake, engine: DuckDBEngine) -> None:
    """Make the partitions of the step's tables, publish them, and look at what is stored.

    Raises:
        OtherVersionError: the run would make something else; nothing was done.
        BrokenContractError: a partition breaks the registry's rules; nothing of it was published.
    """
    from pyspark import __version__ as spark

    from stedi_assets.publishing import made_by, publish

    tables = [TABLES[name] for name in pipes.get_extra("tables")]
    days = [date.fromisoformat(day) for day in pipes.get_extra("partitions")]
    theirs, ours = pipes.get_extra("made_by"), made_by(engine, policy(), tables)
    if differs := sorted(what for what in {*theirs, *ours} if theirs.get(what) != ours.get(what)):
        raise OtherVersionError(
            f"The job and the run that started it differ in {', '.join(differs)}. Nothing was "
            "made. Give both the same stedi-assets and DuckDB, and the same key."
        )
    began = time.monotonic()
    for table, staged in zip(tables, _staged(lake, engine, tables, days), strict=True):
        published = publish(lake, engine, table, staged)
        figures: dict[str, Any] = {
            "job_partitions": len(published.sizes),
            "job_rows": sum(found.rows for found in published.statistics.values()),
            "job_bytes": sum(published.sizes.values()),
            "job_seconds": time.monotonic() - began,
            "job_engine": f"Spark {spark}",
        }
        pipes.report_custom_message({"table": table.name, "published": published.as_json()})
        pipes.report_asset_materialization(figures, asset_key=table.name)
        pipes.log.info(f"{table.name}: {figures}")
    for table in tables:
        _check(pipes, lake, engine, table, days)


def _staged(
    lake: Lake, engine: DuckDBEngine, tables: Sequence[Table], days: Sequence[date]
) -> Sequence[Staged]:
    """Finished files of each table: a landing table and its rejects, or one that is derived."""
    from stedi_assets.landing.files import files_by_date
    from stedi_assets.making import make_landing
    from stedi_assets.publishing import Maker

    table = tables[0]
    if table.zone is Zone.LANDING:
        source = table.source
        return make_landing(lake, engine, source, days, files_by_date(lake, source))
    maker = Maker(lake, engine, policy())
    return [maker.stage(table, maker.rows(table), days)]


def _check(
    pipes: PipesContext, lake: Lake, engine: DuckDBEngine, table: Table, days: Sequence[date]
) -> None:
    """Tell what the table's checks find."""
    import dagster as dg

    from stedi_assets.checks import evaluations

    for found in evaluations(lake, engine, policy(), table, days):
        figures: dict[str, Any] = {
            name: {"raw_value": value.value, "type": "json"}
            if isinstance(value, dg.JsonMetadataValue)
            else value.value
            for name, value in found.metadata.items()
        }
        severity: Literal["ERROR", "WARN"] = (
            "ERROR" if found.severity is dg.AssetCheckSeverity.ERROR else "WARN"
        )
        pipes.report_asset_check(found.check_name, found.passed, severity, figures, table.name)
