"""What forked processes can be prepared for, beside dying: queries noted, files open to everybody.

Imports nothing that reads settings: it is imported before the process has its own.
"""

import os
import signal
import uuid
from dataclasses import dataclass
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
