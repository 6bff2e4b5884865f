"""Where Dagster keeps the events of runs on one machine: one SQLite file.

Dagster's own storage, but for two things that the runs of the lakehouse need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine, create_engine, func, select, update


class SqliteEventLog(ConsolidatedSqliteEventLogStorage):
    """Dagster's consolidated SQLite event log.

    It keeps connections: Dagster makes one for each event, which takes longer than writing it, and
    a run of the lakehouse has two hundred events.

    It knows that a check over several partitions looked at each of them: Dagster plans such a check
    for each partition, takes one result without a partition, and shows the partitions as skipped.
    """

    @cached_property
    def _engine(self) -> Engine:
        return create_engine(
            self._conn_string, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        )

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close the connections."""
        super().dispose()  # type: ignore[no-untyped-call]
        self._engine.dispose()

    def store_asset_check_event(self, event: EventLogEntry, event_id: int | None) -> None:
        """Store what was planned or found; what was found, for each partition of the run."""
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
        found = select(checks.evaluation_event).where(of_this_check, checks.partition.is_(None))
        with self._connect() as connection:
            connection.execute(
                update(AssetCheckExecutionsTable)
                .where(of_this_check, checks.partition.is_not(None))
                .values(
                    execution_status=(
                        status.SUCCEEDED if evaluation.passed else status.FAILED
                    ).value,
                    evaluation_event=found.scalar_subquery(),
                    evaluation_event_storage_id=event_id,
                    materialization_event_storage_id=materialization,
                )
            )
