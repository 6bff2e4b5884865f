"""What checks look at, the stored partitions of a table, and what they find.

Binds tables for SQL; what has to hold of them, `rules.py` and `privacy/rules.py` say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import DuckDBEngine, FileStatistics, normalised, quoted
from stedi_assets.lake import Lake
from stedi_assets.making import Upstream, files_with_rows, stored_partitions
from stedi_assets.privacy.policies import Policy
from stedi_assets.remembered import Remembered
from stedi_assets.tables import PARTITION, TABLES, Source, Table, landing_table


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        passed: whether all is as it should be.
        sentence: what was found, with figures.
        figures: the same figures by date.
        is_error: whether a check that did not pass is an error, not a warning.
    """

    passed: bool
    sentence: str
    figures: Mapping[date, Mapping[str, int | float]]
    is_error: bool = True


@dataclass(frozen=True)
class Stored:
    """The partitions of a table that a check looks at, and what it needs to look further."""

    lake: Lake
    engine: DuckDBEngine
    policy: Policy
    table: Table
    days: Sequence[date]

    @cached_property
    def statistics(self) -> dict[date, FileStatistics]:
        """What the footers of the partitions say; a partition that is missing is left out."""
        return self.engine.statistics(self.table, self.lake.fetch(self.table, self.days))

    @property
    def rows(self) -> dict[date, int]:
        """The number of rows by date."""
        return {
            day: self.statistics[day].rows if day in self.statistics else 0 for day in self.days
        }

    def of(self, table: Table) -> Stored:
        """The same partitions of another table."""
        return Stored(self.lake, self.engine, self.policy, table, self.days)

    def count_by_date(self, query: str, *tables: str, all_days: bool = True) -> dict[date, int]:
        """A query's (date, count) rows for the looked-at dates, 0 where it gives none.

        Args:
            query: may read the named tables.
            tables: names of registry tables.
            all_days: whether the query sees all partitions of the tables, or the looked-at ones.
        """
        for name in tables:
            self.bind(TABLES[name], None if all_days else self.days)
        found = dict(self.engine.connection.execute(query).fetchall())
        return {day: found.get(day, 0) for day in self.days}

    def bind(self, table: Table, days: Collection[date] | None = None) -> None:
        """Let SQL see a table's partitions of some dates, or of all but those that are no Parquet.

        Of damage on other dates than the looked-at ones reconciliation tells.
        """
        if days is None:
            whole = stored_partitions(self.lake, self.engine, table)
            others = self.lake.fetch(table, self.lake.partitions(table).keys() - whole.keys())
            readable = {day: others[day] for day in self.engine.notes(others)}
            files = files_with_rows(self.lake, whole) | readable
        else:
            files = self.lake.fetch(table, days)
        self.engine.create_view(table, files)

    def bind_users(self, table: Table) -> None:
        """Let SQL see who of customer_trusted has readings in any partition of a table.

        customer_trusted has to be bound.
        """
        partitions = stored_partitions(self.lake, self.engine, table)
        Remembered(self.lake, self.engine).bind_users(table, partitions)

    def count_near(self, query: str) -> dict[date, int]:
        """The same over the partitions that the looked-at ones of the table may be made from."""
        self.upstream.bind(self.days)
        return self.count_by_date(query)

    @cached_property
    def upstream(self) -> Upstream:
        """What the table's partitions may be made from."""
        definition = DEFINITIONS[self.policy][self.table.name]
        partitions = {
            name: stored_partitions(self.lake, self.engine, TABLES[name])
            for name in definition.needs
        }
        return Upstream(self.lake, self.engine, definition, partitions)

    @cached_property
    def people(self) -> str:
        """The name of a table of all people, as their latest records have them.

        Columns: person (normalised email), serialnumber, since (of the consent to research, epoch
        milliseconds; 0 is none), consents, registered (earliest of all records, epoch
        milliseconds), records (how many there are), the date on which the latest one came, and
        the pseudonyms subject_id and device_id of those who consent. Written apart from the
        definitions, which it is there to doubt.
        """
        customers = landing_table(Source.CUSTOMER)
        # Of records that tie it is a matter of convention which one counts, but it is one for all.
        ties = ", ".join(f"{quoted(name)} NULLS FIRST" for name in customers.column_names)
        self.bind(customers)
        self.engine.keep(
            "people",
            tuple(self.lake.partitions(customers).values()),
            f"""
            WITH spelled AS (
                SELECT email, {normalised("email")} AS person, max(lastupdatedate) AS newest,
                       min(registrationdate) AS registered, count(*) AS records
                FROM customer_landing GROUP BY email
            ), people AS (
                SELECT person, min(registered) AS registered, sum(records)::BIGINT AS records
                FROM spelled GROUP BY person
            ), latest AS (
                SELECT person, serialnumber, {PARTITION},
                       coalesce(sharewithresearchasofdate, 0) AS since, since <> 0 AS consents,
                       CASE WHEN consents THEN pseudonym(person) END AS subject_id,
                       CASE WHEN consents THEN pseudonym(serialnumber) END AS device_id
                FROM customer_landing JOIN spelled USING (email)
                WHERE lastupdatedate = newest
                WINDOW of_person AS (PARTITION BY person ORDER BY lastupdatedate DESC,
                    registrationdate DESC, {PARTITION} DESC, consents, {ties})
                QUALIFY row_number() OVER of_person = 1
            )
            FROM latest JOIN people USING (person)
            """,
        )
        return "people"

    @cached_property
    def texts(self) -> str:
        """The name of a table of the texts in the rows that are looked at.

        Columns: the date, the table's columns of texts, and `readings`, how many rows have them.
        Of millions of readings there are few.
        """
        name = f"{self.table.name} texts"
        self.bind(self.table, self.days)
        partitions = self.lake.partitions(self.table)
        texts = [quoted(column.name) for column in self.table.columns if column.type == "string"]
        self.engine.keep(
            name,
            tuple((day, partitions.get(day)) for day in self.days),
            f"SELECT {', '.join([PARTITION, *texts])}, count(*) AS readings "
            f"FROM {self.table.name} GROUP BY ALL",
        )
        return quoted(name)

    @property
    def consenting(self) -> str:
        """The name of a view of those of them who consent to research."""
        self.engine.connection.execute(
            f"CREATE OR REPLACE VIEW consenting AS FROM {self.people} WHERE consents"
        )
        return "consenting"
