"""Which file is which partition, and what is none."""

import re
from datetime import date
from pathlib import Path

import pytest

from stedi_assets.lake import Lake, open_lake
from stedi_assets.tables import TABLES, Source
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.storages import root_of

TABLE = TABLES["machine_learning_curated"]
SIXTH, SEVENTH = date(2023, 8, 6), date(2023, 8, 7)


def publish(lake: Lake, day: date, content: str = "PAR1") -> None:
    with lake.staging() as folder:
        (folder / "finished").write_text(content)
        lake.publish(TABLE, day, folder / "finished")


@pytest.mark.s3
def test_a_partition_is_one_file_in_a_folder_named_by_its_date(lake: Lake) -> None:
    publish(lake, SIXTH)
    expected = root_of(lake) / "step_trainer/curated/ingestion_date=2023-08-06/part-0.parquet"
    assert list(root_of(lake).rglob("*.parquet")) == [expected]
    ((day, path),) = lake.fetch(TABLE).items()
    assert (day, path.parent.name) == (SIXTH, "ingestion_date=2023-08-06")
    assert path.read_bytes() == expected.read_bytes() == b"PAR1"


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("customer_landing", "customer/landing_parquet"),
        ("accelerometer_landing", "accelerometer/landing_parquet"),
        ("step_trainer_landing", "step_trainer/landing_parquet"),
        ("customer_trusted", "customer/trusted"),
        ("accelerometer_trusted", "accelerometer/trusted"),
        ("customers_curated", "customer/curated"),
        ("step_trainer_trusted", "step_trainer/trusted"),
        ("machine_learning_curated", "step_trainer/curated"),
        ("customer_rejects", "customer/rejected"),
        ("accelerometer_rejects", "accelerometer/rejected"),
        ("step_trainer_rejects", "step_trainer/rejected"),
    ],
)
def test_each_table_lies_where_the_documents_say(lake: Lake, table: str, path: str) -> None:
    key = f"{path}/ingestion_date=2023-08-06/part-0.parquet"
    assert lake.partition_key(TABLES[table], SIXTH) == key


@pytest.mark.s3
def test_partitions_come_in_the_order_of_their_dates(lake: Lake) -> None:
    days = [date(2024, 1, 1), date(2022, 12, 31), date(2023, 8, 7), date(2023, 8, 6)]
    for day in days:
        publish(lake, day)
    assert list(lake.partitions(TABLE)) == sorted(days)
    assert list(lake.fetch(TABLE)) == sorted(days)


@pytest.mark.s3
def test_only_the_wanted_days_are_fetched_and_missing_ones_are_left_out(lake: Lake) -> None:
    publish(lake, SIXTH)
    publish(lake, SEVENTH)
    assert list(lake.fetch(TABLE, [SEVENTH, date(2023, 8, 8)])) == [SEVENTH]
    assert lake.fetch(TABLE, []) == {}


@pytest.mark.s3
@pytest.mark.parametrize(
    "other",
    [
        "ingestion_date=2023-08-07/tmp_part-0.parquet",
        "ingestion_date=2023-08-07/.part-0.parquet",
        "ingestion_date=2023-08-07/part-0.parquet.tmp",
        "ingestion_date=2023-08-07/part-0.parquet~",
        "ingestion_date=2023-08-07/part-1.parquet",
        "ingestion_date=2023-08-07/_SUCCESS",
        "ingestion_date=2023-08-07/deeper/part-0.parquet",
        "ingestion_date=2023-08-7/part-0.parquet",
        "ingestion_date=2023-13-45/part-0.parquet",
        "ingestion_date=__HIVE_DEFAULT_PARTITION__/part-0.parquet",
        "date=2023-08-07/part-0.parquet",
        "part-0.parquet",
        "kept aside/ingestion_date=2023-08-07/part-0.parquet",
        "kept aside/ingestion_date=2023-08-06/part-0.parquet",
    ],
)
def test_other_files_in_the_folder_of_a_table_are_no_partitions(lake: Lake, other: str) -> None:
    publish(lake, SIXTH)
    path = root_of(lake) / TABLE.path / other
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("other")
    assert {day: file.key for day, file in lake.partitions(TABLE).items()} == {
        SIXTH: "step_trainer/curated/ingestion_date=2023-08-06/part-0.parquet"
    }


