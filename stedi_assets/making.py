"""Making partitions: from landing files, and by definitions from partitions of other tables.

Each partition's file notes what it was made from, its stamp. Equal stamps mean equal rows; whether
a partition with another stamp holds other rows, `reconcile.py` finds out.
"""

from __future__ import annotations

import hashlib
import json
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import ibis.expr.operations as ops
import ibis.expr.types as ir

from stedi_assets.assets.definition import Definition, Need
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import Content, DuckDBEngine, Noted, Staged
from stedi_assets.engines.spark import SparkEngine
from stedi_assets.lake import Lake, StoredFile
from stedi_assets.landing.files import fingerprint
from stedi_assets.landing.on_spark import read_days_on_spark
from stedi_assets.landing.reader import Day, read_days, reading_sql
from stedi_assets.privacy.suppression import kept_out
from stedi_assets.tables import TABLES, Source, Table, landing_table, rejects_table

_PORTION = 4_000_000
"""How many rows are computed at once, where several partitions are made in one go."""


@dataclass(frozen=True)
class Partition:
    """A partition's file, and what it says of itself.

    Attributes:
        file: the published file, or a local one that is not published yet.
        stamp: what it was made from.
        content: what it holds.
    """

    file: StoredFile | Path
    stamp: str
    content: Content

    @property
    def version(self) -> str:
        """Of the file, by which a changed one is told; empty while it is not published."""
        return self.file.version if isinstance(self.file, StoredFile) else ""


Partitions = Mapping[date, Partition]


_known: dict[tuple[str, StoredFile], Noted] = {}
"""What `stored_partitions` found, by lake and file: who asks again in the same process need not
look into thousands of files again."""


def stored_partitions(lake: Lake, engine: DuckDBEngine, table: Table) -> dict[date, Partition]:
    """The published partitions of a table, but for damaged files and those of somebody else.

    Fetches no file whose notes the storage has.
    """
    root = lake.storage.uri()
    files = lake.partitions(table)
    unknown = {day: file for day, file in files.items() if (root, file) not in _known}
    kept = dict(zip(unknown, lake.storage.notes(unknown.values()), strict=True))
    noted = {day: found for day, notes in kept.items() if (found := Noted.read(notes))}
    unnoted = {day: file for day, file in unknown.items() if day not in noted}
    paths = dict(zip(unnoted, lake.storage.fetch_all(unnoted.values()), strict=True))
    noted |= engine.noted(paths)
    _known.update({(root, files[day]): notes for day, notes in noted.items()})
    return {
        day: Partition(file, notes.stamp, notes.content)
        for day, file in files.items()
        if (notes := _known.get((root, file)))
    }


def local_files(lake: Lake, partitions: Partitions) -> dict[date, Path]:
    """Local files of partitions, in the order of their dates."""
    published = [found.file for found in partitions.values() if isinstance(found.file, StoredFile)]
    fetched = dict(zip(published, lake.storage.fetch_all(published), strict=True))
    return {
        day: fetched[found.file] if isinstance(found.file, StoredFile) else found.file
        for day, found in sorted(partitions.items())
    }


def files_with_rows(lake: Lake, partitions: Partitions) -> dict[date, Path]:
    """The files to read: fetching one takes time, and those that hold no rows add none."""
    return local_files(lake, {day: of for day, of in partitions.items() if of.content.rows})


def landing_stamps(
    engine: DuckDBEngine, source: Source, files: Mapping[date, Collection[StoredFile]]
) -> dict[date, str]:
    """What the partitions of a landing table and its rejects are made from; empty without files."""
    reading = _hashed(reading_sql(engine, source))
    return {day: f"{fingerprint(of)}:{reading}" if of else "" for day, of in files.items()}


def make_landing(
    lake: Lake,
    engine: DuckDBEngine,
    source: Source,
    days: Iterable[date],
    landed: Mapping[date, Collection[StoredFile]],
) -> tuple[Staged, Staged]:
    """Read a source's landing files into finished files of its landing table and its rejects.

    Args:
        lake: has the landing files.
        engine: reads them.
        source: whose they are.
        days: the partitions to make; they are empty where there are no files.
        landed: the source's landing files by date.
    """
    began = time.monotonic()
    files = {day: landed.get(day, []) for day in days}
    stamps = landing_stamps(engine, source, files)
    out = kept_out(lake, engine)
    if isinstance(engine, SparkEngine) and engine.computes(landing_table(source)):
        rows, rejects = read_days_on_spark(lake, engine, source, files, stamps, out)
    else:
        paths = iter(lake.storage.fetch_all([file for of in files.values() for file in of]))
        wanted = {
            day: Day({file.key: next(paths) for file in of}, stamps[day])
            for day, of in files.items()
        }
        rows, rejects = read_days(engine, source, wanted, out)
    sql = reading_sql(engine, source)
    of_rejects = engine.sealed(rejects_table(source), rejects, stamps, sql)
    counts = {day: content.rows for day, content in of_rejects.contents.items()}
    of_rows = engine.sealed(landing_table(source), rows, stamps, sql)
    return replace(of_rows, began=began, rejects=counts), replace(of_rejects, began=began)


