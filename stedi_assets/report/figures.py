"""What the report tells: counts of stored tables, held against counts made apart from them.

Computed by DuckDB, and no more of it comes here than counts. How it looks, others decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime

from stedi_assets import rules
from stedi_assets.engines.duckdb import DuckDBEngine, normalised, quoted
from stedi_assets.lake import Lake, StoredFile
from stedi_assets.landing.files import Landed
from stedi_assets.landing.sample import stated_counts
from stedi_assets.privacy.policies import Policy
from stedi_assets.privacy.rules import same_customer
from stedi_assets.reconcile import DAMAGED, Stale, examine
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import TABLES, Column, Source, Table, Zone, landing_table, rejects_table

REJECTED = "rejected"
SUPERSEDED = "replaced by a later record"
NO_CONSENT = "no consent"
NOBODY = "nobody's"
EARLY = "before the consent"
NO_READINGS = "no phone readings"
ALONE = "no phone reading then"
REPEATED = "delivered before"
OTHERS = "of different customers"

REASONS = {
    REJECTED: "could not be read, or its person was erased",
    SUPERSEDED: "a later record of the same person counts",
    NO_CONSENT: "the person's latest record does not consent to research",
    NOBODY: "no customer record says whose it is: an unknown email, or a device that nobody holds",
    EARLY: "taken before the person consented",
    NO_READINGS: "the person is in customer_trusted and has no phone readings there",
    ALONE: "the device's holder has no phone reading of the same millisecond",
    REPEATED: "equal in every column to one that is counted",
    OTHERS: "the device is not the one of the phone's user, or one of the two is not curated",
}
"""Why rows are left out, in the order in which it is asked, and what that means."""

EIGHT = [name for name in TABLES if not name.endswith("_rejects")]
"""The tables that are counted, in the order in which rows flow."""

MOST_READINGS = 20
"""From so many readings of one subject in a second on, seconds are counted together."""


class _Undamaged(Lake):
    """A lake without its damaged partitions, in which nothing can be counted."""

    def __init__(self, lake: Lake, damaged: Set[tuple[str, date]]) -> None:
        super().__init__(lake.storage)
        self._damaged = damaged
        self._listed = {}  # it is looked at while nobody else writes it

    def _published(self, table: Table) -> Iterator[tuple[date, StoredFile]]:
        for day, file in super()._published(table):
            if (table.name, day) not in self._damaged:
                yield day, file


@dataclass(frozen=True)
class Account:
    """Where the rows of a table come from, and what of that is left out.

    Attributes:
        table: whose rows.
        taken_from: what it is made from.
        taken: how many of those there are.
        left_out: how many of those are not in the table, by reason, and by kind of reject.
        rows: how many rows are stored.
        expected: how many there should be, by rules that are written apart from definitions.
    """

    table: Table
    taken_from: str
    taken: int
    left_out: Mapping[str, int]
    rows: int
    expected: int

    @property
    def lost(self) -> int:
        """How many are neither in the table nor left out; below 0, how many came from nowhere."""
        return self.taken - sum(self.left_out.values()) - self.rows

    @property
    def by_reason(self) -> dict[str, int]:
        """What is left out by reason, all kinds of rejects together."""
        found: dict[str, int] = {}
        for reason, count in self.left_out.items():
            kind = reason.partition(":")[0]
            found[kind] = found.get(kind, 0) + count
        return found


@dataclass(frozen=True)
class Rates:
    """How often something takes readings.

    Attributes:
        subjects: how many phones or devices have readings.
        readings: how many they have.
        seconds: how many seconds there are in which one of them has any, by how many it has; those
            of `MOST_READINGS` and more together.
        quartiles: of the number of readings in such a second.
    """

    subjects: int
    readings: int
    seconds: Mapping[int, int]
    quartiles: Sequence[int]


@dataclass(frozen=True)
class Figures:
    """All that a report tells.

    Attributes:
        lake: where it is.
        at: when it was looked at, UTC.
        policy: under which it is kept.
        dates: the ingestion dates on which landing files came, or a table has a partition.
        accounts: of the eight tables, in the order in which rows flow.
        stated: the rows that each table must have by who made the landing files, if that is known.
        funnel: how many people come how far.
        rows: of each table by ingestion date.
        rejects: what is said of each source's rejects.
        nulls: how many values are missing, by table and column.
        strangers: how many pairs are of one person's device and another's phone.
        rates: of phones and devices of people who consent.
        stale: the partitions that are not what they should be.
        misplaced: how many landing files, or groups of them, belong to no partition.
    """

    lake: str
    at: datetime
    policy: Policy
    dates: Sequence[date]
    accounts: Sequence[Account]
    stated: Mapping[str, int]
    funnel: Mapping[str, int]
    rows: Mapping[str, Mapping[date, int]]
    rejects: Mapping[Source, Finding]
    nulls: Mapping[tuple[Table, Column], int]
    strangers: int
    rates: Mapping[Source, Rates]
    stale: Sequence[Stale]
    misplaced: int

    def problems(self) -> Iterator[str]:
        """What is not as it should be, a sentence each."""
        if not self.dates:
            yield "The lake is empty: there are no landing files and no tables."
        stale = {found.table.name for found in self.stale}
        for name, rows in self.rows.items():
            if name in stale and not rows:  # else there is nothing to make it from
                yield f"{name} is missing: it has no partition."
        for account in self.accounts:
            name = account.table.name
            if account.lost:
                what = "in no table and not left out" if account.lost > 0 else "too many"
                yield f"{name} does not add up: {abs(account.lost):,} are {what}."
            elif account.rows != account.expected:
                yield f"{name} has {account.rows:,} rows; {account.expected:,} should be there."
        for source, finding in self.rejects.items():
            if finding.is_error:
                yield f"Too many {source} records were rejected: {finding.sentence}."
        for (table, column), count in self.nulls.items():
            if count and column.required:
                yield f"{table.name} lacks {count:,} values of {column.name}, which is required."
        if damaged := sum(found.why == DAMAGED for found in self.stale):
            yield f"{damaged:,} partitions are damaged: they count as if they were not there."
        if self.stale:
            yield f"{len(self.stale):,} partitions are not what they should be."
        if self.misplaced:
            yield "There are landing files that no table can hold; `stedi status` names them."


def collect(
    lake: Lake, engine: DuckDBEngine, policy: Policy, landed: Landed, now: datetime
) -> Figures:
    """Count all that a report tells. The lake must not change meanwhile.

    Damaged partitions count as if they were not there.

    Args:
        lake: to look at.
        engine: to compute with.
        policy: whose definitions its tables follow.
        landed: its landing files.
        now: the moment, UTC.
    """
    stale = examine(lake, engine, policy, landed, everything=False).stale
    stored_on = (day for table in TABLES.values() for day in lake.partitions(table))
    days = sorted({*_dates(landed), *stored_on})
    if damaged := {(found.table.name, found.day) for found in stale if found.why == DAMAGED}:
        lake = _Undamaged(lake, damaged)
    stored = {name: Stored(lake, engine, policy, table, days) for name, table in TABLES.items()}
    strangers = _total(same_customer(stored["machine_learning_curated"]), "rows")
    return Figures(
        lake=lake.storage.uri(),
        at=now.astimezone(UTC),
        policy=policy,
        dates=days,
        accounts=[_account(stored[name]) for name in EIGHT] if days else [],
        stated=stated_counts(lake) if policy is Policy.REFERENCE else {},
        funnel=_funnel(stored) if days else {},
        rows={
            name: {day: found.rows for day, found in of.statistics.items()}
            for name, of in stored.items()
        },
        rejects={s: rules.rejects(stored[landing_table(s).name]) for s in Source if days},
        nulls={
            (of.table, column): sum(found.nulls[column.name] for found in of.statistics.values())
            for of in stored.values()
            for column in of.table.columns
        },
        strangers=strangers,
        rates={
            source: _rates(stored[f"{source}_trusted"])
            for source in (Source.ACCELEROMETER, Source.STEP_TRAINER)
        },
        stale=stale,
        misplaced=len(landed.misplaced),
    )


def _dates(landed: Landed) -> Iterator[date]:
    for by_date in landed.by_date.values():
        yield from by_date


def _account(stored: Stored) -> Account:
    if stored.table.zone is Zone.LANDING:
        return _landing(stored)
    rows = sum(stored.rows.values())
    expected = _total(rules.derived_row_count(stored), "expected")
    if stored.table.name not in _LEFT_OUT:
        return Account(stored.table, "rows by the rules", expected, {}, rows, expected)
    taken_from, taken, left_out = _LEFT_OUT[stored.table.name](stored)
    if stored.table.name in _READINGS:
        left_out |= _repeated(stored, taken - sum(left_out.values()), expected)
    return Account(stored.table, taken_from, taken, left_out, rows, expected)


def _total(finding: Finding, figure: str) -> int:
    return int(sum(figures[figure] for figures in finding.figures.values()))


def _landing(stored: Stored) -> Account:
    """Of a landing table: each record of its files is in it or in the rejects."""
    counted = rules.landing_row_count(stored)
    rejects = rejects_table(stored.table.source)
    stored.bind(rejects)
    kinds = stored.engine.connection.execute(
        "SELECT CASE WHEN line IS NULL THEN 'a whole file' ELSE reason END AS kind, count(*) "
        f"FROM {rejects.name} GROUP BY kind ORDER BY count(*) DESC, kind"
    ).fetchall()
    records = _total(counted, "records")
    return Account(
        stored.table,
        "records of landing files",
        records,
        {f"{REJECTED}: {kind}": count for kind, count in kinds},
        _total(counted, "rows"),
        records - _total(counted, "rejects"),
    )


LeftOut = tuple[str, int, dict[str, int]]
"""What a table is made from, how many of that there are, and how many are left out, by reason."""


def _of_customers(stored: Stored) -> LeftOut:
    superseded, without = _one_row(
        stored,
        "SELECT coalesce(sum(records - 1), 0)::BIGINT, count(*) FILTER (NOT consents) "
        f"FROM {stored.people}",
    )
    left_out = {SUPERSEDED: superseded, NO_CONSENT: without}
    return "rows of customer_landing", _rows_of(stored, "customer_landing"), left_out


def _of_trusted_customers(stored: Stored) -> LeftOut:
    stored.bind(TABLES["customer_trusted"])
    stored.bind_users(TABLES["accelerometer_trusted"])
    (without,) = _one_row(
        stored,
        f"SELECT count(*) FROM customer_trusted WHERE {normalised('email')} NOT IN "
        f"(SELECT {normalised(quoted('user'))} FROM accelerometer_trusted)",
    )
    taken = _rows_of(stored, "customer_trusted")
    return "rows of customer_trusted", taken, {NO_READINGS: without}


def _of_phones(stored: Stored) -> LeftOut:
    landing = TABLES["accelerometer_landing"]
    texts = stored.of(landing).texts
    nobodys, without = _one_row(
        stored,
        "SELECT coalesce(sum(readings) FILTER (person IS NULL), 0)::BIGINT, "
        f"coalesce(sum(readings) FILTER (NOT consents), 0)::BIGINT FROM {texts} AS texts "
        f"LEFT JOIN {stored.people} ON person = {normalised('texts.user')}",
    )
    left_out = {NO_CONSENT: without, NOBODY: nobodys}
    if stored.policy is Policy.STRICT:
        stored.bind(landing)
        (left_out[EARLY],) = _one_row(
            stored,
            f"""
            WITH users AS (
                SELECT DISTINCT texts.user, since FROM {texts} AS texts
                JOIN {stored.consenting} ON person = {normalised("texts.user")}
            )
            SELECT count(*) FROM {landing.name} AS readings
            JOIN users ON users.user = readings.user AND timestamp < since
            """,
        )
    return f"rows of {landing.name}", _rows_of(stored, landing.name), left_out


def _of_devices(stored: Stored) -> LeftOut:
    stored.bind(TABLES["customers_curated"])
    nobodys, without, no_readings = _one_row(
        stored,
        f"""
        WITH held AS (
            SELECT serialnumber, bool_or(consents) AS consents,
                   bool_or(consents AND subject_id IN (SELECT subject_id FROM customers_curated))
                       AS curated
            FROM {stored.people} GROUP BY serialnumber
        )
        SELECT coalesce(sum(readings) FILTER (held.serialnumber IS NULL), 0)::BIGINT,
               coalesce(sum(readings) FILTER (NOT consents), 0)::BIGINT,
               coalesce(sum(readings) FILTER (consents AND NOT curated), 0)::BIGINT
        FROM {stored.of(TABLES["step_trainer_landing"]).texts} AS texts
        LEFT JOIN held ON held.serialnumber = texts.serialnumber
        """,
    )
    taken = _rows_of(stored, "step_trainer_landing")
    left_out = {NO_CONSENT: without, NOBODY: nobodys, NO_READINGS: no_readings}
    return "rows of step_trainer_landing", taken, left_out


def _of_pairs(stored: Stored) -> LeftOut:
    for name in ("step_trainer_trusted", "accelerometer_trusted", "customers_curated"):
        stored.bind(TABLES[name])
    curated = f"{stored.consenting} SEMI JOIN customers_curated USING (subject_id)"
    same = "AND d.device_id = p.device_id" if stored.policy is Policy.STRICT else ""
    pairs, others = _one_row(
        stored,
        f"""
        WITH curated AS (SELECT person, device_id, serialnumber FROM {curated}),
        devices AS (SELECT DISTINCT serialnumber, device_id FROM curated),
        pairs AS (
            SELECT d.serialnumber, p.user, count(*) AS pairs FROM step_trainer_trusted AS d
            JOIN accelerometer_trusted AS p ON p.timestamp = d.sensorreadingtime GROUP BY ALL
        )
        SELECT coalesce(sum(pairs), 0)::BIGINT, coalesce(sum(pairs) FILTER (NOT EXISTS (
            FROM devices AS d, curated AS p WHERE d.serialnumber = pairs.serialnumber
            AND p.person = {normalised("pairs.user")} {same})), 0)::BIGINT
        FROM pairs
        """,
    )
    return "pairs of readings of the same millisecond", pairs, {OTHERS: others}


_LEFT_OUT: dict[str, Callable[[Stored], LeftOut]] = {
    "customer_trusted": _of_customers,
    "accelerometer_trusted": _of_phones,
    "customers_curated": _of_trusted_customers,
    "step_trainer_trusted": _of_devices,
    "machine_learning_curated": _of_pairs,
}
"""Of a table that is not here, what it should hold is told, and not why."""
_READINGS = ("accelerometer_trusted", "step_trainer_trusted")


def _repeated(stored: Stored, passing: int, expected: int) -> dict[str, int]:
    """Of readings that pass and are not expected in the table: why they are not."""
    if stored.policy is Policy.REFERENCE or stored.table.source is not Source.STEP_TRAINER:
        return {REPEATED: passing - expected}
    landing = TABLES[stored.table.filters]
    stored.bind(landing)
    columns = ", ".join(map(quoted, landing.column_names))
    (once,) = _one_row(
        stored,
        f"""
        SELECT count(*) FROM (SELECT DISTINCT {columns} FROM {landing.name} WHERE serialnumber IN (
            SELECT serialnumber FROM {stored.consenting} SEMI JOIN customers_curated
            USING (subject_id)))
        """,
    )
    return {REPEATED: passing - once, ALONE: once - expected}


def _funnel(stored: Mapping[str, Stored]) -> dict[str, int]:
    """How many people there are, and how many of them come how far."""
    curated = stored["machine_learning_curated"]
    customers, consenting = _one_row(
        curated, f"SELECT count(*), count(*) FILTER (consents) FROM {curated.people}"
    )
    curated.bind(curated.table)
    (trained_on,) = _one_row(
        curated, f"SELECT count(DISTINCT subject_id) FROM {curated.table.name}"
    )
    return {
        "are customers": customers,
        "consent to research": consenting,
        "have phone readings": sum(stored["customers_curated"].rows.values()),
        "are in machine_learning_curated": trained_on,
    }


def _rates(stored: Stored) -> Rates:
    table = stored.table
    stored.bind(table)
    subject, moment = quoted(table.subjects[0]), quoted(table.event_time)
    who = normalised("spelled") if table.source is Source.ACCELEROMETER else "spelled"
    found = stored.engine.connection.execute(
        f"""
        WITH spelled AS (
            SELECT {table.name}.{subject} AS spelled, {moment} // 1000 AS second,
                   count(*) AS readings
            FROM {table.name} GROUP BY ALL
        ), seconds AS (
            SELECT {who} AS subject, sum(readings)::BIGINT AS readings
            FROM spelled GROUP BY subject, second
        )
        SELECT count(DISTINCT subject), coalesce(sum(readings), 0)::BIGINT,
               histogram(least(readings, {MOST_READINGS})),
               quantile_disc(readings, [0.25, 0.5, 0.75])
        FROM seconds
        """
    ).fetchall()
    ((subjects, readings, seconds, quartiles),) = found
    return Rates(subjects, readings, seconds or {}, quartiles or [])


def _one_row(stored: Stored, query: str) -> tuple[int, ...]:
    (row,) = stored.engine.connection.execute(query).fetchall()
    return tuple(row)


def _rows_of(stored: Stored, name: str) -> int:
    return sum(stored.of(TABLES[name]).rows.values())
