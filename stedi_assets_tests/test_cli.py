"""The command line: what it says, what it does, and how it ends.

Runs are processes of their own: definitions read the settings when they are imported.
"""

import json
from pathlib import Path
from unittest.mock import ANY

import pytest
from click.testing import CliRunner, Result

from stedi_assets.cli import main
from stedi_assets.lake import Lake
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.landing_files import (
    counts_by_date,
    customer,
    device,
    file_of,
    land,
    phone,
    rows_by_date,
)
from stedi_assets_tests.end_to_end.process import counts, files_in, stedi, succeeded

NO_ROWS = dict.fromkeys(TABLES, 0)


@pytest.fixture
def lake(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The empty lake, as the settings have it."""
    lake.storage.root.mkdir()
    monkeypatch.setenv("STEDI_LAKE", str(lake.storage.root))
    return lake


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


# Help and errors.


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_the_commands_and_the_setting(flag: str) -> None:
    result = invoke(flag)
    assert result.exit_code == 0
    for word in ("run", "counts", "sample", "STEDI_LAKE"):
        assert word in result.output


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["--date", "--from", "--to", "--select"]),
        ("counts", ["--format"]),
        ("sample", ["--customers", "--days", "--seed"]),
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
        (["run", "--select", "no_such_table"], "no_such_table"),
        (["run", "--select", "tag:no_such=tag"], "selects no table"),
        (["run", "--select", '"'], "--select"),
        (["counts", "--format", "xml"], "'xml' is not one of"),
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


@pytest.mark.parametrize("command", ["run", "counts"])
def test_a_lake_that_is_not_there_is_an_error_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("STEDI_LAKE", str(tmp_path / "no lake"))
    result = invoke(command)
    assert result.exit_code == 1
    assert f"there is no lake at {tmp_path / 'no lake'}. Set STEDI_LAKE" in result.stderr
    assert "`stedi sample`" in result.stderr
    assert not (tmp_path / "no lake").exists()


@pytest.mark.parametrize("command", ["run", "counts", "sample"])
def test_a_lake_elsewhere_is_an_error_and_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEDI_LAKE", "s3://bucket")
    result = invoke(command)
    assert result.exit_code == 1
    assert "STEDI_LAKE is 's3://bucket': only a local folder can be a lake" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_start_date_that_is_none_is_an_error_with_what_to_do(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_START_DATE", "1st of May")
    result = invoke("run")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: STEDI_START_DATE is '1st of May': set it to a date, YYYY-MM-DD\n"
    )


def test_a_folder_that_names_no_date_is_an_error_that_names_the_file(lake: Lake) -> None:
    land(lake, "customer", "2023-08-32", customer("ann@test.com", "s"))
    result = invoke("run")
    assert result.exit_code == 1
    assert "customer/landing/ingestion_date=2023-08-32/file.json" in result.stderr
    assert "Traceback" not in result.output


def test_a_damaged_partition_is_an_error_with_what_to_do(lake: Lake) -> None:
    file = file_of(lake, "customer_trusted", "2023-08-06")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not parquet, but long enough to be looked at")
    result = invoke("counts")
    assert result.exit_code == 1
    assert "a partition is damaged" in result.stderr
    assert str(file) in result.stderr
    assert "Delete the file; `stedi run` makes it again." in result.stderr


# sample


def test_a_sample_is_written_into_the_lake_and_not_twice(lake: Lake) -> None:
    result = invoke("sample", "--customers", "3", "--days", "2", "--seed", "5")
    assert result.exit_code == 0
    assert "3 customers over 2 days from 2023-08-06" in result.stdout
    before = files_in(lake.storage.root, "**/*.json")
    assert before
    result = invoke("sample")
    assert result.exit_code == 1
    assert "already holds files" in result.stderr
    assert files_in(lake.storage.root, "**/*.json") == before


@pytest.mark.parametrize("option", ["--customers", "--days"])
def test_a_sample_of_nothing_is_refused(lake: Lake, option: str) -> None:
    result = invoke("sample", option, "0")
    assert result.exit_code == 1
    assert f"{option.strip('-')} must be at least 1, not 0" in result.stderr
    assert list(lake.storage.root.iterdir()) == []


def test_a_lake_that_is_a_file_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lake").write_text("")
    monkeypatch.setenv("STEDI_LAKE", str(tmp_path / "lake"))
    result = invoke("sample")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


# counts


def test_counts_of_an_empty_lake_are_zeros_in_both_forms(lake: Lake) -> None:
    assert json.loads(invoke("counts", "--format", "json").stdout) == NO_ROWS
    lines = invoke("counts").stdout.split("\n")[1:-1]
    assert lines[0].split() == ["table", "zone", "rows"]
    zones = [table.zone.value for table in TABLES.values()]
    assert [line.split() for line in lines[1:]] == [
        [name, zone, "0"] for name, zone in zip(TABLES, zones, strict=True)
    ]


def test_counts_that_are_not_those_of_the_sample_are_marked(lake: Lake) -> None:
    invoke("sample", "--customers", "3", "--days", "1", "--seed", "5")
    lines = invoke("counts").stdout.splitlines()
    assert lines[1].split() == ["table", "zone", "rows", "expected"]
    (customers,) = [line for line in lines if line.startswith("customer_landing")]
    assert customers.split() == ["customer_landing", "landing", "0", ANY, "differs"]
    (rejects,) = [line for line in lines if line.startswith("customer_rejects")]
    assert rejects.split() == ["customer_rejects", "landing", "0", "0"]


def test_a_run_over_a_lake_without_files_is_an_error_with_what_to_do(lake: Lake) -> None:
    result = invoke("run")
    assert result.exit_code == 1
    assert f"there are no landing files below {lake.storage.root}." in result.stderr
    assert "`stedi sample`" in result.stderr
    assert result.stdout == ""


def test_a_run_of_a_date_without_files_says_so_of_that_date_alone(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    result = invoke("run", "--date", "2023-08-07")
    assert result.exit_code == 0
    assert result.stdout.startswith("All tables asked for are up to date.\n")


# Runs.


def test_a_sample_gives_the_counts_of_its_manifest(lake: Lake) -> None:
    succeeded(stedi(lake, "sample", "--customers", "40", "--days", "3", "--seed", "2"))
    told = succeeded(stedi(lake, "run"))
    manifest = json.loads((lake.storage.root / "manifest.json").read_text())
    assert counts(lake) == manifest["counts"]
    assert manifest["counts"]["machine_learning_curated"] > 0
    assert manifest["counts"]["step_trainer_rejects"] > 0
    assert "Run 1 of 1: ingestion date 2023-08-06 to 2023-08-08" in told
    assert "differs" not in told
    assert "expected" in told
    assert "ERROR" not in told
    assert "not made" not in told
    assert "DAGSTER_HOME is not set" in told
    before = files_in(lake.storage.root)
    assert len(before) == 3 * len(TABLES)
    assert succeeded(stedi(lake, "run")).startswith("All tables are up to date.\n")
    assert files_in(lake.storage.root) == before


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


def test_select_makes_the_tables_that_it_names_and_no_others(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    told = succeeded(stedi(lake, "run", "--select", "customer_landing"))
    assert counts(lake) == NO_ROWS | {"customer_landing": 1}
    assert "accelerometer" not in told.split("\n\n")[0]
    assert "not made" not in told
    made = {name for name, table in TABLES.items() if lake.partitions(table)}
    assert made == {"customer_landing", "customer_rejects"}, "one reading gives both"


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
    # The remedy is one.
    process = stedi(lake, "run", "--to", "2023-01-01", STEDI_START_DATE="2021-12-31")
    succeeded(process)
    assert counts_by_date(lake, "customer_trusted") == {"2021-12-31": 1, "2023-08-06": 1}


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
    assert "  not made: step_trainer_trusted, machine_learning_curated" in lines
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
