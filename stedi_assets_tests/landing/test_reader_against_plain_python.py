"""Any records in any layout: the reader finds what Python's own JSON module says is in them.

Here files are made of records, so that it is known where each begins; `fuzz.py` spoils them.
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import open_lake
from stedi_assets.landing.reader import Day, count_records, read_days
from stedi_assets.resources import open_engine
from stedi_assets.tables import Source
from stedi_assets_tests.landing.plain_reader import FIELDS, judge

DATE = date(2023, 8, 6)


# --- Records, as their text ------------------------------------------------------------------

TEXTS = st.text(
    st.sampled_from('ab@. !\t\n\r\f\v"\\/{}[],:é😀\u00a0\u2028\0') | st.characters(codec="utf-8"),
    max_size=6,
)
STRINGS = st.builds(
    lambda text, ascii_only: json.dumps(text, ensure_ascii=ascii_only), TEXTS, st.booleans()
)
INTEGERS = (st.integers(-(2**31), 2**31 - 1) | st.integers(-(2**63), 2**63 - 1)).map(str)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(json.dumps) | INTEGERS
NAMES = st.sampled_from(["a@test.com", " B@test.com", "50f7b4f3"]).map(json.dumps)
RIGHT = {
    "string": NAMES | STRINGS,
    "int64": INTEGERS,
    "int32": st.integers(-(2**31), 2**31 - 1).map(str),
    "float64": NUMBERS,
}
SELDOM = st.sampled_from(
    [
        *("12.7", "12.0", "1e3", "1E2", "-0", "-0.0", "true", "false", "null", '"123"', '"null"'),
        *("NaN", "Infinity", "-Infinity", "1e400", "9" * 400, '""', '" \\t"', '"\\u000b"', '" v"'),
        *("2147483648", "-2147483649", "9223372036854775808", "-9223372036854775809"),
        *("18446744073709551616", "[]", "{}", '[1, {"user": "}"}]', '{"timestamp": 1}'),
    ]
)
WRONG_SYNTAX = st.sampled_from(["", "01", "+1", "oops", "1 2", "'a'", '"\\ud800"', '"\\x"'])
EXTRA_KEYS = st.sampled_from(["extra", "", "users", "a.b", "$", "/user", "x y", "é"])
EXTRA_VALUES = SELDOM | STRINGS | NUMBERS | st.just('{"a": [[], {"x": 1, "x": 2}]}')


@dataclass(frozen=True)
class Item:
    """One record.

    Attributes:
        text: as it stands in a file.
        closes: whether anything may follow on its line.
    """

    text: str
    closes: bool = True


CHANGES = ["value", "value", "key", "drop", "twice", "extra", "order", "syntax"]


@st.composite
def objects(draw: st.DrawFn, source: Source, faults: int) -> Item:
    """A record with so many faults at most, in what need not be one."""
    members = [(json.dumps(key), draw(RIGHT[kind])) for key, kind, _ in FIELDS[source]]
    for _ in range(draw(st.integers(0, faults))):
        at = draw(st.integers(0, len(members) - 1))
        key, value = members[at]
        match draw(st.sampled_from(CHANGES)):
            case "value":
                members[at] = key, draw(SELDOM)
            case "key":
                members[at] = draw(st.sampled_from([key.upper(), key.lower(), key.title()])), value
            case "drop" if len(members) > 1:
                del members[at]
            case "twice":
                again = draw(st.sampled_from([key, key.upper(), key.lower()]))
                members.insert(draw(st.integers(0, len(members))), (again, draw(SELDOM)))
            case "extra":
                extra = json.dumps(draw(EXTRA_KEYS)), draw(EXTRA_VALUES)
                members.insert(at, extra)
            case "order":
                members = draw(st.permutations(members))
            case "syntax":
                members[at] = key, draw(WRONG_SYNTAX)
    start, colon, comma, end = draw(
        st.sampled_from(
            [
                ("{", ":", ",", "}"),
                ("{", ": ", ", ", "}"),
                ("{ ", " : ", " , ", " }"),
                ("{\n  ", ": ", ",\n  ", "\n}"),
                ("{\r\n\t", ":", ",\r\n\t", "\r\n}"),
            ]
        )
    )
    return Item(start + comma.join(f"{key}{colon}{value}" for key, value in members) + end)


@st.composite
def truncated(draw: st.DrawFn, source: Source) -> Item:
    """The beginning of a good record on a line; its strings have no brackets in them."""
    plain = {"string": '"a@b"', "int64": "17", "int32": "18", "float64": "0.5"}
    text = json.dumps({key: json.loads(plain[kind]) for key, kind, _ in FIELDS[source]})
    return Item(text[: draw(st.integers(2, len(text) - 1))].rstrip(), closes=False)


GARBAGE = st.sampled_from(
    [
        *("this is not JSON", "a;b;c", "'", "<xml/>", "user: a", "oops, oops"),
        *('"user"', '"user', "5", "-2.5e3", "null", "true", "tru", "NULL", "12 13", "2023-01-01"),
    ]
).map(lambda text: Item(text, closes=False))


def items(source: Source, *, faulty: bool) -> st.SearchStrategy[list[Item]]:
    good = objects(source, 0)
    if not faulty:
        return st.lists(good, max_size=6)
    return st.lists(good | objects(source, 3) | truncated(source) | GARBAGE, max_size=6)


# --- Files -----------------------------------------------------------------------------------

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".json": bytes,
    ".jsonl": bytes,
    ".json.gz": gzip.compress,
    ".ndjson.zst": zstd.compress,
}
LAYOUTS = {  # before all records, between two, after all
    "one a line": ("", "\n", "\n"),
    "a last line without an end": ("", "\n", ""),
    "a comma after each": ("", ",\n", ",\n"),
    "CRLF": ("", "\r\n", "\r\n"),
    "blank lines": ("\n \n", "\n\n\n", "\n\n"),
    "a byte-order mark": ("\ufeff", "\n", "\n"),
    "an array over lines": ("[\n", ",\n", "\n]\n"),
    "an array on a line": ("[", ",", "]"),
    "an array with blanks": ("[ ", " , ", " ]\r\n"),
    "no line breaks": ("", "", ""),
    "blanks between": ("", " ", "\n"),
}


@dataclass(frozen=True)
class File:
    """A landing file.

    Attributes:
        name: of any extension.
        content: before it is compressed.
        starts: the line on which each of its records begins, and its text.
    """

    name: str
    content: str
    starts: list[tuple[int, str]]

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        compress = COMPRESSIONS[self.name[self.name.index(".") :]]
        path.write_bytes(compress(self.content.encode()))
        return path


@st.composite
def files(draw: st.DrawFn, source: Source, number: int, faulty: bool) -> File:
    records = draw(items(source, faulty=faulty))
    before, between, after = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))]
    content, starts = before, []
    for place, item in enumerate(records):
        starts.append((1 + content.count("\n"), item.text))
        separator = between if place < len(records) - 1 else after
        if not item.closes:
            separator = "\n" + separator.lstrip(",\r\n ")
        content += item.text + separator
    extension = draw(st.sampled_from(list(COMPRESSIONS)))
    return File(f"{number}{extension}", content, starts)


@st.composite
def days(draw: st.DrawFn) -> tuple[Source, list[File]]:
    source = draw(st.sampled_from(list(Source)))
    kinds = draw(st.lists(st.booleans(), min_size=1, max_size=3))
    return source, [draw(files(source, *numbered)) for numbered in zip(count(), kinds)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    with open_engine(lake) as opened:
        yield opened


any_day = settings(
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@any_day
@given(day=days())
def test_rows_and_rejects_are_what_plain_python_finds(
    engine: DuckDBEngine, tmp_path: Path, day: tuple[Source, list[File]]
) -> None:
    source, landed = day
    rows: Counter[tuple[Any, ...]] = Counter()
    rejects: Counter[tuple[str, int, str, str]] = Counter()
    for file in landed:
        for line, text in file.starts:
            match judge(source, text):
                case str(reason):
                    rejects[file.name, line, reason, text] += 1
                case row:
                    rows[row] += 1
    paths = {file.name: file.write(tmp_path) for file in landed}
    written = read_days(engine, source, {DATE: Day(paths, "")})
    query = "FROM read_parquet($path, hive_partitioning = false)"
    found_rows, found_rejects = (
        Counter(engine.connection.execute(query, {"path": str(files[DATE])}).fetchall())
        for files in written
    )
    assert found_rows == rows
    assert found_rejects == rejects
    total = sum(len(file.starts) for file in landed)
    assert count_records(paths.values()) == total
    assert engine.notes(written[0])[DATE]["records"] == str(total)
