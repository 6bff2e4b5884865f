"""Every check passes over what a run makes, and fails over each damage that it is there for."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from stedi_assets.checks import (
    CHECKS,
    UP_TO_DATE,
    checks_of,
    evaluations,
    keys_of_checks,
    up_to_date,
)
from stedi_assets.definitions import defs
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.privacy.pseudonyms import local_key
from stedi_assets.reconcile import Stale
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import TABLES, Zone
from stedi_assets_tests.end_to_end.landing_files import (
    QUIET,
    Record,
    counts_by_date,
    customer,
    device,
    file_of,
    land,
    landed,
    phone,
    resources_of,
    run,
    twin,
)

SIXTH, SEVENTH, EIGHTH = date(2023, 8, 6), date(2023, 8, 7), date(2023, 8, 8)

DERIVED = [name for name, table in TABLES.items() if table.zone is not Zone.LANDING]
LANDING = ["customer_landing", "accelerometer_landing", "step_trainer_landing"]

# By hand, from the records below: rows of the sixth and of the seventh.
ROWS = {
    "customer_landing": (3, 1),
    "accelerometer_landing": (3, 1),
    "step_trainer_landing": (3, 2),
    "customer_trusted": (2, 1),  # Ann, Bob; Dee
    "accelerometer_trusted": (2, 1),
    "customers_curated": (2, 0),  # Dee has no readings
    "step_trainer_trusted": (2, 2),
    "machine_learning_curated": (2, 1),  # at 100 and 200; at 300
}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Ann and Bob consent on the sixth and walk, Cy does not consent, Dee comes on the seventh."""
    lake = open_lake(str(tmp_path_factory.mktemp("made once")))
    land(
        lake,
        "customer",
        "2023-08-06",
        customer("ann@test.com", "s-ann"),
        customer("Bob@test.com", "s-bob"),
        customer("cy@test.com", "s-cy", consent=None),
    )
    land(lake, "customer", "2023-08-07", customer("dee@test.com", "s-dee"))
    land(
        lake,
        "accelerometer",
        "2023-08-06",
        phone("ann@test.com", 100),
        phone("ann@test.com", 200),
        phone("cy@test.com", 100),
    )
    land(lake, "accelerometer", "2023-08-07", phone(" BOB@test.com", 300))
    land(
        lake,
        "step_trainer",
        "2023-08-06",
        device(100, "s-ann"),
        device(200, "s-ann"),
        device(100, "s-cy"),
    )
    land(lake, "step_trainer", "2023-08-07", device(300, "s-bob"), device(400, "s-bob"))
    result = run(lake, "2023-08-06", "2023-08-07")
    assert result.success
    evaluations = result.get_asset_check_evaluations()
    assert {evaluation.passed for evaluation in evaluations} == {True}
    return lake


@pytest.fixture
def lake(made_once: Lake, tmp_path: Path) -> Lake:
    return twin(made_once, tmp_path / "lake")


def check(
    lake: Lake, engine: DuckDBEngine, table: str, name: str, *days: date
) -> tuple[Finding, dict[str, dict[str, Any]]]:
    """What a check finds, and its figures by date."""
    stored = Stored(lake, engine, Policy.REFERENCE, TABLES[table], days or (SIXTH, SEVENTH))
    finding = checks_of(TABLES[table])[name](stored)
    return finding, {day.isoformat(): dict(of) for day, of in finding.figures.items()}


def stored_in(file: Path) -> str:
    """SQL for what is in a file, without the date that its folder says."""
    return f"read_parquet('{file}', hive_partitioning = false)"


def rewrite(lake: Lake, table: str, day: str, query: str, *, with_notes: bool = False) -> None:
    """Put the rows of a query, which reads the old ones as `rows`, into a partition's file.

    With the notes of the old file, the new one passes for what a run made.
    """
    file = file_of(lake, table, day)
    with duckdb.connect() as connection:
        if file.exists():
            connection.execute(f"CREATE TABLE rows AS FROM {stored_in(file)}")
        notes: dict[str, str] = {}
        if with_notes:
            found = f"SELECT decode(key), decode(value) FROM parquet_kv_metadata('{file}')"
            notes = dict(connection.execute(found).fetchall())
            assert notes.keys() >= {"stamp", "content"}
        noted = ", ".join(f"{name}: ${name}" for name in notes)
        file.parent.mkdir(parents=True, exist_ok=True)
        connection.execute(
            f"COPY ({query}) TO '{file}' (FORMAT parquet{noted and f', KV_METADATA {{{noted}}}'})",
            notes,
        )


