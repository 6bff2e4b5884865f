"""What every definition owes the registry: the columns, and nothing from nothing."""

import dagster as dg
import ibis.expr.types as ir
import pytest

from stedi_assets.assets.curated import customers_curated, machine_learning_curated
from stedi_assets.assets.trusted import (
    accelerometer_trusted,
    customer_trusted,
    step_trainer_trusted,
)
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.tables import TABLES, Zone
from stedi_assets_tests.assets.rows import table

DEFINITIONS = [
    customer_trusted,
    accelerometer_trusted,
    customers_curated,
    step_trainer_trusted,
    machine_learning_curated,
]
EACH = pytest.mark.parametrize(
    "definition", DEFINITIONS, ids=[definition.key.to_user_string() for definition in DEFINITIONS]
)


def of_empty_tables(definition: dg.AssetsDefinition) -> ir.Table:
    return definition(**{name: table(name) for name in definition.keys_by_input_name})


def test_every_table_beyond_landing_has_a_definition() -> None:
    assert [definition.key.to_user_string() for definition in DEFINITIONS] == [
        name for name, known in TABLES.items() if known.zone is not Zone.LANDING
    ]


@EACH
def test_a_definition_has_the_columns_and_types_of_the_registry(
    definition: dg.AssetsDefinition,
) -> None:
    schema = of_empty_tables(definition).schema()
    assert {name: str(kind) for name, kind in schema.items()} == TABLES[
        definition.key.to_user_string()
    ].schema


@EACH
def test_empty_tables_give_an_empty_table_with_the_columns_of_the_registry(
    engine: DuckDBEngine, definition: dg.AssetsDefinition
) -> None:
    found = engine.ibis.to_pyarrow(of_empty_tables(definition))
    assert found.num_rows == 0
    assert set(found.column_names) == set(TABLES[definition.key.to_user_string()].schema)
