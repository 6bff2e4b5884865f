"""Whatever makes a partition wrong: status names exactly it, and reconciliation puts it right.

Causes here are made one at a time; `end_to_end/test_any_order.py` makes any of them in any order.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import ibis.expr.types as ir
import pytest

from stedi_assets import remembered
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.checks import UP_TO_DATE
from stedi_assets.definitions import defs
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import publish
from stedi_assets.reconcile import NotReconciledError, Stale, examine, reconcile, settled
from stedi_assets.resources import landed_now, open_engine
from stedi_assets.rules import derived_row_count
from stedi_assets.stored import Stored
from stedi_assets.tables import TABLES, Source, Table, Zone
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.histories import (
    DAYS,
    EDITS,
    BringUpToDate,
    DagsterRunner,
    Delete,
    Deliver,
    Event,
    Killed,
    NewPolicy,
    Reconcile,
    Run,
    Runner,
    Tables,
    World,
    edit,
    is_reconciled,
    oracle,
    published,
    reconcile_by_dagster,
    stored_rows,
    verify,
    written_over,
)
from stedi_assets_tests.end_to_end.landing_files import (
    QUIET,
    Record,
    customer,
    device,
    file_of,
    land,
    phone,
    resources_of,
    run,
    twin,
)
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.storages import (
    ON_S3,
    AnyPath,
    on_disk,
    opened,
    put,
    room_for_lakes,
    root_of,
)

REFERENCE = DEFINITIONS[Policy.REFERENCE]

pytestmark = pytest.mark.long

KEY = "the tests' own key"
SIXTH, SEVENTH, EIGHTH, NINTH = DAYS
REMEMBERED = "_reconciled.parquet"

Figures = tuple[int, int, int]
"""Missing, extra and changed rows."""

Found = dict[tuple[str, str], Figures]
"""The same by table and ingestion date."""

PARTITIONS = sum(1 for _ in TABLES)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)


def figures(stale: Sequence[Stale]) -> Found:
    found = {
        (each.table.name, each.day.isoformat()): (each.missing, each.extra, each.changed)
        for each in stale
    }
    assert len(found) == len(stale)
    return found


# --- Damage --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """A lake in which all is right, with rows in every partition of every table.

    Attributes:
        lake: with three dates.
        old: the file of each table's partition of the seventh, as it was made from other landing
            files.
    """

    lake: Lake
    old: dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with (
        pytest.MonkeyPatch.context() as patch,
        room_for_lakes(tmp_path_factory.mktemp("whole")) as root,
    ):
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        lake = opened(root)
        land_readings_of_ten(lake, SIXTH, "first")
        land_readings_of_ten(lake, SEVENTH, "first")
        land_readings_of_ten(lake, EIGHTH, "first")
        with open_engine(lake) as engine:
            put_right(lake, engine)
            old = {name: file_of(lake, name, SEVENTH).read_bytes() for name in TABLES}
            land_readings_of_ten(lake, SEVENTH, "second")
            put_right(lake, engine)
        assert {len(of) for of in stored_rows(lake).values()} == {3}, "rows in every partition"
        yield Whole(lake, old)


def land_readings_of_ten(lake: Lake, day: str, version: str) -> None:
    """Files of ten people who consent and ten who do not, and one record in 21 that is spoilt."""
    records: dict[str, list[Record]] = {"customer": [], "accelerometer": [], "step_trainer": []}
    for n in range(20):
        email, serial = f"{version}.{day}.{n}@test.com", f"{version} {day} {n}"
        time = int(day[-2:]) * 1_000 + n
        records["customer"].append(customer(email, serial, consent=5 if n < 10 else None))
        records["accelerometer"].append(phone(email, time))
        records["step_trainer"].append(device(time, serial))
    for source, of_source in records.items():
        land(lake, source, day, *of_source, f"{{spoilt, {version} {day}")


def put_right(lake: Lake, engine: DuckDBEngine, *, everything: bool = True) -> list[Stale]:
    def put(table: Table, staged: Any) -> None:
        publish(lake, engine, table, staged)

    return reconcile(lake, engine, Policy.REFERENCE, landed_now(lake), put, everything=everything)


def of_other_columns(file: AnyPath) -> None:
    with duckdb.connect() as connection, written_over(file) as (_, draft):
        connection.execute(
            "COPY (SELECT 'of something else' AS words) TO $path (FORMAT parquet)",
            {"path": str(draft)},
        ).fetchall()


DAMAGES: dict[str, Callable[[Whole, str, AnyPath], object]] = {
    "deleted": lambda whole, table, file: file.unlink(),
    "torn": lambda whole, table, file: put(file, file.read_bytes()[:-20]),
    "empty": lambda whole, table, file: put(file, b""),
    "no Parquet": lambda whole, table, file: put(file, b"PAR1" + b"?" * 999 + b"PAR1"),
    "torn inside": lambda whole, table, file: put(file, with_a_hole(file.read_bytes())),
    "of other columns": lambda whole, table, file: of_other_columns(file),
    "with another column": lambda whole, table, file: edit(
        file, f"ALTER TABLE rows RENAME {TABLES[table].column_names[-1]} TO another"
    ),
    "edited": lambda whole, table, file: edit(
        file, f"UPDATE rows SET {EDITS[table]} WHERE rowid = 0"
    ),
    "without a row": lambda whole, table, file: edit(file, "DELETE FROM rows WHERE rowid = 0"),
    "without rows": lambda whole, table, file: edit(file, "DELETE FROM rows"),
    "with a row twice": lambda whole, table, file: edit(
        file, "INSERT INTO rows FROM rows WHERE rowid = 0"
    ),
    "another date's": lambda whole, table, file: put(
        file, file_of(whole.lake, table, EIGHTH).read_bytes()
    ),
    "an older one": lambda whole, table, file: put(file, whole.old[table]),
}
"""What somebody may do to a partition's file."""


def with_a_hole(content: bytes) -> bytes:
    """Parquet of which the end is as it was, but not the rows."""
    footer = int.from_bytes(content[-8:-4], "little") + 8
    return content[:4] + bytes(len(content) - 4 - footer) + content[-footer:]


def rows_in(file: AnyPath) -> Counter[tuple[Any, ...]]:
    """A file's rows; none if it cannot be read."""
    try:
        with duckdb.connect() as connection, on_disk([file]) as (copy,):
            rows = connection.read_parquet(str(copy), hive_partitioning=False)
            return Counter(rows.fetchall())
    except (duckdb.Error, FileNotFoundError):
        return Counter()


