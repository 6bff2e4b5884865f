"""What the last reconciliation found right, so that the next one looks at what changed alone.

One file in the lake; without it everything is looked at again, and nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date

import duckdb
import ibis.expr.types as ir

from stedi_assets.engines.duckdb import DuckDBEngine, file_names, quoted
from stedi_assets.lake import Lake
from stedi_assets.making import PEOPLE_COLUMNS, Partitions, Stamp
from stedi_assets.privacy.consent import person
from stedi_assets.tables import PARTITION, Personal, Table

_FILE = "_reconciled.parquet"


class Remembered:
    """What the last reconciliation found right, kept in one file of the lake.

    Its rows are the people whom definitions let through then, by their pseudonyms' hashes; its note
    says which partitions were right then: version of the file, checksum of the rows, stamp.
    """

    def __init__(self, lake: Lake, engine: DuckDBEngine) -> None:
        self.lake = lake
        self.engine = engine
        self.file = lake.storage.fetch(_FILE)
        with suppress(duckdb.Error, KeyError, ValueError):  # none, or not one of ours
            notes = engine.notes("partitions", {date.min: self.file})
            self.partitions: dict[str, dict[str, list[str]]] = json.loads(notes[date.min])
            return
        self.partitions = {}

    def version(self, table: Table, day: date) -> str:
        """Of the file that was right."""
        return self._entry(table, day)[0]

    def found_right(self, table: Table, day: date) -> tuple[str, Stamp]:
        """The checksum that a partition had when it was right, and its stamp."""
        _, checksum, stamp = self._entry(table, day)
        return checksum, Stamp.read(stamp)

    def _entry(self, table: Table, day: date) -> list[str]:
        return self.partitions.get(table.name, {}).get(day.isoformat(), ["", "", ""])

    def changed_people(self, name: str, people: ir.Table) -> bool:
        """Whether others are let through now; `dates_of_changed` then finds their readings."""
        self.engine.connection.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE changed AS
            WITH before AS (
                     SELECT person, serialnumber FROM read_parquet($file) WHERE name = $name
                 ),
                 after AS ({self._hidden(people)})
            (FROM before EXCEPT FROM after) UNION ALL (FROM after EXCEPT FROM before)
            """,
            {"file": file_names([self.file]), "name": name},
        )
        ((count,),) = self.engine.connection.execute("SELECT count(*) FROM changed").fetchall()
        return bool(count)

    def dates_of_changed(self, readings: Table) -> set[date]:
        """The dates on which those who changed have readings."""
        (column,) = (column for column in readings.columns if column.name in readings.subjects)
        rows = self.engine.expression(readings)
        subjects = rows.select(subject=column.name).distinct()
        if column.personal is Personal.CONTACT:
            subjects, who = subjects.mutate(who=person(subjects.subject)), "person"
        else:
            subjects, who = subjects.mutate(who=subjects.subject), "serialnumber"
        self.engine.connection.execute(
            "CREATE OR REPLACE TEMP TABLE those AS "
            f"SELECT subject FROM ({self.engine.sql(subjects)}) "
            f"WHERE hash(pseudonym(who)) IN (SELECT {who} FROM changed)"
        )
        if not self.engine.connection.execute("FROM those LIMIT 1").fetchall():
            return set()
        found = self.engine.connection.execute(
            f"SELECT DISTINCT {PARTITION} FROM {readings.name} "
            f"WHERE {quoted(column.name)} IN (FROM those)"
        ).fetchall()
        return {day for (day,) in found}

    def keep(
        self,
        partitions: Mapping[str, Partitions],
        stamps: Mapping[str, Mapping[date, str]],
        people: Mapping[str, ir.Table],
    ) -> None:
        """Remember what is right now.

        Args:
            partitions: of each table.
            stamps: for the partitions that are right, what they follow from.
            people: whom definitions let through, by the name of what says so.
        """
        right = {
            name: {
                day.isoformat(): [found.version, found.content.checksum, stamp]
                for day, stamp in of_table.items()
                for found in [partitions[name][day]]
            }
            for name, of_table in stamps.items()
        }
        if right == self.partitions:
            return
        rows = " UNION ALL ".join(
            f"SELECT '{name}' AS name, person, serialnumber FROM ({self._hidden(those)})"
            for name, those in people.items()
        )
        path = self.engine.folder / _FILE
        self.engine.connection.execute(
            f"COPY ({rows}) TO $path (FORMAT parquet, KV_METADATA {{partitions: $partitions}})",
            {"path": str(path), "partitions": json.dumps(right)},
        ).fetchall()
        self.lake.storage.publish(path, _FILE)

    def _hidden(self, people: ir.Table) -> str:
        """SQL for people as 64 bits of their pseudonyms: enough to tell millions apart."""
        columns = (
            f"hash(pseudonym({name}))" if name in people.columns else "NULL::UBIGINT"
            for name in PEOPLE_COLUMNS
        )
        named = ", ".join(f"{c} AS {n}" for c, n in zip(columns, PEOPLE_COLUMNS, strict=True))
        return f"SELECT {named} FROM ({self.engine.sql(people)})"
