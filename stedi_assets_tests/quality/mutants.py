"""Modules that are changed at one place, and whether their tests notice."""

from __future__ import annotations

import ast
import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import parso
import pytest
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code

from stedi_assets_tests.quality.covering import KEPT, PACKAGE
from stedi_assets_tests.quality.operators import operators

_Place = tuple[int, int]

_MOMENTS = itertools.count(int(time.time()))
"""Seconds, of which no two changes have the same: a change takes more than one."""

_OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of what is imported already
)


_ALL = "all of them"


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Attributes:
        module: its path.
        line: where the change is.
        before: the lines as they are, without blanks around them.
        after: the lines as they would be.
        code: the whole changed module.
    """

    module: Path
    line: int
    before: str
    after: str
    code: str

    @property
    def name(self) -> str:
        """The change in words that stay the same when the module grows elsewhere."""
        return self.beginning + self.after

    @property
    def beginning(self) -> str:
        """What all changes of the same lines have in common."""
        return f"{self.module.relative_to(PACKAGE)}: {self.before} => "


def mutants(module: Path) -> Iterator[Mutant]:
    """Every change of a module that is worth a try, each once."""
    source = module.read_text()
    lines = source.splitlines()
    left_alone = list(_left_alone(source))
    seen = {source, None}
    for operator in operators().values():
        places = [
            start
            for node in ast_nodes(parso.parse(source))
            for start, _ in operator.mutation_positions(node)
        ]
        for number, place in enumerate(places):
            if any(first <= place < last for first, last in left_alone):
                continue
            try:
                code = mutate_code(source, operator, number)
            except AttributeError:  # of `except a.b`, which Cosmic Ray cannot change
                continue
            if code in seen or not _is_python(code):
                continue
            seen.add(code)
            changed = code.splitlines()
            first = _alike(lines, changed)
            last = _alike(reversed(lines[first:]), reversed(changed[first:]))
            before, after = (
                " ".join(map(str.strip, of[first : len(of) - last])) for of in (lines, changed)
            )
            yield Mutant(module, first + 1, before, after, code)


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def _alike(lines: Iterable[str], others: Iterable[str]) -> int:
    """How many lines are the same before the first that is not."""
    both = zip(lines, others, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], both))


def _left_alone(source: str) -> Iterator[tuple[_Place, _Place]]:
    """Where a change means nothing when code runs: docstrings, annotations, what a type checker
    alone reads, decorators that add no more than speed or comparisons, the `*` that asks for names
    of arguments, and `strict=True` of `zip`, which asserts that what goes together is as long."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                yield from (
                    _whole(decorator)
                    for decorator in node.decorator_list
                    if ast.unparse(decorator).startswith(("cache", "dataclass"))
                )
                if isinstance(node, ast.FunctionDef):
                    if node.returns:
                        yield _whole(node.returns)
                    if node.args.kwonlyargs:
                        before = [_whole(of)[1] for of in [*node.args.args, *node.args.defaults]]
                        name = node.lineno, node.col_offset
                        yield max(before, default=name), _whole(node.args.kwonlyargs[0])[0]
            case (
                ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation)
            ):
                yield _whole(annotation)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield _whole(node)
            case ast.Expr(value=ast.Constant()):
                yield _whole(node)
            case ast.Call(func=ast.Name(id="zip"), keywords=[ast.keyword(value=value)]):
                yield _whole(value)


def _whole(node: ast.expr | ast.stmt | ast.arg) -> tuple[_Place, _Place]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


@contextmanager
def changed(mutant: Mutant) -> Iterator[None]:
    """Have the changed module in the place of the real one."""
    source, was = mutant.module.read_text(), mutant.module.stat()
    mutant.module.write_text(mutant.code)
    moment = next(_MOMENTS)  # by size and whole seconds Python tells whether bytecode is old
    os.utime(mutant.module, (moment, moment))
    try:
        yield
    finally:
        mutant.module.write_text(source)
        os.utime(mutant.module, (was.st_atime, was.st_mtime))


def noticing(tests: list[str], patience: float) -> str | None:
    """The first of some tests that fails with the code as it is on the disk now.

    They run in a fork of this process, which has imported what takes long, but nothing of the
    package.

    Args:
        tests: as pytest calls them.
        patience: after so many seconds they hang.

    Returns:
        The test; `_ALL` if they hang, or cannot be imported; nothing if none fails.

    Raises:
        RuntimeError: pytest cannot run them.
    """
    asked, output = KEPT / "asked", KEPT / "output"
    asked.write_text("\n".join(tests))
    pid = os.fork()
    if pid == 0:
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code: int = pytest.ExitCode.INTERNAL_ERROR
        try:
            code = int(pytest.main([*_OPTIONS, f"@{asked}"]))
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        finally:
            sys.stdout.flush()
            os._exit(code)
    until = time.monotonic() + patience
    ended, status = 0, 0
    try:
        while not ended and time.monotonic() < until:
            time.sleep(0.02)
            ended, status = os.waitpid(pid, os.WNOHANG)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # also what the tests have started
    if not ended:
        os.waitpid(pid, 0)
        return _ALL
    code = os.waitstatus_to_exitcode(status)
    match code:
        case pytest.ExitCode.OK:
            return None
        case pytest.ExitCode.TESTS_FAILED:
            told = output.read_text(errors="replace").splitlines()
            return next((test for line in told for test in tests if _says(line, test)), _ALL)
        case pytest.ExitCode.INTERRUPTED | pytest.ExitCode.USAGE_ERROR:
            return _ALL  # the changed module cannot be imported
    raise RuntimeError(f"pytest ended with {code}:\n{output.read_text()}")


def _says(line: str, test: str) -> bool:
    return line.startswith((f"FAILED {test} - ", f"ERROR {test} - ")) or line in (
        f"FAILED {test}",
        f"ERROR {test}",
    )
