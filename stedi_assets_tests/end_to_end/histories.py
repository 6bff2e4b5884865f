"""Histories of a lake: files come, change and go, and runs look at them, all in any order.

Two things know what the tables then hold: the lake itself, and `oracle`, which says it in plain
Python from the records alone and shares no code with the package. A third, `not_consented`, looks
at rows one by one, whatever they should be, for those of people who do not consent.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import duckdb
import ibis
import pytest
from hypothesis import strategies as st
from ibis.backends.sql.compilers import DuckDBCompiler

from stedi_assets.assets.definition import Definition
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.dates import stretches
from stedi_assets.definitions import defs
from stedi_assets.engines.duckdb import DuckDBEngine, Staged
from stedi_assets.jobs import RECONCILE, What, tables_after
from stedi_assets.lake import Lake
from stedi_assets.landing.files import files_by_date
from stedi_assets.making import Partition, Upstream, make, make_landing
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import publish
from stedi_assets.reconcile import reconcile, settled, unread
from stedi_assets.remembered import Remembered
from stedi_assets.resources import landed_now, open_engine, policy
from stedi_assets.rules import rejects
from stedi_assets.stored import Stored
from stedi_assets.tables import TABLES, Source, Table, landing_table, rejects_table
from stedi_assets_tests.end_to_end.landing_files import (
    QUIET,
    Record,
    customer,
    device,
    land,
    landed,
    phone,
    resources_of,
    run,
)
from stedi_assets_tests.storages import (
    AnyPath,
    files_in,
    on_disk,
    opened,
    put,
    room_for_lakes,
    root_of,
    same_files,
)

DAYS = ("2023-08-06", "2023-08-07", "2023-08-08", "2023-08-09")

Place = tuple[str, str, str]
"""Where a landing file lies: source, ingestion date, name."""

Row = tuple[Any, ...]
Tables = dict[str, dict[str, Counter[Row]]]
"""The rows of every table by ingestion date, without dates that have none."""


# --- What can happen -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Deliver:
    """A file comes, or replaces the one that was there by its name.

    One that is spoilt has so many records that cannot be read that its date is held back.
    """

    place: Place
    records: Sequence[Record]
    spoilt: bool = False


@dataclass(frozen=True)
class DeliverAgain:
    """What was delivered comes once more, under another name or on another date."""

    which: int
    day: str
    name: str


@dataclass(frozen=True)
class Delete:
    """A file that was delivered is removed."""

    which: int


@dataclass(frozen=True)
class Run:
    """A run over dates, of what hangs on some sources, as the sensor and people ask for them."""

    first: str
    last: str
    sources: tuple[Source, ...] = tuple(Source)


@dataclass(frozen=True)
class BringUpToDate:
    """What `stedi run` does: runs over the dates that changed, and then a reconciliation."""


@dataclass(frozen=True)
class Reconcile:
    """A reconciliation; of everything, as every night, or of what changed, as after runs.

    It puts right all tables, or some.
    """

    everything: bool
    tables: tuple[str, ...] = tuple(TABLES)


@dataclass(frozen=True)
class Look:
    """A look whether anything is to be made again, which remembers what it finds right."""


@dataclass(frozen=True)
class Killed:
    """A process that dies after it published some files."""

    process: Run | BringUpToDate | Reconcile
    published: int


@dataclass(frozen=True)
class Damage:
    """Somebody deletes a stored partition, tears it, or edits it and leaves its notes alone."""

    table: str
    which: int
    how: str


@dataclass(frozen=True)
class NewKey:
    """Pseudonyms are made with another key from now on."""

    key: str


@dataclass(frozen=True)
class NewPolicy:
    """The lake is kept under this policy from now on."""

    policy: Policy


Process = Run | BringUpToDate | Reconcile | Look
Event = Deliver | DeliverAgain | Delete | Process | Killed | Damage | NewKey | NewPolicy

_DAY = st.sampled_from(DAYS)
_NAME = st.sampled_from(["one.json", "two.json"])
_EMAIL = st.sampled_from(["ann@test.com", "bob@test.com", " ANN@test.COM\t", "Bob@test.com "])
_SERIAL = st.sampled_from(["s1", "s2"])
# Few moments, so that readings meet, and far between, so that dates overlap in some of them only.
_MOMENT = st.sampled_from([100, 200, 201, 300])
# Before all of them; and at some of them, and so after and before the others; and none.
_CONSENT = st.sampled_from([5, 5, 200, 201, 0, None])

_RECORDS: dict[str, st.SearchStrategy[Record]] = {
    "customer": st.builds(
        customer,
        _EMAIL,
        _SERIAL,
        updated=st.integers(1, 3),
        consent=_CONSENT,
        registrationDate=st.integers(1, 2),
        birthDay=st.sampled_from(["1970-01-01", " 985-02-03", "unknown", None]),
    ),
    "accelerometer": st.builds(phone, _EMAIL, _MOMENT, st.sampled_from([0.5, 0.0, -0.0])),
    "step_trainer": st.builds(device, _MOMENT, _SERIAL, st.integers(1, 2)),
}


_NEVER = st.just(False)


def _delivery(
    source: str, *, least: int = 1, spoilt: st.SearchStrategy[bool] = _NEVER
) -> st.SearchStrategy[Deliver]:
    place = st.tuples(st.just(source), _DAY, _NAME)
    records = st.lists(_RECORDS[source], min_size=least, max_size=least + 3)
    return st.builds(Deliver, place, records, spoilt)


def _run(first: str, last: str, sources: tuple[Source, ...]) -> Run:
    return Run(min(first, last), max(first, last), sources)


_RUN = st.builds(
    _run,
    _DAY,
    _DAY,
    st.sampled_from([tuple(Source), *((source,) for source in Source)]),
)
_WHICH = st.integers(0, 7)


_RECONCILE = st.builds(
    Reconcile,
    st.booleans(),
    st.one_of(
        st.just(tuple(TABLES)), st.sets(st.sampled_from(list(TABLES))).map(sorted).map(tuple)
    ),
)
_WRITING = st.one_of(_RUN, _RUN, st.just(BringUpToDate()), _RECONCILE)

KILLS = st.builds(Killed, _WRITING, st.integers(0, 16))
DAMAGES = st.builds(
    Damage,
    st.sampled_from([name for name in TABLES if not name.endswith("rejects")]),
    _WHICH,
    st.sampled_from(["edit", "delete", "tear"]),
)
NEW_KEYS = st.builds(NewKey, st.sampled_from(["another key", "a third key"]))
NEW_POLICIES = st.builds(NewPolicy, st.sampled_from(Policy))


def histories(*mishaps: st.SearchStrategy[Event]) -> st.SearchStrategy[list[Event]]:
    """Files that come, change and go in any order, and what looks at them in between.

    Args:
        mishaps: what else may happen.
    """
    any_delivery = st.one_of(map(_delivery, _RECORDS))
    files = st.one_of(
        any_delivery,
        any_delivery,
        any_delivery,
        st.one_of(_delivery(source, spoilt=st.booleans()) for source in _RECORDS),
        st.builds(DeliverAgain, _WHICH, _DAY, _NAME),
        st.builds(Delete, _WHICH),
    )
    processes = st.one_of(_WRITING, st.just(Look()), *mishaps)
    # Some of everything, for without all three sources most tables are empty; then whatever comes.
    beginning = st.tuples(NEW_POLICIES, *(_delivery(source, least=3) for source in _RECORDS))
    portion = st.tuples(
        st.lists(any_delivery, min_size=2, max_size=5),
        st.lists(processes, min_size=1, max_size=2),
        st.lists(files, max_size=3),
    )
    return st.tuples(beginning, st.lists(portion, min_size=1, max_size=2)).map(
        lambda drawn: [
            *drawn[0],
            *(event for portion in drawn[1] for events in portion for event in events),
        ]
    )


# --- Letting it happen ---------------------------------------------------------------------------


class KilledError(Exception):
    """Stands for the end of a process: nothing that comes after is done."""


class MortalLake(Lake):
    """A lake whose writer dies when it has published some files."""

    files_to_live: int | None = None

    def publish(
        self, table: Table, day: date, staged: Path, notes: Mapping[str, str] | None = None
    ) -> None:
        if self.files_to_live is not None:
            if self.files_to_live == 0:
                raise KilledError
            self.files_to_live -= 1
        super().publish(table, day, staged, notes)


def _one_thread() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})  # more make few rows slower


class Runner:
    """Runs over a lake by the same functions as runs of Dagster, without its machinery."""

    def __init__(self, root: AnyPath) -> None:
        self.lake = MortalLake(opened(root).storage)
        self._engine: ExitStack | None = None

    @property
    def engine(self) -> DuckDBEngine:
        """As a process has it; another one after `end`."""
        if self._engine is None:
            self._engine = ExitStack()
            self._opened = self._engine.enter_context(open_engine(self.lake, _one_thread))
        return self._opened

    def end(self) -> None:
        """End the process."""
        if self._engine:
            self._engine.close()
            self._engine = None

    @property
    def policy(self) -> Policy:
        """As the settings of a process say."""
        return policy()

    def run(self, days: Collection[date], tables: Collection[str]) -> set[tuple[str, date]]:
        """Make partitions as a run of the job `bring_up_to_date` does; returns which."""
        made: set[tuple[str, date]] = set()
        stopped: set[str] = set()
        memory = Remembered(self.lake, self.engine)

        def stored(table: Table) -> dict[date, Partition]:
            return memory.sound(table, but=made)[0]

        def put(table: Table, staged: Staged) -> None:
            made.update(
                (table.name, day) for day in publish(self.lake, self.engine, table, staged).sizes
            )

        with suppress(duckdb.Error):  # a torn partition ends a run, as it ends one of Dagster
            for source in Source:
                rows = landing_table(source)
                if rows.name in tables:
                    both = make_landing(
                        self.lake, self.engine, source, days, files_by_date(self.lake, source)
                    )
                    for table, staged in zip((rows, rejects_table(source)), both, strict=True):
                        put(table, staged)
                    finding = rejects(
                        Stored(self.lake, self.engine, self.policy, rows, sorted(days))
                    )
                    if finding.is_error and not finding.passed:  # a check that blocks
                        stopped.add(rows.name)
            for name, definition in DEFINITIONS[self.policy].items():
                if stopped & definition.needs.keys():
                    stopped.add(name)
                elif name in tables:
                    read = {n: stored(TABLES[n]) for n in definition.needs}
                    upstream = Upstream(self.lake, self.engine, definition, read, memory.bind_users)
                    table = definition.table
                    others = stored(table) if table.restated else {}
                    put(table, make(upstream, upstream.rows(), days, others))
        return made

    def reconcile(self, everything: bool, tables: Collection[str] = tuple(TABLES)) -> None:
        """As a run of the job `reconcile` does."""
        reconcile(
            self.lake,
            self.engine,
            self.policy,
            landed_now(self.lake),
            lambda table, staged: publish(self.lake, self.engine, table, staged),
            everything=everything,
            only=What(tables=list(tables)).has,
        )


class DagsterRunner(Runner):
    """Runs over a lake as real runs of Dagster, each in an instance of its own."""

    def run(self, days: Collection[date], tables: Collection[str]) -> set[tuple[str, date]]:
        self.end()  # which is another process
        first, last = min(days).isoformat(), max(days).isoformat()
        everything = set(tables) == set(TABLES)
        result = run(self.lake, first, last, None if everything else sorted(tables))
        return {
            (event.asset_key.to_user_string(), date.fromisoformat(str(event.partition)))
            for event in result.all_events
            if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key
        }

    def reconcile(self, everything: bool, tables: Collection[str] = tuple(TABLES)) -> None:
        self.end()
        result = reconcile_by_dagster(self.lake, everything=everything, tables=list(tables))
        assert result.success, [event.message for event in result.all_events if event.is_failure]


def reconcile_by_dagster(
    lake: Lake, instance: dg.DagsterInstance | None = None, **what: Any
) -> dg.ExecuteInProcessResult:
    """A run of the job `reconcile`, which does not wait for files of just now to be left alone.

    `what` is more of its configuration.
    """
    here = dg.Definitions(
        jobs=[RECONCILE], resources=resources_of(root_of(lake)), executor=defs.executor
    )
    return here.resolve_job_def(RECONCILE.name).execute_in_process(
        run_config={**QUIET, "ops": {"make_again": {"config": {"unsettled": True, **what}}}},
        instance=instance,
        raise_on_error=False,
    )


@dataclass
class World:
    """A lake, and the landing files that lie in it.

    Attributes:
        runner: runs over the lake.
        key: of pseudonyms.
        policy: under which it is kept.
        files: the records of each file that is there.
        spoilt: those of the files that have to be mended.
        in_doubt: whether who consents may not follow from the records that were read, for the
            process that should see to it died, or was not asked to, or somebody did damage.
    """

    runner: Runner
    key: str
    policy: Policy = Policy.REFERENCE
    files: dict[Place, Sequence[Record]] = field(default_factory=dict)
    spoilt: set[Place] = field(default_factory=set)
    in_doubt: bool = False

    @property
    def lake(self) -> MortalLake:
        return self.runner.lake

    def happen(self, event: Event) -> None:
        """Let an event happen; whoever then says that all is right must be right."""
        match event:
            case Deliver(place, records, spoilt):
                self._land(place, records, spoilt)
            case DeliverAgain(which, day, name):
                if self.files:
                    source, *_ = place = self._place(which)
                    self._land((source, day, name), self.files[place], place in self.spoilt)
            case Delete(which):
                if self.files:
                    place = self._place(which)
                    landed(self.lake, *place).unlink()
                    del self.files[place]
                    self.spoilt.discard(place)
            case Run(first, last, sources):
                self._run(_dates(first, last), sources)
            case BringUpToDate():
                self._bring_up_to_date()
                self.is_right()
            case Reconcile(everything, tables):
                self.in_doubt = True
                self.runner.reconcile(everything, tables)
                if set(tables) == set(TABLES):
                    self.is_right()
            case Look():
                if self.settled():
                    self.is_right()
            case Killed(process, published):
                self.lake.files_to_live = published
                self.in_doubt = True
                with suppress(KilledError):
                    self.happen(process)
                self.lake.files_to_live = None
                self.runner.end()
            case Damage(table, which, how):
                self.in_doubt = True
                damage(self.lake, table, which, how)
            case NewKey(key):
                self.key = os.environ["STEDI_PSEUDONYM_KEY"] = key
                self.runner.end()
            case NewPolicy(policy):
                self.policy = policy
                os.environ["STEDI_POLICY"] = policy.value
                self.runner.end()

    def mend(self) -> None:
        """Replace the spoilt files by what they should have been."""
        for place in list(self.spoilt):
            self._land(place, self.files[place], False)

    def settled(self, made: Collection[tuple[str, date]] = ()) -> bool:
        """Whether nothing is to be made again."""
        return settled(self.lake, self.runner.engine, self.policy, landed_now(self.lake), made)

    def is_right(self) -> None:
        """Hold the tables against what follows from the files."""
        self.in_doubt = False
        stored = stored_rows(self.lake)
        phones = [
            r
            for (source, *_), rs in self.files.items()
            if source == Source.ACCELEROMETER
            for r in rs
        ]
        people = _people(
            _CustomerRecord(
                r["email"],
                r["serialNumber"],
                r["lastUpdateDate"],
                r["registrationDate"],
                r.get("shareWithResearchAsOfDate") or 0,
                day,
            )
            for (source, day, _), records in self.files.items()
            if source == Source.CUSTOMER
            for r in records
        )
        moments = {(_person(r["user"]), r["timestamp"]) for r in phones}
        wrong = not_consented(stored, people, self.key, self.policy, moments)
        assert not wrong, "rows of people who do not consent, after a reconciliation"
        if not self.spoilt:  # of whose dates the tables wait
            verify(stored, oracle(self.files, self.key, self.policy))

    def _run(self, days: Sequence[date], sources: Iterable[Source]) -> set[tuple[str, date]]:
        """A run; what it made has no rows of people who do not consent by what was read.

        Their moment of consent counts on older dates as well, and these are left to reconciliation.
        """
        made = self.runner.run(days, tables_after(sources))
        if not self.in_doubt and not self.spoilt:
            stored = stored_rows(self.lake)
            people = _people(
                _CustomerRecord(row[1], row[4], row[6], row[5], row[7] or 0, day)
                for day, rows in stored["customer_landing"].items()
                for row in rows
            )
            just_made: Tables = {name: {} for name in TABLES}
            for name, day in made:
                just_made[name][day.isoformat()] = stored[name][day.isoformat()]
            wrong = not_consented(just_made, people, self.key)
            assert not wrong, "rows of people who do not consent, in what a run has just made"
        return made

    def _bring_up_to_date(self) -> None:
        made: set[tuple[str, date]] = set()
        landed_files = landed_now(self.lake)
        changed = unread(self.lake, self.runner.engine, landed_files)
        for stretch in stretches(set().union(*changed.values())):
            sources = [
                source for source, days in changed.items() if any(d in stretch for d in days)
            ]
            days = _dates(stretch.first.isoformat(), stretch.last.isoformat())
            made |= self._run(days, sources)
        if not self.settled(made):
            self.runner.reconcile(False)

    def _land(self, place: Place, records: Sequence[Record], spoilt: bool) -> None:
        land(self.lake, place[0], place[1], *records, *["{spoilt"] * spoilt, name=place[2])
        self.files[place] = records
        (self.spoilt.add if spoilt else self.spoilt.discard)(place)

    def _place(self, which: int) -> Place:
        return sorted(self.files)[which % len(self.files)]


def _dates(first: str, last: str) -> list[date]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [start + timedelta(days=n) for n in range((end - start).days + 1)]


@contextmanager
def worlds(key: str, runner: Callable[[AnyPath], Runner] = Runner) -> Iterator[Callable[[], World]]:
    """Gives new, empty lakes, where writing is quick."""
    with room_for_lakes() as folder, ExitStack() as at_end:
        made: list[World] = []

        def world() -> World:
            made.append(World(runner(folder / f"lake{len(made)}"), key))
            at_end.callback(made[-1].runner.end)
            return made[-1]

        yield world


def fresh(world: World, empty: World) -> World:
    """A lake of the same landing files, made in one run."""
    same_files(root_of(world.lake), "*/landing/**/*", root_of(empty.lake))
    empty.files, empty.policy = world.files, world.policy
    empty.runner.run(_dates(DAYS[0], DAYS[-1]), list(TABLES))
    return empty


def is_reconciled(world: World) -> None:
    """Nothing is left to do: every way to ask says so, and nothing is written any more."""
    before = published(world.lake)
    assert world.settled()
    found = reconcile(
        world.lake,
        world.runner.engine,
        world.policy,
        landed_now(world.lake),
        lambda table, staged: publish(world.lake, world.runner.engine, table, staged),
    )
    assert found == [], "examined as a whole"
    assert published(world.lake) == before


def published(lake: Lake) -> dict[AnyPath, tuple[object, object]]:
    """Which file each of the lake's Parquet files is, but for those that a process works on."""
    found = files_in(root_of(lake))
    return {path: file for path, file in found.items() if "_staging" not in path.parts}