class Stamp(NamedTuple):
    """What a derived table's partition is made from: three things, told from others by hashes.

    Attributes:
        definition: the policies whose definition it is, the key of pseudonyms, and the query.
        inputs: the rows of the partitions that it may need.
        people: the tables that say whom the definition lets through; the date, where `inputs` is
            of all dates.
    """

    definition: str
    inputs: str
    people: str

    def __str__(self) -> str:
        return ":".join(self)

    @property
    def under(self) -> tuple[str, str] | None:
        """The policies, and what tells the key of pseudonyms; None where it does not say so."""
        policies, _, rest = self.definition.partition("-")
        key_id, _, query = rest.partition("-")
        return (policies, key_id) if query else None

    @classmethod
    def read(cls, text: str) -> Stamp:
        """The stamp that a file notes; one that equals no other where it notes something else."""
        parts = text.split(":")
        return cls(*parts) if len(parts) == len(cls._fields) else cls("", "", "")


class Upstream:
    """The partitions that a definition reads, as they are at one moment.

    Args:
        lake: has the partitions.
        engine: has the tables as views, which `bind` narrows.
        definition: whose they are.
        tables: the partitions of each table that it reads, by the table's name.
        bind_users: lets SQL see whoever has readings in partitions of a table, where nothing else
            of them counts; by default by reading them.
    """

    def __init__(
        self,
        lake: Lake,
        engine: DuckDBEngine,
        definition: Definition,
        tables: Mapping[str, Partitions],
        bind_users: Callable[[Table, Partitions], None] | None = None,
    ) -> None:
        self.lake = lake
        self.engine = engine
        self.definition = definition
        self.tables = {name: tables[name] for name in definition.needs}
        self._bind_users = bind_users
        self._moments = {
            table.name: _Moments(self.tables[table.name])
            for table in definition.reads(Need.SAME_MOMENTS)
        }

    def dates(self) -> list[date]:
        """The dates on which the table has a partition."""
        return sorted(
            {day for table in self.definition.dated_by for day in self.tables[table.name]}
        )

    def size(self, day: date) -> int:
        """How many rows the tables that the table is dated by have on a date."""
        return sum(
            self.tables[table.name][day].content.rows
            for table in self.definition.dated_by
            if day in self.tables[table.name]
        )

    def rows(self) -> ir.Table:
        """The table's definition over what it reads."""
        return self.definition(
            **{name: self.engine.expression(TABLES[name]) for name in self.tables}
        )

    def needed(self, day: date) -> dict[str, set[date]]:
        """The dates of the partitions that the partition of a date may need, by table.

        Of readings, those of this date, and those of earlier ones that hold readings of the same
        time. Needed on every date are all.
        """
        ranges = [
            (content.first, content.last)
            for name in self._moments
            if day in self.tables[name]
            for content in [self.tables[name][day].content]
            if content.first is not None and content.last is not None
        ]
        return {
            name: {
                other
                for first, last in ranges
                for other in self._moments[name].between(first, last)
                if other <= day
            }
            if name in self._moments
            else set(partitions)
            for name, partitions in self.tables.items()
        }

    def bind(self, days: Iterable[date]) -> None:
        """Let the tables' views show what the partitions of `days` may need, and no more."""
        for name, partitions in self.tables.items():
            if self._bind_users and self.definition.needs[name] is Need.USERS_OF_EVERY_DATE:
                self._bind_users(TABLES[name], partitions)
            elif name not in self._moments:
                files = files_with_rows(self.lake, partitions)
                if self._moments:
                    made_from = tuple(
                        (path, partitions[day].version) for day, path in files.items()
                    )
                    self.engine.create_small_view(TABLES[name], files, made_from)
                else:
                    self.engine.create_view(TABLES[name], files)
        self.bind_readings(days)

    def bind_readings(
        self, days: Iterable[date], connection: duckdb.DuckDBPyConnection | None = None
    ) -> None:
        """The same for the tables of readings alone, if need be for one connection only."""
        needed = [self.needed(day) for day in days]
        for name in self._moments:
            partitions = self.tables[name]
            dates = sorted(set().union(*(found[name] for found in needed)))
            files = files_with_rows(self.lake, {day: partitions[day] for day in dates})
            self.engine.create_view(TABLES[name], files, connection)

    def stamps(self, sql: str, days: Iterable[date]) -> dict[date, Stamp]:
        """What partitions are made from.

        Args:
            sql: the definition's query.
            days: their dates.
        """
        table = self.definition.table.name
        policies = [p for p, of in DEFINITIONS.items() if of[table] is self.definition]
        definition = "-".join(["+".join(policies), self.engine.key_id, _hashed(sql)])
        if not self._moments:
            inputs = self._inputs(self.tables)
            # With the date, by which the file of one is told from that of another.
            return {day: Stamp(definition, inputs, day.isoformat()) for day in days}
        people = self._inputs({n: p for n, p in self.tables.items() if n not in self._moments})
        return {
            day: Stamp(
                definition,
                self._inputs({n: d for n, d in self.needed(day).items() if n in self._moments}),
                people,
            )
            for day in days
        }

    def _inputs(self, needed: Mapping[str, Iterable[date]]) -> str:
        return _hashed(
            [
                [name, day.isoformat(), content.rows, content.checksum]
                for name, days in needed.items()
                for day in sorted(days)
                for content in [self.tables[name][day].content]
                if content.rows
            ]
        )

    def people(self, days: Collection[date]) -> ir.Table:
        """The people whom the definition lets through, of records of some dates."""
        assert self.definition.people  # noqa: S101 - who calls it knows; for the type alone
        tables = self.definition.reads(Need.EVERY_DATE)
        for table in tables:
            partitions = self.tables[table.name]
            of_days = {day: partitions[day] for day in days if day in partitions}
            self.engine.create_view(table, files_with_rows(self.lake, of_days))
        return self.definition.people(
            **{table.name: self.engine.expression(table) for table in tables}
        )


