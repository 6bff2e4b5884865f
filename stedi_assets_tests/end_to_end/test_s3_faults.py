"""Whole runs over an S3 that does not answer as it should, a run that is killed, two at once."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.landing_files import Record, customer, device, phone
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.faulty import (
    FaultyServer,
    after,
    answered_by,
    cut_in_the_answer,
    cut_in_the_request,
    faulty_server,
)

pytestmark = pytest.mark.long

ANN, BOB, CLEO = "ann@x.com", "bob@x.com", "cleo@x.com"
LANDED: dict[str, list[Record]] = {
    "customer/landing/ingestion_date=2023-08-06/a.json": [
        customer(ANN, "s1"),
        customer(BOB, "s2", consent=None),
    ],
    "accelerometer/landing/ingestion_date=2023-08-06/a.json": [
        phone(ANN, 1),
        phone(ANN, 2),
        phone(BOB, 3),
    ],
    "step_trainer/landing/ingestion_date=2023-08-06/a.json": [
        device(1, "s1"),
        device(2, "s1"),
        device(3, "s2"),
    ],
    "customer/landing/ingestion_date=2023-08-07/a.json": [customer(CLEO, "s3")],
    "accelerometer/landing/ingestion_date=2023-08-07/a.json": [phone(CLEO, 4)],
    "step_trainer/landing/ingestion_date=2023-08-07/a.json": [device(4, "s3"), device(5, "s3")],
}
COUNTS = {
    "customer_landing": 3,
    "accelerometer_landing": 4,
    "step_trainer_landing": 5,
    "customer_trusted": 2,
    "accelerometer_trusted": 3,
    "customers_curated": 2,
    "step_trainer_trusted": 4,
    "machine_learning_curated": 3,
    "customer_rejects": 0,
    "accelerometer_rejects": 0,
    "step_trainer_rejects": 0,
}


@dataclass(frozen=True)
class Remote:
    """A lake in a bucket, behind a server that can be made to fail."""

    bucket: Bucket
    server: FaultyServer

    @property
    def root(self) -> str:
        return f"s3://{self.bucket.name}/lake"

    def land(self, key: str, *records: Record) -> None:
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        self.bucket.put(f"lake/{key}", lines.encode())

    def run(self) -> subprocess.CompletedProcess[str]:
        return stedi(self.root, "run")

    def begin_to_run(self) -> subprocess.Popen[str]:
        """Another process, which does not end by itself when the test does."""
        program = "from stedi_assets.cli import entry_point; entry_point()"
        return subprocess.Popen(
            [sys.executable, "-c", program, "run"],
            env={**os.environ, "STEDI_LAKE": self.root},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def unfinished(self) -> list[str]:
        """The keys of uploads that were begun and neither completed nor aborted."""
        found = self.bucket.client.list_multipart_uploads(Bucket=self.bucket.name)
        return sorted(upload["Key"] for upload in found.get("Uploads", []))


def counts_told(told: str) -> dict[str, int]:
    """The rows of each table, as a run prints them at its end."""
    lines = re.findall(r"^(\w+) +(?:landing|trusted|curated) +([\d,]+)$", told, re.MULTILINE)
    return {table: int(rows.replace(",", "")) for table, rows in lines}


@pytest.fixture
def remote(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "a key of a test")
    with faulty_server(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        made = Remote(bucket, server)
        for key, records in LANDED.items():
            made.land(key, *records)
        yield made


@pytest.mark.s3
def test_a_run_through_faults_that_pass_ends_as_if_there_were_none(remote: Remote) -> None:
    remote.server.make(answered_by(500, "InternalError"), every=7)
    remote.server.make(cut_in_the_request, every=6)
    remote.server.make(cut_in_the_answer, every=5)
    remote.server.make(answered_by(503, "SlowDown"), every=20)
    told = succeeded(remote.run())
    assert len(remote.server.requests) > 140, "and so there were some of each"
    remote.server.mend()
    assert "ERROR" not in told
    assert counts_told(told) == COUNTS
    assert remote.unfinished() == []
    assert succeeded(remote.run()).startswith("All tables are up to date.\n")


LASTING = {
    "all from the start": ("", ""),
    "a source's files": ("^GET .*/customer/landing/", "customer/landing/ingestion_date=2023-08-0"),
    "a table": ("^PUT .*/customer/trusted/", "customer/trusted/ingestion_date=2023-08-0"),
}


@pytest.mark.parametrize("what", LASTING)
def test_a_run_through_faults_that_last_says_of_what_they_are_and_another_mends_the_rest(
    remote: Remote, what: str
) -> None:
    of, named = LASTING[what]
    remote.server.make(answered_by(500, "InternalError"), of)
    failed = remote.run()
    told = failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert "Traceback" not in told
    assert f"{remote.root}/{named}" in told if named else failed.stdout == ""
    errors = [line for line in told.splitlines() if "error" in line.lower()]
    assert errors
    for error in errors:
        assert "is overloaded or out of order" in error
        assert "wait some minutes, then do it again." in error
    remote.server.mend()
    assert counts_told(succeeded(remote.run())) == COUNTS


def test_a_run_that_could_not_begin_says_why(remote: Remote) -> None:
    remote.server.make(answered_by(403, "AccessDenied"), r"^GET .*\?.*uploads", times=1)
    failed = remote.run()
    assert failed.returncode == 1
    (error,) = [line for line in failed.stdout.splitlines() if "ERROR" in line]
    assert error.startswith("  ERROR: the run could not begin: ")
    assert "ListMultipartUploads" in error
    assert "access denied" in error
    assert counts_told(failed.stdout) == COUNTS, "the reconciliation after it could"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_landing_file_that_changes_between_listing_and_fetching_is_told_and_not_lost(
    remote: Remote, is_there: bool
) -> None:
    key = "step_trainer/landing/ingestion_date=2023-08-07/a.json"

    def change() -> None:
        if is_there:
            remote.land(key, device(4, "s3"), device(5, "s3"), device(6, "s3"))
        else:
            remote.bucket.client.delete_object(Bucket=remote.bucket.name, Key=f"lake/{key}")

    remote.server.make(after(change), "^GET .*step_trainer/landing/.*07/a.json", times=1)
    failed = remote.run()
    assert failed.returncode == 1
    (error,) = [line for line in failed.stdout.splitlines() if "ERROR" in line]
    assert f"{remote.root}/{key} was replaced or removed after it was listed: try again" in error
    more = 1 if is_there else -2
    paired = 0 if is_there else -1
    expected = COUNTS | {
        "step_trainer_landing": COUNTS["step_trainer_landing"] + more,
        "step_trainer_trusted": COUNTS["step_trainer_trusted"] + more,
        "machine_learning_curated": COUNTS["machine_learning_curated"] + paired,
    }
    assert counts_told(failed.stdout) == expected, "the reconciliation after it listed again"
    assert succeeded(remote.run()).startswith("All tables are up to date.\n")


@pytest.mark.s3
def test_a_run_killed_in_an_upload_leaves_the_old_partition_and_the_next_run_nothing_of_it(
    remote: Remote,
) -> None:
    succeeded(remote.run())
    partition = "lake/accelerometer/landing_parquet/ingestion_date=2023-08-07/part-0.parquet"
    (old,) = [found for found in remote.bucket.objects if found["Key"] == partition]
    rng = random.Random(1)
    many = [phone(BOB, time, rng.random()) | {"y": rng.random()} for time in range(600_000)]
    remote.land("accelerometer/landing/ingestion_date=2023-08-07/many.json", *many)
    producers = "lake/accelerometer/landing/ingestion_date=2023-08-07/more.json"
    remote.bucket.client.create_multipart_upload(Bucket=remote.bucket.name, Key=producers)

    with remote.begin_to_run() as process:
        kill = after(lambda: (process.send_signal(signal.SIGKILL), process.wait()))
        remote.server.make(kill, "^PUT .*accelerometer/landing_parquet/.*partNumber=", times=1)
        assert process.wait(timeout=120) == -signal.SIGKILL
    assert remote.unfinished() == [producers, partition], "it was killed in the middle"
    assert old in remote.bucket.objects

    remote.server.mend()
    told = succeeded(remote.run())
    assert remote.unfinished() == [producers]
    assert counts_told(told) == COUNTS | {"accelerometer_landing": 4 + len(many)}


@pytest.mark.s3
def test_two_runs_at_once_take_turns_and_both_end_well(remote: Remote) -> None:
    with remote.begin_to_run() as one, remote.begin_to_run() as other:
        for process in (one, other):
            told, _ = process.communicate(timeout=120)
            assert process.returncode == 0, told
            assert "ERROR" not in told
            assert counts_told(told) == COUNTS
    assert succeeded(remote.run()).startswith("All tables are up to date.\n")
