"""The command line: what it says, what it does, and how it ends.

Runs are processes of their own: definitions read the settings when they are imported.
"""

import errno
import json
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from unittest.mock import ANY

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from stedi_assets.cli import main
from stedi_assets.lake import Lake
from stedi_assets.lake import storage as storage_module
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.landing_files import (
    counts_by_date,
    customer,
    device,
    file_of,
    land,
    landed,
    phone,
    rows_by_date,
    run,
)
from stedi_assets_tests.end_to_end.process import counts, stedi, succeeded
from stedi_assets_tests.storages import AnyPath, files_in, only_on_disk, put, root_of

EMPTY_FOLDER = only_on_disk("an empty folder of S3 is none, and told as a lake that is not there")

NO_ROWS = dict.fromkeys(TABLES, 0)


@pytest.fixture
def lake(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The empty lake, as the settings have it."""
    root_of(lake).mkdir()
    monkeypatch.setenv("STEDI_LAKE", str(root_of(lake)))
    return lake


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def rows_told(told: str) -> dict[str, int]:
    """The rows of the tables that a command says it made, without the counts at the end."""
    lines = [line.split() for line in told.split("\n\n")[0].splitlines()]
    return {
        line[0]: int(line[1].replace(",", ""))
        for line in lines
        if len(line) == 3 and line[0] in TABLES and line[2] == "rows"
    }


def files_of_tables(lake: Lake) -> dict[AnyPath, tuple[object, object]]:
    """The files of all partitions."""
    return files_in(root_of(lake), "*/*/ingestion_date=*/part-0.parquet")


# Help and errors.


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_the_commands_and_the_setting(flag: str) -> None:
    result = invoke(flag)
    assert result.exit_code == 0
    for word in ("run", "status", "reconcile", "counts", "report", "ddl", "sample", "STEDI_LAKE"):
        assert word in result.output


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["--date", "--from", "--to", "--select"]),
        ("status", ["--format"]),
        ("reconcile", ["--dry-run"]),
        ("counts", ["--format"]),
        ("report", ["latest.html", "names nobody"]),
        ("ddl", ["--database", "has to be on S3"]),
        ("sample", ["--customers", "--days", "--seed"]),
        ("snapshot", ["NAME", "--from", "--to"]),
        ("snapshots", ["--subject EMAIL", "--format"]),
    ],
)
def test_help_of_a_command_names_its_options(command: str, options: list[str]) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    for option in options:
        assert option in result.output


def test_the_version_is_that_of_the_package() -> None:
    assert "0.1.0" in invoke("--version").output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--date", "2023-02-30"], "'2023-02-30' does not match the format '%Y-%m-%d'"),
        (["run", "--from", "yesterday"], "'yesterday' does not match"),
        (["run", "--date", "2023-08-06", "--to", "2023-08-07"], "--date goes without"),
        (["run", "--from", "2023-08-07", "--to", "2023-08-06"], "--from is later than --to."),
        (
            ["run", "--select", "no_such_table"],
            "There are customer_landing, accel",
        ),
        (["run", "--select", "tag:no_such=tag"], "selects no table"),
        (["run", "--select", "lakehouse_report"], "selects no table"),
        (["run", "--select", '"'], "--select"),
        (["counts", "--format", "xml"], "'xml' is not one of"),
        (["status", "--format", "xml"], "'xml' is not one of"),
        (["reconcile", "--date", "2023-08-06"], "No such option"),
        (["sample", "--days", "many"], "'many' is not a valid integer"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_with_why(
    lake: Lake, arguments: list[str], says: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.s3
@pytest.mark.parametrize("command", ["run", "status", "reconcile", "counts", "report"])
def test_a_lake_that_is_not_there_is_an_error_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("STEDI_LAKE", str(tmp_path / "no lake"))
    result = invoke(command)
    assert result.exit_code == 1
    assert f"there is no lake at {tmp_path / 'no lake'}. Set STEDI_LAKE" in result.stderr
    assert "`stedi sample`" in result.stderr
    assert not (tmp_path / "no lake").exists()


@pytest.mark.s3
@pytest.mark.parametrize("command", ["run", "status", "reconcile", "counts", "report", "sample"])
def test_a_lake_elsewhere_is_an_error_and_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEDI_LAKE", "gs://bucket")
    result = invoke(command)
    assert result.exit_code == 1
    assert "STEDI_LAKE is 'gs://bucket': a lake is a local folder or on S3." in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.s3
@pytest.mark.parametrize("command", ["run", "status", "reconcile", "counts", "sample"])
def test_a_bucket_that_is_not_there_is_an_error_of_one_line(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("STEDI_LAKE", "s3://no-such-bucket/lake")
    result = invoke(command)
    assert result.exit_code == 1
    assert "there is no bucket 'no-such-bucket' at http://127.0.0.1:" in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.s3
def test_a_bucket_without_a_lake_is_an_error_with_what_to_do(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_LAKE", f"s3://{bucket.name}/lake")
    result = invoke("run")
    assert result.exit_code == 1
    assert f"there is no lake at s3://{bucket.name}/lake. Set STEDI_LAKE" in result.stderr


@pytest.mark.s3
@pytest.mark.parametrize("command", ["run", "status", "reconcile", "counts"])
def test_a_lake_on_s3_without_a_key_of_pseudonyms_is_an_error_with_what_to_do(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    bucket.put("customer/landing/a.json")
    monkeypatch.setenv("STEDI_LAKE", f"s3://{bucket.name}")
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY", raising=False)
    result = invoke(command)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: STEDI_PSEUDONYM_KEY is not set: set it to a secret")
    assert bucket.keys == ["customer/landing/a.json"]


@pytest.mark.s3
def test_a_sample_on_s3_is_the_same_as_in_a_folder_and_not_written_twice(
    bucket: Bucket, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = ("sample", "--customers", "3", "--days", "2", "--seed", "5")
    invoke(*sample)
    files = [path for path in root_of(lake).rglob("*") if path.is_file()]
    monkeypatch.setenv("STEDI_LAKE", f"s3://{bucket.name}/lake")
    result = invoke(*sample)
    assert f"from 2023-08-06 into s3://{bucket.name}/lake." in result.stdout
    for path in files:
        key = f"lake/{path.relative_to(root_of(lake))}"
        stored = bucket.client.get_object(Bucket=bucket.name, Key=key)
        assert stored["Body"].read() == path.read_bytes()
    before = bucket.objects
    assert len(before) == len(files)
    result = invoke(*sample)
    assert result.exit_code == 1
    assert "already holds landing files" in result.stderr
    assert bucket.objects == before


@pytest.mark.s3
@pytest.mark.parametrize("command", ["run", "status", "reconcile"])
def test_a_start_date_that_is_none_is_an_error_with_what_to_do(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("STEDI_START_DATE", "1st of May")
    result = invoke(command)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: STEDI_START_DATE is '1st of May': set it to a date, YYYY-MM-DD\n"
    )


NO_DATE = (
    "Error: landing file customer/landing/ingestion_date=2023-08-32/file.json: "
    "'ingestion_date=2023-08-32' is no date; rename it to ingestion_date=YYYY-MM-DD\n"
)


@pytest.mark.s3
def test_a_folder_that_names_no_date_is_an_error_that_names_the_file(lake: Lake) -> None:
    land(lake, "customer", "2023-08-32", customer("ann@test.com", "s"))
    result = invoke("run")
    assert result.exit_code == 1
    assert result.stderr == NO_DATE
    assert result.stdout == ""


@pytest.mark.s3
def test_a_damaged_partition_is_an_error_with_what_to_do(lake: Lake) -> None:
    file = file_of(lake, "customer_trusted", "2023-08-06")
    file.parent.mkdir(parents=True)
    put(file, b"not parquet, but long enough to be looked at")
    result = invoke("counts")
    assert result.exit_code == 1
    assert "a partition is damaged" in result.stderr
    assert str(file) in result.stderr
    assert "`stedi run` makes it again." in result.stderr
    assert result.stderr.count("\n") == 1
    assert "  warning: 1 partitions are damaged: they count as if" in invoke("report").stdout


# report


@pytest.mark.long
def test_a_report_tells_where_it_is_and_what_is_not_as_it_should_be(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    result = invoke("report")
    assert result.exit_code == 0
    assert "  warning: customer_landing is missing: it has no partition.\n" in result.stdout
    assert (root_of(lake) / "reports" / "latest.html").is_file()
    assert str(root_of(lake) / "reports" / "latest.html") in result.stdout
    succeeded(stedi(lake, "run"))
    assert "warning" not in invoke("report").stdout


@pytest.mark.s3
@EMPTY_FOLDER
def test_a_report_of_an_empty_lake_says_so(lake: Lake) -> None:
    result = invoke("report")
    assert result.exit_code == 0
    assert "warning: The lake is empty" in result.stdout


# sample


@pytest.mark.s3
def test_a_sample_is_written_into_the_lake_and_not_twice(lake: Lake) -> None:
    result = invoke("sample", "--customers", "3", "--days", "2", "--seed", "5")
    assert result.exit_code == 0
    assert "3 customers over 2 days from 2023-08-06" in result.stdout
    before = files_in(root_of(lake), "**/*.json")
    assert before
    result = invoke("sample")
    assert result.exit_code == 1
    assert re.search("already holds (landing )?files", result.stderr)
    assert files_in(root_of(lake), "**/*.json") == before


@pytest.mark.parametrize("option", ["--customers", "--days"])
def test_a_sample_of_nothing_is_refused(lake: Lake, option: str) -> None:
    result = invoke("sample", option, "0")
    assert result.exit_code == 1
    assert f"{option.strip('-')} must be at least 1, not 0" in result.stderr
    assert files_in(root_of(lake), "**/*") == {}


def test_a_sample_that_would_land_in_the_future_is_refused(lake: Lake) -> None:
    result = invoke("sample", "--days", "100000")
    assert result.exit_code == 1
    assert re.match(r"Error: days must be at most \d{4}, not 100000: ", result.stderr)
    assert files_in(root_of(lake), "**/*") == {}


@pytest.mark.s3
@pytest.mark.parametrize("command", ["run", "counts", "sample", "snapshots"])
def test_a_lake_that_is_a_file_is_an_error_of_one_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "lake").write_text("")
    monkeypatch.setenv("STEDI_LAKE", str(tmp_path / "lake"))
    result = invoke(command)
    assert result.exit_code == 1
    lake = str(tmp_path / "lake")
    assert result.stderr == f"Error: STEDI_LAKE is {lake!r}, which is a file: set it to a folder.\n"


@pytest.mark.parametrize("command", ["run", "counts", "snapshots"])
def test_a_limit_of_memory_that_is_none_is_an_error_that_names_the_setting(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("STEDI_MEMORY_LIMIT", "plenty")
    result = invoke(command)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: STEDI_MEMORY_LIMIT is 'plenty': set it to an amount such as 1600MB\n"
    )


@pytest.mark.parametrize("command", ["run", "reconcile", "forget ann@test.com"])
def test_a_dagster_home_that_is_not_there_is_told_before_anything_is_done(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    before = files_in(root_of(lake), "**/*")
    monkeypatch.setenv("DAGSTER_HOME", str(root_of(lake) / "nowhere"))
    result = invoke(*command.split())
    assert result.exit_code == 1
    assert not result.stdout
    assert re.fullmatch(r"Error: DAGSTER_HOME is '.*nowhere': set it to .*\n", result.stderr)
    assert files_in(root_of(lake), "**/*") == before


def test_a_dagster_home_that_dagster_cannot_use_is_an_error_that_names_it(
    lake: Lake, tmp_path: Path
) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("nonsense: 1")
    done = stedi(lake, "run", DAGSTER_HOME=str(home))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: DAGSTER_HOME is {str(home)!r}, and Dagster cannot ")
    assert 'unexpected config entry "nonsense"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lake_in_which_one_may_not_write_is_an_error_that_says_what_it_takes(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whom CI runs, root, may write anywhere: what the system answers others is put here."""

    def refuse(dir: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{dir}/tmp")

    monkeypatch.setattr(storage_module.tempfile, "mkdtemp", refuse)
    result = invoke("counts")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {root_of(lake)}/_staging/tmp: Permission denied. Whoever runs `stedi` has to read "
        f"and write what is in {root_of(lake)}; also commands that change nothing work there.\n"
    )
    debugged = invoke("--debug", "counts")
    assert isinstance(debugged.exception, PermissionError)


# counts


@pytest.mark.s3
@EMPTY_FOLDER
def test_counts_of_an_empty_lake_are_zeros_in_both_forms(lake: Lake) -> None:
    assert json.loads(invoke("counts", "--format", "json").stdout) == NO_ROWS
    lines = invoke("counts").stdout.splitlines()
    assert lines[0].split() == ["table", "zone", "rows"]
    zones = [table.zone.value for table in TABLES.values()]
    assert [line.split() for line in lines[1:]] == [
        [name, zone, "0"] for name, zone in zip(TABLES, zones, strict=True)
    ]


@pytest.mark.s3
def test_counts_that_are_not_those_of_the_sample_are_marked(lake: Lake) -> None:
    invoke("sample", "--customers", "3", "--days", "1", "--seed", "5")
    lines = invoke("counts").stdout.splitlines()
    assert lines[0].split() == ["table", "zone", "rows", "expected"]
    (customers,) = [line for line in lines if line.startswith("customer_landing")]
    assert customers.split() == ["customer_landing", "landing", "0", ANY, "differs"]
    (rejects,) = [line for line in lines if line.startswith("customer_rejects")]
    assert rejects.split() == ["customer_rejects", "landing", "0", "0"]


@pytest.mark.s3
@EMPTY_FOLDER
def test_a_run_over_a_lake_without_files_is_an_error_with_what_to_do(lake: Lake) -> None:
    result = invoke("run")
    assert result.exit_code == 1
    assert f"there are no landing files below {root_of(lake)}." in result.stderr
    assert "`stedi sample`" in result.stderr
    assert result.stdout == ""


# Runs.


@pytest.mark.long
def test_a_sample_gives_the_counts_of_its_manifest(lake: Lake) -> None:
    succeeded(stedi(lake, "sample", "--customers", "40", "--days", "3", "--seed", "2"))
    told = succeeded(stedi(lake, "run"))
    manifest = json.loads((root_of(lake) / "manifest.json").read_bytes())
    assert counts(lake) == manifest["counts"]
    assert manifest["counts"]["machine_learning_curated"] > 0
    assert manifest["counts"]["step_trainer_rejects"] > 0
    assert "Run 1 of 1: ingestion date 2023-08-06 to 2023-08-08" in told
    assert "differs" not in told
    assert "expected" in told
    assert "ERROR" not in told
    assert "not made" not in told
    assert "DAGSTER_HOME is not set" in told
    before = files_in(root_of(lake))
    assert len(before) == 3 * len(TABLES) + 1, "and what was found right"
    assert succeeded(stedi(lake, "run")).startswith("All tables are up to date.\n")
    assert files_in(root_of(lake)) == before


@pytest.mark.long
def test_dates_with_a_gap_are_two_runs_and_options_narrow_them(lake: Lake) -> None:
    for day in ("2023-08-01", "2023-08-06", "2023-08-07", "2023-08-09", "2023-08-20"):
        land(lake, "customer", day, customer(f"{day}@test.com", f"s-{day}"))
    told = succeeded(stedi(lake, "run", "--from", "2023-08-02", "--to", "2023-08-19"))
    assert [line for line in told.splitlines() if line.startswith("Run ")] == [
        "Run 1 of 2: ingestion date 2023-08-06 to 2023-08-07",
        "Run 2 of 2: ingestion date 2023-08-09",
    ]
    assert counts_by_date(lake, "customer_landing") == {
        "2023-08-06": 1,
        "2023-08-07": 1,
        "2023-08-09": 1,
    }
    told = succeeded(stedi(lake, "run", "--date", "2023-08-20"))
    assert "Run 1 of 1: ingestion date 2023-08-20\n" in told
    assert "2023-08-01" not in counts_by_date(lake, "customer_landing")
    assert list(counts_by_date(lake, "customer_trusted")) == [
        "2023-08-06",
        "2023-08-07",
        "2023-08-09",
        "2023-08-20",
    ]


@pytest.mark.long
def test_select_makes_the_tables_that_it_names_and_no_others(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    told = succeeded(stedi(lake, "run", "--select", "customer_landing"))
    assert counts(lake) == NO_ROWS | {"customer_landing": 1}
    assert rows_told(told) == {"customer_landing": 1, "customer_rejects": 0}
    assert "not made" not in told
    made = {name for name, table in TABLES.items() if lake.partitions(table)}
    assert made == {"customer_landing", "customer_rejects"}, "one reading gives both"


@pytest.mark.long
def test_a_file_before_the_first_partition_is_an_error_and_the_other_dates_go_on(
    lake: Lake,
) -> None:
    land(lake, "customer", "2021-12-31", customer("old@test.com", "s"), name="old.json")
    land(lake, "accelerometer", "2999-01-01", phone("ann@test.com", 1), name="new.json")
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    process = stedi(lake, "run")
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "Error: customer/landing/ingestion_date=2021-12-31/old.json: the ingestion date "
        "2021-12-31 is before the first partition, 2022-01-01: set STEDI_START_DATE to "
        "2021-12-31 or earlier.",
        "Error: accelerometer/landing/ingestion_date=2999-01-01/new.json: the ingestion date "
        "2999-01-01 is in the future: give the files the date on which they came.",
    ]
    assert "Run 1 of 1: ingestion date 2023-08-06" in process.stdout
    assert counts_by_date(lake, "customer_trusted") == {"2023-08-06": 1}
    # The remedies are some.
    landed(lake, "accelerometer", "2999-01-01", "new.json").unlink()
    process = stedi(lake, "run", "--to", "2023-01-01", STEDI_START_DATE="2021-12-31")
    succeeded(process)
    assert counts_by_date(lake, "customer_trusted") == {"2021-12-31": 1, "2023-08-06": 1}


@pytest.mark.long
def test_a_run_that_fails_says_why_and_ends_with_an_error(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 1))
    readings = [device(time, "s") for time in range(94)]
    land(lake, "step_trainer", "2023-08-06", *readings, *["{spoilt"] * 6)
    land(lake, "customer", "2023-08-08", customer("bob@test.com", "t"))
    process = stedi(lake, "run")
    assert process.returncode == 1
    lines = process.stdout.splitlines()
    assert (
        "  ERROR: step_trainer_landing, check rejects: "
        "6 of 100 records were rejected; at most 6.0% of a day's, on 2023-08-06"
    ) in lines
    (not_made,) = [line for line in lines if line.startswith("  not made: ")]
    assert set(not_made.removeprefix("  not made: ").split(", ")) == {
        "step_trainer_trusted",
        "machine_learning_curated",
    }
    assert "Run 2 of 2: ingestion date 2023-08-08" in lines, "the other dates go on"
    assert counts_by_date(lake, "customer_trusted") == {"2023-08-06": 1, "2023-08-08": 1}
    assert counts_by_date(lake, "step_trainer_trusted") == {"2023-08-08": 0}
    # With better files the same command brings all up to date.
    land(lake, "step_trainer", "2023-08-06", *readings)
    succeeded(stedi(lake, "run"))
    assert counts_by_date(lake, "machine_learning_curated") == {"2023-08-06": 1, "2023-08-08": 0}


