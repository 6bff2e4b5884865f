"""What the last reconciliation found right, so that the next one looks at what changed alone.

One file in the lake; without it everything is looked at again, and nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date

from stedi_assets.assets.definition import Need
from stedi_assets.engines.duckdb import DuckDBEngine, file_names, quoted
from stedi_assets.lake import Lake
from stedi_assets.making import Partitions, Stamp, Upstream
from stedi_assets.privacy.consent import person
from stedi_assets.tables import PARTITION, Personal, Table

_FILE = "_reconciled.parquet"


class Remembered:
    """What was right, and whom definitions let through then.

    The file's rows are those people, by the date of the record that says so: 64 bits of a hash of
    their pseudonyms, which is enough to tell millions apart. Its note says which partitions were
    right: version of the file, checksum of the rows, stamp.
    """

    def __init__(self, lake: Lake, engine: DuckDBEngine) -> None:
        self.lake = lake
        self.engine = engine
        self.file = lake.storage.fetch(_FILE)
        self.right: dict[str, dict[str, list[str]]] = {}
        with suppress(KeyError, ValueError):  # none, or not one of ours
            self.right = json.loads(engine.notes({date.min: self.file})[date.min]["right"])

    def version(self, table: Table, day: date) -> str:
        """Of the file that was right."""
        return self._entry(table.name, day)[0]

    def found_right(self, table: Table, day: date) -> tuple[str, Stamp]:
        """The checksum that a partition had when it was right, and its stamp."""
        _, checksum, stamp = self._entry(table.name, day)
        return checksum, Stamp.read(stamp)

    def _entry(self, name: str, day: date) -> list[str]:
        return self.right.get(name, {}).get(day.isoformat(), ["", "", ""])

    def changed_people(self, name: str, upstream: Upstream) -> bool:
        """Whether others are let through now; `dates_of_changed` then finds their readings.

        Args:
            name: of what says who is let through.
            upstream: has the tables that it reads.
        """
        days = self._changed_dates(upstream)
        execute = self.engine.connection.execute
        execute(f"CREATE OR REPLACE TEMP TABLE after AS {self._people(upstream, days)}")
        execute(
            "CREATE OR REPLACE TEMP TABLE before AS "
            f"SELECT DISTINCT person_id, device_id FROM ({self._remembered_people()}) "
            f"WHERE name = $name AND {PARTITION} IN (SELECT unnest($days))",
            {"name": name, "days": days},
        )
        execute(
            "CREATE OR REPLACE TEMP TABLE came AS FROM after ANTI JOIN before "
            "USING (person_id, device_id)"
        )
        execute(
            "CREATE OR REPLACE TEMP TABLE gone AS FROM before ANTI JOIN after "
            "USING (person_id, device_id)"
        )
        ((count,),) = execute(
            "SELECT (SELECT count(*) FROM came) + (SELECT count(*) FROM gone)"
        ).fetchall()
        return bool(count)

    def dates_of_changed(self, readings: Table) -> set[date]:
        """The dates on which those who came and those who are gone have readings."""
        (column,) = (column for column in readings.columns if column.name in readings.subjects)
        rows = self.engine.expression(readings)
        subjects = rows.select(subject=column.name).distinct()
        if column.personal is Personal.CONTACT:
            subjects, who = subjects.mutate(who=person(subjects.subject)), "person"
        else:
            subjects, who = subjects.mutate(who=subjects.subject), "serialnumber"
        execute = self.engine.connection.execute
        is_one = [f"who IN (SELECT {who} FROM came)"]
        if execute("FROM gone LIMIT 1").fetchall():  # who is known by the pseudonym only
            gone = {"person": "person_id", "serialnumber": "device_id"}[who]
            is_one.append(f"{_HIDDEN.format('who')} IN (SELECT {gone} FROM gone)")
        execute(
            "CREATE OR REPLACE TEMP TABLE those AS "
            f"SELECT subject FROM ({self.engine.sql(subjects)}) WHERE {' OR '.join(is_one)}"
        )
        if not execute("FROM those LIMIT 1").fetchall():
            return set()
        found = execute(
            f"SELECT DISTINCT {PARTITION} FROM {readings.name} "
            f"WHERE {quoted(column.name)} IN (FROM those)"
        ).fetchall()
        return {day for (day,) in found}

    def keep(
        self,
        partitions: Mapping[str, Partitions],
        stamps: Mapping[str, Mapping[date, str]],
        people: Mapping[str, Upstream],
    ) -> None:
        """Remember what is right now.

        Args:
            partitions: of each table.
            stamps: for the partitions that are right, what they follow from.
            people: the tables that say whom definitions let through, by the name of what reads
                them.
        """
        right = {
            name: {
                day.isoformat(): [found.version, found.content.checksum, stamp]
                for day, stamp in of_table.items()
                for found in [partitions[name][day]]
                if found.version
            }
            for name, of_table in stamps.items()
        }
        if right == self.right:
            return
        execute = self.engine.connection.execute
        execute(f"CREATE OR REPLACE TEMP TABLE kept AS {self._remembered_people()}")
        for name, upstream in people.items():
            days = self._changed_dates(upstream)
            execute(
                f"DELETE FROM kept WHERE name = $name AND {PARTITION} IN (SELECT unnest($days))",
                {"name": name, "days": days},
            )
            execute(
                f"INSERT INTO kept SELECT $name, {PARTITION}, person_id, device_id "
                f"FROM ({self._people(upstream, days)})",
                {"name": name},
            )
        path = self.engine.folder / _FILE
        execute(
            "COPY kept TO $path (FORMAT parquet, KV_METADATA {'right': $right})",
            {"path": str(path), "right": json.dumps(right)},
        ).fetchall()
        self.lake.storage.publish(path, _FILE)

    def _changed_dates(self, upstream: Upstream) -> list[date]:
        """The dates on which a table that says who is let through is not as it was."""
        return sorted(
            {
                day
                for table in upstream.definition.reads(Need.EVERY_DATE)
                for partitions in [upstream.tables[table.name]]
                for day in {
                    *partitions,
                    *map(date.fromisoformat, self.right.get(table.name, {})),
                }
                if day not in partitions
                or self._entry(table.name, day)[1] != partitions[day].content.checksum
            }
        )

    def _people(self, upstream: Upstream, days: list[date]) -> str:
        """SQL for the people of some dates, with what stands for them in the file."""
        people = upstream.people(days)
        has_device = "serialnumber" in people.columns
        device = "serialnumber" if has_device else "NULL::VARCHAR"
        device_id = _HIDDEN.format("serialnumber") if has_device else "0::UBIGINT"
        return (
            f"SELECT {PARTITION}, person, {device} AS serialnumber, "
            f"{_HIDDEN.format('person')} AS person_id, {device_id} AS device_id "
            f"FROM ({self.engine.sql(people)})"
        )

    def _remembered_people(self) -> str:
        """SQL for the rows of the file."""
        if self.right:
            (file,) = file_names([self.file])
            quoted_file = file.replace("'", "''")
            return f"FROM read_parquet('{quoted_file}')"
        return (
            f"SELECT NULL::VARCHAR AS name, NULL::DATE AS {PARTITION}, "
            "NULL::UBIGINT AS person_id, NULL::UBIGINT AS device_id WHERE false"
        )


_HIDDEN = "hash(pseudonym({}))"
