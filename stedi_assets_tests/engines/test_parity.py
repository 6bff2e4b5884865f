"""DuckDB and Spark agree: the same rows, rejects, checksums and notes, whatever the tables hold."""

import math
from collections import Counter
from collections.abc import Mapping
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.lake import open_lake
from stedi_assets.landing.files import files_by_date
from stedi_assets.making import make_landing
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import PARTITION, TABLES, Source, landing_table
from stedi_assets_tests.both_engines import Both, partitions
from stedi_assets_tests.landing.test_reader_against_plain_python import File, files

pytestmark = pytest.mark.spark

Row = Mapping[str, Any]

DAYS = [date(2023, 8, 6), date(2023, 8, 7), date(2023, 8, 31)]
LANDING = [landing_table(source).name for source in Source]

some = settings(
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)


# Tables that hold what engines disagree on.

LETTERS = st.sampled_from(
    "aAbÅåİiıΣσςßẞKKǅÀé\u0345\u0301😀𐐀 \t\n\v\f\r\0\x85\xa0\u2003"  # noqa: RUF001
)
EMAILS = st.sampled_from(
    ["ann@test.com", "Ann@Test.com", " ANN@test.com\t", "ΑΣ", "ας", "ασ", "İ@x", "i@x"]  # noqa: RUF001
) | st.text(LETTERS, max_size=3)
SERIALS = st.sampled_from(["s", "S", "s ", "t", "", "é", "e\u0301", "\0"])
INT64 = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1, -62_135_596_800_001]) | st.integers(-9, 9)
FLOATS = st.sampled_from(
    [0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 5e-324, -1.7976931348623157e308]
)
BIRTHDAYS = st.from_regex(r"\A\s{0,2}\d{0,5}-[01]") | st.sampled_from(
    ["1990-06-15", "0099-01-31", " 7-", "\v1990-01-01", "\x851990-01-01", "１９-01-01", ""]  # noqa: RUF001
)
CONSENTS = st.none() | st.just(0) | MOMENTS


def or_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda chance: values if chance else st.none())


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "customername": or_none(EMAILS),
    "email": or_none(EMAILS),
    "phone": or_none(SERIALS),
    "birthday": or_none(BIRTHDAYS),
    "serialnumber": or_none(SERIALS),
    "registrationdate": or_none(MOMENTS),
    "lastupdatedate": or_none(MOMENTS),
    "sharewithresearchasofdate": CONSENTS,
    "sharewithpublicasofdate": CONSENTS,
    "sharewithfriendsasofdate": CONSENTS,
    "user": or_none(EMAILS),
    "timestamp": or_none(MOMENTS),
    "x": or_none(FLOATS),
    "y": or_none(FLOATS),
    "z": st.just(0.5),
    "sensorreadingtime": or_none(MOMENTS),
    "distancefromobject": or_none(st.sampled_from([-(2**31), -1, 0, 2**31 - 1])),
    PARTITION: st.sampled_from(DAYS),
}
"""Of landing tables: few, so that rows meet; missing ones also where the contract forbids it."""


def tables(name: str) -> st.SearchStrategy[list[Row]]:
    row = st.fixed_dictionaries({column: VALUES[column] for column in TABLES[name].schema})
    return st.lists(row, min_size=60, max_size=60).map(lambda rows: rows + rows[:5])


@pytest.mark.parametrize("policy", Policy)
def test_both_engines_make_the_same_of_any_landing_tables(both: Both, policy: Policy) -> None:
    rows: Counter[str] = Counter()

    @settings(some, max_examples=3)
    @given(landing=st.fixed_dictionaries({name: tables(name) for name in LANDING}))
    def make(landing: dict[str, list[Row]]) -> None:
        stored = {name: both.stored(TABLES[name], of) for name, of in landing.items()}
        for name, made in both.make_all(policy, stored).items():
            rows[name] += sum(partition.content.rows for partition in made.values())

    make()
    assert all(rows[name] for name in DEFINITIONS[policy]), f"too little to compare: {rows}"


@pytest.mark.parametrize("policy", Policy)
def test_both_engines_make_the_same_of_no_rows(both: Both, policy: Policy) -> None:
    made = both.make_all(policy, {name: {} for name in LANDING})
    assert not any(made.values())


# The reference files.


@pytest.mark.reference
def test_both_engines_make_the_same_of_the_reference_files(both: Both, reference: Path) -> None:
    lake = open_lake(str(reference))
    landing = {}
    for source in Source:
        landed = files_by_date(lake, source)
        made = [
            make_landing(lake, engine, source, list(landed), landed)
            for engine in (both.duckdb, both.spark)
        ]
        for by_duckdb, by_spark in zip(*made, strict=True):
            both.verify_same(by_duckdb, by_spark)
        landing[landing_table(source).name] = partitions(made[0][0])
    for policy in Policy:
        made_of = both.make_all(policy, landing)
        assert all(made_of[name][day].content.rows for name in made_of for day in landed)


# Landing files.


@st.composite
def landed_files(draw: st.DrawFn) -> tuple[Source, dict[date, list[File]]]:
    source = draw(st.sampled_from(list(Source)))
    numbers = count()
    one = st.booleans().flatmap(lambda faulty: files(source, next(numbers), faulty))
    return source, {day: draw(st.lists(one, min_size=1, max_size=3)) for day in DAYS}


@settings(some, max_examples=20)
@given(landed=landed_files())
def test_both_engines_read_the_same_rows_and_rejects_of_any_landing_files(
    both: Both,
    tmp_path_factory: pytest.TempPathFactory,
    landed: tuple[Source, dict[date, list[File]]],
) -> None:
    source, by_date = landed
    root = tmp_path_factory.mktemp("landed")
    for day, of_day in by_date.items():
        folder = root / source / "landing" / f"{PARTITION}={day}"
        folder.mkdir(parents=True)
        for file in of_day:
            file.write(folder)
    lake = open_lake(str(root))
    found = files_by_date(lake, source)
    wanted = [*found, date(2024, 1, 1)]
    made = [
        make_landing(lake, engine, source, wanted, found) for engine in (both.duckdb, both.spark)
    ]
    for by_duckdb, by_spark in zip(*made, strict=True):
        both.verify_same(by_duckdb, by_spark)
        records = [
            {day: notes.get("records") for day, notes in engine.notes(staged.files).items()}
            for engine, staged in ((both.duckdb, by_duckdb), (both.spark, by_spark))
        ]
        assert {day: n for day, n in records[0].items() if n} == {
            day: n for day, n in records[1].items() if day in records[0] and records[0][day]
        }
