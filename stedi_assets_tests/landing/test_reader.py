"""Reading a day's landing files: each format, each kind of bad record, each bad file."""

import gzip
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.landing import reader
from stedi_assets.landing.reader import (
    count_records,
    read_days,
    reading_sql,
    write_without_erased,
)
from stedi_assets.privacy.suppression import hidden
from stedi_assets.resources import open_engine
from stedi_assets.tables import Source, landing_table, rejects_table

Row = tuple[Any, ...]
Content = str | bytes

PHONE = '{"user":"a@test.com","timestamp":1655564455341,"x":1.0,"y":-2,"z":0.25}'
PHONE_2 = '{"user":"b@test.com","timestamp":1655564455342,"x":0.0,"y":0.0,"z":3e2}'
PHONE_ROW = ("a@test.com", 1655564455341, 1.0, -2.0, 0.25)
PHONE_ROW_2 = ("b@test.com", 1655564455342, 0.0, 0.0, 300.0)

DEVICE = '{"sensorReadingTime":1655564172120,"serialNumber":"98ec","distanceFromObject":246}'
DEVICE_ROW = (1655564172120, "98ec", 246)

CUSTOMER = (
    '{"customerName":"Ann Lee","email":"ann@test.com","phone":"8015551212",'
    '"birthDay":"0099-01-31","serialNumber":"50f7","registrationDate":11,"lastUpdateDate":12,'
    '"shareWithResearchAsOfDate":13,"shareWithPublicAsOfDate":14,"shareWithFriendsAsOfDate":15}'
)
CUSTOMER_ROW = ("Ann Lee", "ann@test.com", "8015551212", "0099-01-31", "50f7", 11, 12, 13, 14, 15)

GOOD = {
    Source.CUSTOMER: (CUSTOMER, CUSTOMER_ROW),
    Source.ACCELEROMETER: (PHONE, PHONE_ROW),
    Source.STEP_TRAINER: (DEVICE, DEVICE_ROW),
}


DATE = date(2023, 8, 6)


def read_day(
    engine: DuckDBEngine, source: Source, files: Mapping[str, Path], stamp: str = ""
) -> tuple[Path, Path]:
    """Read the files of one date: the files with its rows and its rejects."""
    rows, rejects = read_days(engine, source, {DATE: reader.Day(files, stamp)})
    assert list(rows) == list(rejects) == [DATE]
    return rows[DATE], rejects[DATE]


