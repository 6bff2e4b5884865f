"""Training sets: what stays as it was, who is in which split, and who is told to be in them."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from stedi_assets import Lakehouse
from stedi_assets.cli import main
from stedi_assets.lake import Lake
from stedi_assets.snapshots import SPLITS
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.erasing import KEY, forget, pseudonym
from stedi_assets_tests.end_to_end.histories import Runner, compiled_once
from stedi_assets_tests.end_to_end.landing_files import (
    customer,
    device,
    file_of,
    land,
    phone,
    twin,
)
from stedi_assets_tests.faulty import after, faulty_server
from stedi_assets_tests.storages import (
    AnyPath,
    files_in,
    opened,
    put,
    room_for_lakes,
    root_of,
)

FIRST, SECOND, THIRD = "2023-08-05", "2023-08-06", "2023-08-07"
PAIRS = "machine_learning_curated"
HOLDERS = {
    "ann": "a",
    "bob": "b",
    "carl": "shared",
    "cora": "shared",
    **{f"walker{number}": f"device{number}" for number in range(12)},
}
"""Who has which device. All walk on their own, each at a time of their own; and Ann and Bob once
more at the same moment, which gives four pairs, of which two are of two people."""


@pytest.fixture(autouse=True)
def _known_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Walks of two days, by one run."""
    with (
        pytest.MonkeyPatch.context() as patch,
        room_for_lakes(tmp_path_factory.mktemp("lakes")) as folder,
        compiled_once(),
    ):
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        lake = opened(folder / "walked")
        people = [customer(f"{who}@x.com", serial) for who, serial in HOLDERS.items()]
        land(lake, "customer", FIRST, *people)
        for day, offset in ((FIRST, 0), (SECOND, 1000)):
            moments = {who: offset + 10 * number for number, who in enumerate(HOLDERS)}
            phones = [phone(f"{who}@x.com", moment) for who, moment in moments.items()]
            devices = [device(moment, HOLDERS[who]) for who, moment in moments.items()]
            if day == SECOND:
                phones += [phone(f"{who}@x.com", 5000) for who in ("ann", "bob")]
                devices += [device(5000, HOLDERS[who]) for who in ("ann", "bob")]
            land(lake, "accelerometer", day, *phones)
            land(lake, "step_trainer", day, *devices)
        made(lake)
        yield lake


@pytest.fixture
def lake(walked: Lake, lakes: AnyPath) -> Lake:
    """A copy of that lake."""
    return twin(walked, lakes / "lake")


@pytest.fixture
def lakehouse(lake: Lake) -> Lakehouse:
    return Lakehouse(str(root_of(lake)))


def made(lake: Lake) -> None:
    """Bring a lake up to date."""
    runner = Runner(root_of(lake))
    runner.reconcile(False)
    runner.end()


def of(who: str) -> str:
    """The pseudonym of one of the people."""
    return pseudonym(f"{who}@x.com")


Rows = Counter[tuple[Any, ...]]


def rows_of(table: Any) -> Rows:
    return Counter(tuple(row.values()) for row in table.to_pyarrow().to_pylist())


def frozen(lakehouse: Lakehouse, name: str = "walks") -> Rows:
    """What a snapshot gives, with its splits."""
    return rows_of(lakehouse.read_snapshot(name))


def people_of(rows: Rows) -> set[str]:
    """The pseudonyms of who is behind rows: the phone's user, and all holders of the device."""
    held_by: dict[str, set[str]] = {}
    for who, serial in HOLDERS.items():
        held_by.setdefault(pseudonym(serial), set()).add(of(who))
    return {person for subject, device, *_ in rows for person in {subject, *held_by[device]}}


def salted(lakehouse: Lakehouse, *, apart: bool) -> str:
    """A salt by which Ann and Bob are in two splits, or in one."""
    for salt in (f"{apart} {number}" for number in range(50)):
        name = salt.replace(" ", "-")
        lakehouse.snapshot(name, end=FIRST, salt=salt)
        splits = {row[0]: row[-1] for row in frozen(lakehouse, name)}
        if (splits[of("ann")] != splits[of("bob")]) is apart:
            return salt
    raise AssertionError("no salt of fifty does it")


