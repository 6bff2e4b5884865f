"""The five tables in Polars, lazily: files are scanned, and tables stream into Parquet files.

As its users would write it; files are taken to be good. Each table is made as it is defined: the
latest record of a customer, each reading once.
Usage: python -m benchmarks.polars_script LAKE OUT
"""

import sys
from pathlib import Path

import polars as pl

SCHEMAS: dict[str, dict[str, type[pl.DataType]]] = {
    "customer": {
        "customerName": pl.String,
        "email": pl.String,
        "phone": pl.String,
        "birthDay": pl.String,
        "serialNumber": pl.String,
        "registrationDate": pl.Int64,
        "lastUpdateDate": pl.Int64,
        "shareWithResearchAsOfDate": pl.Int64,
        "shareWithPublicAsOfDate": pl.Int64,
        "shareWithFriendsAsOfDate": pl.Int64,
    },
    "accelerometer": {
        "user": pl.String,
        "timestamp": pl.Int64,
        "x": pl.Float64,
        "y": pl.Float64,
        "z": pl.Float64,
    },
    "step_trainer": {
        "sensorReadingTime": pl.Int64,
        "serialNumber": pl.String,
        "distanceFromObject": pl.Int32,
    },
}


def main(lake: Path, out: Path) -> None:
    """Write the five tables of the landing files below `lake` into `out`."""
    out.mkdir(parents=True, exist_ok=True)

    def landing(source: str) -> pl.LazyFrame:
        return pl.scan_ndjson(lake / source / "landing" / "*.json", schema=SCHEMAS[source])

    def write(name: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        file = out / f"{name}.parquet"
        rows.sink_parquet(file)
        return pl.scan_parquet(file)

    latest = (
        landing("customer")
        .sort("lastUpdateDate", "registrationDate")
        .unique("email", keep="last", maintain_order=True)
    )
    customers = write("customer_trusted", latest.filter(pl.col("shareWithResearchAsOfDate") != 0))
    phones = write(
        "accelerometer_trusted",
        landing("accelerometer")
        .join(customers, left_on="user", right_on="email", how="semi")
        .unique(),
    )
    curated = write(
        "customers_curated", customers.join(phones, left_on="email", right_on="user", how="semi")
    )
    devices = write(
        "step_trainer_trusted",
        landing("step_trainer").join(curated, on="serialNumber", how="semi").unique(),
    )
    pairs = devices.join(phones, left_on="sensorReadingTime", right_on="timestamp", coalesce=False)
    write("machine_learning_curated", pairs.drop("user"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