class Day:
    """A day's landing files in a folder, and what the reader makes of them."""

    def __init__(self, engine: DuckDBEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder

    def write(self, files: Mapping[str, Content]) -> dict[str, Path]:
        local = {}
        for name, content in files.items():
            path = local[name] = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return local

    def read(
        self, files: Mapping[str, Content], source: Source = Source.ACCELEROMETER
    ) -> tuple[list[Row], list[Row]]:
        rows, rejects = read_day(self.engine, source, self.write(files))
        return self._rows(rows), self._rows(rejects)

    def notes(
        self, files: Mapping[str, Content], stamp: str, source: Source = Source.ACCELEROMETER
    ) -> list[dict[str, str]]:
        """What is noted in the file of the rows and in that of the rejects."""
        written = read_day(self.engine, source, self.write(files), stamp)
        noted = [self.engine.notes({DATE: path})[DATE] for path in written]
        for notes in noted:
            del notes["content"]  # which is there to be sealed
        return noted

    def _rows(self, path: Path) -> list[Row]:
        query = "SELECT * FROM read_parquet($path, hive_partitioning = false) ORDER BY ALL"
        return self.engine.connection.execute(query, {"path": str(path)}).fetchall()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    """One for all tests here: nothing of a day may be left for the next."""
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    with open_engine(lake) as opened:
        yield opened


@pytest.fixture
def day(engine: DuckDBEngine, tmp_path: Path) -> Day:
    return Day(engine, tmp_path / "files")


@pytest.fixture
def read_by_record(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read record by record."""
    names: list[str] = []

    def spy(path: Path) -> Any:
        names.append(path.name)
        return records(path)

    records = reader.records
    monkeypatch.setattr(reader, "records", spy)
    return names


@pytest.fixture
def looked_at_alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the files that were looked at by themselves."""
    keys: list[str] = []

    def spy(self: reader._DayReader, file: reader._File) -> int:
        keys.append(file.key)
        return read_alone(self, file)

    read_alone = reader._DayReader._read_alone
    monkeypatch.setattr(reader._DayReader, "_read_alone", spy)
    return keys


def pretty(*texts: str) -> str:
    return json.dumps([json.loads(text) for text in texts], indent=2)


def changed(text: str, key: str, value: str) -> str:
    """A record with another raw value of a key."""
    fields = {name: json.dumps(old) for name, old in json.loads(text).items()}
    assert key in fields
    fields[key] = value
    return "{" + ", ".join(f'"{name}": {raw}' for name, raw in fields.items()) + "}"


def without(text: str, key: str) -> str:
    fields = json.loads(text)
    del fields[key]
    return json.dumps(fields)


# --- Formats ---------------------------------------------------------------------------------

PLAIN = {
    "one object a line": f"{PHONE}\n{PHONE_2}\n",
    "a last line without an end": f"{PHONE}\n{PHONE_2}",
    "CRLF": f"{PHONE}\r\n{PHONE_2}\r\n",
    "blank lines": f"\n{PHONE}\n\n \n{PHONE_2}\n\n",
    "a byte-order mark": f"\ufeff{PHONE}\n{PHONE_2}\n",
    "an array on a line": f"[{PHONE},{PHONE_2}]",
    "an array over lines": f"[{PHONE},\n{PHONE_2}]\n",
    "a pretty-printed array": pretty(PHONE, PHONE_2),
    "one after the other without a line break": f"{PHONE}{PHONE_2}",
    "pretty-printed objects": pretty(PHONE)[1:-1] + pretty(PHONE_2)[1:-1],
}
"""What the fast path reads."""

BY_RECORD = {
    "a comma after each object": f"{PHONE},\n{PHONE_2},\n",
    "a comma after each object but the last": f"{PHONE},\n{PHONE_2}\n",
    "a comma and CRLF after each object": f"{PHONE},\r\n{PHONE_2},\r\n",
    "a byte-order mark before an array": f"\ufeff[{PHONE},{PHONE_2}]",
    "a byte-order mark where files were joined": f"{PHONE}\n\ufeff{PHONE_2}\n",
    "two objects on the second line": f"\n[{PHONE}]\n{PHONE_2}",
    "an array a line": f"[{PHONE}]\n[{PHONE_2}]\n",
    "an array that does not end": f"[{PHONE},\n{PHONE_2}\n",
    "an array without commas": f"[{PHONE}\n{PHONE_2}]",
    "an array in an array": f"[[{PHONE}], [{PHONE_2}]]",
    "pretty-printed after one on a line": f"{PHONE}\n" + pretty(PHONE_2)[1:-1],
}
"""What is read as well."""


@pytest.mark.parametrize(
    "content", [*PLAIN.values(), *BY_RECORD.values()], ids=[*PLAIN, *BY_RECORD]
)
def test_each_layout_is_read(day: Day, content: str) -> None:
    assert day.read({"a.json": content}) == ([PHONE_ROW, PHONE_ROW_2], [])


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_what_is_plain_takes_the_fast_path_only(
    day: Day, read_by_record: list[str], content: str
) -> None:
    assert day.read({"a.json": content}) == ([PHONE_ROW, PHONE_ROW_2], [])
    assert read_by_record == []


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_the_same_layout_beside_a_bad_record_is_read_likewise(day: Day, content: str) -> None:
    rows, rejects = day.read({"a.json": content + "\noops"})
    assert rows == [PHONE_ROW, PHONE_ROW_2]
    assert [(reason, record) for _, _, reason, record in rejects] == [("not valid JSON", "oops")]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd.compress,
    ".GZ": gzip.compress,
}


@pytest.mark.parametrize("extension", [".json", ".jsonl", ".ndjson", ".JSON"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_each_extension_and_compression_is_read(
    day: Day, read_by_record: list[str], extension: str, compression: str
) -> None:
    name = f"a{extension}{compression}"
    content = COMPRESSIONS[compression](f"{PHONE}\n{PHONE_2}\n".encode())
    assert day.read({name: content}) == ([PHONE_ROW, PHONE_ROW_2], [])
    assert read_by_record == []


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_bad_records_of_compressed_files_are_found(day: Day, compression: str) -> None:
    content = COMPRESSIONS[compression](f"{PHONE},\noops\n".encode())
    name = f"a.json{compression}"
    assert day.read({name: content}) == ([PHONE_ROW], [(name, 2, "not valid JSON", "oops")])


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_a_file_that_was_compressed_in_parts_is_read_whole(day: Day, compression: str) -> None:
    compress = COMPRESSIONS[compression]
    content = compress(f"{PHONE}\n".encode()) + compress(f"{PHONE_2}\n".encode())
    assert day.read({f"a.json{compression}": content}) == ([PHONE_ROW, PHONE_ROW_2], [])


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "[]", "[\n]\n"])
def test_a_file_without_records_has_neither_rows_nor_rejects(day: Day, content: str) -> None:
    assert day.read({"a.json": content}) == ([], [])


def test_a_day_without_files_has_neither_rows_nor_rejects(day: Day) -> None:
    assert day.read({}) == ([], [])


def test_files_of_different_layouts_are_read_at_once(day: Day, read_by_record: list[str]) -> None:
    files = {f"{number}.json": content for number, content in enumerate(PLAIN.values())}
    rows, rejects = day.read({**files, "empty.json": "", "empty.json.gz": gzip.compress(b"")})
    assert rows == [PHONE_ROW] * len(PLAIN) + [PHONE_ROW_2] * len(PLAIN)
    assert rejects == []
    assert read_by_record == []


@pytest.mark.parametrize("source", Source)
def test_the_written_files_have_the_registrys_columns(day: Day, source: Source) -> None:
    text, row = GOOD[source]
    for content in (text, f"{text},\n5\n"):
        files = day.write({"a.json": content})
        for table, path in zip(
            (landing_table(source), rejects_table(source)),
            read_day(day.engine, source, files),
            strict=True,
        ):
            found = day.engine.connection.execute(
                "DESCRIBE FROM read_parquet($path, hive_partitioning = false)", {"path": str(path)}
            ).fetchall()
            types = {"BIGINT": "int64", "INTEGER": "int32", "DOUBLE": "float64"}
            assert [(name, types.get(kind, "string")) for name, kind, *_ in found] == [
                (column.name, column.type) for column in table.columns
            ]
    assert day.read({"a.json": text}, source) == ([row], [])


# --- Values ----------------------------------------------------------------------------------

BOTH_WAYS = pytest.mark.parametrize(
    "neighbour", ["", "\noops\n"], ids=["alone", "beside a bad record"]
)
"""The fast path and the reading by record give the same."""


@BOTH_WAYS
@pytest.mark.parametrize(
    ("text", "row"),
    [
        (without(CUSTOMER, "shareWithResearchAsOfDate"), {7: None}),
        (changed(CUSTOMER, "shareWithResearchAsOfDate", "null"), {7: None}),
        (changed(CUSTOMER, "shareWithResearchAsOfDate", "0"), {7: 0}),
        (
            CUSTOMER.replace("shareWithResearchAsOfDate", "sharewithresearchasofdate"),
            {},
        ),
        (CUSTOMER.lower().replace("ann lee", "Ann Lee"), {}),
        (CUSTOMER.replace('"phone"', '"PHONE"'), {}),
        (changed(CUSTOMER, "phone", "null").replace('"phone"', '"PHONE"'), {2: None}),
        (without(without(CUSTOMER, "customerName"), "phone"), {0: None, 2: None}),
        (changed(CUSTOMER, "customerName", "null"), {0: None}),
        (changed(CUSTOMER, "birthDay", "null"), {3: None}),
        (changed(CUSTOMER, "phone", '""'), {2: ""}),
        (changed(CUSTOMER, "phone", '"  "'), {2: "  "}),
        (changed(CUSTOMER, "phone", '"null"'), {2: "null"}),
        (changed(CUSTOMER, "birthDay", '"yesterday"'), {3: "yesterday"}),
        (
            changed(CUSTOMER, "customerName", r'"\u00e9\"\\\/\b\n\t\ud83d\ude00"'),
            {0: 'é"\\/\b\n\t😀'},
        ),
        (changed(CUSTOMER, "customerName", "\"Åsa, {'x'}: [😀] \""), {0: "Åsa, {'x'}: [😀] "}),
        (changed(CUSTOMER, "customerName", r'"a\u0000b"'), {0: "a\0b"}),
        (changed(CUSTOMER, "email", '"  Ann@Test.com "'), {1: "  Ann@Test.com "}),
        (changed(CUSTOMER, "email", '" v"'), {1: " v"}),
        (changed(CUSTOMER, "email", '"!"'), {1: "!"}),
        (changed(CUSTOMER, "registrationDate", "9223372036854775807"), {5: 2**63 - 1}),
        (changed(CUSTOMER, "registrationDate", "-9223372036854775808"), {5: -(2**63)}),
        (changed(CUSTOMER, "registrationDate", "-0"), {5: 0}),
    ],
    ids=[
        "no consent field",
        "a null consent",
        "consent of 0",
        "the consent's key in lower case",
        "all keys in lower case",
        "an optional key in upper case",
        "an optional key in upper case, and null",
        "two optional fields missing",
        "a null name",
        "a null birthday",
        "an empty optional string",
        "a blank optional string",
        "the string null",
        "a birthday that is no date",
        "escapes",
        "unicode and punctuation",
        "a NUL in a string",
        "blanks around an email are kept",
        "an email of a blank and the letter v",
        "an email of an exclamation mark",
        "the greatest integer",
        "the least integer",
        "minus zero",
    ],
)
def test_a_customer_record_is_taken_as_it_is(
    day: Day, text: str, row: dict[int, Any], neighbour: str
) -> None:
    expected = tuple(row.get(place, value) for place, value in enumerate(CUSTOMER_ROW))
    rows, rejects = day.read({"a.json": text + neighbour}, Source.CUSTOMER)
    assert rows == [expected]
    assert len(rejects) == bool(neighbour)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("text", "row"),
    [
        (PHONE.replace("timestamp", "timeStamp"), PHONE_ROW),
        (PHONE.replace("timestamp", r"time\u0073tamp"), PHONE_ROW),
        (PHONE.replace('"user"', '"USER"').replace('"x"', '"X"'), PHONE_ROW),
        (PHONE[:-1] + ',"Timestamp":7}', PHONE_ROW),
        ('{"TIMESTAMP":7,' + PHONE[1:], PHONE_ROW),
        ('{"TIMESTAMP":7,"Timestamp":8,' + PHONE[1:], PHONE_ROW),
        ('{"User":null,' + PHONE[1:], PHONE_ROW),
        (PHONE[:-1] + ',"extra":{"user":[1,{"x":"}"}]},"":null}', PHONE_ROW),
        (PHONE[:-1] + ',"extra":1,"extra":2}', PHONE_ROW),
        (PHONE[:-1] + ',"extra":NaN,"more":-Infinity}', PHONE_ROW),
        (PHONE[:-1] + ',"extra":' + "9" * 10_000 + "}", PHONE_ROW),
        (PHONE[:-1] + ',"extra":' + "[" * 100_000 + "]" * 100_000 + "}", PHONE_ROW),
        (PHONE[:-1] + ",}", PHONE_ROW),
        (PHONE.replace(',"x"', ',\n"x"')[:-1] + ",\n}", PHONE_ROW),
        (PHONE.replace(',"x"', ',\n"x"')[:-1] + ',"extra":nan}', PHONE_ROW),
        (changed(PHONE, "x", "-0"), ("a@test.com", 1655564455341, 0.0, -2.0, 0.25)),
        (changed(PHONE, "x", "1E+2"), ("a@test.com", 1655564455341, 100.0, -2.0, 0.25)),
        (changed(PHONE, "x", "1" + "0" * 30), ("a@test.com", 1655564455341, 1e30, -2.0, 0.25)),
        (
            changed(PHONE, "x", "0.1000000000000000055511151231257827"),
            ("a@test.com", 1655564455341, 0.1, -2.0, 0.25),
        ),
        (changed(PHONE, "user", '"\u00a0"'), ("\u00a0", 1655564455341, 1.0, -2.0, 0.25)),
    ],
    ids=[
        "timeStamp",
        "an escape in a key",
        "keys in upper case",
        "the own spelling before another",
        "the own spelling after another",
        "the own spelling after two others",
        "the own spelling beside a null",
        "unknown keys",
        "an unknown key twice",
        "NaN in an unknown key",
        "10,000 digits in an unknown key",
        "100,000 brackets in an unknown key",
        "a comma at the end",
        "a comma at the end, over lines",
        "nan in an unknown key, over lines",
        "minus zero",
        "an exponent in a number",
        "a whole number beyond 64 bits as a number",
        "more digits than a double has",
        "a user of a no-break space",
    ],
)
def test_a_phone_record_is_taken_as_it_is(day: Day, text: str, row: Row, neighbour: str) -> None:
    rows, rejects = day.read({"a.json": text + neighbour})
    assert rows == [row]
    assert len(rejects) == bool(neighbour)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("text", "row"),
    [
        (DEVICE, DEVICE_ROW),
        (DEVICE.replace("serialNumber", "serialnumber"), DEVICE_ROW),
        (changed(DEVICE, "distanceFromObject", "2147483647"), (1655564172120, "98ec", 2**31 - 1)),
        (changed(DEVICE, "distanceFromObject", "-2147483648"), (1655564172120, "98ec", -(2**31))),
    ],
    ids=["a good one", "serialnumber", "the greatest distance", "the least distance"],
)
def test_a_device_record_is_taken_as_it_is(day: Day, text: str, row: Row, neighbour: str) -> None:
    rows, rejects = day.read({"a.json": text + neighbour}, Source.STEP_TRAINER)
    assert rows == [row]
    assert len(rejects) == bool(neighbour)


