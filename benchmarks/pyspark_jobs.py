"""The five jobs of the STEDI documents in plain PySpark, JSON in and Parquet out.

As their users would write them: a function a job and columns named; files are taken to be good.
Each makes its table as it is defined, with the latest record of a customer and each reading once,
and reads what the former ones wrote. With the name of a job it is that one alone, as the documents
run it; without, all five share one process and one session, which is the kindest way for Spark.
Usage: python -m benchmarks.pyspark_jobs LAKE OUT [JOB]
"""

import os
import sys
from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812 (everybody's name for it)

CUSTOMER = (
    "customerName STRING, email STRING, phone STRING, birthDay STRING, serialNumber STRING, "
    "registrationDate BIGINT, lastUpdateDate BIGINT, shareWithResearchAsOfDate BIGINT, "
    "shareWithPublicAsOfDate BIGINT, shareWithFriendsAsOfDate BIGINT"
)
ACCELEROMETER = "user STRING, timestamp BIGINT, x DOUBLE, y DOUBLE, z DOUBLE"
STEP_TRAINER = "sensorReadingTime BIGINT, serialNumber STRING, distanceFromObject INT"


def customer_landing_to_trusted(spark: SparkSession, lake: str, out: str) -> None:
    """Each customer's latest record, where it consents to research."""
    customers = spark.read.schema(CUSTOMER).json(f"{lake}/customer/landing")
    newest = Window.partitionBy("email").orderBy(
        F.desc("lastUpdateDate"), F.desc("registrationDate")
    )
    latest = customers.withColumn("nth", F.row_number().over(newest)).where("nth = 1").drop("nth")
    write(latest.where(F.col("shareWithResearchAsOfDate") != 0), f"{out}/customer_trusted")


def accelerometer_landing_to_trusted(spark: SparkSession, lake: str, out: str) -> None:
    """Readings of those customers, each once."""
    readings = spark.read.schema(ACCELEROMETER).json(f"{lake}/accelerometer/landing")
    customers = spark.read.parquet(f"{out}/customer_trusted.parquet")
    kept = readings.join(customers, readings.user == customers.email).select(readings["*"])
    write(kept.distinct(), f"{out}/accelerometer_trusted")


def customer_trusted_to_curated(spark: SparkSession, lake: str, out: str) -> None:
    """Those of the customers who have readings, each once."""
    customers = spark.read.parquet(f"{out}/customer_trusted.parquet")
    users = spark.read.parquet(f"{out}/accelerometer_trusted.parquet").select("user").distinct()
    kept = customers.join(users, customers.email == users.user).select(customers["*"])
    write(kept, f"{out}/customers_curated")


def step_trainer_trusted(spark: SparkSession, lake: str, out: str) -> None:
    """Readings of those customers' devices, each once."""
    readings = spark.read.schema(STEP_TRAINER).json(f"{lake}/step_trainer/landing")
    customers = spark.read.parquet(f"{out}/customers_curated.parquet")
    devices = customers.select("serialNumber").distinct()
    write(readings.join(devices, "serialNumber").distinct(), f"{out}/step_trainer_trusted")


def machine_learning_curated(spark: SparkSession, lake: str, out: str) -> None:
    """Device and phone readings of the same millisecond, without whose they are."""
    devices = spark.read.parquet(f"{out}/step_trainer_trusted.parquet")
    phones = spark.read.parquet(f"{out}/accelerometer_trusted.parquet")
    pairs = devices.join(phones, devices.sensorReadingTime == phones.timestamp)
    write(pairs.drop("user"), f"{out}/machine_learning_curated")


def write(rows: DataFrame, path: str) -> None:
    """Write a table, in place of the one that is there."""
    rows.write.mode("overwrite").parquet(f"{path}.parquet")


JOBS: dict[str, Callable[[SparkSession, str, str], None]] = {
    job.__name__: job
    for job in (
        customer_landing_to_trusted,
        accelerometer_landing_to_trusted,
        customer_trusted_to_curated,
        step_trainer_trusted,
        machine_learning_curated,
    )
}


def main(lake: str, out: str, *jobs: str) -> None:
    """Run those jobs, or all, with the settings that this project's Spark has on one machine."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    spark = (
        SparkSession.builder.appName("stedi jobs")
        .config("spark.driver.memory", os.environ.get("STEDI_SPARK_MEMORY") or "2g")
        .config("spark.log.level", "ERROR")
        .config("spark.sql.shuffle.partitions", 4)
        .config("spark.ui.enabled", False)
        .config("spark.ui.showConsoleProgress", False)
        .getOrCreate()
    )
    for job in jobs or JOBS:
        JOBS[job](spark, lake, out)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
