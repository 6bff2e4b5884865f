"""Reading a lake from Python: which rows, what it needs for it, and what it leaves alone."""

import gc
import os
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest

from stedi_assets import Lakehouse
from stedi_assets.lake import Lake, StorageError
from stedi_assets.privacy.pseudonyms import KEY_FILE
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.histories import Runner, compiled_once
from stedi_assets_tests.end_to_end.landing_files import (
    customer,
    device,
    file_of,
    land,
    phone,
    rows_by_date,
    twin,
)
from stedi_assets_tests.faulty import after, answered_by, faulty_server
from stedi_assets_tests.storages import (
    AnyPath,
    only_on_disk,
    opened,
    put,
    room_for_lakes,
    root_of,
    same_files,
)

DAYS = ("2023-08-05", "2023-08-06", "2023-08-07")
PAIRS = "machine_learning_curated"
EAST = datetime(2023, 8, 7, 1, tzinfo=timezone(timedelta(hours=5)))
"""A moment that is of the seventh there, and in UTC of the sixth."""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Ann and Bob, who walked on three days: one pair of hers a day, and on the last one of his."""
    with room_for_lakes(tmp_path_factory.mktemp("lakes")) as folder, compiled_once():
        lake = opened(folder / "walked")
        land(lake, "customer", DAYS[0], customer("ann@x.com", "a"), customer("bob@x.com", "b"))
        for number, day in enumerate(DAYS):
            land(lake, "accelerometer", day, phone("ann@x.com", number))
            land(lake, "step_trainer", day, device(number, "a", 200 + number))
        land(lake, "accelerometer", DAYS[2], phone("bob@x.com", 9), name="bobs.json")
        land(lake, "step_trainer", DAYS[2], device(9, "b"), name="bobs.json")
        made(lake)
        yield lake


@pytest.fixture
def lake(walked: Lake, lakes: AnyPath) -> Lake:
    """A copy of that lake."""
    return twin(walked, lakes / "lake")


def made(lake: Lake) -> None:
    """Bring a lake up to date."""
    runner = Runner(root_of(lake))
    runner.reconcile(False)
    runner.end()


@pytest.fixture
def lakehouse(lake: Lake) -> Lakehouse:
    return Lakehouse(str(root_of(lake)))


def distances(rows: Any) -> list[int]:
    return sorted(rows.to_pyarrow()["distancefromobject"].to_pylist())


# Which rows.


@pytest.mark.s3
@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_rows_that_are_stored_and_the_columns_of_the_registry(
    lakehouse: Lakehouse, lake: Lake, name: str
) -> None:
    stored = Counter(
        (*row, date.fromisoformat(day))
        for day, rows in rows_by_date(lake, name).items()
        for row in rows.elements()
    )
    assert stored or "rejects" in name
    table = lakehouse.read(name)
    assert dict(table.schema().items()) == dict(ibis.schema(TABLES[name].schema).items())
    read = table.to_pyarrow()
    assert Counter(tuple(row.values()) for row in read.to_pylist()) == stored


def test_pandas_polars_and_arrow_are_one_step_away(lakehouse: Lakehouse) -> None:
    rows = lakehouse.read(PAIRS).order_by("timestamp", "x")
    arrow = rows.to_pyarrow()
    assert isinstance(arrow, pa.Table)
    assert arrow["distancefromobject"].to_pylist() == [200, 201, 202, 250]
    polars = rows.to_polars()
    assert polars.schema["distancefromobject"].is_integer()
    assert polars.rows(named=True) == arrow.to_pylist()
    pandas = rows.to_pandas()
    assert list(pandas.columns) == arrow.column_names
    assert pandas["same_customer"].dtype == bool
    assert pandas["subject_id"].to_list() == arrow["subject_id"].to_pylist()


def test_tables_of_one_lake_can_be_joined(lakehouse: Lakehouse) -> None:
    people = lakehouse.read("customers_curated").select("subject_id", "birthyear")
    joined = lakehouse.read(PAIRS).join(people, "subject_id")
    assert joined.to_pyarrow()["birthyear"].to_pylist() == [1970] * 4


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, [200, 201, 202, 250]),
        (DAYS[1], None, [201, 202, 250]),
        (None, DAYS[1], [200, 201]),
        (DAYS[1], DAYS[1], [201]),
        (date(2023, 8, 6), date(2023, 8, 6), [201]),
        (datetime(2023, 8, 6, 12), datetime(2023, 8, 6, 12), [201]),
        (EAST, EAST, [201]),
        ("2023-08-08", None, []),
        (None, "2001-01-01", []),
    ],
)
def test_start_and_end_are_the_first_and_the_last_day(
    lakehouse: Lakehouse, start: date | str | None, end: date | str | None, expected: list[int]
) -> None:
    rows = lakehouse.read(PAIRS, start=start, end=end)
    assert distances(rows) == expected
    assert rows.to_pyarrow().schema == lakehouse.read(PAIRS).to_pyarrow().schema


@pytest.mark.s3
def test_what_is_not_of_these_days_is_not_looked_at(lakehouse: Lakehouse, lake: Lake) -> None:
    put(file_of(lake, PAIRS, DAYS[0]), b"not parquet, but long enough to be looked at")
    assert distances(lakehouse.read(PAIRS, start=DAYS[1])) == [201, 202, 250]


def test_the_lake_is_by_default_that_of_the_setting(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_LAKE", str(root_of(lake)))
    assert len(distances(Lakehouse().read(PAIRS))) == 4


# Errors.


def test_a_table_that_there_is_not_is_an_error_that_lists_those_that_there_are(
    lakehouse: Lakehouse,
) -> None:
    with pytest.raises(ValueError, match=r"There is no table 'walks'\. There are ") as error:
        lakehouse.read("walks")
    assert all(name in str(error.value) for name in TABLES)


def test_a_start_after_the_end_is_an_error(lakehouse: Lakehouse) -> None:
    with pytest.raises(ValueError, match="start is 2023-08-07, which is later than end, 2023-08-0"):
        lakehouse.read(PAIRS, start=DAYS[2], end=DAYS[1])


@pytest.mark.parametrize("day", ["2023-08-32", "", 0, 20230807])
def test_a_day_that_is_none_is_an_error(lakehouse: Lakehouse, day: Any) -> None:
    with pytest.raises(ValueError, match=f"{day!r} is no date: say it as YYYY-MM-DD"):
        lakehouse.read(PAIRS, start=day)


def test_a_folder_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no lake at .*nowhere"):
        Lakehouse(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_lake_elsewhere_is_an_error_that_says_where_they_can_be() -> None:
    with pytest.raises(ValueError, match="a lake is a local folder or on S3"):
        Lakehouse("gs://bucket")


def test_a_table_that_was_not_made_yet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`stedi run` has not made the table yet"):
        Lakehouse(tmp_path).read(PAIRS)


def test_a_bucket_without_a_lake_and_one_that_is_not_there_are_errors(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError, match=f"below s3://{bucket.name}/lake: there is no lake"):
        Lakehouse(f"s3://{bucket.name}/lake").read(PAIRS)
    with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
        Lakehouse("s3://no-such-bucket/lake").read(PAIRS)


# What it needs, and what it leaves alone.


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, stedi_assets, stedi_assets.cli\n"
        "heavy = {'boto3', 'dagster', 'duckdb', 'ibis', 'numpy', 'pandas', 'pyarrow'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "from stedi_assets import Lakehouse\n"
        "assert 'dagster' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_no_other_names() -> None:
    import stedi_assets

    with pytest.raises(AttributeError, match="no attribute 'Lakehause'"):
        _ = stedi_assets.Lakehause


@only_on_disk("the next test says it of S3")
def test_reading_changes_nothing_in_a_folder_and_needs_no_key(
    lake: Lake, lakehouse: Lakehouse
) -> None:
    root = root_of(lake)
    assert isinstance(root, Path)
    (root / KEY_FILE).unlink()

    def everything() -> dict[Path, tuple[int, int]]:
        """Of folders too, whose times change with what is made and removed in them."""
        return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in [root, *root.rglob("*")]}

    before = everything()
    assert len(before) > 50
    assert len(distances(lakehouse.read(PAIRS))) == 4
    assert lakehouse.snapshots() == []
    assert everything() == before


@pytest.mark.s3
def test_a_data_scientist_on_s3_needs_what_is_curated_and_snapshots_and_nothing_else(
    lake: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(lake, bucket)
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY", raising=False)
    before = bucket.keys
    root, below = rf"/{bucket.name}(/|\?.*prefix=)lake(/|%2F)", "(/|%2F)"
    curated = rf"GET {root}(customer|step_trainer){below}curated{below}"
    snapshots = rf"(GET|PUT) {root}snapshots{below}"
    with faulty_server(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        server.make(answered_by(403, "AccessDenied"), f"^(?!{curated}|{snapshots})")
        lakehouse = Lakehouse(f"s3://{bucket.name}/lake")
        assert distances(lakehouse.read(PAIRS)) == [200, 201, 202, 250]
        assert lakehouse.read("customers_curated").to_pyarrow().num_rows == 2
        assert lakehouse.snapshots() == []
        assert bucket.keys == before
        assert all(request.startswith("GET ") for request in server.requests)
        with pytest.raises(StorageError, match="access denied"):
            lakehouse.read("customer_trusted")
        lakehouse.snapshot("walks")
        assert distances(lakehouse.read_snapshot("walks")) == [200, 201, 202, 250]
    assert set(bucket.keys) == {*before, "lake/snapshots/walks.parquet"}


def copied(lake: Lake, bucket: Bucket) -> None:
    """Put a lake's files into a bucket, below `lake`."""
    for path in root_of(lake).glob("**/*"):
        if path.is_file():
            bucket.put(f"lake/{path.relative_to(root_of(lake))}", path.read_bytes())