def difference(table: Table, stored: Counter[Any], right: Counter[Any]) -> Figures:
    missing, extra = right - stored, stored - right
    places = [table.column_names.index(name) for name in table.key]
    keys = [{tuple(row[place] for place in places) for row in rows} for rows in (missing, extra)]
    changed = len(keys[0] & keys[1]) if places else 0
    return missing.total() - changed, extra.total() - changed, changed


def on_s3_too(of_s3: Collection[Any], *others: Any) -> list[Any]:
    """Parameters of which some are tried over both storages, for each takes long over S3."""
    return [*(pytest.param(one, marks=pytest.mark.s3) for one in of_s3), *others]


S3_DAMAGES = ("deleted", "edited")


@pytest.mark.parametrize(
    "how", on_s3_too(S3_DAMAGES, *(how for how in DAMAGES if how not in S3_DAMAGES))
)
def test_status_names_exactly_the_damaged_partition_and_reconciliation_restores_it(
    whole: Whole, lakes: AnyPath, how: str
) -> None:
    lake = twin(whole.lake, lakes / "lake")
    rows, files = stored_rows(lake), published(lake)
    damaged = {name: file_of(lake, name, SEVENTH) for name in TABLES}
    expected: dict[str, Figures] = {}
    with open_engine(lake) as engine:
        put_right(lake, engine)  # which knows the twin's files from now on
        for name, file in damaged.items():
            before = file.read_bytes()
            DAMAGES[how](whole, name, file)
            is_table = how not in {"with another column", "of other columns"}
            in_file = rows_in(file) if is_table else Counter()
            expected[name] = difference(TABLES[name], in_file, rows[name][SEVENTH])
            assert not settled(lake, engine, Policy.REFERENCE, landed_now(lake), ())
            assert figures(examine(lake, engine, Policy.REFERENCE, landed_now(lake)).stale) == {
                (name, SEVENTH): expected[name]
            }
            put(file, before)
        assert examine(lake, engine, Policy.REFERENCE, landed_now(lake)).stale == []
        for name, file in damaged.items():
            DAMAGES[how](whole, name, file)
        found = put_right(lake, engine)
        assert figures(found) == {(name, SEVENTH): expected[name] for name in TABLES}
        assert {each.why for each in found if each.why == "missing"} == (
            {"missing"} if how == "deleted" else set()
        )
        assert settled(lake, engine, Policy.REFERENCE, landed_now(lake), ())
    assert stored_rows(lake) == rows
    changed, remembered = changed_files(lake, files), root_of(lake) / REMEMBERED
    assert changed - {remembered} == {*damaged.values()}
    # On S3 a file that was made again as it was is the one that was remembered, by its ETag.
    assert ON_S3 or remembered in changed


def changed_files(lake: Lake, before: dict[AnyPath, tuple[object, object]]) -> set[AnyPath]:
    after = published(lake)
    return {path for path in {*before, *after} if before.get(path) != after.get(path)}


@pytest.mark.parametrize(
    ("how", "why", "expected"),
    [
        ("deleted", "missing", (10, 0, 0)),
        ("torn", "damaged", (10, 0, 0)),
        ("edited", "damaged", (0, 0, 1)),
        ("without a row", "damaged", (1, 0, 0)),
        ("with a row twice", "damaged", (0, 1, 0)),
        ("an older one", "upstream rows changed", (10, 10, 0)),
    ],
)
def test_status_tells_rows_and_reason(
    whole: Whole, lakes: AnyPath, how: str, why: str, expected: Figures
) -> None:
    lake = twin(whole.lake, lakes / "lake")
    DAMAGES[how](whole, "customer_trusted", file_of(lake, "customer_trusted", SEVENTH))
    with open_engine(lake) as engine:
        (found,) = examine(lake, engine, Policy.REFERENCE, landed_now(lake)).stale
    assert (found.why, (found.missing, found.extra, found.changed)) == (why, expected)
    assert not found.held_back


def test_the_command_line_prints_what_is_damaged_and_mends_it(whole: Whole, lakes: AnyPath) -> None:
    lake = twin(whole.lake, lakes / "lake")
    rows = stored_rows(lake)
    file = file_of(lake, "machine_learning_curated", SEVENTH)
    file.unlink()
    asked = ("status", "--format", "json")
    assert json.loads(succeeded(stedi(lake, *asked))) == {
        "up_to_date": False,
        "stale": [
            {
                "table": "machine_learning_curated",
                "ingestion_date": SEVENTH,
                "why": "missing",
                "missing": 10,
                "extra": 0,
                "changed": 0,
                "held_back": False,
            }
        ],
        "misplaced": [],
    }
    told = succeeded(stedi(lake, "reconcile", "--dry-run"))
    assert "1 partitions are not what they should be, by 10 rows." in told
    assert not file.exists()
    succeeded(stedi(lake, "reconcile"))
    assert stored_rows(lake) == rows
    assert json.loads(succeeded(stedi(lake, *asked))) == {
        "up_to_date": True,
        "stale": [],
        "misplaced": [],
    }


@pytest.mark.s3
def test_all_that_is_stored_can_be_lost(whole: Whole, lakes: AnyPath) -> None:
    lake = twin(whole.lake, lakes / "lake")
    rows = stored_rows(lake)
    for file in published(lake):
        file.unlink()
    with open_engine(lake) as engine:
        assert figures(put_right(lake, engine)) == {
            (name, day): (of_day.total(), 0, 0)
            for name, by_day in rows.items()
            for day, of_day in by_day.items()
        }
    assert stored_rows(lake) == rows


# --- Causes --------------------------------------------------------------------------------------

ANN, BOB = "ann@test.com", "bob@test.com"


EACH_POLICY = pytest.mark.parametrize("policy", Policy)


@pytest.fixture
def policy() -> Policy:
    """That of a test which does not ask for each."""
    return Policy.REFERENCE


