"""Puts the parts together, and nothing else."""

from __future__ import annotations

import dagster as dg

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.landing import LANDING
from stedi_assets.assets.report import lakehouse_report
from stedi_assets.assets.specs import derived_asset
from stedi_assets.checks import CHECKS
from stedi_assets.io_manager import IO_MANAGER_KEY, lake_io_manager
from stedi_assets.jobs import BRING_UP_TO_DATE, FORGET, PRUNE, RECONCILE, REPORT, SAMPLE_FILES
from stedi_assets.privacy.policies import Policy
from stedi_assets.run_resources import resources
from stedi_assets.sensors import (
    every_night,
    finished_runs,
    landing_files,
    prune_every_night,
    settled_lake,
)

defs = dg.Definitions(
    assets=[
        *LANDING,
        *map(derived_asset, DEFINITIONS[Policy.REFERENCE]),
        lakehouse_report,
    ],
    asset_checks=CHECKS,
    jobs=[BRING_UP_TO_DATE, RECONCILE, FORGET, REPORT, PRUNE, SAMPLE_FILES],
    sensors=[landing_files, finished_runs, settled_lake],
    schedules=[every_night, prune_every_night],
    resources={**resources(), IO_MANAGER_KEY: lake_io_manager},
    executor=dg.in_process_executor,
)
