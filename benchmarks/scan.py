"""The floor of looking at everything: all columns of all tables, read and hashed by plain DuckDB.

Usage: python -m benchmarks.scan LAKE
"""

import sys
from pathlib import Path

import duckdb

from stedi_assets.tables import PARTITION, TABLES


def main(lake: Path) -> None:
    """Count and hash the rows of every table by ingestion date."""
    with duckdb.connect() as connection:
        for table in TABLES.values():
            columns = ", ".join(f'"{name}"' for name in table.column_names)
            connection.execute(
                f"SELECT {PARTITION}, count(*), sum(hash({columns})) "
                f"FROM read_parquet('{lake}/{table.path}/*/*.parquet') GROUP BY ALL"
            ).fetchall()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
