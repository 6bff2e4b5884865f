"""Asset checks, made from the registry: what is stored, held against what it should be.

They report; what must not be published at all, `contract.py` stops before.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from inspect import getdoc
from typing import Any

import dagster as dg

from stedi_assets import rules
from stedi_assets.catalog.hive import DATABASE
from stedi_assets.dates import days
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.partitions import DAILY
from stedi_assets.privacy import rules as privacy
from stedi_assets.privacy.policies import Policy
from stedi_assets.reconcile import Stale, examine
from stedi_assets.resources import JOBS, athena_workgroup, engines, glue_database, landed_now
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import (
    TABLES,
    Source,
    Table,
    Zone,
    landing_table,
    rejects_table,
)


def checks_of(table: Table) -> dict[str, Callable[[Stored], Finding]]:
    """The checks that a table has, by name."""
    found: dict[str, Callable[[Stored], Finding]] = {
        "no_nulls": rules.no_nulls,
        "schema": rules.schema,
    }
    if table.key:
        found["unique_key"] = rules.unique_key
    if table.zone is not Zone.LANDING:
        found |= {"row_count": rules.derived_row_count, "consent": privacy.consent}
    elif table == landing_table(table.source):
        found |= {"row_count": rules.landing_row_count, "rejects": rules.rejects}
    if table.zone is Zone.CURATED:
        found["no_identifiers"] = privacy.no_identifiers
    if workgroup := athena_workgroup():
        from stedi_assets.catalog.athena import athena_count  # boto3 takes a second to import

        found["athena_count"] = athena_count(workgroup, glue_database() or DATABASE)
    return found | {rule.__name__: rule for rule in _WARNINGS.get(table.name, ())}


_WARNINGS: dict[str, tuple[Callable[[Stored], Finding], ...]] = {
    "customer_landing": (privacy.shared_serials, privacy.repeated_emails, privacy.birthdays),
    "accelerometer_landing": (privacy.before_registration,),
    "step_trainer_landing": (privacy.unheld_readings, privacy.before_registration),
    "machine_learning_curated": (privacy.same_customer,),
}


def keys_of_checks(tables: Collection[str]) -> set[dg.AssetCheckKey]:
    """The checks that look at a run's partitions of some tables."""
    return {
        dg.AssetCheckKey(dg.AssetKey(name), check)
        for name in tables
        for check in checks_of(TABLES[name])
    }


def checks_by_job(table: Table) -> dict[str, Callable[[Stored], Finding]]:
    """Those of its checks that a job on AWS makes, if one makes the table; by name.

    All but the question to Athena, who can only answer once the run has told Glue.
    """
    if engines()[table.name] not in JOBS:
        return {}
    return {name: check for name, check in checks_of(table).items() if name != "athena_count"}


def spec_of(key: dg.AssetCheckKey, check: Callable[[Stored], Finding]) -> dg.AssetCheckSpec:
    """What Dagster is told of a check."""
    return dg.AssetCheckSpec(
        key.name,
        asset=key.asset_key,
        description=getdoc(check),  # without the indentation, which would show as code
        blocking=check is rules.rejects,
        partitions_def=DAILY,
    )


def checks_steps() -> Iterator[dg.AssetChecksDefinition]:
    """The checks of all tables but those that jobs make, in steps that follow the assets'."""
    together = {
        f"check_{source}_landing": [landing_table(source), rejects_table(source)]
        for source in Source
    }
    together |= {
        f"check_{table.name}": [table]
        for table in TABLES.values()
        if table.zone is not Zone.LANDING
    }
    for name, tables in together.items():
        checks = {
            dg.AssetCheckKey(dg.AssetKey(table.name), check): (table, function)
            for table in tables
            for check, function in checks_of(table).items()
            if check not in checks_by_job(table)
        }
        if checks:
            yield _checks_step(name, checks)


