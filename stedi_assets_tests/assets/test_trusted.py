"""The trusted zone: whose rows are let through, and each of them once."""

from datetime import date

import pytest

from stedi_assets.assets.trusted import (
    accelerometer_trusted,
    customer_trusted,
    step_trainer_trusted,
)
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.tables import PARTITION
from stedi_assets_tests.assets.rows import (
    DAY,
    SINCE,
    Row,
    curated,
    customer,
    device_reading,
    phone_reading,
    rows_of,
    table,
    values,
)

EARLIER, LATER = date(2023, 7, 31), date(2023, 8, 2)

NO_CONSENT = pytest.mark.parametrize("no_consent", [None, 0])
BOTH_ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])


class TestCustomerTrusted:
    def trusted(self, engine: DuckDBEngine, *landed: Row) -> list[dict[str, object]]:
        return rows_of(engine, customer_trusted(table("customer_landing", *landed)))

    def test_a_consenting_record_passes_as_it_came(self, engine: DuckDBEngine) -> None:
        record = customer(
            " Ann@STEDI.com",
            sharewithpublicasofdate=SINCE + 1,
            sharewithfriendsasofdate=0,
            customername=None,
        )
        assert self.trusted(engine, record) == [record]

    @NO_CONSENT
    def test_a_missing_or_zero_consent_is_none(
        self, engine: DuckDBEngine, no_consent: int | None
    ) -> None:
        assert self.trusted(engine, customer(research=no_consent)) == []

    def test_consent_to_the_public_and_to_friends_is_no_consent_to_research(
        self, engine: DuckDBEngine
    ) -> None:
        record = customer(
            research=None, sharewithpublicasofdate=SINCE, sharewithfriendsasofdate=SINCE
        )
        assert self.trusted(engine, record) == []

    @NO_CONSENT
    @BOTH_ORDERS
    def test_a_later_record_without_consent_removes_the_customer(
        self, engine: DuckDBEngine, no_consent: int | None, order: int
    ) -> None:
        consenting = customer(updated=2_000, day=EARLIER)
        withdrawn = customer(research=no_consent, updated=2_001, day=LATER)
        assert self.trusted(engine, *[consenting, withdrawn][::order]) == []

    @NO_CONSENT
    @BOTH_ORDERS
    def test_a_later_record_with_consent_brings_the_customer_in(
        self, engine: DuckDBEngine, no_consent: int | None, order: int
    ) -> None:
        without = customer(research=no_consent, updated=2_000, day=EARLIER)
        consenting = customer(updated=2_001, day=LATER)
        assert self.trusted(engine, *[without, consenting][::order]) == [consenting]

    def test_an_old_record_that_comes_late_changes_nothing(self, engine: DuckDBEngine) -> None:
        latest = customer(updated=2_001, day=EARLIER)
        late = customer(research=None, updated=2_000, day=LATER)
        assert self.trusted(engine, latest, late) == [latest]

    @pytest.mark.parametrize(
        ("latest", "other"),
        [
            pytest.param(
                customer(phone="latest", updated=2, registered=1, day=EARLIER),
                customer(phone="other", updated=1, registered=2, day=LATER),
                id="by update before registration and date",
            ),
            pytest.param(
                customer(phone="latest", updated=1, registered=2, day=EARLIER),
                customer(phone="other", updated=1, registered=1, day=LATER),
                id="then by registration before date",
            ),
            pytest.param(
                customer(phone="latest", updated=1, registered=1, day=LATER),
                customer(phone="other", updated=1, registered=1, day=EARLIER),
                id="then by date",
            ),
            pytest.param(
                customer(phone="latest", updated=10_000, registered=1, day=DAY),
                customer(phone="other", updated=9_999, registered=1, day=DAY),
                id="as numbers, not as text",
            ),
        ],
    )
    @BOTH_ORDERS
    def test_the_latest_record_counts(
        self, engine: DuckDBEngine, latest: Row, other: Row, order: int
    ) -> None:
        assert self.trusted(engine, *[latest, other][::order]) == [latest]

    @NO_CONSENT
    @BOTH_ORDERS
    @pytest.mark.parametrize(("name", "other_name"), [("A", "Z"), ("Z", "A"), (None, "A")])
    def test_in_a_complete_tie_the_record_without_consent_counts(
        self,
        engine: DuckDBEngine,
        no_consent: int | None,
        order: int,
        name: str | None,
        other_name: str,
    ) -> None:
        consenting = customer(customername=name)
        without = customer(research=no_consent, customername=other_name)
        assert self.trusted(engine, *[consenting, without][::order]) == []

    def test_in_a_complete_tie_with_a_date_before_1970_no_consent_counts(
        self, engine: DuckDBEngine
    ) -> None:
        assert self.trusted(engine, customer(research=-1), customer(research=0)) == []

    def test_in_a_complete_tie_of_consenting_records_the_choice_does_not_depend_on_their_order(
        self, engine: DuckDBEngine
    ) -> None:
        records = [
            customer(research=research, phone=phone, serial=serial)
            for research in (1, 2)
            for phone in (None, "1", "2")
            for serial in ("a", "b")
        ]
        chosen = [self.trusted(engine, *records[i:], *records[:i]) for i in range(len(records))]
        # A missing value goes before others, which go in their order.
        assert chosen[0] == [customer(research=1, phone=None, serial="a")]
        assert all(one == chosen[0] for one in chosen)

    def test_a_record_that_came_twice_is_one_customer(self, engine: DuckDBEngine) -> None:
        assert self.trusted(engine, customer(), customer()) == [customer()]

    @pytest.mark.parametrize(
        "spelling", ["ANN@stedi.com", "  ann@stedi.com", "ann@stedi.com\t", "\t Ann@Stedi.Com \n"]
    )
    def test_emails_that_differ_in_case_and_surrounding_blanks_are_one_person(
        self, engine: DuckDBEngine, spelling: str
    ) -> None:
        old, new = customer(updated=1), customer(spelling, updated=2)
        assert self.trusted(engine, old, new) == [new]
        withdrawn = customer(spelling, research=0, updated=2)
        assert self.trusted(engine, old, withdrawn) == []

    def test_other_people_are_other_customers(self, engine: DuckDBEngine) -> None:
        people = ["ann@stedi.com", "ann@stedi.co", "a nn@stedi.com", "bob@stedi.com"]
        landed = table(
            "customer_landing",
            *map(customer, people),
            customer("cat@stedi.com", research=0, updated=9_000),
        )
        assert values(engine, customer_trusted(landed), "email") == sorted(people)