def test_few_rejects_are_a_warning_and_the_run_succeeds(lake: Lake) -> None:
    land(lake, "step_trainer", "2023-08-06", *(device(time, "s") for time in range(99)), "{spoilt")
    told = succeeded(stedi(lake, "run"))
    assert (
        "  warning: step_trainer_landing, check rejects: "
        "1 of 100 records were rejected; at most 1.0% of a day's, on 2023-08-06\n"
    ) in told
    (reject,) = rows_by_date(lake, "step_trainer_rejects")["2023-08-06"]
    assert reject == (
        "step_trainer/landing/ingestion_date=2023-08-06/file.json",
        100,
        "not valid JSON",
        "{spoilt",
    )


# What is stale.


def replaced_rows(file: AnyPath, *, keep_time: bool = False) -> None:
    """Take the last row out of a file, in place, and keep what the file notes of itself."""
    stat = file.stat() if keep_time else None
    rows = pq.ParquetFile(BytesIO(file.read_bytes())).read()
    draft = BytesIO()
    pq.write_table(rows.slice(0, len(rows) - 1), draft)
    file.write_bytes(draft.getvalue())
    if stat:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


@pytest.fixture
def stale_lake(lake: Lake) -> Lake:
    """Tables of two dates, of which one was deleted, one altered, and one landing file replaced."""
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    readings = [phone("ann@test.com", 100), phone("ann@test.com", 200)]
    land(lake, "accelerometer", "2023-08-06", *readings)
    land(lake, "customer", "2023-08-07", customer("bob@test.com", "t"))
    assert run(lake, "2023-08-06", "2023-08-07").success
    file_of(lake, "machine_learning_curated", "2023-08-07").unlink()
    replaced_rows(file_of(lake, "accelerometer_trusted", "2023-08-06"))
    # Bob's other name is in the landing table, and in the row that has his key.
    land(lake, "customer", "2023-08-07", customer("bob@test.com", "t", customerName="Robert"))
    return lake


