"""A pandas notebook's way: files into frames, merges, frames into Parquet files.

As a data scientist would write it down in an afternoon; files are taken to be good. Each table is
made as it is defined: the latest record of a customer, each reading once. The reader is
`read_json`'s default, or PyArrow's, which it has since pandas 2.
Usage: python -m benchmarks.pandas_notebook LAKE OUT [ujson|pyarrow]
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

READERS: dict[str, dict[str, Any]] = {
    "ujson": {"convert_dates": False},  # or `timestamp` becomes another type than its counterpart
    "pyarrow": {"engine": "pyarrow"},
}


def main(lake: Path, out: Path, reader: str = "ujson") -> None:
    """Write the five tables of the landing files below `lake` into `out`."""
    out.mkdir(parents=True, exist_ok=True)

    def landing(source: str) -> pd.DataFrame:
        files = sorted((lake / source / "landing").glob("*.json"))
        frames = [pd.read_json(file, lines=True, **READERS[reader]) for file in files]
        whole: pd.DataFrame = pd.concat(frames, ignore_index=True)
        return whole

    customers = landing("customer").sort_values(["lastUpdateDate", "registrationDate"])
    customers = customers.drop_duplicates("email", keep="last")
    customers = customers[customers["shareWithResearchAsOfDate"].fillna(0) != 0]
    customers.to_parquet(out / "customer_trusted.parquet")

    phones = landing("accelerometer")
    phones = phones[phones["user"].isin(customers["email"])].drop_duplicates()
    phones.to_parquet(out / "accelerometer_trusted.parquet")

    curated = customers[customers["email"].isin(phones["user"])]
    curated.to_parquet(out / "customers_curated.parquet")

    devices = landing("step_trainer")
    devices = devices[devices["serialNumber"].isin(curated["serialNumber"])].drop_duplicates()
    devices.to_parquet(out / "step_trainer_trusted.parquet")

    pairs = devices.merge(phones, left_on="sensorReadingTime", right_on="timestamp")
    pairs.drop(columns="user").to_parquet(out / "machine_learning_curated.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
