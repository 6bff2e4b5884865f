"""What a partition is made from, which others it may need, and making it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedi_assets import making
from stedi_assets.assets.definition import Need
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import Content, DuckDBEngine
from stedi_assets.lake import Lake, StoredFile, open_lake
from stedi_assets.landing.files import files_by_date
from stedi_assets.making import (
    Partition,
    Partitions,
    Stamp,
    Upstream,
    landing_stamps,
    make,
    make_landing,
    stored_partitions,
)
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import open_engine
from stedi_assets.tables import TABLES, Source
from stedi_assets_tests.end_to_end.landing_files import (
    customer,
    device,
    file_of,
    land,
    phone,
    rows_by_date,
    run,
    twin,
)

REFERENCE = DEFINITIONS[Policy.REFERENCE]

FIFTH, SIXTH, SEVENTH, EIGHTH = (date(2023, 8, day) for day in (5, 6, 7, 8))

DEVICES, PHONES = "step_trainer_trusted", "accelerometer_trusted"
TRUSTED, CURATED = "customer_trusted", "customers_curated"

NOWHERE = open_lake("nowhere")
"""Of partitions whose files nobody reads."""

EMPTY = (None, None)
Range = tuple[int | None, int | None]


def partition(first: int | None, last: int | None, rows: int = 1, checksum: str = "c") -> Partition:
    """A partition with readings of a range of event times, or an empty one."""
    content = Content(rows if first is not None else 0, checksum, first, last)
    return Partition(Path("part-0.parquet"), "stamp", content)


def upstream_of(
    engine: DuckDBEngine,
    devices: dict[date, Range] | None = None,
    phones: dict[date, Range] | None = None,
    customers: Iterable[date] = (),
) -> Upstream:
    """What machine_learning_curated reads: readings by date, and customers of some dates."""
    readings = {DEVICES: devices or {}, PHONES: phones or {}}
    tables: dict[str, Partitions] = {
        name: {day: partition(*of) for day, of in ranges.items()}
        for name, ranges in readings.items()
    }
    of_customers = {day: partition(1, 1) for day in customers}
    return Upstream(
        NOWHERE,
        engine,
        REFERENCE["machine_learning_curated"],
        tables | {TRUSTED: of_customers, CURATED: of_customers, "customer_landing": {}},
    )


# Which partitions a partition may need.


def test_of_readings_those_are_needed_whose_times_overlap(engine: DuckDBEngine) -> None:
    days = [date(2023, 8, day) for day in range(1, 8)]
    ranges: list[Range] = [(0, 99), (0, 100), (150, 160), (0, 1000), (200, 300), (201, 300), EMPTY]
    upstream = upstream_of(engine, {EIGHTH: (100, 200)}, dict(zip(days, ranges, strict=True)))
    needed = upstream.needed(EIGHTH)
    assert needed[PHONES] == {days[1], days[2], days[3], days[4]}
    assert needed[DEVICES] == {EIGHTH}


def test_new_readings_of_either_kind_need_older_ones_of_the_other(engine: DuckDBEngine) -> None:
    upstream = upstream_of(
        engine,
        {SIXTH: (10, 20), EIGHTH: (50, 60)},
        {SEVENTH: (55, 65), EIGHTH: (15, 16)},
    )
    assert upstream.needed(EIGHTH)[DEVICES] == {SIXTH, EIGHTH}
    assert upstream.needed(EIGHTH)[PHONES] == {SEVENTH, EIGHTH}
    assert upstream.needed(SEVENTH) == {PHONES: {SEVENTH}, DEVICES: set(), TRUSTED: set()} | {
        CURATED: set()
    }


def test_what_comes_later_is_not_needed_and_what_came_before_is(engine: DuckDBEngine) -> None:
    same: dict[date, Range] = dict.fromkeys((FIFTH, SIXTH, SEVENTH, EIGHTH), (0, 10))
    upstream = upstream_of(engine, same, same)
    for number, day in enumerate(same, 1):
        for readings in (DEVICES, PHONES):
            assert upstream.needed(day)[readings] == set(list(same)[:number])


def test_of_customers_all_dates_are_needed_also_later_ones(engine: DuckDBEngine) -> None:
    upstream = upstream_of(engine, {SIXTH: (0, 1)}, {}, [FIFTH, EIGHTH])
    for day in (SIXTH, SEVENTH):
        assert upstream.needed(day)[TRUSTED] == {FIFTH, EIGHTH}
        assert upstream.needed(day)[CURATED] == {FIFTH, EIGHTH}


def test_an_empty_partition_needs_no_readings_and_is_needed_by_none(engine: DuckDBEngine) -> None:
    upstream = upstream_of(engine, {FIFTH: (0, 10), SIXTH: EMPTY}, {SEVENTH: (0, 10)})
    assert upstream.needed(SIXTH)[DEVICES] == set()
    assert upstream.needed(SEVENTH)[DEVICES] == {FIFTH}


def test_a_date_without_a_partition_needs_no_readings(engine: DuckDBEngine) -> None:
    upstream = upstream_of(engine, {FIFTH: (0, 10)}, {FIFTH: (0, 10)})
    assert upstream.needed(SIXTH) == {DEVICES: set(), PHONES: set(), TRUSTED: set()} | {
        CURATED: set()
    }


def test_a_clock_that_was_wrong_once_hides_no_other_partition(engine: DuckDBEngine) -> None:
    """One reading of 1970 and one of 2286 let a partition meet all; the others stay apart."""
    days = [date(2023, 8, day) for day in range(1, 8)]
    ranges: dict[date, Range] = {day: (1000 * n, 1000 * n + 999) for n, day in enumerate(days)}
    for outlier in days[:-1]:
        wide = ranges | {outlier: (0, 9_999_999_999_999)}
        upstream = upstream_of(engine, {days[-1]: (6500, 6600)}, wide)
        assert upstream.needed(days[-1])[PHONES] == {outlier, days[-1]}
        later = {day for day in days if day >= outlier}
        assert upstream_of(engine, wide).needed(outlier)[DEVICES] == set(days) - later | {outlier}


DAYS = [date(2023, 8, day) for day in range(1, 9)]
RANGES = st.dictionaries(
    st.sampled_from(DAYS),
    st.just(EMPTY)
    | st.tuples(st.integers(-5, 30), st.integers(0, 30)).map(lambda of: (of[0], of[0] + of[1])),
)


@pytest.fixture(scope="module")
def any_engine(tmp_path_factory: pytest.TempPathFactory) -> DuckDBEngine:
    """For what computes nothing."""
    with open_engine(open_lake(str(tmp_path_factory.mktemp("lake")))) as engine:
        return engine


@settings(max_examples=300, deadline=None)
@given(devices=RANGES, phones=RANGES, day=st.sampled_from(DAYS))
def test_needed_are_exactly_the_overlapping_ones_up_to_the_date(
    any_engine: DuckDBEngine, devices: dict[date, Range], phones: dict[date, Range], day: date
) -> None:
    needed = upstream_of(any_engine, devices, phones).needed(day)
    own = [of for of in (devices.get(day, EMPTY), phones.get(day, EMPTY)) if of != EMPTY]
    for name, ranges in ((DEVICES, devices), (PHONES, phones)):
        assert needed[name] == {
            other
            for other, (first, last) in ranges.items()
            if other <= day and first is not None and last is not None
            for own_first, own_last in own
            if own_first is not None and own_last is not None
            if own_first <= last and first <= own_last
        }


def test_the_dates_of_a_table_are_those_of_its_readings_or_of_what_it_filters(
    engine: DuckDBEngine,
) -> None:
    upstream = upstream_of(engine, {SEVENTH: EMPTY}, {SIXTH: (1, 2), SEVENTH: (1, 2)}, [EIGHTH])
    assert upstream.dates() == [SIXTH, SEVENTH]
    tables = {TRUSTED: {EIGHTH: partition(1, 1)}, PHONES: {SIXTH: partition(1, 1)}}
    assert Upstream(NOWHERE, engine, REFERENCE[CURATED], tables).dates() == [EIGHTH]


# Stamps.


def test_a_stamp_is_read_as_it_was_written() -> None:
    stamp = Stamp("a", "b", "c")
    assert str(stamp) == "a:b:c"
    assert Stamp.read(str(stamp)) == stamp


@pytest.mark.parametrize("text", ["", "a", "a:b", "a:b:c:d", "of somebody else"])
def test_what_is_no_stamp_is_read_as_one_that_equals_no_other(
    engine: DuckDBEngine, text: str
) -> None:
    found = Stamp.read(text)
    assert found == Stamp("", "", "")
    real = upstream_of(engine).stamps("", [SIXTH])[SIXTH]
    assert [part for part, other in zip(found, real, strict=True) if part == other] == []


def readings_stamps(upstream: Upstream, sql: str = "SELECT 1") -> dict[date, Stamp]:
    return upstream.stamps(sql, [FIFTH, SIXTH, SEVENTH])


def with_content(upstream: Upstream, name: str, day: date, **changes: object) -> Upstream:
    """The same with another content of one partition."""
    old = upstream.tables[name][day]
    new = replace(old, content=replace(old.content, **changes))  # type: ignore[arg-type]
    tables = {**upstream.tables, name: {**upstream.tables[name], day: new}}
    return Upstream(NOWHERE, upstream.engine, upstream.definition, tables)


THREE_DAYS: dict[date, Range] = {FIFTH: (0, 10), SIXTH: (100, 110), SEVENTH: (5, 15)}


@pytest.mark.parametrize("changes", [{"checksum": "another"}, {"rows": 2}], ids=str)
def test_the_inputs_of_a_stamp_change_with_the_rows_that_a_partition_may_need(
    engine: DuckDBEngine, changes: dict[str, object]
) -> None:
    upstream = upstream_of(engine, THREE_DAYS, THREE_DAYS, [FIFTH])
    before = readings_stamps(upstream)
    after = readings_stamps(with_content(upstream, PHONES, FIFTH, **changes))
    assert {day for day in before if before[day] != after[day]} == {FIFTH, SEVENTH}
    for day in (FIFTH, SEVENTH):
        assert before[day].definition == after[day].definition
        assert before[day].inputs != after[day].inputs
        assert before[day].people == after[day].people
    later = readings_stamps(with_content(upstream, PHONES, SEVENTH, **changes))
    assert {day for day in before if before[day] != later[day]} == {SEVENTH}


def test_the_same_rows_in_another_table_or_on_another_date_are_other_inputs(
    engine: DuckDBEngine,
) -> None:
    found = [
        upstream.stamps("", [SEVENTH])[SEVENTH].inputs
        for upstream in (
            upstream_of(engine, {FIFTH: (0, 9), SEVENTH: (0, 9)}, {}),
            upstream_of(engine, {SIXTH: (0, 9), SEVENTH: (0, 9)}, {}),
            upstream_of(engine, {SEVENTH: (0, 9)}, {FIFTH: (0, 9)}),
            upstream_of(engine, {SEVENTH: (0, 9)}, {}),
            upstream_of(engine, {}, {SEVENTH: (0, 9)}),
        )
    ]
    assert len(set(found)) == len(found)


def test_who_is_let_through_changes_the_stamps_of_all_dates(engine: DuckDBEngine) -> None:
    upstream = upstream_of(engine, THREE_DAYS, THREE_DAYS, [FIFTH, EIGHTH])
    before = readings_stamps(upstream)
    after = readings_stamps(with_content(upstream, TRUSTED, EIGHTH, checksum="another"))
    for day, stamp in before.items():
        assert (stamp.definition, stamp.inputs) == (after[day].definition, after[day].inputs)
        assert stamp.people != after[day].people


def test_a_stamp_does_not_change_with_files_or_with_empty_partitions(
    engine: DuckDBEngine,
) -> None:
    upstream = upstream_of(engine, THREE_DAYS, THREE_DAYS, [FIFTH])
    moved = {
        name: {
            day: replace(of, file=Path("other"), stamp="other") for day, of in partitions.items()
        }
        for name, partitions in upstream.tables.items()
    }
    empty = {name: {**of, date(2023, 8, 1): partition(*EMPTY)} for name, of in moved.items()}
    again = Upstream(NOWHERE, engine, upstream.definition, empty)
    assert readings_stamps(again) == readings_stamps(upstream)


def test_a_stamp_changes_with_the_definition_and_the_key_of_pseudonyms(
    lake: Lake, engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = readings_stamps(upstream_of(engine, THREE_DAYS))
    after = readings_stamps(upstream_of(engine, THREE_DAYS), "SELECT 2")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "another")
    with open_engine(lake) as other:
        with_key = readings_stamps(upstream_of(other, THREE_DAYS))
    for day, stamp in before.items():
        definitions = {stamp.definition, after[day].definition, with_key[day].definition}
        assert len(definitions) == 3
        assert stamp[1:] == after[day][1:] == with_key[day][1:]


def test_a_stamp_says_under_which_policies_and_with_which_key(engine: DuckDBEngine) -> None:
    for policy, definitions in DEFINITIONS.items():
        for name, definition in definitions.items():
            nothing: dict[str, Partitions] = {read: {} for read in definition.needs}
            upstream = Upstream(NOWHERE, engine, definition, nothing)
            stamp = Stamp.read(str(upstream.stamps("", [SIXTH])[SIXTH]))
            is_of_both = name in ("customer_trusted", "customers_curated")
            policies = "reference+strict" if is_of_both else policy.value
            assert stamp.under == (policies, engine.key_id)
    assert Stamp("of0an0older0version", "", "").under is None


def test_of_a_table_that_depends_on_all_of_its_input_every_date_has_its_own_stamp(
    engine: DuckDBEngine,
) -> None:
    """By which the file of one date is told from that of another with the same rows."""
    tables = {TRUSTED: {FIFTH: partition(1, 1)}, PHONES: {SIXTH: partition(1, 1)}}
    upstream = Upstream(NOWHERE, engine, REFERENCE[CURATED], tables)
    before = upstream.stamps("", [FIFTH, SEVENTH])
    assert before[FIFTH][:2] == before[SEVENTH][:2]
    assert before[FIFTH] != before[SEVENTH]
    after = with_content(upstream, PHONES, SIXTH, checksum="another").stamps("", [FIFTH, SEVENTH])
    for day in (FIFTH, SEVENTH):
        assert before[day].inputs != after[day].inputs
        assert before[day].people == after[day].people


# Making landing tables.


def landing_stamp_of(engine: DuckDBEngine, source: Source, files: list[StoredFile]) -> str:
    return landing_stamps(engine, source, {SIXTH: files})[SIXTH]


def test_without_files_there_is_no_landing_stamp(engine: DuckDBEngine) -> None:
    assert landing_stamp_of(engine, Source.CUSTOMER, []) == ""


def test_a_landing_stamp_changes_with_the_files_and_with_the_way_of_reading_them(
    engine: DuckDBEngine,
) -> None:
    file = StoredFile("customer/landing/a.json", 10, datetime(2024, 1, 1, tzinfo=UTC), "v1")
    stamps = [
        landing_stamp_of(engine, Source.CUSTOMER, [file]),
        landing_stamp_of(engine, Source.CUSTOMER, [replace(file, version="v2")]),
        landing_stamp_of(engine, Source.CUSTOMER, [file, replace(file, key="b")]),
        landing_stamp_of(engine, Source.ACCELEROMETER, [file]),  # which is read otherwise
    ]
    assert len(set(stamps)) == len(stamps)
    assert landing_stamp_of(engine, Source.CUSTOMER, [file]) == stamps[0]
    assert Stamp.read(stamps[0]) == Stamp("", "", ""), "it is none of a derived table"


def test_landing_partitions_are_made_of_the_wanted_dates_with_their_stamps(
    lake: Lake, engine: DuckDBEngine
) -> None:
    land(lake, "customer", "2023-08-05", customer("ann@test.com", "s"))
    land(lake, "customer", "2023-08-06", customer("bob@test.com", "t"), "{spoilt")
    land(lake, "customer", "2023-08-06", customer("cy@test.com", "u"), name="second.json")
    rows, rejects = make_landing(
        lake, engine, Source.CUSTOMER, [SEVENTH, SIXTH], files_by_date(lake, Source.CUSTOMER)
    )
    assert {day: of.rows for day, of in rows.contents.items()} == {SIXTH: 2, SEVENTH: 0}
    assert {day: of.rows for day, of in rejects.contents.items()} == {SIXTH: 1, SEVENTH: 0}
    files = files_by_date(lake, Source.CUSTOMER)[SIXTH]
    stamp = landing_stamp_of(engine, Source.CUSTOMER, files)
    for staged in (rows, rejects):
        noted = engine.noted(staged.files)
        assert {day: of.stamp for day, of in noted.items()} == {SIXTH: stamp, SEVENTH: ""}
        assert {day: of.content for day, of in noted.items()} == staged.contents
    assert list(lake.partitions(TABLES["customer_landing"])) == [], "nothing is published"


# Making derived tables.


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Four days on each of which Ann walks at other moments, and once more as on the fifth."""
    lake = open_lake(str(tmp_path_factory.mktemp("made once")))
    land(lake, "customer", "2023-08-05", customer("ann@test.com", "s"))
    land(lake, "customer", "2023-08-07", customer("bob@test.com", "t"))
    for day in (5, 6, 7):
        times = range(1000 * day, 1000 * day + 10)
        land(lake, "accelerometer", f"2023-08-0{day}", *(phone("ann@test.com", t) for t in times))
        land(lake, "step_trainer", f"2023-08-0{day}", *(device(t, "s") for t in times))
    land(lake, "accelerometer", "2023-08-08", phone("ann@test.com", 5003), phone("x@y.z", 5004))
    land(lake, "step_trainer", "2023-08-08", device(5003, "s", distance=7))
    assert run(lake, "2023-08-05", "2023-08-08").success
    return lake


