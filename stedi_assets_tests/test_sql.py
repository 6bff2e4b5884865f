"""No SQL is made by pasting values: every f-string of SQL in the package is looked at as code.

What it has in it must be made of constants, of what quotes (`quoted`, `text`, …), of names in the
registry, or of such SQL. `end_to_end/test_hostile_values.py` sees that nothing else came through.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import stedi_assets

PACKAGE = Path(stedi_assets.__file__).parent
SQL = re.compile(
    r"\b(SELECT|FROM|COPY|ATTACH|DETACH|CREATE|INSERT|DELETE|UPDATE|WHERE|JOIN|UNION|CASE|WHEN|"
    r"THEN|CAST|DATE|GROUP BY|ORDER BY|SET|NOT|AND|OR|IN|AS|LIKE)\b|[a-z_]+\("
)
QUOTING = {"quoted", "_quoted", "text", "file_list", "rows_of_files", "no_rows", "_list", "sql"}
"""Functions that give SQL whatever they are given, `sql` being Ibis' own; those too whose
docstrings begin with "SQL" or "The name of"."""
REGISTRY = {
    *(
        "column_names",
        "consenting",
        "event_time",
        "filters",
        "key",
        "name",
        "people",
        "texts",
        "type",
    )
}
"""Attributes that are names in the registry, or of tables that the package makes."""
REVIEWED = {
    "catalog/athena.py": {"dates", "stretch.first", "stretch.last"},  # dates as numbers
    "catalog/views.py": {"query"},  # of `_rows` or `_none`, which give SQL
    "contract.py": {"condition"},  # two constants
    "engines/duckdb.py": {  # SQL of the callers, which are looked at themselves; and a number
        *("also", "by", "more", "query", "rows", "source", "text"),
        "count",
    },
    "engines/spark.py": {"also", "capitals", "small", "sys.maxunicode + 1"},  # SQL, letters
    "lakehouse.py": {"query"},
    "landing/on_spark.py": {"kept_out", "of_day", "view", "which"},  # names of its own views
    "landing/reader.py": {  # of columns of the registry, by `_typed` and `_values`
        *("cast", "is_whole", "name", "raw", "raw[column.name]", "self._columns", "sign", "text"),
        *("form", "more", "threads"),  # constants and a number
    },
    "privacy/erasure.py": {"columns"},  # a constant
    "privacy/rules.py": {"rows", "value", "who.get(column, column)", "without"},  # of the registry
    "privacy/suppression.py": {  # SQL for values and names of tables, given by callers
        *("counts", "either", "kept_out", "kind", "name", "rows", "subjects", "text", "time"),
        *("value", "without", "word", "words"),
    },
    "reconcile.py": {"bool(key)"},
    "remembered.py": {"day", "days", "gone", "people"},  # dates, a name of two, SQL
    "rules.py": {"day", "here", "looked_at", "passes", "where"},  # dates, SQL
    "snapshots.py": {"below", "cases", "device", "hashed", "rows", "split", "table"},  # of SPLITS
}
"""By module: what holds SQL, a constant, a date or a number, whoever calls; read one by one."""


class Module:
    """The SQL that a module makes of text."""

    def __init__(self, path: Path, giving: set[str]) -> None:
        self.tree = ast.parse(path.read_text())
        self.giving = giving
        self.parents = {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }

    def doubtful(self) -> Iterator[str]:
        """What is put into SQL, and is none of what may be."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.JoinedStr) and self._is_sql(node):
                for value in node.values:
                    if isinstance(value, ast.FormattedValue) and not self.safe(value.value, ()):
                        yield ast.unparse(value.value)

    def _is_sql(self, node: ast.JoinedStr) -> bool:
        parent = self.parents.get(node)
        told = isinstance(parent, ast.Call) and ast.unparse(parent.func).endswith(("Error", "fail"))
        words = "".join(v.value for v in node.values if isinstance(v, ast.Constant))
        return not told and bool(SQL.search(words))

    def safe(self, node: ast.expr, seen: tuple[str, ...]) -> bool:
        """Whether an expression gives SQL, whatever the data are."""
        match node:
            case ast.Constant():
                return True
            case ast.Name(name):
                return name.isupper() or self._local(node, name, seen)
            case ast.Attribute(ast.Name(name), attribute):
                return name.isupper() or (attribute in REGISTRY and name != "snapshot")
            case ast.Attribute(_, attribute):
                return attribute in REGISTRY
            case ast.Subscript(of, _):
                return self.safe(of, seen)
            case ast.JoinedStr(values):
                return all(
                    self.safe(of.value, seen) for of in values if isinstance(of, ast.FormattedValue)
                )
            case ast.IfExp(_, one, other):
                return self.safe(one, seen) and self.safe(other, seen)
            case ast.BinOp(one, ast.Add(), other):
                return self.safe(one, seen) and self.safe(other, seen)
            case ast.BoolOp(_, values):
                return all(self.safe(of, seen) for of in values)
            case ast.List(values) | ast.Tuple(values) | ast.Set(values):
                return all(self.safe(of, seen) for of in values)
            case ast.Starred(of):
                return self.safe(of, seen)
            case ast.GeneratorExp(of) | ast.ListComp(of):
                return self.safe(of, seen)
            case ast.Call(ast.Name("map"), [ast.Name(by), *_]):
                return by in self.giving
            case ast.Call(ast.Name("sorted"), [of]):
                return self.safe(of, seen)
            case ast.Call(ast.Attribute(joint, "join"), [of]):
                return self.safe(joint, seen) and self.safe(of, seen)
            case ast.Call(ast.Attribute(ast.Name(name), "format"), of, named):
                values = [*of, *(keyword.value for keyword in named)]
                return name.isupper() and all(self.safe(one, seen) for one in values)
            case ast.Call(ast.Name(name) | ast.Attribute(_, name)):
                return name in self.giving
        return False

    def _local(self, node: ast.expr, name: str, seen: tuple[str, ...]) -> bool:
        """Whether all that a local name is given is safe; a parameter and a loop's name is not."""
        if name in seen:
            return True
        scope: ast.AST = node
        while not isinstance(scope, ast.FunctionDef | ast.Module):
            scope = self.parents[scope]
        given = [*self._given(scope, name)]
        return bool(given) and all(of is not None and self.safe(of, (*seen, name)) for of in given)

    def _given(self, scope: ast.AST, name: str) -> Iterator[ast.expr | None]:
        for node in ast.walk(scope):
            match node:
                case ast.arg(arg) if arg == name:
                    yield None
                case (
                    ast.Assign([ast.Name(target)], value)
                    | ast.AugAssign(ast.Name(target), _, value)
                    | ast.AnnAssign(ast.Name(target), _, value)
                ) if target == name:
                    yield value
                case ast.Assign([ast.Tuple(targets)], value):
                    yield from self._unpacked(targets, value, name)
                case ast.comprehension(ast.Name(target), values) | ast.For(
                    ast.Name(target), values
                ) if target == name:
                    yield values if isinstance(values, ast.List | ast.Tuple) else None
                case ast.comprehension(ast.Tuple(targets)) | ast.For(ast.Tuple(targets)):
                    yield from (
                        None for of in targets if isinstance(of, ast.Name) and of.id == name
                    )

    def _unpacked(
        self, targets: list[ast.expr], value: ast.expr, name: str
    ) -> Iterator[ast.expr | None]:
        for place, target in enumerate(targets):
            if isinstance(target, ast.Name) and target.id == name:
                match value:
                    case ast.Tuple(values):
                        yield values[place]
                    case ast.IfExp(_, ast.Tuple(one), ast.Tuple(other)):
                        yield one[place]
                        yield other[place]
                    case _:
                        yield None


