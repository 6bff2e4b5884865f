"""What has to hold of a table by the registry and its definition: columns, keys, how many rows.

Written apart from the definitions, which these rules are there to doubt.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import SQL_TYPES, normalised, quoted
from stedi_assets.landing.files import files_by_date
from stedi_assets.landing.reader import count_records
from stedi_assets.making import landing_stamps
from stedi_assets.privacy.policies import Policy
from stedi_assets.privacy.suppression import count_kept_out
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import (
    MOST_REJECTED,
    PARTITION,
    TABLES,
    landing_table,
    rejects_table,
)


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


def rejects(stored: Stored) -> Finding:
    """Few of a day's records were rejected; a warning at any, an error above five per cent.

    Records of people who were erased do not count.
    """
    of_rejects = stored.of(rejects_table(stored.table.source))
    rows, bad = stored.rows, of_rejects.rows
    files = of_rejects.lake.fetch(of_rejects.table, [day for day in bad if bad[day]])
    kept_out = count_kept_out(stored.engine, files)
    erased = sum(kept_out.values())
    rejected = {day: bad[day] - kept_out.get(day, 0) for day in stored.days}
    shares = {day: rejected[day] / max(rows[day] + rejected[day], 1) for day in stored.days}
    worst = max(shares, key=lambda day: shares[day])
    return Finding(
        not any(rejected.values()),
        f"{sum(rejected.values()):,} of {sum(rows.values()) + sum(rejected.values()):,} records "
        f"were rejected; at most {shares[worst]:.1%} of a day's, on {worst}"
        + (f"; {erased:,} more are of people who were erased" if erased else ""),
        {day: {"rejects": rejected[day], "share": round(shares[day], 4)} for day in stored.days},
        is_error=shares[worst] > MOST_REJECTED,
    )


def landing_row_count(stored: Stored) -> Finding:
    """Rows and rejects together are the records in the landing files.

    An error, but of dates whose files have changed since: the next run reads these.
    """
    source = stored.table.source
    rows, rejected = stored.rows, stored.of(rejects_table(source)).rows
    landed = files_by_date(stored.lake, source)
    stamps = landing_stamps(
        stored.engine, source, {day: landed.get(day, []) for day in stored.days}
    )
    files = stored.lake.fetch(landing_table(source), stored.days)
    notes = stored.engine.notes(files)
    figures = {}
    changed = set()
    for day in stored.days:
        landing_files = landed.get(day, [])
        noted = notes.get(day, {})
        if "records" in noted and noted.get("stamp") == stamps[day]:
            records = int(noted["records"])  # as the reader counted them, before it read them
        else:
            records = count_records(stored.lake.storage.fetch_all(landing_files))
            if "stamp" in noted:
                changed.add(day)
        figures[day] = {
            "rows": rows[day],
            "rejects": rejected[day],
            "records": records,
            "files": len(landing_files),
        }
    total = {
        name: sum(f[name] for f in figures.values()) for name in ("rows", "rejects", "records")
    }
    wrong = {day for day, f in figures.items() if f["rows"] + f["rejects"] != f["records"]}
    return Finding(
        not wrong,
        f"{total['rows']:,} rows and {total['rejects']:,} rejects of {total['records']:,} records"
        + (f"; files of {len(of):,} dates changed meanwhile" if (of := wrong & changed) else ""),
        figures,
        is_error=not wrong <= changed,
    )


def derived_row_count(stored: Stored) -> Finding:
    """No more rows than in the table that it filters, and none lost that should pass."""
    rows = stored.rows
    expected = _EXPECTED[stored.policy][stored.table.name](stored)
    filters = [TABLES[stored.table.filters]] if stored.table.filters else []
    # A row keeps the date of the one that it filters only where no other stream dates it as well.
    dated_by = DEFINITIONS[stored.policy][stored.table.name].dated_by
    most = stored.of(filters[0]).rows if filters == dated_by else expected
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
    stored.bind(TABLES["customer_trusted"])
    stored.bind_users(TABLES["accelerometer_trusted"])
    return stored.count_by_date(
        f"SELECT {PARTITION}, count(*) FROM customer_trusted "
        f"WHERE {normalised('email')} IN (SELECT {normalised(quoted('user'))} "
        "FROM (SELECT DISTINCT user FROM accelerometer_trusted)) GROUP BY 1"
    )


def _phone_readings(stored: Stored) -> dict[date, int]:
    passes = f"{normalised(quoted('user'))} IN (SELECT person FROM {stored.consenting})"
    return _each_once(stored, passes, _passing_texts(stored, passes))


def _device_readings(stored: Stored) -> dict[date, int]:
    stored.bind(TABLES["customers_curated"])
    passes = (
        f"serialnumber IN (SELECT serialnumber FROM {stored.consenting} "
        "WHERE subject_id IN (SELECT subject_id FROM customers_curated))"
    )
    return _each_once(stored, passes, _passing_texts(stored, passes))


def _passing_texts(stored: Stored, passes: str) -> dict[date, int]:
    """How many readings of the filtered table pass, where their texts alone say so."""
    texts = stored.of(TABLES[stored.table.filters]).texts
    return stored.count_by_date(
        f"SELECT {PARTITION}, sum(readings)::BIGINT FROM {texts} WHERE {passes} GROUP BY 1"
    )


def _each_once(stored: Stored, passes: str, passing: dict[date, int]) -> dict[date, int]:
    """Of so many readings that pass, each once; repeated ones are looked for only if needed."""
    landing = stored.table.filters
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
        f"AND {normalised('p.user')} IN (SELECT person {curated})"
    )


def _phone_readings_since_consent(stored: Stored) -> dict[date, int]:
    # The readings' user is named with its table: alone, DuckDB takes it for who is connected.
    user = normalised(f"{stored.table.filters}.{quoted('user')}")
    passes = (
        f"EXISTS (FROM {stored.consenting} AS c WHERE c.person = {user} AND c.since <= timestamp)"
    )
    passing = stored.count_by_date(
        f"SELECT {PARTITION}, count(*) FROM {stored.table.filters} WHERE {passes} GROUP BY 1",
        stored.table.filters,
        all_days=False,
    )
    return _each_once(stored, passes, passing)


def _of_one_customer(stored: Stored) -> str:
    """SQL that joins a device's and a phone's reading with the customer whose both are."""
    return f"""
        JOIN {stored.consenting} AS c
            ON c.serialnumber = d.serialnumber AND c.person = {normalised("p.user")}
            AND c.subject_id IN (SELECT subject_id FROM customers_curated)
    """


def _device_readings_with_a_phones(stored: Stored) -> dict[date, int]:
    columns = ", ".join(f"d.{quoted(name)}" for name in stored.table.column_names)
    return stored.count_near(
        f"SELECT greatest(device, phone), count(*) FROM (SELECT min(d.{PARTITION}) AS device, "
        f"min(p.{PARTITION}) AS phone FROM step_trainer_landing AS d "
        "JOIN accelerometer_trusted AS p ON p.timestamp = d.sensorreadingtime "
        f"{_of_one_customer(stored)} GROUP BY {columns}) GROUP BY 1"
    )


def _pairs_of_one_customer(stored: Stored) -> dict[date, int]:
    return stored.count_near(
        f"SELECT greatest(d.{PARTITION}, p.{PARTITION}), count(*) FROM step_trainer_trusted AS d "
        "JOIN accelerometer_trusted AS p ON p.timestamp = d.sensorreadingtime "
        f"{_of_one_customer(stored)} GROUP BY 1"
    )


_REFERENCE: dict[str, Callable[[Stored], dict[date, int]]] = {
    "customer_trusted": _trusted_customers,
    "accelerometer_trusted": _phone_readings,
    "customers_curated": _curated_customers,
    "step_trainer_trusted": _device_readings,
    "machine_learning_curated": _pairs,
}
_EXPECTED = {
    Policy.REFERENCE: _REFERENCE,
    Policy.STRICT: _REFERENCE
    | {
        "accelerometer_trusted": _phone_readings_since_consent,
        "step_trainer_trusted": _device_readings_with_a_phones,
        "machine_learning_curated": _pairs_of_one_customer,
    },
}