STALE = [
    ("customer_landing", "2023-08-07", "landing files changed", 1, 1, 0),
    ("customer_rejects", "2023-08-07", "landing files changed", 0, 0, 0),
    ("customer_trusted", "2023-08-07", "upstream rows changed", 0, 0, 1),
    ("accelerometer_trusted", "2023-08-06", "damaged", 1, 0, 0),
    ("machine_learning_curated", "2023-08-07", "missing", 0, 0, 0),
]
"""By hand: the partitions that were touched, and what hangs on them."""


@pytest.mark.s3
@EMPTY_FOLDER
def test_an_empty_lake_is_up_to_date(lake: Lake) -> None:
    assert invoke("status").stdout == "Every partition holds what it should.\n"


@pytest.mark.s3
def test_status_of_a_lake_that_is_up_to_date(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    assert run(lake, "2023-08-06").success
    result = invoke("status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "Every partition holds what it should.\n"
    assert json.loads(invoke("status", "--format", "json").stdout) == {
        "up_to_date": True,
        "stale": [],
        "misplaced": [],
    }


@pytest.mark.s3
def test_status_names_each_partition_that_is_not_right_with_rows_and_why(stale_lake: Lake) -> None:
    before = files_in(root_of(stale_lake))
    result = invoke("status")
    assert (result.exit_code, result.stderr) == (0, "")
    heads, *lines, sentence = result.stdout.splitlines()
    assert heads.split() == ["table", "ingestion", "date", "missing", "extra", "changed", "why"]
    assert sorted(line.split(maxsplit=5) for line in lines) == sorted(
        [table, day, str(missing), str(extra), str(changed), why]
        for table, day, why, missing, extra, changed in STALE
    )
    assert sentence == "5 partitions are not what they should be, by 4 rows."
    assert files_in(root_of(stale_lake)) == before, "it changes nothing"


def test_status_as_json_says_the_same(stale_lake: Lake) -> None:
    result = invoke("status", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found.keys() == {"up_to_date", "stale", "misplaced"}
    assert (found["up_to_date"], found["misplaced"]) == (False, [])
    by_name = sorted(found["stale"], key=lambda of: (of["table"], of["ingestion_date"]))
    assert by_name == [
        {
            "table": table,
            "ingestion_date": day,
            "why": why,
            "missing": missing,
            "extra": extra,
            "changed": changed,
            "held_back": False,
        }
        for table, day, why, missing, extra, changed in sorted(STALE)
    ]


@pytest.mark.s3
def test_status_tells_of_files_that_belong_to_no_partition(lake: Lake) -> None:
    land(lake, "customer", "2023-08-32", customer("ann@test.com", "s"))
    result = invoke("status")
    assert (result.exit_code, result.stderr) == (0, NO_DATE)
    assert result.stdout == "Every partition holds what it should.\n"
    result = invoke("status", "--format", "json")
    assert result.stderr == ""
    assert [f"Error: {line}\n" for line in json.loads(result.stdout)["misplaced"]] == [NO_DATE]


def with_bad_records(lake: Lake) -> None:
    """Let what hangs on the devices' files of the sixth wait for better ones."""
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 1))
    readings = [device(time, "s") for time in range(94)]
    land(lake, "step_trainer", "2023-08-06", *readings, *["{spoilt"] * 6)


def test_status_says_which_partitions_wait_for_better_files(lake: Lake) -> None:
    with_bad_records(lake)
    assert not run(lake, "2023-08-06").success
    lines = invoke("status").stdout.splitlines()
    waiting = [line for line in lines if "held back: too many rejects of its date" in line]
    assert {line.split()[0] for line in waiting} == {
        "step_trainer_trusted",
        "machine_learning_curated",
    }
    found = json.loads(invoke("status", "--format", "json").stdout)
    assert not found["up_to_date"]
    assert {of["table"] for of in found["stale"] if of["held_back"]} == {
        "step_trainer_trusted",
        "machine_learning_curated",
    }


# Putting it right.


@pytest.mark.long
def test_a_dry_run_of_reconcile_prints_what_status_does_and_changes_nothing(
    stale_lake: Lake,
) -> None:
    before = files_in(root_of(stale_lake))
    result = invoke("reconcile", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == invoke("status").stdout
    assert files_in(root_of(stale_lake)) == before


@pytest.mark.s3
def test_reconcile_makes_again_what_is_not_right_and_nothing_else(stale_lake: Lake) -> None:
    before = files_of_tables(stale_lake)
    told = succeeded(stedi(stale_lake, "reconcile"))
    assert rows_told(told) == {
        "customer_landing": 1,
        "customer_rejects": 0,
        "customer_trusted": 1,
        "accelerometer_trusted": 2,
        "machine_learning_curated": 0,
    }
    assert "customer_trusted          trusted              2" in told.splitlines()
    after = files_of_tables(stale_lake)
    touched = {file_of(stale_lake, table, day) for table, day, *_ in STALE}
    assert {path for path, state in after.items() if before.get(path) != state} == touched
    assert invoke("status").stdout == "Every partition holds what it should.\n"
    told = succeeded(stedi(stale_lake, "reconcile"))
    assert "  every partition holds what it should" in told.splitlines()
    assert files_of_tables(stale_lake) == after


@pytest.mark.s3
@pytest.mark.long
@only_on_disk("an object that was altered has another ETag")
def test_reconcile_reads_every_row_and_a_run_those_of_files_that_changed(lake: Lake) -> None:
    """A file that somebody altered so that it looks untouched."""
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 1), phone("ann@test.com", 2))
    succeeded(stedi(lake, "run"))
    file = file_of(lake, "accelerometer_trusted", "2023-08-06")
    replaced_rows(file, keep_time=True)
    assert succeeded(stedi(lake, "run")).startswith("All tables are up to date.\n")
    assert counts_by_date(lake, "accelerometer_trusted") == {"2023-08-06": 1}
    told = succeeded(stedi(lake, "reconcile"))
    assert rows_told(told) == {"accelerometer_trusted": 2}
    assert counts_by_date(lake, "accelerometer_trusted") == {"2023-08-06": 2}
    # With another time it looks like another file.
    replaced_rows(file)
    told = succeeded(stedi(lake, "run"))
    assert rows_told(told) == {"accelerometer_trusted": 2}
    assert "Run " not in told