@pytest.fixture
def made(made_once: Lake, tmp_path: Path) -> Lake:
    return twin(made_once, tmp_path / "made")


@pytest.fixture
def over_made(made: Lake) -> Iterator[DuckDBEngine]:
    """An engine with that lake's key of pseudonyms."""
    with open_engine(made) as engine:
        yield engine


def upstream_in(lake: Lake, engine: DuckDBEngine, name: str) -> Upstream:
    """What a table reads, as it is in the lake."""
    definition = REFERENCE[name]
    stored = {table: stored_partitions(lake, engine, TABLES[table]) for table in definition.needs}
    return Upstream(lake, engine, definition, stored)


def dates_in_view(engine: DuckDBEngine, table: str) -> list[date]:
    query = f"SELECT DISTINCT ingestion_date FROM {table} ORDER BY 1"
    return [day for (day,) in engine.connection.execute(query).fetchall()]


def test_views_show_what_the_dates_may_need_and_no_more(
    made: Lake, over_made: DuckDBEngine
) -> None:
    upstream = upstream_in(made, over_made, "machine_learning_curated")
    upstream.bind([SIXTH])
    assert dates_in_view(over_made, PHONES) == dates_in_view(over_made, DEVICES) == [SIXTH]
    assert dates_in_view(over_made, TRUSTED) == [FIFTH, SEVENTH]
    upstream.bind([EIGHTH])
    assert dates_in_view(over_made, DEVICES) == [FIFTH, EIGHTH]
    assert dates_in_view(over_made, PHONES) == [FIFTH], "Ann's reading of the eighth came before"
    upstream.bind([SIXTH, EIGHTH])
    assert dates_in_view(over_made, DEVICES) == [FIFTH, SIXTH, EIGHTH]
    upstream.bind([])
    assert dates_in_view(over_made, DEVICES) == []


