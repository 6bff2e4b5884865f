"""Which partitions no longer hold what their definition gives, why, and making them again.

A partition is right if it holds the rows that it noted when it was written (count and checksum),
and was made from what is there now (its stamp). All others are made again in a private folder and
compared, in the order in which rows flow, so that what follows is held against what should be
there. What was found right is remembered, so that a later look has to look at what changed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import duckdb

from stedi_assets.assets.definition import Definition, Need
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import DuckDBEngine, Staged, file_names, quoted
from stedi_assets.lake import Lake
from stedi_assets.landing.files import Landed
from stedi_assets.making import (
    Partition,
    Stamp,
    Upstream,
    files_with_rows,
    landing_stamps,
    local_files,
    make,
    make_landing,
)
from stedi_assets.privacy.policies import Policy
from stedi_assets.privacy.suppression import count_kept_out, is_kept_out, kept_out
from stedi_assets.remembered import Remembered
from stedi_assets.tables import (
    MOST_REJECTED,
    PARTITION,
    TABLES,
    Source,
    Table,
    landing_table,
    rejects_table,
)

DAMAGED = "damaged"
"""Why a partition is made again that holds other rows than it says, or cannot be read."""


@dataclass(frozen=True)
class Stale:
    """A partition that does not hold what its definition gives.

    Attributes:
        table: whose partition.
        day: its ingestion date.
        why: what happened to it.
        missing: rows that it lacks.
        extra: rows that it should not have.
        changed: rows of a table with a key that have other values under the same key.
        held_back: whether it was never made, and waits for landing files of its date to be mended,
            of which too many records were rejected.
    """

    table: Table
    day: date
    why: str
    missing: int
    extra: int
    changed: int
    held_back: bool = False

    @property
    def reason(self) -> str:
        """What happened to it, and what it waits for."""
        return self.why + (", held back: too many rejects of its date" if self.held_back else "")


@dataclass
class Found:
    """What `examine` found.

    Attributes:
        stale: the partitions that are not right, in the order in which rows flow.
        staged: finished files to put in their place, by table, in the same order.
        partitions: what the tables hold when that is done, by table.
        people: the tables that say whom definitions let through, by the name of what reads them.
        stamps: what the partitions are then known to follow from, by table.
    """

    stale: list[Stale] = field(default_factory=list)
    staged: dict[str, Staged] = field(default_factory=dict)
    partitions: dict[str, dict[date, Partition]] = field(default_factory=dict)
    people: dict[str, Upstream] = field(default_factory=dict)
    stamps: dict[str, dict[date, str]] = field(default_factory=dict)


class NotReconciledError(Exception):
    """A partition that is not right after it was made again."""


def settled(
    lake: Lake,
    engine: DuckDBEngine,
    policy: Policy,
    landed: Landed,
    made_by_runs: Collection[tuple[str, date]],
) -> bool:
    """Whether all is right, and nothing has to be made to see that; remembers it if so.

    Args:
        lake: to look at.
        engine: to compute with.
        policy: whose definitions its tables follow.
        landed: its landing files.
        made_by_runs: table names and dates of the partitions that runs have just made, to the end;
            their rows need not be read.
    """
    memory = Remembered(lake, engine)
    try:
        found = _examine(lake, engine, policy, landed, memory, False, made_by_runs, made_by_runs)
    except _NotSettledError:
        return False
    if found.stale:
        return False
    memory.keep(found.partitions, found.stamps, found.people)
    return True


def unread(lake: Lake, engine: DuckDBEngine, landed: Landed) -> dict[Source, dict[date, str]]:
    """The dates whose landing files are not what the landing tables and the rejects hold, and why.

    Args:
        lake: to look at.
        engine: to compute with.
        landed: its landing files.
    """
    examiner = _Examiner(lake, engine, landed, Remembered(lake, engine), False, (), ())
    return {
        source: {day: reason for why in examiner.why_landing(source) for day, reason in why.items()}
        for source in Source
    }


def landing_partitions(
    lake: Lake, engine: DuckDBEngine, landed: Landed
) -> dict[str, dict[date, Partition]]:
    """What the landing tables and the rejects hold when they are put right, by table.

    Partitions that are not right are made in the engine's private folder. Changes nothing.

    Args:
        lake: to look at.
        engine: to compute with.
        landed: its landing files.
    """
    examiner = _Examiner(lake, engine, landed, Remembered(lake, engine), True, (), None)
    for source in Source:
        examiner.look_at_landing(source)
    return examiner.found.partitions


def examine(
    lake: Lake,
    engine: DuckDBEngine,
    policy: Policy,
    landed: Landed,
    *,
    everything: bool = True,
) -> Found:
    """Find the partitions that do not hold what their definition gives. Changes nothing.

    Args:
        lake: to look at.
        engine: to compute with.
        policy: whose definitions its tables follow.
        landed: its landing files.
        everything: whether the rows of all partitions are read, or those only of files that are
            not the ones that were found right before.
    """
    return _examine(lake, engine, policy, landed, Remembered(lake, engine), everything, ())


def reconcile(
    lake: Lake,
    engine: DuckDBEngine,
    policy: Policy,
    landed: Landed,
    publish: Callable[[Table, Staged], object],
    *,
    everything: bool = True,
    only: Callable[[Stale], bool] = lambda _: True,
) -> list[Stale]:
    """Make all partitions hold what their definitions give, in the order in which rows flow.

    Args:
        lake: to put right.
        engine: to compute with.
        policy: whose definitions its tables follow.
        landed: its landing files.
        publish: makes finished files the content of their partitions.
        everything: see `examine`.
        only: which of the partitions that are not right to put right.

    Returns:
        What was found: it is put right, but for what is held back or not wanted.

    Raises:
        NotReconciledError: a partition is still not right, although it was made again.
    """
    memory = Remembered(lake, engine)
    first: list[Stale] | None = None
    made: set[tuple[str, date]] = set()
    while True:
        found = _examine(lake, engine, policy, landed, memory, everything, made)
        first = found.stale if first is None else first
        todo = {
            (stale.table.name, stale.day)
            for stale in found.stale
            if not stale.held_back and only(stale)
        }
        if not todo:
            memory.keep(found.partitions, found.stamps, found.people)
            return first
        for name, day in todo:
            if (name, day) in made:
                raise NotReconciledError(
                    f"{name}, partition {day}, was made again and is still not "
                    "what its definition gives. Does the definition give other rows each time, or "
                    "does another process write the lake? Nothing is lost; running it again helps "
                    "against the second."
                )
        for name, staged in found.staged.items():
            if days := [day for day in staged.files if (name, day) in todo]:
                publish(TABLES[name], staged.only(days))
        made |= todo
        everything = False


def _examine(
    lake: Lake,
    engine: DuckDBEngine,
    policy: Policy,
    landed: Landed,
    memory: Remembered,
    everything: bool,
    but: Collection[tuple[str, date]],
    made_by_runs: Collection[tuple[str, date]] | None = None,
) -> Found:
    examiner = _Examiner(lake, engine, landed, memory, everything, but, made_by_runs)
    for source in Source:
        examiner.look_at_landing(source, for_erased=everything)
    for definition in DEFINITIONS[policy].values():
        examiner.look_at_derived(definition)
    return examiner.found


class _NotSettledError(Exception):
    """Something would have to be made, to see whether it is right."""


class _Examiner:
    def __init__(
        self,
        lake: Lake,
        engine: DuckDBEngine,
        landed: Landed,
        memory: Remembered,
        everything: bool,
        but: Collection[tuple[str, date]],
        made_by_runs: Collection[tuple[str, date]] | None,
    ) -> None:
        self.lake = lake
        self.engine = engine
        self.landed = landed
        self.memory = memory
        self.everything = everything
        self.but = but
        self.made_by_runs = made_by_runs or ()
        self.makes = made_by_runs is None
        self.held_back: dict[str, set[date]] = {}
        self.found = Found()

    def why_landing(self, source: Source) -> list[dict[date, str]]:
        """The dates of the landing table and of the rejects that are not right, with the reason.

        Dates whose files may still be written to are left as they are, unless what is there is
        damaged: both tables have to be of the same reading.
        """
        stamps = landing_stamps(self.engine, source, self.landed.by_date[source])
        tables = landing_table(source), rejects_table(source)
        found = [self._partitions(table) for table in tables]
        left = self._growing(source) - set().union(*(damaged for _, damaged in found))
        whys = []
        for whole, damaged in found:
            why = {
                day: _why_landing(whole.get(day), stamps.get(day, ""), day in damaged)
                for day in sorted({*stamps, *whole, *damaged} - left)
                if self.landed.first <= day <= self.landed.last
            }
            whys.append({day: reason for day, reason in why.items() if reason})
        return whys

    def _growing(self, source: Source) -> set[date]:
        return {day for of, day in self.landed.growing if of is source}

    def _held_in_spite_of_the_list(self, table: Table) -> set[date]:
        """The dates of a table of landing that hold somebody whom erasures keep out.

        It was made while the list was away, such as in a lake that is being restored.
        """
        if not (out := kept_out(self.lake, self.engine)):
            return set()
        partitions = self.found.partitions[table.name]
        self.engine.create_view(table, files_with_rows(self.lake, partitions))
        found = self.engine.connection.execute(
            f"SELECT DISTINCT {PARTITION} FROM {table.name} "
            f"WHERE {is_kept_out(table, table.name, out)}"
        ).fetchall()
        return {day for (day,) in found} - self._growing(table.source)

    def look_at_landing(self, source: Source, *, for_erased: bool = False) -> None:
        tables = landing_table(source), rejects_table(source)
        whys = self.why_landing(source)
        if for_erased:
            for day in set().union(*map(self._held_in_spite_of_the_list, tables)):
                for why in whys:
                    why.setdefault(day, "holds somebody who was erased")
        if days := sorted({day for why in whys for day in why}):
            self._makes()
            made = make_landing(self.lake, self.engine, source, days, self.landed.by_date[source])
            for table, staged, why in zip(tables, made, whys, strict=True):
                self._put_right(table, staged, why)
        rows, rejected = (self.found.partitions[table.name] for table in tables)
        for table in tables:
            partitions = self.found.partitions[table.name]
            self.found.stamps[table.name] = {day: p.stamp for day, p in partitions.items()}
        bad = {
            day: rejected[day]
            for day in rows.keys() & rejected.keys()
            if _too_many(rejected[day].content.rows, rows[day].content.rows)
        }
        erased = count_kept_out(self.engine, local_files(self.lake, bad))
        self.held_back[tables[0].name] = {
            day
            for day, of in bad.items()
            if _too_many(of.content.rows - erased[day], rows[day].content.rows)
        }

    def look_at_derived(self, definition: Definition) -> None:
        table, name = definition.table, definition.table.name
        whole, damaged = self._partitions(table)
        upstream = Upstream(
            self.lake, self.engine, definition, self.found.partitions, self.memory.bind_users
        )
        rows = upstream.rows()
        stamps = upstream.stamps(self.engine.sql(rows), {*upstream.dates(), *whole, *damaged})
        if definition.people:
            self.found.people[definition.people.__name__] = upstream
        why = {day: "missing" for day in upstream.dates() if day not in whole}
        why |= dict.fromkeys(damaged, DAMAGED)
        suspects = {
            day: _why(Stamp.read(partition.stamp), stamps[day])
            for day, partition in whole.items()
            if partition.stamp != str(stamps[day])
        }
        remembered = (self._remembered_whole if table.restated else self._remembered)(
            upstream, {day: whole[day] for day in suspects}, stamps
        )
        suspects = {day: reason for day, reason in suspects.items() if day not in remembered}
        # Partitions that are there are put right on such a date too: consent goes before.
        self.held_back[name] = set().union(*(self.held_back[need] for need in definition.needs))
        held = {day for day in self.held_back[name] if why.get(day) == "missing"}
        self.found.stale += [
            Stale(table, day, "missing", 0, 0, 0, held_back=True) for day in sorted(held)
        ]
        # A restated table is computed as a whole, and gives what else is not as it should be.
        again = {day for day in (why if table.restated else why | suspects) if day not in held}
        if again or (table.restated and suspects):
            self._makes()
            staged = make(upstream, rows, again, whole)
            self._put_right(
                table,
                staged,
                {
                    day: (why | suspects).get(day, "upstream rows changed")
                    for day, content in staged.contents.items()
                    if day not in held and (day not in whole or whole[day].content != content)
                },
            )
        self.found.stamps[name] = {day: str(stamps[day]) for day in self.found.partitions[name]}

    def _makes(self) -> None:
        if not self.makes:
            raise _NotSettledError

    def _partitions(self, table: Table) -> tuple[dict[date, Partition], set[date]]:
        """The whole partitions of a table, and the dates of the damaged ones."""
        whole, damaged = self.memory.sound(table, everything=self.everything, but=self.but)
        self.found.partitions[table.name] = whole
        return whole, damaged

    def _remembered(
        self, upstream: Upstream, whole: Mapping[date, Partition], stamps: Mapping[date, Stamp]
    ) -> set[date]:
        """The partitions that were found right before, and cannot have become wrong since then."""
        table, people = upstream.definition.table, upstream.definition.people
        found = {
            day
            for day, partition in whole.items()
            for checksum, stamp in [self.memory.found_right(table, day)]
            if checksum == partition.content.checksum and stamp[:2] == stamps[day][:2]
        }
        if not found or not people:
            return found
        if not self.memory.changed_people(people.__name__, upstream):
            return found
        needed = {day: upstream.needed(day) for day in found}
        upstream.bind(found)
        for readings in upstream.definition.reads(Need.SAME_MOMENTS):
            dates = self.memory.dates_of_changed(readings)
            found -= {day for day in found if needed[day][readings.name] & dates}
        return found

    def _remembered_whole(
        self, upstream: Upstream, whole: Mapping[date, Partition], stamps: Mapping[date, Stamp]
    ) -> set[date]:
        """The same of a table of which a run restates all partitions.

        What was right before is right still, if a run that came to its end left it as it was.
        """
        table = upstream.definition.table
        run_looked = any(
            (table.name, day) in self.made_by_runs and partition.stamp == str(stamps[day])
            for day, partition in self.found.partitions[table.name].items()
        )
        return {
            day
            for day, partition in whole.items()
            for checksum, stamp in [self.memory.found_right(table, day)]
            if checksum == partition.content.checksum
            and (
                stamp == stamps[day]
                or (run_looked and partition.version == self.memory.version(table, day))
            )
        }

    def _put_right(self, table: Table, staged: Staged, why: Mapping[date, str]) -> None:
        """Note partitions as stale, for the given reasons, and what they should be."""
        partitions = self.found.partitions[table.name]
        for day, reason in sorted(why.items()):
            right = Partition(staged.files[day], staged.stamps[day], staged.contents[day])
            missing, extra, changed = self._difference(table, day, staged.files[day])
            self.found.stale.append(Stale(table, day, reason, missing, extra, changed))
            partitions[day] = right
        if why:
            self.found.staged[table.name] = staged.only(why)

    def _difference(self, table: Table, day: date, right: Path) -> tuple[int, int, int]:
        """How many rows the stored partition lacks, has too many, and has with other values."""
        columns = ", ".join(map(quoted, table.column_names))
        stored = self.lake.fetch(table, [day])
        query = f"SELECT {columns} FROM read_parquet($file, hive_partitioning = false)"
        self.engine.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE right_rows AS {query}",
            {"file": file_names([right])},
        )
        self.engine.connection.execute(
            "CREATE OR REPLACE TEMP TABLE stored_rows AS FROM right_rows WHERE false"
        )
        with suppress(duckdb.Error):  # a file that cannot be read holds no rows
            self.engine.connection.execute(
                f"INSERT INTO stored_rows {query}", {"file": file_names(stored.values())}
            )
        key = ", ".join(map(quoted, table.key))
        both = f"SELECT {key} FROM missing INTERSECT SELECT {key} FROM extra"
        changed = f"(SELECT count(*) FROM ({both}))" if key else "0"
        ((missing, extra, changed),) = self.engine.connection.execute(
            f"""
            WITH missing AS (FROM right_rows EXCEPT ALL FROM stored_rows),
                 extra AS (FROM stored_rows EXCEPT ALL FROM right_rows)
            SELECT (SELECT count(*) FROM missing), (SELECT count(*) FROM extra), {changed}
            """
        ).fetchall()
        return missing - changed, extra - changed, changed


def _too_many(rejects: int, rows: int) -> bool:
    return rejects > MOST_REJECTED * (rows + rejects)


def _why_landing(partition: Partition | None, stamp: str, damaged: bool) -> str:
    if damaged:
        return DAMAGED
    if partition is None:
        return "missing" if stamp else ""
    if partition.stamp == stamp:
        return ""
    same_files = partition.stamp.partition(":")[0] == stamp.partition(":")[0]
    return "definition changed" if same_files else "landing files changed"


def _why(old: Stamp, new: Stamp) -> str:
    if old.definition != new.definition:
        return "definition changed"
    return "upstream rows changed" if old.inputs != new.inputs else "consent or device changed"
