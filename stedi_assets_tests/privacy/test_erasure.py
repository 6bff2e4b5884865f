"""Erasing a person: what goes, what stays, what stops it, and what an interruption leaves behind.

In this process and without Dagster; as people start it, `end_to_end/test_forget.py` does it.
"""

import bz2
import errno
import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi_assets.jobs import SETTLED_AFTER
from stedi_assets.lake import Lake, LocalStorage, StoredFile
from stedi_assets.landing import records as reader_of_records
from stedi_assets.privacy.erasure import (
    ErasureError,
    Found,
    Receipt,
    as_lines,
    begin,
    find,
    finish,
    receipts,
)
from stedi_assets.privacy.suppression import OtherKeyError
from stedi_assets.reconcile import Stale, examine
from stedi_assets.resources import landed_now, open_engine
from stedi_assets.tables import TABLES, Source, landing_table, rejects_table
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.erasing import (
    ALL_OF_ANN,
    ANN,
    ANNS_NAME,
    ANNS_OWN,
    ANNS_PHONE,
    BOBS,
    KEY,
    SHARED,
    TOWN,
    Line,
    all_bytes,
    build,
    forget,
    moment,
    pseudonym,
    traces,
    write,
)
from stedi_assets_tests.end_to_end.histories import Runner, compiled_once, stored_rows
from stedi_assets_tests.end_to_end.landing_files import customer, device, land, phone, twin
from stedi_assets_tests.storages import S3Path, root_of

FOLDER = "ingestion_date=2023-08-06"

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.fixture(autouse=True)
def _known_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)


@pytest.fixture(scope="module")
def made() -> Iterator[Runner]:
    """Over a lake with Ann in it, which is up to date; every test has a copy."""
    shared = Path("/dev/shm")  # where writing is quick
    with (
        pytest.MonkeyPatch.context() as patch,
        TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder,
    ):
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        opened = Runner(Path(folder) / "made")
        build(opened.lake)
        opened.reconcile(False)
        opened.end()
        yield opened


@pytest.fixture
def town(made: Runner) -> Iterator[Runner]:
    """Over a lake with Ann in it, which is up to date."""
    with TemporaryDirectory(dir=made.lake.storage.folder.parent) as folder:
        opened = Runner(twin(made.lake, Path(folder) / "lake").storage.folder)
        yield opened
        opened.end()


@pytest.fixture
def without(made: Runner) -> Iterator[Runner]:
    """Over a lake in which Ann never was, not up to date yet."""
    with TemporaryDirectory(dir=made.lake.storage.folder.parent) as folder:
        opened = Runner(Path(folder) / "without")
        build(opened.lake, without_ann=True)
        yield opened
        opened.end()


def left_in(runner: Runner, words: Collection[str] = ALL_OF_ANN) -> dict[str, set[str]]:
    """The files that hold one of some words when the process has ended."""
    runner.end()
    return traces(runner.lake.storage.folder, words)


def forgotten(runner: Runner, email: str = ANN) -> Receipt:
    """The receipt of an erasure of which nothing is left."""
    receipt = forget(runner, email)
    assert receipt
    assert receipt.left == {}
    return receipt


def told(runner: Runner, email: str = ANN) -> str:
    """Why a person cannot be erased; nothing was changed."""
    before = all_bytes(runner.lake.storage.folder)
    with pytest.raises(ErasureError) as error:
        forget(runner, email)
    assert all_bytes(runner.lake.storage.folder) == before
    assert ANN not in str(error.value).lower()
    return str(error.value)


# What goes, and what stays.


def test_nothing_of_the_person_is_left_in_any_byte(town: Runner) -> None:
    held = {word for words in left_in(town).values() for word in words}
    assert held == {word.lower() for word in ALL_OF_ANN}
    forgotten(town)
    assert left_in(town) == {}


def test_all_others_have_the_rows_of_a_lake_in_which_the_person_never_was(
    town: Runner, without: Runner
) -> None:
    forgotten(town)
    without.reconcile(False)
    expected = stored_rows(without.lake)
    assert sum(rows.total() for rows in expected["machine_learning_curated"].values()) > 2
    assert stored_rows(town.lake) == expected
    town.reconcile(True)
    assert stored_rows(town.lake) == expected


def test_a_list_that_is_put_back_after_the_files_keeps_out_whom_runs_had_let_in(
    town: Runner, tmp_path: Path
) -> None:
    """Who restores a lake may begin with the landing files, and a sensor may be quicker."""
    folder = town.lake.storage.folder
    town_before = stored_rows(town.lake)
    backup = tmp_path / "backup"
    for source in Source:
        shutil.copytree(folder / source / "landing", backup / source / "landing")
    forgotten(town)
    without_ann = stored_rows(town.lake)
    shutil.move(folder / "erasures", backup / "erasures")
    for source in Source:
        shutil.copytree(
            backup / source / "landing", folder / source / "landing", dirs_exist_ok=True
        )
    town.reconcile(False)
    assert rows_of_ann(town)
    town.end()
    shutil.move(backup / "erasures", folder / "erasures")
    assert "holds somebody who was erased" in {found.why for found in examined(town)}
    town.reconcile(True)
    assert examined(town) == []
    assert rows_of_ann(town) == 0
    found = stored_rows(town.lake)
    assert {name: found[name] for name in TABLES if "rejects" not in name} == {
        name: without_ann[name] for name in TABLES if "rejects" not in name
    }
    assert records_of(found) == records_of(town_before), "a record is in neither table"
    forgotten(town)
    assert left_in(town) == {}


def records_of(stored: Mapping[str, Mapping[str, Counter[tuple[Any, ...]]]]) -> dict[Source, int]:
    """How many records of each source there are, good and rejected."""
    return {
        source: sum(
            rows.total()
            for table in (landing_table(source), rejects_table(source))
            for rows in stored[table.name].values()
        )
        for source in Source
    }


def examined(runner: Runner) -> list[Stale]:
    """What is not right, all rows looked at."""
    return examine(runner.lake, runner.engine, runner.policy, landed_now(runner.lake)).stale


