"""Taking what old runs wrote out of Dagster's storage, but for what tables and checks are known by.

Works on Dagster's own tables, in SQLite and PostgreSQL. When it is done, jobs and sensors say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs import SqliteRunStorage, SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import serialize_value
from sqlalchemy import NullPool, create_engine, delete, func, select, text, update

from stedi_assets.event_log import SqliteEventLog

_AT_ONCE = 1000
"""How many rows a statement removes: others that write wait for each, and not for all."""


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        runs: how many, whole.
        events: how many, of these runs and of others.
    """

    runs: int
    events: int


def prune(instance: dg.DagsterInstance, before: datetime) -> Pruned:
    """Remove what runs that ended before a moment wrote: events, logs, and their configuration.

    What stays is the latest materialization of each partition and the latest finding of each check
    on it, by which Dagster knows them, and the record of a run that has some. Whatever is removed
    is not looked for again, and what is interrupted goes on when it is done again.
    """
    runs, events = instance.run_storage, instance.event_log_storage
    if not (isinstance(runs, SqlRunStorage) and isinstance(events, SqlEventLogStorage)):
        raise TypeError("Runs and events are to be kept in SQL databases, as dagster.yaml says.")
    old = {
        record.dagster_run.run_id: record.dagster_run
        for record in instance.get_run_records(
            dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=before)
        )
    }
    kept = _latest_materializations(events)
    findings = _latest_findings(events)
    kept |= {event for _, _, event in findings}
    with_findings = {run_id for _, run_id, _ in findings}
    _remove_findings(events, old.keys(), but={finding for finding, _, _ in findings})
    removed, whole = 0, 0
    for run_id, run in old.items():
        of_run = _events(events, run_id)
        if superfluous := sorted(of_run - kept):
            # Before the events, for who has none is not looked at again.
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            _remove_events(events, superfluous)
            removed += len(superfluous)
        if of_run.isdisjoint(kept) and run_id not in with_findings:
            runs.delete_run(run_id)
            whole += 1
        elif run.run_config:  # that of `forget` says whom
            bare = serialize_value(run._replace(run_config={}))
            with runs.connect() as connection:
                connection.execute(
                    update(RunsTable).where(RunsTable.c.run_id == run_id).values(run_body=bare)
                )
    if isinstance(events, SqliteEventLog):
        _give_back(events._conn_string, always=False)
    if isinstance(runs, SqliteRunStorage):
        _give_back(runs._conn_string, always=True)
    return Pruned(whole, removed)


def _latest_materializations(storage: SqlEventLogStorage) -> set[int]:
    events = SqlEventLogStorageTable.c
    with storage.index_connection() as connection:
        return set(
            connection.scalars(
                select(func.max(events.id))
                .where(events.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value)
                .group_by(events.asset_key, events.partition)
            )
        )


def _latest_findings(storage: SqlEventLogStorage) -> list[tuple[int, str, int]]:
    """Of each check on each partition, and on all at once: its id, its run and its event."""
    checks = AssetCheckExecutionsTable.c
    latest = (
        select(func.max(checks.id))
        .where(checks.execution_status != AssetCheckExecutionRecordStatus.PLANNED.value)
        .group_by(checks.asset_key, checks.check_name, checks.partition)
    )
    with storage.index_connection() as connection:
        found = connection.execute(
            select(checks.id, checks.run_id, checks.evaluation_event_storage_id).where(
                checks.id.in_(latest)
            )
        )
        return [(row[0], row[1], row[2]) for row in found]


def _remove_findings(storage: SqlEventLogStorage, run_ids: Iterable[str], but: set[int]) -> None:
    """Remove what checks found or were to find in some runs."""
    checks = AssetCheckExecutionsTable.c
    old = set(run_ids)
    with storage.index_connection() as connection:  # once, for there is no index by run
        found = connection.execute(select(checks.id, checks.run_id)).fetchall()
    for portion in _portions([row[0] for row in found if row[1] in old and row[0] not in but]):
        with storage.index_connection() as connection:
            connection.execute(delete(AssetCheckExecutionsTable).where(checks.id.in_(portion)))


def _events(storage: SqlEventLogStorage, run_id: str) -> set[int]:
    events = SqlEventLogStorageTable.c
    with storage.run_connection(run_id) as connection:
        return set(connection.scalars(select(events.id).where(events.run_id == run_id)))


def _remove_events(storage: SqlEventLogStorage, ids: Sequence[int]) -> None:
    for portion in _portions(ids):
        with storage.index_connection() as connection:
            connection.execute(
                delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(portion))
            )
            connection.execute(
                delete(SqlEventLogStorageTable).where(SqlEventLogStorageTable.c.id.in_(portion))
            )


def _portions(ids: Sequence[int]) -> Iterator[list[int]]:
    remaining = iter(ids)
    while portion := list(islice(remaining, _AT_ONCE)):
        yield portion


def _give_back(database: str, always: bool) -> None:
    """Write a file of SQLite anew, without the room that is free in it.

    Args:
        database: where it is.
        always: whether also if less than half of it is free, which the next events would take. What
            was removed can be read in the file until then.
    """
    engine = create_engine(
        database,
        poolclass=NullPool,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        free, pages = (
            connection.scalar(text(f"PRAGMA {what}")) for what in ("freelist_count", "page_count")
        )
        if free and (always or free > pages / 2):
            connection.execute(text("VACUUM"))
        # It lets nobody write and waits for those who read, of whom one may be about to write.
        connection.execute(text("PRAGMA busy_timeout = 200"))
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
