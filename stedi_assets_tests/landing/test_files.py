"""Which files belong to which ingestion date, and when a day's fingerprint changes."""

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from stedi_assets.lake import Lake, StoredFile
from stedi_assets.landing.files import files_by_date, fingerprint, ingestion_date, look
from stedi_assets.tables import Source

MODIFIED = datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)
DELIVERED = datetime(2024, 2, 28, tzinfo=UTC)


def stored(key: str) -> StoredFile:
    return StoredFile(key, 10, MODIFIED, "v1")


def not_asked(file: StoredFile) -> datetime:
    raise AssertionError(f"{file.key} says its date itself; asking takes time")


def drop(lake: Lake, key: str) -> Path:
    path = lake.storage.root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


@pytest.mark.parametrize(
    "key",
    [
        "customer/landing/ingestion_date=2023-08-06/a.json",
        "customer/landing/eu/ingestion_date=2023-08-06/b/a.json.gz",
        "customer/landing/ingestion_date=2023-08-06/customer-1655564376361.json",
    ],
    ids=["a folder", "a folder among others", "before the milliseconds in the name"],
)
def test_the_date_in_the_path_counts_first(key: str) -> None:
    assert ingestion_date(stored(key), not_asked) == date(2023, 8, 6)


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("customer-1691348231425.json", date(2023, 8, 6)),
        ("1691348231425.jsonl", date(2023, 8, 6)),
        ("a_1691348231425.NDJSON", date(2023, 8, 6)),
        ("a-1691348231425.json.gz", date(2023, 8, 6)),
        ("a-1691348231425.json.zst", date(2023, 8, 6)),
        ("a-1691366399999.json", date(2023, 8, 6)),
        ("a-1691366400000.json", date(2023, 8, 7)),
        ("a-0000000000000.json", date(1970, 1, 1)),
        ("a-9999999999999.json", date(2286, 11, 20)),
    ],
    ids=[
        "as the producers name it",
        "nothing but digits",
        "another extension",
        "gzip",
        "zstd",
        "last millisecond of a day",
        "first millisecond of the next",
        "the first there is",
        "the last there is",
    ],
)
def test_thirteen_digits_at_the_end_of_the_name_are_the_date(name: str, day: date) -> None:
    assert ingestion_date(stored(f"customer/landing/{name}"), not_asked) == day


@pytest.mark.parametrize(
    "name",
    [
        "a.json",
        "a-169134823142.json",
        "a-16913482314250.json",
        "1691348231425-a.json",
        "1691348231425/a.json",
        "a-1691348231425.csv",
    ],
    ids=[
        "no digits",
        "twelve",
        "fourteen",
        "at its beginning",
        "in a folder's name",
        "before an extension that is none",
    ],
)
def test_else_the_day_on_which_it_was_delivered_is_the_date(name: str) -> None:
    day = ingestion_date(stored(f"customer/landing/{name}"), lambda _: DELIVERED)
    assert day == date(2024, 2, 28)


def test_the_last_modification_is_taken_in_utc(lake: Lake) -> None:
    path = drop(lake, "customer/landing/a.json")
    just_before_midnight = datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    os.utime(path, (just_before_midnight, just_before_midnight))
    assert list(files_by_date(lake, Source.CUSTOMER)) == [date(2024, 2, 29)]


@pytest.mark.parametrize(
    "value", ["2023-02-30", "2023-13-01", "20230806", "2023-W31-7", "yesterday", ""]
)
def test_a_path_with_no_date_where_one_should_be_is_an_error_that_says_what_to_do(
    value: str,
) -> None:
    key = f"customer/landing/ingestion_date={value}/a.json"
    with pytest.raises(ValueError, match="is no date") as error:
        ingestion_date(stored(key), not_asked)
    assert str(error.value) == (
        f"landing file {key}: 'ingestion_date={value}' is no date; "
        "rename it to ingestion_date=YYYY-MM-DD"
    )


def test_files_come_by_date_and_by_name(lake: Lake) -> None:
    for key in (
        "ingestion_date=2023-08-07/a.json",
        "ingestion_date=2023-08-06/b.json",
        "a-1691348231425.json",
        "ingestion_date=2023-08-06/a.json",
    ):
        drop(lake, f"step_trainer/landing/{key}")
    drop(lake, "customer/landing/ingestion_date=2023-08-08/a.json")
    drop(lake, "step_trainer/trusted/ingestion_date=2023-08-09/a.json")
    found = files_by_date(lake, Source.STEP_TRAINER)
    assert [(day, [file.key for file in files]) for day, files in found.items()] == [
        (
            date(2023, 8, 6),
            [
                "step_trainer/landing/a-1691348231425.json",
                "step_trainer/landing/ingestion_date=2023-08-06/a.json",
                "step_trainer/landing/ingestion_date=2023-08-06/b.json",
            ],
        ),
        (date(2023, 8, 7), ["step_trainer/landing/ingestion_date=2023-08-07/a.json"]),
    ]


