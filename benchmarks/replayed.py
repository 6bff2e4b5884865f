"""Dagster instances of many runs: one that there was, written again and again with other dates."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from datetime import date
from pathlib import Path

_DATED = ("run_id", "run_body", "value", "event", "partition", "evaluation_event")
"""The columns that say which run it was, or of which date."""


def replay(home: Path, day: date, dates: Iterable[date]) -> None:
    """Write the latest run of one date, all its events and what checks found once more for others.

    Args:
        home: of the instance, in SQLite, whose run it is.
        day: the date of the run.
        dates: a run each.
    """
    with (
        closing(sqlite3.connect(home / "runs.db")) as runs,
        closing(sqlite3.connect(home / "event_log.db")) as events,
    ):
        (run_id,) = runs.execute(
            "SELECT run_id FROM run_tags WHERE key = 'dagster/partition' AND value = ? "
            "ORDER BY id DESC",
            [day.isoformat()],
        ).fetchone()
        for other in dates:
            new = {"old": run_id, "new": str(uuid.uuid4()), "day": str(day), "other": str(other)}
            for database, table in (
                (runs, "runs"),
                (runs, "run_tags"),
                (events, "event_logs"),
                (events, "asset_check_executions"),
            ):
                columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                columns.remove("id")
                values = [
                    f"replace(replace({name}, :old, :new), :day, :other)"
                    if name in _DATED
                    else name
                    for name in columns
                ]
                database.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} "
                    f"FROM {table} WHERE run_id = :old ORDER BY id",
                    new,
                )
        runs.commit()
        events.commit()