def test_the_receipt_says_how_many_records_and_rows_there_were(town: Runner) -> None:
    rows = {
        name: sum(of.total() for of in by_date.values())
        for name, by_date in stored_rows(town.lake).items()
    }
    receipt = forgotten(town)
    assert receipt.records == {
        key: count for key, of in TOWN.items() if (count := sum(line.is_anns for line in of))
    }
    after = stored_rows(town.lake)
    gone = {
        name: rows[name] - sum(of.total() for of in by_date.values())
        for name, by_date in after.items()
    }
    assert receipt.rows == {name: count for name, count in gone.items() if count}
    assert ANN not in json.dumps(vars(receipt))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"person": "ann"}'])
def test_a_receipt_that_cannot_be_read_is_named(town: Runner, content: bytes) -> None:
    forgotten(town)
    (receipt,) = (town.lake.storage.folder / "erasures").glob("*.json")
    receipt.write_bytes(content)
    with pytest.raises(ValueError, match=f"{receipt.name} is no receipt of an erasure"):
        receipts(town.lake, town.engine)
    receipt.unlink()
    forgotten(town)
    assert [of.left for of in receipts(town.lake, town.engine)] == [{}]


def test_a_parquet_file_of_somebody_else_among_receipts_is_named(town: Runner) -> None:
    theirs = town.lake.storage.folder / "erasures" / "theirs.parquet"
    theirs.parent.mkdir()
    pq.write_table(pa.table({"a": [1]}), theirs)
    with pytest.raises(ValueError, match=r"theirs\.parquet is no receipt of an erasure"):
        receipts(town.lake, town.engine)


@pytest.mark.parametrize("email", ["ANN@X.COM", "  Ann@x.com\t\n", ANN])
def test_case_of_the_email_and_blanks_around_it_do_not_matter(town: Runner, email: str) -> None:
    forgotten(town, email)
    assert left_in(town) == {}


@pytest.mark.parametrize("email", ["", "  ", "\t\n"])
def test_without_an_email_nobody_is_erased(town: Runner, email: str) -> None:
    assert told(town, email) == "There is no email. Say whom to erase."


def test_of_an_unknown_person_there_is_nothing(town: Runner) -> None:
    before = all_bytes(town.lake.storage.folder)
    assert forget(town, "nobody@x.com") is None
    assert forget(town, "nn@x.com") is None
    assert forget(town, "x.com") is None
    assert all_bytes(town.lake.storage.folder) == before


def test_a_second_time_there_is_nothing_left_to_do(town: Runner) -> None:
    forgotten(town)
    before = all_bytes(town.lake.storage.folder)
    assert forget(town) is None
    assert all_bytes(town.lake.storage.folder) == before


def test_somebody_whose_email_ends_or_begins_with_it_is_left_alone(town: Runner) -> None:
    forgotten(town)
    emails = {
        row[1] for rows in stored_rows(town.lake)["customer_landing"].values() for row in rows
    }
    assert {"joann@x.com", "ann@x.com.uk", "ann@x.community"} <= emails


def test_pairs_are_theirs_by_the_phone_by_their_own_device_or_by_the_moment_of_a_shared_one(
    town: Runner,
) -> None:
    names = TABLES["machine_learning_curated"].column_names
    pairs = [
        dict(zip(names, row, strict=False))
        for rows in stored_rows(town.lake)["machine_learning_curated"].values()
        for row in rows.elements()
    ]
    ways = [
        [pair["subject_id"] == pseudonym(ANN) for pair in pairs],
        [pair["device_id"] == pseudonym(ANNS_OWN) for pair in pairs],
        [
            pair["device_id"] == pseudonym(SHARED) and pair["sensorreadingtime"] in {100, 200, 400}
            for pair in pairs
        ],
    ]
    theirs = list(zip(*ways, strict=True))
    assert {(True, False, False), (False, True, False), (False, False, True)} < {*theirs}
    found = find(town.lake, town.engine, landed_now(town.lake), ANN)
    assert found.rows["machine_learning_curated"] == sum(map(any, theirs)) < len(pairs)


def test_readings_of_a_short_serial_number_go_also_from_a_date_that_has_no_others(
    town: Runner,
) -> None:
    write(town.lake, f"customer/landing/{FOLDER}/short.json", [Line(customer(ANN, "S5"), True)])
    key = "step_trainer/landing/ingestion_date=2023-09-09/short.json"
    write(town.lake, key, [Line(device(100, "S5"), True)])
    town.reconcile(False)
    receipt = forgotten(town)
    assert receipt.records[key] == 1
    assert readings(town, "S5") == []
    again = "step_trainer/landing/ingestion_date=2023-09-10/again.json"
    write(town.lake, again, [Line(device(100, "S5"), True)])
    town.reconcile(False)  # it is a reject now
    assert forgotten(town).records == {again: 1}


def test_readings_by_a_clock_that_is_ahead_go_as_well(town: Runner) -> None:
    later = int((datetime.now().timestamp() + 3600) * 1000)
    write(
        town.lake,
        f"step_trainer/landing/{FOLDER}/ahead.json",
        [Line(device(later, ANNS_OWN)), Line(device(later - 1, BOBS))],
    )
    town.reconcile(False)
    forgotten(town)
    assert left_in(town) == {}
    assert readings(town, BOBS) == [100, 400, later - 1]


def test_tables_of_the_first_date_and_of_the_last_are_not_to_be_mended_by_hand(lake: Lake) -> None:
    landed = landed_now(lake)
    for day in (landed.first.isoformat(), landed.last.isoformat()):
        land(lake, "customer", day, customer(ANN, ANNS_OWN))
        land(lake, "accelerometer", day, phone(ANN, 100))
    runner = Runner(root_of(lake))
    runner.reconcile(False)
    found = find(runner.lake, runner.engine, landed_now(lake), ANN)
    runner.end()
    assert found.rows["accelerometer_landing"] == 2
    assert found.by_hand == {}