def pseudonym(lake: Lake, value: str) -> str:
    key = local_key(lake.storage.root)
    return hashlib.sha256((key + value).encode()).hexdigest()


def test_each_table_has_the_checks_that_make_sense_for_it() -> None:
    landing = {"no_nulls", "rejects", "row_count", "schema"}
    derived = {"consent", "no_nulls", "row_count", "schema"}
    assert {name: set(checks_of(table)) for name, table in TABLES.items()} == {
        "customer_landing": landing | {"birthdays", "repeated_emails", "shared_serials"},
        "accelerometer_landing": landing | {"before_registration"},
        "step_trainer_landing": landing | {"before_registration", "unheld_readings"},
        "customer_trusted": derived | {"unique_key"},
        "accelerometer_trusted": derived,
        "customers_curated": derived | {"no_identifiers", "unique_key"},
        "step_trainer_trusted": derived,
        "machine_learning_curated": derived | {"no_identifiers", "same_customer"},
        "customer_rejects": {"no_nulls", "schema"},
        "accelerometer_rejects": {"no_nulls", "schema"},
        "step_trainer_rejects": {"no_nulls", "schema"},
    }


@pytest.mark.parametrize("table", TABLES)
def test_all_checks_pass_over_what_a_run_made(lake: Lake, engine: DuckDBEngine, table: str) -> None:
    for name in checks_of(TABLES[table]):
        finding, _ = check(lake, engine, table, name)
        assert finding.passed, (name, finding)


@pytest.mark.long
def test_all_checks_pass_over_a_date_on_which_nothing_came(
    lake: Lake, engine: DuckDBEngine
) -> None:
    assert run(lake, "2023-08-08").success
    for table in TABLES:
        for name in checks_of(TABLES[table]):
            finding, _ = check(lake, engine, table, name, EIGHTH)
            assert finding.passed, (table, name, finding)


# schema


@pytest.mark.parametrize("table", TABLES)
def test_a_column_of_another_type_fails_the_schema(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    column = TABLES[table].column_names[-1]
    rewrite(lake, table, "2023-08-07", f'SELECT * REPLACE (NULL::BLOB AS "{column}") FROM rows')
    finding, figures = check(lake, engine, table, "schema")
    assert (finding.passed, finding.is_error) == (False, True)
    assert figures == {"2023-08-07": {"columns": len(TABLES[table].columns)}}
    assert finding.sentence == "1 of 2 partitions are missing or have other columns"


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT * EXCLUDE z FROM rows", 4),
        ("SELECT *, 1 AS more FROM rows", 6),
        ("SELECT z, * EXCLUDE z FROM rows", 5),
        ("SELECT * RENAME (z AS Z2) FROM rows", 5),
    ],
)
def test_missing_further_moved_and_renamed_columns_fail_the_schema(
    lake: Lake, engine: DuckDBEngine, query: str, columns: int
) -> None:
    rewrite(lake, "accelerometer_trusted", "2023-08-06", query)
    finding, figures = check(lake, engine, "accelerometer_trusted", "schema")
    assert not finding.passed
    assert figures == {"2023-08-06": {"columns": columns}}


def test_a_missing_partition_fails_the_schema(lake: Lake, engine: DuckDBEngine) -> None:
    file_of(lake, "customer_rejects", "2023-08-06").unlink()
    finding, figures = check(lake, engine, "customer_rejects", "schema")
    assert not finding.passed
    assert figures == {"2023-08-06": {"columns": 0}}


# no_nulls


