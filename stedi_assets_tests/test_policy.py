"""The consent policy is a setting: told with all that is made, and followed when it changes."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import dagster as dg
import pytest

from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import policy as policy_of_settings
from stedi_assets.tables import TABLES, Zone
from stedi_assets_tests.end_to_end.histories import (
    BringUpToDate,
    Deliver,
    NewPolicy,
    Runner,
    Tables,
    World,
    is_reconciled,
    oracle,
    published,
    reconcile_by_dagster,
    stored_rows,
)
from stedi_assets_tests.end_to_end.landing_files import (
    Record,
    customer,
    device,
    file_of,
    land,
    phone,
    run,
)
from stedi_assets_tests.end_to_end.process import stedi, succeeded

pytestmark = pytest.mark.long

KEY = "the tests' own key"
SIXTH, SEVENTH, EIGHTH = "2023-08-06", "2023-08-07", "2023-08-08"
ANN, BOB, CY = "ann@test.com", "bob@test.com", "cy@test.com"

EACH_POLICY = pytest.mark.parametrize("policy", Policy)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)


# The setting.


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_setting_the_policy_is_reference(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("STEDI_POLICY", value)
    assert policy_of_settings() is Policy.REFERENCE


@EACH_POLICY
def test_the_setting_names_the_policy(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    monkeypatch.setenv("STEDI_POLICY", policy.value)
    assert policy_of_settings() is policy


UNKNOWN = ("Strict", "none", " strict")
TOLD = "set it to reference or strict"


@pytest.mark.parametrize("value", UNKNOWN)
def test_an_unknown_policy_is_an_error_that_says_which_there_are(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("STEDI_POLICY", value)
    with pytest.raises(ValueError, match=f"^STEDI_POLICY is '{value}': {TOLD}$"):
        policy_of_settings()


@pytest.mark.parametrize("command", ["run", "status", "reconcile", "reconcile --dry-run", "counts"])
def test_the_command_line_refuses_an_unknown_policy_and_makes_nothing(
    lake: Lake, command: str
) -> None:
    land(lake, "customer", SIXTH, customer(ANN, "s"))
    done = stedi(lake, *command.split(), STEDI_POLICY="lenient")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: STEDI_POLICY is 'lenient': {TOLD}\n"
    assert published(lake) == {}


def test_the_project_does_not_load_under_an_unknown_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_POLICY", "lenient")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import stedi_assets.definitions"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    last_line = done.stderr.splitlines()[-1]
    assert last_line == f"ValueError: STEDI_POLICY is 'lenient': {TOLD}"


# What is told of it.


def policies_told(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], object]:
    """The policy that the metadata of each materialization of a run says."""
    found = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
    ]
    return {
        (each.asset_key.to_user_string(), str(each.partition)): each.metadata["policy"].value
        for each in found
    }


@EACH_POLICY
def test_every_materialization_says_the_policy(
    lake: Lake, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a landing table, of a partition that a run restates, and of a reconciliation."""
    monkeypatch.setenv("STEDI_POLICY", policy.value)
    land(lake, "customer", SIXTH, customer(ANN, "s"), customer(BOB, "t"))
    land(lake, "accelerometer", SIXTH, phone(ANN, 100), phone(BOB, 100))
    result = run(lake, SIXTH)
    assert result.success
    assert policies_told(result) == {(name, SIXTH): policy.value for name in TABLES}
    land(lake, "customer", SEVENTH, customer(ANN, "s", updated=20, consent=None))
    result = run(lake, SEVENTH)
    assert result.success
    restated = {name for name, table in TABLES.items() if table.restated}
    assert policies_told(result) == {
        (name, day): policy.value
        for name in TABLES
        for day in ([SIXTH, SEVENTH] if name in restated else [SEVENTH])
    }
    result = reconcile_by_dagster(lake)
    assert result.success
    assert policies_told(result) == {("accelerometer_trusted", SIXTH): policy.value}


# A change of it.