# Shared devices.


def readings(runner: Runner, serial: str) -> list[int]:
    return sorted(
        row[0]
        for rows in stored_rows(runner.lake)["step_trainer_landing"].values()
        for row in rows.elements()
        if row[1] == serial
    )


def test_of_a_shared_device_the_readings_of_the_moments_of_the_person_go(town: Runner) -> None:
    forgotten(town)
    assert readings(town, SHARED) == [300, 401]


def test_of_a_shared_device_the_other_holder_takes_theirs_as_well(town: Runner) -> None:
    # 100 and 300 are the moments of Carl; Ann holds another one by her latest record.
    forgotten(town, "carl@x.com")
    assert readings(town, SHARED) == [400, 401]
    assert readings(town, ANNS_OWN) == [100, 300, 999]
    assert left_in(town, ["carl@x.com", "Serial-Of-Carl-0005"]) == {}


@pytest.mark.parametrize("order", [(ANN, "carl@x.com"), ("carl@x.com", ANN)])
def test_when_both_holders_are_erased_nothing_of_their_device_is_left(
    town: Runner, order: tuple[str, str]
) -> None:
    written = [forgotten(town, email) for email in order]
    assert readings(town, SHARED) == []
    assert left_in(town, [*ALL_OF_ANN, SHARED, "carl@x.com"]) == {}
    assert receipts(town.lake, town.engine) == written


def test_broken_records_of_a_shared_device_are_not_taken_for_the_persons(
    town: Runner, without: Runner
) -> None:
    broken = [
        Line(f'{{"email": "carl@x.com", "serialNumber": "{SHARED}", "oops"'),
        Line(customer("carl@x.com", SHARED) | {"registrationDate": "never"}),
    ]
    for runner in (town, without):
        write(runner.lake, "customer/landing/ingestion_date=2023-08-10/broken.json", broken)
        write(
            runner.lake,
            "step_trainer/landing/ingestion_date=2023-08-10/broken.json",
            [Line(device(100, SHARED) | {"distanceFromObject": 1.5})],
        )
        runner.reconcile(False)
    forgotten(town)
    assert stored_rows(town.lake) == stored_rows(without.lake)


# Every spelling.

ESCAPED = "ann\\u0040x.com"
LETTERS = "\\u0041\\u006e\\u006E@x.c\\u006fm"


@pytest.mark.parametrize("email", [ESCAPED, LETTERS])
def test_an_email_in_escapes_is_found_in_good_and_in_broken_records(
    town: Runner, email: str
) -> None:
    lines = [
        json.dumps(customer("EMAIL", "Serial-New-0009", customerName="x")).replace("EMAIL", email),
        f'{{"email": "{email}", "broken',
        f'{{"EMAIL": 1, "other": {{"deep": ["call {email}, please"]}}}}',
        f'"{email}"',
    ]
    path = write(
        town.lake, f"customer/landing/{FOLDER}/escapes.json", [Line(line) for line in lines]
    )
    town.reconcile(False)
    key = path.relative_to(town.lake.storage.folder).as_posix()
    assert forgotten(town).records[key] == len(lines)
    assert path.read_bytes() == b""
    assert left_in(town, [*ALL_OF_ANN, "Serial-New-0009"]) == {}


BROKEN = [
    f'{{"email": "{ANN}", "customerName": "x"',
    f'{{"email": "bob@x.com", "EMAIL": "{ANN}"}}',
    json.dumps({"other": {"friends": [{"mail": f" {ANN.upper()} "}]}}),
    json.dumps(customer(ANN, ANNS_OWN) | {"registrationDate": "yesterday"}),
    json.dumps(customer(ANN, " ")),
    f"mailto={ANN}!",
    f"Write to {ANN}. She answers.",
    f'"first line\\n{ANN}\\tand more"',
    f"{{'email': '{ANN}'}}",
    f"oops {ANNS_OWN}",
]


def test_records_that_could_not_be_read_are_found_by_the_email_in_them(
    town: Runner, without: Runner
) -> None:
    for runner, texts in ((town, BROKEN), (without, [])):
        for number, text in enumerate([*texts, "oops"]):
            lines = [Line(text)] if text in texts else []
            eve = Line(customer("eve@x.com", "Serial-Of-Eve"))
            write(runner.lake, f"customer/landing/{FOLDER}/{number}.json", [*lines, eve])
        for number in range(len(texts), len(BROKEN)):
            write(runner.lake, f"customer/landing/{FOLDER}/{number}.json", [eve])
            write(runner.lake, f"customer/landing/{FOLDER}/{len(BROKEN)}.json", [eve])
        runner.reconcile(False)
    rejected = stored_rows(town.lake)["customer_rejects"]["2023-08-06"]
    assert {row[3] for row in rejected} == set(BROKEN)
    forgotten(town)
    assert left_in(town) == {}
    assert stored_rows(town.lake) == stored_rows(without.lake)


MENTIONS: list[dict[str, object]] = [
    {"customerName": f"c/o {ANN}"},
    {"customerName": f"c/o {ANN}", "unknown": 1},
    {"unknown": {"friends": [ANN.upper()]}},
    {"customerName": f"on loan: {ANNS_OWN}"},
]


def test_somebody_elses_records_that_name_the_person_are_told_and_left(town: Runner) -> None:
    keys = []
    for mention in MENTIONS:
        record = customer("eve@x.com", "Serial-Of-Eve", **mention)  # type: ignore[arg-type]
        plain = json.dumps(record)
        for text in (plain, plain.replace("@x", "\\u0040x"), plain.replace("S", "\\u0053")):
            keys.append(f"customer/landing/{FOLDER}/{len(keys)}.json")
            write(town.lake, keys[-1], [Line(text)])
    town.reconcile(False)
    receipt = forget(town)
    assert receipt
    assert [key for key in keys if key not in receipt.left] == []
    assert ANN not in json.dumps(vars(receipt))
    assert set(receipt.left) == set(left_in(town))


