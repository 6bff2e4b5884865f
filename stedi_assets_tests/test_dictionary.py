"""docs/data-dictionary.md says of every table and column what the registry says."""

from dataclasses import replace
from pathlib import Path

import pytest

from stedi_assets import dictionary as module
from stedi_assets.dictionary import dictionary
from stedi_assets.tables import PARTITION, TABLES, Personal, Table, Zone

PAGE = Path(__file__).parents[1] / "docs" / "data-dictionary.md"
RENEW = "python -m stedi_assets.dictionary > docs/data-dictionary.md"

each_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def section(table: Table) -> str:
    return PAGE.read_text().partition(f"\n## {table.name}\n")[2].partition("\n## ")[0]


def rows(table: Table) -> dict[str, list[str]]:
    """The cells of a table's columns, by the column's name."""
    lines = [line for line in section(table).splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): rest for name, *rest in cells}


def test_the_page_is_what_the_registry_gives() -> None:
    assert PAGE.read_text() == dictionary(), f"the registry has changed: run `{RENEW}`"


@each_table
def test_the_page_has_every_column_of_every_table_in_order_and_the_partition(table: Table) -> None:
    assert list(rows(table)) == [*table.column_names, PARTITION]


@each_table
def test_a_column_is_told_with_type_meaning_nulls_and_personal_data(table: Table) -> None:
    for column in table.columns:
        kind, says, null, personal, origin = rows(table)[column.name]
        assert (kind, says) == (column.type, column.description)
        assert null == (column.null_means or "no nulls")
        assert personal.strip("*") == column.personal.value.replace("none", "")
        assert personal.startswith("**") == column.personal.identifies
        assert origin


@each_table
def test_whatever_names_a_person_is_told_at_the_top(table: Table) -> None:
    (line,) = (of for of in section(table).splitlines() if of.startswith("- What names a person"))
    named = [f"`{c.name}`" for c in table.columns if c.personal.identifies]
    assert line.partition(": ")[2] == (", ".join(named) or "nothing")
    assert bool(named) == (table.zone is not Zone.CURATED)


def test_what_a_table_is_by_either_policy_is_told_in_words() -> None:
    readings = section(TABLES["accelerometer_trusted"])
    assert "- Definition under `reference`: Phone readings of customers in customer_trusted" in (
        readings
    )
    assert "- Definition under `strict`: Phone readings at or after the moment" in readings
    assert "- Definition: Each customer's latest record" in section(TABLES["customer_trusted"])


def test_where_a_value_comes_from_and_that_it_is_hidden_is_told() -> None:
    curated = rows(TABLES["customers_curated"])
    assert curated["subject_id"][-1] == "`customer_trusted.email`, hashed"
    assert curated["birthyear"][-1] == "`customer_trusted.birthday`"
    assert rows(TABLES["customer_landing"])["birthday"][-1] == "the key `birthDay`"


def test_another_registry_gives_another_page(monkeypatch: pytest.MonkeyPatch) -> None:
    before = TABLES["customer_landing"]
    first, *others = before.columns
    changed = replace(before, columns=(replace(first, personal=Personal.NONE), *others))
    monkeypatch.setattr(module, "TABLES", TABLES | {before.name: changed})
    assert dictionary() != PAGE.read_text()
