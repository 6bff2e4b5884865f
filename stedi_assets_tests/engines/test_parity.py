"""DuckDB and Spark agree: the same rows, rejects, checksums and notes, whatever the tables hold."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.lake import Lake, open_lake
from stedi_assets.landing import on_spark
from stedi_assets.landing.files import files_by_date
from stedi_assets.making import make_landing
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import PARTITION, TABLES, Source, landing_table
from stedi_assets_tests.assets.rows import customer, device_reading, phone_reading
from stedi_assets_tests.both_engines import Both, partitions
from stedi_assets_tests.landing.hostile import write_small
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

SPELLINGS = [
    *["ann@test.com", "Ann@Test.com", " ANN@test.com\t", "i@x", "I@x", "\u0130@x", "\u0131@x", ""],
    *["\u0391\u03a3", "\u03b1\u03c2", "\u03b1\u03c3"],  # sigmas: capital, at an end, small
    *["ß", "ẞ", "ss", "K", "\u212a", "\u212b", "\u00c5", "\u01c5", "É", "e\u0301", "\u0345"],
    *["\va\f", "\r\na ", "\xa0a", "\x85a", "\u2003a", "a\0", "a", "A"],
    *["\U00010400", "\U00010428", "😀", "\u1ffc", "\u10a0", "\u1c90"],
]
"""Emails that are those of one person to some engines, and to others not."""

BIRTHDAYS = {
    "1990-06-15": 1990,
    "0099-01-31": 99,
    "1-": 1,
    " 7-": 7,
    "\t\n\r\f 77-": 77,
    **dict.fromkeys(["12345-01", "-1-1", "19 90-", "1990", "", " ", "\n", "a1990-01"]),
    **dict.fromkeys(["\v1990-", "\x851990-", "\xa01990-", "\u20031990-", "\uff11-01-01"]),
}
"""Birthdays, and the year with which each begins."""

EMAILS = st.sampled_from(SPELLINGS[:12]) | st.sampled_from(SPELLINGS)
SERIALS = st.sampled_from(["s", "S", "s ", "t", "", "é", "e\u0301", "\0"])
MOMENTS = st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1, -62_135_596_800_001]) | st.integers(-9, 9)
NUMBERS = [0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 5e-324, -1.7976931348623157e308]
FLOATS = st.sampled_from(NUMBERS)
CONSENTS = st.none() | st.just(0) | MOMENTS


def or_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda chance: values if chance else st.none())


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "customername": or_none(EMAILS),
    "email": or_none(EMAILS),
    "phone": or_none(SERIALS),
    "birthday": or_none(st.sampled_from(list(BIRTHDAYS))),
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
def test_both_engines_make_the_same_of_what_engines_disagree_on(both: Both, policy: Policy) -> None:
    """All of it gets through: everybody consents, and has readings and a device, as others do."""
    people = [customer(email, -(2**63), serial=f"s{n % 3}") for n, email in enumerate(SPELLINGS)]
    people += [
        customer(f"{n}@test.com", -(2**63), serial=f"s{n % 3}", birthday=birthday)
        for n, birthday in enumerate(BIRTHDAYS)
    ]
    times = [-(2**63), -62_135_596_800_001, -1, 0, 1, 2**63 - 1]
    landing: dict[str, list[Row]] = {
        "customer_landing": people,
        "accelerometer_landing": [
            phone_reading(person["email"], times[n % len(times)], x=x, y=-x, day=day)
            for n, person in enumerate(people)
            for x, day in zip(NUMBERS, cycle(DAYS), strict=False)
        ],
        "step_trainer_landing": [
            device_reading(f"s{n}", time, distance=distance, day=day)
            for time in times
            for n, (distance, day) in enumerate(zip([-(2**31), 0, 2**31 - 1], DAYS, strict=True))
        ],
    }
    made = both.make_all(policy, {n: both.stored(TABLES[n], rows) for n, rows in landing.items()})
    for name in DEFINITIONS[policy]:
        assert sum(partition.content.rows for partition in made[name].values()) > len(BIRTHDAYS) / 2
    (curated,) = made["customers_curated"].values()
    years = Counter(pq.ParquetFile(curated.file).read().column("birthyear").to_pylist())
    assert years == Counter(BIRTHDAYS.values()) + Counter({1990: years[1990] - 1})


@pytest.mark.parametrize("policy", Policy)
@settings(some, max_examples=3)
@given(landing=st.fixed_dictionaries({name: tables(name) for name in LANDING}))
def test_both_engines_make_the_same_of_any_landing_tables(
    both: Both, policy: Policy, landing: dict[str, list[Row]]
) -> None:
    both.make_all(policy, {name: both.stored(TABLES[name], of) for name, of in landing.items()})


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


def both_read(both: Both, lake: Lake, source: Source) -> None:
    """Let both engines read a source's landing files, and hold what they give against each other.

    One date has none.
    """
    found = files_by_date(lake, source)
    wanted = [*found, date(2024, 1, 1)]
    (rows, rejects), (rows_by_spark, rejects_by_spark) = (
        make_landing(lake, engine, source, wanted, found) for engine in (both.duckdb, both.spark)
    )
    both.verify_same(rows, rows_by_spark)
    both.verify_same(rejects, rejects_by_spark)
    records, records_by_spark = (
        {day: notes["records"] for day, notes in both.duckdb.notes(of.files).items()}
        for of in (rows, rows_by_spark)
    )
    assert records_by_spark == records


def test_both_engines_read_the_same_rows_and_rejects_of_hostile_landing_files(
    both: Both, tmp_path: Path, several_tasks: None
) -> None:
    write_small(tmp_path / "accelerometer" / "landing" / f"{PARTITION}=2023-08-06")
    both_read(both, open_lake(str(tmp_path)), Source.ACCELEROMETER)


@st.composite
def landed_files(draw: st.DrawFn) -> tuple[Source, dict[date, list[File]]]:
    source = draw(st.sampled_from(list(Source)))
    numbers = count()
    one = st.booleans().flatmap(lambda faulty: files(source, next(numbers), faulty))
    return source, {day: draw(st.lists(one, min_size=1, max_size=3)) for day in DAYS}


@pytest.fixture(scope="module")
def several_tasks() -> Iterator[None]:
    """Files so small are not read by one task only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_spark, "_TASK", 400)
        yield


@settings(some, max_examples=15)
@given(landed=landed_files())
def test_both_engines_read_the_same_rows_and_rejects_of_any_landing_files(
    both: Both,
    tmp_path_factory: pytest.TempPathFactory,
    several_tasks: None,
    landed: tuple[Source, dict[date, list[File]]],
) -> None:
    source, by_date = landed
    root = tmp_path_factory.mktemp("landed")
    for day, of_day in by_date.items():
        folder = root / source / "landing" / f"{PARTITION}={day}"
        folder.mkdir(parents=True)
        for file in of_day:
            file.write(folder)
    both_read(both, open_lake(str(root)), source)