@pytest.fixture
def world(lake: Lake, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("STEDI_POLICY", policy)
    made = World(Runner(root_of(lake)), KEY, policy)
    yield made
    made.runner.end()


def comes(source: str, day: str, *records: Record, name: str = "one.json") -> Deliver:
    return Deliver((source, day, name), records)


def two_customers(**ann: Any) -> list[Event]:
    """Ann has readings of the sixth and the seventh, Bob of the sixth and the eighth."""
    return [
        comes("customer", SIXTH, customer(ANN, "s1", **ann), customer(BOB, "s2")),
        comes("accelerometer", SIXTH, phone(ANN, 100), phone(BOB, 200)),
        comes("step_trainer", SIXTH, device(100, "s1"), device(200, "s2")),
        comes("accelerometer", SEVENTH, phone(ANN.upper(), 101)),
        comes("step_trainer", SEVENTH, device(101, "s1")),
        comes("accelerometer", EIGHTH, phone(BOB, 201)),
        comes("step_trainer", EIGHTH, device(201, "s2")),
    ]


def happen(world: World, *events: Event) -> None:
    for event in events:
        world.happen(event)


def look(world: World, *, everything: bool = True) -> list[Stale]:
    landed = landed_now(world.lake)
    return examine(
        world.lake, world.runner.engine, world.policy, landed, everything=everything
    ).stale


def finds_and_mends(world: World, expected: Found) -> list[Stale]:
    """All ways to look find what is expected, and only that is written again, by as many rows."""
    before, rows = published(world.lake), stored_rows(world.lake)
    found = look(world)
    assert figures(found) == expected
    assert look(world, everything=False) == found
    assert not world.settled()
    happen(world, Reconcile(everything=False))
    root = root_of(world.lake)
    assert changed_files(world.lake, before) - {root / REMEMBERED} == {
        file_of(world.lake, *partition) for partition in expected
    }
    after = stored_rows(world.lake)
    assert expected == {
        (name, day): difference(TABLES[name], rows[name][day], after[name][day])
        for name, day in expected
    }
    world.is_right()
    is_reconciled(world)
    return found


CONSENTS = comes("customer", NINTH, customer(ANN, "s1", updated=20, consent=15))
WITHDRAWS = comes("customer", NINTH, customer(f" {ANN.upper()}", "s1", updated=30, consent=0))
READINGS_OF_ANN = {
    (name, day): (1, 0, 0)
    for name in ("accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated")
    for day in (SIXTH, SEVENTH)
}
WITHOUT_ANN = dict.fromkeys(READINGS_OF_ANN, (0, 1, 0))


@EACH_POLICY
def test_a_late_consent_brings_all_earlier_readings_in(world: World) -> None:
    happen(world, *two_customers(consent=None), BringUpToDate(), CONSENTS, Run(NINTH, NINTH))
    found = finds_and_mends(world, {**READINGS_OF_ANN, ("customers_curated", NINTH): (1, 0, 0)})
    assert {each.why for each in found} == {"consent or device changed", "upstream rows changed"}


@EACH_POLICY
def test_a_withdrawn_consent_takes_all_earlier_readings_out(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS, Run(NINTH, NINTH))
    finds_and_mends(world, WITHOUT_ANN)


@EACH_POLICY
def test_a_run_that_makes_readings_does_not_vouch_for_those_of_other_dates(world: World) -> None:
    """As it does for customers, of whom it looks at all."""
    of_bob = (
        comes("accelerometer", NINTH, phone(BOB, 300)),
        comes("step_trainer", NINTH, device(300, "s2")),
    )
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS, *of_bob, BringUpToDate())
    is_reconciled(world)


def test_a_run_that_restated_customers_vouches_for_those_whom_it_left_as_they_were(
    world: World,
) -> None:
    happen(
        world,
        comes("customer", SIXTH, customer(ANN, "s1")),
        comes("customer", SEVENTH, customer(BOB, "s2")),
        comes("accelerometer", SEVENTH, phone(ANN, 100), phone(BOB, 100)),
        BringUpToDate(),
        comes("customer", NINTH, customer(ANN, "s1", updated=20)),
    )
    made = world.runner.run([date.fromisoformat(NINTH)], list(TABLES))
    assert world.settled(made)


@EACH_POLICY
def test_a_consent_given_again_brings_them_back(world: World) -> None:
    again = comes("customer", NINTH, customer(ANN, "s1", updated=40, consent=35), name="two.json")
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS, BringUpToDate())
    happen(world, again, Run(NINTH, NINTH))
    finds_and_mends(world, {**READINGS_OF_ANN, ("customers_curated", NINTH): (1, 0, 0)})


@EACH_POLICY
def test_withdrawn_and_given_again_between_two_looks_changes_no_reading(world: World) -> None:
    again = comes("customer", NINTH, customer(ANN, "s1", updated=40, consent=35), name="two.json")
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS, Run(NINTH, NINTH))
    happen(world, again, Run(NINTH, NINTH))
    before = published(world.lake)
    happen(world, Reconcile(everything=False))
    changed = {path.parts[-3] for path in changed_files(world.lake, before)}
    assert "landing_parquet" not in changed
    world.is_right()
    is_reconciled(world)


@EACH_POLICY
def test_what_follows_without_a_run_over_the_date_is_found_alike(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS)
    found = look(world)
    assert figures(found) == {
        **WITHOUT_ANN,
        **{
            (name, NINTH): (0, 0, 0)
            for name in ("customer_trusted", "customers_curated", "customer_rejects")
        },
        ("customer_landing", NINTH): (1, 0, 0),
        ("customer_trusted", SIXTH): (0, 1, 0),
        ("customers_curated", SIXTH): (0, 1, 0),
    }
    assert look(world, everything=False) == found
    assert not world.settled()
    happen(world, Reconcile(everything=False))
    is_reconciled(world)


def consents_since(moment: int, updated: int) -> Deliver:
    record = customer(ANN, "s1", updated=updated, consent=moment)
    return comes("customer", NINTH, record, name=f"{updated}.json")


@pytest.mark.parametrize(
    ("policy", "moment", "days"),
    [
        *((Policy.REFERENCE, moment, []) for moment in (99, 100, 101, 102)),
        (Policy.STRICT, 99, []),
        (Policy.STRICT, 100, []),
        (Policy.STRICT, 101, [SIXTH]),
        (Policy.STRICT, 102, [SIXTH, SEVENTH]),
    ],
)
def test_under_the_strict_policy_a_consent_that_moves_takes_out_and_brings_back_what_lies_between(
    world: World, moment: int, days: list[str]
) -> None:
    """Ann's readings are of 100 on the sixth, and of 101 on the seventh; Bob's stay."""
    of_ann = [(name, day) for name, day in READINGS_OF_ANN if day in days]
    curated = {("customers_curated", NINTH)} if len(days) == 2 else set()
    happen(world, *two_customers(), BringUpToDate(), consents_since(moment, 20), Run(NINTH, NINTH))
    found = moves(world, dict.fromkeys([*of_ann, *curated], (0, 1, 0)))
    assert {each.why for each in found} <= {"consent or device changed", "upstream rows changed"}
    happen(world, consents_since(5, 30), Run(NINTH, NINTH))
    moves(world, dict.fromkeys([*of_ann, *curated], (1, 0, 0)))