EDITS = {
    "customer_landing": "sharewithresearchasofdate = 7 - coalesce(sharewithresearchasofdate, 0)",
    "accelerometer_landing": "x = 7 - x",
    "step_trainer_landing": "distancefromobject = 3 - distancefromobject",
    "customer_trusted": "serialnumber = 's2'",
    "accelerometer_trusted": "user = 'bob@test.com'",
    "customers_curated": "device_id = sha256('another')",
    "step_trainer_trusted": "distancefromobject = 3 - distancefromobject",
    "machine_learning_curated": "same_customer = NOT same_customer",
    "customer_rejects": "reason = 'another'",
    "accelerometer_rejects": "reason = 'another'",
    "step_trainer_rejects": "reason = 'another'",
}
"""A value that somebody may write into each table."""


def damage(lake: Lake, table: str, which: int, how: str) -> None:
    """Damage one of the partitions of a table, if it has any."""
    files = sorted((root_of(lake) / TABLES[table].path).glob("*/part-0.parquet"))
    if not files:
        return
    file = files[which % len(files)]
    match how:
        case "delete":
            file.unlink()
        case "tear":
            put(file, file.read_bytes()[:-20])
        case "edit":
            edit(file, f"UPDATE rows SET {EDITS[table]}")


def edit(file: AnyPath, change: str) -> None:
    """Change the rows of a Parquet file by a statement on the table `rows`, but not its notes."""
    with duckdb.connect() as connection, written_over(file) as (copy, draft):
        connection.execute(
            "CREATE TABLE rows AS FROM read_parquet($file, hive_partitioning = false)",
            {"file": str(copy)},
        )
        notes = connection.execute(
            "SELECT decode(key), decode(value) FROM parquet_kv_metadata($file)",
            {"file": str(copy)},
        ).fetchall()
        connection.execute(change)
        noted = ", ".join(f"{name}: $note_{name}" for name, _ in notes)
        connection.execute(
            f"COPY rows TO $path (FORMAT parquet, KV_METADATA {{{noted}}})",
            {"path": str(draft), **{f"note_{name}": value for name, value in notes}},
        ).fetchall()


