"""The sample: what it contains, and that its counts are right.

What the pipeline makes of a sample is not tested here.
"""

import json
import os
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stedi_assets.sample_data import FIRST_DAY, SOURCES, count_tables, write_sample

TABLES = [
    "customer_landing",
    "accelerometer_landing",
    "step_trainer_landing",
    "customer_trusted",
    "accelerometer_trusted",
    "customers_curated",
    "step_trainer_trusted",
    "machine_learning_curated",
    "customer_rejects",
    "accelerometer_rejects",
    "step_trainer_rejects",
]
RESEARCH = "shareWithResearchAsOfDate"
REFERENCE = Path(
    os.environ.get("STEDI_REFERENCE") or Path(__file__).resolve().parents[1] / "../shared/reference"
)

# The shape of a good line, told apart from the bad ones without the module's own rules.
SHAPES = {
    "customer": re.compile(
        r'\{"customerName": "\w+ \w+", "email": " *[\w.]+@\w+\.\w+ *", "phone": "\d{10}", '
        r'"birthDay": "\d{4}-\d\d-\d\d", "serialNumber": "[0-9a-f-]{36}", '
        r'"registrationDate": \d{13}, "lastUpdateDate": \d{13}(, "shareWith\w+AsOfDate": \d+)*\}'
    ),
    "accelerometer": re.compile(
        r'\{"user":"[\w.]+@test\.com","timestamp":\d{13},'
        r'"x":(-1|0|1)\.0,"y":(-1|0|1)\.0,"z":(-1|0)\.0\}'
    ),
    "step_trainer": re.compile(
        r'\{"sensorReadingTime":\d{13},"serialNumber":"[0-9a-f-]{36}",'
        r'"distanceFromObject":(20[1-9]|2[1-9]\d|300)\}'
    ),
}


def files_of(lake: Path) -> dict[str, bytes]:
    return {
        path.relative_to(lake).as_posix(): path.read_bytes()
        for path in lake.rglob("*")
        if path.is_file()
    }


def lines_by_day(lake: Path, source: str) -> dict[str, list[str]]:
    days: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted((lake / source / "landing").iterdir()):
        milliseconds = int(path.stem.removeprefix(f"{source}-"))
        day = datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
        days[day] += path.read_text(encoding="utf-8").splitlines()
    return dict(days)


def good_lines(lake: Path, source: str) -> list[str]:
    return [
        line
        for lines in lines_by_day(lake, source).values()
        for line in lines
        if SHAPES[source].fullmatch(line)
    ]


def good_records(lake: Path, source: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in good_lines(lake, source)]


def histories(lake: Path) -> dict[str, list[dict[str, Any]]]:
    """Each person's different records, oldest first."""
    people = defaultdict(list)
    for line in set(good_lines(lake, "customer")):
        record = json.loads(line)
        people[record["email"].strip().lower()].append(record)
    return {
        person: sorted(records, key=lambda record: record["lastUpdateDate"])
        for person, records in people.items()
    }


def land(lake: Path, source: str, milliseconds: int, *lines: str) -> None:
    folder = lake / source / "landing"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(line + "\n" for line in lines)
    (folder / f"{source}-{milliseconds}.json").write_text(text, encoding="utf-8")


def customer(email: str, serial: str, updated: int, **more: object) -> str:
    record = {"email": email, "serialNumber": serial, "registrationDate": 10}
    return json.dumps(record | {"lastUpdateDate": updated} | more)


def phone(user: str, timestamp: int, x: float) -> str:
    return json.dumps({"user": user, "timestamp": timestamp, "x": x, "y": 0.0, "z": 0.0})


def device(time: int, serial: str, distance: int) -> str:
    record = {"sensorReadingTime": time, "serialNumber": serial, "distanceFromObject": distance}
    return json.dumps(record)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("lake")
    write_sample(lake)
    return lake


@pytest.fixture(scope="module")
def counts(lake: Path) -> dict[str, int]:
    counts: dict[str, int] = json.loads((lake / "manifest.json").read_bytes())["counts"]
    return counts


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, lake: Path) -> None:
    write_sample(tmp_path, customers=200, days=7, seed=1)
    assert files_of(tmp_path) == files_of(lake)