@pytest.fixture
def world(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Ann consents after one of her readings; Bob before all of his; Cy after the only one."""
    monkeypatch.setenv("STEDI_POLICY", Policy.REFERENCE.value)
    made = World(Runner(lake.storage.root), KEY)
    files: dict[tuple[str, str], list[Record]] = {
        ("customer", SIXTH): [
            customer(ANN, "s1", consent=150),
            customer(BOB, "s2", consent=200),
            customer("dee@test.com", "s4", consent=None),
        ],
        ("customer", SEVENTH): [customer(CY, "s3", consent=401)],
        ("accelerometer", SIXTH): [phone(ANN, 100), phone(BOB, 200), phone(CY, 400)],
        ("accelerometer", SEVENTH): [phone(ANN, 150), phone(BOB, 201)],
        ("accelerometer", EIGHTH): [phone(BOB, 300)],
        ("step_trainer", SIXTH): [
            device(time, serial) for time in (100, 200) for serial in ("s1", "s2")
        ],
        ("step_trainer", SEVENTH): [device(150, "s1"), device(151, "s1"), device(400, "s3")],
        ("step_trainer", EIGHTH): [device(300, "s2")],
    }
    for (source, day), records in files.items():
        made.happen(Deliver((source, day, "one.json"), records))
    made.happen(BringUpToDate())
    yield made
    made.runner.end()


Figures = dict[tuple[str, str], tuple[int, int]]


def differences(old: Tables, new: Tables) -> Figures:
    """How many rows the partitions that differ lack, and how many they have too many."""
    found = {
        (name, day): ((right - stored).total(), (stored - right).total())
        for name in TABLES
        for day in {*old[name], *new[name]}
        for stored, right in [(old[name].get(day, Counter()), new[name].get(day, Counter()))]
    }
    return {partition: figures for partition, figures in found.items() if any(figures)}


def told(lake: Lake) -> tuple[Figures, dict[str, set[str]]]:
    """What `stedi status` says: figures of partitions, and by table why they are not right."""
    status = json.loads(succeeded(stedi(lake, "status", "--format", "json")))
    assert status["up_to_date"] == (not status["stale"])
    why: dict[str, set[str]] = {}
    for each in status["stale"]:
        why.setdefault(each["table"], set()).add(each["why"])
    figures = {
        (each["table"], each["ingestion_date"]): (each["missing"], each["extra"])
        for each in status["stale"]
    }
    return figures, why


@pytest.mark.parametrize("command", ["reconcile", "run"])
def test_another_policy_makes_the_partitions_that_it_concerns_again_and_no_others(
    world: World, command: str
) -> None:
    lake = world.lake
    of = {policy: oracle(world.files, KEY, policy) for policy in Policy}
    for old, new in ((Policy.REFERENCE, Policy.STRICT), (Policy.STRICT, Policy.REFERENCE)):
        world.happen(NewPolicy(new))
        expected = differences(of[old], of[new])
        before = published(lake)
        figures, why = told(lake)
        assert figures == expected
        assert why == {
            "accelerometer_trusted": {"definition changed"},
            "customers_curated": {"upstream rows changed"},
            "step_trainer_trusted": {"definition changed"},
            "machine_learning_curated": {"definition changed"},
        }
        assert published(lake) == before, "to look changes nothing"
        printed = succeeded(stedi(lake, command))
        assert "ERROR" not in printed
        after = published(lake)
        written = {path for path in {*before, *after} if before.get(path) != after.get(path)}
        remembered = lake.storage.root / "_reconciled.parquet"
        assert written - {remembered} == {file_of(lake, *partition) for partition in expected}
        assert told(lake) == ({}, {})
        world.is_right()
        is_reconciled(world)


def test_another_policy_concerns_some_partitions_of_each_of_its_tables_and_leaves_the_rest(
    world: World,
) -> None:
    """So that the test above says something."""
    of = {policy: oracle(world.files, KEY, policy) for policy in Policy}
    concerned = {name for name, _ in differences(of[Policy.REFERENCE], of[Policy.STRICT])}
    stay = {name for name, table in TABLES.items() if table.zone is Zone.LANDING}
    assert set(TABLES) - concerned == stay | {"customer_trusted"}
    stored = stored_rows(world.lake)
    for name in ("accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated"):
        days = {
            day
            for table, day in differences(of[Policy.REFERENCE], of[Policy.STRICT])
            if table == name
        }
        assert set(stored[name]) > days > set()


@EACH_POLICY
def test_a_run_over_one_date_under_another_policy_leaves_the_others_to_reconciliation(
    world: World, policy: Policy
) -> None:
    """Until then the lake is of two policies, and `status` says so."""
    world.happen(NewPolicy(Policy.STRICT))
    assert run(world.lake, SIXTH).success
    figures, _ = told(world.lake)
    assert figures
    assert not {name for name, _ in figures} & {"customer_landing", "customer_trusted"}
    world.happen(NewPolicy(policy))
    succeeded(stedi(world.lake, "run"))
    world.is_right()
    is_reconciled(world)
