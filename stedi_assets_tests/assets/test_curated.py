"""The curated zone: what is trained on, with nothing in it that names a person."""

from datetime import date
from itertools import product

import pytest

from stedi_assets.assets.curated import customers_curated, machine_learning_curated
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
    pseudonym_of,
    rows_of,
    table,
    values,
)

EARLIER, LATER = date(2023, 7, 31), date(2023, 8, 2)


class TestCustomersCurated:
    def curated(
        self, engine: DuckDBEngine, customers: list[Row], readings: list[Row]
    ) -> list[dict[str, object]]:
        return rows_of(
            engine,
            customers_curated(
                table("customer_trusted", *customers), table("accelerometer_trusted", *readings)
            ),
        )

    def test_a_customer_loses_what_names_the_person_and_keeps_the_rest(
        self, engine: DuckDBEngine
    ) -> None:
        ann = customer(
            birthday="1990-06-15",
            registered=1_000,
            updated=2_000,
            research=SINCE,
            sharewithpublicasofdate=0,
            sharewithfriendsasofdate=3_000,
        )
        assert self.curated(engine, [ann], [phone_reading()]) == [
            {
                "subject_id": pseudonym_of("ann@stedi.com"),
                "device_id": pseudonym_of("serial of ann"),
                "birthyear": 1990,
                "registrationdate": 1_000,
                "lastupdatedate": 2_000,
                "sharewithresearchasofdate": SINCE,
                "sharewithpublicasofdate": 0,
                "sharewithfriendsasofdate": 3_000,
                PARTITION: DAY,
            }
        ]

    def test_only_customers_with_readings_are_in_it(self, engine: DuckDBEngine) -> None:
        customers = [customer("ann@stedi.com"), customer("bob@stedi.com")]
        found = self.curated(engine, customers, [phone_reading("bob@stedi.com")])
        assert [row["subject_id"] for row in found] == [pseudonym_of("bob@stedi.com")]
        assert self.curated(engine, customers, []) == []

    def test_many_readings_under_many_spellings_are_one_customer(
        self, engine: DuckDBEngine
    ) -> None:
        users = ["ann@stedi.com", "ANN@stedi.com", " ann@stedi.com\t"]
        readings = [phone_reading(user, time) for user in users for time in (1, 2, 3)]
        assert len(self.curated(engine, [customer("Ann@Stedi.com")], readings)) == 1

    @pytest.mark.parametrize(
        ("email", "person"),
        [
            ("\t Ann.LEE@Stedi.com \n", "ann.lee@stedi.com"),
            ("Zoë@stedi.com", "zoë@stedi.com"),
            ("a nn@stedi.com", "a nn@stedi.com"),
        ],
    )
    def test_the_subject_is_the_keyed_hash_of_the_normalised_email(
        self, engine: DuckDBEngine, email: str, person: str
    ) -> None:
        (row,) = self.curated(engine, [customer(email)], [phone_reading(person)])
        assert row["subject_id"] == pseudonym_of(person)

    def test_the_device_is_the_keyed_hash_of_the_serial_number_as_it_is(
        self, engine: DuckDBEngine
    ) -> None:
        (row,) = self.curated(engine, [customer(serial=" Serial-1 ")], [phone_reading()])
        assert row["device_id"] == pseudonym_of(" Serial-1 ")

    @pytest.mark.parametrize(
        ("birthday", "year"),
        [
            ("0967-01-01", 967),
            ("967-01-01", 967),
            ("1999-12-31", 1999),
            ("", None),
            (None, None),
            ("unknown", None),
            ("31-12-1999", 31),
            ("12345-01-01", None),
            ("1999", None),
        ],
    )
    def test_of_the_birthday_the_year_is_left(
        self, engine: DuckDBEngine, birthday: str | None, year: int | None
    ) -> None:
        (row,) = self.curated(engine, [customer(birthday=birthday)], [phone_reading()])
        assert row["birthyear"] == year

    def test_a_customer_keeps_the_date_of_its_record_whenever_the_readings_came(
        self, engine: DuckDBEngine
    ) -> None:
        for day in (EARLIER, LATER):
            (row,) = self.curated(engine, [customer(day=DAY)], [phone_reading(day=day)])
            assert row[PARTITION] == DAY


