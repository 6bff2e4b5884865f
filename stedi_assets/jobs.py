"""The jobs that people, sensors and schedules start."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from stedi_assets.assets.definitions import needs_of
from stedi_assets.assets.report import lakehouse_report
from stedi_assets.catalog.catalog import Catalog
from stedi_assets.checks import UP_TO_DATE, evaluations, up_to_date_evaluations
from stedi_assets.engines.duckdb import DuckDBEngine, Staged
from stedi_assets.lake import Lake
from stedi_assets.landing.sample import sample_into
from stedi_assets.metadata import of_partitions
from stedi_assets.privacy.erasure import ErasureError, as_lines, begin, find, finish
from stedi_assets.privacy.policies import Policy
from stedi_assets.pruning import prune
from stedi_assets.publishing import publish
from stedi_assets.reconcile import Stale, reconcile
from stedi_assets.resources import keep_runs, landed_and_left_alone, landed_now
from stedi_assets.tables import TABLES, Source, Table, Zone, landing_table, rejects_table

SETTLED_AFTER = timedelta(seconds=5)
"""A landing file that was written less than this ago may still be written to."""

ONE_AT_A_TIME = {"stedi/writes": "lake"}
"""The tag by which Dagster's queue, as dagster_home/dagster.yaml limits it, knows runs that write
the lake. Each may write earlier partitions of the customer tables, so two would write the same."""

BRING_UP_TO_DATE = dg.define_asset_job(
    "bring_up_to_date",
    selection=dg.AssetSelection.assets(*TABLES) - dg.AssetSelection.checks(*UP_TO_DATE.check_keys),
    description="Reads the landing files of the chosen dates and makes all tables from them.",
    tags=ONE_AT_A_TIME,
)

REPORT = dg.define_asset_job(
    "report",
    selection=dg.AssetSelection.assets(lakehouse_report),
    description="Writes a report of the lake, one HTML page of counts.",
    tags=ONE_AT_A_TIME,
)


def tables_after(sources: Iterable[Source]) -> list[str]:
    """The names of the tables to make when landing files of some sources have changed.

    Those that hang on them, and the restated ones that these read: a process that died may have
    left them as they were before somebody's consent changed.
    """
    found = {of(source).name for source in sources for of in (landing_table, rejects_table)}
    for name, table in TABLES.items():
        if table.zone is not Zone.LANDING and found & needs_of(name).keys():
            found.add(name)
    read = {
        need for name in found if TABLES[name].zone is not Zone.LANDING for need in needs_of(name)
    }
    return sorted(found | {name for name in read if TABLES[name].restated})


class What(dg.Config):
    """What to reconcile."""

    everything: bool = Field(
        default=True,
        description="Whether to read the rows of all partitions, or only those of files that "
        "changed since the last time.",
    )
    first: str | None = Field(
        default=None,
        description="The first ingestion date to put right, YYYY-MM-DD; all without it.",
    )
    last: str | None = Field(default=None, description="The last one.")
    tables: list[str] | None = Field(
        default=None, description="The names of the tables to put right; all without it."
    )
    unsettled: bool = Field(
        default=False, description="Whether to read landing files that may still be written to."
    )

    def refuse_nonsense(self) -> None:
        """Fail if it can mean no partition: else such a run would do nothing, and succeed."""
        try:
            ends = [date.fromisoformat(end) for end in (self.first, self.last) if end]
        except ValueError as error:
            raise dg.Failure(f"{error}: a date is YYYY-MM-DD.", allow_retries=False) from error
        if ends != sorted(ends):
            raise dg.Failure("`first` is later than `last`.", allow_retries=False)
        if unknown := set(self.tables or ()) - TABLES.keys():
            raise dg.Failure(
                f"There is no table {', '.join(sorted(unknown))}. There are {', '.join(TABLES)}.",
                allow_retries=False,
            )

    def has(self, stale: Stale) -> bool:
        """Whether a partition is to be put right."""
        earliest = date.fromisoformat(self.first) if self.first else date.min
        latest = date.fromisoformat(self.last) if self.last else date.max
        return earliest <= stale.day <= latest and (
            self.tables is None or stale.table.name in self.tables
        )


@dg.op(tags={"kind": "duckdb"})
def make_again(
    context: dg.OpExecutionContext,
    config: What,
    lake: dg.ResourceParam[Lake],
    engine: dg.ResourceParam[DuckDBEngine],
    policy: dg.ResourceParam[Policy],
    catalog: dg.ResourceParam[Catalog],
) -> None:
    """Finds partitions that do not hold what their definition gives, and makes them again."""
    config.refuse_nonsense()
    _make_again(context, config, lake, engine, policy)
    catalog.match()  # at the end, for the lake is to be right whether or not the catalog answers


def _make_again(
    context: dg.OpExecutionContext, config: What, lake: Lake, engine: DuckDBEngine, policy: Policy
) -> None:
    tell: Callable[[Any], None] = (
        context.log_event
    )  # which takes check evaluations, but not by type
    made: dict[Table, set[date]] = {}

    def replace(table: Table, staged: Staged) -> None:
        published = publish(lake, engine, table, staged)
        for day, figures in of_partitions(lake, table, published, policy).items():
            tell(dg.AssetMaterialization(table.name, metadata=figures, partition=day.isoformat()))
            made.setdefault(table, set()).add(day)

    landed = landed_now(lake, timedelta(0) if config.unsettled else SETTLED_AFTER)
    found = reconcile(
        lake, engine, policy, landed, replace, everything=config.everything, only=config.has
    )
    for table, days in made.items():
        for evaluation in evaluations(lake, engine, policy, table, sorted(days)):
            tell(evaluation)
    for table, days in made.items():
        context.log.info(f"Made {len(days):,} partitions of {table.name} again.")
    if not found:
        context.log.info("Every partition holds what it should.")
    left = [stale for stale in found if stale.held_back or not config.has(stale)]
    for state in (found, left) if found else (left,):
        for evaluation in up_to_date_evaluations(state):
            tell(evaluation)


class Whom(dg.Config):
    """Whom to erase. The email stays in this configuration alone."""

    email: str = Field(description="Of the person.")
    asked_by: str = Field(
        description="Who asks for it; stands in the receipt, and must not name the person."
    )
    dry_run: bool = Field(
        default=False, description="Whether to tell what would be erased, and change nothing."
    )


@dg.op(tags={"kind": "duckdb"})
def forget_person(
    context: dg.OpExecutionContext,
    config: Whom,
    lake: dg.ResourceParam[Lake],
    engine: dg.ResourceParam[DuckDBEngine],
    policy: dg.ResourceParam[Policy],
) -> None:
    """Finds everything of a person, tells how much it is, erases it and looks again."""
    try:
        _forget(context, config, lake, engine, policy)
    except ErasureError as error:  # it says all there is to say, and the UI shows it first
        raise dg.Failure(str(error), allow_retries=False) from error


def _forget(
    context: dg.OpExecutionContext, config: Whom, lake: Lake, engine: DuckDBEngine, policy: Policy
) -> None:
    found = find(lake, engine, landed_and_left_alone(lake, SETTLED_AFTER), config.email)
    for line in as_lines(found):
        context.log.info(line.strip())
    if not (found.anything or found.by_hand):
        context.log.info("Nothing of the person is in the lake.")
    if found.by_hand and not found.anything:
        raise dg.Failure("Something of the person is to be mended by hand.", allow_retries=False)
    if config.dry_run or not found.anything:
        return
    begin(lake, engine, found, config.asked_by, datetime.now(UTC))
    _make_again(context, What(everything=False, unsettled=True), lake, engine, policy)
    receipt = finish(lake, engine, landed_now(lake), found, datetime.now(UTC))
    if receipt.left:
        raise dg.Failure(
            "Something of the person is left: "
            + "; ".join(f"{where}: {what}" for where, what in receipt.left.items()),
            allow_retries=False,
        )


@dg.job(
    name="forget",
    description="Erases everything of a person, in every zone, and keeps it out from then on.",
    tags=ONE_AT_A_TIME,
)
def FORGET() -> None:  # noqa: N802 - a job, as the others
    forget_person()


@dg.job(
    name="reconcile",
    description="Makes every partition again that does not hold what its definition gives: after "
    "late or withdrawn consent, replaced files, a changed definition, a damaged or deleted file.",
    tags=ONE_AT_A_TIME,
)
def RECONCILE() -> None:  # noqa: N802 - a job, as the one above
    make_again()


@dg.op
def remove_old_runs(context: dg.OpExecutionContext) -> None:
    """Removes what runs wrote that ended longer ago than they are kept."""
    before = datetime.now(UTC) - keep_runs()
    pruned = prune(context.instance, before)
    context.log.info(
        f"Removed {pruned.events:,} events of runs that ended before {before:%Y-%m-%d %H:%M} UTC, "
        f"and {pruned.runs:,} of these runs whole. Of the others the latest materialization of "
        "each partition and the latest finding of each check on it are left."
    )


@dg.job(
    name="prune",
    description="Removes the events, logs and configuration of runs that ended more than "
    "STEDI_KEEP_RUNS_DAYS ago, but for the latest materialization of each partition and the latest "
    "finding of each check on it.",
)
def PRUNE() -> None:  # noqa: N802 - a job, as the others
    remove_old_runs()


class Sample(dg.Config):
    """What to make up."""

    customers: int = Field(default=200, description="How many people.")
    days: int = Field(default=7, description="Over how many ingestion dates.")
    seed: int = Field(default=1, description="The same one gives the same files.")


@dg.op
def write_sample_files(
    context: dg.OpExecutionContext, config: Sample, lake: dg.ResourceParam[Lake]
) -> None:
    """Writes made-up landing files, if there are none."""
    try:
        with lake.writing():
            manifest = sample_into(lake, **config.model_dump())
    except (FileExistsError, ValueError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(
        f"Wrote landing files of {config.customers:,} customers over {config.days:,} days from "
        f"{manifest['first_day']} into {lake.storage.uri()}."
    )


@dg.job(
    name="sample_files",
    description="Writes made-up landing files, and the counts that they must give, into a lake "
    "without landing files; into any other it writes nothing.",
    tags=ONE_AT_A_TIME,
)
def SAMPLE_FILES() -> None:  # noqa: N802 - a job, as the others
    write_sample_files()
