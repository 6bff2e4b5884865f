"""`stedi forget`, `stedi receipts` and the job `forget`, as people start them; on S3 as well."""

import json
import math
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stedi_assets.definitions import defs
from stedi_assets.jobs import FORGET
from stedi_assets.lake import Lake, open_lake
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.erasing import (
    ALL_OF_ANN,
    ANN,
    ANNS_OWN,
    KEY,
    TOWN,
    Line,
    all_bytes,
    build,
    traces,
    write,
)
from stedi_assets_tests.end_to_end.forked import Job, begin
from stedi_assets_tests.end_to_end.histories import stored_rows
from stedi_assets_tests.end_to_end.landing_files import QUIET, customer, resources_of, twin
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.storages import root_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for Dagster's runs, which processes use."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    return folder


@pytest.fixture
def town(lake: Lake, home: Path) -> Lake:
    """A lake with Ann in it, which is up to date."""
    succeeded(stedi(build(lake), "run"))
    return lake


def without_locks(content: dict[str, bytes]) -> dict[str, bytes]:
    return {key: of for key, of in content.items() if not key.startswith("_")}


@pytest.mark.long
@pytest.mark.s3
def test_a_person_is_shown_erased_told_of_and_kept_out(town: Lake, home: Path) -> None:
    root = root_of(town)
    before = all_bytes(root)
    shown = succeeded(stedi(town, "forget", ANN, "--dry-run"))
    assert all_bytes(root) == before
    assert "customer/landing/ingestion_date=2023-08-06/a.json" in shown
    unknown = stedi(town, "forget", "nobody@x.com")
    assert (unknown.returncode, unknown.stdout) == (0, "Nothing of this person is in the lake.\n")
    refused = stedi(town, "forget", ANN, "--asked-by", f"it is {ANN}")
    assert refused.returncode == 1
    assert all_bytes(root) == before

    said = succeeded(stedi(town, "forget", f" {ANN.upper()} ", "--asked-by", "ticket 4711"))
    assert said.startswith(shown)
    assert said.endswith("No trace of the person is left.\n")
    assert traces(root) == traces(town.storage.folder) == {}
    assert traces(home) == {}
    assert ANN not in said + shown + refused.stderr

    (receipt,) = json.loads(succeeded(stedi(town, "receipts", "--format", "json")))
    assert receipt["asked_by"] == "ticket 4711"
    assert receipt["left"] == {}
    assert sum(receipt["records"].values()) == sum(
        line.is_anns for lines in TOWN.values() for line in lines
    )
    table = succeeded(stedi(town, "receipts"))
    assert "ticket 4711" in table
    assert table.splitlines()[-1].endswith("  done")

    # What comes again: all records of a date are hers, and nothing waits for it to be mended.
    tables = stored_rows(town)
    anns = [line for line in TOWN["customer/landing/undated.json.zst"] if line.is_anns]
    again = write(town, "customer/landing/ingestion_date=2023-08-10/again.json", anns)
    told = succeeded(stedi(town, "run"))
    assert "ERROR" not in told
    assert "warning: customer_landing, check rejects" not in told
    after = stored_rows(town)
    (row,) = after["customer_rejects"].pop("2023-08-10")
    assert row[2:] == ("erased", None)
    assert after == tables
    succeeded(stedi(town, "forget", ANN))
    assert again.read_bytes() == b""
    assert traces(root) == {}


@pytest.mark.long
def test_a_record_of_somebody_else_that_names_the_person_ends_it_with_an_error(
    town: Lake, home: Path
) -> None:
    key = "customer/landing/ingestion_date=2023-08-06/b.json"
    write(town, key, [Line(customer("eve@x.com", "Serial-Of-Eve", customerName=f"c/o {ANN}"))])
    done = stedi(town, "forget", ANN)
    assert done.returncode == 1
    assert f"Error: something is left in {key}: " in done.stderr
    assert ANN not in done.stdout + done.stderr
    assert traces(home) == {}


# The job.


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as opened:
        yield opened


def run_job(lake: Lake, instance: dg.DagsterInstance, **more: Any) -> dg.ExecuteInProcessResult:
    here = dg.Definitions(
        jobs=[FORGET], resources=resources_of(root_of(lake)), executor=defs.executor
    )
    config = {"email": ANN, "asked_by": "the UI", **more}
    return here.resolve_job_def(FORGET.name).execute_in_process(
        run_config={**QUIET, "ops": {"forget_person": {"config": config}}},
        instance=instance,
        raise_on_error=False,
    )


def names_nobody(instance: dg.DagsterInstance, folder: Path) -> None:
    """Nothing that an instance keeps names Ann, but for the configuration of its runs."""
    for run in instance.get_runs():
        assert ANN in json.dumps(run.run_config)
        assert ANN not in json.dumps([run.tags, run.job_name])
        for entry in instance.all_logs(run.run_id):
            text = dg.serialize_value(entry).lower()
            assert not [word for word in ALL_OF_ANN if word.lower() in text], entry.message
    assert {name.rpartition("/")[2] for name in traces(folder)} <= {"runs.db", "runs.db-wal"}