@pytest.mark.parametrize("name", REFERENCE)
def test_who_binds_users_is_asked_for_readings_that_only_say_who_has_some(
    made: Lake, over_made: DuckDBEngine, name: str
) -> None:
    asked: list[tuple[str, list[date]]] = []
    read = upstream_in(made, over_made, name)
    Upstream(
        made,
        over_made,
        read.definition,
        read.tables,
        lambda table, partitions: asked.append((table.name, list(partitions))),
    ).bind([EIGHTH])
    assert asked == ([(PHONES, [FIFTH, SIXTH, SEVENTH, EIGHTH])] if name == CURATED else [])


@pytest.mark.parametrize("name", REFERENCE)
def test_made_again_a_partition_holds_what_it_held_and_notes_what_it_noted(
    made: Lake, over_made: DuckDBEngine, name: str
) -> None:
    stored = stored_partitions(made, over_made, TABLES[name])
    assert len(stored) == 4
    upstream = upstream_in(made, over_made, name)
    for days in ([SEVENTH], [EIGHTH, FIFTH], list(stored)):
        staged = make(upstream, upstream.rows(), days, stored)
        assert sorted(staged.files) == sorted(days)
        for day, noted in over_made.noted(staged.files).items():
            assert noted.content == staged.contents[day] == stored[day].content
            assert noted.stamp == str(upstream.stamps(staged.sql, [day])[day])