@pytest.mark.parametrize("table", [*LANDING, *DERIVED])
def test_nulls_in_a_required_column_are_counted(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    column = TABLES[table].required_names[-1]
    rewrite(lake, table, "2023-08-06", f'SELECT * REPLACE (NULL AS "{column}") FROM rows')
    finding, figures = check(lake, engine, table, "no_nulls")
    rows = ROWS[table][0]
    assert (finding.passed, finding.is_error) == (False, True)
    assert figures["2023-08-06"][column] == rows
    assert sum(figures["2023-08-06"].values()) == rows
    assert set(figures["2023-08-07"].values()) == {0}
    required = len(TABLES[table].required_names)
    assert finding.sentence == f"{rows} values are missing in {required} required columns"


@pytest.mark.parametrize("source", ["customer", "accelerometer", "step_trainer"])
def test_a_reject_without_a_reason_is_counted(
    lake: Lake, engine: DuckDBEngine, source: str
) -> None:
    query = (
        "SELECT 'a.json' AS file, NULL::BIGINT AS line, NULL::VARCHAR AS reason, "
        "NULL::VARCHAR AS record"
    )
    rewrite(lake, f"{source}_rejects", "2023-08-07", query)
    finding, figures = check(lake, engine, f"{source}_rejects", "no_nulls")
    assert not finding.passed
    assert figures == {
        "2023-08-06": {"file": 0, "reason": 0},
        "2023-08-07": {"file": 0, "reason": 1},
    }


def test_a_column_that_is_not_there_has_no_values(lake: Lake, engine: DuckDBEngine) -> None:
    rewrite(lake, "step_trainer_landing", "2023-08-06", "SELECT * EXCLUDE serialnumber FROM rows")
    finding, figures = check(lake, engine, "step_trainer_landing", "no_nulls")
    assert not finding.passed
    assert figures["2023-08-06"]["serialnumber"] == 3


# unique_key


@pytest.mark.parametrize("table", ["customer_trusted", "customers_curated"])
def test_a_key_that_is_on_two_days_is_found_on_both(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    sixth = file_of(lake, table, "2023-08-06")
    query = f"FROM rows UNION ALL (FROM {stored_in(sixth)} ORDER BY ALL LIMIT 1)"
    rewrite(lake, table, "2023-08-07", query)
    key = TABLES[table].key[0]
    finding, figures = check(lake, engine, table, "unique_key")
    assert (finding.passed, finding.is_error) == (False, True)
    assert figures == {"2023-08-06": {"repeated": 1}, "2023-08-07": {"repeated": 1}}
    assert finding.sentence == f"2 rows share their key ({key}) with another row"
    finding, figures = check(lake, engine, table, "unique_key", SEVENTH)
    assert not finding.passed, "the other row is of a day that is not looked at"
    assert figures == {"2023-08-07": {"repeated": 1}}


# consent


def without_consent(lake: Lake, table: str) -> str:
    """SQL that adds a row of Cy, who does not consent, to the partition of the sixth."""
    cy, device_of_cy = pseudonym(lake, "cy@test.com"), pseudonym(lake, "s-cy")
    changes = {
        "customer_trusted": "' CY@Test.com' AS email, 's-cy' AS serialnumber",
        "accelerometer_trusted": "'CY@test.com ' AS user",
        "customers_curated": f"'{cy}' AS subject_id, '{device_of_cy}' AS device_id",
        "step_trainer_trusted": "'s-cy' AS serialnumber",
        "machine_learning_curated": f"'{cy}' AS subject_id",
    }
    return f"FROM rows UNION ALL (SELECT * REPLACE ({changes[table]}) FROM rows LIMIT 1)"


@pytest.mark.parametrize("table", DERIVED)
def test_rows_of_who_does_not_consent_are_found(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    rewrite(lake, table, "2023-08-06", without_consent(lake, table))
    finding, figures = check(lake, engine, table, "consent")
    assert (finding.passed, finding.is_error) == (False, True)
    assert figures == {
        "2023-08-06": {"without_consent": 1},
        "2023-08-07": {"without_consent": 0},
    }
    rows = sum(ROWS[table]) + 1
    assert finding.sentence == f"1 of {rows} rows belong to people without consent"
    assert "cy" not in str(finding)


@pytest.mark.parametrize("table", ["customers_curated", "machine_learning_curated"])
def test_the_device_of_who_does_not_consent_is_found_too(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    cy = pseudonym(lake, "s-cy")
    rewrite(lake, table, "2023-08-06", f"SELECT * REPLACE ('{cy}' AS device_id) FROM rows")
    finding, figures = check(lake, engine, table, "consent")
    assert not finding.passed
    assert figures["2023-08-06"] == {"without_consent": 2}


@pytest.mark.parametrize("table", DERIVED)
def test_rows_of_nobody_we_know_are_found(lake: Lake, engine: DuckDBEngine, table: str) -> None:
    subject = TABLES[table].subjects[0]
    rewrite(lake, table, "2023-08-06", f"SELECT * REPLACE ('nobody' AS \"{subject}\") FROM rows")
    finding, figures = check(lake, engine, table, "consent")
    assert not finding.passed
    assert figures["2023-08-06"] == {"without_consent": 2}


@pytest.mark.parametrize("table", DERIVED)
def test_all_rows_of_who_withdraws_are_found_once_the_record_is_landed(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    """Ann's later record is in the landing table, and no other table was made again."""
    base = file_of(lake, "customer_landing", "2023-08-06")
    query = (
        "FROM rows UNION ALL (SELECT * REPLACE ('ANN@test.com' AS email, 99 AS lastupdatedate, "
        f"0 AS sharewithresearchasofdate) FROM {stored_in(base)} "
        "WHERE email = 'ann@test.com')"
    )
    rewrite(lake, "customer_landing", "2023-08-07", query)
    expected = {
        "customer_trusted": 1,
        "accelerometer_trusted": 2,
        "customers_curated": 1,
        "step_trainer_trusted": 2,
        "machine_learning_curated": 2,
    }
    finding, figures = check(lake, engine, table, "consent")
    assert not finding.passed
    assert figures == {
        "2023-08-06": {"without_consent": expected[table]},
        "2023-08-07": {"without_consent": 0},
    }


# row_count


@pytest.mark.parametrize("with_notes", [True, False], ids=["counted before", "counted now"])
@pytest.mark.parametrize("table", LANDING)
@pytest.mark.parametrize(
    ("query", "difference"),
    [
        ("FROM rows LIMIT (SELECT count(*) - 1 FROM rows)", -1),
        ("FROM rows UNION ALL (FROM rows LIMIT 1)", 1),
    ],
)
def test_a_landing_table_with_a_row_less_or_more_than_its_files_fails(
    lake: Lake, engine: DuckDBEngine, table: str, query: str, difference: int, with_notes: bool
) -> None:
    """Whether the file notes how many records were counted when they were read, or not."""
    rewrite(lake, table, "2023-08-06", query, with_notes=with_notes)
    sixth, seventh = ROWS[table]
    finding, figures = check(lake, engine, table, "row_count")
    assert (finding.passed, finding.is_error) == (False, True)
    assert figures == {
        "2023-08-06": {"rows": sixth + difference, "rejects": 0, "records": sixth, "files": 1},
        "2023-08-07": {"rows": seventh, "rejects": 0, "records": seventh, "files": 1},
    }
    total = sixth + seventh
    assert finding.sentence == f"{total + difference} rows and 0 rejects of {total} records"


def test_a_row_too_few_on_one_day_does_not_make_up_for_one_too_many_on_another(
    lake: Lake, engine: DuckDBEngine
) -> None:
    rewrite(lake, "step_trainer_landing", "2023-08-06", "FROM rows LIMIT 2")
    rewrite(lake, "step_trainer_landing", "2023-08-07", "FROM rows UNION ALL (FROM rows LIMIT 1)")
    finding, _ = check(lake, engine, "step_trainer_landing", "row_count")
    assert finding.sentence == "5 rows and 0 rejects of 5 records"
    assert not finding.passed


def test_a_landing_file_that_was_not_read_fails_the_row_count(
    lake: Lake, engine: DuckDBEngine
) -> None:
    land(lake, "customer", "2023-08-07", customer("eve@test.com", "s-eve"), name="late.json")
    finding, figures = check(lake, engine, "customer_landing", "row_count")
    assert (finding.passed, finding.is_error) == (False, False), "the next run reads it"
    assert finding.sentence.endswith("; files of 1 dates changed meanwhile")
    assert figures["2023-08-07"] == {"rows": 1, "rejects": 0, "records": 2, "files": 2}


def test_a_file_that_came_meanwhile_excuses_no_other_date(lake: Lake, engine: DuckDBEngine) -> None:
    rewrite(lake, "customer_landing", "2023-08-06", "FROM rows LIMIT 0")
    land(lake, "customer", "2023-08-07", customer("eve@test.com", "s-eve"), name="late.json")
    finding, _ = check(lake, engine, "customer_landing", "row_count")
    assert (finding.passed, finding.is_error) == (False, True)


def test_a_landing_file_that_is_gone_fails_the_row_count(lake: Lake, engine: DuckDBEngine) -> None:
    landed(lake, "customer", "2023-08-07").unlink()
    finding, figures = check(lake, engine, "customer_landing", "row_count")
    assert not finding.passed
    assert figures["2023-08-07"] == {"rows": 1, "rejects": 0, "records": 0, "files": 0}


@pytest.mark.parametrize("table", DERIVED)
def test_a_derived_table_that_lost_a_row_fails(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    rewrite(lake, table, "2023-08-06", "FROM rows LIMIT 1")
    finding, figures = check(lake, engine, table, "row_count")
    assert (finding.passed, finding.is_error) == (False, True)
    sixth, seventh = ROWS[table]
    assert figures["2023-08-06"] | {"at_most": ...} == {
        "rows": 1,
        "expected": sixth,
        "at_most": ...,
    }
    assert figures["2023-08-07"]["rows"] == figures["2023-08-07"]["expected"] == seventh
    assert finding.sentence.startswith(f"{1 + seventh} rows; {sixth + seventh} should pass of ")


@pytest.mark.parametrize("table", DERIVED)
def test_a_derived_table_with_a_row_twice_fails(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    rewrite(lake, table, "2023-08-06", "FROM rows UNION ALL (FROM rows LIMIT 1)")
    finding, figures = check(lake, engine, table, "row_count")
    assert not finding.passed
    assert (figures["2023-08-06"]["rows"], figures["2023-08-06"]["expected"]) == (3, 2)


@pytest.mark.parametrize("table", DERIVED)
def test_a_derived_partition_that_is_missing_fails(
    lake: Lake, engine: DuckDBEngine, table: str
) -> None:
    file_of(lake, table, "2023-08-06").unlink()
    finding, figures = check(lake, engine, table, "row_count")
    assert not finding.passed
    assert (figures["2023-08-06"]["rows"], figures["2023-08-06"]["expected"]) == (0, 2)


def test_at_most_are_the_rows_of_the_table_that_is_filtered(
    lake: Lake, engine: DuckDBEngine
) -> None:
    at_most = {
        table: tuple(of["at_most"] for of in check(lake, engine, table, "row_count")[1].values())
        for table in DERIVED
    }
    assert at_most == {
        "customer_trusted": (3, 1),
        "accelerometer_trusted": (3, 1),
        "customers_curated": (2, 1),
        "step_trainer_trusted": (3, 2),
        "machine_learning_curated": (2, 1),
    }


@pytest.mark.long
def test_readings_delivered_again_are_expected_once_on_the_day_they_first_came(
    lake: Lake, engine: DuckDBEngine
) -> None:
    land(lake, "accelerometer", "2023-08-08", phone("ann@test.com", 100), phone("ann@test.com", 9))
    assert run(lake, "2023-08-08").success
    finding, figures = check(lake, engine, "accelerometer_trusted", "row_count", EIGHTH)
    assert finding.passed
    assert figures == {"2023-08-08": {"rows": 1, "expected": 1, "at_most": 2}}


# rejects


def with_rejects(lake: Lake, day: str, rows: int, rejected: int) -> None:
    """Let a day of step_trainer have so many rows and rejects."""
    columns = "i AS sensorreadingtime, 's' AS serialnumber, 1::INTEGER AS distancefromobject"
    rewrite(lake, "step_trainer_landing", day, f"SELECT {columns} FROM range({rows}) t(i)")
    reject = "'a.json' AS file, i AS line, 'no JSON' AS reason, 'x' AS record"
    rewrite(lake, "step_trainer_rejects", day, f"SELECT {reject} FROM range({rejected}) t(i)")


@pytest.mark.parametrize(
    ("rows", "rejected", "passed", "is_error", "share"),
    [
        (100, 0, True, False, 0.0),
        (99, 1, False, False, 0.01),
        (95, 5, False, False, 0.05),
        (94, 6, False, True, 0.06),
        (0, 1, False, True, 1.0),
        (0, 0, True, False, 0.0),
        (19, 1, False, False, 0.05),
        (949_999, 50_001, False, True, 0.05),
    ],
)
def test_any_reject_is_a_warning_and_more_than_five_in_a_hundred_are_an_error(
    lake: Lake,
    engine: DuckDBEngine,
    rows: int,
    rejected: int,
    passed: bool,
    is_error: bool,
    share: float,
) -> None:
    with_rejects(lake, "2023-08-06", rows, rejected)
    finding, figures = check(lake, engine, "step_trainer_landing", "rejects", SIXTH)
    assert (finding.passed, finding.is_error) == (passed, is_error)
    assert figures == {"2023-08-06": {"rejects": rejected, "share": share}}
    assert finding.sentence == (
        f"{rejected:,} of {rows + rejected:,} records were rejected; "
        f"at most {share:.1%} of a day's, on 2023-08-06"
    )


def test_one_bad_day_among_good_ones_is_an_error(lake: Lake, engine: DuckDBEngine) -> None:
    with_rejects(lake, "2023-08-06", 10_000, 0)
    with_rejects(lake, "2023-08-07", 9, 1)
    finding, figures = check(lake, engine, "step_trainer_landing", "rejects")
    assert (finding.passed, finding.is_error) == (False, True)
    assert figures == {
        "2023-08-06": {"rejects": 0, "share": 0.0},
        "2023-08-07": {"rejects": 1, "share": 0.1},
    }
    assert finding.sentence == (
        "1 of 10,010 records were rejected; at most 10.0% of a day's, on 2023-08-07"
    )


def test_the_rejects_of_another_source_do_not_matter(lake: Lake, engine: DuckDBEngine) -> None:
    with_rejects(lake, "2023-08-06", 1, 9)
    for table in ("customer_landing", "accelerometer_landing"):
        assert check(lake, engine, table, "rejects")[0].passed


# up_to_date


def test_a_table_without_stale_partitions_is_up_to_date() -> None:
    others = [Stale(TABLES["customer_trusted"], SIXTH, "missing", 1, 0, 0)]
    finding = up_to_date(TABLES["customers_curated"], others)
    assert finding.passed
    assert finding.sentence == (
        "0 partitions are not what they should be: every one holds what the definition gives"
    )
    assert finding.figures == {}


def test_stale_partitions_are_a_warning_with_how_many_by_how_many_rows_and_why() -> None:
    table = TABLES["customer_trusted"]
    stale = [
        Stale(table, SIXTH, "damaged", 1000, 0, 0),
        Stale(table, SEVENTH, "upstream rows changed", 2, 30, 400),
        Stale(table, EIGHTH, "damaged", 0, 0, 0),
        Stale(TABLES["customer_landing"], SIXTH, "missing", 7, 7, 7),
        Stale(TABLES["accelerometer_trusted"], SIXTH, "missing", 0, 0, 0, held_back=True),
    ]
    finding = up_to_date(table, stale)
    assert (finding.passed, finding.is_error) == (False, False), "it puts itself right"
    assert finding.sentence == (
        "3 partitions are not what they should be, by 1,432 rows: "
        "damaged (2), upstream rows changed (1)"
    )
    assert finding.figures == {
        SIXTH: {"missing": 1000, "extra": 0, "changed": 0},
        SEVENTH: {"missing": 2, "extra": 30, "changed": 400},
        EIGHTH: {"missing": 0, "extra": 0, "changed": 0},
    }


def test_partitions_that_wait_for_somebody_to_mend_landing_files_are_an_error() -> None:
    table = TABLES["customer_trusted"]
    stale = [
        Stale(table, SIXTH, "missing", 0, 0, 0, held_back=True),
        Stale(table, SEVENTH, "missing", 2, 0, 0),
    ]
    finding = up_to_date(table, stale)
    assert (finding.passed, finding.is_error) == (False, True)
    assert finding.sentence == (
        "2 partitions are not what they should be, by 2 rows: "
        "missing, held back: too many rejects of its date (1), missing (1)"
    )


def look_whether_up_to_date(lake: Lake) -> dict[str, dg.AssetCheckEvaluation]:
    """What the check finds in a run of its own, which is a run over no partition."""
    here = dg.Definitions(
        assets=defs.assets,
        asset_checks=CHECKS,
        jobs=[
            dg.define_asset_job("look", selection=dg.AssetSelection.checks(*UP_TO_DATE.check_keys))
        ],
        resources=resources_of(lake.storage.root),
        executor=defs.executor,
    )
    result = here.resolve_job_def("look").execute_in_process(run_config=QUIET)
    assert result.success
    found = result.get_asset_check_evaluations()
    assert {evaluation.check_name for evaluation in found} == {"up_to_date"}
    return {evaluation.asset_key.to_user_string(): evaluation for evaluation in found}


def test_in_a_run_of_its_own_the_check_looks_at_all_partitions_of_all_tables(lake: Lake) -> None:
    found = look_whether_up_to_date(lake)
    assert {table: evaluation.passed for table, evaluation in found.items()} == dict.fromkeys(
        TABLES, True
    )
    file_of(lake, "accelerometer_landing", "2023-08-07").unlink()
    rewrite(lake, "step_trainer_trusted", "2023-08-06", "FROM rows LIMIT 1", with_notes=True)
    found = look_whether_up_to_date(lake)
    failed = {table for table, evaluation in found.items() if not evaluation.passed}
    assert failed == {"accelerometer_landing", "step_trainer_trusted"}
    missing = found["accelerometer_landing"]
    assert missing.severity is dg.AssetCheckSeverity.WARN
    by_one = "1 partitions are not what they should be, by 1 rows"
    assert missing.description == f"{by_one}: missing (1)"
    assert {name: value.value for name, value in missing.metadata.items()} == {
        "finding": missing.description,
        "missing": 1,
        "extra": 0,
        "changed": 0,
    }
    damaged = found["step_trainer_trusted"].description
    assert damaged == f"{by_one}: damaged (1)"


# In runs.


def test_the_checks_of_a_runs_partitions_are_all_but_the_one_of_everything() -> None:
    all_keys = {key for check in CHECKS for key in check.check_keys}
    assert keys_of_checks(TABLES) == all_keys - set(UP_TO_DATE.check_keys)
    assert {(key.asset_key.to_user_string(), key.name) for key in keys_of_checks(DERIVED[:1])} == {
        ("customer_trusted", name)
        for name in ("consent", "no_nulls", "row_count", "schema", "unique_key")
    }
    assert keys_of_checks([]) == set()


@pytest.mark.parametrize("days", [[SIXTH], [SIXTH, SEVENTH]], ids=["one date", "two dates"])
def test_what_checks_find_can_be_told_without_a_run_of_them(
    lake: Lake, engine: DuckDBEngine, days: list[date]
) -> None:
    rewrite(lake, "customer_trusted", "2023-08-06", without_consent(lake, "customer_trusted"))
    told = {
        e.check_name: e
        for e in evaluations(lake, engine, Policy.REFERENCE, TABLES["customer_trusted"], days)
    }
    assert sorted(told) == ["consent", "no_nulls", "row_count", "schema", "unique_key"]
    assert {name for name, evaluation in told.items() if not evaluation.passed} == {
        "consent",
        "row_count",
    }
    assert {evaluation.partition for evaluation in told.values()} == {
        "2023-08-06" if len(days) == 1 else None
    }
    metadata = {name: value.value for name, value in told["consent"].metadata.items()}
    figures = {"without_consent": 1}
    assert metadata == {"finding": told["consent"].description} | (
        figures
        if len(days) == 1
        else {"by_date": {"2023-08-06": figures, "2023-08-07": {"without_consent": 0}}}
    )


def evaluations_of(
    result: dg.ExecuteInProcessResult, table: str, name: str
) -> list[dg.AssetCheckEvaluation]:
    return [
        found
        for found in result.get_asset_check_evaluations()
        if (found.asset_key.to_user_string(), found.check_name) == (table, name)
    ]


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    return {
        event.materialization.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
    }


DOWNSTREAM_OF_DEVICES = {"step_trainer_trusted", "machine_learning_curated"}


@pytest.fixture
def new_lake(tmp_path: Path) -> Lake:
    lake = open_lake(str(tmp_path / "new lake"))
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 1))
    return lake


def readings(good: int, bad: int) -> list[Record | str]:
    return [*(device(time, "s") for time in range(good)), *(["{no JSON"] * bad)]


def test_a_day_with_too_many_rejects_stops_what_follows_and_fails_the_run(new_lake: Lake) -> None:
    land(new_lake, "step_trainer", "2023-08-06", *readings(94, 6))
    result = run(new_lake, "2023-08-06")
    assert not result.success
    assert not materialized(result) & DOWNSTREAM_OF_DEVICES
    assert set(TABLES) - DOWNSTREAM_OF_DEVICES == materialized(result)
    assert new_lake.partitions(TABLES["machine_learning_curated"]) == {}
    (found,) = evaluations_of(result, "step_trainer_landing", "rejects")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.blocking
    assert found.description == (
        "6 of 100 records were rejected; at most 6.0% of a day's, on 2023-08-06"
    )
    assert found.metadata["rejects"].value == 6
    assert found.metadata["share"].value == 0.06
    assert len(new_lake.partitions(TABLES["step_trainer_landing"])) == 1, "the rows are kept"


@pytest.mark.parametrize(("good", "bad"), [(99, 1), (95, 5)])
def test_a_day_with_few_rejects_is_a_warning_and_the_run_goes_on(
    new_lake: Lake, good: int, bad: int
) -> None:
    land(new_lake, "step_trainer", "2023-08-06", *readings(good, bad))
    result = run(new_lake, "2023-08-06")
    assert result.success
    assert materialized(result) == set(TABLES)
    (found,) = evaluations_of(result, "step_trainer_landing", "rejects")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    (count,) = evaluations_of(result, "step_trainer_landing", "row_count")
    assert count.passed
    assert {name: value.value for name, value in count.metadata.items()} == {
        "finding": f"{good} rows and {bad} rejects of 100 records",
        "rows": good,
        "rejects": bad,
        "records": 100,
        "files": 1,
    }


@pytest.mark.long
def test_of_a_run_over_several_days_each_day_has_its_figures(new_lake: Lake) -> None:
    land(new_lake, "step_trainer", "2023-08-06", *readings(100, 0))
    land(new_lake, "step_trainer", "2023-08-07", *readings(99, 1))
    result = run(new_lake, "2023-08-06", "2023-08-07")
    assert result.success
    figures = {}
    for found in evaluations_of(result, "step_trainer_landing", "rejects"):
        told = {name: value.value for name, value in found.metadata.items()}
        figures |= told.get("by_date") or {found.partition: {"rejects": told["rejects"]}}
    assert {day: of["rejects"] for day, of in figures.items()} == {
        "2023-08-06": 0,
        "2023-08-07": 1,
    }


def test_a_check_that_fails_in_a_run_is_an_error_with_its_figures(lake: Lake) -> None:
    """Bob's withdrawal is read, and then a table made without the one that says who consents."""
    withdrawn = customer("Bob@test.com", "s-bob", updated=20, consent=None)
    land(lake, "customer", "2023-08-07", customer("dee@test.com", "s-dee"), withdrawn)
    assert run(lake, "2023-08-07", tables=["customer_landing", "customer_rejects"]).success
    result = run(lake, "2023-08-07", tables=["accelerometer_trusted"])
    assert materialized(result) == {"accelerometer_trusted"}
    (found,) = evaluations_of(result, "accelerometer_trusted", "consent")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.description == "1 of 1 rows belong to people without consent"
    assert found.metadata["without_consent"].value == 1
    (found,) = evaluations_of(result, "accelerometer_trusted", "schema")
    assert found.passed


@pytest.mark.long
def test_pairs_are_not_expected_of_who_withdrew_and_is_still_in_older_partitions(
    tmp_path: Path,
) -> None:
    """Ann's readings of the sixth stay until that date is made anew; pairs must not count them."""
    lake = open_lake(str(tmp_path / "withdrawn"))
    ann, bob = "ann@test.com", "bob@test.com"
    land(lake, "customer", "2023-08-06", customer(ann, "s-ann"), customer(bob, "s-bob"))
    land(lake, "accelerometer", "2023-08-06", phone(ann, 100), phone(bob, 500))
    assert run(lake, "2023-08-06").success
    withdrawn = customer(ann, "s-ann", updated=20, consent=None)
    land(lake, "customer", "2023-08-07", withdrawn)
    land(lake, "step_trainer", "2023-08-07", device(100, "s-bob"), device(500, "s-bob"))
    result = run(lake, "2023-08-07")
    assert result.success
    assert counts_by_date(lake, "accelerometer_trusted")["2023-08-06"] == 2
    assert counts_by_date(lake, "machine_learning_curated") == {"2023-08-06": 0, "2023-08-07": 1}
    # Ann has two records, of which the later one counts: a warning, and no other check fails.
    failed = {
        e.check_name: e.severity for e in result.get_asset_check_evaluations() if not e.passed
    }
    assert failed == {"repeated_emails": dg.AssetCheckSeverity.WARN}