class TestAccelerometerTrusted:
    def trusted(
        self, engine: DuckDBEngine, customers: list[Row], *readings: Row
    ) -> list[dict[str, object]]:
        return rows_of(
            engine,
            accelerometer_trusted(
                table("accelerometer_landing", *readings), table("customer_trusted", *customers)
            ),
        )

    def test_only_readings_of_customers_in_customer_trusted_pass(
        self, engine: DuckDBEngine
    ) -> None:
        ann, bob = phone_reading("ann@stedi.com"), phone_reading("bob@stedi.com")
        assert self.trusted(engine, [customer("ann@stedi.com")], ann, bob) == [ann]
        assert self.trusted(engine, [], ann, bob) == []

    @pytest.mark.parametrize(
        ("user", "email"),
        [
            ("ANN@Stedi.com", "ann@stedi.com"),
            ("ann@stedi.com", "Ann@STEDI.com"),
            ("\tann@stedi.com ", " ANN@stedi.com\t"),
        ],
    )
    def test_a_user_in_other_case_and_with_blanks_around_is_the_same_person(
        self, engine: DuckDBEngine, user: str, email: str
    ) -> None:
        reading = phone_reading(user)
        assert self.trusted(engine, [customer(email)], reading) == [reading]

    @BOTH_ORDERS
    def test_equal_readings_are_one_of_the_earliest_date(
        self, engine: DuckDBEngine, order: int
    ) -> None:
        days = [EARLIER, DAY, DAY, LATER][::order]
        readings = [phone_reading(day=day) for day in days]
        assert self.trusted(engine, [customer()], *readings) == [phone_reading(day=EARLIER)]

    @pytest.mark.parametrize(
        "other",
        [
            phone_reading("Ann@stedi.com"),
            phone_reading(time=5_001),
            phone_reading(x=1.5),
            phone_reading(y=1.0),
            phone_reading(z=-1.0000000000000002),
        ],
        ids=["user", "timestamp", "x", "y", "z"],
    )
    def test_readings_that_differ_in_any_column_stay(
        self, engine: DuckDBEngine, other: Row
    ) -> None:
        found = self.trusted(engine, [customer()], phone_reading(), other)
        assert len(found) == 2
        assert phone_reading() in found
        assert other in found

    def test_a_reading_keeps_its_own_date_whenever_the_customer_came(
        self, engine: DuckDBEngine
    ) -> None:
        reading = phone_reading(day=DAY)
        for day in (EARLIER, LATER):
            assert self.trusted(engine, [customer(day=day)], reading) == [reading]