@contextmanager
def written_over(file: AnyPath) -> Iterator[tuple[Path, Path]]:
    """A copy of a file on this disk, and where to write what is to take the file's place."""
    with tempfile.TemporaryDirectory() as folder, on_disk([file]) as (copy,):
        draft = Path(folder) / "draft"
        yield copy, draft
        put(file, draft.read_bytes())


@contextmanager
def compiled_once() -> Iterator[None]:
    """Ask Ibis once for what it gives each time: a third of the time of a run over a few rows.

    Definitions called with the same tables give equal expressions, and equal expressions the same
    SQL: nothing that could go wrong another time is left out.
    """
    patch = pytest.MonkeyPatch()
    known: dict[Any, Any] = {}

    def once(of: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
        def give(*arguments: Any, **named: Any) -> Any:
            question = of, key(*arguments, **named)
            if question not in known:
                known[question] = of(*arguments, **named)
            return known[question]

        return give

    translate = once(
        DuckDBCompiler.to_sqlglot, lambda _, expr, limit=None, params=None: (expr.op(), limit)
    )
    patch.setattr(DuckDBCompiler, "to_sqlglot", lambda *a, **named: translate(*a, **named).copy())
    patch.setattr(ibis, "to_sql", once(ibis.to_sql, lambda expr, dialect: (expr.op(), dialect)))
    patch.setattr(
        Definition,
        "__call__",
        once(
            Definition.__call__,
            lambda of, *tables, **named: (
                of.rows,
                *(table.op() for table in tables),
                *((name, table.op()) for name, table in named.items()),
            ),
        ),
    )
    try:
        yield
    finally:
        patch.undo()


# --- What the tables hold ------------------------------------------------------------------------


def stored_rows(lake: Lake) -> Tables:
    """The rows of every table, by a DuckDB that knows nothing of the package."""
    found: Tables = {}
    with duckdb.connect(config={"threads": 1}) as connection:
        for name, table in TABLES.items():
            by_day = found[name] = defaultdict(Counter)
            partitions = (root_of(lake) / table.path).glob("*/part-0.parquet")
            with on_disk(partitions) as files:
                if files:
                    paths = [str(file) for file in files]
                    rows = connection.read_parquet(paths, hive_partitioning=True).fetchall()
                    for *row, day in rows:
                        by_day[str(day)][tuple(row)] += 1
    return found


def verify(found: Tables, expected: Tables) -> None:
    """Hold tables against each other, row for row and date for date."""
    for name in TABLES:
        for day in sorted({*found[name], *expected[name]}):
            rows, right = found[name][day], expected[name][day]
            assert rows == right, f"{name}, {day}: too many {rows - right}, missing {right - rows}"


def oracle(
    files: Mapping[Place, Iterable[Record]], key: str, policy: Policy = Policy.REFERENCE
) -> Tables:
    """What the tables must hold, from the records of the landing files.

    Args:
        files: good records alone.
        key: of pseudonyms.
        policy: under which the lake is kept.
    """
    tables: Tables = {name: defaultdict(Counter) for name in TABLES}
    is_strict, person = policy is Policy.STRICT, _person

    def pseudonym(value: str) -> str:
        return _pseudonym(key, value)

    latest: dict[str, tuple[Any, str, Record]] = {}
    phones: dict[Row, str] = {}  # and the earliest date on which each came
    devices: dict[Row, str] = {}
    for (source, day, _), records in files.items():
        for record in records:
            if source == "customer":
                names = ("customerName", "email", "phone", "birthDay", "serialNumber")
                row = (
                    *(record.get(name) for name in names),
                    record["registrationDate"],
                    record["lastUpdateDate"],
                    *(record.get(f"shareWith{whom}AsOfDate") for whom in _WHOM),
                )
                # The last record is the first by this; a tie is for the one without consent, then
                # for the smaller values, a missing one before all others.
                others = (*row[:5], *row[7:])
                rank = (
                    (-row[6], -row[5], -date.fromisoformat(day).toordinal()),
                    bool(row[7]),
                    [(value is not None, value) for value in others],
                )
                who = person(record["email"])
                latest[who] = min(latest.get(who, (rank, day, row)), (rank, day, row))
            elif source == "accelerometer":
                row = tuple(record[name] for name in ("user", "timestamp", "x", "y", "z"))
                phones[row] = min(phones.get(row, day), day)
            else:
                names = ("sensorReadingTime", "serialNumber", "distanceFromObject")
                row = tuple(record[name] for name in names)
                devices[row] = min(devices.get(row, day), day)
            tables[f"{source}_landing"][day][row] += 1

    trusted = {who: (day, row) for who, (_, day, row) in latest.items() if row[7]}
    for day, row in trusted.values():
        tables["customer_trusted"][day][row] += 1
    phones = {
        row: day
        for row, day in phones.items()
        for who in [person(row[0])]
        if who in trusted and (not is_strict or row[1] >= trusted[who][1][7])
    }
    for row, day in phones.items():
        tables["accelerometer_trusted"][day][row] += 1
    curated = {who: trusted[who] for who in {person(user) for user, *_ in phones}}
    for who, (day, row) in curated.items():
        year = row[3].strip().split("-")[0] if row[3] else ""
        born = int(year) if year.isdigit() else None
        tables["customers_curated"][day][(pseudonym(who), pseudonym(row[4]), born, *row[5:])] += 1
    if is_strict:
        walked: dict[tuple[int, str], str] = {}
        for (user, time, *_), day in phones.items():
            place = time, curated[person(user)][1][4]
            walked[place] = min(walked.get(place, day), day)
        devices = {
            row: max(day, walked[row[:2]]) for row, day in devices.items() if row[:2] in walked
        }
    serials = {row[4] for _, row in curated.values()}
    devices = {row: day for row, day in devices.items() if row[1] in serials}
    for row, day in devices.items():
        tables["step_trainer_trusted"][day][row] += 1
    for (time, serial, distance), device_day in devices.items():
        for (user, moment, *motion), phone_day in phones.items():
            own = curated[person(user)][1][4]
            if time == moment and (serial == own or not is_strict):
                pair = (pseudonym(person(user)), pseudonym(serial), time, distance, moment)
                day = max(device_day, phone_day)
                tables["machine_learning_curated"][day][(*pair, *motion, serial == own)] += 1
    return tables


_WHOM = ("Research", "Public", "Friends")


def _person(email: str) -> str:
    return email.strip().lower()


def _pseudonym(key: str, value: str) -> str:
    return hashlib.sha256((key + value).encode()).hexdigest()


# --- Whom they must not hold ---------------------------------------------------------------------


class _CustomerRecord(NamedTuple):
    email: str
    serial: str
    updated: int
    registered: int
    since: int
    day: str


def _people(records: Iterable[_CustomerRecord]) -> dict[str, list[_CustomerRecord]]:
    """The latest records of all who consent: several, where they tie."""
    of: dict[str, list[_CustomerRecord]] = defaultdict(list)
    for record in records:
        of[_person(record.email)].append(record)
    latest = {
        who: [record for record in records if record[2:4] + record[5:] == newest]
        for who, records in of.items()
        for newest in [max(record[2:4] + record[5:] for record in records)]
    }
    return {who: tied for who, tied in latest.items() if all(record.since for record in tied)}


def not_consented(
    tables: Tables,
    people: Mapping[str, Sequence[_CustomerRecord]],
    key: str,
    policy: Policy = Policy.REFERENCE,
    moments: Collection[tuple[str, int]] = (),
) -> list[tuple[str, Row]]:
    """The rows beyond landing that nobody let in.

    Args:
        tables: the rows to look at.
        people: who consents.
        key: of pseudonyms.
        policy: under `strict`, rows from before the consent are also counted, and those of devices
            from other milliseconds than those of the phones of who holds them.
        moments: of phone readings, and whose each is.
    """
    is_strict = policy is Policy.STRICT
    hidden = {_pseudonym(key, who): who for who in people}
    since = {who: min(record.since for record in records) for who, records in people.items()}
    holders: dict[str, set[str]] = defaultdict(set)
    for who, records in people.items():
        for record in records:
            holders[record.serial].add(who)
            holders[_pseudonym(key, record.serial)].add(who)

    def walked(who: str, time: int) -> bool:
        return not is_strict or (time >= since[who] and (who, time) in moments)

    is_let_in: dict[str, Callable[[Row], bool]] = {
        "customer_trusted": lambda row: _person(row[1]) in people,
        "accelerometer_trusted": lambda row: (
            _person(row[0]) in people and walked(_person(row[0]), row[1])
        ),
        "customers_curated": lambda row: hidden.get(row[0]) in holders[row[1]],
        "step_trainer_trusted": lambda row: any(walked(who, row[0]) for who in holders[row[1]]),
        "machine_learning_curated": lambda row: (
            row[0] in hidden
            and any(walked(who, row[2]) for who in holders[row[1]])
            and (not is_strict or walked(hidden[row[0]], row[4]))
        ),
    }
    return [
        (name, row)
        for name, lets_in in is_let_in.items()
        for rows in tables[name].values()
        for row in rows
        if not lets_in(row)
    ]