def test_without_a_landing_folder_there_are_no_files(lake: Lake) -> None:
    assert files_by_date(lake, Source.CUSTOMER) == {}


def test_a_file_whose_path_names_no_date_is_told_and_the_others_go_on(lake: Lake) -> None:
    drop(lake, "customer/landing/ingestion_date=2023-08-06/a.json")
    drop(lake, "customer/landing/ingestion_date=2023-08-32/b.json")
    drop(lake, "customer/landing/ingestion_date=2023-08-32/_hidden.json")
    told: list[str] = []
    found = files_by_date(lake, Source.CUSTOMER, told.append)
    assert list(found) == [date(2023, 8, 6)]
    assert told == [
        "landing file customer/landing/ingestion_date=2023-08-32/b.json: "
        "'ingestion_date=2023-08-32' is no date; rename it to ingestion_date=YYYY-MM-DD"
    ]
    assert files_by_date(lake, Source.CUSTOMER) == found, "who does not ask is not told"


@pytest.mark.parametrize(
    "name",
    [
        ".a.json",
        "_a.json",
        ".hidden/a.json",
        "_temporary/0/a.json",
        "a.json.tmp",
        "a.json.TEMP",
        "a.json.part",
        "a.json.partial",
        "a.json.crdownload",
        ".a.json.swp",
        "a.json~",
    ],
)
def test_a_hidden_or_unfinished_file_is_left_out(lake: Lake, name: str) -> None:
    drop(lake, f"customer/landing/ingestion_date=2023-08-06/{name}")
    drop(lake, "customer/landing/ingestion_date=2023-08-06/good.json")
    ((_, files),) = files_by_date(lake, Source.CUSTOMER).items()
    assert [file.key for file in files] == ["customer/landing/ingestion_date=2023-08-06/good.json"]


@pytest.mark.parametrize("name", ["a_.json", "a.b.json", "tmp.json", "part/a.json", "readme.txt"])
def test_any_other_file_is_not_left_out(lake: Lake, name: str) -> None:
    key = f"customer/landing/ingestion_date=2023-08-06/{name}"
    drop(lake, key)
    ((_, files),) = files_by_date(lake, Source.CUSTOMER).items()
    assert [file.key for file in files] == [key]


A, B = stored("customer/landing/a.json"), stored("customer/landing/b.json")


@pytest.mark.parametrize(
    "changed",
    [
        [A, B, stored("customer/landing/c.json")],
        [A],
        [A, replace(B, size=11)],
        [A, replace(B, version="v2")],
        [A, replace(B, key="customer/landing/c.json")],
        [A, B, B],
        [stored("customer/landing/a.json\t10\tv1\ncustomer/landing/b.json")],
    ],
    ids=[
        "a file comes",
        "a file goes",
        "another size",
        "another version",
        "another name",
        "one more with the same state",
        "one name that reads like two files",
    ],
)
def test_the_fingerprint_changes_with_the_files(changed: list[StoredFile]) -> None:
    assert fingerprint(changed) != fingerprint([A, B])


def test_the_fingerprint_does_not_change_with_the_order() -> None:
    assert fingerprint([B, A]) == fingerprint([A, B])


def test_no_files_have_no_fingerprint() -> None:
    assert fingerprint([]) == ""


def test_a_name_that_is_no_text_has_a_fingerprint() -> None:
    odd = [
        stored(os.fsdecode(b"customer/landing/" + byte + b".json")) for byte in (b"\xfe", b"\xff")
    ]
    assert len({fingerprint([file]) for file in odd}) == 2


def one_fingerprint(lake: Lake) -> str:
    ((_, files),) = files_by_date(lake, Source.CUSTOMER).items()
    return fingerprint(files)


def test_the_fingerprint_of_files_that_nobody_touched_stays(lake: Lake) -> None:
    drop(lake, "customer/landing/ingestion_date=2023-08-06/a.json")
    assert one_fingerprint(lake) == one_fingerprint(lake)


def test_a_file_replaced_by_one_of_the_same_size_and_time_changes_the_fingerprint(
    lake: Lake,
) -> None:
    path = drop(lake, "customer/landing/ingestion_date=2023-08-06/a.json")
    before = one_fingerprint(lake)
    new = path.with_name("new")
    new.write_text("[]")
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.replace(path)
    assert path.stat().st_size == 2
    assert one_fingerprint(lake) != before


def test_a_file_that_is_only_newer_changes_the_fingerprint(lake: Lake) -> None:
    path = drop(lake, "customer/landing/ingestion_date=2023-08-06/a.json")
    before = one_fingerprint(lake)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert one_fingerprint(lake) != before


# All sources at one moment.

FIRST, LAST = date(2022, 1, 1), date(2023, 8, 7)
NOW = datetime(2023, 8, 7, 12, tzinfo=UTC)
AT_ONCE = timedelta(0)


def test_a_lake_without_landing_files_has_none_and_nothing_is_misplaced(lake: Lake) -> None:
    found = look(lake, FIRST, NOW, AT_ONCE)
    assert (found.first, found.last) == (FIRST, LAST)
    assert found.by_date == {source: {} for source in Source}
    assert list(found.misplaced) == []


