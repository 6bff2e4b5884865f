"""What is changed in code, one place at a time: Cosmic Ray's operators, and ours for SQL and Ibis.

Most rules of the tables are SQL in strings or methods of Ibis, which no other tool changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import Name, PythonLeaf
from parso.tree import NodeOrLeaf

Position = tuple[tuple[int, int], tuple[int, int]]

OF_COSMIC_RAY = (
    "AddNot",
    "ExceptionReplacer",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_BitAnd_BitOr",
    "ReplaceBinaryOperator_BitOr_BitAnd",
    "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_FloorDiv_Mul",
    "ReplaceBinaryOperator_Mod_Mul",
    "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBreakWithContinue",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceContinueWithBreak",
    "ReplaceFalseWithTrue",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceUnaryOperator_Delete_Invert",
    "ReplaceUnaryOperator_Delete_Not",
    "ZeroIterationForLoop",
)
"""One change of each kind; Cosmic Ray would put eleven others in the place of each plus."""

_LOOKS_LIKE_SQL = re.compile(
    r"\b(SELECT|FROM|WHERE|JOIN|CASE|WHEN|USING|COPY|CREATE|NULL|AND|OR|NOT|IN|GROUP BY|ORDER BY)\b"
)

_SQL = [
    (re.compile(found), instead)
    for found, instead in (
        (r"\bAND\b", "OR"),
        (r"\bOR\b(?! REPLACE)", "AND"),
        (r"\bIS NULL\b", "IS NOT NULL"),
        (r"\bIS NOT NULL\b", "IS NULL"),
        (r"\bIS DISTINCT FROM\b", "IS NOT DISTINCT FROM"),
        (r"\bIS NOT DISTINCT FROM\b", "IS DISTINCT FROM"),
        (r"(?<!IS )\bNOT (?!NULL|EXISTS)", ""),
        (r"\bEXISTS\b", "NOT EXISTS"),
        (r"<>|!=", "="),
        (r"(?<![<>=!:])=(?![=>])", "<>"),
        (r"<=", "<"),
        (r">=", ">"),
        (r"(?<![<\-])<(?![<=>])", "<="),
        (r"(?<![>\-=<])>(?![>=])", ">="),
        (r"\bLEFT JOIN\b", "JOIN"),
        (r"\bANTI JOIN\b", "SEMI JOIN"),
        (r"\bSEMI JOIN\b", "ANTI JOIN"),
        (r"\bUNION ALL\b", "UNION"),
        (r"\bUNION\b(?! ALL)", "UNION ALL"),
        (r"\bEXCEPT\b", "INTERSECT"),
        (r"\bDISTINCT\b(?! FROM)", ""),
        (r"\bDESC\b", ""),
        (r"\b(arg_)?min\(", r"\1max("),
        (r"\b(arg_)?max\(", r"\1min("),
        (r"\bbool_and\(", "bool_or("),
        (r"\bbool_or\(", "bool_and("),
        (r"(?<=[\w)\"'}]) \+ (?=[\w(\"'{])", " - "),
        (r"(?<=[\w)\"'}]) - (?=[\w(\"'{])", " + "),
        (r"(?<![\w.'-])0(?![\w.'])", "1"),
        (r"(?<![\w.'-])[1-9]\d*(?![\w.'])", "0"),
        (r"\b(WHERE|ON|FILTER \(WHERE) ", r"\1 NOT "),
    )
]

_METHODS = {
    "all": "any",
    "anti_join": "semi_join",
    "any": "all",
    "desc": "asc",
    "greatest": "least",
    "inner_join": "left_join",
    "isnull": "notnull",
    "least": "greatest",
    "left_join": "inner_join",
    "max": "min",
    "min": "max",
    "notnull": "isnull",
    "semi_join": "anti_join",
}


class Sql(Operator):  # type: ignore[misc]  # Cosmic Ray has no types
    """Changes a word, a sign or a number of the SQL in a string."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        """See Cosmic Ray's `Operator`."""
        for _ in self._changed(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: PythonLeaf, index: int) -> PythonLeaf:
        """See Cosmic Ray's `Operator`."""
        node.value = list(self._changed(node))[index]
        return node

    @staticmethod
    def _changed(node: NodeOrLeaf) -> Iterator[str]:
        if node.type == "fstring_string":
            whole = node.parent.get_code()
        elif node.type == "string":
            whole = node.value
        else:
            return
        if _LOOKS_LIKE_SQL.search(whole):
            for pattern, instead in _SQL:
                for found in pattern.finditer(node.value):
                    start, end = found.span()
                    yield node.value[:start] + found.expand(instead) + node.value[end:]

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """See Cosmic Ray's `Operator`; ours are in the tests."""
        return ()


class Methods(Operator):  # type: ignore[misc]  # Cosmic Ray has no types
    """Calls another method or function in the place of its opposite."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        """See Cosmic Ray's `Operator`."""
        if isinstance(node, Name) and node.value in _METHODS:
            following = node.get_next_leaf()
            if following is not None and following.value == "(":
                yield node.start_pos, node.end_pos

    def mutate(self, node: Name, index: int) -> Name:
        """See Cosmic Ray's `Operator`."""
        node.value = _METHODS[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """See Cosmic Ray's `Operator`; ours are in the tests."""
        return ()


def operators() -> dict[str, Operator]:
    """All that are used, by name."""
    of_cosmic_ray = OperatorProvider()
    found = {name: of_cosmic_ray[name]() for name in OF_COSMIC_RAY}
    return {**found, "Sql": Sql(), "Methods": Methods()}
