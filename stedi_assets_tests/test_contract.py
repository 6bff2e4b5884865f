"""A partition that breaks a rule of the registry: it is not published, and the error says why."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi_assets.contract import BrokenContractError, verify
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.io_manager import IO_MANAGER_KEY
from stedi_assets.lake import Lake
from stedi_assets.partitions import DAILY, SINGLE_RUN
from stedi_assets.tables import PARTITION, TABLES, Table
from stedi_assets_tests.end_to_end.landing_files import (
    QUIET,
    file_of,
    partition_tags,
    resources_of,
)

Row = dict[str, Any]

SIXTH, SEVENTH = date(2023, 8, 6), date(2023, 8, 7)
CUSTOMERS = TABLES["customer_trusted"]
PERSONAL = ("Ann Secret", "ann.secret@test.com", "5559876543", "1971-02-03", "serial-of-ann")
ANN = dict.fromkeys(CUSTOMERS.column_names) | dict(
    zip(("customername", "email", "phone", "birthday", "serialnumber"), PERSONAL, strict=True)
)
ANN |= {"registrationdate": 11, "lastupdatedate": 22, "sharewithresearchasofdate": 33}
BOB = ANN | {"email": "bob@test.com", "customername": "Bob"}

NOTHING_DONE = (
    "Nothing of it was published, the old partition stands. "
    "Mend the definition or the data; running it again as it is will not help."
)


def table_of(rows: list[Row], table: Table = CUSTOMERS, **types: str) -> ir.Table:
    schema = ibis.schema(table.schema | types)
    return ibis.memtable(pa.Table.from_pylist(rows, schema=schema.to_pyarrow()), schema=schema)


def run(
    lake: Lake, give: Callable[[], ir.Table], table: Table = CUSTOMERS
) -> dg.ExecuteInProcessResult:
    """Materialize the sixth and the seventh of a table."""

    @dg.asset(
        name=table.name,
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        io_manager_key=IO_MANAGER_KEY,
    )
    def produced() -> Any:
        return give()

    return dg.materialize(
        [produced],
        resources=resources_of(lake.storage.root),
        tags=partition_tags("2023-08-06", "2023-08-07"),
        run_config=QUIET,
        raise_on_error=False,
    )


def error_of(result: dg.ExecuteInProcessResult) -> tuple[str | None, str]:
    """The class and the text of the error with which a run failed."""
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    while error and error.cause:
        error = error.cause
    assert error
    return error.cls_name, error.message.strip()


BREACHES: dict[str, tuple[Callable[[], ir.Table], str]] = {
    "null in a required column": (
        lambda: table_of(
            [BOB | {PARTITION: SIXTH}]
            + [ANN | {PARTITION: SEVENTH, "email": None, "phone": str(n)} for n in range(1001)]
        ),
        "customer_trusted, partition 2023-08-07: the required column email has nulls; "
        "1,001 rows break this, for example (registrationdate=11, lastupdatedate=22, "
        "sharewithresearchasofdate=33, sharewithpublicasofdate=None, "
        f"sharewithfriendsasofdate=None). {NOTHING_DONE}",
    ),
    "one null": (
        lambda: table_of(
            [BOB | {PARTITION: SIXTH}, ANN | {PARTITION: SEVENTH, "lastupdatedate": None}]
        ),
        "customer_trusted, partition 2023-08-07: the required column lastupdatedate has nulls; "
        "1 row breaks this, for example (registrationdate=11, lastupdatedate=None, "
        "sharewithresearchasofdate=33, sharewithpublicasofdate=None, "
        f"sharewithfriendsasofdate=None). {NOTHING_DONE}",
    ),
    "repeated key": (
        lambda: table_of(
            [ANN | {PARTITION: SIXTH}]
            # Others before and behind them in the file: the example is one that breaks the rule.
            + [BOB | {PARTITION: SEVENTH, "email": f"{n}", "lastupdatedate": n} for n in (1, 99)]
            + [ANN | {PARTITION: SEVENTH, "phone": phone} for phone in ("1", "2", "3")]
        ),
        "customer_trusted, partition 2023-08-07: the key (email) occurs more than once; "
        "3 rows break this, for example (registrationdate=11, lastupdatedate=22, "
        "sharewithresearchasofdate=33, sharewithpublicasofdate=None, "
        f"sharewithfriendsasofdate=None). {NOTHING_DONE}",
    ),
    "wrong type": (
        lambda: table_of(
            [ANN | {PARTITION: SIXTH, "lastupdatedate": 2.5}, BOB | {PARTITION: SIXTH}],
            lastupdatedate="float64",
        ),
        "customer_trusted, partition 2023-08-06: its columns are "
        "{'customername': 'VARCHAR', 'email': 'VARCHAR', 'phone': 'VARCHAR', "
        "'birthday': 'VARCHAR', 'serialnumber': 'VARCHAR', 'registrationdate': 'BIGINT', "
        "'lastupdatedate': 'DOUBLE', 'sharewithresearchasofdate': 'BIGINT', "
        "'sharewithpublicasofdate': 'BIGINT', 'sharewithfriendsasofdate': 'BIGINT'}, "
        "the registry has "
        "{'customername': 'VARCHAR', 'email': 'VARCHAR', 'phone': 'VARCHAR', "
        "'birthday': 'VARCHAR', 'serialnumber': 'VARCHAR', 'registrationdate': 'BIGINT', "
        "'lastupdatedate': 'BIGINT', 'sharewithresearchasofdate': 'BIGINT', "
        "'sharewithpublicasofdate': 'BIGINT', 'sharewithfriendsasofdate': 'BIGINT'}; "
        f"2 rows break this, for example (none to show). {NOTHING_DONE}",
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_names_table_partition_rule_and_rows_and_nobody(lake: Lake, breach: str) -> None:
    give, expected = BREACHES[breach]
    name, message = error_of(run(lake, give))
    assert name == "BrokenContractError"
    assert message.endswith(expected)
    for value in PERSONAL:
        assert value not in message


@pytest.mark.parametrize("breach", BREACHES)
def test_nothing_of_a_run_with_a_breach_is_published_and_the_old_partitions_stand(
    lake: Lake, breach: str
) -> None:
    first = [ANN | {PARTITION: SIXTH, "phone": "old"}, BOB | {PARTITION: SEVENTH, "phone": "old"}]
    assert run(lake, lambda: table_of(first)).success
    files = [file_of(lake, CUSTOMERS.name, day) for day in ("2023-08-06", "2023-08-07")]
    before = [(file.read_bytes(), file.stat().st_ino) for file in files]
    result = run(lake, BREACHES[breach][0])
    assert not result.success
    assert result.get_asset_materialization_events() == []
    assert [(file.read_bytes(), file.stat().st_ino) for file in files] == before


def test_a_run_with_a_breach_leaves_no_partition_where_there_was_none(lake: Lake) -> None:
    assert not run(lake, BREACHES["repeated key"][0]).success
    assert lake.partitions(CUSTOMERS) == {}


def test_after_a_breach_is_mended_the_same_run_succeeds(lake: Lake) -> None:
    assert not run(lake, BREACHES["one null"][0]).success
    mended = [BOB | {PARTITION: SIXTH}, ANN | {PARTITION: SEVENTH}]
    assert run(lake, lambda: table_of(mended)).success
    assert list(lake.partitions(CUSTOMERS)) == [SIXTH, SEVENTH]


def test_nulls_in_optional_columns_and_the_same_key_on_two_days_are_no_breach(lake: Lake) -> None:
    """A key that moves from day to day is on both for a moment; the check looks at all days."""
    rows = [ANN | {PARTITION: SIXTH, "phone": None}, ANN | {PARTITION: SEVENTH}]
    assert run(lake, lambda: table_of(rows)).success


def test_a_nan_is_a_value_and_no_null(lake: Lake) -> None:
    table = TABLES["accelerometer_trusted"]
    row = {"user": "ann", "timestamp": 1, "x": float("nan"), "y": 0.0, "z": 0.0}
    give = lambda: table_of([row | {PARTITION: SIXTH}], table)  # noqa: E731
    assert run(lake, give, table).success


def test_a_missing_column_is_a_breach(lake: Lake) -> None:
    give = lambda: table_of([ANN | {PARTITION: SIXTH}]).drop("phone")  # noqa: E731
    name, message = error_of(run(lake, give))
    assert name == "BrokenContractError"
    assert message.endswith(
        "customer_trusted, partition 2023-08-06: it lacks the columns ['phone'] and has [], which "
        f"the registry has not; all rows break this, for example (none to show). {NOTHING_DONE}"
    )


def test_a_column_more_is_a_breach(lake: Lake) -> None:
    give = lambda: table_of([ANN | {PARTITION: SIXTH}]).mutate(shoe_size=ibis.literal(43))  # noqa: E731
    name, message = error_of(run(lake, give))
    assert name == "BrokenContractError"
    assert "it lacks the columns [] and has ['shoe_size'], which the registry has not" in message


# A finished file, whatever made it.


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("'a' AS user, 1::BIGINT AS timestamp, 0.5::DOUBLE AS x, 0.5::DOUBLE AS y", "missing"),
        (
            "'a' AS user, 1::BIGINT AS timestamp, 0.5::DOUBLE AS x, 0.5::DOUBLE AS y, "
            "0.5::DOUBLE AS z, 1 AS more",
            "one more",
        ),
        (
            "1::BIGINT AS timestamp, 'a' AS user, 0.5::DOUBLE AS x, 0.5::DOUBLE AS y, "
            "0.5::DOUBLE AS z",
            "another order",
        ),
        (
            "'a' AS user, 1::INTEGER AS timestamp, 0.5::DOUBLE AS x, 0.5::DOUBLE AS y, "
            "0.5::DOUBLE AS z",
            "another type",
        ),
    ],
)
def test_a_file_with_other_columns_is_a_breach(
    engine: DuckDBEngine, tmp_path: Path, columns: str, problem: str
) -> None:
    table, file = TABLES["accelerometer_trusted"], tmp_path / "part-0.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {columns} FROM range(3)) TO '{file}' (FORMAT parquet)")
    files = {SIXTH: file}
    with pytest.raises(BrokenContractError) as error:
        verify(engine, table, files, engine.statistics(table, files))
    assert str(error.value).startswith(
        "accelerometer_trusted, partition 2023-08-06: its columns are {"
    ), problem
    assert "; 3 rows break this" in str(error.value)


def customer_file(folder: Path, *emails: str) -> Path:
    """A finished file of customer_trusted."""
    schema = ibis.schema(CUSTOMERS.schema).to_pyarrow()
    rows = pa.Table.from_pylist([ANN | {"email": email} for email in emails], schema=schema)
    folder.mkdir()
    pq.write_table(rows.drop_columns(PARTITION), folder / "part-0.parquet")
    return folder / "part-0.parquet"


@pytest.mark.parametrize("folder", ["seventh", "it's [7]*?"])
def test_of_several_files_the_breach_names_the_day_whose_file_it_is(
    engine: DuckDBEngine, tmp_path: Path, folder: str
) -> None:
    files = {
        SIXTH: customer_file(tmp_path / "sixth", "ann", "bob"),
        SEVENTH: customer_file(tmp_path / folder, "cy", "dee", "dee"),
        date(2023, 8, 8): customer_file(tmp_path / "eighth", "ann", "cy"),
    }
    with pytest.raises(BrokenContractError) as error:
        verify(engine, CUSTOMERS, files, engine.statistics(CUSTOMERS, files))
    assert str(error.value).startswith(
        "customer_trusted, partition 2023-08-07: the key (email) occurs more than once; "
        "2 rows break this"
    )


def test_files_that_keep_the_contract_pass_and_so_do_none_at_all(
    engine: DuckDBEngine, tmp_path: Path
) -> None:
    files = {
        SIXTH: customer_file(tmp_path / "sixth", "ann", "bob"),
        SEVENTH: customer_file(tmp_path / "seventh", "ann"),
        date(2023, 8, 8): customer_file(tmp_path / "eighth"),
    }
    verify(engine, CUSTOMERS, files, engine.statistics(CUSTOMERS, files))
    verify(engine, CUSTOMERS, {}, {})
