"""Asset checks, made from the registry: what is stored, held against what it should be.

They report; what must not be published at all, `contract.py` stops before.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import dagster as dg

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.dates import days
from stedi_assets.engines.duckdb import SQL_TYPES, DuckDBEngine, FileStatistics, quoted, trimmed
from stedi_assets.lake import Lake
from stedi_assets.landing.files import files_by_date
from stedi_assets.landing.reader import count_records
from stedi_assets.making import Upstream, files_with_rows, landing_stamps, stored_partitions
from stedi_assets.partitions import DAILY
from stedi_assets.reconcile import Stale, examine
from stedi_assets.resources import landed_now
from stedi_assets.tables import (
    MOST_REJECTED,
    PARTITION,
    TABLES,
    Source,
    Table,
    Zone,
    landing_table,
    rejects_table,
)


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

    def of(self, table: Table) -> "Stored":
        """The same partitions of another table."""
        return Stored(self.lake, self.engine, table, self.days)

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
        files = self.lake.fetch(table, days)
        if days is None:
            whole = stored_partitions(self.lake, self.engine, table)
            others = {day: file for day, file in files.items() if day not in whole}
            readable = self.engine.notes(others)
            files = files_with_rows(whole) | {day: others[day] for day in readable}
        self.engine.create_view(table, files)

    def count_near(self, query: str) -> dict[date, int]:
        """The same over the partitions that the looked-at ones of the table may be made from."""
        self.upstream.bind(self.days)
        return self.count_by_date(query)

    @cached_property
    def upstream(self) -> Upstream:
        """What the table's partitions may be made from."""
        definition = DEFINITIONS[self.table.name]
        partitions = {
            name: stored_partitions(self.lake, self.engine, TABLES[name])
            for name in definition.needs
        }
        return Upstream(self.engine, definition, partitions)

    @cached_property
    def consenting(self) -> str:
        """The name of a temporary table of those who consent to research, by their latest record.

        Columns: person (normalised email), serialnumber, the date on which the record came, and
        the pseudonyms subject_id and device_id. Written apart from the definitions, which it is
        there to doubt.
        """
        customers = landing_table(Source.CUSTOMER)
        self.bind(customers)
        self.engine.keep(
            "consenting",
            tuple(self.lake.partitions(customers).values()),
            f"""
            SELECT {_PERSON.format("email")} AS person, serialnumber, {PARTITION},
                   pseudonym(person) AS subject_id, pseudonym(serialnumber) AS device_id,
                   coalesce(sharewithresearchasofdate, 0) <> 0 AS consents
            FROM customer_landing
            SEMI JOIN (SELECT email, max(lastupdatedate) AS lastupdatedate
                       FROM customer_landing GROUP BY ALL) USING (email, lastupdatedate)
            WINDOW of_person AS (PARTITION BY person ORDER BY (
                lastupdatedate, registrationdate, {PARTITION}, NOT consents) DESC)
            QUALIFY row_number() OVER of_person = 1 AND consents
            """,
        )
        return "consenting"


_PERSON = f"lower({trimmed('{}')})"


def schema(stored: Stored) -> Finding:
    """Columns and types in the stored files are the registry's."""
    expected = {column.name: SQL_TYPES[column.type] for column in stored.table.columns}
    found = stored.statistics
    wrong = {
        day: {"columns": len(found[day].types) if day in found else 0}
        for day in stored.days
        if day not in found or list(found[day].types.items()) != list(expected.items())
    }
    sentence = (
        f"{len(wrong)} of {len(stored.days)} partitions are missing or have other columns"
        if wrong
        else f"All {len(expected)} columns are as in the registry"
    )
    return Finding(not wrong, sentence, wrong)


def no_nulls(stored: Stored) -> Finding:
    """Required columns have a value in every row."""
    nulls = {
        day: {name: found.nulls.get(name, found.rows) for name in stored.table.required_names}
        for day, found in stored.statistics.items()
    }
    count = sum(sum(by_column.values()) for by_column in nulls.values())
    sentence = (
        f"{count:,} values are missing in {len(stored.table.required_names)} required columns"
    )
    return Finding(count == 0, sentence, nulls)