@pytest.mark.long
def test_the_job_does_the_same_and_only_its_configuration_names_the_person(
    town: Lake, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    root = root_of(town)
    before = without_locks(all_bytes(root))
    assert run_job(town, instance, dry_run=True).success
    assert without_locks(all_bytes(root)) == before

    torn = root / "accelerometer/trusted/ingestion_date=2023-08-06/part-0.parquet"
    content = torn.read_bytes()
    torn.write_bytes(content[:-20])
    failed = run_job(town, instance)
    assert not failed.success
    torn.write_bytes(content)
    assert without_locks(all_bytes(root)) == before

    result = run_job(town, instance)
    assert result.success
    assert traces(root) == {}
    kinds = [event.event_type for event in result.all_events]
    assert kinds.count(dg.DagsterEventType.ASSET_MATERIALIZATION) > 8
    assert kinds.count(dg.DagsterEventType.ASSET_CHECK_EVALUATION) > 8
    names_nobody(instance, tmp_path / "instance")


# S3.


@pytest.mark.long
@pytest.mark.s3
def test_on_a_versioned_bucket_old_versions_and_local_copies_go_as_well(
    bucket: Bucket, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    here = build(open_lake(str(tmp_path / "here")))
    for key, content in all_bytes(here.storage.folder).items():
        bucket.put(f"lake/{key}", content)
    others = "customer/landing/ingestion_date=2023-08-06/others.json"
    hers = "customer/landing/ingestion_date=2023-08-06/hers.json"
    eve = json.dumps(customer("eve@x.com", "Serial-Of-Eve")).encode()
    for key, versions in {
        others: [eve, eve + b"\n"],
        hers: [json.dumps(customer(ANN, ANNS_OWN)).encode(), eve],
        "ledger.json": [b"of another program", b"of another program, too"],
    }.items():
        for content in versions:
            bucket.put(f"lake/{key}", content)
    address = f"s3://{bucket.name}/lake"
    monkeypatch.chdir(tmp_path)
    succeeded(stedi(address, "run"))
    dates = json.loads(succeeded(stedi(address, "counts", "--format", "json")))

    def versions() -> list[dict[str, Any]]:
        found = bucket.client.list_object_versions(Bucket=bucket.name)
        return list(found.get("Versions", []))

    bucket.put("lake/customer/trusted/ingestion_date=2023-08-06/part-0.parquet", b"damaged")
    succeeded(stedi(address, "run"))
    count = len(versions())
    unknown = stedi(address, "forget", "nobody@x.com")
    assert (unknown.returncode, unknown.stdout) == (0, "Nothing of this person is in the lake.\n")
    assert len(versions()) == count

    succeeded(stedi(address, "forget", ANN))
    down = tmp_path / "down"
    for number, version in enumerate(versions()):
        path = down / str(number) / version["Key"]
        path.parent.mkdir(parents=True)
        answer = bucket.client.get_object(
            Bucket=bucket.name, Key=version["Key"], VersionId=version["VersionId"]
        )
        path.write_bytes(answer["Body"].read())
    assert traces(down) == {}
    assert traces(tmp_path / "cache") == {}
    old = [version["Key"] for version in versions() if not version["IsLatest"]]
    assert [key for key in old if not key.startswith("lake/erasures/")] == [
        f"lake/{others}",
        "lake/ledger.json",
    ]
    after = json.loads(succeeded(stedi(address, "counts", "--format", "json")))
    assert after["customer_landing"] == dates["customer_landing"] - 3
    assert "All tables are up to date." in succeeded(stedi(address, "run"))
    again = stedi(address, "forget", ANN)
    assert again.stdout == "Nothing of this person is in the lake.\n"


# Killed for good.


@pytest.mark.long
def test_killed_at_any_instant_it_goes_on(town: Lake, home: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    choose = random.Random(seed)
    lake = twin(town, tmp_path / "twin")

    def forget(lake: Lake) -> Job:
        settings = {"DAGSTER_HOME": str(home), "STEDI_PSEUDONYM_KEY": KEY}
        of_lake = {"STEDI_LAKE": str(root_of(lake))}
        return begin("forget", ANN, output=tmp_path / "told", settings=settings | of_lake)

    undisturbed = forget(town)
    seconds = undisturbed.kill_at(math.inf)
    undisturbed.succeeded()
    assert traces(root_of(town)) == {}
    killed = 0
    for _ in range(4):
        job = forget(lake)
        job.kill_at(choose.uniform(0.2, 0.9) * seconds)
        killed += job.wait() == -signal.SIGKILL
        before = traces(root_of(lake))
        succeeded(stedi(lake, "run"))
        assert set(traces(root_of(lake))) <= set(before)
    assert killed
    succeeded(stedi(lake, "forget", ANN))
    assert traces(root_of(lake)) == traces(lake.storage.folder) == {}
    assert all(
        r["finished_at"] for r in json.loads(succeeded(stedi(lake, "receipts", "--format", "json")))
    )
