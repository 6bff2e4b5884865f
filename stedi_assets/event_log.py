"""Where Dagster keeps the events of runs on one machine: one SQLite file, connections kept open.

Dagster's own storage makes an engine and a connection for each event, which takes longer than
writing it; a run of the lakehouse has two hundred.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine, create_engine


class SqliteEventLog(ConsolidatedSqliteEventLogStorage):
    """Dagster's consolidated SQLite event log, with a pool of connections."""

    @cached_property
    def _engine(self) -> Engine:
        return create_engine(
            self._conn_string, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        )

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection
