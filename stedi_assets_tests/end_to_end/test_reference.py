"""The real landing files through the command line: the counts that the project promises."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import dagster as dg
import pytest

from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.landing_files import Record
from stedi_assets_tests.end_to_end.process import AWS, counts, stedi, succeeded
from stedi_assets_tests.storages import AnyPath, files_in, root_of

ROOT = Path(__file__).parents[2]
SOURCES = ("customer", "accelerometer", "step_trainer")
DAY = "2023-08-06"
"""The ingestion date of all the files, by their names."""

# As the course's documents state them, for the policy `reference`.
STATED = {
    "customer_landing": 956,
    "accelerometer_landing": 81_273,
    "step_trainer_landing": 28_680,
    "customer_trusted": 482,
    "accelerometer_trusted": 40_981,
    "customers_curated": 482,
    "step_trainer_trusted": 14_460,
    "machine_learning_curated": 43_681,
}
NO_REJECTS = {f"{source}_rejects": 0 for source in SOURCES}


@dataclass(frozen=True)
class Oracle:
    """What the files hold, and what follows from it by each policy: by plain Python alone."""

    customers: list[Record]
    phones: list[Record]
    devices: list[Record]

    @classmethod
    def of(cls, folder: AnyPath) -> Oracle:
        return cls(
            *(
                [
                    json.loads(line)
                    for file in sorted((folder / source / "landing").glob("*.json"))
                    for line in file.read_bytes().decode().splitlines()
                ]
                for source in SOURCES
            )
        )

    @cached_property
    def latest(self) -> dict[str, Record]:
        """Each person's latest record."""
        found: dict[str, Record] = {}
        order = ("lastUpdateDate", "registrationDate")
        for record in sorted(self.customers, key=lambda record: [record[key] for key in order]):
            found[person(record["email"])] = record
        return found

    @cached_property
    def consenting(self) -> dict[str, Record]:
        return {w: r for w, r in self.latest.items() if r.get("shareWithResearchAsOfDate")}

    def counts(self, policy: Policy) -> dict[str, int]:
        """The rows of the eight tables."""
        is_strict = policy is Policy.STRICT
        phones = {
            tuple(reading[name] for name in ("user", "timestamp", "x", "y", "z"))
            for reading in self.phones
            for record in [self.consenting.get(person(reading["user"]))]
            if record
            and (not is_strict or reading["timestamp"] >= record["shareWithResearchAsOfDate"])
        }
        curated = {w: self.consenting[w] for w in {person(user) for user, *_ in phones}}
        # Phone readings by millisecond and serial number of their user's device.
        at = Counter((time, curated[person(user)]["serialNumber"]) for user, time, *_ in phones)
        at_moment = Counter(time for _, time, *_ in phones)
        serials = {record["serialNumber"] for record in curated.values()}
        devices = {
            (time, serial, reading["distanceFromObject"])
            for reading in self.devices
            for time, serial in [(reading["sensorReadingTime"], reading["serialNumber"])]
            if ((time, serial) in at if is_strict else serial in serials)
        }
        return {
            "customer_landing": len(self.customers),
            "accelerometer_landing": len(self.phones),
            "step_trainer_landing": len(self.devices),
            "customer_trusted": len(self.consenting),
            "accelerometer_trusted": len(phones),
            "customers_curated": len(curated),
            "step_trainer_trusted": len(devices),
            "machine_learning_curated": sum(
                at[time, serial] if is_strict else at_moment[time] for time, serial, _ in devices
            ),
        }

    def warnings(self, policy: Policy) -> set[tuple[str, str, str, str]]:
        """Table, check, number and share of what is to be warned of."""
        registered = {w: r["registrationDate"] for w, r in self.latest.items()}
        of_device: dict[str, int] = {}
        for record in self.latest.values():
            serial, moment = record["serialNumber"], record["registrationDate"]
            of_device[serial] = min(moment, of_device.get(serial, moment))
        implausible = sum(not is_plausible(record["birthDay"]) for record in self.customers)
        early_phones = sum(
            r["timestamp"] < registered.get(person(r["user"]), 0) for r in self.phones
        )
        early_devices = sum(
            r["sensorReadingTime"] < of_device.get(r["serialNumber"], 0) for r in self.devices
        )
        pairs = self.counts(policy)["machine_learning_curated"]
        others = 0 if policy is Policy.STRICT else pairs - self.pairs_of_one_customer()
        figures = {
            ("customer_landing", "birthdays"): (implausible, len(self.customers)),
            ("accelerometer_landing", "before_registration"): (early_phones, len(self.phones)),
            ("step_trainer_landing", "before_registration"): (early_devices, len(self.devices)),
            ("machine_learning_curated", "same_customer"): (others, pairs),
        }
        return {
            (table, check, f"{count:,}", f"{count / total:.1%}")
            for (table, check), (count, total) in figures.items()
            if count
        }

    def pairs_of_one_customer(self) -> int:
        """Of all readings of people who consent, whenever they were taken."""
        at = Counter(
            (r["timestamp"], self.consenting[who]["serialNumber"])
            for r in {tuple(sorted(r.items())): r for r in self.phones}.values()
            for who in [person(r["user"])]
            if who in self.consenting
        )
        devices = {tuple(sorted(r.items())): r for r in self.devices}.values()
        return sum(at[r["sensorReadingTime"], r["serialNumber"]] for r in devices)


