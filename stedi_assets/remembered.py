"""What the last reconciliation found right, so that the next one looks at what changed alone.

One file in the lake; without it everything is looked at again, and nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import date

import duckdb

from stedi_assets.assets.definition import Need
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import DuckDBEngine, file_names, normalised, quoted
from stedi_assets.lake import RECONCILED, Lake
from stedi_assets.making import (
    Partition,
    Partitions,
    Stamp,
    Upstream,
    files_with_rows,
    local_files,
    stored_partitions,
)
from stedi_assets.privacy.consent import person
from stedi_assets.tables import PARTITION, TABLES, Personal, Table


class Remembered:
    """What was right, whom definitions let through then, and who had readings.

    The file's rows are those people, by the date of the record that says so or of the readings: 64
    bits of a hash of their pseudonyms, which is enough to tell millions apart, and since when each
    consents, if that matters to a definition (epoch milliseconds, else 0). Its note says which
    partitions were right: version of the file, checksum of the rows, stamp.
    """

    def __init__(self, lake: Lake, engine: DuckDBEngine) -> None:
        self.lake = lake
        self.engine = engine
        self.right: dict[str, dict[str, list[str]]] = {}
        engine.connection.execute(
            "CREATE OR REPLACE TEMP TABLE remembered "
            f"(name VARCHAR, {PARTITION} DATE, person_id UBIGINT, device_id UBIGINT, "
            "since BIGINT)"
        )
        found = lake.storage.find(RECONCILED)
        files = {date.min: lake.storage.fetch(found)} if found else {}
        try:
            noted = json.loads(engine.notes(files)[date.min]["remembered"])
            engine.connection.execute(
                "INSERT INTO remembered FROM read_parquet($file)",
                {"file": file_names(files.values())},
            )
            if noted["made_with"] == self._made_with():
                self.right = {
                    name: {
                        day: [version, checksum, stamp] for day, (version, checksum, stamp) in of
                    }
                    for name, of_table in noted["right"].items()
                    for of in [of_table.items()]
                }
        except (duckdb.Error, KeyError, ValueError, TypeError, AttributeError):
            pass  # there is none, or somebody damaged it
        if not self.right:
            engine.connection.execute("DELETE FROM remembered")

    def _made_with(self) -> str:
        """Changes with the rows of the file, the hash and the key of pseudonyms."""
        probe = _HIDDEN.format("''")
        ((rows, total, probed),) = self.engine.connection.execute(
            f"SELECT count(*), sum(hash(name, {PARTITION}, {_WHO})), {probe} FROM remembered"
        ).fetchall()
        return f"{_LAYOUT} {rows} {total} {probed}"

    def sound(
        self,
        table: Table,
        *,
        everything: bool = False,
        but: Collection[tuple[str, date]] = (),
    ) -> tuple[dict[date, Partition], set[date]]:
        """The partitions of a table that hold what they say, and the dates of the damaged ones.

        Args:
            table: whose partitions.
            everything: whether to read the rows of all of them, or those only of files that are
                not the ones that were right.
            but: table names and dates of partitions whose rows need not be read.
        """
        partitions = stored_partitions(self.lake, self.engine, table)
        to_read = {
            day: partition
            for day, partition in partitions.items()
            if everything
            or ((table.name, day) not in but and self.version(table, day) != partition.version)
        }
        contents = self.engine.measure(table, local_files(self.lake, to_read))
        damaged = {day for day in to_read if contents.get(day) != partitions[day].content}
        damaged |= self.lake.partitions(table).keys() - partitions.keys()
        return {day: found for day, found in partitions.items() if day not in damaged}, damaged

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
            f"SELECT DISTINCT {_WHO} FROM remembered "
            f"WHERE name = $name AND {PARTITION} IN (SELECT unnest($days))",
            {"name": name, "days": days},
        )
        execute(f"CREATE OR REPLACE TEMP TABLE came AS FROM after ANTI JOIN before USING ({_WHO})")
        execute(f"CREATE OR REPLACE TEMP TABLE gone AS FROM before ANTI JOIN after USING ({_WHO})")
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

    def bind_users(self, table: Table, partitions: Partitions) -> None:
        """Let SQL see who of customer_trusted has readings in partitions of a table.

        Those of remembered partitions are known without reading them: of each person's the view has
        one row, with the email of customer_trusted.

        Args:
            table: of readings, with a column `user`.
            partitions: of it.
        """
        known = {
            day
            for day, found in partitions.items()
            if found.version and found.version == self.version(table, day)
        }
        others = {day: found for day, found in partitions.items() if day not in known}
        days = ", ".join(f"DATE '{day}'" for day in sorted(known))
        users = (
            'SELECT email AS "user" FROM customer_trusted '
            f"WHERE {_HIDDEN.format(normalised('email'))} IN (SELECT person_id FROM remembered "
            f"WHERE name = '{table.name}' AND {PARTITION} IN ({days}))"
        )
        self.engine.create_view(
            table, files_with_rows(self.lake, others), also=users if known else None
        )

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
        if _definitions(right) != _definitions(self.right):
            # Of another policy or version: it lets others through also where no customer changed.
            execute("DELETE FROM remembered")
            self.right = {}
        for name, upstream in people.items():
            days = self._changed_dates(upstream)
            self._replace(name, days, f"{PARTITION}, {_WHO} FROM ({self._people(upstream, days)})")
        for name in _OF_USERS:
            self._keep_users(TABLES[name], partitions.get(name, {}))
        self.right = right
        path = self.engine.folder / RECONCILED
        note = json.dumps({"made_with": self._made_with(), "right": right})
        execute(
            "COPY (FROM remembered ORDER BY ALL) TO $path "
            "(FORMAT parquet, COMPRESSION zstd, KV_METADATA {remembered: $note})",
            {"path": str(path), "note": note},
        ).fetchall()
        self.lake.storage.publish(path, RECONCILED)

    def _keep_users(self, table: Table, partitions: Partitions) -> None:
        """Remember who has readings in the partitions of a table."""
        days = self._changed(table, partitions)
        changed = {day: partitions[day] for day in days & partitions.keys()}
        self.engine.create_view(table, files_with_rows(self.lake, changed))
        self._replace(
            table.name,
            days,
            f"{PARTITION}, {_HIDDEN.format(normalised('r.user'))}, 0, 0 "
            f"FROM (SELECT DISTINCT {PARTITION}, t.user FROM {table.name} AS t) AS r",
        )

    def _replace(self, name: str, days: Collection[date], people: str) -> None:
        """Remember people of some dates, as SQL behind a SELECT, and none of them from before."""
        execute = self.engine.connection.execute
        execute(
            f"DELETE FROM remembered WHERE name = $name AND {PARTITION} IN (SELECT unnest($days))",
            {"name": name, "days": sorted(days)},
        )
        execute(
            f"INSERT INTO remembered SELECT DISTINCT $name, {people}",
            {"name": name},
        )

    def _changed_dates(self, upstream: Upstream) -> list[date]:
        """The dates on which a table that says who is let through is not as it was."""
        tables = upstream.definition.reads(Need.EVERY_DATE)
        return sorted(
            set().union(*(self._changed(table, upstream.tables[table.name]) for table in tables))
        )

    def _changed(self, table: Table, partitions: Partitions) -> set[date]:
        """The dates on which a table does not have the rows that were right."""
        known = map(date.fromisoformat, self.right.get(table.name, {}))
        return {
            day
            for day in {*partitions, *known}
            if day not in partitions
            or self._entry(table.name, day)[1] != partitions[day].content.checksum
        }

    def _people(self, upstream: Upstream, days: list[date]) -> str:
        """SQL for the people of some dates, with what stands for them in the file."""
        people = upstream.people(days)
        has_device = "serialnumber" in people.columns
        device = "serialnumber" if has_device else "NULL::VARCHAR"
        device_id = _HIDDEN.format("serialnumber") if has_device else "0::UBIGINT"
        since = "since" if "since" in people.columns else "0::BIGINT AS since"
        return (
            f"SELECT {PARTITION}, person, {device} AS serialnumber, "
            f"{_HIDDEN.format('person')} AS person_id, {device_id} AS device_id, {since} "
            f"FROM ({self.engine.sql(people)})"
        )


def _definitions(right: Mapping[str, Mapping[str, list[str]]]) -> set[str]:
    return {Stamp.read(stamp).definition for of in right.values() for _, _, stamp in of.values()}


_LAYOUT = 3
"""Of the file and of how it is kept; what was written with another one is not known here."""

_OF_USERS = sorted(
    {
        name
        for definitions in DEFINITIONS.values()
        for definition in definitions.values()
        for name, need in definition.needs.items()
        if need is Need.USERS_OF_EVERY_DATE
    }
)
_WHO = "person_id, device_id, since"
_HIDDEN = "hash(pseudonym({}))"
