"""The partitions of all tables, and which of one table's a partition of another may need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

import dagster as dg

from stedi_assets.resources import start_date

DAILY = dg.DailyPartitionsDefinition(start_date=start_date().isoformat(), end_offset=1)
"""Days of ingestion, UTC, today's included."""

SINGLE_RUN = dg.BackfillPolicy.single_run()

EVERY_DATE = dg.AllPartitionMapping()
"""For small tables, in which a later record changes what an earlier one means."""

UP_TO_THIS_DATE = dg.TimeWindowPartitionMapping(start_offset=-36500, end_offset=0)
"""For readings: what comes later adds rows to later dates only."""


def days(keys: Iterable[str]) -> list[date]:
    """Partition keys as dates."""
    return [date.fromisoformat(key) for key in keys]


def contiguous(dates: Iterable[date]) -> Iterator[tuple[date, date]]:
    """The unbroken stretches of dates, each as its first and last date, in order."""
    first = last = None
    for day in sorted(set(dates)):
        if first is None or last is None or day - last > timedelta(days=1):
            if first is not None and last is not None:
                yield first, last
            first = day
        last = day
    if first is not None and last is not None:
        yield first, last
