"""The jobs that people and sensors start."""

from __future__ import annotations

import dagster as dg

BRING_UP_TO_DATE = dg.define_asset_job(
    "bring_up_to_date",
    selection=dg.AssetSelection.all(),
    description="Reads the landing files of the chosen dates and makes all tables from them.",
)