def test_another_seed_gives_other_bytes(tmp_path: Path, lake: Path) -> None:
    write_sample(tmp_path, seed=2)
    assert files_of(tmp_path) != files_of(lake)
    assert not set(good_lines(tmp_path, "customer")) & set(good_lines(lake, "customer"))


def test_the_manifest_is_returned_and_written_with_every_table_in_order(tmp_path: Path) -> None:
    manifest = write_sample(tmp_path / "new" / "lake", customers=30, days=2, seed=5)
    assert json.loads((tmp_path / "new" / "lake" / "manifest.json").read_bytes()) == manifest
    counts = manifest.pop("counts")
    assert manifest == {"seed": 5, "customers": 30, "days": 2, "first_day": "2023-08-06"}
    assert list(counts) == TABLES
    assert counts == count_tables(tmp_path / "new" / "lake")


def test_only_landing_files_and_the_manifest_are_left(lake: Path) -> None:
    left = set(files_of(lake)) - {"manifest.json"}
    assert all(
        re.fullmatch(r"(customer|accelerometer|step_trainer)/landing/\1-\d{13}\.json", name)
        for name in left
    )


def test_every_source_lands_on_every_day_of_the_default_sample(lake: Path) -> None:
    days = [(FIRST_DAY + timedelta(days=number)).isoformat() for number in range(7)]
    for source in SOURCES:
        assert list(lines_by_day(lake, source)) == days
        files = len(list((lake / source / "landing").iterdir()))
        assert 7 < files <= 21, "some days have more than one file"


def test_one_customer_on_one_day_is_a_sample_without_rejects(tmp_path: Path) -> None:
    for seed in range(20):
        counts = write_sample(tmp_path / str(seed), customers=1, days=1, seed=seed)["counts"]
        assert 1 <= counts["customer_landing"] <= 4
        assert counts["customer_rejects"] == 0


@pytest.mark.parametrize("source", SOURCES)
def test_a_lake_that_holds_landing_files_is_refused_and_left_alone(
    tmp_path: Path, source: str
) -> None:
    held = tmp_path / source / "landing" / "2023" / "anything"
    held.parent.mkdir(parents=True)
    held.write_text("mine")
    with pytest.raises(FileExistsError, match="choose an empty lake") as error:
        write_sample(tmp_path)
    assert str(tmp_path / source / "landing") in str(error.value)
    assert list(files_of(tmp_path)) == [held.relative_to(tmp_path).as_posix()]


