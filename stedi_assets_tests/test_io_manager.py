"""What assets return is what later assets are given, whatever is in it, and what Dagster is told.

Everything here goes through real runs.
"""

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.landing import LANDING
from stedi_assets.assets.specs import derived_asset
from stedi_assets.io_manager import IO_MANAGER_KEY
from stedi_assets.lake import Lake, open_lake
from stedi_assets.partitions import DAILY, EVERY_DATE, SINGLE_RUN
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import PARTITION, TABLES, Table
from stedi_assets_tests.end_to_end.landing_files import (
    QUIET,
    counts_by_date,
    customer,
    device,
    file_of,
    land,
    partition_tags,
    phone,
    resources_of,
    rows_by_date,
    run,
)

REFERENCE = DEFINITIONS[Policy.REFERENCE]

# Ibis 12 asks pandas 3 for an option that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*infer_string:pandas.errors.Pandas4Warning")

Row = dict[str, Any]

DAYS = [date(2023, 8, 6), date(2023, 8, 7), date(2023, 8, 8)]
RANGE = ("2023-08-06", "2023-08-08")
BEFORE, AFTER = date(2023, 8, 5), date(2023, 8, 9)
PHONE = TABLES["accelerometer_trusted"]

DTYPES = {
    "string": "str",
    "int64": "Int64",
    "int32": "Int32",
    "float64": "float64",
    "boolean": "bool",
    "date": "object",
}

INT64 = st.integers(-(2**63), 2**63 - 1)
# A DataFrame's column of numbers with nulls is one of floats, in which larger ones are not exact.
INT64_WITH_NULLS = st.none() | st.integers(-(2**53), 2**53)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "int64": st.sampled_from([-(2**63), -1, 0, 2**53 + 1, 2**63 - 1]) | INT64,
    "int32": st.sampled_from([-(2**31), 2**31 - 1]) | st.integers(-(2**31), 2**31 - 1),
    "float64": st.sampled_from([-0.0, 5e-324, -sys.float_info.max, math.inf, 0.1])
    | st.floats(allow_nan=False),
    "boolean": st.booleans(),
}


@st.composite
def tables_with_rows(draw: st.DrawFn) -> tuple[Table, list[Row]]:
    """A table of the registry, and rows that keep its contract, some of days that do not run."""
    table = TABLES[draw(st.sampled_from(list(TABLES)))]
    columns = {
        column.name: VALUES[column.type]
        if column.required
        else (INT64_WITH_NULLS if column.type == "int64" else st.none() | VALUES[column.type])
        for column in table.columns
    }
    row = st.fixed_dictionaries(columns | {PARTITION: st.sampled_from([BEFORE, *DAYS, AFTER])})
    key = table.key and (lambda found: tuple(found[name] for name in table.key))
    return table, draw(st.lists(row, max_size=12, unique_by=key or None))


def as_ibis(table: Table, rows: list[Row]) -> ir.Table:
    schema = ibis.schema(table.schema)
    return ibis.memtable(pa.Table.from_pylist(rows, schema=schema.to_pyarrow()), schema=schema)


def as_pandas(table: Table, rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: pd.Series([row[name] for row in rows], dtype="object").astype(DTYPES[kind])
            for name, kind in table.schema.items()
        }
    )


def values_of(table: Table, rows: list[Row]) -> dict[date, Counter[tuple[Any, ...]]]:
    """Rows by date, told apart to the sign of a zero."""
    found: dict[date, Counter[tuple[Any, ...]]] = {}
    for row in rows:
        values = (row[name] for name in table.column_names)
        exact = tuple(v.hex() if isinstance(v, float) else v for v in values)
        found.setdefault(row[PARTITION], Counter())[exact] += 1
    return found


def rows_of(table: Table, frame: pd.DataFrame) -> list[Row]:
    """The rows of a DataFrame, its missing values as None."""
    assert list(frame.columns) == list(table.schema)
    python: dict[str, Callable[[Any], Any]] = {
        "int64": int,
        "int32": int,
        "date": pd.Timestamp.date,
    }
    return [
        {
            name: None if pd.isna(row[name]) else python.get(kind, lambda same: same)(row[name])
            for name, kind in table.schema.items()
        }
        for row in frame.to_dict("records")
    ]


def producer(name: str, give: Callable[[], object], **more: Any) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        io_manager_key=IO_MANAGER_KEY,
        **more,
    )
    def produced() -> Any:
        return give()

    return produced


