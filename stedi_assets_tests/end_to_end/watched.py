"""What forked processes can be prepared for, beside dying: being watched, and a sensor's run.

Imports nothing that reads settings: it is imported before the process has its own.
"""

import os
import signal
import sys
import uuid
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from stedi_assets_tests.end_to_end.forked import at_calls


@dataclass(frozen=True)
class Watched:
    """Opens whatever the process makes to everybody, and has DuckDB note its queries.

    Args:
        queries: the folder of files that take them.
        dies_before: the point at the storage at which it is killed.
    """

    queries: Path
    dies_before: str = ""

    def __call__(self) -> None:
        os.umask(0)
        connect = duckdb.connect

        def noting(*arguments: Any, **more: Any) -> duckdb.DuckDBPyConnection:
            connection = connect(*arguments, **more)
            file = self.queries / uuid.uuid4().hex
            connection.execute(
                f"CALL enable_logging('QueryLog', storage='file', storage_path='{file}')"
            )
            return connection

        duckdb.connect = noting

        def act(number: int, what: str) -> None:
            if self.dies_before and what.startswith(f"before {self.dies_before}"):
                os.kill(os.getpid(), signal.SIGKILL)

        at_calls(act)


@dataclass(frozen=True)
class Writing:
    """Notes when the process has the lake for writing, and what it publishes and removes.

    Args:
        notes: the file that takes a line for each, in the order in which processes do it.
    """

    notes: Path

    def __call__(self) -> None:
        descriptor = os.open(self.notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def act(number: int, what: str) -> None:
            if what.startswith(("in writing", "at the end of writing", "before publish ")):
                os.write(descriptor, f"{os.getpid()} {what}\n".encode())

        at_calls(act)


@dataclass(frozen=True)
class SensorRun:
    """Makes all tables of a date in the process, which ends with 1 if that fails."""

    day: str

    def __call__(self) -> None:
        from stedi_assets.dates import Stretch
        from stedi_assets.runs import run_dates
        from stedi_assets.tables import TABLES

        day = date.fromisoformat(self.day)
        ok = run_dates(Stretch(day, day), list(TABLES), print, set())
        sys.stdout.flush()
        os._exit(0 if ok else 1)
