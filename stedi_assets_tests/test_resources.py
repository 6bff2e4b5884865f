"""Settings of the environment: what they mean, and what is said of those that make no sense."""

import re
from datetime import date, timedelta
from pathlib import Path

import boto3
import duckdb
import pandas as pd
import pytest

from stedi_assets.engines.spark import SparkEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import (
    emr_application,
    engines,
    glue_job,
    in_memory,
    keep_runs,
    open_engine,
    pseudonym_key,
    settings_of_jobs,
)
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket

CUSTOMERS = {"customer_landing", "customer_rejects", "customer_trusted", "customers_curated"}


# STEDI_ENGINE.


def test_without_the_setting_duckdb_computes_all_tables(lake: Lake) -> None:
    assert engines() == dict.fromkeys(TABLES, "duckdb")
    with open_engine(lake) as engine:
        assert not isinstance(engine, SparkEngine)


@pytest.mark.parametrize("name", ["duckdb", "spark", "glue", "emr-serverless"])
def test_an_engine_alone_is_that_of_all_tables(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("STEDI_ENGINE", name)
    assert engines() == dict.fromkeys(TABLES, name)


def test_tables_whose_names_match_a_pattern_are_exceptions_and_rejects_go_with_what_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "spark,customer*=duckdb")
    assert {name for name, engine in engines().items() if engine == "duckdb"} == CUSTOMERS
    assert set(engines().values()) == {"duckdb", "spark"}


def test_of_several_patterns_that_match_the_last_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,*_trusted=glue,step_*=emr-serverless,*=spark")
    assert engines() == dict.fromkeys(TABLES, "spark")
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,*_trusted=glue,step_*=emr-serverless")
    assert {name: engine for name, engine in engines().items() if engine != "duckdb"} == {
        "customer_trusted": "glue",
        "accelerometer_trusted": "glue",
        "step_trainer_landing": "emr-serverless",
        "step_trainer_rejects": "emr-serverless",
        "step_trainer_trusted": "emr-serverless",
    }


