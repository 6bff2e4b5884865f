"""The lake on Spark: the same tables, and neither engine finds anything to do after the other."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import pyspark
import pytest
from hypothesis import given, settings

import stedi_assets
from stedi_assets.lake import EXCHANGE, Lake, open_lake
from stedi_assets.resources import cache_folder
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.erasing import ANN, forget
from stedi_assets_tests.end_to_end.histories import Event, Runner, compiled_once, histories
from stedi_assets_tests.end_to_end.landing_files import customer, land, rows_by_date, run
from stedi_assets_tests.end_to_end.process import counts, stedi, succeeded
from stedi_assets_tests.end_to_end.test_any_order import any_history, ends_up_as_a_fresh_lake
from stedi_assets_tests.end_to_end.test_reference import DAY, NO_REJECTS, STATED
from stedi_assets_tests.storages import AnyPath, files_in, root_of

pytestmark = pytest.mark.spark

UP_TO_DATE = "Every partition holds what it should.\n"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, quick_spark: dict[str, str]) -> None:
    for name, value in quick_spark.items():
        monkeypatch.setenv(name, value)


def on_spark(lake: Lake | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return stedi(lake, *arguments, STEDI_ENGINE="spark")


@pytest.mark.reference
def test_the_reference_files_give_the_known_counts_and_duckdb_has_nothing_to_do(
    reference_lake: Lake,
) -> None:
    told = succeeded(on_spark(reference_lake, "run"))
    assert "ERROR" not in told
    assert counts(reference_lake) == STATED | NO_REJECTS
    assert not (root_of(reference_lake) / "spark-warehouse").exists(), "where the process was"
    before = files_in(root_of(reference_lake))
    assert succeeded(stedi(reference_lake, "status")) == UP_TO_DATE
    assert succeeded(stedi(reference_lake, "run")).startswith("All tables are up to date.\n")
    assert files_in(root_of(reference_lake)) == before


@pytest.mark.reference
def test_after_duckdb_spark_has_nothing_to_do(reference_lake: Lake) -> None:
    succeeded(stedi(reference_lake, "run"))
    before = files_in(root_of(reference_lake))
    assert succeeded(on_spark(reference_lake, "status")) == UP_TO_DATE
    assert succeeded(on_spark(reference_lake, "run")).startswith("All tables are up to date.\n")
    assert files_in(root_of(reference_lake)) == before


@pytest.mark.reference
def test_a_lake_on_s3_gives_the_same_counts(
    reference: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_landing_files(reference, bucket)
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "a key of a test")
    lake = open_lake(f"s3://{bucket.name}/lake", cache_folder())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEDI_ENGINE", "spark")
        assert run(lake, DAY).success
    before = bucket.objects
    assert counts(lake.storage.uri()) == STATED | NO_REJECTS
    assert succeeded(stedi(lake.storage.uri(), "status")) == UP_TO_DATE
    assert bucket.objects == before


def put_landing_files(reference: Path, bucket: Bucket) -> None:
    for path in reference.glob("*/landing/**/*"):
        if path.is_file():
            bucket.put(f"lake/{path.relative_to(reference).as_posix()}", path.read_bytes())


# Spark Connect.


@contextmanager
def connect_server() -> Iterator[str]:
    """The address of a Spark that is a process of its own, in a folder of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = Path(pyspark.__file__).parent
    command = [
        *(home / "bin" / "spark-submit", "--driver-memory", "1g"),
        *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
        *("--conf", f"spark.connect.grpc.binding.port={port}"),
        *("--conf", "spark.connect.grpc.binding.address=127.0.0.1"),
        *("--conf", "spark.ui.enabled=false", "--conf", "spark.sql.shuffle.partitions=4"),
        "spark-internal",
    ]
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(Path(stedi_assets.__file__).parents[1]),
    }
    with TemporaryDirectory() as folder:
        log = Path(folder, "spark.log")
        with (
            log.open("w") as out,
            subprocess.Popen(
                command, env=environment, cwd=folder, stdout=out, stderr=out
            ) as server,
        ):
            try:
                for _ in range(600):
                    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                        break
                    assert server.poll() is None, log.read_text()
                    time.sleep(0.1)
                yield f"sc://127.0.0.1:{port}"
            finally:
                server.kill()  # for one that was started to ignore SIGTERM would never end


