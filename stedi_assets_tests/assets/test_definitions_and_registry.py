"""What every definition owes the registry: the columns, and nothing from nothing."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import ibis.expr.types as ir
import pytest

from stedi_assets.assets.definition import Definition, Need, derived
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.specs import derived_asset
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import TABLES, Zone
from stedi_assets_tests.assets.rows import curated, customer, rows_of, table

REFERENCE = DEFINITIONS[Policy.REFERENCE]

EACH = pytest.mark.parametrize(
    "definition",
    [
        pytest.param(definition, id=f"{policy} {name}")
        for policy, definitions in DEFINITIONS.items()
        for name, definition in definitions.items()
    ],
)
EACH_POLICY = pytest.mark.parametrize("policy", Policy)


def of_empty_tables(definition: Definition) -> ir.Table:
    return definition(**{name: table(name) for name in definition.needs})


@EACH_POLICY
def test_every_table_beyond_landing_has_a_definition_under_every_policy(policy: Policy) -> None:
    assert list(DEFINITIONS[policy]) == [
        name for name, known in TABLES.items() if known.zone is not Zone.LANDING
    ]
    for name, definition in DEFINITIONS[policy].items():
        assert definition.table is TABLES[name]


@EACH
def test_a_definition_has_the_columns_and_types_of_the_registry(definition: Definition) -> None:
    schema = of_empty_tables(definition).schema()
    assert {name: str(kind) for name, kind in schema.items()} == definition.table.schema


@EACH
def test_empty_tables_give_an_empty_table_with_the_columns_of_the_registry(
    engine: DuckDBEngine, definition: Definition
) -> None:
    found = engine.ibis.to_pyarrow(of_empty_tables(definition))
    assert found.num_rows == 0
    assert set(found.column_names) == set(definition.table.schema)


@EACH
def test_a_definition_says_of_each_table_that_it_takes_what_it_needs_of_it(
    definition: Definition,
) -> None:
    assert list(inspect.signature(definition.rows).parameters) == list(definition.needs)
    assert set(definition.needs) <= TABLES.keys()


@EACH
def test_tables_are_made_in_an_order_in_which_what_one_reads_is_made_before(
    definition: Definition,
) -> None:
    order = list(TABLES)
    for name in definition.needs:
        assert order.index(name) < order.index(definition.table.name)


@EACH_POLICY
def test_readings_are_needed_of_the_same_moments_and_customers_of_every_date(
    policy: Policy,
) -> None:
    needs = {
        (definition.table.name, name): need
        for definition in DEFINITIONS[policy].values()
        for name, need in definition.needs.items()
    }
    same_moments = {pair for pair, need in needs.items() if need is Need.SAME_MOMENTS}
    assert same_moments == {
        ("accelerometer_trusted", "accelerometer_landing"),
        ("step_trainer_trusted", "step_trainer_landing"),
        ("machine_learning_curated", "step_trainer_trusted"),
        ("machine_learning_curated", "accelerometer_trusted"),
        *([("step_trainer_trusted", "accelerometer_trusted")] if policy is Policy.STRICT else []),
    }
    assert len(needs) > len(same_moments)


@pytest.mark.parametrize(
    ("name", "dated_by"),
    [
        ("customer_trusted", ["customer_landing"]),
        ("accelerometer_trusted", ["accelerometer_landing"]),
        ("customers_curated", ["customer_trusted"]),
        ("step_trainer_trusted", ["step_trainer_landing"]),
        ("machine_learning_curated", ["step_trainer_trusted", "accelerometer_trusted"]),
    ],
)
def test_a_table_has_the_dates_of_its_readings_or_else_of_the_table_that_it_filters(
    name: str, dated_by: list[str]
) -> None:
    assert REFERENCE[name].dated_by == [TABLES[name] for name in dated_by]


def test_the_tables_of_which_something_is_needed_are_in_the_order_in_which_they_are_read() -> None:
    definition = REFERENCE["machine_learning_curated"]
    assert definition.reads(Need.SAME_MOMENTS) == [
        TABLES["step_trainer_trusted"],
        TABLES["accelerometer_trusted"],
    ]
    assert definition.reads(Need.EVERY_DATE) == [
        TABLES["customer_trusted"],
        TABLES["customers_curated"],
    ]
    assert REFERENCE["customers_curated"].reads(Need.SAME_MOMENTS) == []


@EACH
def test_who_is_let_through_is_said_of_the_tables_of_every_date_alone(
    definition: Definition,
) -> None:
    """A table of which one run restates all partitions depends on all of its input."""
    depends_on_people = not definition.table.restated and definition.reads(Need.EVERY_DATE)
    assert bool(definition.people) == bool(depends_on_people)
    if definition.people:
        every_date = [found.name for found in definition.reads(Need.EVERY_DATE)]
        assert set(inspect.signature(definition.people).parameters) == set(every_date)
        people = definition.people(**{name: table(name) for name in every_date})
        assert "person" in people.columns


def test_the_people_of_a_definition_are_those_whose_rows_it_lets_through(
    engine: DuckDBEngine,
) -> None:
    trusted = table("customer_trusted", customer(" Ann@stedi.com"), customer("bob@stedi.com"))
    consenting = REFERENCE["accelerometer_trusted"].people
    assert consenting
    found = rows_of(engine, consenting(customer_trusted=trusted))
    assert [row["person"] for row in found] == ["ann@stedi.com", "bob@stedi.com"]
    both = REFERENCE["step_trainer_trusted"].people
    assert both
    assert both is REFERENCE["machine_learning_curated"].people
    in_curated = table("customers_curated", curated("ann@stedi.com"))
    (row,) = rows_of(engine, both(customer_trusted=trusted, customers_curated=in_curated))
    assert (row["person"], row["serialnumber"]) == ("ann@stedi.com", "serial of ann")


def test_a_definition_is_called_with_tables_in_order_or_by_name(engine: DuckDBEngine) -> None:
    @derived(customer_landing=Need.EVERY_DATE)
    def customer_trusted(customer_landing: ir.Table) -> ir.Table:
        return customer_landing

    landed = table("customer_landing", customer())
    assert rows_of(engine, customer_trusted(landed)) == [customer()]
    assert rows_of(engine, customer_trusted(customer_landing=landed)) == [customer()]
    assert customer_trusted.people is None


def test_a_definition_is_named_as_a_table_of_the_registry() -> None:
    def step_counts(customer_landing: ir.Table) -> ir.Table:
        return customer_landing

    with pytest.raises(KeyError, match="step_counts"):
        derived(customer_landing=Need.EVERY_DATE)(step_counts)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_asset_of_a_table_has_its_name_and_reads_what_its_definitions_read(
    name: str,
) -> None:
    asset = derived_asset(name)
    assert asset.key.to_user_string() == name
    read = {of: key.to_user_string() for of, key in asset.keys_by_input_name.items()}
    assert read == {of: of for policy in Policy for of in DEFINITIONS[policy][name].needs}


PRINT_QUERIES = """
import json, sys
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.privacy.policies import Policy
from stedi_assets.lake import open_lake
from stedi_assets.resources import open_engine
from stedi_assets.tables import TABLES
with open_engine(open_lake(sys.argv[1])) as engine:
    print(json.dumps({
        f"{policy} {name}": engine.sql(
            of(**{read: engine.expression(TABLES[read]) for read in of.needs})
        )
        for policy, definitions in DEFINITIONS.items()
        for name, of in definitions.items()
    }))
"""


def test_the_query_of_a_definition_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Partitions note it; another one would let every process doubt what others made."""
    found: list[dict[str, str]] = []
    for seed in ("0", "1", "2", "3"):  # by which Python orders sets
        done = subprocess.run(
            [sys.executable, "-c", PRINT_QUERIES, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout))
    assert len(found[0]) == sum(map(len, DEFINITIONS.values()))
    for name in found[0]:
        assert {queries[name] for queries in found} == {found[0][name]}