READINGS = {
    name: [table.name for table in REFERENCE[name].reads(Need.SAME_MOMENTS)]
    for name in (PHONES, DEVICES, "machine_learning_curated")
}


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize(("portion", "alone"), [(1, False), (making._PORTION, True)])
def test_dates_that_are_made_alone_or_in_portions_are_those_that_are_made_at_once(
    made: Lake,
    over_made: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    portion: int,
    alone: bool,
) -> None:
    """With portions of a few rows instead of millions."""
    stored = stored_partitions(made, over_made, TABLES[name])
    upstream = upstream_in(made, over_made, name)
    with monkeypatch.context() as patch:
        patch.setattr(making, "_alone", lambda upstream, days: set())
        at_once = make(upstream, upstream.rows(), stored, {})
    bound: list[tuple[bool, list[date]]] = []

    class Watched(Upstream):
        def bind_readings(
            self, days: Iterable[date], connection: duckdb.DuckDBPyConnection | None = None
        ) -> None:
            bound.append((connection is not None, list(days)))
            super().bind_readings(days, connection)

    monkeypatch.setattr(making, "_PORTION", portion)
    watched = Watched(made, over_made, upstream.definition, upstream.tables)
    found = make(watched, watched.rows(), stored, {})
    assert sorted(day for _, days in bound for day in days) == list(stored)
    assert len([days for _, days in bound if days]) > 1
    made_alone = [day for is_alone, days in bound for day in days if is_alone]
    assert bool([day for day in made_alone if upstream.size(day)]) == alone
    assert all(watched.needed(day)[of] <= {day} for day in made_alone for of in READINGS[name])
    assert found.contents == at_once.contents
    assert {day: of.stamp for day, of in over_made.noted(found.files).items()} == {
        day: of.stamp for day, of in over_made.noted(at_once.files).items()
    }


