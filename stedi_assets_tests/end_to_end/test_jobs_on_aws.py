"""Tables that jobs make, on a Spark of their own: the same lake, and the same told to Dagster.

The jobs are real processes with the program that AWS is given. Of AWS, moto has the services that
start a job and say how it is; this module starts the process for them.
"""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import boto3
import pyspark
import pytest
from moto.emrserverless import models as emr_models
from moto.glue.models import glue_backends
from moto.moto_api import state_manager

from stedi_assets.checks import keys_of_checks
from stedi_assets.engines.duckdb import Content
from stedi_assets.job_clients import PIPES
from stedi_assets.lake import Lake, open_lake
from stedi_assets.making import stored_partitions
from stedi_assets.resources import cache_folder, open_engine
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.landing_files import customer, land, rows_by_date, run, twin
from stedi_assets_tests.end_to_end.process import counts, stedi, succeeded
from stedi_assets_tests.end_to_end.test_reference import DAY, NO_REJECTS, STATED
from stedi_assets_tests.jobs import GLUE, PROGRAM, definitions, process, run_by
from stedi_assets_tests.storages import AnyPath, files_in, root_of

pytestmark = pytest.mark.spark

ACCOUNT, REGION = "123456789012", "us-east-1"
KEY = "the key of run and job"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, quick_spark: dict[str, str]) -> None:
    for name, value in (quick_spark | {"STEDI_PSEUDONYM_KEY": KEY}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STEDI_GLUE_JOB", "stedi")


def contents(lake: Lake) -> dict[str, dict[str, Content]]:
    """What every stored partition holds, by checksum."""
    with open_engine(lake) as engine:
        return {
            name: {str(day): of.content for day, of in stored_partitions(lake, engine, t).items()}
            for name, t in TABLES.items()
        }


@pytest.mark.reference
def test_readings_by_jobs_and_customers_by_duckdb_give_what_duckdb_gives(
    reference_lake: Lake, lakes: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_duckdb = twin(reference_lake, lakes / "twin")
    assert run(by_duckdb, DAY).success
    with monkeypatch.context() as patch:
        patch.setenv("STEDI_ENGINE", "glue,customer*=duckdb")
        ran = run_by(definitions(reference_lake, **{GLUE: process()}), DAY)
    assert ran.result.success, ran.errors
    assert counts(reference_lake) == STATED | NO_REJECTS
    assert contents(reference_lake) == contents(by_duckdb)
    assert ran.findings.keys() == keys_of_checks(list(TABLES))
    (made,) = ran.result.asset_materializations_for_node("machine_learning_curated")
    told = {name: value.value for name, value in made.metadata.items()}
    assert told["job_rows"] == told["dagster/partition_row_count"] == 43_681
    assert told["job_bytes"] == told["bytes"]
    assert told["job_engine"] == f"Spark {pyspark.__version__}"
    assert succeeded(stedi(reference_lake, "status")) == "Every partition holds what it should.\n"


# Jobs that do not end well.


@pytest.fixture
def restating(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake in which customer_trusted has a day, and another one brings it other records."""
    land(lake, "customer", "2023-08-05", customer("ann@test.com", "s1"))
    read = ["customer_landing", "customer_rejects"]
    assert run(lake, "2023-08-05", tables=[*read, "customer_trusted"]).success
    again = customer("ann@test.com", "s1", updated=20), customer("bob@test.com", "s2")
    land(lake, "customer", DAY, *again)
    assert run(lake, DAY, tables=read).success
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,customer_trusted=glue")
    return lake


def by_program(lake: Lake, folder: Path, text: str) -> Any:
    program = folder / "program.py"
    program.write_text(dedent(text))
    return run_by(definitions(lake, **{GLUE: process(program)}), DAY, ["customer_trusted"])


def test_a_job_restates_what_the_run_would_and_dagster_is_told_of_each_partition(
    restating: Lake,
) -> None:
    ran = run_by(definitions(restating, **{GLUE: process()}), DAY, ["customer_trusted"])
    assert ran.result.success, ran.errors
    stored = rows_by_date(restating, "customer_trusted")
    assert {day: rows.total() for day, rows in stored.items()} == {"2023-08-05": 0, DAY: 2}
    made = ran.result.asset_materializations_for_node("customer_trusted")
    assert {of.partition: of.metadata["dagster/partition_row_count"].value for of in made} == {
        "2023-08-05": 0,
        DAY: 2,
    }


def test_a_partition_that_breaks_the_contract_is_not_published_and_the_step_says_why(
    restating: Lake, tmp_path: Path
) -> None:
    before = files_in(root_of(restating))
    ran = by_program(
        restating,
        tmp_path,
        """
        from dataclasses import replace
        from stedi_assets.job import main
        from stedi_assets.tables import TABLES

        # A registry in which no column may be without a value, as some are.
        table = TABLES["customer_trusted"]
        columns = tuple(replace(column, null_means="") for column in table.columns)
        object.__setattr__(table, "columns", columns)
        main()
        """,
    )
    assert "BrokenContractError: customer_trusted, partition" in ran.why_it_failed
    assert "has nulls" in ran.why_it_failed
    assert files_in(root_of(restating)) == before


def test_a_job_that_is_killed_leaves_the_lake_as_it_was_and_another_one_makes_it(
    restating: Lake, tmp_path: Path
) -> None:
    before = files_in(root_of(restating), "*/*/*/part-0.parquet")
    ran = by_program(
        restating,
        tmp_path,
        """
        import os, signal
        from stedi_assets.job import main
        from stedi_assets.lake import Lake

        Lake.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # all is computed by then
        main()
        """,
    )
    assert "External execution process failed with code -9" in ran.why_it_failed
    assert files_in(root_of(restating), "*/*/*/part-0.parquet") == before
    assert run_by(
        definitions(restating, **{GLUE: process()}), DAY, ["customer_trusted"]
    ).result.success
    assert not list((root_of(restating) / "_staging").iterdir()), "what the killed one left"


# The clients of Glue and EMR Serverless.


@pytest.fixture
def on_s3(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake on S3 with landing files, whose key is in Secrets Manager alone."""
    secret = boto3.client("secretsmanager").create_secret(Name=bucket.name, SecretString=KEY)
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY_SECRET", secret["ARN"])
    lake = open_lake(f"s3://{bucket.name}/lake", cache_folder())
    land(lake, "customer", DAY, customer("ann@test.com", "s1"), "no record")
    return lake


@contextmanager
def spark_of_aws(
    started: Callable[[], tuple[list[str], dict[str, str]] | None], ended: Callable[[int], None]
) -> Iterator[None]:
    """What is behind the services: starts the program by `spark-submit` when a job was started.

    Args:
        started: arguments and variables of the program, when there is a job.
        ended: takes its status.
    """
    submit = str(Path(pyspark.__file__).parent / "bin" / "spark-submit")
    over = threading.Event()

    def serve() -> None:
        while not (job := started()):
            if over.wait(0.1):
                return
        arguments, variables = job
        path = os.pathsep.join(sys.path)
        environment = {**os.environ, "PYTHONPATH": path, "PYSPARK_PYTHON": sys.executable}
        command = [submit, "--master", "local[2]", "--conf", "spark.ui.enabled=false"]
        done = subprocess.run(
            [*command, str(PROGRAM), *arguments],
            env={**environment, **variables},
            timeout=300,
            check=False,
        )
        ended(done.returncode)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def verify_made(lake: Lake, bucket: Bucket) -> None:
    table = "customer_landing"
    tables = [table, "customer_rejects"]
    ran = run_by(definitions(lake), DAY, tables)
    assert "rejects" in ran.why_it_failed, "half of the records: the blocking check stops the run"
    assert {found[0] for found in ran.findings.values()} == {True, False}
    assert ran.findings.keys() == keys_of_checks(tables)
    assert {of.partition for of in ran.result.asset_materializations_for_node(_STEP)} == {DAY}
    (record,) = rows_by_date(lake, table)[DAY]
    assert "ann@test.com" in record
    assert not [key for key in bucket.keys if PIPES in key], "messages that were read"


_STEP = "read_customer_files"


def test_a_step_starts_the_job_of_glue_and_waits_for_it(
    on_s3: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,customer_landing=glue")
    name = bucket.name
    monkeypatch.setenv("STEDI_GLUE_JOB", name)
    role = f"arn:aws:iam::{ACCOUNT}:role/job"
    command = {"Name": "glueetl", "ScriptLocation": "s3://of/no-matter.py"}
    boto3.client("glue").create_job(Name=name, Role=role, Command=command)
    job = glue_backends[ACCOUNT][REGION].jobs[name]

    def started() -> tuple[list[str], dict[str, str]] | None:
        if not job.job_runs:
            return None
        given = job.job_runs[0].arguments
        return [word for pair in given.items() for word in pair], {}

    def ended(status: int) -> None:
        assert status == 0
        state_manager.set_transition("glue::job_run", {"progression": "immediate"})

    state_manager.set_transition("glue::job_run", {"progression": "manual", "times": 10_000})
    try:
        with spark_of_aws(started, ended):
            verify_made(on_s3, bucket)
    finally:
        state_manager.unset_transition("glue::job_run")
    assert len(job.job_runs) == 1
    given = job.job_runs[0].arguments
    assert given.keys() == {"--dagster-pipes-context", "--dagster-pipes-messages"}


def test_a_step_starts_a_job_of_emr_serverless_and_waits_for_it(
    on_s3: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emr_models, "JOB_STATUS", "PENDING")  # else it would be over at once
    application = boto3.client("emr-serverless").create_application(
        name=bucket.name, releaseLabel="emr-7.9.0", type="SPARK"
    )["applicationId"]
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,customer_landing=emr-serverless")
    monkeypatch.setenv("STEDI_EMR_APPLICATION", application)
    monkeypatch.setenv("STEDI_EMR_ROLE", f"arn:aws:iam::{ACCOUNT}:role/job")
    monkeypatch.setenv("STEDI_EMR_ENTRY_POINT", "s3://somewhere/job.py")
    backend = emr_models.emrserverless_backends[ACCOUNT][REGION]

    def started() -> tuple[list[str], dict[str, str]] | None:
        for job in backend.job_runs.get(application, []):
            submit = job.job_driver["sparkSubmit"]
            assert submit["entryPoint"] == "s3://somewhere/job.py"
            words = shlex.split(submit["sparkSubmitParameters"])
            settings = dict(word.split("=", 1) for word in words if word != "--conf")
            of_driver = "spark.emr-serverless.driverEnv."
            assert all(name.startswith(of_driver) for name in settings)
            return [], {name.removeprefix(of_driver): v for name, v in settings.items()}
        return None

    def ended(status: int) -> None:
        assert status == 0
        (job,) = backend.job_runs[application]
        job.state = "SUCCESS"

    with spark_of_aws(started, ended):
        verify_made(on_s3, bucket)
    (job,) = backend.job_runs[application]
    assert job.execution_role_arn == f"arn:aws:iam::{ACCOUNT}:role/job"


def test_a_lake_that_no_job_reaches_is_an_error_that_says_so(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "glue")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    ran = run_by(definitions(lake), DAY, ["customer_trusted"])
    assert "which these cannot reach. Set STEDI_LAKE to s3://bucket/prefix." in ran.why_it_failed