def moves(world: World, expected: Found) -> list[Stale]:
    if expected:
        return finds_and_mends(world, expected)
    assert look(world) == []
    before = published(world.lake)
    happen(world, Reconcile(everything=False))
    assert changed_files(world.lake, before) <= {root_of(world.lake) / REMEMBERED}
    is_reconciled(world)
    return []


@EACH_POLICY
def test_the_command_line_tells_what_a_withdrawal_takes_out_before_it_does(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS)
    before, rows = published(world.lake), stored_rows(world.lake)
    told = json.loads(succeeded(stedi(world.lake, "status", "--format", "json")))
    assert published(world.lake) == before, "to look changes nothing"
    figures_told = {
        (each["table"], each["ingestion_date"]): (each["missing"], each["extra"], each["changed"])
        for each in told["stale"]
    }
    assert figures_told.items() >= WITHOUT_ANN.items()
    succeeded(stedi(world.lake, "reconcile"))
    written = changed_files(world.lake, before) - {root_of(world.lake) / REMEMBERED}
    assert written == {file_of(world.lake, *partition) for partition in figures_told}
    after = stored_rows(world.lake)
    assert figures_told == {
        (name, day): difference(TABLES[name], rows[name][day], after[name][day])
        for name, day in figures_told
    }
    assert not {ANN} & {str(value).strip().lower() for value in values_beyond_landing(after)}
    world.is_right()


def values_beyond_landing(tables: Tables) -> Iterator[object]:
    for name, by_day in tables.items():
        if TABLES[name].zone is not Zone.LANDING:
            for rows in by_day.values():
                for row in rows:
                    yield from row


def test_a_run_follows_a_withdrawal_that_a_dead_process_read_and_did_not_follow(
    world: World,
) -> None:
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS)
    happen(world, Reconcile(False, ("customer_landing", "customer_rejects")))
    assert stored_rows(world.lake)["customer_trusted"][SIXTH].total() == 2
    happen(world, comes("step_trainer", NINTH, device(300, "s1"), device(301, "s2")))
    happen(world, Run(NINTH, NINTH, (Source.STEP_TRAINER,)))
    stored = stored_rows(world.lake)
    assert [serial for _, serial, *_ in stored["step_trainer_trusted"][NINTH]] == ["s2"]
    assert stored["customer_trusted"][SIXTH].total() == 1


@pytest.mark.parametrize("policy", [Policy.STRICT])
def test_a_run_makes_no_row_from_before_the_consent_that_it_has_read(world: World) -> None:
    """Ann's consent moves on and the device's reading comes late, both with the same run."""
    happen(
        world,
        *two_customers(),
        BringUpToDate(),
        consents_since(101, 20),
        comes("step_trainer", NINTH, device(100, "s1", distance=7)),
        Run(NINTH, NINTH),
    )
    made = stored_rows(world.lake)
    assert made["step_trainer_trusted"][NINTH] == Counter()
    assert made["machine_learning_curated"][NINTH] == Counter()


def test_another_device_of_a_customer_brings_its_readings_in_and_takes_the_old_ones_out(
    world: World,
) -> None:
    happen(world, *two_customers())
    happen(world, comes("step_trainer", SEVENTH, device(101, "s3"), name="two.json"))
    happen(world, BringUpToDate())
    happen(world, comes("customer", NINTH, customer(ANN, "s3", updated=20)), Run(NINTH, NINTH))
    finds_and_mends(
        world,
        {
            ("step_trainer_trusted", SIXTH): (0, 1, 0),
            ("step_trainer_trusted", SEVENTH): (1, 1, 0),
            ("machine_learning_curated", SIXTH): (0, 1, 0),
            ("machine_learning_curated", SEVENTH): (1, 1, 0),
        },
    )


def test_a_device_that_goes_to_another_customer_changes_whose_pairs_are(world: World) -> None:
    """Both had s1, so that only `same_customer` tells that Bob has another now."""
    happen(world, *two_customers())
    happen(world, comes("customer", SEVENTH, customer(BOB, "s1", updated=20)))
    happen(world, comes("accelerometer", EIGHTH, phone(BOB, 101), name="two.json"))
    happen(world, BringUpToDate())
    happen(world, comes("customer", NINTH, customer(BOB, "s2", updated=30)), Run(NINTH, NINTH))
    finds_and_mends(
        world,
        {
            # The pairs of Bob's own device come back, that of Ann's is none of his own any more.
            ("step_trainer_trusted", SIXTH): (1, 0, 0),
            ("step_trainer_trusted", EIGHTH): (1, 0, 0),
            ("machine_learning_curated", SIXTH): (1, 0, 0),
            ("machine_learning_curated", EIGHTH): (2, 1, 0),
        },
    )


def test_a_first_reading_makes_an_old_customer_and_the_device_curated(world: World) -> None:
    happen(
        world,
        comes("customer", SIXTH, customer(ANN, "s1")),
        comes("step_trainer", SIXTH, device(100, "s1"), device(300, "s1")),
        comes("step_trainer", SEVENTH, device(100, "another")),
        BringUpToDate(),
        comes("accelerometer", EIGHTH, phone(ANN, 100)),
        Run(EIGHTH, EIGHTH),
    )
    # The run restated customers_curated, but did not look at the sixth's readings of the device.
    finds_and_mends(
        world,
        {
            ("step_trainer_trusted", SIXTH): (2, 0, 0),
            ("machine_learning_curated", EIGHTH): (1, 0, 0),
        },
    )


@EACH_POLICY
def test_a_late_duplicate_moves_a_reading_to_the_earlier_date(world: World) -> None:
    late = comes("accelerometer", SIXTH, phone(ANN.upper(), 101), name="late.json")
    happen(world, *two_customers(), BringUpToDate(), late, Run(SIXTH, SIXTH))
    # The pair stays where its device reading is.
    finds_and_mends(world, {("accelerometer_trusted", SEVENTH): (0, 1, 0)})


def test_a_reading_that_is_gone_moves_its_duplicate_back_to_the_later_date(world: World) -> None:
    again = comes("accelerometer", EIGHTH, phone(ANN, 100), name="again.json")
    happen(world, *two_customers(), again, BringUpToDate())
    happen(world, comes("accelerometer", SIXTH, phone(BOB, 200)), Run(SIXTH, SIXTH))
    finds_and_mends(
        world,
        {
            ("accelerometer_trusted", EIGHTH): (1, 0, 0),
            ("machine_learning_curated", EIGHTH): (1, 0, 0),
        },
    )


def hanging_on(source: str, day: str, *, missing: int, extra: int) -> Found:
    """What hangs on a file of readings: the rejects too, for they are of the file that is gone."""
    names = [f"{source}_landing", f"{source}_trusted", "machine_learning_curated"]
    return {
        **{(name, day): (missing, extra, 0) for name in names},
        (f"{source}_rejects", day): (0, 0, 0),
    }


