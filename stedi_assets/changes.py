"""Which dates' partitions were not made from the landing files that are there now.

Each partition's file notes what it was made from, its stamp: the state of the landing files, and
the key of its pseudonyms. How rows depend on rows of other dates is not seen here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from pathlib import Path

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.landing.files import files_by_date, fingerprint
from stedi_assets.tables import Source, Table, Zone, landing_table


def changed_dates(lake: Lake, engine: DuckDBEngine, tables: Iterable[Table]) -> list[date]:
    """The dates on which a partition of `tables` is missing, damaged or made from other files.

    Raises:
        ValueError: a landing file's path names a date that is none.
    """
    landed = {
        source: {day: fingerprint(files) for day, files in files_by_date(lake, source).items()}
        for source in Source
    }
    stamps = {table: _stamps(engine, lake.fetch(table)) for table in tables}
    known: set[date] = set().union(*landed.values(), *stamps.values())
    return sorted(
        day
        for day in known
        if any(
            stamp_by_day.get(day)
            != _stamp(engine, table, {source: landed[source].get(day, "") for source in Source})
            for table, stamp_by_day in stamps.items()
        )
    )


def landing_stamps(
    lake: Lake, engine: DuckDBEngine, table: Table, days: Collection[date]
) -> dict[date, str]:
    """What a table's partitions are to note: the stamps of the landing tables as published."""
    published = {
        source: _stamps(engine, lake.fetch(landing_table(source), days)) for source in Source
    }
    return {
        day: _stamp(engine, table, {source: published[source].get(day) or "" for source in Source})
        for day in days
    }


def _stamps(engine: DuckDBEngine, files: Mapping[date, Path]) -> dict[date, str | None]:
    """What the partitions in `files` note, by date; None where it cannot be read."""
    return {**dict.fromkeys(files), **engine.stamps(engine.readable(files))}


def _stamp(engine: DuckDBEngine, table: Table, landed: dict[Source, str]) -> str:
    """The state of a landing table's own files; of any other table's, of all files and the key."""
    if table.zone is Zone.LANDING:
        return landed[table.source]
    return ";".join([*(landed[source] for source in Source), engine.key_id])