def consumers(name: str, seen: dict[str, list[Row]]) -> list[dg.AssetsDefinition]:
    """Two assets of a user that look at all partitions of a table, in both forms."""
    everything = {"rows": dg.AssetIn(key=name, partition_mapping=EVERY_DATE)}

    @dg.asset(ins=everything)
    def user_of_ibis(rows: ir.Table) -> None:
        seen["ibis"] = rows.to_pyarrow().to_pylist()
        seen["schema"] = [dict(rows.schema())]

    @dg.asset(ins=everything)
    def user_of_pandas(rows: pd.DataFrame) -> None:
        assert isinstance(rows, pd.DataFrame)
        seen["pandas"] = rows_of(TABLES[name], rows)

    return [user_of_ibis, user_of_pandas]


def materialize(
    root: Path, assets: list[dg.AssetsDefinition], first: str, last: str | None = None
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        assets,
        resources=resources_of(root),
        partition_key=first if last is None else None,
        tags=partition_tags(first, last) if last else None,
        run_config=QUIET,
        raise_on_error=False,
    )


@contextmanager
def new_lake() -> Iterator[Lake]:
    with tempfile.TemporaryDirectory() as folder:
        yield open_lake(folder)


def succeed(result: dg.ExecuteInProcessResult) -> dg.ExecuteInProcessResult:
    """The result of a run, which must not have failed."""
    errors = [
        str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure
    ]
    assert result.success, errors
    return result