@pytest.mark.parametrize("name", ["customers", "days"])
@pytest.mark.parametrize("number", [0, -3])
def test_fewer_than_one_customer_or_day_is_refused(tmp_path: Path, name: str, number: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not {number}"):
        write_sample(tmp_path, **{name: number})
    assert not files_of(tmp_path)


def test_the_lines_are_good_or_counted_as_rejects(lake: Path, counts: dict[str, int]) -> None:
    for source in SOURCES:
        lines = [line for day in lines_by_day(lake, source).values() for line in day]
        good = len(good_lines(lake, source))
        assert counts[f"{source}_landing"] == good
        assert counts[f"{source}_rejects"] == len(lines) - good > 0


@pytest.mark.parametrize(
    ("customers", "days", "seed"), [(200, 7, 1), (200, 7, 2), (25, 1, 3), (60, 5, 4), (400, 3, 5)]
)
def test_fewer_than_four_percent_of_the_lines_of_a_day_are_bad(
    tmp_path: Path, customers: int, days: int, seed: int
) -> None:
    write_sample(tmp_path, customers=customers, days=days, seed=seed)
    for source in SOURCES:
        for lines in lines_by_day(tmp_path, source).values():
            bad = sum(not SHAPES[source].fullmatch(line) for line in lines)
            assert bad / len(lines) < 0.04


def test_each_kind_of_fault_occurs(lake: Path) -> None:
    for source in SOURCES:
        good = set(good_lines(lake, source))
        lines = [line for day in lines_by_day(lake, source).values() for line in day]
        bad = [line for line in lines if line not in good]
        fields = set(json.loads(next(iter(good)))) - {
            "shareWithResearchAsOfDate",
            "shareWithPublicAsOfDate",
            "shareWithFriendsAsOfDate",
        }
        assert any(not line.endswith("}") for line in bad), "cut short"
        whole = [json.loads(line) for line in bad if line.endswith("}")]
        assert any(fields - set(record) for record in whole), "a field is missing"
        values = [value for record in whole for value in record.values()]
        assert any(value == 12.7 for value in values)
        assert any(value is True for value in values)
        assert "" in values
        assert "  " in values
        if source == "accelerometer":
            assert any('"x":NaN' in line for line in bad)


def test_roughly_half_of_the_customers_consent(counts: dict[str, int]) -> None:
    assert 0.4 < counts["customer_trusted"] / 200 < 0.6


def test_some_people_have_no_readings(lake: Path, counts: dict[str, int]) -> None:
    users = {record["user"].lower() for record in good_records(lake, "accelerometer")}
    assert 100 < len(users) < 200
    assert 0 < counts["customers_curated"] < counts["customer_trusted"]


def test_some_consents_are_withdrawn_and_some_come_late(lake: Path) -> None:
    changes = Counter(
        (bool(records[0].get(RESEARCH)), bool(records[-1].get(RESEARCH)))
        for records in histories(lake).values()
    )
    assert changes[True, False] > 0
    assert changes[False, True] > 0


def test_an_absent_consent_is_a_missing_key_or_zero(lake: Path) -> None:
    consents = {record.get(RESEARCH, "missing") for record in good_records(lake, "customer")}
    assert {"missing", 0} < consents


def test_some_people_change_the_spelling_of_their_email(lake: Path) -> None:
    spellings = [{r["email"] for r in records} for records in histories(lake).values()]
    changed = [emails for emails in spellings if len(emails) > 1]
    assert any(len({email.strip() for email in emails}) > 1 for emails in changed), "letter case"
    assert any(len({email.lower() for email in emails}) > 1 for emails in changed), "blanks"
    assert len(spellings) == 200


def test_the_different_records_of_a_person_never_tie(lake: Path) -> None:
    for records in histories(lake).values():
        moments = [record["lastUpdateDate"] for record in records]
        assert len(set(moments)) == len(moments)


def test_an_outdated_consent_comes_again_after_its_withdrawal(lake: Path) -> None:
    last_day = {
        line: day for day, lines in lines_by_day(lake, "customer").items() for line in lines
    }
    records_of = defaultdict(list)
    for line in set(good_lines(lake, "customer")):
        record = json.loads(line)
        moment, consents = record["lastUpdateDate"], bool(record.get(RESEARCH))
        person = record["email"].strip().lower()
        records_of[person].append((moment, consents, last_day[line]))
    assert any(
        first[1] and not latest[1] and first[2] > latest[2]
        for first, *_, latest in (sorted(r) for r in records_of.values() if len(r) > 1)
    )


def test_the_phone_gives_one_to_six_different_readings_for_each_device_reading(lake: Path) -> None:
    user_of = {records[0]["serialNumber"]: user for user, records in histories(lake).items()}
    readings = {
        (user_of[record["serialNumber"]], record["sensorReadingTime"])
        for record in good_records(lake, "step_trainer")
    }
    answers = Counter(
        (record["user"].lower(), record["timestamp"])
        for record in map(json.loads, set(good_lines(lake, "accelerometer")))
    )
    assert set(answers) == readings
    assert set(answers.values()) == {1, 2, 3, 4, 5, 6}


def test_a_day_walked_has_about_thirty_device_readings(lake: Path) -> None:
    walked = Counter(
        (record["serialNumber"], record["sensorReadingTime"] // 86_400_000)
        for record in map(json.loads, set(good_lines(lake, "step_trainer")))
    )
    assert all(20 <= readings <= 30 for readings in walked.values())


@pytest.mark.parametrize("source", SOURCES)
def test_some_lines_are_delivered_again_the_same_day_and_later(lake: Path, source: str) -> None:
    days = defaultdict(list)
    for day, lines in lines_by_day(lake, source).items():
        for line in lines:
            if SHAPES[source].fullmatch(line):
                days[line].append(day)
    twice = [came for came in days.values() if len(came) > 1]
    assert any(len(set(came)) > 1 for came in twice)
    assert any(len(set(came)) == 1 for came in twice)


def test_some_phone_readings_come_first_on_the_day_after(lake: Path) -> None:
    came: dict[str, str] = {}
    for day, lines in lines_by_day(lake, "accelerometer").items():
        for line in lines:
            came.setdefault(line, day)
    late = 0
    for line in set(good_lines(lake, "accelerometer")):
        moment = datetime.fromtimestamp(json.loads(line)["timestamp"] / 1000, UTC)
        assert came[line] >= moment.date().isoformat(), "no reading lands before it is made"
        late += came[line] > moment.date().isoformat()
    assert 0 < late / len(came) < 0.2


def test_some_pairs_are_of_two_customers_who_both_consent(lake: Path) -> None:
    trusted = {user for user, records in histories(lake).items() if records[-1].get(RESEARCH)}
    user_of = {records[0]["serialNumber"]: user for user, records in histories(lake).items()}
    steppers = defaultdict(set)
    for record in good_records(lake, "step_trainer"):
        steppers[record["sensorReadingTime"]].add(user_of[record["serialNumber"]])
    assert any(len(users & trusted) > 1 for users in steppers.values())


def test_the_counts_of_a_folder_made_by_hand(tmp_path: Path) -> None:
    bob = customer("bob@test.com", "b", 10, **{RESEARCH: 10})
    ann = customer("Ann@test.com", "a", 10, **{RESEARCH: 10})
    land(
        tmp_path,
        "customer",
        1691280000000,
        ann,
        bob,
        customer("cy@test.com", "c", 10, **{RESEARCH: 0}),
        customer("dee@test.com", "d", 10, **{RESEARCH: 10}),  # consents, has no readings
        customer("eve@test.com", "e1", 10),
        customer("flo@test.com", "f", 10, **{RESEARCH: 10}),
        customer("gus@test.com", "g", 10, **{RESEARCH: 10}),
    )
    land(
        tmp_path,
        "customer",
        1691366400000,
        customer(" BOB@test.com ", "b", 20),  # withdraws
        ann,
        "",
        customer("eve@test.com", "e2", 20, **{RESEARCH: 20}),  # consents late, with a new device
        customer("flo@test.com", "f", 10, **{RESEARCH: None}),  # withdraws: landed later
        customer("gus@test.com", "g", 10, registrationDate=9),  # as late, but registered earlier
        '{"email": "ann@test.com", "serialNumber": "a", "regist',
    )
    land(tmp_path, "customer", 1691452800000, bob)  # outdated, though it landed last
    land(
        tmp_path,
        "accelerometer",
        1691280000000,
        phone("ann@TEST.com", 100, 1.0),
        phone("ann@TEST.com", 100, 1),  # the same reading
        phone("ann@TEST.com", 100, 0.0),
        phone("bob@test.com", 100, 0.0),
        phone("cy@test.com", 200, 0.0),
        phone("flo@test.com", 200, 0.0),
        phone("nobody@test.com", 100, 0.0),
        phone("", 100, 0.0),
        phone("ann@TEST.com", 100, float("nan")),
    )
    land(
        tmp_path,
        "accelerometer",
        1691366400000,
        phone("eve@test.com", 100, 0.0),
        phone("eve@test.com", 200, 0.0),
    )
    land(
        tmp_path,
        "step_trainer",
        1691280000000,
        device(100, "a", 201),
        device(100, "a", 201),  # the same reading
        device(300, "a", 250),  # no phone reading at that time
        device(100, "b", 250),
        device(100, "d", 250),
        device(100, "e1", 250),
        device(100, "e2", 222),
        device(100, "a", True),
    )
    assert count_tables(tmp_path) == {
        "customer_landing": 13,
        "accelerometer_landing": 9,
        "step_trainer_landing": 7,
        "customer_trusted": 4,  # Ann, Dee, Eve, Gus
        "accelerometer_trusted": 4,  # two of Ann, two of Eve
        "customers_curated": 2,  # Ann, Eve
        "step_trainer_trusted": 3,  # a at 100 and 300, e2 at 100
        "machine_learning_curated": 6,  # a and e2 at 100, each with the three phone readings at 100
        "customer_rejects": 1,
        "accelerometer_rejects": 2,
        "step_trainer_rejects": 1,
    }


def test_an_empty_lake_has_no_rows(tmp_path: Path) -> None:
    assert count_tables(tmp_path) == dict.fromkeys(TABLES, 0)


def test_a_file_without_a_time_in_its_name_is_refused(tmp_path: Path) -> None:
    land(tmp_path, "customer", 12345, customer("ann@test.com", "a", 10))
    with pytest.raises(ValueError, match=r"customer-12345\.json"):
        count_tables(tmp_path)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("customer", "[]"),
        ("customer", "null"),
        ("customer", customer("ann@test.com", "a", 10)[:-1]),
        ("customer", customer("ann@test.com", "a", 10) * 2),
        ("customer", customer("  ", "a", 10)),
        ("customer", customer("ann@test.com", "", 10)),
        ("customer", customer("ann@test.com", "a", 2**63)),
        ("customer", customer("ann@test.com", "a", 10, registrationDate="10")),
        ("customer", customer("ann@test.com", "a", 10, registrationDate=None)),
        ("customer", customer("ann@test.com", "a", 10, phone=5551234)),
        ("customer", customer("ann@test.com", "a", 10, shareWithPublicAsOfDate=False)),
        ("customer", customer("ann@test.com", "a", 10, shareWithFriendsAsOfDate=1.0)),
        ("customer", customer("ann@test.com", "a", 10, unknown=float("nan"))),
        ("customer", '{"email": "ann@test.com", "serialNumber": "a", "registrationDate": 10}'),
        ("accelerometer", '{"user": "ann", "timestamp": 1, "x": true, "y": 0, "z": 0}'),
        ("accelerometer", '{"user": "ann", "timestamp": 1, "x": "1", "y": 0, "z": 0}'),
        ("accelerometer", '{"user": "ann", "timestamp": 1, "x": 1, "y": -Infinity, "z": 0}'),
        ("accelerometer", '{"user": "ann", "timestamp": 1, "x": 1, "y": 0, "z": 1e999}'),
        ("accelerometer", '{"user": "ann", "timestamp": 1e3, "x": 1, "y": 0, "z": 0}'),
        ("accelerometer", '{"user": "ann", "timestamp": 1, "x": 1, "y": 0}'),
        ("step_trainer", '{"sensorReadingTime": 1, "serialNumber": "a"}'),
        ("step_trainer", device(1, "a", 2**31)),
        (
            "step_trainer",
            '{"sensorReadingTime": 1.0, "serialNumber": "a", "distanceFromObject": 1}',
        ),
    ],
)
def test_a_wrong_line_is_one_reject_and_no_row(tmp_path: Path, source: str, line: str) -> None:
    land(tmp_path, source, 1691280000000, line)
    assert count_tables(tmp_path) == dict.fromkeys(TABLES, 0) | {f"{source}_rejects": 1}


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("customer", customer("ann@test.com", "a", -(2**63))),
        ("customer", customer("ann@test.com", "a", 10, phone=None, unknown=[1.5])),
        ("accelerometer", '{"user": "ann", "timestamp": 1, "x": 1e0, "y": -0.5, "z": 7}\r'),
        ("step_trainer", device(1, "a", 2**31 - 1)),
    ],
)
def test_an_unusual_but_right_line_is_a_row(tmp_path: Path, source: str, line: str) -> None:
    land(tmp_path, source, 1691280000000, line)
    assert count_tables(tmp_path) == dict.fromkeys(TABLES, 0) | {f"{source}_landing": 1}


@pytest.mark.reference
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference files: set STEDI_REFERENCE")
def test_the_counts_of_the_reference_files_are_the_known_ones() -> None:
    known = [956, 81273, 28680, 482, 40981, 482, 14460, 43681, 0, 0, 0]
    assert count_tables(REFERENCE) == dict(zip(TABLES, known, strict=True))
