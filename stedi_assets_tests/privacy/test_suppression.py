"""Whom the list keeps out: rows by their subject and time, other texts by the words in them."""

from datetime import date
from pathlib import Path

import duckdb
import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.privacy.suppression import (
    OtherKeyError,
    count_kept_out,
    hidden,
    is_erased,
    kept_out,
    mentions_erased,
)
from stedi_assets.privacy.traces import Words
from stedi_assets.tables import Source, landing_table

ANN = "ann@x.com"


@pytest.fixture
def connection(engine: DuckDBEngine) -> duckdb.DuckDBPyConnection:
    """With the list `list`: Ann, her device up to 500, and one moment of a shared one."""
    listed = [
        (hidden("person", "'ann@x.com'"), "NULL::BIGINT"),
        (hidden("device", "'Own-1'"), "500"),
        (hidden("device", "'Own-1'"), "300"),  # of an erasure before
        (hidden("device", "'Own.2'"), "500"),
        (hidden("device", "'Shared-2'"), "NULL"),
        (hidden("reading", "'Shared-2 ' || 100"), "NULL"),
    ]
    rows = " UNION ALL ".join(f"SELECT {hash} AS hash, {until} AS until" for hash, until in listed)
    engine.connection.execute(f"CREATE TABLE list AS {rows}")
    return engine.connection


@pytest.mark.parametrize(
    ("text", "is_theirs"),
    [
        (f'{{"email": "{ANN}"', True),
        (ANN.upper(), True),
        (f"mailto={ANN}!", True),
        (f"Write to {ANN}.", True),
        ('{"email": "ann\\u0040x.com"', True),
        ('{"email": "\\u0041\\u006E\\u006e@x.com"', True),
        (f'"first line\\n{ANN}\\tand more"', True),
        ('"\\ud83d\\ude00 \\u0000 ann\\u0040x.com"', True),
        ('"\\u0000ann\\u0040x.com\\u0001"', True),
        ('"\\u000aOwn-1\\u001f"', True),
        ('"\\u0001Own.2\\u001fis on loan"', True),
        (f'"\\ud83d {ANN} \\udc00"', True),
        (f"C:\\{ANN}", True),
        ("on loan: Own-1", True),
        ('{"serialNumber": "Own\\u002d1", "oops"', True),
        ("Shared-2", False),
        (f"jo{ANN}", False),
        (f"{ANN}.uk", False),
        ("Own-10", False),
        ("own-1", False),
        ("\\u", False),
        ("", False),
        (None, False),
    ],
)
def test_a_text_is_theirs_that_holds_their_email_or_their_own_device(
    connection: duckdb.DuckDBPyConnection, text: str | None, is_theirs: bool
) -> None:
    found = connection.execute(
        f"SELECT false AND {mentions_erased('t', 'list')}, {mentions_erased('t', 'list')} "
        "FROM (SELECT $text::VARCHAR AS t)",
        {"text": text},
    ).fetchone()
    assert found == (False, is_theirs)


@pytest.mark.parametrize(
    ("email", "text"),
    [
        ("o/brien@x.com", r'{"email": "o\/Brien@x.com", "oops'),
        ("\U0001f600@x.com", r'{"email": "\uD83D\ude00@x.com", "oops'),
        ("a\U0001f600b\U0001f9b6/@x.com", r'{"email": "a\ud83d\ude00b\ud83e\uddb6\/@x.com", "oops'),
    ],
)
def test_a_text_is_theirs_however_json_escapes_their_email(
    connection: duckdb.DuckDBPyConnection, email: str, text: str
) -> None:
    assert Words([email]).are_in(text)
    connection.execute(
        f"CREATE TABLE one AS SELECT {hidden('person', '$email')} AS hash, NULL::BIGINT AS until",
        {"email": email},
    )
    found = connection.execute(f"SELECT {mentions_erased('$text', 'one')}", {"text": text})
    assert found.fetchall() == [(True,)]


def test_readings_are_theirs_up_to_a_time_or_at_their_moments(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    connection.execute(
        "CREATE TABLE readings AS FROM (VALUES (100, 'Own-1'), (500, 'Own-1'), (501, 'Own-1'), "
        "(100, 'Shared-2'), (101, 'Shared-2'), (100, 'Other-3')) AS r(sensorreadingtime, "
        "serialnumber)"
    )
    table = landing_table(Source.STEP_TRAINER)
    found = connection.execute(
        f"SELECT * FROM readings WHERE {is_erased(table, 'readings', 'list')} ORDER BY ALL"
    ).fetchall()
    assert found == [(100, "Own-1"), (100, "Shared-2"), (500, "Own-1")]


@pytest.mark.parametrize("source", [Source.CUSTOMER, Source.ACCELEROMETER])
def test_records_of_an_email_are_theirs_in_any_case_and_with_blanks_around_it(
    connection: duckdb.DuckDBPyConnection, source: Source
) -> None:
    table = landing_table(source)
    name = "email" if source is Source.CUSTOMER else "user"
    emails = [ANN, " ANN@x.com\t", "bob@x.com", f"jo{ANN}", None]
    connection.execute(
        f'CREATE TABLE people AS SELECT unnest($emails) AS "{name}"', {"emails": emails}
    )
    found = connection.execute(
        f'SELECT "{name}" FROM people WHERE {is_erased(table, "people", "list")} ORDER BY ALL'
    ).fetchall()
    assert found == [(" ANN@x.com\t",), (ANN,)]


def put_part(lake: Lake, name: str, key: str, *hashes: str) -> None:
    """Put a part of the list, as an erasure does, beside a receipt."""
    folder = lake.storage.root / "erasures"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text("{}")
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT unnest($hashes) AS hash, NULL::BIGINT AS until) TO $path "
            "(FORMAT parquet, KV_METADATA {plan: 'another note', key: $key})",
            {"hashes": hashes, "path": str(folder / f"{name}.parquet"), "key": key},
        ).fetchall()


def test_the_list_is_that_of_all_erasures_each_entry_once(lake: Lake, engine: DuckDBEngine) -> None:
    assert kept_out(lake, engine) == ""
    put_part(lake, "one", engine.key_id, "a", "b")
    put_part(lake, "two", engine.key_id, "b", "c")
    found = engine.connection.execute(f"FROM {kept_out(lake, engine)} ORDER BY hash").fetchall()
    assert found == [("a", None), ("b", None), ("c", None)]


def test_a_list_that_was_made_with_another_key_is_an_error(
    lake: Lake, engine: DuckDBEngine
) -> None:
    put_part(lake, "one", engine.key_id, "a")
    for number in (1, 2):
        put_part(lake, f"other {number}", "another", "b")
        with pytest.raises(OtherKeyError, match=f"^{number} parts of the list of erased people, "):
            kept_out(lake, engine)


def test_rejects_of_the_erased_are_counted_by_date(engine: DuckDBEngine, tmp_path: Path) -> None:
    rejects: dict[date, Path] = {}
    for day, reasons in enumerate((["erased", "erased", "no JSON"], ["no JSON"]), 1):
        rejects[date(2023, 8, day)] = path = tmp_path / f"{day}.parquet"
        engine.connection.execute(
            "COPY (SELECT unnest($reasons) AS reason) TO $path (FORMAT parquet)",
            {"reasons": reasons, "path": str(path)},
        ).fetchall()
    assert count_kept_out(engine, rejects) == {date(2023, 8, 1): 2, date(2023, 8, 2): 0}
    assert count_kept_out(engine, {}) == {}