@pytest.mark.s3
def test_a_table_has_no_partitions_of_another(lake: Lake) -> None:
    publish(lake, SIXTH)
    assert [name for name, table in TABLES.items() if lake.partitions(table)] == [TABLE.name]


@pytest.mark.s3
def test_landing_files_are_all_files_of_the_landing_folder_of_a_source(lake: Lake) -> None:
    for key in (
        "customer/landing/a.json",
        "customer/landing/b/c.csv",
        "customer/landing_parquet/ingestion_date=2023-08-06/part-0.parquet",
        "accelerometer/landing/d.json",
    ):
        path = root_of(lake) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert {file.key for file in lake.landing_files(Source.CUSTOMER)} == {
        "customer/landing/a.json",
        "customer/landing/b/c.csv",
    }


def test_opening_a_lake_makes_no_folder(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    assert lake.partitions(TABLE) == {}
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("root", ["gs://bucket/prefix", "file:///lake"])
def test_a_lake_that_is_neither_a_folder_nor_on_s3_is_refused_with_what_to_do(root: str) -> None:
    text = (
        f"STEDI_LAKE is '{root}': a lake is a local folder or on S3. Set it to a path, or to "
        "s3://bucket/prefix."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        open_lake(root)


@pytest.mark.parametrize("root", ["s3://", "s3:///prefix"])
def test_a_lake_on_s3_without_a_bucket_is_refused_with_what_to_do(root: str) -> None:
    text = f"STEDI_LAKE is '{root}': set it to s3://bucket or s3://bucket/prefix"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        open_lake(root)


def test_a_cache_below_a_folder_that_reads_as_a_column_is_refused_with_what_to_do(
    bucket: Bucket, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"for a column\. Set STEDI_CACHE to another path\.$"):
        open_lake(f"s3://{bucket.name}", tmp_path / "x=1")


@pytest.mark.s3
def test_a_lake_on_s3_is_opened_by_name_and_its_other_settings_are_those_of_boto3(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put(f"pre/fix/{TABLE.path}/ingestion_date=2023-08-06/part-0.parquet", b"PAR1")
    lake = open_lake(f"s3://{bucket.name}/pre/fix/", tmp_path)
    ((day, path),) = lake.fetch(TABLE).items()
    assert (day, path.read_bytes()) == (SIXTH, b"PAR1")
    assert (path.suffix, path.parent.name) == (".parquet", "ingestion_date=2023-08-06")
    assert path.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "folder",
    ["x=1", "user=root", "TIMESTAMP=5", "ingestion_date=2020-01-01", "record=", "Filename=1"],
)
def test_a_lake_below_a_folder_that_reads_as_a_column_is_refused_with_what_to_do(
    tmp_path: Path, folder: str
) -> None:
    text = f"take the folder {folder!r} for a column. Choose another path."
    with pytest.raises(ValueError, match=re.escape(text)):
        open_lake(str(tmp_path / folder / "lake"))


@pytest.mark.parametrize("folder", ["zone=1", "x", "user", "a=x=1"])
def test_a_lake_below_another_folder_is_opened(tmp_path: Path, folder: str) -> None:
    assert open_lake(str(tmp_path / folder)).storage.root == tmp_path / folder


@pytest.mark.parametrize("folder", ["x=1", "ingestion_date=2020-01-01", "Email=a@test.com"])
def test_a_path_that_readers_would_take_for_a_column_is_refused(
    tmp_path: Path, folder: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"take the folder {folder!r} for a column")):
        open_lake(str(tmp_path / folder / "lake"))


def test_a_path_with_any_other_equals_sign_is_taken(tmp_path: Path) -> None:
    assert open_lake(str(tmp_path / "env=test" / "lake")).storage.root.name == "lake"