@pytest.mark.parametrize("other", ["SERIALNUMBER", "SerialNumber"])
def test_records_that_spell_a_key_differently_are_read_from_one_file(day: Day, other: str) -> None:
    lines = [DEVICE, DEVICE.replace("serialNumber", other), DEVICE]
    assert day.read({"a.json": "\n".join(lines)}, Source.STEP_TRAINER) == ([DEVICE_ROW] * 3, [])


def test_a_lower_case_consent_is_not_lost_among_files_that_spell_it_as_usual(day: Day) -> None:
    lower = CUSTOMER.replace("shareWithResearchAsOfDate", "sharewithresearchasofdate")
    files = {"a.json": f"{CUSTOMER}\n", "b.json": f"{lower}\n", "c.json": f"{CUSTOMER}\n{lower}\n"}
    assert day.read(files, Source.CUSTOMER) == ([CUSTOMER_ROW] * 4, [])


# --- Bad records -----------------------------------------------------------------------------

BAD_PHONE = {
    "garbage": ("this is not JSON", "not valid JSON"),
    "truncated": (PHONE[:-9], "not valid JSON"),
    "a value is missing": ('{"user": , "timestamp": 1}', "not valid JSON"),
    "single quotes": (PHONE.replace('"', "'"), "not valid JSON"),
    "a leading zero": (changed(PHONE, "timestamp", "01"), "not valid JSON"),
    "half a surrogate pair": (changed(PHONE, "user", r'"\ud800"'), "not valid JSON"),
    "a raw tab in a string": (changed(PHONE, "user", '"a\tb"'), "not valid JSON"),
    "a number": ("5", "not a JSON object"),
    "a string": ('"user"', "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "an empty object": ("{}", "user is missing"),
    "records inside an object": (f'{{"records": [{PHONE}]}}', "user is missing"),
    "a missing user": (without(PHONE, "user"), "user is missing"),
    "a missing time": (without(PHONE, "timestamp"), "timestamp is missing"),
    "a missing z": (without(PHONE, "z"), "z is missing"),
    "a null user": (changed(PHONE, "user", "null"), "user is missing"),
    "a null user beside another": (
        changed(PHONE, "user", "null")[:-1] + ',"User":"a"}',
        "user is missing",
    ),
    "a null time": (changed(PHONE, "timestamp", "null"), "timestamp is missing"),
    "an empty user": (changed(PHONE, "user", '""'), "user is blank"),
    "a user of spaces": (changed(PHONE, "user", '"   "'), "user is blank"),
    "a user of tabs": (changed(PHONE, "user", r'" \t\t"'), "user is blank"),
    "a user of other blanks": (changed(PHONE, "user", r'"\r\n\f\u000b"'), "user is blank"),
    "a user that is a number": (changed(PHONE, "user", "5"), "user is not a valid string"),
    "a user that is true": (changed(PHONE, "user", "true"), "user is not a valid string"),
    "a user that is an object": (changed(PHONE, "user", '{"a": 1}'), "user is not a valid string"),
    "a user that is an array": (changed(PHONE, "user", '["a"]'), "user is not a valid string"),
    **{
        f"a time of {name}": (changed(PHONE, "timestamp", value), "timestamp is not a valid int64")
        for name, value in {
            "12.7": "12.7",
            "12.0": "12.0",
            "1e3": "1e3",
            "1E3": "1E3",
            "true": "true",
            "false": "false",
            "a string": '"123"',
            "NaN": "NaN",
            "Infinity": "Infinity",
            "-Infinity": "-Infinity",
            "65 bits": "9223372036854775808",
            "65 bits below zero": "-9223372036854775809",
            "66 bits": "18446744073709551616",
            "10,000 digits": "9" * 10_000,
            "an array": "[1]",
            "an object": "{}",
            "an empty string": '""',
        }.items()
    },
    **{
        f"an x of {name}": (changed(PHONE, "x", value), "x is not a valid float64")
        for name, value in {
            "a string": '"1.0"',
            "true": "true",
            "NaN": "NaN",
            "Infinity": "Infinity",
            "-Infinity": "-Infinity",
            "more than a double": "1e400",
            "10,000 digits": "9" * 10_000,
            "an array": "[1.0]",
        }.items()
    },
    "a time twice": (
        PHONE[:-1] + ',"timestamp":1655564455341}',
        "timestamp is given more than once",
    ),
    "a user twice, the first null": ('{"user":null,' + PHONE[1:], "user is given more than once"),
    "a time in two other spellings": (
        '{"TIMESTAMP":1,' + PHONE.replace("timestamp", "Timestamp")[1:],
        "timestamp is given more than once",
    ),
    "a time twice in another spelling": (
        '{"TIMESTAMP":1,' + PHONE.replace("timestamp", "TIMESTAMP")[1:],
        "timestamp is given more than once",
    ),
    "a time twice by an escape": (
        PHONE[:-1] + r',"time\u0073tamp":1}',
        "timestamp is given more than once",
    ),
}
BAD_CUSTOMER = {
    **{
        f"no {key}": (without(CUSTOMER, key), f"{key.lower()} is missing")
        for key in ("email", "serialNumber", "registrationDate", "lastUpdateDate")
    },
    "a blank email": (changed(CUSTOMER, "email", '" "'), "email is blank"),
    "an empty serial number": (changed(CUSTOMER, "serialNumber", '""'), "serialnumber is blank"),
    "a phone that is a number": (
        changed(CUSTOMER, "phone", "8015551212"),
        "phone is not a valid string",
    ),
    "a consent that is a string": (
        changed(CUSTOMER, "shareWithResearchAsOfDate", '"13"'),
        "sharewithresearchasofdate is not a valid int64",
    ),
    "a consent that is a fraction": (
        changed(CUSTOMER, "shareWithFriendsAsOfDate", "15.0"),
        "sharewithfriendsasofdate is not a valid int64",
    ),
    "a lower-case consent that is true": (
        changed(CUSTOMER, "shareWithResearchAsOfDate", "true").lower(),
        "sharewithresearchasofdate is not a valid int64",
    ),
    "a consent twice": (
        CUSTOMER[:-1] + ',"shareWithResearchAsOfDate":0}',
        "sharewithresearchasofdate is given more than once",
    ),
    "an optional field twice in upper case": (
        CUSTOMER.replace('"phone"', '"PHONE"')[:-1] + ',"PHONE":"1"}',
        "phone is given more than once",
    ),
    "the first of two faults is named": (
        changed(changed(CUSTOMER, "serialNumber", "5"), "email", '""'),
        "email is blank",
    ),
}
BAD_DEVICE = {
    "a blank serial number": (changed(DEVICE, "serialNumber", '"\\t"'), "serialnumber is blank"),
    "a null serial number": (changed(DEVICE, "serialNumber", "null"), "serialnumber is missing"),
    "no distance": (without(DEVICE, "distanceFromObject"), "distancefromobject is missing"),
    **{
        f"a distance of {name}": (
            changed(DEVICE, "distanceFromObject", value),
            "distancefromobject is not a valid int32",
        )
        for name, value in {
            "33 bits": "2147483648",
            "33 bits below zero": "-2147483649",
            "65 bits": "9223372036854775808",
            "12.7": "12.7",
            "true": "true",
            "a string": '"246"',
        }.items()
    },
}
BAD = [
    pytest.param(source, text, reason, id=f"{source}: {name}")
    for source, kinds in (
        (Source.ACCELEROMETER, BAD_PHONE),
        (Source.CUSTOMER, BAD_CUSTOMER),
        (Source.STEP_TRAINER, BAD_DEVICE),
    )
    for name, (text, reason) in kinds.items()
]


@pytest.mark.parametrize(("source", "text", "reason"), BAD)
def test_a_bad_record_is_rejected_and_its_neighbours_are_read(
    day: Day, source: Source, text: str, reason: str
) -> None:
    good, row = GOOD[source]
    assert day.read({"a.json": f"{good}\n\n{text}\n{good}\n"}, source) == (
        [row, row],
        [("a.json", 3, reason, text)],
    )


@pytest.mark.parametrize(("source", "text", "reason"), BAD)
def test_a_bad_record_alone_is_rejected(day: Day, source: Source, text: str, reason: str) -> None:
    assert day.read({"a.json": text}, source) == ([], [("a.json", 1, reason, text)])


def test_a_bad_record_in_an_array_on_a_line_leaves_the_others(day: Day) -> None:
    bad = '{"user": , "timestamp": 1}'
    assert day.read({"a.json": f"[{PHONE}, {bad}, {PHONE_2}]"}) == (
        [PHONE_ROW, PHONE_ROW_2],
        [("a.json", 1, "not valid JSON", bad)],
    )


def test_a_bad_record_in_a_pretty_printed_array_leaves_the_others(day: Day) -> None:
    bad = json.dumps(json.loads(changed(PHONE, "timestamp", "true")), indent=2)
    content = f"[\n{pretty(PHONE)[2:-2]},\n{bad},\n{pretty(PHONE_2)[2:-2]}\n]\n"
    # Each of the objects takes seven lines: five fields between two brackets.
    assert day.read({"a.json": content}) == (
        [PHONE_ROW, PHONE_ROW_2],
        [("a.json", 9, "timestamp is not a valid int64", bad)],
    )


def test_a_truncated_first_line_leaves_the_others(day: Day) -> None:
    assert day.read({"a.json": f"{PHONE[:30]}\n{PHONE}\n{PHONE_2}\n"}) == (
        [PHONE_ROW, PHONE_ROW_2],
        [("a.json", 1, "not valid JSON", PHONE[:30])],
    )


def test_the_comma_after_a_bad_record_is_not_of_it(day: Day) -> None:
    bad = without(PHONE, "x")
    assert day.read({"a.json": f"{PHONE},\r\n{bad},\r\n"}) == (
        [PHONE_ROW],
        [("a.json", 2, "x is missing", bad)],
    )


def test_more_records_than_one_batch_are_judged_alike(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH", 2)
    content = f"{PHONE}\n{PHONE_2}\n5\n{PHONE}\n6\n"
    assert day.read({"a.json": content}) == (
        [PHONE_ROW, PHONE_ROW, PHONE_ROW_2],
        [
            ("a.json", 3, "not a JSON object", "5"),
            ("a.json", 5, "not a JSON object", "6"),
        ],
    )


# --- Bad files -------------------------------------------------------------------------------

LINES = f"{PHONE}\n{PHONE_2}\n".encode()
CHECKED = zstd.compress(LINES, options={zstd.CompressionParameter.checksum_flag: 1})
CUT_SHORT = (
    "the file cannot be decompressed: "
    "Compressed file ended before the end-of-stream marker was reached"
)

BAD_FILES = {
    "truncated gzip": ("bad.json.gz", gzip.compress(LINES)[:-12], CUT_SHORT),
    "gzip without its checksum": ("bad.json.gz", gzip.compress(LINES)[:-8], CUT_SHORT),
    "nothing of gzip": (
        "bad.json.gz",
        b"",
        "the file cannot be decompressed: Compressed file is empty",
    ),
    "truncated zstd": ("bad.json.zst", zstd.compress(LINES)[:-3], CUT_SHORT),
    "nothing of zstd": ("bad.json.zst", b"", CUT_SHORT),
    "a truncated second part of zstd": (
        "bad.json.zst",
        zstd.compress(LINES) + zstd.compress(LINES)[:-3],
        CUT_SHORT,
    ),
    "damaged gzip checksum": (
        "bad.json.gz",
        gzip.compress(LINES)[:-8] + b"\1\2\3\4" + gzip.compress(LINES)[-4:],
        "the file cannot be decompressed: CRC check failed",
    ),
    "damaged zstd checksum": (
        "bad.json.zst",
        CHECKED[:-4] + bytes(byte ^ 255 for byte in CHECKED[-4:]),
        "the file cannot be decompressed: ",
    ),
    "garbage behind gzip": (
        "bad.json.gz",
        gzip.compress(LINES) + b"junk",
        "the file cannot be decompressed: Not a gzipped file",
    ),
    "no gzip": ("bad.json.gz", LINES, "the file cannot be decompressed: Not a gzipped file"),
    "no zstd": ("bad.json.zst", LINES, "the file cannot be decompressed: "),
    "gzip that does not say so": (
        "bad.json",
        gzip.compress(LINES, mtime=0),
        "the file is binary, not text",
    ),
    "binary": ("bad.json", bytes(range(256)), "the file is binary, not text"),
    "NULs at its end": ("bad.json", LINES + bytes(512), "the file is binary, not text"),
    "not UTF-8": ("bad.json", LINES + b'{"user": "\xff"}', "the file is not UTF-8 text"),
    "not UTF-8 in an unknown key": (
        "bad.json",
        PHONE[:-1].encode() + b',"extra":"\xe9"}\n',
        "the file is not UTF-8 text",
    ),
    "not UTF-8 when decompressed": (
        "bad.json.gz",
        gzip.compress(LINES + b"\xff"),
        "the file is not UTF-8 text",
    ),
    "UTF-16": ("bad.json", LINES.decode().encode("utf-16"), "the file is binary, not text"),
    **{
        f"the name {name}": (
            name,
            LINES,
            "the name does not end in .json, .jsonl, .ndjson (.gz, .zst)",
        )
        for name in ("bad.txt", "bad", "bad.csv.gz", "bad.json.bz2", "bad.gz", "bad.parquet")
    },
}


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_cannot_be_read_is_one_reject_and_the_others_go_on(
    day: Day, read_by_record: list[str], name: str, content: bytes, reason: str
) -> None:
    rows, rejects = day.read({"a.json": f"{PHONE}\n", name: content, "z.json": f"{PHONE_2}\n"})
    assert rows == [PHONE_ROW, PHONE_ROW_2]
    ((file, line, why, record),) = rejects
    assert (file, line, record) == (name, None, None)
    assert why.startswith(reason)
    assert set(read_by_record) <= {name}  # never a good file


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_cannot_be_read_counts_as_one(
    day: Day, name: str, content: bytes, reason: str
) -> None:
    files = list(day.write({"a.json": LINES, name: content}).values())
    assert count_records(files) == 3


def test_what_came_before_the_damage_does_not_land(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH", 1)
    content = LINES + b"oops\n" + b" " * 20_000 + b"\xff"
    assert day.read({"a.json": content}) == (
        [],
        [("a.json", None, "the file is not UTF-8 text", None)],
    )


def test_an_error_of_the_disk_in_the_middle_of_a_file_leaves_nothing_of_it(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> Iterator[tuple[int, str]]:
        yield from records(path)
        raise OSError("the disk is gone")

    records = reader.records
    with monkeypatch.context() as patch:
        patch.setattr(reader, "records", fail)
        patch.setattr(reader, "BATCH", 1)
        with pytest.raises(OSError, match="the disk is gone"):
            day.read({"a.json": f"{PHONE}\noops\n"})
    assert (
        day.engine.connection.execute("FROM landed UNION ALL BY NAME FROM rejected").fetchall()
        == []
    )
    assert day.read({"b.json": f"{PHONE_2}\noops\n"}) == (
        [PHONE_ROW_2],
        [("b.json", 2, "not valid JSON", "oops")],
    )


def test_in_a_day_with_one_bad_file_only_that_one_is_read_by_record(
    day: Day, read_by_record: list[str]
) -> None:
    files: dict[str, Content] = {f"{number}.json": LINES for number in range(9)}
    rows, rejects = day.read({**files, "5.json": f"{PHONE}\noops\n"})
    assert rows == [PHONE_ROW] * 9 + [PHONE_ROW_2] * 8
    assert rejects == [("5.json", 2, "not valid JSON", "oops")]
    assert read_by_record == ["5.json"]


def test_a_file_with_its_own_key_spelling_is_not_read_by_record(
    day: Day, read_by_record: list[str]
) -> None:
    other = PHONE.replace("timestamp", "timeStamp")
    rows, rejects = day.read({"a.json": PHONE, "b.json": f"{other}\n{other}\n"})
    assert (rows, rejects) == ([PHONE_ROW] * 3, [])
    assert read_by_record == []


def test_a_file_that_is_gone_is_an_error_and_no_reject(day: Day) -> None:
    files = day.write({"a.json": LINES, "b.json": LINES})
    files["b.json"].unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.json"):
        read_day(day.engine, Source.ACCELEROMETER, files)


def test_one_day_is_read_after_another(day: Day) -> None:
    first = day.read({"a.json": f"{PHONE}\noops\n"})
    assert day.read({"b.json": f"{PHONE_2}\n5\n"}) == (
        [PHONE_ROW_2],
        [("b.json", 2, "not a JSON object", "5")],
    )
    assert day.read({"a.json": f"{PHONE}\noops\n"}) == first


# --- Several dates, and what is noted --------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "records", "rejects"),
    [
        ({}, "0", {}),
        ({"a.json": f"{PHONE}\n{PHONE_2}\n", "b.json": PHONE}, "3", {}),
        ({"a.json": ""}, "0", {}),
        ({"a.json": f"{PHONE}\noops\n", "b.json": PHONE}, "3", {"records": "3"}),
        ({"a.json": f"[{PHONE},{PHONE_2}]"}, "2", {"records": "2"}),
        ({"a.json": f"{PHONE}\n", "bad.txt": "x"}, "2", {"records": "2"}),
    ],
    ids=["no file", "good lines", "an empty file", "a bad record", "an array", "a bad file"],
)
def test_stamp_and_number_of_records_are_noted_in_what_is_written(
    day: Day, files: Mapping[str, Content], records: str, rejects: dict[str, str]
) -> None:
    assert day.notes(files, "it's a stamp") == [
        {"stamp": "it's a stamp", "records": records},
        {"stamp": "it's a stamp"} | rejects,
    ]


def test_of_several_dates_each_has_its_own_rows_rejects_and_notes(day: Day) -> None:
    files = {
        date(2023, 8, 9): day.write({"9/a.json": f"{PHONE}\noops\n"}),
        date(2023, 8, 6): day.write({"6/a.json": f"{PHONE}\n", "6/b.json": f"[{PHONE_2}]"}),
        date(2023, 8, 7): {},
        date(2023, 8, 8): day.write({"8/a.json": f"5\n{PHONE_2}\n", "8/b.txt": ""}),
        date(2023, 8, 5): day.write({"5/a.json": f"{PHONE_2}\n"}),
    }
    wanted = {one: reader.Day(of, f"of {one}") for one, of in files.items()}
    rows, rejects = read_days(day.engine, Source.ACCELEROMETER, wanted)
    assert {one: day._rows(path) for one, path in rows.items()} == {
        date(2023, 8, 5): [PHONE_ROW_2],
        date(2023, 8, 6): [PHONE_ROW, PHONE_ROW_2],
        date(2023, 8, 7): [],
        date(2023, 8, 8): [PHONE_ROW_2],
        date(2023, 8, 9): [PHONE_ROW],
    }
    assert {one: day._rows(path) for one, path in rejects.items()} == {
        date(2023, 8, 5): [],
        date(2023, 8, 6): [],
        date(2023, 8, 7): [],
        date(2023, 8, 8): [
            ("8/a.json", 1, "not a JSON object", "5"),
            (
                "8/b.txt",
                None,
                "the name does not end in .json, .jsonl, .ndjson (.gz, .zst)",
                None,
            ),
        ],
        date(2023, 8, 9): [("9/a.json", 2, "not valid JSON", "oops")],
    }
    for written in (rows, rejects):
        stamps = {one: notes["stamp"] for one, notes in day.engine.notes(written).items()}
        assert stamps == {one: f"of {one}" for one in files}
        for one, path in written.items():
            assert path.parent.name == f"ingestion_date={one}"
    records = {one: notes["records"] for one, notes in day.engine.notes(rows).items()}
    assert records == {
        date(2023, 8, 5): "1",
        date(2023, 8, 6): "2",
        date(2023, 8, 7): "0",
        date(2023, 8, 8): "3",
        date(2023, 8, 9): "2",
    }


def test_many_dates_at_once_are_read_like_one_by_one(day: Day) -> None:
    """Several are read at the same time: none may get the rows of another."""
    dates = [date.fromordinal(date(2023, 1, 1).toordinal() + number) for number in range(60)]
    files = {
        one: day.write({f"{one}.json": changed(PHONE, "timestamp", str(one.toordinal())) + "\n"})
        for one in dates
    }
    wanted = {one: reader.Day(of, "") for one, of in files.items()}
    rows, rejects = read_days(day.engine, Source.ACCELEROMETER, wanted)
    assert {one: [row[1] for row in day._rows(path)] for one, path in rows.items()} == {
        one: [one.toordinal()] for one in dates
    }
    assert [one for one, path in rejects.items() if day._rows(path)] == []


def test_no_dates_are_no_files(day: Day) -> None:
    assert read_days(day.engine, Source.ACCELEROMETER, {}) == ({}, {})


def test_a_file_of_one_of_several_dates_that_is_gone_is_an_error(day: Day) -> None:
    files = {DATE: day.write({"a.json": LINES}), date(2023, 8, 7): day.write({"b.json": LINES})}
    files[DATE]["a.json"].unlink()
    wanted = {one: reader.Day(of, "") for one, of in files.items()}
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        read_days(day.engine, Source.ACCELEROMETER, wanted)


@pytest.mark.parametrize("source", Source)
def test_the_query_that_is_told_is_the_one_that_reads_good_files(day: Day, source: Source) -> None:
    text, row = GOOD[source]
    paths = [str(path) for path in day.write({"a.json": f"{text}\n"}).values()]
    query = reading_sql(day.engine, source)
    assert day.engine.connection.execute(query, {"files": paths}).fetchall() == [row]


# --- People who were erased ------------------------------------------------------------------


@pytest.fixture
def erased(engine: DuckDBEngine) -> str:
    """The name of a list on which is a@test.com alone."""
    a = hidden("person", "'a@test.com'")
    engine.connection.execute(
        f"CREATE OR REPLACE TABLE erased AS SELECT {a} AS hash, NULL::BIGINT AS until"
    )
    return "erased"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"{PHONE_2}\n{PHONE}\n", 2),
        (f"{PHONE_2}\n{PHONE.replace('a@', ' A@')}\n", 2),
        (f"[{PHONE_2},{PHONE}]", 1),
        (f"{PHONE_2},\n{PHONE},\n", 2),
        (f"{PHONE_2}\n{without(PHONE, 'x')}\n", 2),
        (f"{PHONE_2}\n{PHONE[:-9]}\n", 2),
    ],
    ids=["a line", "in other letters", "in an array", "by record", "a bad one", "a broken one"],
)
@pytest.mark.parametrize("dates", [1, 3])
def test_a_record_of_somebody_erased_is_a_reject_that_shows_nothing_of_it(
    day: Day, erased: str, content: str, line: int, dates: int
) -> None:
    """Alone, and with other dates, whose files are read together."""
    days = {DATE: reader.Day(day.write({"a.json": content}), "")}
    for number in range(1, dates):
        files = day.write({f"{number}/b.json": f"{PHONE_2}\n"})
        days[date(2023, 9, number)] = reader.Day(files, "")
    rows, rejects = read_days(day.engine, Source.ACCELEROMETER, days, erased)
    assert len(rows) == len(rejects) == dates
    assert all(day._rows(path) == [PHONE_ROW_2] for path in rows.values())
    assert day._rows(rejects[DATE]) == [("a.json", line, "erased", None)]
    assert [of for of, path in rejects.items() if day._rows(path)] == [DATE]