@pytest.mark.parametrize("source", on_s3_too(["accelerometer"], "step_trainer"))
def test_a_replaced_file_changes_what_hangs_on_it(world: World, source: str) -> None:
    another = {"accelerometer": phone(ANN, 101, 0.7), "step_trainer": device(101, "s1", distance=7)}
    happen(world, *two_customers(), BringUpToDate(), comes(source, SEVENTH, another[source]))
    found = finds_and_mends(world, hanging_on(source, SEVENTH, missing=1, extra=1))
    assert [each.why for each in found] == ["landing files changed"] * 2 + [
        "upstream rows changed"
    ] * 2


@pytest.mark.parametrize("source", on_s3_too(["accelerometer"], "step_trainer"))
def test_a_deleted_file_takes_what_hangs_on_it(world: World, source: str) -> None:
    happen(world, *two_customers(), BringUpToDate())
    happen(world, Delete(sorted(world.files).index((source, SEVENTH, "one.json"))))
    finds_and_mends(world, hanging_on(source, SEVENTH, missing=0, extra=1))


@pytest.mark.parametrize("in_between", [[], [Run(NINTH, NINTH)]], ids=["at once", "after a run"])
@pytest.mark.parametrize("consent", [15, None], ids=["a consent", "a withdrawal"])
def test_a_deleted_file_of_customers_brings_back_the_records_that_it_replaced(
    world: World, consent: int | None, in_between: list[Event]
) -> None:
    later = comes("customer", NINTH, customer(ANN, "s1", updated=20, consent=consent))
    happen(world, *two_customers(), BringUpToDate(), later, BringUpToDate())
    happen(world, Delete(sorted(world.files).index(later.place)), *in_between)
    happen(world, Reconcile(everything=True))
    is_reconciled(world)


@pytest.mark.parametrize("published", on_s3_too([2, 6], 0, 1, 3, 4, 5, *range(7, 12)))
def test_a_run_that_dies_while_it_restates_customers_is_put_right(
    world: World, published: int
) -> None:
    """The seventh's partition is written first, and the eighth's, from which Ann goes, after it."""
    happen(
        world,
        comes("customer", SEVENTH, customer(BOB, "s2")),
        comes("customer", EIGHTH, customer(ANN, "s1")),
        comes("accelerometer", EIGHTH, phone(ANN, 100), phone(BOB, 100)),
        comes("step_trainer", EIGHTH, device(100, "s1")),
        BringUpToDate(),
        comes("customer", SEVENTH, customer(ANN, "s1", updated=20, consent=None), name="late.json"),
        Killed(Run(SEVENTH, SEVENTH), published),
        BringUpToDate(),
    )
    world.is_right()
    happen(world, Reconcile(everything=True))
    is_reconciled(world)


# --- Definitions, keys, hashes -------------------------------------------------------------------


def redefine(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[ir.Table], ir.Table]
) -> None:
    definition = REFERENCE[name]

    def rows(**upstream: ir.Table) -> ir.Table:
        return change(definition.rows(**upstream))

    monkeypatch.setitem(REFERENCE, name, replace(definition, rows=rows))