@pytest.mark.parametrize(
    ("value", "engine"),
    [
        ("Spark", "Spark"),
        ("pandas", "pandas"),
        (" spark", " spark"),
        ("emr", "emr"),
        ("customer*=duckdb", "customer*=duckdb"),
        ("spark,", ""),
        ("spark,duckdb*", "duckdb*"),
        ("spark,customer*=", ""),
        ("spark,customer*=duckdb,*=pandas", "pandas"),
        ("spark,customer*=duckdb, *=glue ", "glue "),
    ],
)
def test_an_unknown_engine_is_an_error_that_says_which_there_are(
    monkeypatch: pytest.MonkeyPatch, value: str, engine: str
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", value)
    told = (
        f"STEDI_ENGINE is {value!r}, with {engine!r} for an engine: set it to one of duckdb, "
        "spark, glue, emr-serverless, "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        engines()


@pytest.mark.parametrize("pattern", ["customers_trusted", "Customer*", "", "*_rejects", "a=*"])
def test_a_pattern_that_matches_no_table_is_an_error_that_says_which_there_are(
    monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", f"duckdb,*=glue,{pattern}=glue")
    with pytest.raises(ValueError, match=re.escape(f"and {pattern!r} matches no table: there are")):
        engines()


def test_spark_is_there_if_any_table_needs_it_and_does_not_start_for_the_others(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "glue,customer_trusted=spark")
    monkeypatch.setenv("SPARK_REMOTE", "sc://127.0.0.1:1")  # nobody listens there
    with open_engine(lake) as engine:
        assert isinstance(engine, SparkEngine)
        assert {name for name, of in TABLES.items() if engine.computes(of)} == {"customer_trusted"}
        table = TABLES["customers_curated"]
        (file,) = engine.write(table, engine.table(table, {}), [date(2023, 8, 6)], {}).values()
        assert file.is_file()


# Jobs.


@pytest.mark.parametrize(
    "missing", ["STEDI_EMR_APPLICATION", "STEDI_EMR_ROLE", "STEDI_EMR_ENTRY_POINT"]
)
def test_a_setting_that_a_job_needs_is_named_if_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in ("STEDI_EMR_APPLICATION", "STEDI_EMR_ROLE", "STEDI_EMR_ENTRY_POINT"):
        monkeypatch.setenv(name, "there")
    assert set(emr_application().values()) == {"there"}
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=f"^{missing} is not set"):
        emr_application()
    with pytest.raises(ValueError, match=r"^STEDI_GLUE_JOB is not set"):
        glue_job()


def test_a_job_keeps_the_lake_as_the_run_does_and_is_told_no_secret(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "glue")
    monkeypatch.setenv("STEDI_START_DATE", "2020-02-02")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "nobody is told")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY_SECRET", "arn:of:the:secret")
    told = settings_of_jobs(lake, Policy.STRICT)
    assert told == {
        "STEDI_ENGINE": "spark",
        "STEDI_LAKE": lake.storage.uri(),
        "STEDI_POLICY": "strict",
        "STEDI_START_DATE": "2020-02-02",
        "STEDI_ATHENA_WORKGROUP": "",
        "STEDI_PSEUDONYM_KEY_SECRET": "arn:of:the:secret",
    }


# The key of pseudonyms.


def test_the_key_of_pseudonyms_may_be_in_secrets_manager(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = boto3.client("secretsmanager")
    secret = manager.create_secret(Name=bucket.name, SecretString="what nobody guesses")["ARN"]
    lake = open_lake(f"s3://{bucket.name}/lake")
    with pytest.raises(ValueError, match=r"^STEDI_PSEUDONYM_KEY is not set"):
        pseudonym_key(lake)
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY_SECRET", secret)
    assert pseudonym_key(lake) == "what nobody guesses"
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "said directly")
    assert pseudonym_key(lake) == "said directly"


def test_a_secret_that_cannot_be_read_is_an_error_that_names_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY_SECRET", "nowhere")
    with pytest.raises(ValueError, match=r"^STEDI_PSEUDONYM_KEY_SECRET is 'nowhere', and Secrets"):
        pseudonym_key(open_lake(f"s3://{bucket.name}/lake"))


# How long runs are kept.


def test_runs_are_kept_for_ninety_days_or_as_many_as_the_setting_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value, days in {"": 90, "1": 1, "365": 365}.items():
        monkeypatch.setenv("STEDI_KEEP_RUNS_DAYS", value)
        assert keep_runs() == timedelta(days=days)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "a week", "²", "99999999999"])
def test_a_number_of_days_that_is_none_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("STEDI_KEEP_RUNS_DAYS", value)
    with pytest.raises(ValueError, match=f"^STEDI_KEEP_RUNS_DAYS is '{re.escape(value)}': set it"):
        keep_runs()


def test_no_query_fetches_an_extension_reads_a_variable_or_uses_anybodys_credentials(
    tmp_path: Path,
) -> None:
    with in_memory() as connection:
        somebody = pd.DataFrame({"email": ["ann@test.com"]})
        with pytest.raises(duckdb.CatalogException, match="somebody"):
            connection.sql("FROM somebody")
        assert len(somebody) == 1
        connection.execute("SET extension_directory = $folder", {"folder": str(tmp_path)})
        for address in ("https://127.0.0.1:9/a.parquet", "s3://bucket/a.parquet"):
            with pytest.raises(duckdb.Error, match=r"(?i)extension|httpfs"):
                connection.execute("FROM read_parquet($file)", {"file": address})
        assert list(tmp_path.iterdir()) == []
        found = connection.execute(
            "SELECT current_setting('allow_persistent_secrets'), "
            "current_setting('allow_community_extensions'), "
            "current_setting('autoload_known_extensions')"
        ).fetchall()
        assert found == [(False, False, False)]
