"""Measures the tests of the modules that everything rests on, and says what they do not notice.

A module is changed at one place at a time, and the tests that run this place are run until one
fails. A change that none notices is a gap in the tests, code that nobody needs, or explained in
explained.toml. What was noticed is kept in .mutants/, and not tried again until the module changes;
begin anew by deleting that folder. Whenever it is stopped, the module is put back.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tomllib
from collections import Counter
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from stedi_assets_tests.quality.covering import GROUPS, KEPT, PACKAGE, ROOT, Covering
from stedi_assets_tests.quality.mutants import Mutant, changed, mutants, noticing

EXPLAINED = Path(__file__).with_name("explained.toml")

LEAST = 0.95
"""Of the branches of each module so many have to be taken."""

_LIKELY = 20
"""So many of the tests that have noticed most changes of a module run before the others."""

_TAKES_LONG = (
    "_hypothesis_pytestplugin",
    "boto3",
    "dagster",
    "dagster_aws.s3",
    "dagster_duckdb",
    "duckdb",
    "hypothesis.strategies",
    "ibis.backends.duckdb",
    "moto.server",
    "pandas",
    "pyarrow.parquet",
)
"""To import; nothing of the package."""


def explained() -> set[str]:
    """The names of the changes that no test can notice, or their beginnings."""
    entries = tomllib.loads(EXPLAINED.read_text())["change"]
    return {
        f"{of['module']}: {of['before']} => {of.get('after', '')}" for of in entries if of["why"]
    }


class Noticed:
    """The changes of a module that its tests have noticed, as long as it stays as it is."""

    def __init__(self, module: Path) -> None:
        version = sha256(module.read_bytes()).hexdigest()[:12]
        name = str(module.relative_to(PACKAGE)).replace("/", ".")
        self._path = KEPT / f"{name}.{version}.json"
        self._known = set(json.loads(self._path.read_text())) if self._path.exists() else set()

    def __contains__(self, mutant: Mutant) -> bool:
        return f"{mutant.line} {mutant.name}" in self._known

    def add(self, mutant: Mutant) -> None:
        """Keep that a change was noticed."""
        self._known.add(f"{mutant.line} {mutant.name}")
        self._path.write_text(json.dumps(sorted(self._known), indent=1))


def tried(module: Path, covering: Covering, seconds: float) -> Counter[str]:
    """Try every change of a module, and tell of those that nobody noticed."""
    found: Counter[str] = Counter()
    have_noticed: Counter[str] = Counter()
    noticed, of_no_account = Noticed(module), explained()
    for mutant in mutants(module):
        found["changes"] += 1
        if mutant in noticed:
            found["noticed"] += 1
            continue
        if {mutant.name, mutant.beginning} & of_no_account:
            found["explained"] += 1
            continue
        tests = covering.tests(module, mutant.line, seconds)
        likely = [test for test, _ in have_noticed.most_common() if test in tests][:_LIKELY]
        others = [test for test in tests if test not in likely]
        with changed(mutant):
            found_by = (noticing(some, 60 + 10 * seconds) for some in (likely, others) if some)
            by = next(filter(None, found_by), None)
        if by:
            found["noticed"] += 1
            have_noticed[by] += 1
            noticed.add(mutant)
        else:
            found["unnoticed"] += 1
            print(f"  {module.relative_to(ROOT)}:{mutant.line}, by {len(tests)} tests")
            print(f"    - {mutant.before}\n    + {mutant.after}", flush=True)
    return found


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m stedi_assets_tests.quality", description=__doc__
    )
    parser.add_argument("names", nargs="*", help=f"modules, or groups of them: {', '.join(GROUPS)}")
    parser.add_argument(
        "--branches", action="store_true", help="run the tests anew, and change nothing"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="that the tests of a change may take; slower ones are left out (%(default)s)",
    )
    arguments = parser.parse_args()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # which puts the module back
    for name in _TAKES_LONG:
        import_module(name)
    print(f"{'module':<26}{'branches':>16}{'changes':>9}{'noticed':>9}{'explained':>11}{'not':>5}")
    is_well = True
    for name, group in GROUPS.items():
        asked = [
            module
            for module in group.paths
            if {name, str(module.relative_to(PACKAGE))} & {*(arguments.names or [name])}
        ]
        covering = Covering(name, arguments.branches) if asked else None
        for module in asked:
            assert covering
            taken, branches = covering.branches(module)
            found: Counter[str] = Counter()
            if not arguments.branches:
                found = tried(module, covering, arguments.seconds)
            is_well &= taken >= LEAST * branches and not found["unnoticed"]
            share = f"{taken} of {branches}"
            figures = (found[of] for of in ("changes", "noticed", "explained", "unnoticed"))
            print(
                f"{module.relative_to(PACKAGE)!s:<26}{share:>16}"
                + "{:>9,}{:>9,}{:>11,}{:>5,}".format(*figures),
                flush=True,
            )
    return not is_well


if __name__ == "__main__":
    sys.exit(main())
