"""Whom erasures keep out: a list of keyed hashes, and SQL that finds their records by it.

The list says who must not come back when a file is delivered again; it names nobody. Each erasure
adds its part, a Parquet file beside its receipt.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from stedi_assets.engines.duckdb import DuckDBEngine, file_list, file_names, normalised, quoted
from stedi_assets.lake import ERASURES, Lake
from stedi_assets.tables import Personal, Table

ERASED = "erased"
"""The reason of rejects that are kept out."""

KEY = "key"
"""The note of a part of the list that says which key of pseudonyms it was made with."""
COLUMNS = {"hash": "VARCHAR", "until": "BIGINT"}
"""Of the list: a keyed hash, and for a device that nobody else held the time, epoch milliseconds,
up to which its readings are those of the person."""


class OtherKeyError(ValueError):
    """A list that was made with another key of pseudonyms; says what to do."""


def hidden(kind: str, value: str) -> str:
    """SQL for the keyed hash of a value; another one than the pseudonym in the curated zone.

    Args:
        kind: `person` (normalised email), `device` (serial number), or `reading` (serial number
            and epoch milliseconds, with a blank between them).
        value: SQL for the value.
    """
    return f"pseudonym('{ERASED} {kind} ' || {value})"


def kept_out(lake: Lake, engine: DuckDBEngine) -> str:
    """The name of the table of all whom erasures keep out; empty if there is nobody.

    Raises:
        OtherKeyError: the list cannot be compared with anything.
    """
    files = [file for file in lake.storage.list(ERASURES) if file.key.endswith(".parquet")]
    if not files:
        return ""
    parts = file_list(lake.storage.fetch_all(files))
    columns = ", ".join(COLUMNS)
    made_from = tuple(sorted((file.key, file.version) for file in files))
    engine.keep(
        "kept out",
        made_from,
        f"SELECT DISTINCT {columns} FROM read_parquet({parts}, hive_partitioning = false)",
    )
    engine.keep(
        "keys of kept out",
        made_from,
        "SELECT file_name, decode(value) AS key_id "
        f"FROM parquet_kv_metadata({parts}) WHERE decode(key) = '{KEY}'",
    )
    ((others,),) = engine.connection.execute(
        f"SELECT count(*) FROM {quoted('keys of kept out')} WHERE key_id <> $ours",
        {"ours": engine.key_id},
    ).fetchall()
    if others:
        raise OtherKeyError(
            f"{others:,} parts of the list of erased people, in "
            f"{lake.storage.uri(ERASURES)}, were made with another pseudonym key, so nobody can "
            "say whom to keep out. Set "
            "STEDI_PSEUDONYM_KEY to that key; or, if it has to change, remove the .parquet files "
            "there and erase those people again."
        )
    return quoted("kept out")


def count_kept_out(engine: DuckDBEngine, rejects: Mapping[date, Path]) -> dict[date, int]:
    """How many rejects of some partitions are there because somebody is kept out.

    They are no fault of who delivers, and hold no date back.
    """
    if not rejects:
        return {}
    found = engine.connection.execute(
        "SELECT filename, count(*) FROM read_parquet($files, filename = true) "
        "WHERE reason = $erased GROUP BY filename",
        {"files": file_names(rejects.values()), "erased": ERASED},
    ).fetchall()
    by_file = dict(found)
    return {day: by_file.get(str(path), 0) for day, path in rejects.items()}


def is_erased(table: Table, rows: str, kept_out: str) -> str:
    """SQL for whether a row is of somebody on the list.

    Args:
        table: whose columns the rows have; a table of landing, or one that filters it.
        rows: the name of the rows' table, whose different subjects are looked up once.
        kept_out: the name of the list's table.
    """
    subject = next(
        column
        for column in table.columns
        if column.name in ("email", "user", "serialnumber") and column.required
    )
    name = f"{rows}.{quoted(subject.name)}"
    is_person = subject.personal is Personal.CONTACT
    kind, value = ("person", normalised("subject")) if is_person else ("device", "subject")
    subjects = (
        f"{name} IN (SELECT subject FROM (SELECT DISTINCT {name} AS subject FROM {rows}) "
        f"WHERE {hidden(kind, value)} IN (SELECT hash FROM {kept_out}))"
    )
    if is_person:
        return subjects
    time = f"{rows}.{quoted(table.event_time)}"
    reading = hidden("reading", f"{name} || ' ' || {time}")
    return (
        f"({subjects} AND ({time} <= (SELECT max(until) FROM {kept_out} "
        f"WHERE hash = {hidden('device', name)}) OR "
        f"{reading} IN (SELECT hash FROM {kept_out})))"
    )


def mentions_erased(text: str, kept_out: str) -> str:
    """SQL for whether a text that is no good record holds an email or a device of the list.

    Of devices those count that nobody else held: another one's broken records may be of others.
    """
    either = rf"concat_ws(' ', {text}, CASE WHEN contains({text}, '\') THEN {_unescaped(text)} END)"
    words = ", ".join(f"regexp_extract_all({either}, '{word}')" for word in _WORDS)
    is_one = " OR ".join(
        f"list_has_any(list_transform(list_concat({words}), lambda word: {hidden(kind, word)}), "
        f"(SELECT list(hash) FROM {kept_out} WHERE {counts}))"
        for kind, word, counts in (
            ("person", "lower(word)", "until IS NULL"),
            ("device", "word", "until IS NOT NULL"),
        )
    )
    return f"({is_one})"


def is_kept_out(table: Table, rows: str, kept_out: str) -> str:
    """SQL for whether a row is of somebody on the list, and so should not be there.

    Args:
        table: whose columns the rows have; as for `is_erased`, or rejects.
        rows: the name of the rows' table.
        kept_out: the name of the list's table.
    """
    if "record" in table.column_names:
        return mentions_erased("record", kept_out)
    return is_erased(table, rows, kept_out)


_WORDS = (
    r"""[^\s"'',:;<>()\[\]{}\\]+""",
    r"""[\pL\pN_.+-]+@[\pL\pN_-]+(?:\.[\pL\pN_-]+)*""",
    r"""[\pL\pN.!#$%&''*+/=?^_`{|}~-]+@[\pL\pN_-]+(?:\.[\pL\pN_-]+)*""",
    r"""[\pL\pN_-]+""",
)
"""What may be an email or a serial number: whatever stands between blanks and punctuation, and what
looks like one, whatever stands around it."""


def _unescaped(text: str) -> str:
    """SQL for a text without JSON's escapes."""
    without = rf"regexp_replace(replace({text}, '\/', '/'), '\\[^u]', ' ', 'g')"
    code = "('0x' || substr(escape, 3, 4))::INTEGER"
    half = "('0x' || substr(escape, 9, 4))::INTEGER"
    letter = (
        f"CASE WHEN length(escape) > 6 THEN chr(({code} - 55296) * 1024 + {half} - 56320 + 65536) "
        f"WHEN {code} < 32 OR {code} BETWEEN 55296 AND 57343 THEN ' ' ELSE chr({code}) END"
    )
    return (
        rf"list_reduce(list_distinct(regexp_extract_all({without}, '{_ESCAPE}')), "
        f"lambda plain, escape: replace(plain, escape, {letter}), {without})"
    )


_ESCAPE = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}"
"""Of a letter: its two halves, or all of it."""