def _checks_step(
    name: str, checks: Mapping[dg.AssetCheckKey, tuple[Table, Callable[[Stored], Finding]]]
) -> dg.AssetChecksDefinition:
    """Checks as one step that looks at the run's partitions."""

    @dg.multi_asset_check(
        name=name,
        specs=[spec_of(key, function) for key, (_, function) in checks.items()],
        can_subset=True,
    )
    def check(
        context: dg.AssetCheckExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[DuckDBEngine],
        policy: dg.ResourceParam[Policy],
    ) -> Iterator[dg.AssetCheckResult]:
        dates = days(context.partition_keys)
        tables = {table for table, _ in checks.values()}
        looked_at = {table: Stored(lake, engine, policy, table, dates) for table in tables}
        for key in context.selected_asset_check_keys:
            table, function = checks[key]
            yield dg.AssetCheckResult(**_told(key, function(looked_at[table])))

    return check


def evaluations(
    lake: Lake, engine: DuckDBEngine, policy: Policy, table: Table, dates: Sequence[date]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks of a table find in some partitions, for a run that is none of its checks'."""
    stored = Stored(lake, engine, policy, table, dates)
    for name, function in checks_of(table).items():
        key = dg.AssetCheckKey(dg.AssetKey(table.name), name)
        partition = dates[0].isoformat() if len(dates) == 1 else None
        yield dg.AssetCheckEvaluation(**_told(key, function(stored)), partition=partition)


def _told(key: dg.AssetCheckKey, finding: Finding) -> dict[str, Any]:
    """A finding as Dagster's results and evaluations take it."""
    by_date = {day.isoformat(): dict(figures) for day, figures in finding.figures.items()}
    figures = next(iter(by_date.values())) if len(by_date) == 1 else {"by_date": by_date}
    return {
        "asset_key": key.asset_key,
        "check_name": key.name,
        "passed": finding.passed,
        "severity": dg.AssetCheckSeverity.ERROR if finding.is_error else dg.AssetCheckSeverity.WARN,
        "description": finding.sentence,
        "metadata": {"finding": finding.sentence, **figures},
    }


def up_to_date(table: Table, stale: Iterable[Stale]) -> Finding:
    """Every partition holds what the table's definition gives over everything landed."""
    found = {partition.day: partition for partition in stale if partition.table == table}
    rows = sum(p.missing + p.extra + p.changed for p in found.values())
    whys = Counter(p.reason for p in found.values())
    return Finding(
        not found,
        f"{len(found):,} partitions are not what they should be"
        + (f", by {rows:,} rows: " if found else ": every one holds what the definition gives")
        + ", ".join(f"{why} ({count:,})" for why, count in whys.items()),
        {
            day: {"missing": p.missing, "extra": p.extra, "changed": p.changed}
            for day, p in found.items()
        },
        is_error=any(p.held_back for p in found.values()),  # all others are put right
    )


def up_to_date_evaluations(stale: Sequence[Stale]) -> Iterator[dg.AssetCheckEvaluation]:
    """What the check `up_to_date` of every table finds, of what a reconciliation found."""
    for key in UP_TO_DATE.check_keys:
        table = TABLES[key.asset_key.to_user_string()]
        yield dg.AssetCheckEvaluation(**_told(key, up_to_date(table, stale)))


@dg.multi_asset_check(
    name="check_up_to_date",
    specs=[
        dg.AssetCheckSpec("up_to_date", asset=name, description=up_to_date.__doc__)
        for name in TABLES
    ],
    can_subset=True,
)
def UP_TO_DATE(  # noqa: N802 - one of the checks, as below
    context: dg.AssetCheckExecutionContext,
    lake: dg.ResourceParam[Lake],
    engine: dg.ResourceParam[DuckDBEngine],
    policy: dg.ResourceParam[Policy],
) -> Iterator[dg.AssetCheckResult]:
    """Looks at all partitions of all tables at once: without partitions of its own."""
    stale = examine(lake, engine, policy, landed_now(lake)).stale
    for key in context.selected_asset_check_keys:
        table = TABLES[key.asset_key.to_user_string()]
        yield dg.AssetCheckResult(**_told(key, up_to_date(table, stale)))


CHECKS = [UP_TO_DATE, *checks_steps()]
