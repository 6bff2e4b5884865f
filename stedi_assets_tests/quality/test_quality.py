"""What is changed in code to try the tests, and that what is explained is still there."""

import tomllib
from pathlib import Path

import parso
import pytest
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code

from stedi_assets_tests.quality import mutants as module_under_test
from stedi_assets_tests.quality.__main__ import EXPLAINED, explained
from stedi_assets_tests.quality.covering import GROUPS, PACKAGE, lines_to_run, node_id
from stedi_assets_tests.quality.mutants import mutants
from stedi_assets_tests.quality.operators import Methods, Sql


def changes(operator: Sql | Methods, code: str) -> list[str | None]:
    places = [
        place
        for node in ast_nodes(parso.parse(code))
        for place in operator.mutation_positions(node)
    ]
    return [mutate_code(code, operator, number) for number in range(len(places))]


@pytest.mark.parametrize(
    ("sql", "changed"),
    [
        ("WHERE a = 'x'", ["WHERE a <> 'x'", "WHERE NOT a = 'x'"]),
        (
            "a < b AND b IS NULL",
            ["a < b OR b IS NULL", "a < b AND b IS NOT NULL", "a <= b AND b IS NULL"],
        ),
        ("FROM a LEFT JOIN b", ["FROM a JOIN b"]),
        ("SELECT max(x) FROM a", ["SELECT min(x) FROM a"]),
        ("SELECT x + 1 FROM a", ["SELECT x - 1 FROM a", "SELECT x + 0 FROM a"]),
        ("FROM a UNION ALL FROM b", ["FROM a UNION FROM b"]),
        ("x => y WHEN", []),
    ],
)
def test_a_word_a_sign_or_a_number_of_sql_is_changed(sql: str, changed: list[str]) -> None:
    assert changes(Sql(), f'q = "{sql}"') == [f'q = "{of}"' for of in changed]
    assert changes(Sql(), f'q = f"{sql} {{x}}"') == [f'q = f"{of} {{x}}"' for of in changed]


def test_words_for_people_are_no_sql() -> None:
    assert changes(Sql(), 'told = f"{count} = 1, or more, and not 0"') == []


def test_a_method_becomes_its_opposite_and_a_name_stays() -> None:
    assert changes(Methods(), "x.min()\nmin = x.min") == ["x.max()\nmin = x.min"]


def test_what_no_code_reads_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "PACKAGE", tmp_path)
    module = tmp_path / "module.py"
    module.write_text(
        '"""WHERE a = 1"""\n'
        "@dataclass(frozen=True)\n"
        "class A:\n"
        "    b: int | None = None\n"
        "def f(a: int | str, *, b: int) -> int | None:\n"
        "    print(dict(zip(a, a, strict=True)))\n"
        "    return a == 7\n"
    )
    assert {found.name for found in mutants(module)} == {
        "module.py: return a == 7 => return a != 7",
        "module.py: return a == 7 => return a == 8",
        "module.py: return a == 7 => return a == 6",
    }
    assert {found.line for found in mutants(module)} == {7}


def test_a_change_after_which_it_is_no_python_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_under_test, "PACKAGE", tmp_path)
    module = tmp_path / "module.py"
    module.write_text("if a := f():\n    print(a)\n")  # `if not a := f():` is none
    assert list(mutants(module)) == []


def test_tests_are_those_of_the_innermost_function_or_of_what_names_a_constant() -> None:
    source = "A = 1\nB = 2\ndef f():\n    def g():\n        return 1\n    return B\n"
    assert [lines_to_run(source, line) for line in (1, 2, 5, 6)] == [
        {1, 2, 3, 4, 5, 6},
        {4, 5, 6},
        {5},
        {4, 5, 6},
    ]


def test_tests_of_a_class_are_known_by_it() -> None:
    assert node_id("tests.privacy.test_a", "test_b[x.y]") == "tests/privacy/test_a.py::test_b[x.y]"
    assert node_id("tests.test_a.TestB", "test_c") == "tests/test_a.py::TestB::test_c"


def test_the_modules_are_there() -> None:
    assert all(path.is_file() for group in GROUPS.values() for path in group.paths)


ENTRIES = tomllib.loads(EXPLAINED.read_text())["change"]


def test_every_explanation_says_something() -> None:
    assert all(len(of["why"]) > 20 for of in ENTRIES)


@pytest.mark.long  # two minutes in all: the module is parsed anew for each change
@pytest.mark.parametrize("module", sorted({of["module"] for of in ENTRIES}))
def test_every_change_that_is_explained_is_one_that_is_tried(module: str) -> None:
    tried = {name for of in mutants(PACKAGE / module) for name in (of.name, of.beginning)}
    assert {name for name in explained() if name.startswith(f"{module}: ")} <= tried
