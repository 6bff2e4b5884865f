"""What has to hold for people's sake: consent, and no names where none belong.

And what the sources deliver that mixes people up, of which the rules warn with figures. No figure
and no sentence names anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from stedi_assets.engines.duckdb import normalised, quoted
from stedi_assets.privacy.policies import Policy
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import PARTITION, Personal, Source, landing_table

_OLDEST = 120
"""Years: nobody has become older than that but one."""


def consent(stored: Stored) -> Finding:
    """Every row belongs to people whose latest record consents to research.

    Under the policy `strict` it is also not from before that consent.
    """
    table = stored.table
    who = {"email": "person", "user": "person"}
    from_then_on = stored.policy is Policy.STRICT and not table.restated
    in_time = f" AND since <= {quoted(table.event_time)}" if from_then_on else ""
    without = " OR ".join(
        f"NOT EXISTS (FROM {stored.consenting} AS c "
        f"WHERE c.{who.get(column, column)} = {value}{in_time})"
        for column in table.subjects
        for value in [normalised(f"r.{quoted(column)}") if column in who else f"r.{column}"]
    )
    if from_then_on:
        stored.bind(table, stored.days)
        rows, count = table.name, "count(*)"
    else:
        rows, count = stored.texts, "sum(readings)"
    counts = stored.count_by_date(
        f"SELECT {PARTITION}, {count} FROM {rows} AS r WHERE {without} GROUP BY 1"
    )
    total = int(sum(counts.values()))
    return Finding(
        total == 0,
        f"{total:,} of {sum(stored.rows.values()):,} rows belong to people without consent",
        {day: {"without_consent": int(rows)} for day, rows in counts.items()},
    )


def no_identifiers(stored: Stored) -> Finding:
    """No stored value is an email, or a phone number, name or serial number of landing.

    Searched are all texts, which must not hold one either if they are no pseudonyms, and all
    numbers that no device measured.
    """
    stored.bind(landing_table(Source.CUSTOMER))
    stored.engine.keep(
        "identifiers",
        tuple(stored.lake.partitions(landing_table(Source.CUSTOMER)).values()),
        "SELECT lower(trim(value)) AS value, "
        "try_cast(translate(value, ' +-()./', '') AS BIGINT) AS number FROM ("
        + " UNION ".join(
            f"SELECT {quoted(column.name)} AS value FROM customer_landing"
            for column in landing_table(Source.CUSTOMER).columns
            if column.personal in {Personal.NAME, Personal.CONTACT, Personal.DEVICE}
        )
        + ") WHERE length(trim(value)) >= 2",
    )
    found = dict.fromkeys(stored.days, 0)
    for column in stored.table.columns:
        name = quoted(column.name)
        if column.type == "string":
            query = (
                f"WITH texts AS (SELECT DISTINCT {name}, lower(trim({name})) AS text "
                f"FROM {stored.texts}), naming AS (SELECT {name} FROM texts "
                "WHERE text IN (SELECT value FROM identifiers) OR text LIKE '%_@_%' "
                f"UNION SELECT {name} FROM texts JOIN identifiers ON contains(text, value) "
                "WHERE NOT regexp_full_match(text, '[0-9a-f]{64}')) "
                f"SELECT {PARTITION}, sum(readings) FROM {stored.texts} "
                f"WHERE {name} IN (FROM naming) GROUP BY 1"
            )
        elif column.type != "boolean" and column.personal is not Personal.BEHAVIOUR:
            stored.bind(stored.table, stored.days)
            query = (
                f"SELECT {PARTITION}, count(*) FROM {stored.table.name} WHERE {name} IN "
                "(SELECT number FROM identifiers WHERE number >= 1_000_000) GROUP BY 1"
            )
        else:
            continue
        for day, rows in stored.count_by_date(query).items():
            found[day] += int(rows)
    count = sum(found.values())
    return Finding(
        count == 0,
        f"{count:,} values are or hold an email, a phone number, a name or a serial number",
        {day: {"identifiers": rows} for day, rows in found.items()},
    )


def same_customer(stored: Stored) -> Finding:
    """Phone and device of a pair belong to the same customer."""
    others = stored.count_by_date(
        f"SELECT {PARTITION}, count(*) FROM {stored.table.name} WHERE NOT same_customer GROUP BY 1",
        stored.table.name,
        all_days=False,
    )
    return _warning(
        "of {total:,} pairs join one person's device with another person's phone",
        others,
        stored.rows,
    )


def shared_serials(stored: Stored) -> Finding:
    """A serial number belongs to one customer, by the customers' latest records."""
    counts = _by_date(
        stored,
        f"""
        SELECT {PARTITION}, count(*), count(*) FILTER (mixed), list(serialnumber),
               list(serialnumber) FILTER (mixed)
        FROM (SELECT *, count(*) OVER w > 1 AS shared,
                     bool_or(consents) OVER w AND NOT bool_and(consents) OVER w AS mixed
              FROM {stored.people} WINDOW w AS (PARTITION BY serialnumber))
        WHERE shared GROUP BY 1
        """,
    )
    none: tuple[int, int, list[str], list[str]] = (0, 0, [], [])
    of = {day: counts.get(day, none) for day in stored.days}
    serials = {serial for _, _, found, _ in of.values() for serial in found}
    mixed = {serial for _, _, _, found in of.values() for serial in found or ()}
    return Finding(
        not serials,
        f"{len(serials):,} serial numbers are held by several customers, {len(mixed):,} of them by "
        "consenting and non-consenting ones at once; it concerns "
        f"{sum(customers for customers, *_ in of.values()):,} customers",
        {day: {"customers": c, "with_and_without_consent": m} for day, (c, m, *_) in of.items()},
        is_error=False,
    )


