"""The data dictionary: what the registry and the definitions say of each table, as a page to read.

`python -m stedi_assets.dictionary` prints it; docs/data-dictionary.md is what it prints.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from textwrap import fill

from stedi_assets.assets.definition import Definition
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.assets.lineage import Origin, lineage
from stedi_assets.catalog.hive import PARTITION_COMMENT, PARTITION_TYPE, TYPES
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import PARTITION, TABLES, Column, Personal, Table

_WIDTH = 125
_NO_NULLS = "no nulls"


def dictionary() -> str:
    """The page, in Markdown."""
    overview = _table(
        ("table", "zone", "a row is", "lies in"),
        (
            (f"[{name}](#{name})", table.zone, table.description, f"`{table.path}`")
            for name, table in TABLES.items()
        ),
    )
    parts = ["# The data dictionary", *(fill(text, _WIDTH) for text in _preface()), overview]
    return "\n".join(["\n\n".join(parts), *map(_section, TABLES.values())])


def _preface() -> Iterator[str]:
    yield (
        "Every table with its columns: what they say, what a null says, and what personal data "
        "they hold. Made from the [registry](../stedi_assets/tables.py) by "
        "`python -m stedi_assets.dictionary`; a test fails while this page says something else."
    )
    yield (
        f"A table is one Parquet file for each `{PARTITION}`: the day, UTC, to which the landing "
        "file belongs that brought the row; of a pair, that of the later half. It is in the "
        "folder's name and not in the file, and a column for all that read Hive's folders. "
        "Moments are milliseconds since 1970, UTC."
    )
    others = ", ".join(f"{name} {of}" for name, of in TYPES.items() if name != of)
    yield f"Types are Arrow's; Athena calls {others}."
    kinds = ", ".join(_kind(kind) for kind in Personal if kind is not Personal.NONE)
    yield (
        f"Kinds of personal data are {kinds}. What is bold identifies people, and never reaches "
        "the curated zone. [What is promised to them](privacy.md) is on a page of its own."
    )


def _section(table: Table) -> str:
    """What there is to say of a table."""
    identifying = [column.name for column in table.columns if column.personal.identifies]
    facts = {
        "Zone": table.zone,
        "Who answers for it": table.owner.removeprefix("team:"),
        "Lies in": f"`<lake>/{table.path}/{PARTITION}=YYYY-MM-DD/part-0.parquet`",
        "Key": _names(table.key) or "none",
        "Event time": _names(filter(None, [table.event_time])) or "none",
        "What names a person": _names(identifying) or "nothing",
        "Whose data a row is": _names(table.subjects) or "said by what names a person",
        "Made from": _made_from(table),
    } | _in_words(table)
    origins = _origins(table)
    columns = _table(
        ("column", "type", "says", "a null says", "personal data", "comes from"),
        (
            *(
                (
                    f"`{column.name}`",
                    column.type,
                    column.description,
                    column.null_means or _NO_NULLS,
                    "" if column.personal is Personal.NONE else _kind(column.personal),
                    origins[column.name],
                )
                for column in table.columns
            ),
            (f"`{PARTITION}`", PARTITION_TYPE, PARTITION_COMMENT, _NO_NULLS, "", "the folder"),
        ),
    )
    lines = [f"- {what}: {says}" for what, says in facts.items()]
    return "\n".join([f"## {table.name}\n", f"{table.description}\n", *lines, "", columns])


def _made_from(table: Table) -> str:
    if table.name in DEFINITIONS[Policy.REFERENCE]:
        read = {name for of in DEFINITIONS.values() for name in of[table.name].needs}
        return ", ".join(f"[{name}](#{name})" for name in TABLES if name in read)
    return f"the files below `<lake>/{table.source}/landing/`"


def _in_words(table: Table) -> dict[str, str]:
    """A table's definition under each policy, or under both where they agree."""
    found = {
        policy: definitions[table.name]
        for policy, definitions in DEFINITIONS.items()
        if table.name in definitions
    }
    if len({id(definition) for definition in found.values()}) == 1:
        return {"Definition": _words(found[Policy.REFERENCE])}
    return {f"Definition under `{policy}`": _words(of) for policy, of in found.items()}


def _words(definition: Definition) -> str:
    """The definition's docstring, on one line."""
    return " ".join((inspect.getdoc(definition.rows) or "").split())


def _origins(table: Table) -> dict[str, str]:
    """From which columns each column comes, under the policies together."""
    if table.name not in DEFINITIONS[Policy.REFERENCE]:
        return {column.name: _key(column) for column in table.columns}
    found: dict[str, set[Origin]] = {column.name: set() for column in table.columns}
    for definitions in DEFINITIONS.values():
        for name, origins in lineage(definitions[table.name]).items():
            if name != PARTITION:
                found[name] |= origins
    return {
        name: ", ".join(
            f"`{origin.table}.{origin.column}`" + (", hashed" if origin.as_pseudonym else "")
            for origin in sorted(origins)
        )
        for name, origins in found.items()
    }


def _key(column: Column) -> str:
    return f"the key `{column.key}`" if column.key else "the reader"


def _kind(kind: Personal) -> str:
    return f"**{kind.value}**" if kind.identifies else kind.value


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def lines() -> Iterator[str]:
        for row in (heads, ("---",) * len(heads), *rows):
            yield f"| {' | '.join(row)} |\n"

    return "".join(lines())


if __name__ == "__main__":
    print(dictionary(), end="")