def test_rejects_of_others_are_shown_beside_somebody_erased(day: Day, erased: str) -> None:
    files = day.write({"a.json": f"{PHONE}\noops\n{without(PHONE_2, 'x')}\n"})
    _, rejects = read_days(day.engine, Source.ACCELEROMETER, {DATE: reader.Day(files, "")}, erased)
    assert day._rows(rejects[DATE]) == [
        ("a.json", 1, "erased", None),
        ("a.json", 2, "not valid JSON", "oops"),
        ("a.json", 3, "x is missing", without(PHONE_2, "x")),
    ]


def test_files_without_anybody_erased_take_the_fast_path_only(
    day: Day, erased: str, read_by_record: list[str]
) -> None:
    for content in (f"{PHONE_2}\n", f"[{PHONE_2}]"):
        files = day.write({"a.json": content})
        rows, _ = read_days(day.engine, Source.ACCELEROMETER, {DATE: reader.Day(files, "")}, erased)
        assert day._rows(rows[DATE]) == [PHONE_ROW_2]
    assert read_by_record == []


def test_a_file_is_written_again_without_the_records_of_somebody_erased(
    day: Day, erased: str, tmp_path: Path
) -> None:
    (path,) = day.write({"a.json": f"{PHONE}\n{PHONE_2}\noops\n{PHONE[:-9]}\n5\n"}).values()
    count = write_without_erased(
        day.engine, Source.ACCELEROMETER, path, tmp_path / "b.json", erased
    )
    assert count == 2
    assert (tmp_path / "b.json").read_text() == f"{PHONE_2}\noops\n5\n"


