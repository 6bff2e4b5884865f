"""The floor: the eight tables as eight DuckDB statements, and nothing else.

No Dagster, partitions, sorting, rejects, contracts or checks; landing files are taken to be good.
Usage: python -m benchmarks.floor LAKE OUT
"""

import sys
from pathlib import Path

import duckdb

COLUMNS = {
    "customer": "{customerName: 'VARCHAR', email: 'VARCHAR', phone: 'VARCHAR', "
    "birthDay: 'VARCHAR', serialNumber: 'VARCHAR', registrationDate: 'BIGINT', "
    "lastUpdateDate: 'BIGINT', shareWithResearchAsOfDate: 'BIGINT', "
    "shareWithPublicAsOfDate: 'BIGINT', shareWithFriendsAsOfDate: 'BIGINT'}",
    "accelerometer": "{user: 'VARCHAR', timestamp: 'BIGINT', x: 'DOUBLE', y: 'DOUBLE', "
    "z: 'DOUBLE'}",
    "step_trainer": "{sensorReadingTime: 'BIGINT', serialNumber: 'VARCHAR', "
    "distanceFromObject: 'INTEGER'}",
}
STATEMENTS = {
    "customer_trusted": """
        SELECT *, lower(trim(email)) AS person FROM customer_landing
        QUALIFY row_number() OVER (PARTITION BY lower(trim(email))
                                   ORDER BY lastUpdateDate DESC, registrationDate DESC) = 1
            AND shareWithResearchAsOfDate <> 0
    """,
    "accelerometer_trusted": """
        SELECT DISTINCT a.* FROM accelerometer_landing a
        SEMI JOIN customer_trusted c ON lower(trim(a.user)) = c.person
    """,
    "customers_curated": """
        SELECT sha256('key' || person) AS subject_id, sha256('key' || serialNumber) AS device_id,
               try_cast(split_part(birthDay, '-', 1) AS INTEGER) AS birthyear,
               registrationDate, lastUpdateDate, shareWithResearchAsOfDate,
               shareWithPublicAsOfDate, shareWithFriendsAsOfDate, person, serialNumber
        FROM customer_trusted c
        SEMI JOIN accelerometer_trusted a ON lower(trim(a.user)) = c.person
    """,
    "step_trainer_trusted": """
        SELECT DISTINCT s.* FROM step_trainer_landing s
        SEMI JOIN customers_curated c USING (serialNumber)
    """,
    "machine_learning_curated": """
        SELECT p.subject_id, d.device_id, s.sensorReadingTime, s.distanceFromObject,
               a.timestamp, a.x, a.y, a.z, d.device_id = p.device_id AS same_customer
        FROM step_trainer_trusted s
        JOIN (SELECT DISTINCT serialNumber, device_id FROM customers_curated) d
            USING (serialNumber)
        JOIN accelerometer_trusted a ON a.timestamp = s.sensorReadingTime
        JOIN customers_curated p ON lower(trim(a.user)) = p.person
    """,
}


def main(lake: Path, out: Path) -> None:
    """Write the eight tables of the landing files below `lake` as Parquet files into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    landing = {
        f"{source}_landing": f"FROM read_json('{lake}/{source}/landing/*.json', "
        f"format = 'newline_delimited', columns = {columns})"
        for source, columns in COLUMNS.items()
    }
    for name, query in (landing | STATEMENTS).items():
        file = out / f"{name}.parquet"
        connection.execute(
            f"COPY ({query}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
        ).fetchall()
        connection.execute(f"CREATE VIEW {name} AS FROM '{file}'")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