def repeated_emails(stored: Stored) -> Finding:
    """A person has one record; of several, the latest counts."""
    names = ("people", "superseded", "by_update", "by_registration", "by_date", "tied", "disagree")
    counts = _by_date(
        stored,
        f"""
        WITH records AS (
            SELECT *, {normalised("email")} AS person,
                   coalesce(sharewithresearchasofdate, 0) <> 0 AS consents
            FROM customer_landing
        ), ranked AS (
            SELECT *, lead(lastupdatedate) OVER w AS updated, lead(registrationdate) OVER w AS
                   registered, lead({PARTITION}) OVER w AS came, row_number() OVER w AS rank,
                   bool_or(consents) OVER p AND NOT bool_and(consents) OVER p AS disagree,
                   count(*) OVER p AS records
            FROM records SEMI JOIN (FROM {stored.people} WHERE records > 1) USING (person)
            WINDOW p AS (PARTITION BY person), w AS (PARTITION BY person ORDER BY (
                lastupdatedate, registrationdate, {PARTITION}) DESC)
        ), winners AS (
            SELECT *, lastupdatedate > updated AS by_update,
                   NOT by_update AND registrationdate > registered AS by_registration,
                   NOT by_update AND NOT by_registration AND {PARTITION} > came AS by_date
            FROM ranked WHERE rank = 1
        )
        SELECT {PARTITION}, count(*), sum(records - 1)::BIGINT, count(*) FILTER (by_update),
               count(*) FILTER (by_registration), count(*) FILTER (by_date),
               count(*) FILTER (NOT by_update AND NOT by_registration AND NOT by_date),
               count(*) FILTER (disagree)
        FROM winners GROUP BY 1
        """,
    )
    figures = {
        day: dict(zip(names, counts.get(day, (0,) * len(names)), strict=True))
        for day in stored.days
    }
    total = {name: sum(of[name] for of in figures.values()) for name in names}
    return Finding(
        not total["people"],
        "{people:,} people have several records, of which the latest counts and {superseded:,} do "
        "not: {by_update:,} times by the date of the update, {by_registration:,} of the "
        "registration, {by_date:,} of the arrival; {tied:,} times they tie. In {disagree:,} cases "
        "the records differ in consent".format_map(total),
        figures,
        is_error=False,
    )


def birthdays(stored: Stored) -> Finding:
    """A customer was born before the record came, and within the last 120 years."""
    implausible = stored.count_by_date(
        f"SELECT {PARTITION}, count(*) FROM (SELECT *, try_cast(birthday AS DATE) AS born "
        "FROM customer_landing WHERE birthday IS NOT NULL) "
        f"WHERE born IS NULL OR born > {PARTITION} "
        f"OR born < {PARTITION} - INTERVAL {_OLDEST} YEAR GROUP BY 1",
        stored.table.name,
        all_days=False,
    )
    return _warning(
        f"of {{total:,}} records have a birthday that is no date, in the future, or more than "
        f"{_OLDEST} years ago",
        implausible,
        stored.rows,
    )


def unheld_readings(stored: Stored) -> Finding:
    """A device reading is of a device that some customer holds, by the latest records."""
    unheld = stored.count_by_date(
        f"SELECT {PARTITION}, sum(readings) FROM {stored.texts} "
        f"WHERE serialnumber NOT IN (SELECT serialnumber FROM {stored.people}) GROUP BY 1"
    )
    return _warning(
        "of {total:,} readings are of devices that no customer holds", unheld, stored.rows
    )


def before_registration(stored: Stored) -> Finding:
    """A reading is not from before its customer, or who first held its device, registered."""
    table = stored.table
    (subject,) = table.subjects
    is_email = subject == "user"
    holder = "person" if is_email else "serialnumber"
    of = normalised(quoted(subject)) if is_email else quoted(subject)
    early = stored.count_by_date(
        f"WITH holders AS (SELECT {holder}, min(registered) AS registered FROM {stored.people} "
        f"GROUP BY 1), subjects AS (SELECT DISTINCT {quoted(subject)}, {of} AS {holder} "
        f"FROM {stored.texts} AS texts), since AS (SELECT s.{quoted(subject)}, registered "
        f"FROM subjects AS s JOIN holders USING ({holder})) "
        f"SELECT {PARTITION}, count(*) FROM {table.name} JOIN since USING ({quoted(subject)}) "
        f"WHERE {quoted(table.event_time)} < registered GROUP BY 1",
        table.name,
        all_days=False,
    )
    return _warning(
        "of {total:,} readings are from before the customer's registration", early, stored.rows
    )


def _by_date(stored: Stored, query: str) -> dict[date, tuple[Any, ...]]:
    """A query's rows for the looked-at dates, by the date that each begins with."""
    stored.bind(landing_table(Source.CUSTOMER))
    found = stored.engine.connection.execute(query).fetchall()
    return {day: tuple(figures) for day, *figures in found if day in stored.days}


def _warning(sentence: str, counts: Mapping[date, int], rows: Mapping[date, int]) -> Finding:
    """A warning where there are any, with their number and share."""
    count, total = int(sum(counts.values())), sum(rows.values())
    return Finding(
        count == 0,
        f"{count:,} ({count / max(total, 1):.1%}) {sentence.format(total=total)}",
        {
            day: {"rows": int(found), "share": round(found / max(rows[day], 1), 4)}
            for day, found in counts.items()
        },
        is_error=False,
    )