def test_a_changed_definition_is_followed_and_so_is_its_old_form(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    with monkeypatch.context() as patch:
        redefine(patch, "accelerometer_trusted", lambda rows: rows.filter(rows.timestamp != 101))
        found = look(world)
        assert figures(found) == {
            ("accelerometer_trusted", SEVENTH): (0, 1, 0),
            ("machine_learning_curated", SEVENTH): (0, 1, 0),
        }
        assert [each.why for each in found] == ["definition changed", "upstream rows changed"]
        assert not world.settled()
        put_right(world.lake, world.runner.engine)
        assert look(world) == []
        assert world.settled()
        rows = stored_rows(world.lake)
        assert rows["accelerometer_trusted"].get(SEVENTH) is None
        assert rows["machine_learning_curated"].get(SEVENTH) is None
    finds_and_mends(
        world,
        {
            ("accelerometer_trusted", SEVENTH): (1, 0, 0),
            ("machine_learning_curated", SEVENTH): (1, 0, 0),
        },
    )


def test_a_definition_that_is_only_written_otherwise_changes_no_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    redefine(monkeypatch, "accelerometer_trusted", lambda rows: rows.filter(rows.timestamp > 0))
    redefine(monkeypatch, "customer_trusted", lambda rows: rows.filter(rows.registrationdate > 0))
    assert not world.settled(), "that the rows are the same is not known before they are made"
    before = published(world.lake)
    happen(world, Reconcile(everything=False))
    assert changed_files(world.lake, before) == {root_of(world.lake) / REMEMBERED}
    is_reconciled(world)


def test_a_definition_that_gives_other_rows_each_time_ends_with_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    times = count()
    redefine(monkeypatch, "step_trainer_trusted", lambda rows: rows.filter(other(rows, times)))
    told = (
        "(step_trainer_trusted|machine_learning_curated), partition 2023-08-0[678], was made again "
        "and is still not what its definition gives"
    )
    with pytest.raises(NotReconciledError, match=told):
        put_right(world.lake, world.runner.engine)


def other(rows: ir.Table, times: Iterator[int]) -> ir.BooleanValue:
    return rows.sensorreadingtime % 2 == next(times) % 2


def test_another_key_changes_all_pseudonyms_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    another_key(world, monkeypatch)
    found = finds_and_mends(
        world,
        {
            ("customers_curated", SIXTH): (2, 2, 0),
            ("machine_learning_curated", SIXTH): (2, 2, 0),
            ("machine_learning_curated", SEVENTH): (1, 1, 0),
            ("machine_learning_curated", EIGHTH): (1, 1, 0),
        },
    )
    assert {each.why for each in found} == {"definition changed"}


def another_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.key = "another key"
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", world.key)
    world.runner.end()


@pytest.mark.parametrize("change", [CONSENTS, WITHDRAWS], ids=["late", "withdrawn"])
def test_consent_that_changes_after_the_key_did_is_followed(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Deliver
) -> None:
    """Who was let through is remembered by pseudonyms, and these were made with the old key."""
    happen(
        world,
        comes("customer", SIXTH, customer(ANN, "s1", consent=None if change is CONSENTS else 5)),
        comes("customer", SEVENTH, customer(BOB, "s2")),
        comes("accelerometer", SIXTH, phone(ANN, 100), phone(BOB, 200)),
        comes("step_trainer", SIXTH, device(100, "s1"), device(200, "s2")),
        BringUpToDate(),
    )
    another_key(world, monkeypatch)
    happen(world, Reconcile(everything=True), change, BringUpToDate())
    world.is_right()
    happen(world, Reconcile(everything=True))
    is_reconciled(world)


@pytest.mark.parametrize("policy", [Policy.STRICT])
@pytest.mark.parametrize("at_first", [5, 0], ids=["given again", "withdrawn"])
def test_consent_that_changed_once_under_another_policy_is_followed(
    world: World, at_first: int
) -> None:
    """What is remembered of a policy is of a time before the lake was kept under the other one."""
    in_between = 5 - at_first
    happen(
        world,
        *two_customers(consent=None),
        comes("customer", NINTH, customer(ANN, "s1", updated=20, consent=at_first)),
        BringUpToDate(),
        NewPolicy(Policy.REFERENCE),
        comes("customer", NINTH, customer(ANN, "s1", updated=30, consent=in_between)),
        BringUpToDate(),
        NewPolicy(Policy.STRICT),
        Reconcile(everything=True),
        comes("customer", NINTH, customer(ANN, "s1", updated=40, consent=at_first)),
        BringUpToDate(),
    )
    is_reconciled(world)


def test_a_duckdb_that_hashes_otherwise_makes_all_again_and_believes_no_old_checksum(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    rows = stored_rows(world.lake)
    stored = {
        (path.parts[-4], path.parts[-3], path.parts[-2])
        for path in published(world.lake)
        if path.name != REMEMBERED
    }
    # There is no other DuckDB here: one says that it is.
    engine = world.runner.engine
    monkeypatch.setattr(engine, "hash_id", "beef")
    monkeypatch.setattr(engine, "_no_rows", replace(engine._no_rows, checksum="beef-0"))
    (root_of(world.lake) / REMEMBERED).unlink()  # such a one does not believe it either
    found = look(world)
    assert set(figures(found).values()) == {(0, 0, 0)}
    assert len(found) == len(stored)
    assert not world.settled()
    happen(world, Reconcile(everything=False))
    is_reconciled(world)
    assert stored_rows(world.lake) == rows


# --- What was remembered -------------------------------------------------------------------------


def without_data(file: AnyPath) -> None:
    put(file, with_a_hole(file.read_bytes()))


def noting(note: str) -> Callable[[AnyPath], None]:
    def note_it(file: AnyPath) -> None:
        with duckdb.connect() as connection, written_over(file) as (copy, draft):
            connection.execute(
                "COPY (FROM read_parquet($file)) TO $path "
                "(FORMAT parquet, KV_METADATA {'right': $note, partitions: $note})",
                {"file": str(copy), "path": str(draft), "note": note},
            ).fetchall()

    return note_it


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda file: file.unlink(), id="lost", marks=pytest.mark.s3),
        pytest.param(lambda file: put(file, b""), id="empty"),
        pytest.param(lambda file: put(file, b"no Parquet" * 99), id="no Parquet"),
        pytest.param(lambda file: put(file, file.read_bytes()[:-9]), id="torn"),
        pytest.param(without_data, id="torn inside", marks=pytest.mark.s3),
        pytest.param(noting("no JSON"), id="no JSON"),
        pytest.param(noting("[]"), id="other JSON"),
        pytest.param(noting('{"customer_trusted": {"2023-08-06": 7}}'), id="JSON of another form"),
    ],
)
def test_what_is_remembered_can_be_lost_at_no_cost_but_time(
    world: World, lose: Callable[[AnyPath], object]
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    lose(root_of(world.lake) / REMEMBERED)
    assert look(world) == []
    assert look(world, everything=False) == []
    happen(world, WITHDRAWS, Run(NINTH, NINTH))
    finds_and_mends(world, WITHOUT_ANN)


ANN_AGAIN = comes("customer", NINTH, customer(ANN, "s1", updated=20))


def test_who_had_readings_before_is_curated_by_a_run_over_another_date(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate(), ANN_AGAIN, Run(NINTH, NINTH))
    curated = stored_rows(world.lake)["customers_curated"]
    assert {day: rows.total() for day, rows in curated.items()} == {SIXTH: 1, NINTH: 1}
    assert look(world) == []


def test_what_an_older_version_remembered_without_users_is_not_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(remembered, "_LAYOUT", "")
        older.setattr(remembered, "_OF_USERS", [])
        happen(world, *two_customers(), BringUpToDate())
    happen(world, ANN_AGAIN, Run(NINTH, NINTH))
    curated = stored_rows(world.lake)["customers_curated"]
    assert {day: rows.total() for day, rows in curated.items()} == {SIXTH: 1, NINTH: 1}
    assert look(world) == []


def test_who_has_no_readings_any_more_is_no_longer_curated(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate())
    happen(world, comes("accelerometer", SIXTH, phone(BOB, 200)))
    happen(world, comes("accelerometer", SEVENTH), BringUpToDate())
    curated = stored_rows(world.lake)["customers_curated"]
    assert {day: rows.total() for day, rows in curated.items()} == {SIXTH: 1}
    world.is_right()


def test_the_check_of_the_rows_reads_a_partition_that_is_not_the_one_that_was_right(
    world: World,
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    files = [file_of(world.lake, "accelerometer_trusted", day) for day in (SIXTH, SEVENTH)]
    curated = Stored(
        world.lake,
        world.runner.engine,
        world.policy,
        TABLES["customers_curated"],
        [date.fromisoformat(SIXTH)],
    )
    assert derived_row_count(curated).passed
    for file in files:
        edit(file, f"DELETE FROM rows WHERE lower(user) = '{ANN}'")
    found = derived_row_count(replace(curated))
    assert (found.passed, found.sentence) == (False, "2 rows; 1 should pass of 2")


def test_a_day_on_another_machine_fetches_customers_and_readings_of_the_same_moments_alone(
    bucket: Bucket, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    lake = f"s3://{bucket.name}/lake"

    def day_comes(day: str, cache: Path, time: int, *more: Record) -> None:
        updated = int(day[-2:])
        files = {
            "customer": [customer(ANN, "s1", updated=updated), customer(BOB, "s2", consent=None)],
            "accelerometer": [phone(ANN, time), phone(BOB, time), *more],
            "step_trainer": [device(time, "s1"), device(time, "s2")],
        }
        for source, records in files.items():
            lines = "".join(f"{json.dumps(record)}\n" for record in records)
            bucket.put(f"lake/{source}/landing/ingestion_date={day}/one.json", lines.encode())
        succeeded(stedi(lake, "run", STEDI_CACHE=str(cache)))

    def copies(cache: Path) -> dict[str, set[bytes]]:
        found: dict[str, set[bytes]] = {}
        for file in cache.rglob("*.parquet"):
            found.setdefault(file.parent.name, set()).add(file.read_bytes())
        return found

    def stored(table: str, day: str) -> bytes:
        key = f"lake/{TABLES[table].path}/ingestion_date={day}/part-0.parquet"
        content: bytes = bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
        return content

    day_comes(SIXTH, here, 600)
    day_comes(SEVENTH, here, 900)
    day_comes(EIGHTH, elsewhere, 700, phone(ANN, 600, 0.9))
    found = copies(elsewhere)
    of_customers = ("customer_landing", "customer_trusted", "customers_curated")
    # The customer tables are written anew: all of the seventh have a later record.
    assert found[f"ingestion_date={SEVENTH}"] == {stored(name, SEVENTH) for name in of_customers}
    # A reading of the moments between 600 and 700 may repeat one of the sixth, or make a pair.
    of_readings = ("accelerometer_landing", "accelerometer_trusted", "step_trainer_trusted")
    assert found[f"ingestion_date={SIXTH}"] == {
        stored(name, SIXTH) for name in ("customer_landing", *of_readings)
    }


def test_what_was_not_to_be_put_right_is_not_remembered_as_right(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS, Run(NINTH, NINTH))
    tables = tuple(name for name in TABLES if name != "accelerometer_trusted")
    happen(world, Reconcile(False, tables), Reconcile(False, tables))
    assert not world.settled()
    finds_and_mends(
        world, {(name, day): f for (name, day), f in WITHOUT_ANN.items() if name not in tables}
    )


@pytest.mark.s3
def test_an_old_partition_that_comes_back_before_anybody_looked_is_found(world: World) -> None:
    """A run restates the sixth and is vouched for by the ninth's, which it made."""
    happen(world, *two_customers(), BringUpToDate())
    restated = [file_of(world.lake, n, SIXTH) for n in ("customer_trusted", "customers_curated")]
    old = [file.read_bytes() for file in restated]
    happen(world, WITHDRAWS, Run(NINTH, NINTH))
    for file, content in zip(restated, old, strict=True):
        put(file, content)
    happen(world, Reconcile(everything=False))
    is_reconciled(world)


@pytest.mark.parametrize(
    ("table", "day"),
    [
        ("customer_landing", SIXTH),
        ("accelerometer_landing", SIXTH),
        ("step_trainer_landing", SIXTH),
        ("customer_trusted", SIXTH),
        ("accelerometer_trusted", SIXTH),
        ("customers_curated", SIXTH),
        ("step_trainer_trusted", SIXTH),
    ],
)
def test_what_a_run_made_of_a_damaged_partition_is_put_right_with_it(
    world: World, table: str, day: str
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    edit(file_of(world.lake, table, day), f"UPDATE rows SET {EDITS[table]}")
    happen(
        world,
        comes("customer", NINTH, customer("cy@test.com", "s3")),
        comes("accelerometer", NINTH, phone(ANN, 100), phone(ANN, 100, 0.7), phone(BOB, 200)),
        comes("step_trainer", NINTH, device(100, "s1"), device(100, "s1", 7), device(200, "s2")),
        Run(NINTH, NINTH),
        Reconcile(everything=True),
    )
    is_reconciled(world)


# --- Dates that are held back --------------------------------------------------------------------


@pytest.fixture
def real(lake: Lake) -> Iterator[World]:
    """With real runs, in which a check stops what follows on a date of many rejects."""
    made = World(DagsterRunner(root_of(lake)), KEY)
    yield made
    made.runner.end()


def spoilt(source: str, day: str, *records: Record) -> Deliver:
    return Deliver((source, day, "one.json"), records, spoilt=True)


def test_a_date_of_many_rejects_is_held_back_while_others_go_on(real: World) -> None:
    readings = (phone(ANN, 101), phone(BOB, 101))
    happen(
        real,
        comes("customer", SIXTH, customer(ANN, "s1")),
        comes("accelerometer", SIXTH, phone(ANN, 100)),
        comes("step_trainer", SIXTH, device(100, "s1")),
        spoilt("accelerometer", SEVENTH, *readings),
        BringUpToDate(),
        comes("accelerometer", EIGHTH, phone(ANN, 100), phone(ANN, 102)),
        comes("step_trainer", EIGHTH, device(102, "s1")),
        BringUpToDate(),
    )
    stored = stored_rows(real.lake)
    for name in ("accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated"):
        assert {day: rows.total() for day, rows in stored[name].items()} == {SIXTH: 1, EIGHTH: 1}
        assert not file_of(real.lake, name, SEVENTH).exists()
    assert stored["accelerometer_landing"][SEVENTH].total() == 2
    assert stored["accelerometer_rejects"][SEVENTH].total() == 1
    waiting = look(real)
    assert {(each.day.isoformat(), each.why, each.held_back) for each in waiting} == {
        (SEVENTH, "missing", True)
    }
    # The pairs of the seventh are known to be missing as soon as one half of them is there.
    assert {each.table.name for each in waiting} == {
        "accelerometer_trusted",
        "customers_curated",
        "step_trainer_trusted",
    }
    happen(real, comes("accelerometer", SEVENTH, *readings), BringUpToDate())
    is_reconciled(real)
    assert stored_rows(real.lake)["accelerometer_trusted"][SEVENTH].total() == 1


def test_a_reconciliation_holds_such_a_date_back_as_well(world: World) -> None:
    happen(world, *two_customers(), spoilt("accelerometer", NINTH, phone(ANN, 100, 0.7)))
    happen(world, Reconcile(everything=True))
    mended = comes("accelerometer", NINTH, phone(ANN, 100, 0.7))
    verify(
        without(stored_rows(world.lake), "accelerometer_landing", "accelerometer_rejects"),
        without(
            oracle({p: r for p, r in world.files.items() if p != mended.place}, KEY),
            "accelerometer_landing",
            "accelerometer_rejects",
        ),
    )
    assert {(each.table.name, each.day.isoformat(), each.held_back) for each in look(world)} == {
        ("accelerometer_trusted", NINTH, True)
    }
    happen(world, mended, Reconcile(everything=False))
    is_reconciled(world)


def without(tables: Tables, *names: str) -> Tables:
    return {name: {} if name in names else rows for name, rows in tables.items()}


def test_on_a_date_that_is_held_back_consent_is_withdrawn_all_the_same(world: World) -> None:
    """Law 4 does not wait for files to be mended."""
    happen(world, *two_customers(), BringUpToDate())
    happen(world, spoilt("accelerometer", SEVENTH, phone(ANN.upper(), 101)))
    happen(world, Run(SEVENTH, SEVENTH), WITHDRAWS, BringUpToDate())
    stored = stored_rows(world.lake)
    for name in ("accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated"):
        assert {day: rows.total() for day, rows in stored[name].items() if rows} == {
            SIXTH: 1,
            EIGHTH: 1,
        }, name


def test_every_run_of_the_command_line_tells_of_a_date_that_is_held_back(lake: Lake) -> None:
    land(lake, "customer", SIXTH, customer(ANN, "s1"))
    land(lake, "accelerometer", SIXTH, phone(ANN, 100), "{spoilt")
    for _ in range(2):
        told = stedi(lake, "run", STEDI_PSEUDONYM_KEY=KEY).stdout
        assert "All tables are up to date." not in told


# --- In Dagster ----------------------------------------------------------------------------------


def evaluations(
    result: dg.ExecuteInProcessResult, check: str
) -> dict[str, list[dg.AssetCheckEvaluation]]:
    found: dict[str, list[dg.AssetCheckEvaluation]] = {}
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if evaluation.check_name == check:
                found.setdefault(evaluation.asset_key.to_user_string(), []).append(evaluation)
    return found


def value(evaluation: dg.AssetCheckEvaluation, name: str) -> object:
    return evaluation.metadata[name].value


def materialized(result: dg.ExecuteInProcessResult) -> Counter[tuple[str, str]]:
    return Counter(
        (event.asset_key.to_user_string(), str(event.partition))
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key
    )


def test_the_job_tells_dagster_what_was_wrong_what_it_made_and_that_all_is_right(
    world: World,
) -> None:
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS, Run(NINTH, NINTH))
    result = reconcile_by_dagster(world.lake)
    assert result.success
    assert materialized(result) == Counter(list(WITHOUT_ANN))
    told = evaluations(result, "up_to_date")
    assert set(told) == set(TABLES)
    for name, of_table in told.items():
        is_wrong = any(name == table for table, _ in WITHOUT_ANN)
        assert [each.passed for each in of_table] == [not is_wrong, True]
        assert {each.severity for each in of_table} == {dg.AssetCheckSeverity.WARN}
        if is_wrong:
            assert value(of_table[0], "by_date") == {
                day: {"missing": 0, "extra": 1, "changed": 0} for day in (SIXTH, SEVENTH)
            }
            assert "2 partitions are not what they should be, by 2 rows" in (
                of_table[0].description or ""
            )
        assert of_table[-1].description == (
            "0 partitions are not what they should be: every one holds what the definition gives"
        )
    # The checks of what was made are told as after a run.
    assert set(evaluations(result, "row_count")) == {name for name, _ in WITHOUT_ANN}
    assert all(each.passed for of in evaluations(result, "row_count").values() for each in of)
    world.is_right()

    again = reconcile_by_dagster(world.lake)
    assert again.success
    assert materialized(again) == Counter()
    for of_table in evaluations(again, "up_to_date").values():
        assert [each.passed for each in of_table] == [True]


def test_a_materialization_of_the_job_says_as_much_as_one_of_a_run(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate())
    file_of(world.lake, "machine_learning_curated", SIXTH).unlink()
    result = reconcile_by_dagster(world.lake)
    (event,) = (
        event
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    by_job = event.step_materialization_data.materialization
    by_run = next(
        event.step_materialization_data.materialization
        for event in run(world.lake, SIXTH).all_events
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
        and event.asset_key == dg.AssetKey("machine_learning_curated")
    )
    assert by_job.partition == by_run.partition == SIXTH
    assert set(by_job.metadata) == set(by_run.metadata)
    assert by_job.metadata["dagster/partition_row_count"].value == 2
    times = {"seconds", "rows_a_second"}
    assert {name: v for name, v in by_job.metadata.items() if name not in times} == {
        name: v for name, v in by_run.metadata.items() if name not in times
    }


def test_a_job_over_some_tables_or_dates_says_what_it_left(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate(), WITHDRAWS, Run(NINTH, NINTH))
    only = {"tables": ["accelerometer_trusted"], "first": SEVENTH, "last": EIGHTH}
    result = reconcile_by_dagster(world.lake, **only)
    assert result.success
    assert set(materialized(result)) == {("accelerometer_trusted", SEVENTH)}
    told = evaluations(result, "up_to_date")
    assert [value(each, "finding") for each in told["accelerometer_trusted"]] == [
        "2 partitions are not what they should be, by 2 rows: consent or device changed (2)",
        "1 partitions are not what they should be, by 1 rows: consent or device changed (1)",
    ]
    assert [each.passed for each in told["machine_learning_curated"]] == [False, False]
    assert not world.settled()
    result = reconcile_by_dagster(world.lake, everything=False)
    assert result.success
    assert set(materialized(result)) == {*WITHOUT_ANN} - {("accelerometer_trusted", SEVENTH)}
    world.is_right()


def test_the_job_fails_and_says_so_if_a_partition_is_not_right_after_it_was_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(world, *two_customers(), BringUpToDate())
    times = count()
    redefine(monkeypatch, "step_trainer_trusted", lambda rows: rows.filter(other(rows, times)))
    result = reconcile_by_dagster(world.lake)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "NotReconciledError" in failure.step_failure_data.error_display_string


def check_alone(lake: Lake) -> dg.ExecuteInProcessResult:
    job = dg.define_asset_job(
        "look_only", selection=dg.AssetSelection.checks(*UP_TO_DATE.check_keys)
    )
    here = dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=[job],
        resources=resources_of(root_of(lake)),
        executor=defs.executor,
    )
    return here.resolve_job_def(job.name).execute_in_process(run_config=QUIET)


def test_the_check_on_its_own_looks_at_every_row_and_changes_nothing(world: World) -> None:
    happen(world, *two_customers(), BringUpToDate())
    assert all(
        e.passed for of in evaluations(check_alone(world.lake), "up_to_date").values() for e in of
    )
    damaged = file_of(world.lake, "step_trainer_trusted", EIGHTH)
    edit(damaged, "DELETE FROM rows")
    before = published(world.lake)
    told = evaluations(check_alone(world.lake), "up_to_date")
    assert set(told) == set(TABLES)
    for name, (evaluation,) in told.items():
        assert evaluation.passed == (name != "step_trainer_trusted")
    (evaluation,) = told["step_trainer_trusted"]
    assert [value(evaluation, name) for name in ("missing", "extra", "changed")] == [1, 0, 0]
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert published(world.lake) == before