# --- Names -----------------------------------------------------------------------------------

NAMES = [
    "a b.json",
    "it's.json",
    'say "a".json',
    "*.json",
    "**.json",
    "[ab].json",
    "a].json",
    "[.json",
    "wh?.json",
    "{a,b}.json",
    "new\nline.json",
    "tab\t.json",
    "Zoë 😀.json",
    "back\\slash.json",
    "100%41.json",
    "$HOME.json",
    "-.json",
    "#?a=b.json",
    "s3:/bucket.json",
    "user=someone/a.json",
    "timestamp=5/x=6/a.json",
    "ingestion_date=2023-01-01/a.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_whatever_its_name(day: Day, read_by_record: list[str], name: str) -> None:
    day.write({"a.json": "decoy", "ab.json": "decoy", "b.json": "decoy", "what.json": "decoy"})
    assert day.read({name: LINES}) == ([PHONE_ROW, PHONE_ROW_2], [])
    assert read_by_record == []


@pytest.mark.parametrize("name", NAMES)
def test_a_reject_names_its_file_whatever_its_name(day: Day, name: str) -> None:
    day.write({"a.json": "decoy", "ab.json": "decoy", "b.json": "decoy", "what.json": "decoy"})
    assert day.read({name: f"{PHONE}\noops\n"}) == (
        [PHONE_ROW],
        [(name, 2, "not valid JSON", "oops")],
    )


def test_a_name_that_is_no_text_is_read_and_shown_with_its_bytes(day: Day) -> None:
    name = os.fsdecode(b"caf\xe9.json")
    assert day.read({name: f"{PHONE}\n", "b.json": LINES}) == (
        [PHONE_ROW, PHONE_ROW, PHONE_ROW_2],
        [],
    )
    assert day.read({name: f"{PHONE}\noops\n"}) == (
        [PHONE_ROW],
        [("caf\\xe9.json", 2, "not valid JSON", "oops")],
    )


def test_customers_in_folders_that_look_like_partitions_keep_their_values(day: Day) -> None:
    name = "sharewithresearchasofdate=99/email=other/a.json"
    lower = CUSTOMER.replace("shareWithResearchAsOfDate", "sharewithresearchasofdate")
    assert day.read({name: lower}, Source.CUSTOMER) == ([CUSTOMER_ROW], [])
    assert day.read({name: without(CUSTOMER, "shareWithResearchAsOfDate")}, Source.CUSTOMER) == (
        [(*CUSTOMER_ROW[:7], None, *CUSTOMER_ROW[8:])],
        [],
    )


# --- Counts and real files -------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [*PLAIN.values(), *BY_RECORD.values()], ids=[*PLAIN, *BY_RECORD]
)
def test_each_layout_has_as_many_records_as_it_holds(day: Day, content: str) -> None:
    files = list(day.write({"a.json": content}).values())
    assert count_records(files) == 2


