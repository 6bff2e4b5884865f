"""Rows go by a bucket to Spark's workers and back as they go by a disk: each once, unchanged."""

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi_assets.engines import exchange
from stedi_assets.engines.exchange import ByBucket, ByDisk
from stedi_assets.engines.spark import SparkEngine
from stedi_assets.lake import EXCHANGE, Lake, open_lake
from stedi_assets.lake.s3 import S3Storage
from stedi_assets.resources import cache_folder, open_engine
from stedi_assets.tables import PARTITION, TABLES
from stedi_assets_tests.both_engines import rows_in
from stedi_assets_tests.conftest import Bucket

pytestmark = pytest.mark.spark

TABLE = TABLES["accelerometer_trusted"]
SIXTH, SEVENTH = date(2023, 8, 6), date(2023, 8, 7)


@pytest.fixture
def lake(bucket: Bucket) -> Lake:
    return open_lake(f"s3://{bucket.name}/a lake", cache_folder())


@pytest.fixture
def spark(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, quick_spark: dict[str, str]
) -> Iterator[SparkEngine]:
    settings = {"STEDI_ENGINE": "spark", "STEDI_PSEUDONYM_KEY": "a key"}
    for name, value in (quick_spark | settings).items():
        monkeypatch.setenv(name, value)
    with open_engine(lake) as engine:
        assert isinstance(engine, SparkEngine)
        yield engine


@pytest.fixture
def by_bucket(lake: Lake, tmp_path: Path) -> ByBucket:
    assert isinstance(lake.storage, S3Storage)
    return ByBucket(lake.storage, tmp_path)


def write_readings(path: Path, rows: int) -> None:
    """Readings in several row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {"user": [f"u{n}" for n in range(rows)]}
    columns["timestamp"] = list(range(rows))
    columns |= {axis: [n / 2 for n in range(rows)] for axis in "xyz"}
    pq.write_table(pa.table(columns), path, row_group_size=10)


def test_on_one_machine_rows_go_by_its_disk_also_over_a_lake_on_s3(spark: SparkEngine) -> None:
    assert isinstance(spark.exchange, ByDisk)


@pytest.mark.parametrize("published", [True, False])
def test_rows_of_files_with_many_row_groups_come_once_each(
    spark: SparkEngine,
    lake: Lake,
    bucket: Bucket,
    by_bucket: ByBucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    published: bool,
) -> None:
    monkeypatch.setattr(exchange, "_GROUPS", 2)
    files = {day: tmp_path / f"{PARTITION}={day}" / "rows.parquet" for day in (SIXTH, SEVENTH)}
    for day, rows in ((SIXTH, 47), (SEVENTH, 1)):
        write_readings(files[day], rows)
    expected = Counter({(f"u{n}", n, SIXTH): 1 for n in range(47)}) + Counter([("u0", 0, SEVENTH)])
    if published:
        for day, file in files.items():
            lake.publish(TABLE, day, file)
        files = lake.fetch(TABLE)
    found = by_bucket.read(spark.session, TABLE, list(files.values()))
    assert Counter(map(tuple, found.select("user", "timestamp", PARTITION).collect())) == expected
    sent = [key for key in bucket.keys if EXCHANGE in key]
    assert len(sent) == (0 if published else len(files)), "a file that is not there is sent once"


def test_rows_that_workers_compute_are_the_same_by_bucket_and_by_disk(
    spark: SparkEngine, by_bucket: ByBucket, bucket: Bucket
) -> None:
    rows = spark.session.sql(
        "SELECT * FROM VALUES ('a', -1L, double('NaN'), DATE '2023-08-06'), "
        "(NULL, 9223372036854775807L, double('-Infinity'), DATE '2023-08-06'), "
        "('é😀', NULL, 5e-324D, DATE '2023-08-07') AS t(user, timestamp, x, ingestion_date)"
    )
    found = []
    for way in (by_bucket, spark.exchange):
        with way.written(rows) as files:
            assert {file.parent.name for file in files} == {
                f"{PARTITION}={day}" for day in (SIXTH, SEVENTH)
            }
            found.append(sum((rows_in(file) for file in files), Counter()))
        assert not any(file.exists() for file in files)
    assert found[0] == found[1]
    assert found[0].total() == 3
    assert bucket.keys == []


def test_no_rows_are_no_files(spark: SparkEngine, by_bucket: ByBucket) -> None:
    none = by_bucket.read(spark.session, TABLE, [])
    with by_bucket.written(none) as files:
        assert files == []


def test_a_task_that_fails_leaves_nothing_in_the_bucket(
    spark: SparkEngine, by_bucket: ByBucket, bucket: Bucket
) -> None:
    rows = spark.session.sql(
        "SELECT IF(id < 900, id, raise_error('broken')) AS id, DATE '2023-08-06' AS ingestion_date "
        "FROM range(0, 1000, 1, 2)"
    )
    with pytest.raises(Exception, match="broken"), by_bucket.written(rows):
        pytest.fail("it is not written")
    assert bucket.keys == []


def test_what_a_killed_process_left_for_others_goes_when_the_lake_is_written_next(
    lake: Lake, bucket: Bucket
) -> None:
    bucket.put(f"a lake/{EXCHANGE}/1/{PARTITION}=2023-08-06/2.parquet")
    bucket.put("a lake/customer/landing/customer-1.json")
    with lake.writing():
        assert bucket.keys == ["a lake/customer/landing/customer-1.json"]