@pytest.mark.long
def test_reconcile_reads_new_files_and_tells_of_no_date_what_waits_for_better_ones(
    lake: Lake,
) -> None:
    with_bad_records(lake)
    process = stedi(lake, "reconcile")
    assert rows_told(process.stdout)["customers_curated"] == 1
    assert "step_trainer_trusted" not in rows_told(process.stdout)
    assert "every partition holds what it should" not in process.stdout
    process = stedi(lake, "reconcile")
    assert rows_told(process.stdout) == {}
    assert "every partition holds what it should" not in process.stdout, "two wait"


@pytest.mark.long
def test_what_waits_for_better_files_is_not_called_up_to_date_by_a_run(lake: Lake) -> None:
    with_bad_records(lake)
    assert stedi(lake, "run").returncode == 1
    process = stedi(lake, "run")
    assert "All tables are up to date." not in process.stdout
    assert "every partition holds what it should" not in process.stdout


# Runs end with it.


@pytest.mark.long
def test_a_run_reads_the_sources_that_changed_and_mends_what_that_changes_elsewhere(
    lake: Lake,
) -> None:
    """A late consent brings the earlier readings in."""
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    land(lake, "step_trainer", "2023-08-06", device(100, "s"))
    succeeded(stedi(lake, "run"))
    assert counts(lake)["accelerometer_trusted"] == 0
    before = files_of_tables(lake)
    land(lake, "customer", "2023-08-08", customer("ann@test.com", "s"))
    told = succeeded(stedi(lake, "run"))
    first, then = told.split("Reconciliation: looking for partitions that should hold other rows")
    assert first.startswith("Run 1 of 1: ingestion date 2023-08-08\n")
    assert rows_told(first) == {
        "customer_landing": 1,
        "customer_rejects": 0,
        "customer_trusted": 1,
        "accelerometer_trusted": 0,
        "customers_curated": 0,
        "step_trainer_trusted": 0,
        "machine_learning_curated": 0,
    }, "no other source is read"
    assert rows_told(then) == {
        "accelerometer_trusted": 1,
        "customers_curated": 1,
        "step_trainer_trusted": 1,
        "machine_learning_curated": 1,
    }
    assert counts_by_date(lake, "machine_learning_curated")["2023-08-06"] == 1
    after = files_of_tables(lake)
    landing = [path for path in before if "landing_parquet" in str(path) or "rejected" in str(path)]
    assert {path: after[path] for path in landing} == {path: before[path] for path in landing}
    assert invoke("status").stdout == "Every partition holds what it should.\n"