def with_sizes(engine: DuckDBEngine, *sizes: int) -> Upstream:
    """Devices' readings of so many rows, from the fifth on, each date at other moments."""
    upstream = upstream_of(engine)
    of_devices = {
        date(2023, 8, 5 + number): partition(100 * number, 100 * number + 9, rows)
        for number, rows in enumerate(sizes)
    }
    tables = {**upstream.tables, DEVICES: of_devices}
    return Upstream(NOWHERE, engine, upstream.definition, tables)


@pytest.mark.parametrize(
    ("sizes", "portions"),
    [
        ([2, 2, 3, 1, 1], [[5, 6], [7, 8], [9]]),
        ([2, 3, 2, 3], [[5], [6], [7], [8]]),
        ([9, 1, 9], [[5], [6], [7]]),
        ([], []),
    ],
)
def test_a_portion_is_of_no_more_rows_than_can_be_computed_at_once_or_of_one_date(
    engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[int],
    portions: list[list[int]],
) -> None:
    monkeypatch.setattr(making, "_PORTION", 4)
    upstream = with_sizes(engine, *sizes)
    found = making._portions(upstream, set(upstream.dates()))
    assert [[day.day for day in portion] for portion in found] == portions


def test_a_date_is_made_by_itself_if_two_of_its_size_are_no_more_than_a_portion(
    engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_PORTION", 20)
    upstream = with_sizes(engine, 10, 11)
    assert making._alone(upstream, upstream.dates()) == {FIFTH}


def test_a_date_is_not_made_by_itself_if_readings_of_either_kind_meet_earlier_ones(
    engine: DuckDBEngine,
) -> None:
    one: dict[date, Range] = {EIGHTH: (5, 5)}
    both: dict[date, Range] = {FIFTH: (0, 9), EIGHTH: (5, 5)}
    for upstream in (upstream_of(engine, both, one), upstream_of(engine, one, both)):
        assert making._alone(upstream, [FIFTH, EIGHTH]) == {FIFTH}
    assert making._alone(upstream_of(engine, one, one), [EIGHTH]) == {EIGHTH}


def test_of_a_restated_table_the_other_partitions_that_change_are_made_too(
    made: Lake, over_made: DuckDBEngine
) -> None:
    stored = stored_partitions(made, over_made, TABLES["customer_trusted"])
    withdrawn = customer("ANN@test.com", "s", updated=99, consent=None)
    land(made, "customer", "2023-08-08", withdrawn)
    assert run(made, "2023-08-08", tables=["customer_landing", "customer_rejects"]).success
    upstream = upstream_in(made, over_made, "customer_trusted")
    staged = make(upstream, upstream.rows(), [EIGHTH], stored)
    assert {day: of.rows for day, of in staged.contents.items()} == {FIFTH: 0, EIGHTH: 0}
    stamps = upstream.stamps(staged.sql, [FIFTH, EIGHTH])
    assert {day: of.stamp for day, of in over_made.noted(staged.files).items()} == {
        day: str(stamp) for day, stamp in stamps.items()
    }


def test_people_are_those_of_the_records_of_some_dates(made: Lake, over_made: DuckDBEngine) -> None:
    upstream = upstream_in(made, over_made, "accelerometer_trusted")

    def people(*days: date) -> list[str]:
        rows = over_made.ibis.to_pyarrow(upstream.people(days)).to_pylist()
        return sorted(row["person"] for row in rows)

    assert people(FIFTH) == ["ann@test.com"]
    assert people(SIXTH, SEVENTH) == ["bob@test.com"]
    assert people(*DAYS) == ["ann@test.com", "bob@test.com"]
    assert people(date(2023, 1, 1)) == people() == []


# Stored partitions.


def test_stored_partitions_say_where_they_are_what_they_hold_and_what_they_are_made_from(
    made: Lake, over_made: DuckDBEngine
) -> None:
    table = TABLES["accelerometer_landing"]
    files = made.partitions(table)
    found = stored_partitions(made, over_made, table)
    assert list(found) == [FIFTH, SIXTH, SEVENTH, EIGHTH]
    for day, of in found.items():
        assert (of.file, of.version) == (files[day], files[day].version)
        landed = files_by_date(made, Source.ACCELEROMETER)[day]
        assert of.stamp == landing_stamp_of(over_made, Source.ACCELEROMETER, landed)
    expected = {
        day: (rows.total(), min(row[1] for row in rows), max(row[1] for row in rows))
        for day, rows in rows_by_date(made, table.name).items()
    }
    assert {
        day.isoformat(): (of.content.rows, of.content.first, of.content.last)
        for day, of in found.items()
    } == expected


def test_damaged_files_and_those_of_somebody_else_are_no_stored_partitions(
    made: Lake, over_made: DuckDBEngine
) -> None:
    table = TABLES["machine_learning_curated"]
    before = stored_partitions(made, over_made, table)
    file_of(made, table.name, "2023-08-05").write_bytes(b"garbage, but long enough to be looked at")
    file_of(made, table.name, "2023-08-06").unlink()
    with duckdb.connect() as connection:
        own = file_of(made, table.name, "2023-08-08")
        connection.execute(f"COPY (SELECT 1 AS a) TO '{own}' (FORMAT parquet)")
    assert stored_partitions(made, over_made, table) == {SEVENTH: before[SEVENTH]}


def test_a_table_without_files_has_no_stored_partitions(lake: Lake, engine: DuckDBEngine) -> None:
    assert stored_partitions(lake, engine, TABLES["customer_trusted"]) == {}
