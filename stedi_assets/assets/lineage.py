"""From which columns each column of a table comes, read off its definition's expression.

Which rows are let through is no matter of columns: a filter adds nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import ibis
import ibis.expr.operations as ops

from stedi_assets.assets.definition import Definition
from stedi_assets.privacy.pseudonyms import pseudonym
from stedi_assets.tables import TABLES


class Origin(NamedTuple):
    """A column from which a value comes.

    Attributes:
        table: its table.
        column: its name.
        as_pseudonym: whether its values come as pseudonyms alone.
    """

    table: str
    column: str
    as_pseudonym: bool


def lineage(definition: Definition) -> Mapping[str, frozenset[Origin]]:
    """The origins of each column of a table, among those of the tables that it reads."""
    read = {
        name: ibis.table(ibis.schema(TABLES[name].schema), name=name) for name in definition.needs
    }
    values = definition(**read).op().values
    return {name: frozenset(_origins(value, False)) for name, value in values.items()}


def _origins(node: ops.Node, as_pseudonym: bool) -> Iterator[Origin]:
    if isinstance(node, ops.Field):
        if isinstance(node.rel, ops.PhysicalTable):
            yield Origin(node.rel.name, node.name, as_pseudonym)
        else:
            yield from _origins(node.rel.values[node.name], as_pseudonym)
    elif isinstance(node, ops.Relation):  # of a subquery
        for value in node.values.values():
            yield from _origins(value, as_pseudonym)
    else:
        for child in node.__children__:
            yield from _origins(child, as_pseudonym or _is_pseudonym(node))


def _is_pseudonym(node: ops.Node) -> bool:
    return isinstance(node, ops.ScalarUDF) and node.__func_name__ == pseudonym.__name__
