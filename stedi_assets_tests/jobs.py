"""Runs whose tables jobs make, with real jobs: processes beside this one, as AWS has them there.

Settings decide when definitions are made, so they are made here anew for each run.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from stedi_assets.assets.by_jobs import Job, job_key
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.landing import landing_assets
from stedi_assets.assets.specs import derived_asset
from stedi_assets.checks import UP_TO_DATE, checks_steps, up_to_date
from stedi_assets.jobs import BRING_UP_TO_DATE
from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.runs import Narrator
from stedi_assets.tables import Source
from stedi_assets_tests.end_to_end.landing_files import QUIET, resources_of
from stedi_assets_tests.storages import root_of

PROGRAM = Path(__file__).parents[1] / "deploy" / "aws" / "job.py"
"""What Glue and EMR Serverless are given."""


def process(program: Path = PROGRAM, **settings: str) -> Job:
    """A job that is a process of this machine, with settings beside those of this one."""
    command = [sys.executable, str(program)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), **settings}
    client = dg.PipesSubprocessClient(env=environment)
    return Job(client, {"command": command})


def definitions(lake: Lake, **resources: object) -> dg.Definitions:
    """All assets and checks, as the settings are now."""
    return dg.Definitions(
        assets=[*map(landing_assets, Source), *map(derived_asset, DEFINITIONS[Policy.REFERENCE])],
        asset_checks=[UP_TO_DATE, *checks_steps()],
        jobs=[BRING_UP_TO_DATE],
        resources={**resources_of(root_of(lake)), **resources},
        executor=dg.in_process_executor,
    )


@dataclass(frozen=True)
class Ran:
    """A run that is over.

    Attributes:
        result: as Dagster gives it.
        errors: all that its log says of them.
        told: what `stedi run` would print of it.
    """

    result: dg.ExecuteInProcessResult
    errors: str = ""
    told: str = ""

    @property
    def why_it_failed(self) -> str:
        assert not self.result.success
        return self.errors

    @property
    def findings(self) -> dict[dg.AssetCheckKey, tuple[Any, ...]]:
        """What the checks of the run's partitions found."""
        return {
            of.asset_check_key: (of.passed, of.severity, of.description, of.metadata)
            for of in self.result.get_asset_check_evaluations()
            if of.check_name != up_to_date.__name__
        }


def run_by(defs: dg.Definitions, day: str, tables: Sequence[str] = ()) -> Ran:
    """A run of a day, over all tables or some."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def(BRING_UP_TO_DATE.name).execute_in_process(
            partition_key=day,
            asset_selection=[dg.AssetKey(name) for name in tables] or None,
            run_config=QUIET,
            raise_on_error=False,
            instance=instance,
        )
        log = instance.all_logs(result.run_id)
    told: list[str] = []
    narrator = Narrator(told.append)
    for entry in log:
        narrator(entry)
    data = [event.event_specific_data for entry in log if (event := entry.dagster_event)]
    errors = [of.error.to_string() for of in data if getattr(of, "error", None)]
    return Ran(result, "\n".join(errors), "\n".join(told))


GLUE = job_key("glue")
EMR = job_key("emr-serverless")