@pytest.mark.reference
def test_over_spark_connect_a_machine_without_java_gives_the_same_counts(
    reference_lake: Lake, tmp_path: Path
) -> None:
    no_java = {"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path)}
    with connect_server() as address:
        told = succeeded(
            stedi(reference_lake, "run", STEDI_ENGINE="spark", SPARK_REMOTE=address, **no_java)
        )
    assert "ERROR" not in told
    assert counts(reference_lake) == STATED | NO_REJECTS
    assert succeeded(stedi(reference_lake, "status")) == UP_TO_DATE


@pytest.mark.reference
def test_over_spark_connect_workers_need_see_nothing_but_the_bucket_of_a_lake_on_s3(
    reference: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the path of this process's local files leads workers to their own folder instead."""
    put_landing_files(reference, bucket)
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "a key of a test")
    monkeypatch.setenv("STEDI_CACHE", "/proc/self/cwd/cache")
    monkeypatch.chdir(tmp_path)
    lake = f"s3://{bucket.name}/lake"
    with connect_server() as address:
        told = succeeded(stedi(lake, "run", STEDI_ENGINE="spark", SPARK_REMOTE=address))
    assert "ERROR" not in told
    assert counts(lake) == STATED | NO_REJECTS
    assert succeeded(stedi(lake, "status")) == UP_TO_DATE
    assert not [key for key in bucket.keys if EXCHANGE in key]


# Erasure.


def test_spark_keeps_out_whom_an_erasure_erased_as_duckdb_does(
    lakes: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "spark")
    runner = Runner(lakes / "lake")
    lake, day = runner.lake, date(2023, 8, 6)
    delivery = (customer(ANN, "s1"), customer("bob@test.com", "s2"), f'{{"email": "{ANN}", broken')
    land(lake, "customer", DAY, *delivery)
    runner.run([day], list(TABLES))
    assert forget(runner)
    land(lake, "customer", DAY, *delivery, name="again.json")
    runner.run([day], list(TABLES))
    again = f"customer/landing/ingestion_date={DAY}/again.json"
    assert rows_by_date(lake, "customer_rejects") == {
        DAY: Counter([(again, 1, "erased", None), (again, 3, "erased", None)])
    }
    emails = {row[1] for row in rows_by_date(lake, "customer_landing")[DAY]}
    assert emails == {"bob@test.com"}
    runner.end()
    assert succeeded(stedi(lake, "status", STEDI_ENGINE="duckdb")) == UP_TO_DATE


# Any history.


class TurnTaker(Runner):
    """Each run and each reconciliation is of another engine than the one before."""

    def __init__(self, root: AnyPath) -> None:
        super().__init__(root)
        self._engines = cycle(["spark", "duckdb"])

    def run(self, days: Collection[date], tables: Collection[str]) -> set[tuple[str, date]]:
        self._take_turns()
        return super().run(days, tables)

    def reconcile(self, everything: bool, tables: Collection[str] = tuple(TABLES)) -> None:
        self._take_turns()
        super().reconcile(everything, tables)

    def _take_turns(self) -> None:
        self.end()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STEDI_ENGINE", next(self._engines))
            assert self.engine


@pytest.fixture(scope="module")
def _quickly() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.mark.usefixtures("_quickly")
@settings(any_history, max_examples=1)
@given(histories())
def test_any_history_of_a_lake_whose_engines_take_turns_ends_as_a_fresh_lake(
    events: list[Event],
) -> None:
    ends_up_as_a_fresh_lake(events, TurnTaker)