def make(upstream: Upstream, rows: ir.Table, days: Collection[date], stored: Partitions) -> Staged:
    """Compute partitions of a derived table into finished files.

    Args:
        upstream: what is read.
        rows: the table's definition over it.
        days: the partitions to make.
        stored: the table's partitions. Of a restated table, those whose rows are others now are
            made as well.
    """
    began = time.monotonic()
    engine, table = upstream.engine, upstream.definition.table
    sql = engine.sql(rows)
    written = {*days, *stored, *upstream.dates()} if table.restated else days
    stamps = {day: str(stamp) for day, stamp in upstream.stamps(sql, written).items()}
    files: dict[date, Path] = {}
    if table.restated:
        upstream.bind(days)
        contents = {day: partition.content for day, partition in stored.items()}
        files = engine.write(table, rows, days, stamps, contents)
    else:
        upstream.bind([])
        alone = set() if rows.op().find(ops.InMemoryTable) else _alone(upstream, days)
        files = engine.write_each(table, rows, alone, stamps, upstream.bind_readings)
        for portion in _portions(upstream, set(days) - alone):
            upstream.bind_readings(portion)
            files |= engine.write(table, rows, portion, stamps)
    return replace(engine.sealed(table, files, stamps, sql), began=began)


def _alone(upstream: Upstream, days: Collection[date]) -> set[date]:
    """The days that can be made several at once, each by itself."""
    readings = [table.name for table in upstream.definition.reads(Need.SAME_MOMENTS)]
    return {
        day
        for day in days
        if upstream.size(day) <= _PORTION // 2
        for needed in [upstream.needed(day)]
        if all(needed[name] <= {day} for name in readings)
    }


def _portions(upstream: Upstream, days: Collection[date]) -> Iterator[list[date]]:
    """The days in order, in portions of so many rows that they can be computed at once."""
    portion: list[date] = []
    size = 0
    for day in sorted(days):
        rows = upstream.size(day)
        if portion and size + rows > _PORTION:
            yield portion
            portion, size = [], 0
        portion.append(day)
        size += rows
    if portion:
        yield portion


class _Moments:
    """Finds the partitions that hold readings of some time."""

    def __init__(self, partitions: Partitions) -> None:
        ranges = sorted(
            (content.first, content.last, day)
            for day, partition in partitions.items()
            for content in [partition.content]
            if content.first is not None and content.last is not None
        )
        self._ranges = ranges
        self._firsts = [first for first, _, _ in ranges]
        self._latest = list(accumulate((last for _, last, _ in ranges), max))

    def between(self, first: int, last: int) -> Iterator[date]:
        """The dates of partitions with readings from before `last` and from after `first`."""
        at = bisect_right(self._firsts, last) - 1
        while at >= 0 and self._latest[at] >= first:
            if self._ranges[at][1] >= first:
                yield self._ranges[at][2]
            at -= 1


def _hashed(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
