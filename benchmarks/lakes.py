"""Lakes to measure on: the reference files, copied many times over."""

from __future__ import annotations

from pathlib import Path

import duckdb

from benchmarks.floor import COLUMNS

_FIRST = 1_691_348_231_000  # the files' names end in epoch milliseconds, here of 2023-08-06
_COPIES = {
    # Other people and devices in each copy, an hour later than in the one before.
    "customer": "* REPLACE ($copy || '.' || email AS email, "
    "serialNumber || '-' || $copy AS serialNumber)",
    "accelerometer": "* REPLACE ($copy || '.' || user AS user, "
    "timestamp + $copy * 3600000 AS timestamp)",
    "step_trainer": "* REPLACE (serialNumber || '-' || $copy AS serialNumber, "
    "sensorReadingTime + $copy * 3600000 AS sensorReadingTime)",
}


def write_copies(reference: Path, lake: Path, copies: int) -> None:
    """Write the reference's landing files `copies` times into a new lake, all of one date.

    A lake that is there already is left as it is.
    """
    if lake.exists():
        return
    draft = lake.with_name(lake.name + ".draft")
    with duckdb.connect() as connection:
        for source, columns in COLUMNS.items():
            folder = draft / source / "landing"
            folder.mkdir(parents=True, exist_ok=True)
            for copy in range(copies):
                connection.execute(
                    f"COPY (SELECT {_COPIES[source]} "
                    f"FROM read_json('{reference}/{source}/landing/*.json', columns = {columns})) "
                    f"TO '{folder}/{source}-{_FIRST + copy}.json' (FORMAT json)",
                    {"copy": copy},
                ).fetchall()
    draft.rename(lake)