@pytest.mark.long
def test_a_run_makes_a_deleted_partition_again(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    succeeded(stedi(lake, "run"))
    file_of(lake, "customer_trusted", "2023-08-06").unlink()
    told = succeeded(stedi(lake, "run"))
    assert told.startswith("Reconciliation: ")
    assert rows_told(told) == {"customer_trusted": 1}
    assert counts_by_date(lake, "customer_trusted") == {"2023-08-06": 1}


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "mended"),
    [
        ("--date 2023-08-06", ["2023-08-06"]),
        ("--to 2023-08-06", ["2023-08-06"]),
        ("--from 2023-08-07 --select customer_trusted", ["2023-08-07"]),
        ("--select customers_curated", []),
    ],
)
def test_options_narrow_what_a_run_mends(lake: Lake, options: str, mended: list[str]) -> None:
    for day, name in (("2023-08-06", "ann"), ("2023-08-07", "bob")):
        land(lake, "customer", day, customer(f"{name}@test.com", f"s-{name}"))
    assert run(lake, "2023-08-06", "2023-08-07").success
    for day in ("2023-08-06", "2023-08-07"):
        file_of(lake, "customer_trusted", day).unlink()
    told = succeeded(stedi(lake, "run", *options.split()))
    assert counts_by_date(lake, "customer_trusted") == dict.fromkeys(mended, 1)
    assert rows_told(told) == ({"customer_trusted": len(mended)} if mended else {})
    assert "All tables are up to date." not in told
    assert "every partition holds what it should" not in told