def unique_key(stored: Stored) -> Finding:
    """No two rows of the whole table have the same key."""
    name, key = stored.table.name, ", ".join(map(quoted, stored.table.key))
    looked_at = ", ".join(f"DATE '{day}'" for day in stored.days)
    here = f"SELECT {key} FROM {name} WHERE {PARTITION} IN ({looked_at})"
    repeated = stored.count_by_date(
        f"SELECT {PARTITION}, count(*) FROM {name} WHERE {PARTITION} IN ({looked_at}) AND ({key}) "
        f"IN (SELECT ({key}) FROM {name} WHERE ({key}) IN ({here}) GROUP BY {key} "
        "HAVING count(*) > 1) GROUP BY 1",
        name,
    )
    count = sum(repeated.values())
    return Finding(
        count == 0,
        f"{count:,} rows share their key ({', '.join(stored.table.key)}) with another row",
        {day: {"repeated": rows} for day, rows in repeated.items()},
    )


def consent(stored: Stored) -> Finding:
    """Every row belongs to people whose latest record consents to research."""
    allowed = {"email": "person", "user": "person"}
    without = " OR ".join(
        f"{value} NOT IN (SELECT {allowed.get(column, column)} FROM {stored.consenting})"
        for column in stored.table.subjects
        for value in [_PERSON.format(quoted(column)) if column in allowed else quoted(column)]
    )
    subjects = ", ".join(map(quoted, stored.table.subjects))
    counts = stored.count_by_date(
        f"SELECT {PARTITION}, sum(readings) FROM "
        f"(SELECT {PARTITION}, {subjects}, count(*) AS readings FROM {stored.table.name} "
        f"GROUP BY ALL) WHERE {without} GROUP BY 1",
        stored.table.name,
        all_days=False,
    )
    count = int(sum(counts.values()))
    return Finding(
        count == 0,
        f"{count:,} of {sum(stored.rows.values()):,} rows belong to people without consent",
        {day: {"without_consent": int(rows)} for day, rows in counts.items()},
    )


def rejects(stored: Stored) -> Finding:
    """Few of a day's records were rejected; a warning at any, an error above five per cent."""
    rows, rejected = stored.rows, stored.of(rejects_table(stored.table.source)).rows
    shares = {day: rejected[day] / max(rows[day] + rejected[day], 1) for day in stored.days}
    worst = max(shares, key=lambda day: shares[day])
    return Finding(
        not any(rejected.values()),
        f"{sum(rejected.values()):,} of {sum(rows.values()) + sum(rejected.values()):,} records "
        f"were rejected; at most {shares[worst]:.1%} of a day's, on {worst}",
        {day: {"rejects": rejected[day], "share": round(shares[day], 4)} for day in stored.days},
        is_error=shares[worst] > MOST_REJECTED,
    )


def landing_row_count(stored: Stored) -> Finding:
    """Rows and rejects together are the records in the landing files."""
    source = stored.table.source
    rows, rejected = stored.rows, stored.of(rejects_table(source)).rows
    landed = files_by_date(stored.lake, source)
    stamps = landing_stamps(
        stored.engine, source, {day: landed.get(day, []) for day in stored.days}
    )
    files = stored.lake.fetch(landing_table(source), stored.days)
    notes = stored.engine.notes(files)
    figures = {}
    for day in stored.days:
        landing_files = landed.get(day, [])
        noted = notes.get(day, {})
        if "records" in noted and noted.get("stamp") == stamps[day]:
            records = int(noted["records"])  # as the reader counted them, before it read them
        else:
            records = count_records(stored.lake.storage.fetch(f.key) for f in landing_files)
        figures[day] = {
            "rows": rows[day],
            "rejects": rejected[day],
            "records": records,
            "files": len(landing_files),
        }
    total = {
        name: sum(f[name] for f in figures.values()) for name in ("rows", "rejects", "records")
    }
    return Finding(
        all(f["rows"] + f["rejects"] == f["records"] for f in figures.values()),
        f"{total['rows']:,} rows and {total['rejects']:,} rejects of {total['records']:,} records",
        figures,
    )


def derived_row_count(stored: Stored) -> Finding:
    """No more rows than in the table that it filters, and none lost that should pass."""
    rows = stored.rows
    expected = _EXPECTED[stored.table.name](stored)
    most = stored.of(TABLES[stored.table.filters]).rows if stored.table.filters else expected
    figures = {
        day: {"rows": rows[day], "expected": expected[day], "at_most": most[day]}
        for day in stored.days
    }
    return Finding(
        all(rows[day] == expected[day] and rows[day] <= most[day] for day in stored.days),
        f"{sum(rows.values()):,} rows; {sum(expected.values()):,} should pass of "
        f"{sum(most.values()):,}",
        figures,
    )


