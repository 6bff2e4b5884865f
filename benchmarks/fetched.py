"""Runs the command line, and notes what it fetches from S3: a line for each object, key and bytes.

Usage: python -m benchmarks.fetched FILE ARGUMENT…
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from botocore.client import BaseClient

from stedi_assets.cli import entry_point


def note_fetched(file: Path) -> None:
    """Append to a file what any client of this process fetches from now on."""
    call = BaseClient._make_api_call

    def noting(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        answer = call(self, operation, parameters)
        if operation == "GetObject":
            with file.open("a") as lines:
                print(json.dumps([parameters["Key"], answer["ContentLength"]]), file=lines)
        return answer

    BaseClient._make_api_call = noting


if __name__ == "__main__":
    note_fetched(Path(sys.argv[1]))
    sys.argv[1:] = sys.argv[2:]
    entry_point()
