"""Which tests run which lines and branches of the modules that everything rests on."""

from __future__ import annotations

import ast
import itertools
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coverage import Coverage, CoverageData

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "stedi_assets"
KEPT = ROOT / ".mutants"
"""What is measured is kept here, until somebody deletes it."""


@dataclass(frozen=True)
class Group:
    """Modules that have their tests in common.

    Attributes:
        modules: below the package.
        tests: below the folder of tests, all but those on Spark.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """Where the modules are."""
        return [PACKAGE / module for module in self.modules]


GROUPS = {
    "definitions": Group(
        tuple(
            f"assets/{of}.py"
            for of in ("definition", "definitions", "landing", "trusted", "curated", "strict")
        ),
        ("assets", "engines/test_duckdb.py", "test_jobs.py", "test_policy.py"),
    ),
    "reader": Group(
        tuple(f"landing/{of}.py" for of in ("files", "on_spark", "reader", "records", "sample")),
        ("landing", "test_unread.py"),
    ),
    "publishing": Group(
        ("contract.py", "making.py", "publishing.py"),
        (
            "test_contract.py",
            "test_io_manager.py",
            "test_making.py",
            "test_metadata.py",
            "test_publishing.py",
        ),
    ),
    "reconcile": Group(
        ("reconcile.py",),
        (
            "test_reconcile.py",
            "test_unread.py",
            "privacy/test_erasure.py::"
            "test_what_comes_again_is_kept_out_and_does_not_hold_its_date_back",
            "privacy/test_erasure.py::"
            "test_a_list_that_is_put_back_after_the_files_keeps_out_whom_runs_had_let_in",
        ),
    ),
    "privacy": Group(
        tuple(
            f"privacy/{of}.py"
            for of in ("consent", "erasure", "pseudonyms", "rules", "suppression", "traces")
        ),
        ("assets", "privacy", "test_policy.py"),
    ),
}

_LEFT_OUT = (
    # It tries one thing some thirty times, and takes minutes.
    "privacy/test_erasure.py::"
    "test_killed_at_any_change_it_goes_on_and_ends_as_if_nothing_had_happened",
)


class Covering:
    """What the tests of a group run, as one run of them told.

    Args:
        name: of the group.
        anew: run them also if it is known already.

    Raises:
        subprocess.CalledProcessError: one of the tests fails.
    """

    def __init__(self, name: str, anew: bool) -> None:
        self._data_file = KEPT / f"{name}.coverage"
        self._told = KEPT / f"{name}.xml"
        if anew or not self._data_file.exists():
            KEPT.mkdir(exist_ok=True)
            draft = self._data_file.with_suffix(".draft")
            subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-q", "-m", "not spark"),
                    *(f"--deselect=stedi_assets_tests/{test}" for test in _LEFT_OUT),
                    *("--cov=stedi_assets", "--cov-branch", "--cov-context=test", "--cov-report="),
                    f"--junitxml={self._told}",
                    *(f"stedi_assets_tests/{tests}" for tests in GROUPS[name].tests),
                ],
                cwd=ROOT,
                env={**os.environ, "COVERAGE_FILE": str(draft)},
                check=True,
            )
            draft.rename(self._data_file)

    def branches(self, module: Path) -> tuple[int, int]:
        """How many branches of a module are taken, and how many there are."""
        coverage = Coverage(data_file=str(self._data_file))
        coverage.load()
        of_lines = coverage.branch_stats(str(module)).values()
        return sum(taken for _, taken in of_lines), sum(exits for exits, _ in of_lines)

    def tests(self, module: Path, line: int, seconds: float) -> list[str]:
        """Tests that run what a line is for, as `lines_to_run` says; the quickest first.

        Args:
            module: its path.
            line: its number.
            seconds: how long they may take in all; the first may take longer.
        """
        lines = lines_to_run(module.read_text(), line)
        names = {
            context.rpartition("|")[0]
            for number, contexts in self._contexts(module).items()
            if number in lines
            for context in contexts
        }
        found: list[str] = []
        total = 0.0
        for name in sorted(names & self._seconds.keys(), key=self._seconds.__getitem__):
            total += self._seconds[name]
            if found and total > seconds:
                break
            found.append(name)
        return found

    def _contexts(self, module: Path) -> dict[int, list[str]]:
        return self._data.contexts_by_lineno(str(module))

    @cached_property
    def _data(self) -> CoverageData:
        data = CoverageData(str(self._data_file))
        data.read()
        return data

    @cached_property
    def _seconds(self) -> dict[str, float]:
        """How long each test takes that was not skipped."""
        return {
            node_id(case.attrib["classname"], case.attrib["name"]): float(case.attrib["time"])
            for case in ElementTree.parse(self._told).iter("testcase")
            if case.find("skipped") is None
        }


def node_id(class_name: str, name: str) -> str:
    """What pytest calls a test of which its XML says these."""
    parts = class_name.split(".")
    file = next(number for number, part in enumerate(parts, 1) if part.startswith("test_"))
    return "::".join([f"{'/'.join(parts[:file])}.py", *parts[file:], name])


def lines_to_run(source: str, line: int) -> set[int]:
    """The lines of which tests may notice a change of a line: those of the innermost function
    around it, without its head; of a constant, those of the functions that name it; else all."""
    found = range(1, len(source.splitlines()) + 1)
    functions = [
        (node, range(node.body[0].lineno, node.end_lineno + 1))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.end_lineno
    ]
    for _, body in functions:
        if line in body and len(body) < len(found):
            found = body
    if found.start > 1:
        return {*found}
    named = {
        target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and line in range(node.lineno, (node.end_lineno or 0) + 1)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    naming = (
        body
        for function, body in functions
        if named & {of.id for of in ast.walk(function) if isinstance(of, ast.Name)}
    )
    return {*itertools.chain(*naming)} or {*found}
