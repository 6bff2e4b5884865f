"""The partitions of all tables, as Dagster knows them, and which a partition may need of others."""

from __future__ import annotations

import dagster as dg

from stedi_assets.assets.definition import Need
from stedi_assets.resources import start_date

DAILY = dg.DailyPartitionsDefinition(start_date=start_date().isoformat(), end_offset=1)
"""Days of ingestion, UTC, today's included."""

SINGLE_RUN = dg.BackfillPolicy.single_run()

EVERY_DATE = dg.AllPartitionMapping()
UP_TO_THIS_DATE = dg.TimeWindowPartitionMapping(start_offset=-36500, end_offset=0)

MAPPINGS: dict[Need, dg.PartitionMapping] = {
    Need.EVERY_DATE: EVERY_DATE,
    Need.USERS_OF_EVERY_DATE: EVERY_DATE,
    Need.SAME_MOMENTS: UP_TO_THIS_DATE,
}
