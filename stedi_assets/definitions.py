"""Puts the parts together, and nothing else."""

from __future__ import annotations

import dagster as dg

from stedi_assets.assets import curated, trusted
from stedi_assets.assets.landing import LANDING
from stedi_assets.checks import CHECKS
from stedi_assets.io_manager import IO_MANAGER_KEY, lake_io_manager
from stedi_assets.jobs import BRING_UP_TO_DATE
from stedi_assets.resources import resources

defs = dg.Definitions(
    assets=[
        *LANDING,
        trusted.customer_trusted,
        trusted.accelerometer_trusted,
        curated.customers_curated,
        trusted.step_trainer_trusted,
        curated.machine_learning_curated,
    ],
    asset_checks=CHECKS,
    jobs=[BRING_UP_TO_DATE],
    resources={**resources(), IO_MANAGER_KEY: lake_io_manager},
    executor=dg.in_process_executor,
)