def _trusted_customers(stored: Stored) -> dict[date, int]:
    return stored.count_by_date(f"SELECT {PARTITION}, count(*) FROM {stored.consenting} GROUP BY 1")


def _curated_customers(stored: Stored) -> dict[date, int]:
    return stored.count_by_date(
        f"SELECT {PARTITION}, count(*) FROM customer_trusted "
        f"WHERE {_PERSON.format('email')} IN (SELECT {_PERSON.format(quoted('user'))} "
        "FROM (SELECT DISTINCT user FROM accelerometer_trusted)) GROUP BY 1",
        "customer_trusted",
        "accelerometer_trusted",
    )


def _phone_readings(stored: Stored) -> dict[date, int]:
    passes = f"{_PERSON.format(quoted('user'))} IN (SELECT person FROM {stored.consenting})"
    return _each_once(stored, passes)


def _device_readings(stored: Stored) -> dict[date, int]:
    stored.bind(TABLES["customers_curated"])
    passes = (
        f"serialnumber IN (SELECT serialnumber FROM {stored.consenting} "
        "WHERE subject_id IN (SELECT subject_id FROM customers_curated))"
    )
    return _each_once(stored, passes)


def _each_once(stored: Stored, passes: str) -> dict[date, int]:
    """How many readings of the filtered table pass; repeated ones are looked for only if needed."""
    landing = stored.table.filters
    passing = stored.count_by_date(
        f"SELECT {PARTITION}, count(*) FROM {landing} WHERE {passes} GROUP BY 1",
        landing,
        all_days=False,
    )
    if passing == stored.rows:
        return passing
    columns = ", ".join(map(quoted, stored.table.column_names))
    return stored.count_near(
        f"SELECT first, count(*) FROM (SELECT min({PARTITION}) AS first FROM {landing} "
        f"WHERE {passes} GROUP BY {columns}) GROUP BY 1"
    )


def _pairs(stored: Stored) -> dict[date, int]:
    """Of readings at the same millisecond each device's goes with each phone's.

    Who is not a curated customer any more is looked for only if needed.
    """

    def pairs(where: str) -> dict[date, int]:
        return stored.count_near(
            f"SELECT greatest(d.{PARTITION}, p.{PARTITION}), count(*) "
            "FROM step_trainer_trusted AS d "
            f"JOIN accelerometer_trusted AS p ON p.timestamp = d.sensorreadingtime {where} "
            "GROUP BY 1"
        )

    of_all = pairs("")
    if of_all == stored.rows:
        return of_all
    curated = (
        f"FROM {stored.consenting} WHERE subject_id IN (SELECT subject_id FROM customers_curated)"
    )
    return pairs(
        f"WHERE d.serialnumber IN (SELECT serialnumber {curated}) "
        f"AND {_PERSON.format('p.user')} IN (SELECT person {curated})"
    )


_EXPECTED: dict[str, Callable[[Stored], dict[date, int]]] = {
    "customer_trusted": _trusted_customers,
    "accelerometer_trusted": _phone_readings,
    "customers_curated": _curated_customers,
    "step_trainer_trusted": _device_readings,
    "machine_learning_curated": _pairs,
}


def checks_of(table: Table) -> dict[str, Callable[[Stored], Finding]]:
    """The checks that a table has, by name."""
    found: dict[str, Callable[[Stored], Finding]] = {"no_nulls": no_nulls, "schema": schema}
    if table.key:
        found["unique_key"] = unique_key
    if table.zone is not Zone.LANDING:
        found |= {"row_count": derived_row_count, "consent": consent}
    elif table == landing_table(table.source):
        found |= {"row_count": landing_row_count, "rejects": rejects}
    return found


def keys_of_checks(tables: Collection[str]) -> set[dg.AssetCheckKey]:
    """The checks that look at a run's partitions of some tables."""
    return {
        dg.AssetCheckKey(dg.AssetKey(name), check)
        for name in tables
        for check in checks_of(TABLES[name])
    }


