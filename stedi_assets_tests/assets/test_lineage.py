"""Where the columns come from: none of the curated zone from what names a person."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import dagster as dg
import ibis.expr.types as ir
import pytest

from stedi_assets.assets.definition import Definition
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.lineage import Origin, lineage
from stedi_assets.metadata import column_lineage
from stedi_assets.privacy.policies import Policy
from stedi_assets.privacy.pseudonyms import pseudonym
from stedi_assets.tables import PARTITION, TABLES, Column, Zone

EACH_POLICY = pytest.mark.parametrize("policy", Policy)
CURATED = [table for table in TABLES.values() if table.zone is Zone.CURATED]


known: dict[int, tuple[Definition, Mapping[str, frozenset[Origin]]]] = {}


def origins_of(definition: Definition) -> Mapping[str, frozenset[Origin]]:
    """`lineage`, once for each definition: reading off an expression takes a moment."""
    if id(definition) not in known:
        known[id(definition)] = definition, lineage(definition)
    return known[id(definition)][1]


def column_of(table: str, name: str) -> Column | None:
    """A column of the registry; None is the partition column."""
    return next((column for column in TABLES[table].columns if column.name == name), None)


def in_the_clear(
    definitions: Mapping[str, Definition], table: str, name: str
) -> Iterator[tuple[str, str]]:
    """The landing columns that a column's values come from, but for those that it only hides."""
    if table not in definitions:
        yield table, name
        return
    column = column_of(table, name)
    for origin in origins_of(definitions[table])[name]:
        is_general = column is not None and column.generalises == origin.column
        if not origin.as_pseudonym and not is_general:
            yield from in_the_clear(definitions, origin.table, origin.column)


def leaks(definitions: Mapping[str, Definition]) -> set[tuple[str, str]]:
    """The curated columns in which a value names somebody."""
    return {
        (table.name, name)
        for table in CURATED
        for name in (*table.column_names, PARTITION)
        for landing, of in in_the_clear(definitions, table.name, name)
        for column in [column_of(landing, of)]
        if column is not None and column.personal.identifies
    }


@EACH_POLICY
def test_no_curated_column_comes_from_one_that_names_a_person_but_hidden_or_generalised(
    policy: Policy,
) -> None:
    assert leaks(DEFINITIONS[policy]) == set()


@EACH_POLICY
def test_what_does_come_from_such_columns_are_pseudonyms_and_declared_generalisations(
    policy: Policy,
) -> None:
    hidden = {
        (table.name, name)
        for table in CURATED
        for name, origins in lineage(DEFINITIONS[policy][table.name]).items()
        for origin in origins
        for column in [column_of(origin.table, origin.column)]
        if column is not None and column.personal.identifies
    }
    assert ("customers_curated", "subject_id") in hidden
    assert ("customers_curated", "birthyear") in hidden
    for table, name in hidden:
        column = column_of(table, name)
        assert column is not None
        assert column.personal.value in {"pseudonym", "generalised"}


def test_a_column_that_tells_less_than_another_names_one_of_the_registry() -> None:
    names = {column.name for table in TABLES.values() for column in table.columns}
    general = [c for table in TABLES.values() for c in table.columns if c.generalises]
    assert [column.name for column in general] == ["birthyear"]
    assert {column.generalises for column in general} <= names
    for table in TABLES.values():
        for column in table.columns:
            assert (column.personal.value == "generalised") == bool(column.generalises)


DISGUISES: dict[str, Callable[[ir.StringValue], ir.Value]] = {
    "as it is": lambda value: value,
    "in capitals": lambda value: value.upper(),
    "a part of it": lambda value: value.left(3),
    "hashed without the key": lambda value: value.hexdigest("sha256"),
    "behind its pseudonym": lambda value: pseudonym(value) + value,
    "where there is none": lambda value: pseudonym(value).nullif("").fill_null(value),
    "its length": lambda value: value.length(),
    "whether it is something": lambda value: value == "ann@stedi.com",
}


def with_leak(
    definition: Definition, name: str, table: str, column: str, disguise: str
) -> Definition:
    """The definition, with a column of what it reads in place of another; under any disguise."""

    def rows(**upstream: ir.Table) -> ir.Table:
        other = upstream[table].select(leak=upstream[table][column]).distinct()
        leaking = definition.rows(**upstream).cross_join(other)
        columns = {of: leaking[of] for of in leaking.columns if of != "leak"}
        return leaking.select(**columns | {name: DISGUISES[disguise](leaking.leak)})

    return replace(definition, rows=rows)


@EACH_POLICY
@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_definition_that_lets_a_raw_column_through_in_any_disguise_is_found(
    policy: Policy, disguise: str
) -> None:
    tried = 0
    for table in CURATED:
        definition = DEFINITIONS[policy][table.name]
        raw = [
            (read, column.name)
            for read in definition.needs
            for column in TABLES[read].columns
            if column.personal.identifies and column.type == "string"
        ]
        for read, column in raw:
            for name in table.column_names if disguise == "as it is" else table.column_names[-1:]:
                if (name, column) == ("birthyear", "birthday"):
                    continue  # what a year of birth may tell, test_curated.py says
                leaking = with_leak(definition, name, read, column, disguise)
                found = leaks(DEFINITIONS[policy] | {table.name: leaking})
                assert (table.name, name) in found, f"{column} of {read} as {name}"
                tried += 1
    assert tried > 10


def test_a_leak_into_a_trusted_column_is_found_in_the_curated_one_that_comes_from_it() -> None:
    definitions = DEFINITIONS[Policy.REFERENCE]
    leaking = with_leak(
        definitions["accelerometer_trusted"], "x", "accelerometer_landing", "user", "its length"
    )
    assert leaks(definitions | {"accelerometer_trusted": leaking}) == {
        ("machine_learning_curated", "x")
    }


def test_the_origins_of_a_column_are_those_of_the_tables_that_its_definition_reads() -> None:
    found = lineage(DEFINITIONS[Policy.STRICT]["step_trainer_trusted"])
    assert found["distancefromobject"] == {
        Origin("step_trainer_landing", "distancefromobject", False)
    }
    assert found[PARTITION] == {
        Origin("step_trainer_landing", PARTITION, False),
        Origin("accelerometer_trusted", PARTITION, False),
    }


def test_dagster_is_told_of_every_stored_column_and_of_none_of_a_landing_table() -> None:
    told = column_lineage(TABLES["machine_learning_curated"], Policy.REFERENCE).deps_by_column
    assert set(told) == set(TABLES["machine_learning_curated"].column_names)
    assert told["x"] == [dg.TableColumnDep(dg.AssetKey("accelerometer_trusted"), "x")]
    assert column_lineage(TABLES["customer_landing"], Policy.REFERENCE).deps_by_column == {}