# What it says of itself.


def test_a_snapshot_says_what_a_model_was_trained_on(lakehouse: Lakehouse, lake: Lake) -> None:
    made = lakehouse.snapshot("walks")
    assert (made.name, made.table, made.policy) == ("walks", PAIRS, "reference")
    assert made.consents_landed_until == FIRST
    written = max(file.modified for file in lake.partitions(TABLES["customers_curated"]).values())
    assert made.consents_read_at == written.isoformat(timespec="seconds")
    told = made.partitions[PAIRS]
    assert {day: found["version"] for day, found in told.items()} == {
        day.isoformat(): file.version for day, file in lake.partitions(TABLES[PAIRS]).items()
    }
    assert {day: found["rows"] for day, found in told.items()} == {FIRST: 16, SECOND: 20}
    assert made.rows + sum(made.left_out.values()) == 36
    assert sum(split["rows"] for split in made.splits.values()) == made.rows
    assert sum(split["people"] for split in made.splits.values()) == len(HOLDERS)
    assert lakehouse.snapshots() == [made]


def test_equal_rows_have_equal_checksums_and_others_have_others(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    one = lakehouse.snapshot("one")
    again = lakehouse.snapshot("again")
    part = lakehouse.snapshot("part", end=FIRST)
    assert one.checksum == again.checksum != part.checksum
    assert part.partitions[PAIRS] == {FIRST: one.partitions[PAIRS][FIRST]}
    land(lake, "step_trainer", FIRST, device(0, "a", 299), name="another.json")
    made(lake)
    changed = lakehouse.snapshot("changed").partitions[PAIRS]
    before = one.partitions[PAIRS]
    assert changed[FIRST]["checksum"] != before[FIRST]["checksum"]
    assert changed[SECOND]["checksum"] == before[SECOND]["checksum"]


def test_a_snapshot_of_a_lake_under_the_other_policy_says_so(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_POLICY", "strict")
    made(lake)
    monkeypatch.delenv("STEDI_POLICY")
    strict = Lakehouse(str(root_of(lake))).snapshot("strict", SECOND)
    assert strict.policy == "strict", "of two people's pairs there are none under it"
    assert (strict.rows, strict.left_out) == (18, {})


# Who is in which split.


def test_nobody_is_in_two_splits_and_every_row_is_in_one_or_counted(lakehouse: Lakehouse) -> None:
    table = Counter(rows_of(lakehouse.read(PAIRS)))
    for number in range(12):
        made = lakehouse.snapshot(f"walks-{number}", salt=str(number))
        splits = {split: rows_of(lakehouse.read_snapshot(made.name, split)) for split in SPLITS}
        assert frozen(lakehouse, made.name) == sum(splits.values(), Rows())
        for one, other in combinations(splits.values(), 2):
            assert not people_of(one) & people_of(other)
        kept = Counter({row[:-1]: count for rows in splits.values() for row, count in rows.items()})
        left = table - kept
        assert table == kept + left
        assert sum(made.left_out.values()) == left.total()
        for split, rows in splits.items():
            assert all(row[-1] == split for row in rows)
            assert made.splits[split] == {"rows": rows.total(), "people": len(people_of(rows))}


def test_who_shares_a_device_is_in_the_same_split(lakehouse: Lakehouse) -> None:
    of_both = set()
    for number in range(12):
        lakehouse.snapshot(f"walks-{number}", salt=str(number))
        rows = frozen(lakehouse, f"walks-{number}")
        (split,) = {row[-1] for row in rows if row[0] in {of("carl"), of("cora")}}
        of_both.add(split)
    assert len(of_both) > 1, "and not in the same one whatever the salt"


def test_pairs_of_two_people_are_left_out_where_these_are_in_two_splits(
    lakehouse: Lakehouse,
) -> None:
    crossed = {(of("ann"), pseudonym("b")), (of("bob"), pseudonym("a"))}
    apart = lakehouse.snapshot("apart", salt=salted(lakehouse, apart=True))
    assert apart.left_out == {"of people in two splits": 2}
    assert not crossed & {row[:2] for row in frozen(lakehouse, "apart")}
    together = lakehouse.snapshot("together", salt=salted(lakehouse, apart=False))
    assert together.left_out == {}
    assert crossed <= {row[:2] for row in frozen(lakehouse, "together")}


def test_who_has_withdrawn_is_left_out_before_the_table_was_made_again(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    land(lake, "customer", THIRD, customer("cora@x.com", "shared", updated=20, consent=None))
    runner = Runner(root_of(lake))
    runner.reconcile(False, ["customer_landing", "customer_trusted", "customers_curated"])
    runner.end()
    assert lakehouse.read(PAIRS).count().execute() == 36
    snapshot = lakehouse.snapshot("walks")
    assert snapshot.left_out["of nobody in customers_curated"] == 2
    assert of("cora") not in {row[0] for row in frozen(lakehouse)}
    assert held(lake, "cora@x.com") == {}


def test_a_person_stays_in_a_split_from_one_snapshot_to_the_next(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    lakehouse.snapshot("before")
    people = [customer(f"new{number}@x.com", f"new{number}") for number in range(5)]
    land(lake, "customer", THIRD, *people)
    land(lake, "accelerometer", THIRD, *(phone(f"new{n}@x.com", 9000 + n) for n in range(5)))
    land(lake, "step_trainer", THIRD, *(device(9000 + n, f"new{n}") for n in range(5)))
    made(lake)
    lakehouse.snapshot("after")
    before, after = (
        {(row[0], row[-1]) for row in frozen(lakehouse, name)} for name in ("before", "after")
    )
    assert before < after
    assert len(after) == len(before) + 5


# What stays as it was.


@pytest.mark.s3
def test_a_snapshot_stays_as_it_was_when_more_comes(lakehouse: Lakehouse, lake: Lake) -> None:
    lakehouse.snapshot("walks")
    before = frozen(lakehouse)
    # A late customer, who was there on the first day already, at the moment at which Ann was.
    land(lake, "customer", THIRD, customer("late@x.com", "late"))
    land(lake, "accelerometer", FIRST, phone("late@x.com", 0), name="late.json")
    land(lake, "step_trainer", FIRST, device(0, "late"), name="late.json")
    land(lake, "accelerometer", THIRD, phone("ann@x.com", 9000))
    land(lake, "step_trainer", THIRD, device(9000, "a"))
    made(lake)
    assert lakehouse.read(PAIRS).count().execute() == 36 + 3 + 1
    assert frozen(lakehouse) == before


def test_of_equal_rows_a_snapshot_gives_as_many_as_there_were(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    """One and the same reading of a phone, delivered under three spellings of its user."""
    land(lake, "accelerometer", FIRST, phone("ANN@x.com", 0), name="again.json")
    made(lake)
    snapshot, before = lakehouse.snapshot("walks", end=FIRST), frozen(lakehouse)
    assert snapshot.rows == before.total() == 16 + 1
    assert max(before.values()) == 2
    land(lake, "accelerometer", FIRST, phone(" ann@x.com ", 0), name="and_again.json")
    made(lake)
    assert max(rows_of(lakehouse.read(PAIRS)).values()) == 3
    assert frozen(lakehouse) == before


def test_who_withdraws_is_out_of_a_snapshot_and_comes_back_with_the_consent(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    made_before = lakehouse.snapshot("walks")
    before = frozen(lakehouse)
    land(lake, "customer", THIRD, customer("cora@x.com", "shared", updated=20, consent=None))
    made(lake)
    with pytest.warns(UserWarning, match=r"Of the \d+ rows of snapshot 'walks' 2 are not in the"):
        rows = frozen(lakehouse)
    assert rows == Counter({row: 1 for row in before if row[0] != of("cora")})
    assert lakehouse.snapshots() == [made_before]
    land(lake, "customer", THIRD, customer("cora@x.com", "shared", updated=30))
    made(lake)
    assert frozen(lakehouse) == before


def test_a_warning_counts_the_rows_of_the_split_alone(lakehouse: Lakehouse, lake: Lake) -> None:
    lakehouse.snapshot("walks")
    (split,) = {row[-1] for row in frozen(lakehouse) if row[0] == of("cora")}
    land(lake, "customer", THIRD, customer("cora@x.com", "shared", updated=20, consent=None))
    made(lake)
    with pytest.warns(UserWarning, match=f"'walks', {split}, 2 are not in the lake any more"):
        lakehouse.read_snapshot("walks", split)
    for other in SPLITS.keys() - {split}:
        lakehouse.read_snapshot("walks", other)


@pytest.mark.s3
def test_a_person_who_was_erased_is_in_no_row_and_it_can_be_told_where_they_were(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    lakehouse.snapshot("walks")
    lakehouse.snapshot("first-day", end=FIRST)
    (split,) = {row[-1] for row in frozen(lakehouse) if row[0] == of("walker3")}
    runner = Runner(root_of(lake))
    receipt = forget(runner, "walker3@x.com")
    runner.end()
    assert receipt
    assert receipt.left == {}
    with pytest.warns(UserWarning, match="2 are not in the lake"):
        assert of("walker3") not in {row[0] for row in frozen(lakehouse)}
    content = b"".join(path.read_bytes() for path in root_of(lake).glob("snapshots/*"))
    assert of("walker3").encode() not in content
    assert held(lake, "Walker3@x.com ") == {"walks": split, "first-day": split}


def test_a_snapshot_holds_no_pseudonym_and_no_value_of_a_row(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    lakehouse.snapshot("walks")
    (file,) = root_of(lake).glob("snapshots/*")
    stored = pq.ParquetFile(BytesIO(file.read_bytes())).read()
    assert stored.column_names == ["row", "person", "split"]
    assert set(stored["split"].to_pylist()) <= set(SPLITS)
    assert all(value is None or value > 10**9 for value in stored["row"].to_pylist())
    assert of("ann").encode() not in file.read_bytes()


@pytest.mark.s3
def test_what_a_run_changes_meanwhile_is_read_again(
    lake: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    curated_into(bucket, lake)
    land(lake, "step_trainer", FIRST, device(0, "a", 299))
    made(lake)
    with faulty_server(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        lakehouse = Lakehouse(f"s3://{bucket.name}/lake")
        server.make(after(lambda: curated_into(bucket, lake)), "^GET /.*customer/curated/", times=1)
        snapshot = lakehouse.snapshot("walks")
        assert snapshot.partitions[PAIRS][FIRST]["rows"] == 1
        assert frozen(lakehouse).total() == snapshot.rows


def curated_into(bucket: Bucket, lake: Lake) -> None:
    """Put a lake's curated tables into a bucket, below `lake`."""
    for path in root_of(lake).glob("*/curated/**/*.parquet"):
        bucket.put(f"lake/{path.relative_to(root_of(lake))}", path.read_bytes())


def content_of(bucket: Bucket, key: str) -> bytes:
    content: bytes = bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
    return content


# Errors.


@pytest.mark.parametrize("name", ["", ".walks", "a/b", "../walks", "ann@x.com", "a b", "a" * 101])
def test_a_name_that_will_not_do_is_refused(lakehouse: Lakehouse, lake: Lake, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a snapshot"):
        lakehouse.snapshot(name)
    with pytest.raises(FileNotFoundError, match="There is no snapshot"):
        lakehouse.read_snapshot(name)
    assert list(root_of(lake).glob("**/*walks*")) == []


@pytest.mark.s3
def test_a_name_that_is_taken_is_refused_and_the_old_one_stays(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    lakehouse.snapshot("walks", end=FIRST)
    before = files_in(root_of(lake))
    with pytest.raises(FileExistsError, match="There is a snapshot 'walks' already"):
        lakehouse.snapshot("walks")
    assert files_in(root_of(lake)) == before


@pytest.mark.s3
def test_a_name_that_others_take_meanwhile_is_refused_and_theirs_stays(
    lake: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    curated_into(bucket, lake)
    root = f"s3://{bucket.name}/lake"
    Lakehouse(root).snapshot("theirs", end=FIRST)
    with faulty_server(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        lakehouse = Lakehouse(root)
        theirs = content_of(bucket, "lake/snapshots/theirs.parquet")
        taken = after(lambda: bucket.put("lake/snapshots/walks.parquet", theirs))
        server.make(taken, "^PUT /.*walks", times=1)
        with pytest.raises(FileExistsError, match="There is a snapshot 'walks' already"):
            lakehouse.snapshot("walks")
    assert content_of(bucket, "lake/snapshots/walks.parquet") == theirs


def test_a_snapshot_of_no_rows_is_refused(lakehouse: Lakehouse) -> None:
    with pytest.raises(ValueError, match="there are no rows to make a snapshot of"):
        lakehouse.snapshot("walks", start=THIRD)
    assert lakehouse.snapshots() == []


def test_a_snapshot_or_a_split_that_there_is_not_is_an_error_that_lists_those_there_are(
    lakehouse: Lakehouse,
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no snapshot 'walks' in .* There is none yet\."):
        lakehouse.read_snapshot("walks")
    lakehouse.snapshot("runs")
    with pytest.raises(FileNotFoundError, match=r"no snapshot 'walks' in .* There are runs\."):
        lakehouse.read_snapshot("walks")
    with pytest.raises(ValueError, match=r"no split 'all'\. There are train, validation, test\."):
        lakehouse.read_snapshot("runs", "all")


@pytest.mark.s3
@pytest.mark.parametrize("note", [None, "no JSON", "[]", '{"name": "walks"}'])
def test_a_snapshot_that_cannot_be_read_is_named_for_it_does_not_tell_who_was_in_it(
    lakehouse: Lakehouse, lake: Lake, note: str | None
) -> None:
    lakehouse.snapshot("runs")
    content = BytesIO(b"no Parquet")
    if note is not None:
        table = pq.ParquetFile(BytesIO((root_of(lake) / "snapshots/runs.parquet").read_bytes()))
        pq.write_table(table.read().replace_schema_metadata({"snapshot": note}), content)
    put(root_of(lake) / "snapshots/walks.parquet", content.getvalue())
    with pytest.raises(ValueError, match=r"snapshots/walks\.parquet cannot be read as a snapshot"):
        lakehouse.snapshots()
    assert lakehouse.read_snapshot("runs").count().execute() > 0


def test_partitions_that_do_not_say_under_which_policy_they_were_made_are_refused(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    file = file_of(lake, PAIRS, SECOND)
    draft = BytesIO()
    pq.write_table(
        pq.ParquetFile(BytesIO(file.read_bytes())).read().replace_schema_metadata(), draft
    )
    put(file, draft.getvalue())
    with pytest.raises(ValueError, match="does not say under which policy it was made"):
        lakehouse.snapshot("walks")
    assert lakehouse.snapshot("first-day", end=FIRST).rows == 16


# The command line.


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def held(lake: Lake, email: str) -> dict[str, str]:
    """The snapshots that held a person, by `stedi snapshots`, and the splits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEDI_LAKE", str(root_of(lake)))
        result = invoke("snapshots", "--subject", email, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    return {found["name"]: found["split"] for found in json.loads(result.stdout)}


@pytest.mark.s3
def test_a_snapshot_is_made_and_listed_on_the_command_line(
    lake: Lake, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_LAKE", str(root_of(lake)))
    assert invoke("snapshots").stdout == "There are no snapshots.\n"
    result = invoke("snapshot", "first-day", "--to", FIRST)
    assert (result.exit_code, result.stderr) == (0, "")
    told, heads, *splits = result.stdout.splitlines()
    assert told == (
        f"Snapshot first-day: 16 rows under policy reference, with the consents that had landed "
        f"until {FIRST}."
    )
    (made,) = lakehouse.snapshots()
    assert heads.split() == ["split", "rows", "people"]
    assert [line.split() for line in splits] == [
        [split, str(found["rows"]), str(found["people"])] for split, found in made.splits.items()
    ]
    heads, line = invoke("snapshots").stdout.splitlines()
    assert line.split() == ["first-day", made.made_at, "reference", FIRST, "16"]
    (as_json,) = json.loads(invoke("snapshots", "--format", "json").stdout)
    assert as_json == vars(made)


@pytest.mark.long
def test_the_command_line_tells_which_snapshots_held_a_person_and_which_did_not(
    lake: Lake, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse.snapshot("walks")
    land(lake, "customer", THIRD, customer("late@x.com", "late"))
    land(lake, "accelerometer", THIRD, phone("late@x.com", 9000))
    land(lake, "step_trainer", THIRD, device(9000, "late"))
    made(lake)
    lakehouse.snapshot("later", start=THIRD)
    assert held(lake, " LATE@x.com").keys() == {"later"}
    assert held(lake, "ann@x.com").keys() == {"walks"}
    assert held(lake, "nobody@x.com") == {}
    monkeypatch.setenv("STEDI_LAKE", str(root_of(lake)))
    (split,) = held(lake, "ann@x.com").values()
    _, line = invoke("snapshots", "--subject", "ann@x.com").stdout.splitlines()
    assert line.split()[0] == "walks"
    assert line.split()[-1] == split
    told = invoke("snapshots", "--subject", "nobody@x.com").stdout
    assert told == "No snapshot held the person.\n"
    shown = invoke("forget", "ann@x.com", "--dry-run").stdout.splitlines()
    assert shown[-1] == "Models know the person that were trained on: walks"


def test_somebody_else_s_file_beside_snapshots_keeps_nobody_from_being_found_and_erased(
    lake: Lake, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse.snapshot("walks")
    content = BytesIO()
    pq.write_table(pa.table({"notes": ["a table that a data scientist kept there"]}), content)
    put(root_of(lake) / "snapshots/notes.parquet", content.getvalue())
    assert held(lake, "ann@x.com").keys() == {"walks"}
    monkeypatch.setenv("STEDI_LAKE", str(root_of(lake)))
    shown = invoke("forget", "ann@x.com", "--dry-run").stdout.splitlines()
    assert shown[-1] == "Models know the person that were trained on: walks"


@pytest.mark.parametrize("folder", ["row=1", f"person={2**64 - 1}", "split=test"])
def test_a_snapshot_is_read_from_its_file_whatever_the_folders_of_the_lake_are_called(
    walked: Lake, lakes: AnyPath, folder: str
) -> None:
    there = twin(walked, lakes / folder)
    lakehouse = Lakehouse(str(root_of(there)))
    rows = lakehouse.snapshot("walks").rows
    assert held(there, "ann@x.com").keys() == {"walks"}
    assert frozen(lakehouse).total() == rows


def test_who_holds_the_device_of_a_row_is_told_to_be_in_it(
    lakehouse: Lakehouse, lake: Lake
) -> None:
    """Cora, of whom there is no reading of a phone on this day, but of the device she shares."""
    land(lake, "accelerometer", THIRD, phone("carl@x.com", 9000))
    land(lake, "step_trainer", THIRD, device(9000, "shared"))
    made(lake)
    lakehouse.snapshot("third-day", start=THIRD)
    assert held(lake, "carl@x.com") == held(lake, "cora@x.com") != {}
    assert held(lake, "ann@x.com") == {}


def test_with_another_key_nobody_says_that_no_snapshot_held_the_person(
    lakehouse: Lakehouse, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse.snapshot("walks")
    monkeypatch.setenv("STEDI_LAKE", str(root_of(lake)))
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "another")
    result = invoke("snapshots", "--subject", "ann@x.com")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: 1 snapshots were made with another pseudonym key")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["snapshot", "a b"], "'a b' is no name for a snapshot"),
        (["snapshot", "walks", "--from", SECOND, "--to", FIRST], "later than end"),
    ],
)
def test_a_snapshot_that_makes_no_sense_is_an_error_of_one_line(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("STEDI_LAKE", str(root_of(lake)))
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
