"""From a definition to published partitions: stage, contract, publish. Without Dagster.

The same for runs in this process and for jobs on a cluster, which Dagster is only told of.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis.expr.types as ir

from stedi_assets import contract
from stedi_assets.assets.definition import Definition
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import DuckDBEngine, FileStatistics, Staged, file_names
from stedi_assets.lake import Lake
from stedi_assets.landing.reader import reading_sql
from stedi_assets.making import Partition, Upstream, make
from stedi_assets.privacy.policies import Policy
from stedi_assets.remembered import Remembered
from stedi_assets.tables import TABLES, Personal, Source, Table, Zone, landing_table

_AT_ONCE = 8

_PREVIEWED = 31
"""Of how many partitions that are made together, the latest, first rows are shown."""


@dataclass(frozen=True)
class Published:
    """Partitions of a table that were published.

    Attributes:
        statistics: what the footer of each file says.
        sizes: of the files, in bytes.
        sql: the query that made them.
        seconds: how long all of them together took, from the first file read.
        rejects: see `Staged`.
        consents: the share of a partition's customer records that consent to research.
        previews: first rows of the latest partitions, of curated tables alone.
    """

    statistics: Mapping[date, FileStatistics]
    sizes: Mapping[date, int]
    sql: str
    seconds: float
    rejects: Mapping[date, int]
    consents: Mapping[date, float]
    previews: Mapping[date, list[dict[str, Any]]]

    def as_json(self) -> dict[str, Any]:
        """For another process; `from_json` makes it of that again."""
        return {
            "statistics": {str(day): asdict(found) for day, found in self.statistics.items()},
            "sizes": {str(day): size for day, size in self.sizes.items()},
            "sql": self.sql,
            "seconds": self.seconds,
            "rejects": {str(day): count for day, count in self.rejects.items()},
            "consents": {str(day): share for day, share in self.consents.items()},
            "previews": {str(day): rows for day, rows in self.previews.items()},
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Published:
        """What `as_json` gave."""
        return cls(
            {
                date.fromisoformat(day): FileStatistics(**found)
                for day, found in told["statistics"].items()
            },
            {date.fromisoformat(day): size for day, size in told["sizes"].items()},
            told["sql"],
            told["seconds"],
            {date.fromisoformat(day): count for day, count in told["rejects"].items()},
            {date.fromisoformat(day): share for day, share in told["consents"].items()},
            {date.fromisoformat(day): rows for day, rows in told["previews"].items()},
        )


def made_by(engine: DuckDBEngine, policy: Policy, tables: Iterable[Table]) -> dict[str, str]:
    """What processes have in common that make the same of tables, by what people call it."""
    found = {"the key of pseudonyms": engine.key_id, "DuckDB's hash of rows": engine.hash_id}
    for table in tables:
        if definition := DEFINITIONS[policy].get(table.name):
            sql = engine.sql(_rows(engine, definition))
        else:
            sql = reading_sql(engine, table.source)
        found[f"the definition of {table.name}"] = hashlib.sha256(sql.encode()).hexdigest()[:16]
    return found


def _rows(engine: DuckDBEngine, definition: Definition) -> ir.Table:
    return definition(**{read: engine.expression(TABLES[read]) for read in definition.needs})


def publish(lake: Lake, engine: DuckDBEngine, table: Table, staged: Staged) -> Published:
    """Make finished files the content of their partitions, if all of them keep the contract.

    Raises:
        BrokenContractError: a partition breaks the registry's rules; nothing is published.
    """
    statistics = engine.statistics(table, staged.files)
    contract.verify(engine, table, staged.files, statistics)
    sizes = {day: file.stat().st_size for day, file in staged.files.items()}
    consents = _consents(engine, table, staged.files)
    previews = _previews(engine, table, staged.files)

    def publish_one(day: date) -> None:
        lake.publish(table, day, staged.files[day], staged.noted(day).as_notes())

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # each waits for the disk, or for the network
        list(pool.map(publish_one, staged.files))
    seconds = time.monotonic() - staged.began
    return Published(statistics, sizes, staged.sql, seconds, staged.rejects, consents, previews)


def _consents(engine: DuckDBEngine, table: Table, files: Mapping[date, Path]) -> dict[date, float]:
    """The share of the records in customer_landing's files that consent; none where none are."""
    if table != landing_table(Source.CUSTOMER) or not files:
        return {}
    found = engine.connection.execute(
        "SELECT filename, avg((coalesce(sharewithresearchasofdate, 0) <> 0)::INTEGER) "
        "FROM read_parquet($files, filename = true) GROUP BY filename",
        {"files": file_names(files.values())},
    ).fetchall()
    shares = dict(found)
    return {day: shares[str(path)] for day, path in files.items() if str(path) in shares}


def _previews(
    engine: DuckDBEngine, table: Table, files: Mapping[date, Path]
) -> dict[date, list[dict[str, Any]]]:
    """Ten rows of each of the latest files of a curated table, where nothing names a person.

    Pseudonyms are cut to their first digits: Dagster keeps what it is told, also of somebody who
    is erased from the lake.
    """
    if table.zone is not Zone.CURATED:
        return {}
    latest = {day: files[day] for day in sorted(files)[-_PREVIEWED:]}
    cut = [column.name for column in table.columns if column.personal is Personal.PSEUDONYM]
    return {
        day: [row | {name: f"{row[name][:4]}…" for name in cut} for row in rows]
        for day, rows in engine.first_rows(table, latest, 10).items()
    }


class Maker:
    """Makes partitions of derived tables, for as long as one run has the lake."""

    def __init__(self, lake: Lake, engine: DuckDBEngine, policy: Policy) -> None:
        self.lake = lake
        self.engine = engine
        self.policy = policy
        self._known: dict[str, dict[date, Partition]] = {}
        self._made: set[tuple[str, date]] = set()

    def rows(self, table: Table) -> ir.Table:
        """A derived table by its definition, over what the lake holds when it is staged."""
        return _rows(self.engine, DEFINITIONS[self.policy][table.name])

    def stage(self, table: Table, rows: ir.Table, wanted: Collection[date]) -> Staged:
        """Write the partitions of the run, and those that it restates, into finished files.

        Raises:
            BrokenContractError: the rows have other columns than the registry.
        """
        contract.verify_columns(table, min(wanted), rows.columns)
        definition = DEFINITIONS[self.policy].get(table.name)
        if definition is None:  # a landing table, filled by an asset that reads no landing files
            files = self.engine.write(table, rows, wanted, {})
            return self.engine.sealed(table, files, {}, self.engine.sql(rows))
        read = {name: self._stored(TABLES[name]) for name in definition.needs}
        stored = self._stored(table) if table.restated else {}
        upstream = Upstream(self.lake, self.engine, definition, read, self._remembered.bind_users)
        return make(upstream, rows, wanted, stored)

    def published(self, table: Table, days: Collection[date]) -> None:
        """Know of partitions that this run has published, or had published."""
        self._known.pop(table.name, None)
        self._made |= {(table.name, day) for day in days}

    def _stored(self, table: Table) -> dict[date, Partition]:
        """A table's partitions, which no other run changes while this one has the lake.

        A file that holds other rows than it says is left out, as a file that cannot be read is.
        """
        if table.name not in self._known:
            found, _ = self._remembered.sound(table, but=self._made)
            self._known[table.name] = found
        return self._known[table.name]

    @cached_property
    def _remembered(self) -> Remembered:
        return Remembered(self.lake, self.engine)