def test_rejects_are_records_too(day: Day) -> None:
    files = day.write({"a.json": f"{PHONE}\noops\n5\n", "b.json": without(PHONE, "x")})
    assert count_records(files.values()) == 4


@pytest.mark.parametrize(
    ("bad", "rejected"),
    [(b"\xff", None), (b'{"user": "a@b.c", "user": "a@b.c"}\n', 3), (b"oops", 3)],
    ids=["not_utf8", "key_twice", "no_json"],
)
def test_an_error_of_one_of_several_files_is_never_lost(
    day: Day, bad: bytes, rejected: int | None
) -> None:
    """DuckDB 2.0 loses about every fourth such error where two threads read three files."""
    files = {"a.json": LINES, "b.json": LINES + bad, "c.json": LINES}
    for _ in range(20):
        rows, rejects = day.read(files)
        assert len(rows) == (6 if rejected else 4)
        assert [line for _, line, *_ in rejects] == [rejected]


@pytest.mark.reference
@pytest.mark.parametrize(
    ("source", "count"),
    [(Source.CUSTOMER, 956), (Source.ACCELEROMETER, 81_273), (Source.STEP_TRAINER, 28_680)],
)
def test_the_reference_files_are_read_alike_both_ways(
    engine: DuckDBEngine,
    reference_lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
    read_by_record: list[str],
    source: Source,
    count: int,
) -> None:
    files = {
        file.key: reference_lake.storage.fetch(file)
        for file in reference_lake.landing_files(source)
    }
    plain, _ = read_day(engine, source, files)
    assert read_by_record == []
    for path in files.values():  # a comma first is what the fast path does not read
        path.write_bytes(b"," + path.read_bytes())
    by_record, rejects = read_day(engine, source, files)
    assert len(read_by_record) == len(files)
    different = engine.connection.execute(
        "SELECT (SELECT count(*) FROM read_parquet($plain)), "
        "(SELECT count(*) FROM (FROM read_parquet($plain) EXCEPT ALL FROM read_parquet($other))), "
        "(SELECT count(*) FROM (FROM read_parquet($other) EXCEPT ALL FROM read_parquet($plain))), "
        "(SELECT count(*) FROM read_parquet($rejects))",
        {"plain": str(plain), "other": str(by_record), "rejects": str(rejects)},
    ).fetchall()
    assert different == [(count, 0, 0, 0)]