@pytest.mark.long
def test_a_run_of_a_date_on_which_nothing_came_says_so_and_calls_no_other_date_up_to_date(
    lake: Lake,
) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    told = succeeded(stedi(lake, "run", "--date", "2023-08-07"))
    assert told.startswith("There are no landing files of these dates.\n")
    assert "All tables are up to date." not in told
    assert "every partition holds what it should" not in told
    assert counts(lake) == NO_ROWS
    assert files_of_tables(lake) == {}


STOPS_ITSELF = """
import os, signal, sys
import stedi_assets.cli as cli

told = cli.tell

def tell(line="", *, err=False):
    told(line, err=err)
    if "customer_landing" in line:
        os.kill(os.getpid(), signal.SIGINT)

cli.tell = tell
sys.argv = ["stedi", "run"]
cli.entry_point()
"""


@pytest.mark.long
def test_a_run_that_is_stopped_ends_there_and_the_next_one_makes_the_rest(lake: Lake) -> None:
    """By Ctrl-C, which comes as soon as the first table is told."""
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    done = subprocess.run([sys.executable, "-c", STOPS_ITSELF], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "Aborted!"
    assert done.stdout.splitlines()[-1] == (
        "  stopped: what was made stays, and what is missing is made the next time"
    )
    assert "ERROR" not in done.stdout
    assert "Reconciliation" not in done.stdout
    assert counts(lake) == NO_ROWS | {"customer_landing": 1}
    succeeded(stedi(lake, "run"))
    assert counts(lake) == NO_ROWS | {"customer_landing": 1, "customer_trusted": 1}


def test_who_waits_for_another_run_is_told_so(lake: Lake) -> None:
    waiting = [Path(sys.executable).with_name("stedi"), "report"]
    with lake.writing():
        process = subprocess.Popen(waiting, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stderr
        told = process.stderr.readline().decode()
        assert told == f"Waiting for another process, which writes {root_of(lake)}.\n"
        assert process.poll() is None
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert not rest


@pytest.mark.long
def test_after_a_run_of_some_tables_a_run_of_all_makes_the_others(lake: Lake) -> None:
    """Those of customers, that others read, among them."""
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    succeeded(stedi(lake, "run", "--select", "customer_landing"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    succeeded(stedi(lake, "run"))
    assert counts(lake)["customers_curated"] == counts(lake)["accelerometer_trusted"] == 1
    assert invoke("status").stdout == "Every partition holds what it should.\n"
    assert succeeded(stedi(lake, "run")).startswith("All tables are up to date.\n")