def person(email: str) -> str:
    return email.strip().lower()


def is_plausible(birthday: str | None) -> bool:
    """Whether somebody born then can be a customer."""
    if birthday is None:
        return True
    try:
        born = date.fromisoformat(birthday)
    except ValueError:
        return False
    today = date.fromisoformat(DAY)
    return today.replace(year=today.year - 120) <= born <= today


def warnings_told(told: str) -> set[tuple[str, str, str, str]]:
    """Table, check, number and share of the warnings that a command printed."""
    pattern = re.compile(
        r"^  warning: (\w+), check (\w+): ([\d,]+) \(([\d.]+%)\) of ", re.MULTILINE
    )
    found = pattern.findall(told)
    assert len(found) == len(set(found)) == told.count("warning")
    return set(found)


@pytest.fixture
def dagster_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster instance of its own, set up as the project's."""
    home = tmp_path / "dagster home"
    home.mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def number_of_runs(home: Path) -> int:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return instance.get_runs_count()


@pytest.mark.s3
@pytest.mark.reference
def test_the_reference_files_give_the_known_counts_and_a_second_run_has_nothing_to_do(
    reference_lake: Lake, dagster_home: Path
) -> None:
    oracle = Oracle.of(root_of(reference_lake))
    told = succeeded(stedi(reference_lake, "run"))
    assert counts(reference_lake) == STATED | NO_REJECTS
    assert oracle.counts(Policy.REFERENCE) == STATED
    for line in (
        f"Run 1 of 1: ingestion date {DAY}",
        f"  accelerometer_landing     {STATED['accelerometer_landing']:>13,} rows",
        f"  machine_learning_curated  {STATED['machine_learning_curated']:>13,} rows",
        f"machine_learning_curated  curated  {STATED['machine_learning_curated']:>13,}",
    ):
        assert line in told.splitlines()
    assert "ERROR" not in told
    assert warnings_told(told) == oracle.warnings(Policy.REFERENCE)
    assert {(table, check) for table, check, *_ in oracle.warnings(Policy.REFERENCE)} == {
        ("customer_landing", "birthdays"),
        ("accelerometer_landing", "before_registration"),
        ("step_trainer_landing", "before_registration"),
        ("machine_learning_curated", "same_customer"),
    }

    root = root_of(reference_lake)
    before = files_in(root)
    assert len(before) == len(STATED | NO_REJECTS) + 1, "and what was found right"
    before |= files_in(root, "stedi.duckdb")
    assert number_of_runs(dagster_home) == 1
    told = succeeded(stedi(reference_lake, "run"))
    assert told.startswith("All tables are up to date.\n")
    told = succeeded(stedi(reference_lake, "status"))
    assert told == "Every partition holds what it should.\n"
    assert number_of_runs(dagster_home) == 1
    assert files_in(root) | files_in(root, "stedi.duckdb") == before
    assert counts(reference_lake) == STATED | NO_REJECTS


@pytest.mark.long
@pytest.mark.reference
def test_under_the_strict_policy_the_reference_files_give_what_plain_python_says(
    reference_lake: Lake, dagster_home: Path
) -> None:
    oracle = Oracle.of(root_of(reference_lake))
    told = succeeded(stedi(reference_lake, "run", STEDI_POLICY="strict"))
    expected = oracle.counts(Policy.STRICT)
    assert counts(reference_lake) == expected | NO_REJECTS
    fewer = {name for name, rows in STATED.items() if expected[name] < rows}
    assert fewer >= {"accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated"}
    assert "ERROR" not in told
    assert warnings_told(told) == oracle.warnings(Policy.STRICT)
    assert "same_customer" not in told


STEDI = """\
#!{python}
from stedi_assets.cli import entry_point
entry_point()
"""


@pytest.mark.s3
@pytest.mark.long
@pytest.mark.reference
def test_what_the_readme_says_of_a_lake_on_s3_gives_the_same_counts(
    reference: Path,
    bucket: Bucket,
    dagster_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = f"s3://{bucket.name}/lake"
    section = (ROOT / "README.md").read_text().partition("### A lake on S3\n")[2]
    lines = section.split("```")[1]
    for written, here in (
        ("s3://bucket/prefix", uri),
        ("my-lake", str(reference)),
        ("…", "'a key of a test'"),
    ):
        assert written in lines
        lines = lines.replace(written, here)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, program in {"aws": AWS, "stedi": STEDI}.items():
        (programs / name).write_text(program.format(python=sys.executable))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "a key of a test")
    monkeypatch.chdir(tmp_path)

    shell = ["bash", "-euc", lines]
    told = succeeded(subprocess.run(shell, capture_output=True, text=True, timeout=240))
    assert json.loads(told[told.index("{") :]) == STATED | NO_REJECTS
    assert "Run 1 of 1: ingestion date 2023-08-06" in told.splitlines()
    assert "ERROR" not in told
    assert warnings_told(told) == Oracle.of(reference).warnings(Policy.REFERENCE)

    before = bucket.objects
    assert not [key for key in bucket.keys if "staging" in key or "pseudonym" in key]
    assert succeeded(stedi(uri, "status")) == "Every partition holds what it should.\n"
    assert succeeded(stedi(uri, "run")).startswith("All tables are up to date.\n")
    assert bucket.objects == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "dagster home", "programs"]