@pytest.mark.parametrize("beside", ["", "not a record\n"], ids=["fast", "by_record"])
def test_the_two_zeros_are_one(day: Day, beside: str) -> None:
    record = '{"user": "a@b.c", "timestamp": 1, "x": -0.0, "y": 0.0, "z": -0}\n'
    rows, _ = day.read({"a.json": record + beside})
    (row,) = rows
    assert [math.copysign(1, value) for value in row[2:]] == [1, 1, 1]


def test_an_error_that_quotes_half_a_character_is_an_error_like_others(day: Day) -> None:
    """DuckDB quotes the beginning of what it cannot read, to a byte and not to a character."""
    for padding in range(60):
        user = "x" * padding + "\U00010000" * 20
        record = f'{{"user":"{user}","timestamp":1,"x":1,"y":1,"z":1}}'
        rows, rejects = day.read({"array.json": f"[{record}]"})
        assert rows == [(user, 1, 1.0, 1.0, 1.0)]
        assert rejects == []


# Several days.


def sized(folder: Path, *sizes: int) -> dict[date, reader.Day]:
    """Dates from the first of January on, each with a file of so many bytes."""
    days = {}
    for number, size in enumerate(sizes, 1):
        path = folder / f"{number}.json"
        path.write_bytes(b" " * size)
        days[date(2023, 1, number)] = reader.Day({path.name: path}, "")
    return days


