"""What mixes people up, and what names them: found where it is, counted, and told without names."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stedi_assets.checks import checks_of, evaluations
from stedi_assets.lake import Lake, open_lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.histories import Runner, edit, stored_rows
from stedi_assets_tests.end_to_end.landing_files import (
    Record,
    customer,
    device,
    file_of,
    land,
    phone,
    run,
    twin,
)

DAYS = SIXTH, SEVENTH, EIGHTH = "2023-08-06", "2023-08-07", "2023-08-08"
ANN, BOB, CY, DEE, XI, Q = (f"{of}@test.com" for of in ("ann", "bob", "cy", "dee", "xi", "q"))

RULES = {
    "customer_landing": ("shared_serials", "repeated_emails", "birthdays"),
    "accelerometer_landing": ("before_registration",),
    "step_trainer_landing": ("unheld_readings", "before_registration"),
    "machine_learning_curated": ("same_customer", "no_identifiers"),
    "customers_curated": ("no_identifiers",),
}
EACH_RULE = pytest.mark.parametrize(
    ("table", "rule"),
    [(table, rule) for table, rules in RULES.items() for rule in rules],
    ids=lambda name: name,
)
EACH_POLICY = pytest.mark.parametrize("policy", Policy)

Figures = dict[str, dict[str, Any]]


class Made(Runner):
    """A lake of files that a test lands, and what the rules find in it."""

    def read(self, *tables: str) -> None:
        """Make some tables, or all, of all dates."""
        self.run([date.fromisoformat(day) for day in DAYS], tables or list(TABLES))

    def finds(self, table: str, rule: str, *days: str) -> tuple[Finding, Figures]:
        """What a rule finds on some dates, or on all."""
        dates = [date.fromisoformat(day) for day in days or DAYS]
        stored = Stored(self.lake, self.engine, self.policy, TABLES[table], dates)
        finding = checks_of(TABLES[table])[rule](stored)
        return finding, {day.isoformat(): dict(of) for day, of in finding.figures.items()}

    def warns(self, table: str, rule: str, *days: str) -> tuple[str, Figures]:
        """The sentence and figures of a rule that does not pass, and is no error."""
        finding, figures = self.finds(table, rule, *days)
        assert (finding.passed, finding.is_error) == (False, False)
        return finding.sentence, figures

    def of_customers(self, *of_days: list[Record]) -> None:
        """Land and read records of customers, of the sixth and the dates after it."""
        for day, records in zip(DAYS, of_days, strict=False):
            land(self.lake, "customer", day, *records)
        self.read("customer_landing", "customer_rejects")


@pytest.fixture
def made(lake: Lake) -> Iterator[Made]:
    runner = Made(lake.storage.root)
    yield runner
    runner.end()


def rows_and_share(*found: tuple[int, int]) -> Figures:
    """The figures of a warning, of how many rows of how many on each date."""
    return {
        day: {"rows": rows, "share": round(rows / max(of, 1), 4)}
        for day, (rows, of) in zip(DAYS, found, strict=True)
    }


def beginning(rows: int, of: int) -> str:
    return f"{rows:,} ({rows / of:.1%}) of {of:,} "


@EACH_POLICY
@EACH_RULE
def test_every_rule_passes_where_nobody_is_mixed_up(
    made: Made, table: str, rule: str, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_POLICY", policy)
    people = {ANN: "s-ann", BOB: "s-bob"}
    land(made.lake, "customer", SIXTH, *(customer(who, serial) for who, serial in people.items()))
    land(made.lake, "customer", SEVENTH, customer(CY, "s-cy", consent=None, birthDay=None))
    for day, time in zip(DAYS, (10, 100, 200), strict=True):  # at the registration, and after it
        land(made.lake, "accelerometer", day, phone(ANN, time), phone(f" {BOB.upper()}", time + 1))
        land(made.lake, "step_trainer", day, device(time, "s-ann"), device(time + 1, "s-bob"))
    made.read()
    finding, figures = made.finds(table, rule)
    assert finding.passed
    assert list(figures) == list(DAYS)
    assert {figure for of in figures.values() for figure in of.values()} == {0}


@EACH_RULE
def test_every_rule_passes_over_dates_on_which_nothing_came(
    made: Made, table: str, rule: str
) -> None:
    made.read()
    finding, figures = made.finds(table, rule)
    assert finding.passed
    assert {figure for of in figures.values() for figure in of.values()} == {0}


class TestSharedSerials:
    NAME = "customer_landing", "shared_serials"

    def test_customers_who_share_are_counted_and_those_of_mixed_consent(self, made: Made) -> None:
        made.of_customers(
            [customer(ANN, "s"), customer(BOB, "s"), customer(CY, "t", consent=0)],
            [customer(DEE, "t"), customer("eve@test.com", "u")],
        )
        sentence, figures = made.warns(*self.NAME)
        assert sentence == (
            "2 serial numbers are held by several customers, 1 of them by consenting and "
            "non-consenting ones at once; it concerns 4 customers"
        )
        assert figures == {
            SIXTH: {"customers": 3, "with_and_without_consent": 1},
            SEVENTH: {"customers": 1, "with_and_without_consent": 1},
            EIGHTH: {"customers": 0, "with_and_without_consent": 0},
        }

    def test_who_shares_with_somebody_of_another_date_is_found_on_each(self, made: Made) -> None:
        made.of_customers([customer(ANN, "s")], [customer(BOB, "s"), customer(CY, "s")])
        for day, customers in ((SIXTH, 1), (SEVENTH, 2)):
            sentence, figures = made.warns(*self.NAME, day)
            assert figures == {day: {"customers": customers, "with_and_without_consent": 0}}
            assert sentence.startswith("1 serial numbers are held by several customers, 0 of them")
            assert sentence.endswith(f"it concerns {customers} customers")

    @pytest.mark.parametrize("consents", [(None, None), (5, 6)], ids=["nobody", "everybody"])
    def test_several_of_the_same_consent_are_not_mixed(
        self, made: Made, consents: tuple[int | None, int | None]
    ) -> None:
        ann, bob = consents
        made.of_customers([customer(ANN, "s", consent=ann), customer(BOB, "s", consent=bob)])
        _, figures = made.warns(*self.NAME, SIXTH)
        assert figures == {SIXTH: {"customers": 2, "with_and_without_consent": 0}}

    def test_two_records_of_one_customer_share_nothing(self, made: Made) -> None:
        made.of_customers(
            [customer(ANN, "s", consent=None)], [customer(f"\t{ANN.upper()} ", "s", updated=20)]
        )
        assert made.finds(*self.NAME)[0].passed

    def test_a_device_that_went_from_one_to_another_is_not_shared(self, made: Made) -> None:
        made.of_customers(
            [customer(ANN, "s"), customer(BOB, "t")],
            [customer(ANN, "u", updated=20), customer(BOB, "s", updated=20)],
        )
        assert made.finds(*self.NAME)[0].passed


class TestRepeatedEmails:
    NAME = "customer_landing", "repeated_emails"
    NONE = dict.fromkeys(
        ["people", "superseded", "by_update", "by_registration", "by_date", "tied", "disagree"], 0
    )

    @pytest.mark.parametrize("email", [ANN, ANN.upper(), f" {ANN}\t", f"{ANN.title()}\n"])
    @pytest.mark.parametrize(
        ("record", "day", "way"),
        [
            ({"updated": 11, "registrationDate": 1}, SIXTH, "by_update"),
            ({"updated": 10, "registrationDate": 11}, SIXTH, "by_registration"),
            ({"updated": 10, "registrationDate": 10}, SEVENTH, "by_date"),
            ({"updated": 10, "registrationDate": 10}, SIXTH, "tied"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_by_what_the_latest_record_wins(
        self, made: Made, email: str, record: Record, day: str, way: str
    ) -> None:
        of_days: dict[str, list[Record]] = {SIXTH: [customer(ANN, "s"), customer(BOB, "t")]}
        of_days.setdefault(day, []).append(customer(email, "s", **record))
        made.of_customers(*of_days.values())
        sentence, figures = made.warns(*self.NAME)
        assert figures == dict.fromkeys(DAYS, self.NONE) | {
            day: self.NONE | {"people": 1, "superseded": 1, way: 1}
        }
        times = {name: int(name == way) for name in self.NONE}
        assert sentence == (
            "1 people have several records, of which the latest counts and 1 do not: "
            f"{times['by_update']} times by the date of the update, {times['by_registration']} of "
            f"the registration, {times['by_date']} of the arrival; {times['tied']} times they tie. "
            "In 0 cases the records differ in consent"
        )

    def test_the_registration_goes_before_the_arrival(self, made: Made) -> None:
        made.of_customers(
            [customer(ANN, "s", registrationDate=2)],
            [customer(ANN, "t", registrationDate=1), customer(BOB, "s")],
        )
        _, figures = made.warns(*self.NAME)
        assert figures[SIXTH] == self.NONE | {"people": 1, "superseded": 1, "by_registration": 1}
        assert figures[SEVENTH] == self.NONE
        _, figures = made.warns(*TestSharedSerials.NAME)  # Ann's record that counts is with Bob's
        assert [of["customers"] for of in figures.values()] == [1, 1, 0]

    def test_an_old_record_that_comes_late_is_told_on_the_date_of_the_one_that_counts(
        self, made: Made
    ) -> None:
        made.of_customers([customer(ANN, "s", updated=20)], [customer(ANN, "s", updated=10)])
        _, figures = made.warns(*self.NAME)
        assert figures[SIXTH] == self.NONE | {"people": 1, "superseded": 1, "by_update": 1}
        assert figures[SEVENTH] == self.NONE

    @pytest.mark.parametrize("no_consent", [None, 0])
    @pytest.mark.parametrize("later", [True, False], ids=["withdrawn", "given"])
    def test_records_that_differ_in_consent_are_counted(
        self, made: Made, no_consent: int | None, later: bool
    ) -> None:
        consents = [5, no_consent][:: 1 if later else -1]
        made.of_customers(
            [customer(ANN, "s", consent=consents[0])],
            [customer(ANN, "s", consent=consents[1], updated=20)],
            [customer(BOB, "t", consent=5), customer(BOB, "t", consent=6, updated=20)],
        )
        sentence, figures = made.warns(*self.NAME)
        assert {day: of["disagree"] for day, of in figures.items()} == {
            SIXTH: 0,
            SEVENTH: 1,
            EIGHTH: 0,
        }
        assert sentence.endswith("In 1 cases the records differ in consent")

    def test_records_that_tie_and_differ_in_consent_are_told_as_both(self, made: Made) -> None:
        made.of_customers([customer(ANN, "s", consent=None), customer(ANN, "s")])
        _, figures = made.warns(*self.NAME, SIXTH)
        expected = {"people": 1, "superseded": 1, "tied": 1, "disagree": 1}
        assert figures == {SIXTH: self.NONE | expected}

    def test_of_many_records_the_two_latest_say_by_what_one_wins(self, made: Made) -> None:
        records = [customer(ANN, "s", updated=updated) for updated in (1, 2, 3, 4)]
        made.of_customers(records, [customer(ANN, "s", updated=4)])
        _, figures = made.warns(*self.NAME)
        assert figures[SEVENTH] == self.NONE | {
            "people": 1,
            "superseded": len(records),
            "by_date": 1,
        }

    def test_each_person_is_counted_once(self, made: Made) -> None:
        made.of_customers(
            [customer(who, who) for who in (ANN, ANN, BOB, BOB, BOB, CY)],
            [customer(BOB, BOB)],
        )
        sentence, figures = made.warns(*self.NAME)
        assert sentence.startswith("2 people have several records")
        assert (figures[SIXTH]["people"], figures[SIXTH]["superseded"]) == (1, 1)
        assert (figures[SEVENTH]["people"], figures[SEVENTH]["superseded"]) == (1, 3)


class TestBirthdays:
    NAME = "customer_landing", "birthdays"

    @pytest.mark.parametrize("birthday", [None, "1970-01-01", "2004-02-29", SIXTH, "1903-08-06"])
    def test_a_birthday_within_120_years_or_none_is_fine(
        self, made: Made, birthday: str | None
    ) -> None:
        made.of_customers([customer(ANN, "s", birthDay=birthday)])
        assert made.finds(*self.NAME, SIXTH)[0].passed

    @pytest.mark.parametrize(
        "birthday",
        [
            "unknown",
            "",
            "1970-02-30",
            "1903-08-05",
            "1399-01-01",
            "0967-01-01",
            SEVENTH,
            "2999-01-01",
        ],
    )
    def test_no_date_one_of_the_future_and_one_of_120_years_ago_are_warned_of(
        self, made: Made, birthday: str
    ) -> None:
        made.of_customers([customer(ANN, "s", birthDay=birthday), customer(BOB, "t")])
        sentence, figures = made.warns(*self.NAME, SIXTH)
        assert figures == {SIXTH: {"rows": 1, "share": 0.5}}
        assert sentence.startswith(beginning(1, 2) + "records have a birthday that is no date, ")

    def test_one_of_one_is_all_of_them(self, made: Made) -> None:
        made.of_customers([customer(ANN, "s", birthDay="unknown")])
        assert made.warns(*self.NAME)[0].startswith("1 (100.0%) of 1 records")

    def test_each_date_has_its_figures_and_its_own_today(self, made: Made) -> None:
        bad = [customer(who, who, birthDay="1399-01-01") for who in (ANN, BOB)]
        good = [customer(f"{n}@test.com", str(n)) for n in range(5)]
        of_seventh = customer(CY, CY, birthDay=SEVENTH)
        made.of_customers([*bad, *good], [of_seventh], [])
        sentence, figures = made.warns(*self.NAME)
        assert figures == rows_and_share((2, 7), (0, 1), (0, 0))
        assert sentence.startswith(beginning(2, 8))


class TestUnheldReadings:
    NAME = "step_trainer_landing", "unheld_readings"

    def test_readings_of_devices_that_nobody_holds_are_counted(self, made: Made) -> None:
        """Who held one before, and by a later record has another, holds it no more."""
        land(made.lake, "customer", SIXTH, customer(ANN, "old"), customer(CY, "s-cy", consent=None))
        land(made.lake, "customer", SEVENTH, customer(ANN, "new", updated=20))
        held = [device(100, "new"), device(100, "s-cy")]
        unheld = [device(100, "old"), device(100, "old", 7), device(100, "NEW")]
        land(made.lake, "step_trainer", SIXTH, *held, *unheld)
        land(made.lake, "step_trainer", SEVENTH, *held, device(1, "nobody's"))
        land(made.lake, "step_trainer", EIGHTH, *held)
        made.read()
        sentence, figures = made.warns(*self.NAME)
        assert figures == rows_and_share((3, 5), (1, 3), (0, 2))
        assert sentence == beginning(4, 10) + "readings are of devices that no customer holds"
        assert made.finds(*self.NAME, EIGHTH)[0].passed

    def test_a_device_whose_customer_comes_later_is_held(self, made: Made) -> None:
        land(made.lake, "step_trainer", SIXTH, device(100, "s"))
        land(made.lake, "customer", EIGHTH, customer(ANN, "s"))
        made.read()
        assert made.finds(*self.NAME)[0].passed


class TestBeforeRegistration:
    PHONES = "accelerometer_landing", "before_registration"
    DEVICES = "step_trainer_landing", "before_registration"

    def test_phone_readings_from_before_it_are_counted_on_their_dates(self, made: Made) -> None:
        land(made.lake, "customer", SEVENTH, customer(ANN, "s", registrationDate=50))
        spelled = f" {ANN.upper()}\t"
        nobodys = phone("nobody@test.com", 1)
        land(made.lake, "accelerometer", SIXTH, *(phone(ANN, time) for time in (48, 49, 50, 51)))
        land(made.lake, "accelerometer", SEVENTH, phone(spelled, 49), phone(spelled, 50), nobodys)
        land(made.lake, "accelerometer", EIGHTH, phone(ANN, 50), nobodys)
        made.read()
        sentence, figures = made.warns(*self.PHONES)
        assert figures == rows_and_share((2, 4), (1, 3), (0, 2))
        expected = "readings are from before the customer's registration"
        assert sentence == beginning(3, 9) + expected
        assert made.finds(*self.PHONES, EIGHTH)[0].passed

    def test_the_earliest_of_a_customers_registrations_counts(self, made: Made) -> None:
        records = [
            customer(ANN, "s", registrationDate=50, updated=50),
            customer(ANN.upper(), "s", registrationDate=90, updated=90),
        ]
        land(made.lake, "customer", SIXTH, *records)
        land(made.lake, "accelerometer", SIXTH, phone(ANN, 49), phone(ANN, 50), phone(ANN, 89))
        land(made.lake, "step_trainer", SIXTH, device(49, "s"), device(50, "s"), device(89, "s"))
        made.read()
        for name in (self.PHONES, self.DEVICES):
            assert made.warns(*name)[1] == rows_and_share((1, 3), (0, 0), (0, 0))

    def test_device_readings_from_before_the_first_of_its_customers_are_counted(
        self, made: Made
    ) -> None:
        customers = [
            customer(ANN, "shared", registrationDate=50),
            customer(BOB, "shared", registrationDate=90, consent=None),
            customer(CY, "s-cy", registrationDate=90, consent=None),
        ]
        land(made.lake, "customer", SIXTH, *customers)
        land(made.lake, "step_trainer", SIXTH, *(device(time, "shared") for time in (49, 50, 89)))
        land(made.lake, "step_trainer", SEVENTH, device(89, "s-cy"), device(1, "nobody's"))
        made.read()
        assert made.warns(*self.DEVICES)[1] == rows_and_share((1, 3), (1, 2), (0, 0))


class TestSameCustomer:
    NAME = "machine_learning_curated", "same_customer"

    def land(self, lake: Lake) -> None:
        """On the sixth both walk at once; on the seventh each alone; on the eighth Ann's device."""
        land(lake, "customer", SIXTH, customer(ANN, "s-ann"), customer(BOB, "s-bob"))
        land(lake, "accelerometer", SIXTH, phone(ANN, 100), phone(BOB, 100))
        land(lake, "step_trainer", SIXTH, device(100, "s-ann"), device(100, "s-bob"))
        land(lake, "accelerometer", SEVENTH, phone(ANN, 200), phone(BOB, 201))
        land(lake, "step_trainer", SEVENTH, device(200, "s-ann"), device(201, "s-bob"))
        land(lake, "accelerometer", EIGHTH, phone(BOB, 300))
        land(lake, "step_trainer", EIGHTH, device(300, "s-ann"))

    def test_pairs_of_two_people_are_counted(self, made: Made) -> None:
        self.land(made.lake)
        made.read()
        sentence, figures = made.warns(*self.NAME)
        assert figures == rows_and_share((2, 4), (0, 2), (1, 1))
        expected = "pairs join one person's device with another person's phone"
        assert sentence == beginning(3, 7) + expected
        assert made.finds(*self.NAME, SEVENTH)[0].passed

    def test_under_the_strict_policy_there_are_none(
        self, made: Made, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STEDI_POLICY", Policy.STRICT)
        self.land(made.lake)
        made.read()
        rows = stored_rows(made.lake)["machine_learning_curated"]
        assert {day: of.total() for day, of in rows.items()} == {SIXTH: 2, SEVENTH: 2}
        assert made.finds(*self.NAME)[0].passed


# What names a person.

NAMED = {"customerName": "Ann Lee-Smith", "phone": "801-555-1212"}
NUMBER = 8_015_551_212


@pytest.fixture(scope="module")
def named_once(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two people with readings of their own on the sixth; Cy, who does not consent, is landed."""
    runner = Made(tmp_path_factory.mktemp("named once"))
    land(runner.lake, "customer", SIXTH, customer(ANN, "S-Ann", **NAMED))
    cy = {"customerName": "Abe", "phone": "9995550000"}
    xi = {"customerName": "Xi", "phone": "1 000 000"}
    q = {"customerName": "\u00e4", "phone": "999-999"}
    bob = {"customerName": "Bob", "phone": None}
    land(
        runner.lake,
        "customer",
        SEVENTH,
        customer(BOB, "f00", **bob),
        customer(CY, "s-cy", consent=None, **cy),
        customer(XI, "s-xi", consent=None, **xi),
        customer(Q, "s-q", consent=None, **q),
    )
    land(runner.lake, "accelerometer", SIXTH, phone(ANN, 100), phone(BOB, 200))
    land(runner.lake, "step_trainer", SIXTH, device(100, "S-Ann"), device(200, "f00"))
    runner.read()
    runner.end()
    return open_lake(str(runner.lake.storage.root))


@pytest.fixture
def named(named_once: Lake, tmp_path: Path) -> Iterator[Made]:
    runner = Made(twin(named_once, tmp_path / "named").storage.root)
    yield runner
    runner.end()


def errs(made: Made, table: str, rows: int, day: str = SIXTH) -> None:
    """`no_identifiers` is an error that counts so many values on a date, and none on another."""
    finding, figures = made.finds(table, "no_identifiers")
    assert (finding.passed, finding.is_error) == (rows == 0, True)
    assert figures == {each: {"identifiers": rows if each == day else 0} for each in DAYS}
    assert finding.sentence == (
        f"{rows} values are or hold an email, a phone number, a name or a serial number"
    )


IDENTIFIERS = {
    "an email": ANN,
    "an email in other case": ANN.upper(),
    "an email with blanks around": f"\t{ANN} ",
    "an email in other case inside other text": f"of <{ANN.title()}>, walking",
    "the email of nobody we know": "someone@else.org",
    "a name": NAMED["customerName"],
    "a name in other case": NAMED["customerName"].upper(),
    "a name inside other text": f"by {NAMED['customerName'].lower()} herself",
    "the name of who does not consent": "abe",
    "a name of two letters": "as xi walks",
    "a phone number": NAMED["phone"],
    "a phone number inside other text": f"tel.{NAMED['phone']}",
    "a serial number": "S-Ann",
    "a serial number inside other text": "device s-ann!",
    "a serial number of hexadecimal digits": "f00",
}


@pytest.mark.parametrize("what", IDENTIFIERS)
@pytest.mark.parametrize("column", ["subject_id", "device_id"])
@pytest.mark.parametrize("table", ["customers_curated", "machine_learning_curated"])
def test_what_names_somebody_is_found_where_a_pseudonym_belongs(
    named: Made, table: str, column: str, what: str
) -> None:
    text = IDENTIFIERS[what].replace("'", "''")
    edit(file_of(named.lake, table, SIXTH), f"UPDATE rows SET {column} = '{text}' WHERE rowid = 0")
    errs(named, table, 1)


def test_every_value_that_names_somebody_is_counted(named: Made) -> None:
    table = "machine_learning_curated"
    changes = f"subject_id = '{ANN}', device_id = 'S-Ann'"
    edit(file_of(named.lake, table, SIXTH), f"UPDATE rows SET {changes}")
    rows = stored_rows(named.lake)[table][SIXTH].total()
    assert rows > 1
    errs(named, table, 2 * rows)


@pytest.mark.parametrize(
    "column",
    [
        "registrationdate",
        "lastupdatedate",
        "sharewithresearchasofdate",
        "sharewithpublicasofdate",
        "sharewithfriendsasofdate",
    ],
)
def test_a_phone_number_is_found_where_a_number_belongs(named: Made, column: str) -> None:
    file = file_of(named.lake, "customers_curated", SEVENTH)
    edit(file, f"UPDATE rows SET {column} = {NUMBER}")
    errs(named, "customers_curated", 1, SEVENTH)
    edit(file, f"UPDATE rows SET {column} = {NUMBER} + 1")
    errs(named, "customers_curated", 0)


@pytest.mark.parametrize(("number", "rows"), [(1_000_000, 1), (999_999, 0)])
def test_a_phone_number_has_seven_digits_at_least(named: Made, number: int, rows: int) -> None:
    edit(
        file_of(named.lake, "customers_curated", SIXTH),
        f"UPDATE rows SET lastupdatedate = {number}",
    )
    errs(named, "customers_curated", rows)


def test_a_name_of_one_letter_is_in_too_many_texts_to_be_looked_for(named: Made) -> None:
    edit(file_of(named.lake, "customers_curated", SIXTH), "UPDATE rows SET device_id = '\u00e4'")
    errs(named, "customers_curated", 0)


def test_what_names_somebody_is_found_whatever_column_comes_before(named: Made) -> None:
    name = "machine_learning_curated"
    edit(file_of(named.lake, name, SIXTH), f"UPDATE rows SET subject_id = '{ANN}' WHERE rowid = 0")
    table = replace(TABLES[name], columns=TABLES[name].columns[::-1])
    days = [date.fromisoformat(day) for day in DAYS]
    stored = Stored(named.lake, named.engine, named.policy, table, days)
    assert checks_of(table)["no_identifiers"](stored).figures[days[0]] == {"identifiers": 1}


def test_what_a_device_measured_is_no_phone_number(named: Made) -> None:
    changes = f"sensorreadingtime = {NUMBER}, timestamp = {NUMBER}, x = {NUMBER}"
    file = file_of(named.lake, "machine_learning_curated", SIXTH)
    edit(file, f"UPDATE rows SET {changes}")
    errs(named, "machine_learning_curated", 0)


@pytest.mark.parametrize("name", ["abe", "f00"])
@pytest.mark.parametrize("column", ["subject_id", "device_id"])
def test_a_pseudonym_in_which_a_short_name_occurs_by_chance_names_nobody(
    named: Made, column: str, name: str
) -> None:
    by_chance = "0123456789abcdef" * 4
    by_chance = by_chance[: -len(name)] + name
    file = file_of(named.lake, "customers_curated", SIXTH)
    edit(file, f"UPDATE rows SET {column} = '{by_chance}'")
    errs(named, "customers_curated", 0)
    # A text that is a digit longer is no pseudonym.
    edit(file, f"UPDATE rows SET {column} = '0{by_chance}'")
    errs(named, "customers_curated", 1)


# Consent.


def test_of_records_that_tie_the_check_of_consent_takes_the_one_that_the_table_has(
    made: Made,
) -> None:
    """Ann's records come in the other order than Bob's, so that neither order explains it.

    Of Dee's, one says less than the other.
    """
    records = [(ANN, "s1"), (ANN, "s2"), (BOB, "t2"), (BOB, "t1"), (DEE, "u1")]
    less = customer(DEE, "u2", phone=None)
    land(made.lake, "customer", SIXTH, *(customer(who, serial) for who, serial in records), less)
    land(made.lake, "accelerometer", SIXTH, phone(ANN, 100), phone(BOB, 200), phone(DEE, 300))
    serials = [*(serial for _, serial in records), "u2"]
    land(made.lake, "step_trainer", SIXTH, *(device(100, serial) for serial in serials))
    made.read()
    for table in ("customers_curated", "step_trainer_trusted", "machine_learning_curated"):
        finding, _ = made.finds(table, "consent")
        assert finding.passed, table


# What checks tell.


def mixed_up(lake: Lake) -> set[str]:
    """Land files of which every rule warns; returns all that names people in them."""
    records = [
        customer(ANN, "shared-1", customerName="Ann Lee", phone="8015550001", consent=150),
        customer(
            BOB, "shared-1", customerName="Bob Ray", phone="8015550002", birthDay="1399-01-01"
        ),
        customer(CY, "shared-2", customerName="Cy Fox", phone="8015550003", consent=None),
        customer(DEE, "shared-2", customerName="Dee Kay", phone="8015550004", registrationDate=150),
    ]
    later = [
        customer(f" {ANN.upper()}", "serial-3", customerName="Ann Fay", updated=20, consent=150),
        customer(BOB, "shared-1", customerName="Bob Ray", updated=20, consent=None),
    ]
    land(lake, "customer", SIXTH, *records)
    land(lake, "customer", SEVENTH, *later)
    people = {ANN: "serial-3", BOB: "shared-1", CY: "shared-2", DEE: "shared-2"}
    for day, times in ((SIXTH, (5, 100, 200)), (SEVENTH, (200, 300))):
        land(lake, "accelerometer", day, *(phone(who, time) for who in people for time in times))
        serials = [*people.values(), "serial-of-nobody"]
        land(lake, "step_trainer", day, *(device(t, s) for s in serials for t in times))
    found = [*records, *later]
    return {
        str(record[name]).strip().lower()
        for record in found
        for name in ("customerName", "email", "phone", "serialNumber")
        if name != "phone" or record["phone"] != "5551234567"
    } | {"serial-of-nobody"}


@EACH_POLICY
def test_no_error_is_found_where_people_are_mixed_up_and_every_rule_warns(
    made: Made, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_POLICY", policy)
    mixed_up(made.lake)
    made.read()
    findings = {
        (table, rule): made.finds(table, rule)[0]
        for table in TABLES
        for rule in checks_of(TABLES[table])
    }
    failed = {name: finding for name, finding in findings.items() if not finding.passed}
    assert {name: f.sentence for name, f in failed.items() if f.is_error} == {}
    warns = {(t, r) for t, rules in RULES.items() for r in rules if r != "no_identifiers"}
    if policy is Policy.STRICT:
        warns.remove(("machine_learning_curated", "same_customer"))
    assert set(failed) == warns


@EACH_POLICY
def test_nothing_that_a_run_and_its_checks_tell_names_anybody(
    lake: Lake, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_POLICY", policy)
    names = mixed_up(lake)
    result = run(lake, SIXTH, SEVENTH)
    assert result.success
    told = [
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.WARN
    ]
    assert {evaluation.check_name for evaluation in told} >= {"shared_serials", "birthdays"}
    text = "\n".join(map(repr, result.all_events)).lower()
    assert "serial numbers are held by several customers" in text
    assert [name for name in names if name in text] == []


@EACH_POLICY
def test_nothing_that_checks_tell_of_partitions_with_names_in_them_names_anybody(
    made: Made, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a check fails because a name is where none belongs."""
    monkeypatch.setenv("STEDI_POLICY", policy)
    names = mixed_up(made.lake)
    made.read()
    changes: dict[str, str] = {
        "customer_trusted": f"email = '{CY}', serialnumber = 'shared-2'",
        "accelerometer_trusted": f"\"user\" = '{CY}'",
        "customers_curated": f"subject_id = '{CY}', registrationdate = 8015550003",
        "step_trainer_trusted": "serialnumber = 'serial-of-nobody'",
        "machine_learning_curated": "device_id = 'shared-2', subject_id = 'Cy Fox'",
    }
    days = [date.fromisoformat(day) for day in DAYS]
    for table, change in changes.items():
        for file in sorted(made.lake.storage.root.glob(f"{TABLES[table].path}/*/*.parquet")):
            edit(file, f"UPDATE rows SET {change}")
    told = [
        evaluation
        for table in TABLES.values()
        for evaluation in evaluations(made.lake, made.engine, policy, table, days)
    ]
    failed = {(e.asset_key.to_user_string(), e.check_name) for e in told if not e.passed}
    assert failed >= {(table, "consent") for table in changes}
    assert failed >= {(table, "no_identifiers") for table in changes if "curated" in table}
    text = "\n".join(
        json.dumps([e.description, {name: str(v.value) for name, v in e.metadata.items()}])
        for e in told
    ).lower()
    assert [name for name in names if name in text] == []
