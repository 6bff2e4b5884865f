"""Which dates' partitions were not made from the landing files that are there now.

Each partition's file notes the state of the landing files that it was made from, its stamp. How
rows depend on rows of other dates is not seen here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.landing.files import files_by_date, fingerprint
from stedi_assets.tables import Source, Table, Zone, landing_table


def changed_dates(lake: Lake, engine: DuckDBEngine, tables: Iterable[Table]) -> list[date]:
    """The dates on which a partition of `tables` is missing or was made from other files.

    Raises:
        ValueError: a landing file's path names a date that is none.
    """
    landed = {
        source: {day: fingerprint(files) for day, files in files_by_date(lake, source).items()}
        for source in Source
    }
    stamps = {table: engine.stamps(lake.fetch(table)) for table in tables}
    known = {day for by_day in (*landed.values(), *stamps.values()) for day in by_day}
    return sorted(
        day
        for day in known
        if any(
            stamp_by_day.get(day)
            != _stamp(table, {source: landed[source].get(day, "") for source in Source})
            for table, stamp_by_day in stamps.items()
        )
    )


def landing_stamps(
    lake: Lake, engine: DuckDBEngine, table: Table, days: Collection[date]
) -> dict[date, str]:
    """What a table's partitions are to note: the stamps of the landing tables as published."""
    published = {
        source: engine.stamps(lake.fetch(landing_table(source), days)) for source in Source
    }
    return {
        day: _stamp(table, {source: published[source].get(day, "") for source in Source})
        for day in days
    }


def _stamp(table: Table, landed: dict[Source, str]) -> str:
    if table.zone is Zone.LANDING:
        return landed[table.source]
    return ";".join(landed[source] for source in Source)
