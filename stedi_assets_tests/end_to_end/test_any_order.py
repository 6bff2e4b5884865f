"""However files come, change and go, and whatever runs in between: the tables end up the same.

`STEDI_TEST_HISTORIES` is how many histories each test makes up.
"""

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from stedi_assets.privacy.policies import Policy
from stedi_assets_tests.end_to_end.histories import (
    DAMAGES,
    KILLS,
    NEW_KEYS,
    NEW_POLICIES,
    DagsterRunner,
    Event,
    Reconcile,
    Runner,
    World,
    compiled_once,
    fresh,
    histories,
    is_reconciled,
    oracle,
    stored_rows,
    verify,
    worlds,
)
from stedi_assets_tests.storages import ON_S3, AnyPath

pytestmark = pytest.mark.long

KEY = "the same for all lakes"

HISTORIES = int(os.environ.get("STEDI_TEST_HISTORIES") or (2 if ON_S3 else 8))

any_history = settings(
    max_examples=HISTORIES,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> Iterator[None]:
    with compiled_once():
        yield


def lived_through(events: list[Event], world: World) -> World:
    """A lake after a history, the mending of what is spoilt in it, and a reconciliation."""
    for event in events:
        world.happen(event)
    world.mend()
    world.happen(Reconcile(everything=True))
    return world


def ends_up_as_a_fresh_lake(
    events: list[Event], runner: Callable[[AnyPath], Runner] = Runner
) -> None:
    with pytest.MonkeyPatch.context() as patch, worlds(KEY, runner) as lake:
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        patch.setenv("STEDI_POLICY", Policy.REFERENCE.value)  # a history begins with its own
        world = lived_through(events, lake())
        is_reconciled(world)
        expected = oracle(world.files, world.key, world.policy)
        verify(stored_rows(fresh(world, lake()).lake), expected)


@pytest.mark.s3
@any_history
@given(histories())
def test_files_in_any_order_and_runs_in_between_give_the_tables_of_a_fresh_lake(
    events: list[Event],
) -> None:
    ends_up_as_a_fresh_lake(events)


@any_history
@given(histories(NEW_KEYS, NEW_POLICIES))
def test_so_they_do_if_the_key_of_pseudonyms_and_the_policy_change_on_the_way(
    events: list[Event],
) -> None:
    ends_up_as_a_fresh_lake(events)


@pytest.mark.s3
@any_history
@given(histories(KILLS))
def test_so_they_do_if_processes_die_on_the_way(events: list[Event]) -> None:
    ends_up_as_a_fresh_lake(events)


@any_history
@given(histories(DAMAGES))
def test_so_they_do_if_partitions_are_deleted_torn_or_edited_on_the_way(
    events: list[Event],
) -> None:
    ends_up_as_a_fresh_lake(events)


@settings(any_history, max_examples=max(2, HISTORIES // 3))
@given(histories())
def test_so_they_do_in_real_runs_of_dagster(events: list[Event]) -> None:
    ends_up_as_a_fresh_lake(events, DagsterRunner)
