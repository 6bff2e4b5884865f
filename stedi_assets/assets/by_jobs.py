"""Tables that a job on AWS makes: a step starts it, waits, and hands on what it published.

What the job does is in `job.py`, and which clients start it in `job_clients.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.pipes.client import PipesClientCompletedInvocation

from stedi_assets.checks import checks_by_job, spec_of
from stedi_assets.dates import days
from stedi_assets.partitions import DAILY, SINGLE_RUN
from stedi_assets.publishing import Published, made_by
from stedi_assets.resources import engines, settings_of_jobs
from stedi_assets.tables import TABLES


@dataclass(frozen=True)
class Job:
    """What starts a job and waits for its end.

    Attributes:
        client: of Dagster Pipes.
        how: what it is given beside the step's context and what the job is told.
    """

    client: dg.PipesClient
    how: Mapping[str, Any]

    def run(
        self, context: dg.OpExecutionContext, extras: dict[str, Any]
    ) -> PipesClientCompletedInvocation:
        """Start the job, and wait until it has succeeded."""
        how = deepcopy(dict(self.how))  # clients write into it
        return self.client.run(context=context, extras=extras, **how)


def job_key(engine: str) -> str:
    """The name of the resource that is an engine's `Job`."""
    return f"{engine.replace('-', '_')}_job"


def made_by_job(
    name: str, outs: Mapping[str, dg.AssetOut], deps: Sequence[dg.AssetDep] = ()
) -> dg.AssetsDefinition:
    """Tables that one job makes and looks at, so that their checks are told by this step.

    Args:
        name: of the step.
        outs: a landing table and its rejects, or one derived table.
        deps: the tables that they are made from.
    """
    tables = [TABLES[table] for table in outs]
    specs = [
        spec_of(dg.AssetCheckKey(dg.AssetKey(table.name), check), function)
        for table in tables
        for check, function in checks_by_job(table).items()
    ]
    needed = job_key(engines()[tables[0].name])

    @dg.multi_asset(
        name=name,
        outs=outs,
        deps=deps,
        check_specs=specs,
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        required_resource_keys={"lake", "engine", "policy", needed},
    )
    def start(
        context: dg.OpExecutionContext,
    ) -> Iterator[dg.Output[Published] | dg.AssetCheckResult]:
        found = context.resources
        job: Job = getattr(found, needed)
        done = job.run(
            context,
            {
                "settings": settings_of_jobs(found.lake, found.policy),
                "tables": [table.name for table in tables],
                "partitions": list(context.partition_keys),
                "made_by": made_by(found.engine, found.policy, tables),
            },
        )
        told = {
            of["table"]: Published.from_json(of["published"]) for of in done.get_custom_messages()
        }
        results = done.get_results(implicit_materializations=False)
        totals = {
            result.asset_key: result.metadata
            for result in results
            if isinstance(result, dg.MaterializeResult)
        }
        for table in tables:
            found.lake.look_again(table)
            stored = found.lake.partitions(table).keys()
            published = told.get(table.name)
            if published is None or not {*days(context.partition_keys)} <= published.sizes.keys():
                raise dg.Failure(
                    f"The job ended well, and has not told that it published {table.name}: is it "
                    "another version of this package? What it printed says more.",
                    allow_retries=False,
                )
            if missing := published.sizes.keys() - stored:
                raise dg.Failure(
                    f"The job tells of {len(missing):,} partitions of {table.name} that are not "
                    f"in {found.lake.storage.uri()}.",
                    allow_retries=False,
                )
            yield dg.Output(published, table.name, metadata=totals.get(dg.AssetKey(table.name)))
        findings = {
            (result.asset_key, result.check_name): result
            for result in results
            if isinstance(result, dg.AssetCheckResult)
        }
        if untold := [spec.name for spec in specs if (spec.asset_key, spec.name) not in findings]:
            raise dg.Failure(
                f"The job ended well, and has not told what its checks found: {', '.join(untold)}.",
                allow_retries=False,
            )
        for spec in specs:
            result = findings[spec.asset_key, spec.name]
            sentence = (result.metadata or {})["finding"]
            yield result._replace(description=str(getattr(sentence, "value", sentence)))

    return start