def test_dates_are_read_together_until_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_LARGE", 10)
    together = reader._together(sized(tmp_path, 5, 5, 1, 20, 3, 7))
    assert [[day.day for day in days] for days in together] == [[1, 2], [3], [4], [5, 6]]
    assert reader._together({}) == []


def test_of_dates_that_are_read_together_only_those_that_are_not_plain_are_read_again(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[list[str]] = []

    def spy(engine: DuckDBEngine, source: Source, files: Mapping[str, Path], kept_out: str) -> int:
        again.append(list(files))
        return read(engine, source, files, kept_out)

    read = reader.read_into_tables
    monkeypatch.setattr(reader, "read_into_tables", spy)
    for bad in ("oops\n", b"\xff"):
        days = {
            date(2023, 8, 6): reader.Day(day.write({"good.json": f"{PHONE}\n"}), ""),
            date(2023, 8, 7): reader.Day(day.write({"bad.json": bad}), ""),
        }
        rows, rejects = read_days(day.engine, Source.ACCELEROMETER, days)
        assert [len(day._rows(path)) for path in rows.values()] == [1, 0]
        assert [len(day._rows(path)) for path in rejects.values()] == [0, 1]
    assert again == [["bad.json"], ["bad.json"]]


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("spoilt", [False, True])
def test_no_query_reads_more_files_than_duckdb_reads_well_at_once(
    day: Day, monkeypatch: pytest.MonkeyPatch, source: Source, spoilt: bool
) -> None:
    counts: list[int] = []

    def spy(paths: Iterable[Path]) -> Any:
        paths = list(paths)
        counts.append(len(paths))
        return names(paths)

    names = reader.file_names
    monkeypatch.setattr(reader, "file_names", spy)
    monkeypatch.setattr(reader, "_AT_ONCE", 3)
    line, row = GOOD[source]
    files: dict[str, Content] = {f"{number}.json": f"{line}\n" for number in range(7)}
    rows, rejects = day.read(files | ({"3.json": "oops\n"} if spoilt else {}), source)
    assert rows == [row] * (6 if spoilt else 7)
    assert len(rejects) == spoilt
    assert max(counts) == 3


def test_where_many_files_are_not_plain_small_ones_are_not_looked_at_by_themselves(
    day: Day, looked_at_alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as few as two instead of twenty, and 60 bytes instead of a megabyte."""
    monkeypatch.setattr(reader, "_FEW", 2)
    monkeypatch.setattr(reader, "_SMALL", 60)
    files: dict[str, Content] = {f"{number}.json": "oops\n5\n" for number in range(4)}
    files |= {"4.json": b"\xff" + b" " * 52, "5.json": "5\n" + " " * 5}
    files |= {"6.json": b" " * 60 + b"7", "7.json": b"8\n" + b" " * 58}
    rows, rejects = day.read(files)
    assert rows == []
    assert sorted((file, line, record) for file, line, _, record in rejects if line) == [
        *(
            (f"{number}.json", line, text)
            for number in range(4)
            for line, text in ((1, "oops"), (2, "5"))
        ),
        ("5.json", 1, "5"),
        ("6.json", 1, "7"),
        ("7.json", 1, "8"),
    ]
    assert [(file, why) for file, line, why, _ in rejects if not line] == [
        ("4.json", "the file is not UTF-8 text")
    ]
    assert looked_at_alone == ["0.json", "1.json", "6.json"]
    assert day.notes(files, "")[0]["records"] == "12"


def test_a_file_that_is_not_plain_is_found_among_others_that_are_not_looked_at_again(
    day: Day, looked_at_alone: list[str]
) -> None:
    files: dict[str, Content] = {f"{number}.json": LINES for number in range(9)}
    rows, _ = day.read(files | {"5.json": f"[{PHONE}]"})
    assert len(rows) == 17
    assert looked_at_alone == ["5.json"]


@pytest.mark.parametrize("name", ["a.json", "it's [a] *?.json"])
@pytest.mark.parametrize("large", [0, reader._LARGE], ids=["each by itself", "together"])
@pytest.mark.parametrize(
    "spoilt", [None, "first", "last"], ids=["all good", "the first bad", "the last bad"]
)
@pytest.mark.parametrize("source", Source)
def test_each_of_several_days_has_its_own_rows_and_rejects(
    day: Day,
    engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    source: Source,
    spoilt: str | None,
    large: int,
    name: str,
) -> None:
    """Small files of several days are read with one query, also where names are the same."""
    monkeypatch.setattr(reader, "_LARGE", large)
    line, row = GOOD[source]
    given = {
        date(2023, 8, 4): [line],
        date(2023, 8, 5): [],
        date(2023, 8, 6): [line, line],
        date(2023, 8, 7): [line],
    }
    if spoilt:
        given[min(given) if spoilt == "first" else max(given)].append("{spoilt")
    days = {}
    for of, lines in given.items():
        content = "".join(f"{each}\n" for each in lines)
        files = day.write({f"{of}/{name}": content}) if lines else {}
        days[of] = reader.Day(files, f"of {of}")
    rows, rejects = read_days(engine, source, days)
    assert set(rows) == set(rejects) == set(given)
    for of, lines in given.items():
        assert day._rows(rows[of]) == [row] * lines.count(line)
        assert len(day._rows(rejects[of])) == lines.count("{spoilt")
        notes = engine.notes({of: rows[of]})[of]
        assert (notes["stamp"], notes["records"]) == (f"of {of}", str(len(lines)))