def error_of(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step says, down to the first cause."""
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    while error and error.cause:
        error = error.cause
    return error.message if error else ""


# An example is a run: making a failing one smaller would take minutes.
@pytest.mark.long
@settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(tables_with_rows(), st.sampled_from([as_ibis, as_pandas]))
def test_the_rows_of_the_days_that_run_are_read_back_as_they_were(
    drawn: tuple[Table, list[Row]], form: Callable[[Table, list[Row]], object]
) -> None:
    table, rows = drawn
    seen: dict[str, list[Row]] = {}
    asset = producer(table.name, lambda: form(table, rows))
    with new_lake() as lake:
        result = materialize(lake.storage.root, [asset, *consumers(table.name, seen)], *RANGE)
        stored = counts_by_date(lake, table.name)
    succeed(result)
    given = {day: of for day, of in values_of(table, rows).items() if day in DAYS}
    if table.restated:  # other days whose rows are not the stored ones are written as well
        given = values_of(table, rows)
    assert seen["schema"] == [dict(ibis.schema(table.schema))]
    assert values_of(table, seen["ibis"]) == given
    assert values_of(table, seen["pandas"]) == given
    expected = {day: given.get(day, Counter()).total() for day in {*DAYS, *given}}
    assert stored == {day.isoformat(): rows for day, rows in sorted(expected.items())}


def with_optional_numbers(*numbers: int | None) -> list[Row]:
    """Rows of the sixth, with something else in a column that may have nulls."""
    table = TABLES["customer_landing"]
    row = dict.fromkeys(table.column_names) | {"email": "a", "serialnumber": "s"}
    row |= {"registrationdate": 1, "lastupdatedate": 2, PARTITION: DAYS[0]}
    return [row | {"sharewithresearchasofdate": number} for number in numbers]


@pytest.mark.parametrize("form", [as_ibis, as_pandas])
@pytest.mark.parametrize(
    "read_as",
    [
        "ibis",
        "pandas",
    ],
)
def test_the_largest_numbers_beside_nulls_are_read_back_as_they_were(
    lake: Lake, form: Callable[[Table, list[Row]], object], read_as: str
) -> None:
    seen: dict[str, list[Row]] = {}
    table = TABLES["customer_landing"]
    rows = with_optional_numbers(2**63 - 1, None, -(2**63), 2**53 + 1)
    assets = [producer(table.name, lambda: form(table, rows)), *consumers(table.name, seen)]
    succeed(materialize(lake.storage.root, assets, "2023-08-06"))
    assert values_of(table, seen[read_as]) == values_of(table, rows)


def phones(*rows: tuple[date, str, int]) -> list[Row]:
    return [
        {PARTITION: day, "user": user, "timestamp": time, "x": 0.5, "y": -1.0, "z": 0.0}
        for day, user, time in rows
    ]


def give_phones(*rows: tuple[date, str, int]) -> dg.AssetsDefinition:
    return producer(PHONE.name, lambda: as_ibis(PHONE, phones(*rows)))


@pytest.mark.parametrize(
    ("landing", "derived"),
    [
        ("accelerometer_landing", "accelerometer_trusted"),
        ("customer_landing", "customer_trusted"),
    ],
)
def test_what_is_read_as_a_data_frame_may_be_returned_as_it_is(
    lake: Lake, landing: str, derived: str
) -> None:
    seen: dict[str, list[Row]] = {}
    table = TABLES[landing]
    values = {"string": "a", "int64": 2**62 + 1, "float64": -0.0}
    row = {column.name: values[column.type] for column in table.columns}
    rows = [row | {PARTITION: DAYS[0], "email": "b"}, row | {PARTITION: DAYS[1]}]

    @dg.asset(
        name=derived,
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        io_manager_key=IO_MANAGER_KEY,
        ins={"rows": dg.AssetIn(key=landing)},
    )
    def same(rows: pd.DataFrame) -> pd.DataFrame:
        return rows

    assets = [producer(landing, lambda: as_ibis(table, rows)), same, *consumers(derived, seen)]
    succeed(materialize(lake.storage.root, assets, *RANGE))
    assert values_of(table, seen["ibis"]) == values_of(table, rows)


def test_a_step_is_given_the_partitions_that_its_mapping_names(lake: Lake) -> None:
    seen: list[list[Row]] = []
    one = give_phones((DAYS[0], "ann", 1), (DAYS[1], "bob", 2), (DAYS[2], "cy", 3))
    succeed(materialize(lake.storage.root, [one], *RANGE))

    @dg.asset(partitions_def=DAILY, ins={"rows": dg.AssetIn(key=PHONE.name)})
    def same_day(rows: ir.Table) -> None:
        seen.append(rows.to_pyarrow().to_pylist())

    result = dg.materialize(
        [one, same_day],
        selection=[same_day],
        resources=resources_of(lake.storage.root),
        partition_key="2023-08-07",
        run_config=QUIET,
    )
    succeed(result)
    assert seen == [phones((DAYS[1], "bob", 2))]


def test_partitions_outside_the_run_are_left_as_they_are(lake: Lake) -> None:
    rows = [(DAYS[0], "ann", 1), (DAYS[1], "bob", 2)]
    succeed(materialize(lake.storage.root, [give_phones(*rows)], *RANGE))
    before = {day: file_of(lake, PHONE.name, str(day)).stat() for day in DAYS}
    changed = [(DAYS[0], "other", 1), (DAYS[1], "new", 2), (DAYS[2], "other", 3)]
    succeed(materialize(lake.storage.root, [give_phones(*changed)], "2023-08-07"))
    for day in (DAYS[0], DAYS[2]):
        after = file_of(lake, PHONE.name, str(day)).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before[day].st_ino, before[day].st_mtime_ns)
    assert rows_by_date(lake, PHONE.name) == {
        "2023-08-06": Counter([("ann", 1, 0.5, -1.0, 0.0)]),
        "2023-08-07": Counter([("new", 2, 0.5, -1.0, 0.0)]),
        "2023-08-08": Counter(),
    }


def test_a_damaged_partition_is_left_out_of_what_is_made_from_the_others(lake: Lake) -> None:
    """Reconciliation mends it, and then what was made without it."""
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    land(lake, "step_trainer", "2023-08-06", device(100, "s"))
    land(lake, "step_trainer", "2023-08-07", device(100, "s", distance=7))
    succeed(run(lake, "2023-08-06", "2023-08-07"))
    pairs = "machine_learning_curated"
    assert counts_by_date(lake, pairs) == {"2023-08-06": 1, "2023-08-07": 1}
    damaged = file_of(lake, "accelerometer_trusted", "2023-08-06")
    damaged.write_bytes(b"not parquet, but long enough to be looked at")
    assets = [*LANDING, *map(derived_asset, REFERENCE)]
    result = dg.materialize(
        assets,
        selection=[pairs],
        resources=resources_of(lake.storage.root),
        partition_key="2023-08-07",
        run_config=QUIET,
        raise_on_error=False,
    )
    succeed(result)
    assert counts_by_date(lake, pairs) == {"2023-08-06": 1, "2023-08-07": 0}


def test_an_empty_partition_is_a_file_with_the_schema_and_no_rows(lake: Lake) -> None:
    succeed(materialize(lake.storage.root, [give_phones()], "2023-08-06"))
    stored = pq.ParquetFile(file_of(lake, PHONE.name, "2023-08-06"))
    assert stored.metadata.num_rows == 0
    assert [(field.name, str(field.type)) for field in stored.schema_arrow] == [
        ("user", "string"),
        ("timestamp", "int64"),
        ("x", "double"),
        ("y", "double"),
        ("z", "double"),
    ]


def test_nothing_is_left_in_the_staging_folder_after_a_run(lake: Lake) -> None:
    succeed(materialize(lake.storage.root, [give_phones((DAYS[0], "ann", 1))], *RANGE))
    staged = [path for path in (lake.storage.root / "_staging").rglob("*") if path.is_file()]
    assert staged == []


def test_an_asset_that_is_not_in_the_registry_is_refused_with_what_to_do(lake: Lake) -> None:
    asset = producer("step_counts", lambda: as_ibis(PHONE, []))
    message = error_of(materialize(lake.storage.root, [asset], "2023-08-06"))
    assert "step_counts is not in the registry, so the lake cannot keep it." in message
    assert "stedi_assets/tables.py" in message
    assert f"another io_manager_key than '{IO_MANAGER_KEY}'" in message


def test_reading_an_asset_that_is_not_in_the_registry_is_refused_with_what_to_do(
    lake: Lake,
) -> None:
    other = dg.AssetSpec("step_counts", partitions_def=DAILY).with_io_manager_key(IO_MANAGER_KEY)

    @dg.asset(ins={"rows": dg.AssetIn(key="step_counts")}, partitions_def=DAILY)
    def user(rows: ir.Table) -> None:
        raise AssertionError("never called")

    message = error_of(materialize(lake.storage.root, [other, user], "2023-08-06"))  # type: ignore[list-item]
    assert "step_counts is not in the registry" in message


# What Dagster is told.


def metadata_by_partition(
    result: dg.ExecuteInProcessResult, asset: str
) -> dict[str | None, dict[str, Any]]:
    found: dict[str | None, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        materialization = event.materialization
        if materialization.asset_key == dg.AssetKey(asset):
            assert materialization.partition not in found, "told twice"
            found[materialization.partition] = {
                name: value.value for name, value in materialization.metadata.items()
            }
    return found


def moment(milliseconds: int) -> float:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).timestamp()


def test_each_partition_of_a_run_is_told_with_its_own_figures(lake: Lake) -> None:
    rows = [(DAYS[0], "ann", 1691348231445), (DAYS[0], "bob", 1691348231999), (DAYS[2], "cy", 5)]
    result = materialize(lake.storage.root, [give_phones(*rows)], *RANGE)
    found = metadata_by_partition(result, PHONE.name)
    assert list(found) == ["2023-08-06", "2023-08-07", "2023-08-08"]
    figures = {
        day: (of["dagster/partition_row_count"], of.get("first_event"), of.get("last_event"))
        for day, of in found.items()
    }
    assert figures == {
        "2023-08-06": (2, moment(1691348231445), moment(1691348231999)),
        "2023-08-07": (0, None, None),
        "2023-08-08": (1, moment(5), moment(5)),
    }
    for day, of in found.items():
        file = file_of(lake, PHONE.name, str(day))
        assert of["dagster/uri"] == str(file)
        assert of["bytes"] == file.stat().st_size
        assert of["nulls"] == {"user": 0, "timestamp": 0, "x": 0, "y": 0, "z": 0}
        assert [(c.name, c.type) for c in of["dagster/column_schema"].columns] == [
            ("user", "string"),
            ("timestamp", "int64"),
            ("x", "float64"),
            ("y", "float64"),
            ("z", "float64"),
        ]
        assert "SELECT" in of["sql"]


def test_nulls_are_told_for_each_partition_and_column(lake: Lake) -> None:
    table = TABLES["customer_landing"]
    base = dict.fromkeys(table.column_names) | {"serialnumber": "s", "email": "a"}
    base |= {"registrationdate": 1, "lastupdatedate": 2}
    rows = [
        base | {PARTITION: DAYS[0], "customername": "Ann"},
        base | {PARTITION: DAYS[0], "phone": "5"},
        base | {PARTITION: DAYS[1], "phone": "5", "customername": "Bob"},
    ]
    asset = producer(table.name, lambda: as_ibis(table, rows))
    found = metadata_by_partition(materialize(lake.storage.root, [asset], *RANGE), table.name)
    nulls = {day: (of["nulls"]["customername"], of["nulls"]["phone"]) for day, of in found.items()}
    assert nulls == {"2023-08-06": (1, 1), "2023-08-07": (0, 0), "2023-08-08": (0, 0)}
    assert found["2023-08-06"]["nulls"]["sharewithresearchasofdate"] == 2
    assert found["2023-08-06"]["nulls"]["email"] == 0


def test_a_restated_partition_is_told_with_its_figures_too(lake: Lake) -> None:
    table = TABLES["customer_trusted"]

    def customers(*rows: tuple[date, str]) -> dg.AssetsDefinition:
        base = dict.fromkeys(table.column_names) | {"serialnumber": "s"}
        base |= {"registrationdate": 1, "lastupdatedate": 2}
        given = [base | {PARTITION: day, "email": email} for day, email in rows]
        return producer(table.name, lambda: as_ibis(table, given))

    first = customers((DAYS[0], "ann"), (DAYS[0], "bob"), (DAYS[1], "cy"))
    succeed(materialize(lake.storage.root, [first], "2023-08-06", "2023-08-07"))
    # Ann's row moves to the eighth.
    then = customers((DAYS[0], "bob"), (DAYS[1], "cy"), (DAYS[2], "ann"))
    found = metadata_by_partition(materialize(lake.storage.root, [then], "2023-08-08"), table.name)
    assert {day: of["dagster/partition_row_count"] for day, of in found.items()} == {
        "2023-08-06": 1,
        "2023-08-08": 1,
    }
    for day, of in found.items():
        assert of["dagster/uri"] == str(file_of(lake, table.name, str(day)))
        assert of["bytes"] == file_of(lake, table.name, str(day)).stat().st_size
        assert set(of) >= {"dagster/column_schema", "nulls", "sql", "first_event", "last_event"}


def test_every_materialization_of_the_job_has_every_figure(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    land(lake, "step_trainer", "2023-08-07", device(100, "s"))
    result = run(lake, "2023-08-06", "2023-08-07")
    succeed(result)
    expected = {
        "customer_landing": (1, 0),
        "accelerometer_landing": (1, 0),
        "step_trainer_landing": (0, 1),
        "customer_trusted": (1, 0),
        "accelerometer_trusted": (1, 0),
        "customers_curated": (1, 0),
        "step_trainer_trusted": (0, 1),
        "machine_learning_curated": (0, 1),
        "customer_rejects": (0, 0),
        "accelerometer_rejects": (0, 0),
        "step_trainer_rejects": (0, 0),
    }
    for name, table in TABLES.items():
        found = metadata_by_partition(result, name)
        assert list(found) == ["2023-08-06", "2023-08-07"], name
        counts = tuple(of["dagster/partition_row_count"] for of in found.values())
        assert counts == expected[name], name
        for day, of in found.items():
            assert of["dagster/uri"] == str(file_of(lake, name, str(day)))
            assert of["bytes"] == file_of(lake, name, str(day)).stat().st_size
            assert set(of["nulls"]) == set(table.column_names)
            columns = of["dagster/column_schema"].columns
            assert [column.name for column in columns] == list(table.column_names)
            assert of["sql"].startswith("```sql\n")
            assert "SELECT" in of["sql"]
            has_times = bool(table.event_time) and of["dagster/partition_row_count"] > 0
            assert ("first_event" in of, "last_event" in of) == (has_times, has_times)


def test_the_sql_that_is_told_of_a_curated_table_can_be_read_by_duckdb(lake: Lake) -> None:
    land(lake, "customer", "2023-08-06", customer("ann@test.com", "s"))
    land(lake, "accelerometer", "2023-08-06", phone("ann@test.com", 100))
    result = run(lake, "2023-08-06")
    (of,) = metadata_by_partition(result, "customers_curated").values()
    sql = of["sql"].removeprefix("```sql\n").removesuffix("\n```")
    (statement,) = duckdb.extract_statements(sql)
    assert statement.type == duckdb.StatementType.SELECT
    assert '"customer_trusted"' in sql
    assert '"accelerometer_trusted"' in sql


def test_a_run_that_fails_while_it_computes_publishes_nothing(lake: Lake) -> None:
    succeed(materialize(lake.storage.root, [give_phones((DAYS[0], "ann", 1))], *RANGE))
    before = {day: file_of(lake, PHONE.name, str(day)).read_bytes() for day in DAYS}
    bad = as_ibis(PHONE, phones((DAYS[0], "no number", 1))).mutate(
        x=ibis._.user.cast("float64"),
    )
    result = materialize(lake.storage.root, [producer(PHONE.name, lambda: bad)], *RANGE)
    assert "no number" in error_of(result)
    assert {day: file_of(lake, PHONE.name, str(day)).read_bytes() for day in DAYS} == before


@pytest.mark.parametrize("value", [42, None, "rows", [phones()]])
def test_what_is_no_table_is_refused(lake: Lake, value: object) -> None:
    asset = producer(PHONE.name, lambda: value)
    assert not materialize(lake.storage.root, [asset], "2023-08-06").success
    assert counts_by_date(lake, PHONE.name) == {}