class TestStepTrainerTrusted:
    def trusted(
        self, engine: DuckDBEngine, customers: list[Row], curated_rows: list[Row], *readings: Row
    ) -> list[dict[str, object]]:
        return rows_of(
            engine,
            step_trainer_trusted(
                table("step_trainer_landing", *readings),
                table("customer_trusted", *customers),
                table("customers_curated", *curated_rows),
            ),
        )

    def test_only_readings_of_devices_of_curated_customers_pass(self, engine: DuckDBEngine) -> None:
        ann, other = device_reading("serial of ann"), device_reading("nobody's serial")
        assert self.trusted(engine, [customer()], [curated()], ann, other) == [ann]

    def test_a_consenting_customer_without_phone_readings_does_not_let_the_device_in(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(), customer("bob@stedi.com", serial="serial of bob")]
        ann, bob = device_reading("serial of ann"), device_reading("serial of bob")
        assert self.trusted(engine, customers, [curated()], ann, bob) == [ann]

    def test_a_curated_customer_who_is_no_longer_trusted_does_not_let_the_device_in(
        self, engine: DuckDBEngine
    ) -> None:
        assert self.trusted(engine, [], [curated()], device_reading()) == []

    def test_the_customer_is_found_however_the_email_is_spelled(self, engine: DuckDBEngine) -> None:
        reading = device_reading()
        assert self.trusted(engine, [customer("\tANN@stedi.com ")], [curated()], reading) == [
            reading
        ]

    @BOTH_ORDERS
    def test_equal_readings_are_one_of_the_earliest_date(
        self, engine: DuckDBEngine, order: int
    ) -> None:
        readings = [device_reading(day=day) for day in [EARLIER, DAY, DAY, LATER][::order]]
        assert self.trusted(engine, [customer()], [curated()], *readings) == [
            device_reading(day=EARLIER)
        ]

    @pytest.mark.parametrize(
        "other",
        [
            device_reading("serial of bob"),
            device_reading(time=5_001),
            device_reading(distance=251),
        ],
        ids=["serialnumber", "sensorreadingtime", "distancefromobject"],
    )
    def test_readings_that_differ_in_any_column_stay(
        self, engine: DuckDBEngine, other: Row
    ) -> None:
        customers = [customer(), customer("bob@stedi.com", serial="serial of bob")]
        in_curated = [curated(), curated("bob@stedi.com", serial="serial of bob")]
        found = self.trusted(engine, customers, in_curated, device_reading(), other)
        assert len(found) == 2
        assert device_reading() in found
        assert other in found

    def test_a_device_that_two_curated_customers_hold_has_each_reading_once(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer("ann@stedi.com"), customer("bob@stedi.com")]
        in_curated = [curated("ann@stedi.com"), curated("bob@stedi.com")]
        reading = device_reading()
        assert self.trusted(engine, customers, in_curated, reading) == [reading]

    def test_a_reading_keeps_its_own_date_whenever_the_customer_came(
        self, engine: DuckDBEngine
    ) -> None:
        reading = device_reading(day=DAY)
        for day in (EARLIER, LATER):
            found = self.trusted(engine, [customer(day=day)], [curated(day=day)], reading)
            assert [row[PARTITION] for row in found] == [DAY]