def giving_sql() -> set[str]:
    """The functions of the package that say that they give SQL."""
    return QUOTING | {
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and (ast.get_docstring(node) or "").startswith(("SQL", "The name of"))
    }


def test_what_is_put_into_sql_is_quoted_or_named_by_the_package() -> None:
    giving = giving_sql()
    for path in sorted(PACKAGE.rglob("*.py")):
        reviewed = REVIEWED.get(path.relative_to(PACKAGE).as_posix(), set())
        assert set(Module(path, giving).doubtful()) - reviewed == set(), path


def test_a_pasted_value_is_found(tmp_path: Path) -> None:
    for pasted in (
        """execute(f"SELECT 1 FROM a WHERE email = '{email}'")""",
        """where = f"email = '{email}'"; execute(f"SELECT 1 FROM a WHERE {where}")""",
        """execute(f"ATTACH '{snapshot.name}'")""",
        """execute(f"SELECT {', '.join(f'{value}' for value in values)}")""",
    ):
        (tmp_path / "a.py").write_text(f"def a(email, values, snapshot):\n    {pasted}\n")
        assert list(Module(tmp_path / "a.py", giving_sql()).doubtful()), pasted
    (tmp_path / "a.py").write_text(
        """def a(name): execute(f"SELECT {quoted(name)}, {_ROWS.name}")"""
    )
    assert not list(Module(tmp_path / "a.py", giving_sql()).doubtful())