# While others write, and side by side.


@only_on_disk("of S3 the next test says it")
def test_of_a_folder_rows_are_those_of_when_they_are_computed(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    rows = lakehouse.read(PAIRS)
    land(lake, "step_trainer", DAYS[0], device(0, "a", 299))
    made(lake)
    assert distances(rows) == [201, 202, 250, 299]


@pytest.mark.s3
def test_of_s3_rows_are_those_of_when_they_were_asked_for(
    lake: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(lake, bucket)
    lakehouse = Lakehouse(f"s3://{bucket.name}/lake")
    rows = lakehouse.read(PAIRS)
    land(lake, "step_trainer", DAYS[0], device(0, "a", 299))
    made(lake)
    copied(lake, bucket)
    assert distances(rows) == [200, 201, 202, 250]
    assert distances(lakehouse.read(PAIRS)) == [201, 202, 250, 299]


@pytest.mark.s3
def test_a_partition_that_is_replaced_before_it_was_fetched_is_read_as_it_is_then(
    lake: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(lake, bucket)
    land(lake, "step_trainer", DAYS[0], device(0, "a", 299))
    made(lake)
    with faulty_server(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        lakehouse = Lakehouse(f"s3://{bucket.name}/lake")
        server.make(after(lambda: copied(lake, bucket)), f"^GET .*{DAYS[0]}/part-0", times=1)
        assert distances(lakehouse.read(PAIRS)) == [201, 202, 250, 299]


def test_threads_share_a_lake_and_what_it_gave(lakehouse: Lakehouse) -> None:
    rows = lakehouse.read(PAIRS)

    def count(number: int) -> tuple[int, int]:
        distance = 200 + number % 3
        shared = rows.filter(rows.distancefromobject == distance).count().execute()
        own = lakehouse.read(PAIRS, start=DAYS[number % 3], end=DAYS[number % 3])
        return shared, own.to_pyarrow().num_rows

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(count, range(48)))
    assert found == [(1, 1), (1, 1), (1, 2)] * 16


def test_two_lakes_are_open_at_once(lakehouse: Lakehouse, lake: Lake, lakes: AnyPath) -> None:
    same_files(root_of(lake), f"{TABLES[PAIRS].path}/**/*", lakes / "other")
    other = Lakehouse(str(lakes / "other"))
    file_of(Lake(other._lake.storage), PAIRS, DAYS[2]).unlink()
    rows = lakehouse.read(PAIRS), other.read(PAIRS)
    assert [distances(of) for of in rows] == [[200, 201, 202, 250], [200, 201]]


def test_what_does_not_fit_into_memory_goes_where_nobody_else_looks_and_is_gone_at_the_end(
    lakehouse: Lakehouse,
) -> None:
    lake = Lakehouse(lakehouse._lake.storage.uri())
    ((folder,),) = lake._backend.con.execute("SELECT current_setting('temp_directory')").fetchall()
    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    rows = lake.read("customer_landing")
    del lake
    gc.collect()
    assert Path(folder).is_dir(), "what was read can still be computed"
    del rows
    gc.collect()
    assert not Path(folder).exists()
