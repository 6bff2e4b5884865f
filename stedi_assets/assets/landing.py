"""The landing zone: what the sources dropped, as it came, and beside it what could not be read."""

import dagster as dg

from stedi_assets.assets.by_jobs import made_by_job
from stedi_assets.assets.specs import about
from stedi_assets.dates import days
from stedi_assets.engines.duckdb import DuckDBEngine, Staged
from stedi_assets.lake import Lake
from stedi_assets.landing.files import files_by_date
from stedi_assets.making import make_landing
from stedi_assets.partitions import DAILY, SINGLE_RUN
from stedi_assets.resources import JOBS, engines
from stedi_assets.tables import Source, landing_table, rejects_table


def landing_assets(source: Source) -> dg.AssetsDefinition:
    """A source's landing table and its rejects: one reading of the files gives both."""
    tables = landing_table(source), rejects_table(source)
    name, outs = f"read_{source}_files", {of.name: dg.AssetOut(**about(of)) for of in tables}
    if engines()[tables[0].name] in JOBS:
        return made_by_job(name, outs)

    @dg.multi_asset(
        name=name,
        outs=outs,
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
    )
    def read_files(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[DuckDBEngine],
    ) -> tuple[Staged, Staged]:
        try:
            dates = days(context.partition_keys)
        except dg.DagsterInvariantViolationError as error:  # the Launchpad lets one launch it so
            raise dg.Failure(
                "The run is of no date: choose a partition, which is an ingestion date.",
                allow_retries=False,
            ) from error
        return make_landing(lake, engine, source, dates, files_by_date(lake, source))

    return read_files


LANDING = [landing_assets(source) for source in Source]
