"""Where Dagster keeps the events of runs: on one machine in one SQLite file.

Dagster's own storage, but for what the runs of the lakehouse need, wherever events are kept. With
PostgreSQL: `event_log_postgres.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from dagster import DagsterEventType, EventLogEntry, JsonMetadataValue
from dagster._core.events import BATCH_WRITABLE_EVENTS
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import (
    ConsolidatedSqliteEventLogStorage,
    SqlEventLogStorage,
)
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData, serialize_value
from sqlalchemy import Connection, Engine, create_engine, func, insert, inspect, select, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.event import listen


class PartitionsOfChecks(SqlEventLogStorage):
    """An event log that knows that a check over several partitions looked at each of them.

    Dagster plans such a check for each partition, takes one result without a partition, and shows
    the partitions as skipped.
    """

    def store_asset_check_event(self, event: EventLogEntry, event_id: int | None) -> None:
        """Store what was planned or found; what was found, in brief for each partition too."""
        super().store_asset_check_event(event, event_id)
        if event.dagster_event_type is not DagsterEventType.ASSET_CHECK_EVALUATION:
            return
        evaluation = event.get_dagster_event().asset_check_evaluation_data
        if evaluation.partition is not None:
            return
        checks, events = AssetCheckExecutionsTable.c, SqlEventLogStorageTable.c
        of_this_check = (
            (checks.asset_key == evaluation.asset_key.to_string())
            & (checks.check_name == evaluation.check_name)
            & (checks.run_id == event.run_id)
        )
        status = AssetCheckExecutionRecordStatus
        materialization = (
            select(func.max(events.id))
            .where(events.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value)
            .where(events.asset_key == evaluation.asset_key.to_string())
            .where(events.partition == checks.partition)
            .scalar_subquery()
        )
        # Figures by date would be in the row of each date: a gigabyte in a run over two years.
        texts = {
            label: value
            for label, value in evaluation.metadata.items()
            if not isinstance(value, JsonMetadataValue)
        }
        in_brief = event._replace(
            dagster_event=event.get_dagster_event()._replace(
                event_specific_data=evaluation.with_metadata(texts)
            )
        )
        with self.index_connection() as connection:
            connection.execute(
                update(AssetCheckExecutionsTable)
                .where(of_this_check, checks.partition.is_not(None))
                .values(
                    execution_status=(
                        status.SUCCEEDED if evaluation.passed else status.FAILED
                    ).value,
                    evaluation_event=serialize_value(in_brief),
                    evaluation_event_storage_id=event_id,
                    materialization_event_storage_id=materialization,
                )
            )


class SqliteEventLog(PartitionsOfChecks, ConsolidatedSqliteEventLogStorage):
    """Dagster's consolidated SQLite event log.

    It keeps connections: Dagster makes one for each event, which takes longer than writing it, and
    a run of the lakehouse has two hundred events.

    It stores events together: a run over a year has eight thousand, most of them a partition's.

    Its folder, which is Dagster's on this machine, only its owner can look into: runs of `forget`
    have the person's email in their configuration.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        folder = Path(base_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # somebody else's, who says who may look
            folder.chmod(0o700)
        super().__init__(base_dir, inst_data)

    @cached_property
    def _engine(self) -> Engine:
        engine = create_engine(
            self._conn_string, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        )
        listen(engine, "connect", _sync_rarely)
        return engine

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @cached_property
    def _tables(self) -> set[str]:
        return set()

    def has_table(self, table_name: str) -> bool:
        """Whether there is a table. Dagster asks with many an event, so what was found is kept."""
        if table_name not in self._tables:
            with self._connect() as connection:
                self._tables.update(inspect(connection).get_table_names())
        return table_name in self._tables

    def dispose(self) -> None:
        """Close the connections."""
        super().dispose()  # type: ignore[no-untyped-call]
        self._engine.dispose()

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event; one of the kinds that come in batches as a batch of one."""
        if event.dagster_event_type in BATCH_WRITABLE_EVENTS:
            self.store_event_batch([event])
        else:
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events that Dagster has at once: what a run plans, or what a step made.

        All or none of them, in one transaction: if it fails, Dagster stores each on its own.
        """
        if not {event.dagster_event_type for event in events} <= BATCH_WRITABLE_EVENTS:
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(event) for event in events]
        stored_id = SqlEventLogStorageTable.c.id
        with self._connect() as connection:
            ids = connection.scalars(
                insert(SqlEventLogStorageTable).returning(stored_id, sort_by_parameter_order=True),
                rows,
            ).all()
            self._store_asset_event_tags(connection, events, ids)
            # Each event overwrites what the table of assets has of those before it.
            last = {
                (row["asset_key"], row["dagster_event_type"]): (event, event_id)
                for row, event, event_id in zip(rows, events, ids, strict=True)
            }
            for event, event_id in last.values():
                self._store_asset_event(connection, event, event_id)
            for row, event, event_id in zip(rows, events, ids, strict=True):
                if event.dagster_event_type is DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                    _plan_check(connection, row, event, event_id)


def _sync_rarely(connection: DBAPIConnection, _: object) -> None:
    """Let SQLite wait for the disk now and then, not for each event.

    What is stored outlives a process that is killed. If the machine loses power, the last events
    may be lost, but the database is whole.
    """
    connection.cursor().execute("PRAGMA synchronous = NORMAL")


def _plan_check(
    connection: Connection, row: dict[str, Any], event: EventLogEntry, event_id: int
) -> None:
    """Store that a check is to look at each partition of a run, or at the whole table.

    As Dagster does, but the event is turned into text once, not for each partition.
    """
    planned = event.get_dagster_event().asset_check_planned_data
    subset = planned.partitions_subset
    values = {
        "asset_key": planned.asset_key.to_string(),
        "check_name": planned.check_name,
        "run_id": event.run_id,
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": event_id,
    }
    partitions = subset.get_partition_keys() if subset else [None]
    connection.execute(
        insert(AssetCheckExecutionsTable),
        [{**values, "partition": partition} for partition in partitions],
    )