def test_a_text_that_names_them_and_has_a_record_that_is_too_long_is_told_with_that(
    town: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"customer/landing/{FOLDER}/long.json"
    write(town.lake, key, [Line(f'{{"email": "{ANN}", "more": "{"x" * 1000}"}}', True)])
    monkeypatch.setattr(reader_of_records, "_LONGEST_RECORD", 1000)
    town.reconcile(False)
    receipt = forget(town)
    assert receipt
    assert receipt.left == {key: "a record on line 1 is longer than 1,000 letters"}


def test_serial_numbers_of_less_than_six_letters_are_not_looked_for_in_texts(town: Runner) -> None:
    for serial in ("Six-06", "Five5"):
        write(
            town.lake,
            f"customer/landing/{FOLDER}/{len(serial)} of {serial}.json",
            [Line(customer(ANN, serial)), Line(customer("eve@x.com", "Serial-Of-Eve"))],
        )
        told_of = town.lake.storage.folder / f"{len(serial)} told of {serial}.txt"
        told_of.write_text(f"on loan: {serial}")
    town.reconcile(False)
    receipt = forget(town)
    assert receipt
    assert set(receipt.left) == {
        f"customer/landing/{FOLDER}/6 of (the person).json",
        "6 told of (the person).txt",
    }


def test_a_file_that_has_the_email_in_its_name_is_told_without_naming_the_person(
    town: Runner,
) -> None:
    write(
        town.lake,
        f"customer/landing/{FOLDER}/{ANN}.json",
        [Line(customer("eve@x.com", "Serial-Of-Eve")), Line(customer(ANN, ANNS_OWN))],
    )
    town.reconcile(False)
    receipt = forget(town)
    assert receipt
    assert f"customer/landing/{FOLDER}/(the person).json" in receipt.left
    assert ANN not in json.dumps(vars(receipt))


def test_a_file_with_the_longest_name_that_a_disk_takes_is_replaced_as_well(town: Runner) -> None:
    name = "a" * 250 + ".json"
    write(town.lake, f"customer/landing/{FOLDER}/{name}", [Line(customer(ANN, ANNS_OWN))])
    forgotten(town)
    assert left_in(town) == {}


def test_the_person_is_taken_out_of_files_that_are_not_read_too(town: Runner) -> None:
    plain = json.dumps(customer(ANN, ANNS_OWN))
    paths = [
        write(
            town.lake,
            f"customer/landing/{name}",
            [Line(text), Line(customer("eve@x.com", "Serial-Of-Eve"))],
        )
        for text in (plain, plain.replace("@", "\\u0040"))
        for number in [len(text)]
        for name in (
            f"_{number}.json",
            f".{number}.json",
            f"_b/{number}.json",
            f"ingestion_date=1999-01-01/{number}.json",
            f"ingestion_date=never/{number}.json",
        )
    ]
    shared = write(
        town.lake,
        "step_trainer/landing/_hidden.json",
        [Line(device(100, SHARED)), Line(device(300, SHARED))],
    )
    forgotten(town)
    assert [json.loads(path.read_text())["email"] for path in paths] == ["eve@x.com"] * 10
    assert json.loads(shared.read_text())["sensorReadingTime"] == 300


def test_what_is_no_landing_file_and_names_the_person_is_told(town: Runner) -> None:
    contents = {
        "a.json.tmp": ANN.encode(),
        "a.csv": ANN.upper().encode(),
        ".a.swp": b"\0\0" + ANN.encode(),
        "latin-1.json": f"{ANN} \xe9".encode("latin-1"),
        "utf-16.json": f"\ufeff{ANN}".encode("utf-16-le"),
    }
    for name, content in {**contents, "b.csv": b"bob@x.com"}.items():
        (town.lake.storage.folder / f"customer/landing/{FOLDER}/{name}").write_bytes(content)
    town.reconcile(False)
    receipt = forget(town)
    assert receipt
    assert set(receipt.left) == {f"customer/landing/{FOLDER}/{name}" for name in contents}
    for name, content in contents.items():
        path = town.lake.storage.folder / f"customer/landing/{FOLDER}/{name}"
        assert path.read_bytes() == content


def test_parquet_that_others_put_there_is_searched_too_also_in_its_lists(town: Runner) -> None:
    folder = town.lake.storage.folder / "exports"
    folder.mkdir()
    for name, column in {"hers": [[{"mail": ANN}]], "others": [[{"mail": "joann@x.com"}]]}.items():
        pq.write_table(pa.table({"id": [1], "friends": column}), folder / f"{name}.parquet")
    receipt = forget(town)
    assert receipt
    assert list(receipt.left) == ["exports/hers.parquet"]


def test_what_is_found_is_told_a_line_each(lake: Lake) -> None:
    with open_engine(lake) as engine:
        nothing = find(lake, engine, landed_now(lake), ANN)
    assert [*as_lines(nothing)] == []
    assert not nothing.anything
    old = StoredFile("a.json", 1, moment(), "1")
    for one in (
        {"records": {"a.json": 1}},
        {"rows": {"customer_trusted": 1}},
        {"old_versions": (old,)},
        {"pending": "erasures/a"},
    ):
        assert replace(nothing, **one).anything, one  # type: ignore[arg-type]
    found = replace(
        nothing,
        records={"a.json": 1234},
        rows={"customer_trusted": 2},
        old_versions=(old, old, old),
        by_hand={"b.json": "it is a link"},
        snapshots=("july", "august"),
    )
    assert [*as_lines(found)] == [
        f"{'landing file or table':70}{'records or rows':>17}",
        f"{'a.json':70}{'1,234':>17}",
        f"{'customer_trusted':70}{'2':>17}",
        f"{'old versions of files':70}{'3':>17}",
        "To be mended by hand: b.json: it is a link",
        "Models know the person that were trained on: july, august",
    ]


# What a storage keeps of files that were replaced.


@pytest.fixture
def keeping(bucket: Bucket) -> Iterator[Runner]:
    """Over an empty lake in a bucket that keeps what is replaced."""
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    opened = Runner(S3Path(bucket.name, "lake"))
    yield opened
    opened.end()


def deliver(bucket: Bucket, source: str, name: str, *versions: object) -> str:
    """Put versions of a landing file, each of some records, one after the other; gives its key."""
    key = f"{source}/landing/{FOLDER}/{name}"
    for version in versions:
        records = version if isinstance(version, list) else [version]
        bucket.put(f"lake/{key}", "".join(f"{json.dumps(of)}\n" for of in records).encode())
    return key


def old_in(bucket: Bucket) -> list[str]:
    """The keys of the lake's old versions, but for those of the list of whom to keep out."""
    found = bucket.client.list_object_versions(Bucket=bucket.name).get("Versions", [])
    keys = [of["Key"].removeprefix("lake/") for of in found if not of["IsLatest"]]
    return sorted(key for key in keys if not key.startswith("erasures/"))


EVE = customer("eve@x.com", "Serial-Of-Eve")


def test_old_versions_of_the_persons_files_and_of_tables_go_and_others_stay(
    bucket: Bucket, keeping: Runner
) -> None:
    carl = customer("carl@x.com", SHARED)
    deliver(bucket, "customer", "a.json", [customer(ANN, SHARED), carl])
    deliver(bucket, "accelerometer", "a.json", [phone(ANN, 100), phone("carl@x.com", 300)])
    deliver(bucket, "customer", "hers.json", customer(ANN, SHARED), EVE)
    deliver(bucket, "step_trainer", "at her moment.json", device(100, SHARED), device(301, SHARED))
    bucket.put("lake/notes.txt", f"call {ANN}".encode())
    bucket.put("lake/notes.txt", b"")
    stay = [
        deliver(bucket, "customer", "others.json", EVE, [EVE, EVE]),
        deliver(bucket, "customer", "no landing file.csv", EVE, []),
        deliver(bucket, "step_trainer", "at his.json", device(300, SHARED), device(302, SHARED)),
        "ledger.json",
    ]
    for content in (b"of another program", b"of another program, too"):
        bucket.put("lake/ledger.json", content)
    keeping.reconcile(False)
    bucket.put(f"lake/customer/trusted/{FOLDER}/part-0.parquet", b"damaged")
    keeping.reconcile(True)
    before = old_in(bucket)
    assert forget(keeping, "nobody@x.com") is None
    assert old_in(bucket) == before
    receipt = forgotten(keeping)
    assert old_in(bucket) == sorted(stay)
    assert receipt.old_versions >= len(before) - len(stay)


def test_of_who_is_in_old_versions_alone_those_of_tables_go_that_follow_from_them(
    bucket: Bucket, keeping: Runner
) -> None:
    for records in ([customer(ANN, ANNS_OWN), EVE], [EVE]):
        key = deliver(bucket, "customer", "a.json", records)
        keeping.reconcile(False)

    def found(email: str) -> list[str]:
        of = find(keeping.lake, keeping.engine, landed_now(keeping.lake), email)
        assert not of.records
        assert not of.rows
        assert of.anything == bool(of.old_versions)
        return sorted(file.key for file in of.old_versions)

    assert found(ANN) == old_in(bucket)
    assert found("nobody@x.com") == []
    (of_landing,) = (
        of
        for of in bucket.client.list_object_versions(Bucket=bucket.name)["Versions"]
        if of["Key"] == f"lake/{key}" and not of["IsLatest"]
    )
    bucket.client.delete_object(
        Bucket=bucket.name, Key=of_landing["Key"], VersionId=of_landing["VersionId"]
    )
    tables = ("customer/landing_parquet", "customer/trusted")
    assert found(ANN) == [f"{table}/{FOLDER}/part-0.parquet" for table in tables]
    forgotten(keeping)
    assert found(ANN) == []


@pytest.mark.parametrize("where", ["in files", "in tables", "in an erasure that was interrupted"])
def test_of_who_is_somewhere_alone_old_versions_of_tables_go_whatever_is_in_them(
    bucket: Bucket, keeping: Runner, where: str
) -> None:
    of_nobody = BytesIO()
    pq.write_table(pa.table({"a": [1]}), of_nobody)
    old = f"step_trainer/trusted/{FOLDER}/part-0.parquet"
    bucket.put(f"lake/{old}", of_nobody.getvalue())
    bucket.client.delete_object(Bucket=bucket.name, Key=f"lake/{old}")

    def found() -> Found:
        return find(keeping.lake, keeping.engine, landed_now(keeping.lake), ANN)

    assert found().old_versions == ()
    key = deliver(bucket, "customer", "a.json", [customer(ANN, ANNS_OWN), EVE])
    if where != "in files":
        keeping.reconcile(False)
        if where != "in tables":
            begin(keeping.lake, keeping.engine, found(), "", datetime.now(UTC))
            keeping.reconcile(True)
        for of in bucket.client.list_object_versions(Bucket=bucket.name)["Versions"]:
            if of["Key"] == f"lake/{key}":
                bucket.client.delete_object(
                    Bucket=bucket.name, Key=of["Key"], VersionId=of["VersionId"]
                )
    of_ann = found()
    assert [bool(of_ann.records), bool(of_ann.rows), bool(of_ann.pending)] == [
        where == of for of in ("in files", "in tables", "in an erasure that was interrupted")
    ]
    assert old in {file.key for file in of_ann.old_versions}


def test_an_old_version_with_a_record_that_is_too_long_is_searched_as_text(
    bucket: Bucket, keeping: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_of_records, "_LONGEST_RECORD", 1000)
    deliver(bucket, "customer", "a.json", {"email": "eve@x.com", "more": "x" * 1000}, EVE)
    hers = deliver(bucket, "customer", "hers.json", {"email": ANN, "more": "x" * 1000}, EVE)
    found = find(keeping.lake, keeping.engine, landed_now(keeping.lake), ANN)
    assert [file.key for file in found.old_versions] == [hers]


def test_nothing_is_changed_if_an_old_version_cannot_be_read(
    bucket: Bucket, keeping: Runner
) -> None:
    key = deliver(bucket, "customer", "a.json.gz", [])
    whole = gzip.compress(json.dumps(EVE).encode())
    for content in (whole[:-9], whole):
        bucket.put(f"lake/{key}", content)
    before = old_in(bucket)
    with pytest.raises(ErasureError, match=f"an old version of {key}: .* nothing was changed|"):
        forget(keeping)
    assert old_in(bucket) == before


def test_an_old_version_that_stays_is_told(
    bucket: Bucket, keeping: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = deliver(bucket, "customer", "hers.json", customer(ANN, ANNS_OWN), EVE)
    monkeypatch.setattr(keeping.lake.storage, "remove_version", lambda file: None)
    receipt = forget(keeping)
    assert receipt
    assert receipt.left[key] == "an old version"


# What stops it.


def test_nothing_is_changed_if_a_landing_file_is_cut_short(town: Runner) -> None:
    key = f"accelerometer/landing/{FOLDER}/cut.json.gz"
    whole = gzip.compress(json.dumps(phone("bob@x.com", 1)).encode() * 100)
    (town.lake.storage.folder / key).write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        assert (says := told(town)).startswith("1 files cannot be read, and may hold something")
        assert f"{key}: the file cannot be decompressed" in says
        assert "Mend or remove them" in says
        town.reconcile(False)


@pytest.mark.parametrize("table", ["accelerometer/trusted", "step_trainer/curated"])
def test_nothing_is_changed_if_a_partition_is_damaged(town: Runner, table: str) -> None:
    path = next((town.lake.storage.folder / table).rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    says = told(town)
    assert path.relative_to(town.lake.storage.folder).as_posix() in says
    assert "`stedi reconcile` makes again" in says
    town.reconcile(True)
    forgotten(town)


def test_a_landing_file_that_the_disk_does_not_give_is_named(
    town: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the disk's error."""
    name = f"bad {ANN}.json"
    write(town.lake, f"customer/landing/{FOLDER}/{name}", [Line(customer("eve@x.com", "e"))])
    before = all_bytes(town.lake.storage.folder)
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return opened(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(ErasureError) as error:
            forget(town)
    assert "bad (the person).json: [Errno 5] Input/output error" in str(error.value)
    assert ANN not in str(error.value)
    assert all_bytes(town.lake.storage.folder) == before


def test_a_landing_file_that_is_gone_since_it_was_listed_is_told_as_that(town: Runner) -> None:
    key = f"customer/landing/{FOLDER}/gone.json"
    write(town.lake, key, [Line(customer("eve@x.com", "e"))])
    landed = landed_now(town.lake)
    (town.lake.storage.folder / key).unlink()
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        find(town.lake, town.engine, landed, ANN)


@pytest.mark.parametrize("is_of_tables", [True, False])
def test_nothing_is_changed_if_the_disk_does_not_give_a_file(
    town: Runner, is_of_tables: bool
) -> None:
    # Of this file every read fails, also those of root.
    key = f"customer/landing/{FOLDER}/{'' if is_of_tables else '_'}bad {ANN}.json"
    (town.lake.storage.folder / key).symlink_to("/proc/self/mem")
    says = told(town)
    assert "bad (the person).json" in says
    assert "Mend or remove" in says


def test_nothing_is_changed_if_who_asks_for_it_is_named_as_the_person(town: Runner) -> None:
    before = all_bytes(town.lake.storage.folder)
    found = find(town.lake, town.engine, landed_now(town.lake), ANN)
    for asked_by in (ANN, f"Ticket of {ANN.upper()}", ANNS_NAME, f"call {ANNS_PHONE}", ANNS_OWN):
        with pytest.raises(ErasureError, match="must not name the person"):
            begin(town.lake, town.engine, found, asked_by, moment())
    assert all_bytes(town.lake.storage.folder) == before


def test_a_landing_file_that_was_changed_meanwhile_is_not_replaced(town: Runner) -> None:
    lake = town.lake
    found = find(lake, town.engine, landed_now(lake), ANN)
    key = next(iter(TOWN))
    changed = write(lake, key, [*TOWN[key], Line(customer("new@x.com", "Serial-New"))])
    content = changed.read_bytes()
    with pytest.raises(ErasureError, match="was changed meanwhile"):
        begin(lake, town.engine, found, "ticket", moment())
    assert changed.read_bytes() == content
    forgotten(town)
    assert "new@x.com" in changed.read_text()
    assert left_in(town) == {}


def test_a_file_that_may_still_be_written_to_is_left_alone(town: Runner) -> None:
    before = all_bytes(town.lake.storage.folder)
    key = next(key for key in TOWN if key.startswith("customer"))
    (town.lake.storage.folder / key).touch()
    with pytest.raises(ErasureError, match="may still be written to, so nothing was changed"):
        find(town.lake, town.engine, landed_now(town.lake, SETTLED_AFTER), ANN)
    assert all_bytes(town.lake.storage.folder) == before
    assert find(town.lake, town.engine, landed_now(town.lake), ANN).anything


def test_of_several_files_of_a_date_that_may_still_be_written_to_none_is_replaced(
    town: Runner,
) -> None:
    for key in TOWN:
        path = town.lake.storage.folder / key
        content, time = path.read_bytes(), path.stat().st_mtime - 3600
        path.unlink()  # it is a link to that of all tests
        path.write_bytes(content)
        os.utime(path, (time, time))
    customers = next(key for key in TOWN if key.startswith("customer") and FOLDER in key)
    (town.lake.storage.folder / customers).touch()
    for source in ("accelerometer", "step_trainer"):  # of the same date, and not Ann's
        land(town.lake, source, FOLDER.partition("=")[2], "{}", name="later.json")
    with pytest.raises(ErasureError, match="may still be written to, so nothing was changed"):
        find(town.lake, town.engine, landed_now(town.lake, SETTLED_AFTER), ANN)


def test_what_is_a_persons_is_found_also_by_records_of_a_date_that_is_still_to_be_read(
    lake: Lake,
) -> None:
    """Of a date nothing is in the tables yet, and a run would wait for a file of just now."""
    old = datetime.now().timestamp() - 3600
    theirs = {"customer": customer(ANN, "s-ann"), "step_trainer": device(1, "s-ann")}
    for source, record in theirs.items():
        path = land(lake, source, "2023-08-06", record)
        assert isinstance(path, Path)
        os.utime(path, (old, old))
    land(lake, "customer", "2023-08-06", customer("eve@x.com", "s-eve"), name="just now.json")
    with open_engine(lake) as engine:
        found = find(lake, engine, landed_now(lake, SETTLED_AFTER), ANN)
    assert sorted(found.records) == [
        f"{source}/landing/ingestion_date=2023-08-06/file.json"
        for source in ("customer", "step_trainer")
    ]


def test_a_link_is_told_and_neither_it_nor_what_it_leads_to_is_changed(
    town: Runner, tmp_path: Path
) -> None:
    target = tmp_path / "drop.json"
    target.write_text(json.dumps(customer(ANN, ANNS_OWN)))
    key = f"customer/landing/{FOLDER}/link.json"
    link = town.lake.storage.folder / key
    link.symlink_to(target)
    receipt = forget(town)
    assert receipt
    assert receipt.left == {key: "it is a link, and what it leads to holds 1 records"}
    assert link.is_symlink()
    assert ANN in target.read_text()


def test_a_landing_file_that_is_no_text_is_told_for_nobody_can_search_it(town: Runner) -> None:
    key = f"customer/landing/{FOLDER}/packed.json.bz2"
    (town.lake.storage.folder / key).write_bytes(bz2.compress(ANN.encode()))
    town.reconcile(False)
    receipt = forget(town)
    assert receipt
    assert list(receipt.left) == [key]
    assert receipt.left[key].startswith("the name does not end in .json")


def test_with_another_key_nothing_is_read_for_nobody_could_be_kept_out(
    town: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = (town.lake.storage.folder / next(iter(TOWN))).read_bytes()
    forgotten(town)
    town.end()
    (town.lake.storage.folder / f"customer/landing/{FOLDER}/again.json").write_bytes(again)
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "another key")
    other = Runner(town.lake.storage.folder)
    with pytest.raises(OtherKeyError, match="1 parts of the list of erased people"):
        other.reconcile(False)
    other.end()
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    with_it = Runner(town.lake.storage.folder)
    with_it.reconcile(False)
    landed = stored_rows(with_it.lake)["customer_landing"].values()
    assert ANN not in {row[1].strip().lower() for rows in landed for row in rows}
    with_it.end()


def test_rows_of_tables_that_were_not_made_again_are_told_as_left(town: Runner) -> None:
    """Those of shared devices among them, though the readings that say which are gone."""
    found = find(town.lake, town.engine, landed_now(town.lake), ANN)
    begin(town.lake, town.engine, found, "", moment())
    receipt = finish(town.lake, town.engine, landed_now(town.lake), found, moment())
    assert found.rows
    told_of = {name: f"{count:,} rows" for name, count in found.rows.items()}
    assert {name: of for name, of in receipt.left.items() if name in TABLES} == told_of


def test_who_comes_second_is_told_that_it_was_done(town: Runner) -> None:
    lake = town.lake
    found = find(lake, town.engine, landed_now(lake), ANN)
    begin(lake, town.engine, found, "ticket", moment())
    town.reconcile(False)
    finish(lake, town.engine, landed_now(lake), found, moment())
    with pytest.raises(ErasureError, match="Somebody else has finished it meanwhile"):
        finish(lake, town.engine, landed_now(lake), found, moment())


# What comes again.


def test_a_date_is_not_held_back_for_the_records_of_somebody_who_was_erased(town: Runner) -> None:
    forgotten(town)
    write(
        town.lake,
        "customer/landing/ingestion_date=2023-08-10/new.json",
        [Line(customer(ANN, ANNS_OWN), True), Line(EVE)],
    )
    town.reconcile(False)
    assert stored_rows(town.lake)["customer_trusted"]["2023-08-10"].total() == 1


@pytest.mark.parametrize(
    ("name", "is_mixed"),
    [
        ("again-1691366400000.json.gz", True),
        ("ingestion_date=2023-08-10/again.json", False),
    ],
)
def test_what_comes_again_is_kept_out_and_does_not_hold_its_date_back(
    town: Runner, name: str, is_mixed: bool
) -> None:
    forgotten(town)
    before = stored_rows(town.lake)
    again: dict[str, list[Line]] = {
        source: [
            line
            for key, lines in TOWN.items()
            if key.startswith(source)
            for line in lines
            if line.is_anns or is_mixed
        ]
        for source in ("customer", "accelerometer", "step_trainer")
    }
    again["customer"].append(Line(f'{{"email": "{ANN}", "broken', True))
    for source, lines in again.items():
        write(town.lake, f"{source}/landing/{name}", lines)
    town.reconcile(False)
    after = stored_rows(town.lake)
    for source, lines in again.items():
        new = [
            row
            for day, rows in after[f"{source}_rejects"].items()
            for row in (rows - before[f"{source}_rejects"].get(day, type(rows)())).elements()
        ]
        assert [row[2:] for row in new] == [("erased", None)] * sum(line.is_anns for line in lines)
        landed = sum(
            rows.total() - before[f"{source}_landing"].get(day, type(rows)()).total()
            for day, rows in after[f"{source}_landing"].items()
        )
        assert landed == sum(not line.is_anns for line in lines)
    tables = [f for f in left_in(town) if "/landing/" not in f]
    assert tables == []
    if not is_mixed:
        for name_of_table, rows_of_table in after.items():
            if not name_of_table.endswith("_rejects"):
                assert rows_of_table == before[name_of_table]
    receipt = forgotten(town)
    assert sum(receipt.records.values()) == sum(
        line.is_anns for lines in again.values() for line in lines
    )
    assert left_in(town) == {}


# Interruptions.


class Killed(BaseException):
    """Stands for the end of the process."""


class MortalStorage(LocalStorage):
    """A storage whose user dies at one of the changes, before it is made."""

    changes_to_live: int | None = None

    def _live(self) -> None:
        if self.changes_to_live is not None:
            if self.changes_to_live == 0:
                raise Killed
            self.changes_to_live -= 1

    def publish(self, *arguments: object, **named: object) -> None:
        self._live()
        super().publish(*arguments, **named)  # type: ignore[arg-type]

    def remove(self, key: str) -> None:
        self._live()
        super().remove(key)

    def remove_version(self, file: StoredFile) -> None:
        self._live()
        super().remove_version(file)

    def forget_cached(self) -> None:
        self._live()
        super().forget_cached()


SMALL: dict[str, list[Line]] = {
    key: lines for key, lines in TOWN.items() if "undated" not in key
} | {
    f"step_trainer/landing/{FOLDER}/_hidden.json": [
        Line(device(100, ANNS_OWN), True),
        Line(device(100, BOBS)),
    ]
}


def rows_of_ann(runner: Runner) -> int:
    """Rows of the tables in which something of Ann stands."""
    words = [word.lower() for word in ALL_OF_ANN]
    return sum(
        count
        for by_date in stored_rows(runner.lake).values()
        for rows in by_date.values()
        for row, count in rows.items()
        if {str(value).strip().lower() for value in row}.intersection(words)
    )


def test_killed_at_any_change_it_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    """Every third change of the storage here; real processes die in end_to_end/test_kills.py."""
    original = Runner(tmp_path / "original")
    build(original.lake, SMALL)
    original.reconcile(False)
    original.end()
    content = all_bytes(original.lake.storage.folder)

    def copy(name: str) -> Runner:
        runner = Runner(tmp_path / name)
        for key, of_file in content.items():
            path = runner.lake.storage.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(of_file)
        runner.lake.storage = MortalStorage(runner.lake.storage.folder)
        runner.reconcile(False)
        return runner

    def anonymous(receipt: Receipt) -> Receipt:
        return replace(receipt, asked_at="", finished_at="")

    undisturbed = copy("undisturbed")
    expected = anonymous(forgotten(undisturbed))
    tables = stored_rows(undisturbed.lake)
    undisturbed.end()
    for changes in range(0, 1000, 3):
        runner = copy(f"killed at {changes}")
        storage = runner.lake.storage
        assert isinstance(storage, MortalStorage)
        before = rows_of_ann(runner)
        storage.changes_to_live = changes
        try:
            forgotten(runner)
            is_done = True
        except Killed:
            is_done = False
        storage.changes_to_live = None
        runner.end()
        if not is_done:
            left = rows_of_ann(runner)
            assert left <= before
            if changes % 2:
                runner.reconcile(False)
                assert rows_of_ann(runner) <= left
                runner.end()
            interrupted = receipts(runner.lake, runner.engine)
            assert [receipt.finished_at for receipt in interrupted] == [""] * bool(changes)
            assert anonymous(forgotten(runner)) == expected, changes
        assert stored_rows(runner.lake) == tables, changes
        assert traces(storage.folder) == {}, changes
        (receipt,) = receipts(runner.lake, runner.engine)
        assert receipt.finished_at
        runner.end()
        if is_done:
            assert changes > len(expected.records) + len(expected.rows)
            return
    pytest.fail("it never ended")


def test_an_erasure_that_goes_on_leaves_devices_alone_that_nobody_holds(town: Runner) -> None:
    write(
        town.lake,
        f"step_trainer/landing/{FOLDER}/nobodys.json",
        [Line(device(100, "Nobodys-9")), Line(device(5000, "Nobodys-9"))],
    )
    town.reconcile(False)
    found = find(town.lake, town.engine, landed_now(town.lake), ANN)
    begin(town.lake, town.engine, found, "", datetime.now(UTC))
    receipt = forgotten(town)
    assert receipt.person == found.person
    assert left_in(town) == {}
    assert readings(town, "Nobodys-9") == [100, 5000]


def test_a_person_whose_erasure_was_interrupted_can_be_erased_with_another_in_between(
    town: Runner,
) -> None:
    storage = MortalStorage(town.lake.storage.folder)
    town.lake.storage = storage
    storage.changes_to_live = 3
    with pytest.raises(Killed):
        forget(town)
    storage.changes_to_live = None
    (interrupted,) = receipts(town.lake, town.engine)
    assert (interrupted.finished_at, interrupted.asked_by) == ("", "ticket 4711")
    assert (interrupted.old_versions, interrupted.left) == (0, {})
    of_carl, of_ann = forgotten(town, "carl@x.com"), forgotten(town)
    assert of_ann.person == interrupted.person != of_carl.person
    assert receipts(town.lake, town.engine) == [of_ann, of_carl]
    assert left_in(town, [*ALL_OF_ANN, SHARED, "carl@x.com"]) == {}


def test_what_their_device_measures_after_an_interruption_goes_when_the_erasure_goes_on(
    town: Runner,
) -> None:
    """When it goes on, no table says any more whose the device is."""
    found = find(town.lake, town.engine, landed_now(town.lake), ANN)
    begin(town.lake, town.engine, found, "ticket", moment())
    town.reconcile(False)
    later = int((datetime.now().timestamp() + 3600) * 1000)
    write(
        town.lake,
        "step_trainer/landing/ingestion_date=2023-08-10/later.json",
        [Line(device(later, ANNS_OWN)), Line(device(later, SHARED))],
    )
    town.reconcile(False)
    assert readings(town, ANNS_OWN) == [later]
    forgotten(town)
    assert left_in(town) == {}
    assert readings(town, SHARED) == [300, 401, later]


def test_pseudonyms_of_the_erased_are_not_those_on_the_list(town: Runner) -> None:
    forgotten(town)
    hashes = {pseudonym(ANN), pseudonym(ANNS_OWN), pseudonym(SHARED)}
    assert traces(town.lake.storage.folder / "erasures", hashes) == {}