def test_files_are_found_by_source_and_date_from_the_first_partition_to_the_last(
    lake: Lake,
) -> None:
    for key in (
        "customer/landing/ingestion_date=2022-01-01/a.json",
        "customer/landing/ingestion_date=2023-08-07/b.json",
        "customer/landing/ingestion_date=2023-08-07/a.json",
        "step_trainer/landing/a-1691348231425.json",
        "customer/landing/ingestion_date=2023-08-07/_hidden.json",
    ):
        drop(lake, key)
    found = look(lake, FIRST, NOW, AT_ONCE)
    assert {
        source: {day: [file.key for file in files] for day, files in by_date.items()}
        for source, by_date in found.by_date.items()
    } == {
        Source.CUSTOMER: {
            FIRST: ["customer/landing/ingestion_date=2022-01-01/a.json"],
            LAST: [
                "customer/landing/ingestion_date=2023-08-07/a.json",
                "customer/landing/ingestion_date=2023-08-07/b.json",
            ],
        },
        Source.ACCELEROMETER: {},
        Source.STEP_TRAINER: {date(2023, 8, 6): ["step_trainer/landing/a-1691348231425.json"]},
    }
    assert list(found.misplaced) == []


def test_files_outside_the_partitions_are_misplaced_with_what_to_do_and_the_others_go_on(
    lake: Lake,
) -> None:
    drop(lake, "customer/landing/ingestion_date=2023-08-06/good.json")
    drop(lake, "step_trainer/landing/ingestion_date=2023-08-08/late.json")
    drop(lake, "customer/landing/ingestion_date=2021-12-31/b.json")
    drop(lake, "accelerometer/landing/ingestion_date=2021-12-31/a.json")
    drop(lake, "accelerometer/landing/ingestion_date=soon/a.json")
    found = look(lake, FIRST, NOW, AT_ONCE)
    assert {source: list(by_date) for source, by_date in found.by_date.items()} == {
        Source.CUSTOMER: [date(2023, 8, 6)],
        Source.ACCELEROMETER: [],
        Source.STEP_TRAINER: [],
    }
    assert list(found.misplaced) == [
        "landing file accelerometer/landing/ingestion_date=soon/a.json: 'ingestion_date=soon' "
        "is no date; rename it to ingestion_date=YYYY-MM-DD",
        "customer/landing/ingestion_date=2021-12-31/b.json, "
        "accelerometer/landing/ingestion_date=2021-12-31/a.json: the ingestion date 2021-12-31 is "
        "before the first partition, 2022-01-01: set STEDI_START_DATE to 2021-12-31 or earlier.",
        "step_trainer/landing/ingestion_date=2023-08-08/late.json: the ingestion date 2023-08-08 "
        "is in the future: give the files the date on which they came.",
    ]


def test_the_remedy_for_files_before_the_first_partition_is_one(lake: Lake) -> None:
    drop(lake, "customer/landing/ingestion_date=2021-12-31/a.json")
    found = look(lake, date(2021, 12, 31), NOW, AT_ONCE)
    assert list(found.misplaced) == []
    assert list(found.by_date[Source.CUSTOMER]) == [date(2021, 12, 31)]


@pytest.mark.parametrize(
    ("files", "more"), [(5, ""), (6, " and 1 more"), (1205, " and 1,200 more")]
)
def test_of_many_misplaced_files_of_a_date_five_are_named(
    lake: Lake, files: int, more: str
) -> None:
    for number in range(files):
        drop(lake, f"customer/landing/ingestion_date=2021-12-31/{number:04}.json")
    (told,) = look(lake, FIRST, NOW, AT_ONCE).misplaced
    named = [f"customer/landing/ingestion_date=2021-12-31/{number:04}.json" for number in range(5)]
    assert told.startswith(f"{', '.join(named)}{more}: the ingestion date 2021-12-31 is before")


def test_dates_with_a_file_of_just_now_are_growing_and_others_are_not(lake: Lake) -> None:
    """Also with one from a clock that is a little ahead."""
    ages = {"2023-08-04": [60, 4], "2023-08-05": [5, 60], "2023-08-06": [-4], "2023-08-07": [-5]}
    for day, of_day in ages.items():
        for age in of_day:
            path = drop(lake, f"customer/landing/ingestion_date={day}/{age}.json")
            time = NOW.timestamp() - age
            os.utime(path, (time, time))
    found = look(lake, FIRST, NOW, timedelta(seconds=5))
    assert {of: [file.key for file in files] for of, files in found.growing.items()} == {
        (Source.CUSTOMER, date(2023, 8, 4)): ["customer/landing/ingestion_date=2023-08-04/4.json"],
        (Source.CUSTOMER, date(2023, 8, 6)): ["customer/landing/ingestion_date=2023-08-06/-4.json"],
    }
    assert len(found.by_date[Source.CUSTOMER]) == 4, "they are there all the same"
    assert look(lake, FIRST, NOW, AT_ONCE).growing == {}