class TestMachineLearningCurated:
    ANN, BOB = "ann@stedi.com", "bob@stedi.com"
    CUSTOMERS = (customer(ANN), customer(BOB, serial="serial of bob"))
    CURATED = (curated(ANN), curated(BOB, serial="serial of bob"))

    def pairs(
        self,
        engine: DuckDBEngine,
        devices: list[Row],
        phones: list[Row],
        *,
        customers: tuple[Row, ...] = CUSTOMERS,
        in_curated: tuple[Row, ...] = CURATED,
    ) -> list[dict[str, object]]:
        return rows_of(
            engine,
            machine_learning_curated(
                table("step_trainer_trusted", *devices),
                table("accelerometer_trusted", *phones),
                table("customer_trusted", *customers),
                table("customers_curated", *in_curated),
            ),
        )

    def test_readings_of_the_same_millisecond_are_a_pair(self, engine: DuckDBEngine) -> None:
        devices = [device_reading(time=5_000, distance=250), device_reading(time=5_003)]
        phones = [
            phone_reading(time=4_999),
            phone_reading(time=5_000, x=1.5, y=-2.25, z=0.125),
            phone_reading(time=5_001),
        ]
        assert self.pairs(engine, devices, phones) == [
            {
                "subject_id": pseudonym_of(self.ANN),
                "device_id": pseudonym_of("serial of ann"),
                "sensorreadingtime": 5_000,
                "distancefromobject": 250,
                "timestamp": 5_000,
                "x": 1.5,
                "y": -2.25,
                "z": 0.125,
                "same_customer": True,
                PARTITION: DAY,
            }
        ]

    def test_of_readings_of_the_same_millisecond_each_goes_with_each(
        self, engine: DuckDBEngine
    ) -> None:
        devices = [device_reading(distance=distance) for distance in (201, 202)]
        phones = [phone_reading(x=x) for x in (0.0, 1.0, 2.0)]
        found = self.pairs(engine, devices, phones)
        assert sorted((row["distancefromobject"], row["x"]) for row in found) == [
            (201, 0.0),
            (201, 1.0),
            (201, 2.0),
            (202, 0.0),
            (202, 1.0),
            (202, 2.0),
        ]

    @pytest.mark.parametrize(
        ("device", "phone", "pair"),
        [(EARLIER, LATER, LATER), (LATER, EARLIER, LATER), (DAY, DAY, DAY)],
    )
    def test_a_pair_has_the_later_of_its_two_dates(
        self, engine: DuckDBEngine, device: date, phone: date, pair: date
    ) -> None:
        (row,) = self.pairs(engine, [device_reading(day=device)], [phone_reading(day=phone)])
        assert row[PARTITION] == pair

    def test_the_date_of_a_customer_does_not_count(self, engine: DuckDBEngine) -> None:
        (row,) = self.pairs(
            engine,
            [device_reading()],
            [phone_reading()],
            customers=(customer(day=LATER),),
            in_curated=(curated(day=LATER),),
        )
        assert row[PARTITION] == DAY

    def test_a_pair_says_whether_the_phone_is_of_the_customer_who_has_the_device(
        self, engine: DuckDBEngine
    ) -> None:
        devices = [device_reading("serial of ann"), device_reading("serial of bob")]
        phones = [phone_reading(self.ANN), phone_reading(self.BOB)]
        found = self.pairs(engine, devices, phones)
        serials = {self.ANN: "serial of ann", self.BOB: "serial of bob"}
        assert {(row["subject_id"], row["device_id"]): row["same_customer"] for row in found} == {
            (pseudonym_of(person), pseudonym_of(serial)): serials[person] == serial
            for person, serial in product(serials, serials.values())
        }
        assert len(found) == 4

    def test_a_serial_number_of_two_customers_does_not_double_rows(
        self, engine: DuckDBEngine
    ) -> None:
        found = self.pairs(
            engine,
            [device_reading()],
            [phone_reading(self.ANN), phone_reading(self.BOB)],
            customers=(customer(self.ANN), customer(self.BOB)),
            in_curated=(curated(self.ANN), curated(self.BOB)),
        )
        assert sorted((row["subject_id"], row["same_customer"]) for row in found) == sorted(
            [(pseudonym_of(self.ANN), True), (pseudonym_of(self.BOB), True)]
        )

    def test_the_phone_readings_of_who_is_not_curated_are_out(self, engine: DuckDBEngine) -> None:
        found = self.pairs(
            engine,
            [device_reading()],
            [phone_reading(self.ANN), phone_reading(self.BOB)],
            in_curated=self.CURATED[:1],
        )
        assert [row["subject_id"] for row in found] == [pseudonym_of(self.ANN)]

    def test_the_device_readings_of_who_is_not_curated_are_out(self, engine: DuckDBEngine) -> None:
        found = self.pairs(
            engine,
            [device_reading("serial of ann"), device_reading("serial of bob")],
            [phone_reading(self.ANN)],
            in_curated=self.CURATED[:1],
        )
        assert [row["device_id"] for row in found] == [pseudonym_of("serial of ann")]

    def test_who_is_curated_but_no_longer_trusted_is_out(self, engine: DuckDBEngine) -> None:
        found = self.pairs(
            engine,
            [device_reading("serial of ann"), device_reading("serial of bob")],
            [phone_reading(self.ANN), phone_reading(self.BOB)],
            customers=self.CUSTOMERS[:1],
        )
        assert [(row["subject_id"], row["device_id"]) for row in found] == [
            (pseudonym_of(self.ANN), pseudonym_of("serial of ann"))
        ]

    def test_a_person_is_found_under_every_spelling_and_no_row_is_doubled(
        self, engine: DuckDBEngine
    ) -> None:
        users = ["ann@stedi.com", "ANN@Stedi.com", "\tann@stedi.com "]
        found = self.pairs(
            engine,
            [device_reading()],
            [phone_reading(user, x=x) for x, user in enumerate(users, start=1)],
            customers=(customer(" Ann@stedi.com"),),
            in_curated=(curated(self.ANN),),
        )
        assert [(row["subject_id"], row["x"]) for row in found] == [
            (pseudonym_of(self.ANN), x) for x in (1, 2, 3)
        ]

    def test_the_device_of_a_pair_is_the_one_that_measured(self, engine: DuckDBEngine) -> None:
        pairs = machine_learning_curated(
            table("step_trainer_trusted", device_reading("serial of bob")),
            table("accelerometer_trusted", phone_reading(self.ANN)),
            table("customer_trusted", *self.CUSTOMERS),
            table("customers_curated", *self.CURATED),
        )
        assert values(engine, pairs, "device_id") == [pseudonym_of("serial of bob")]
        assert values(engine, pairs, "subject_id") == [pseudonym_of(self.ANN)]
