"""What is installed: by hash everywhere, audited and billed from the same lock files."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from stedi_assets_tests.deploy.test_image import requirements

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "requirements.lock", ROOT / "deploy" / "aws" / "requirements.lock"]
SBOM = ROOT / "deploy" / "sbom.py"


def test_whatever_installs_packages_compares_their_hashes() -> None:
    files = [*ROOT.glob("Makefile"), *ROOT.glob(".ci/*"), *ROOT.glob("deploy/**/*Dockerfile")]
    assert len(files) == 4
    installs = [
        command
        for file in files
        for command in re.findall(
            r"pip\b[^\n&]* install\b[^\n&]*", re.sub(r"\\\n\s*", " ", file.read_text())
        )
    ]
    assert len(installs) == 6
    for command in installs:  # what has no hash is the project itself, without what it needs
        assert "--require-hashes" in command or {"--no-deps", "--no-build-isolation"} <= set(
            command.split()
        ), command


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_every_locked_package_has_a_hash_and_comes_from_wherever_pip_is_told(lock: Path) -> None:
    found = requirements(lock)
    assert len(found) > 50
    for package, hashes in found.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[^]]+\])?==[^ ;]+( ; .*)?", package)
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", of) for of in hashes)
    assert "http" not in re.sub(r"(?m)^[a-z0-9-]*http[a-z0-9-]*==.*$", "", lock.read_text())


def test_both_lock_files_are_audited_as_they_are_and_nothing_is_resolved_anew() -> None:
    told = subprocess.check_output(["make", "-n", "audit"], cwd=ROOT, text=True)
    audits = [line for line in told.splitlines() if "pip-audit" in line and "-m pip" not in line]
    assert [ROOT / line.split("-r ")[1] for line in audits] == LOCKS
    for audit in audits:
        assert "--require-hashes --disable-pip" in audit
    assert "pip-audit==" in LOCKS[0].read_text()


def test_the_bill_of_materials_is_valid_and_has_every_package_of_the_image_with_its_hashes() -> (
    None
):
    text = subprocess.check_output([sys.executable, SBOM, LOCKS[1]], text=True)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    billed = {
        of["bom-ref"]: sorted(one["content"] for one in of["hashes"])
        for of in json.loads(text)["components"]
    }
    locked = {
        re.sub(r"\[.*\]", "", package.split(" ;")[0]): sorted(of.split(":")[1] for of in hashes)
        for package, hashes in requirements(LOCKS[1]).items()
    }
    assert billed == locked
    assert "dagster==" in text


def test_a_line_that_is_not_understood_is_not_left_out_of_the_bill() -> None:
    bill = runpy.run_path(str(SBOM))["bill"]
    with pytest.raises(ValueError, match="neither a package"):
        bill("dagster @ https://example.com/dagster.whl\n")