def checks_step(name: str, tables: Sequence[Table]) -> dg.AssetChecksDefinition:
    """All checks of some tables, as one step that looks at the run's partitions."""
    checks = {
        dg.AssetCheckKey(dg.AssetKey(table.name), check): (table, function)
        for table in tables
        for check, function in checks_of(table).items()
    }

    @dg.multi_asset_check(
        name=name,
        specs=[
            dg.AssetCheckSpec(
                key.name,
                asset=key.asset_key,
                description=function.__doc__,
                blocking=function is rejects,
                partitions_def=DAILY,
            )
            for key, (_, function) in checks.items()
        ],
        can_subset=True,
    )
    def check(
        context: dg.AssetCheckExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[DuckDBEngine],
    ) -> Iterator[dg.AssetCheckResult]:
        looked_at = {
            table: Stored(lake, engine, table, days(context.partition_keys)) for table in tables
        }
        for key in context.selected_asset_check_keys:
            table, function = checks[key]
            yield dg.AssetCheckResult(**_told(key, function(looked_at[table])))

    return check


def evaluations(
    lake: Lake, engine: DuckDBEngine, table: Table, dates: Sequence[date]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks of a table find in some partitions, for a run that is none of its checks'."""
    stored = Stored(lake, engine, table, dates)
    for name, function in checks_of(table).items():
        key = dg.AssetCheckKey(dg.AssetKey(table.name), name)
        partition = dates[0].isoformat() if len(dates) == 1 else None
        yield dg.AssetCheckEvaluation(**_told(key, function(stored)), partition=partition)


def _told(key: dg.AssetCheckKey, finding: Finding) -> dict[str, Any]:
    """A finding as Dagster's results and evaluations take it."""
    by_date = {day.isoformat(): dict(figures) for day, figures in finding.figures.items()}
    figures = next(iter(by_date.values())) if len(by_date) == 1 else {"by_date": by_date}
    return {
        "asset_key": key.asset_key,
        "check_name": key.name,
        "passed": finding.passed,
        "severity": dg.AssetCheckSeverity.ERROR if finding.is_error else dg.AssetCheckSeverity.WARN,
        "description": finding.sentence,
        "metadata": {"finding": finding.sentence, **figures},
    }


def up_to_date(table: Table, stale: Iterable[Stale]) -> Finding:
    """Every partition holds what the table's definition gives over everything landed."""
    found = {partition.day: partition for partition in stale if partition.table == table}
    rows = sum(p.missing + p.extra + p.changed for p in found.values())
    whys = Counter(p.reason for p in found.values())
    return Finding(
        not found,
        f"{len(found):,} partitions are not what they should be, by {rows:,} rows: "
        + ", ".join(f"{why} ({count:,})" for why, count in whys.items())
        if found
        else "Every partition holds what the definition gives",
        {
            day: {"missing": p.missing, "extra": p.extra, "changed": p.changed}
            for day, p in found.items()
        },
        is_error=any(p.held_back for p in found.values()),  # all others are put right
    )


def up_to_date_evaluations(stale: Sequence[Stale]) -> Iterator[dg.AssetCheckEvaluation]:
    """What the check `up_to_date` of every table finds, of what a reconciliation found."""
    for key in UP_TO_DATE.check_keys:
        table = TABLES[key.asset_key.to_user_string()]
        yield dg.AssetCheckEvaluation(**_told(key, up_to_date(table, stale)))


@dg.multi_asset_check(
    name="check_up_to_date",
    specs=[
        dg.AssetCheckSpec("up_to_date", asset=name, description=up_to_date.__doc__)
        for name in TABLES
    ],
    can_subset=True,
)
def UP_TO_DATE(  # noqa: N802 - one of the checks, as below
    context: dg.AssetCheckExecutionContext,
    lake: dg.ResourceParam[Lake],
    engine: dg.ResourceParam[DuckDBEngine],
) -> Iterator[dg.AssetCheckResult]:
    """Looks at all partitions of all tables at once: without partitions of its own."""
    stale = examine(lake, engine, landed_now(lake)).stale
    for key in context.selected_asset_check_keys:
        table = TABLES[key.asset_key.to_user_string()]
        yield dg.AssetCheckResult(**_told(key, up_to_date(table, stale)))


CHECKS = [
    UP_TO_DATE,
    *(
        checks_step(f"check_{source}_landing", [landing_table(source), rejects_table(source)])
        for source in Source
    ),
    *(
        checks_step(f"check_{table.name}", [table])
        for table in TABLES.values()
        if table.zone is not Zone.LANDING
    ),
]
