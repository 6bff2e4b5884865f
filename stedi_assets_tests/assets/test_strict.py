"""The policy `strict`: readings from the consent on, devices only where their customer walked."""

from datetime import date
from itertools import product
from typing import Any

import ibis.expr.types as ir
import pytest

from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import PARTITION, TABLES
from stedi_assets_tests.assets.rows import (
    DAY,
    SINCE,
    Row,
    customer,
    device_reading,
    phone_reading,
    pseudonym_of,
    rows_of,
    table,
)

DAYS = [date(2023, 7, 31), DAY, date(2023, 8, 2), date(2023, 8, 3)]
EARLIER, _, LATER, LATEST = DAYS

ANN, BOB = "ann@stedi.com", "bob@stedi.com"
AFTER = SINCE + 1_000

BOTH_ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])


def gives(
    engine: DuckDBEngine,
    name: str,
    customers: list[Row],
    phones: list[Row],
    devices: list[Row] | None = None,
    policy: Policy = Policy.STRICT,
) -> list[dict[str, Any]]:
    """What a table holds of these landed records, by the definitions of all that it hangs on."""
    tables: dict[str, ir.Table] = {
        "customer_landing": table("customer_landing", *customers),
        "accelerometer_landing": table("accelerometer_landing", *phones),
        "step_trainer_landing": table("step_trainer_landing", *devices or []),
    }
    for definition in DEFINITIONS[policy].values():
        made = definition(**{read: tables[read] for read in definition.needs})
        tables[definition.table.name] = made
    return rows_of(engine, tables[name])


class TestAccelerometerTrusted:
    def times(self, engine: DuckDBEngine, customers: list[Row], *readings: Row) -> list[int]:
        found = gives(engine, "accelerometer_trusted", customers, list(readings))
        return sorted(row["timestamp"] for row in found)

    def test_readings_from_the_millisecond_of_the_consent_on_pass(
        self, engine: DuckDBEngine
    ) -> None:
        readings = [phone_reading(ANN, SINCE + after) for after in (-1_000, -1, 0, 1, 1_000)]
        found = self.times(engine, [customer(ANN, SINCE)], *readings)
        assert found == [SINCE, SINCE + 1, SINCE + 1_000]

    def test_a_reading_that_passes_is_as_it_came(self, engine: DuckDBEngine) -> None:
        reading = phone_reading(f"\t{ANN.upper()} ", SINCE, x=0.1, y=-0.2, z=0.3, day=LATER)
        assert gives(engine, "accelerometer_trusted", [customer(ANN)], [reading]) == [reading]

    @pytest.mark.parametrize("no_consent", [None, 0])
    def test_without_consent_no_reading_passes_whenever_it_was_taken(
        self, engine: DuckDBEngine, no_consent: int | None
    ) -> None:
        readings = [phone_reading(ANN, time) for time in (0, 1, SINCE)]
        assert self.times(engine, [customer(ANN, no_consent)], *readings) == []

    def test_who_consented_before_1970_consented(self, engine: DuckDBEngine) -> None:
        readings = [phone_reading(ANN, time) for time in (-6, -5, 0, 7)]
        assert self.times(engine, [customer(ANN, -5)], *readings) == [-5, 0, 7]

    @BOTH_ORDERS
    @pytest.mark.parametrize(
        ("moments", "passing"),
        [
            ([SINCE - 10, SINCE], [SINCE, AFTER]),
            ([SINCE, SINCE - 10], [SINCE - 10, SINCE, AFTER]),
            ([SINCE - 10, None, AFTER], [AFTER]),
            ([SINCE, None], []),
        ],
        ids=["moved on", "moved back", "withdrawn and given again", "withdrawn"],
    )
    def test_the_moment_of_the_latest_record_counts(
        self, engine: DuckDBEngine, moments: list[int | None], passing: list[int], order: int
    ) -> None:
        records = [
            customer(ANN, moment, updated=number, day=day)
            for number, (moment, day) in enumerate(zip(moments, DAYS, strict=False))
        ]
        readings = [phone_reading(ANN, time) for time in (SINCE - 11, SINCE - 10, SINCE, AFTER)]
        assert self.times(engine, records[::order], *readings) == passing

    @pytest.mark.parametrize("spelling", [ANN.upper(), f"  {ANN}", f"{ANN}\t", " Ann@Stedi.COM\n"])
    def test_an_email_in_other_case_and_with_blanks_is_the_same_person_with_the_same_moment(
        self, engine: DuckDBEngine, spelling: str
    ) -> None:
        records = [customer(ANN, 1, updated=1), customer(spelling, SINCE, updated=2)]
        users = [ANN, spelling, f" {ANN.title()} "]
        readings = [phone_reading(user, time) for user in users for time in (SINCE - 1, SINCE)]
        assert self.times(engine, records, *readings) == [SINCE] * len(users)

    def test_each_person_has_a_moment_of_their_own(self, engine: DuckDBEngine) -> None:
        customers = [customer(ANN, SINCE), customer(BOB, AFTER)]
        readings = [phone_reading(who, time) for who in (ANN, BOB) for time in (SINCE, AFTER)]
        found = gives(engine, "accelerometer_trusted", customers, readings)
        assert {(row["user"], row["timestamp"]) for row in found} == {
            (ANN, SINCE),
            (ANN, AFTER),
            (BOB, AFTER),
        }

    @BOTH_ORDERS
    def test_equal_readings_are_one_of_the_earliest_date(
        self, engine: DuckDBEngine, order: int
    ) -> None:
        readings = [phone_reading(ANN, SINCE, day=day) for day in [*DAYS, DAY]][::order]
        found = gives(engine, "accelerometer_trusted", [customer(ANN)], readings)
        assert found == [phone_reading(ANN, SINCE, day=EARLIER)]

    def test_readings_that_differ_in_any_column_stay(self, engine: DuckDBEngine) -> None:
        readings = [
            phone_reading(ANN, SINCE),
            phone_reading(ANN.upper(), SINCE),
            phone_reading(ANN, SINCE + 1),
            phone_reading(ANN, SINCE, x=1.5),
            phone_reading(ANN, SINCE, y=1.5),
            phone_reading(ANN, SINCE, z=1.5),
        ]
        found = gives(engine, "accelerometer_trusted", [customer(ANN)], readings)
        assert len(found) == len(readings)
        assert all(reading in found for reading in readings)


class TestCustomersCurated:
    def test_who_has_readings_from_before_the_consent_alone_is_not_curated(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(ANN, SINCE), customer(BOB, SINCE)]
        readings = [phone_reading(ANN, SINCE - 1), phone_reading(BOB, SINCE)]
        (row,) = gives(engine, "customers_curated", customers, readings)
        assert row["subject_id"] == pseudonym_of(BOB)


class TestStepTrainerTrusted:
    def trusted(
        self, engine: DuckDBEngine, customers: list[Row], phones: list[Row], *devices: Row
    ) -> list[dict[str, Any]]:
        return gives(engine, "step_trainer_trusted", customers, phones, list(devices))

    def test_a_reading_passes_at_the_millisecond_of_one_of_its_customers_phone(
        self, engine: DuckDBEngine
    ) -> None:
        devices = [device_reading(time=AFTER + after) for after in (-1, 0, 1)]
        found = self.trusted(engine, [customer(ANN)], [phone_reading(ANN, AFTER)], *devices)
        assert found == [device_reading(time=AFTER)]

    def test_a_reading_at_a_millisecond_of_somebody_elses_phone_is_out(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(ANN), customer(BOB, serial="serial of bob")]
        phones = [phone_reading(ANN, AFTER), phone_reading(BOB, AFTER + 1)]
        found = self.trusted(
            engine,
            customers,
            phones,
            device_reading("serial of ann", AFTER + 1),
            device_reading("serial of bob", AFTER),
            device_reading("serial of bob", AFTER + 1),
        )
        assert found == [device_reading("serial of bob", AFTER + 1)]

    @pytest.mark.parametrize(("after", "passes"), [(-1, False), (0, True), (1, True)])
    def test_a_reading_from_before_the_consent_is_out(
        self, engine: DuckDBEngine, after: int, passes: bool
    ) -> None:
        reading = device_reading(time=SINCE + after)
        phones = [phone_reading(ANN, SINCE + after), phone_reading(ANN, AFTER)]
        found = self.trusted(engine, [customer(ANN, SINCE)], phones, reading)
        assert found == ([reading] if passes else [])

    def test_of_a_device_shared_with_and_without_consent_readings_of_the_first_alone_pass(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(ANN, serial="shared"), customer(BOB, None, serial="shared")]
        of_ann, of_bob, of_both = AFTER, AFTER + 1, AFTER + 2
        phones = [
            phone_reading(user, time)
            for user, times in ((ANN, (of_ann, of_both)), (BOB, (of_bob, of_both)))
            for time in times
        ]
        devices = [device_reading("shared", time) for time in (of_ann, of_bob, of_both)]
        assert self.trusted(engine, customers, phones, *devices) == [
            device_reading("shared", of_ann),
            device_reading("shared", of_both),
        ]
        # Under the policy `reference`, Bob's go with the device.
        of_reference = gives(
            engine, "step_trainer_trusted", customers, phones, devices, Policy.REFERENCE
        )
        assert of_reference == devices

    def test_of_a_device_that_two_share_each_has_readings_from_the_own_consent_on(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [
            customer(ANN, SINCE, serial="shared"),
            customer(BOB, AFTER, serial="shared"),
        ]
        phones = [phone_reading(who, time) for who in (ANN, BOB) for time in (SINCE, AFTER)]
        phones.append(phone_reading(BOB, SINCE + 1))  # before Bob's consent, and after Ann's
        devices = [device_reading("shared", time) for time in (SINCE, SINCE + 1, AFTER)]
        assert self.trusted(engine, customers, phones, *devices) == [
            device_reading("shared", SINCE),
            device_reading("shared", AFTER),
        ]

    def test_a_device_that_two_consenting_customers_share_has_each_reading_once(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(ANN, serial="shared"), customer(BOB, serial="shared")]
        phones = [phone_reading(ANN, AFTER), phone_reading(BOB, AFTER), phone_reading(BOB, 0)]
        reading = device_reading("shared", AFTER)
        assert self.trusted(engine, customers, phones, reading, reading) == [reading]

    def test_the_device_of_the_latest_record_counts(self, engine: DuckDBEngine) -> None:
        customers = [
            customer(ANN, serial="old", updated=1),
            customer(f" {ANN.upper()}\t", serial="new", updated=2),
        ]
        devices = [device_reading(serial, AFTER) for serial in ("old", "new")]
        found = self.trusted(engine, customers, [phone_reading(ANN, AFTER)], *devices)
        assert found == [device_reading("new", AFTER)]

    def test_several_phone_readings_and_spellings_of_a_millisecond_double_nothing(
        self, engine: DuckDBEngine
    ) -> None:
        phones = [
            phone_reading(user, AFTER, x=x)
            for user in (ANN, ANN.upper(), f" {ANN}")
            for x in (0.0, 1.0)
        ]
        devices = [device_reading(time=AFTER, distance=distance) for distance in (1, 2)]
        assert self.trusted(engine, [customer(f"{ANN} ")], phones, *devices) == devices

    @pytest.mark.parametrize(
        ("device", "phone"), list(product([EARLIER, DAY, LATER], repeat=2)), ids=str
    )
    def test_a_reading_has_the_later_of_its_own_date_and_the_phones(
        self, engine: DuckDBEngine, device: date, phone: date
    ) -> None:
        phones = [phone_reading(ANN, AFTER, day=phone)]
        (row,) = self.trusted(
            engine, [customer(ANN)], phones, device_reading(time=AFTER, day=device)
        )
        assert row[PARTITION] == max(device, phone)

    @BOTH_ORDERS
    @pytest.mark.parametrize(
        ("device_days", "phone_days"),
        [
            ([EARLIER, LATEST], [DAY, LATER]),
            ([DAY, LATER], [EARLIER, LATEST]),
            ([LATER, LATEST], [EARLIER, DAY]),
            ([EARLIER, DAY], [LATER, LATEST]),
            ([DAY, DAY], [DAY, LATER]),
        ],
    )
    def test_of_several_deliveries_the_first_of_each_counts(
        self, engine: DuckDBEngine, device_days: list[date], phone_days: list[date], order: int
    ) -> None:
        devices = [device_reading(time=AFTER, day=day) for day in device_days][::order]
        phones = [phone_reading(ANN, AFTER, day=day) for day in phone_days][::order]
        # Another reading of the phone at that millisecond, and another spelling, come last.
        phones.append(phone_reading(ANN, AFTER, x=7.0, day=LATEST))
        phones.append(phone_reading(ANN.upper(), AFTER, day=LATEST))
        (row,) = self.trusted(engine, [customer(ANN)], phones, *devices)
        assert row[PARTITION] == max(min(device_days), min(phone_days))

    def test_the_phone_reading_of_who_does_not_consent_gives_no_date(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(ANN, serial="shared"), customer(BOB, None, serial="shared")]
        phones = [phone_reading(BOB, AFTER, day=EARLIER), phone_reading(ANN, AFTER, day=LATER)]
        reading = device_reading("shared", AFTER, day=DAY)
        (row,) = self.trusted(engine, customers, phones, reading)
        assert row[PARTITION] == LATER

    def test_the_date_of_a_customer_does_not_count(self, engine: DuckDBEngine) -> None:
        for day in (EARLIER, LATEST):
            found = self.trusted(
                engine,
                [customer(ANN, day=day)],
                [phone_reading(ANN, AFTER)],
                device_reading(time=AFTER),
            )
            assert found == [device_reading(time=AFTER)]

    def test_a_reading_has_the_columns_of_the_registry_alone(self, engine: DuckDBEngine) -> None:
        (row,) = self.trusted(
            engine, [customer(ANN)], [phone_reading(ANN, AFTER)], device_reading(time=AFTER)
        )
        assert set(row) == set(TABLES["step_trainer_trusted"].schema)


class TestMachineLearningCurated:
    def pairs(
        self, engine: DuckDBEngine, customers: list[Row], phones: list[Row], *devices: Row
    ) -> list[dict[str, Any]]:
        return gives(engine, "machine_learning_curated", customers, phones, list(devices))

    def test_a_pair_is_of_one_customer(self, engine: DuckDBEngine) -> None:
        serials = {ANN: "serial of ann", BOB: "serial of bob"}
        found = self.pairs(
            engine,
            [customer(who, serial=serial) for who, serial in serials.items()],
            [phone_reading(who, AFTER) for who in serials],
            *[device_reading(serial, AFTER) for serial in serials.values()],
        )
        assert sorted((row["subject_id"], row["device_id"]) for row in found) == sorted(
            (pseudonym_of(who), pseudonym_of(serial)) for who, serial in serials.items()
        )
        assert {row["same_customer"] for row in found} == {True}

    def test_of_a_device_that_two_share_each_has_pairs_with_the_own_phone(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(ANN, serial="shared"), customer(BOB, serial="shared")]
        phones = [phone_reading(ANN, AFTER), phone_reading(BOB, AFTER + 1)]
        devices = [device_reading("shared", AFTER), device_reading("shared", AFTER + 1)]
        found = self.pairs(engine, customers, phones, *devices)
        assert {(row["subject_id"], row["timestamp"]) for row in found} == {
            (pseudonym_of(ANN), AFTER),
            (pseudonym_of(BOB), AFTER + 1),
        }
        assert len(found) == 2

    def test_the_phone_of_who_shares_a_device_without_consent_is_in_no_pair(
        self, engine: DuckDBEngine
    ) -> None:
        customers = [customer(ANN, serial="shared"), customer(BOB, 0, serial="shared")]
        phones = [phone_reading(ANN, AFTER), phone_reading(BOB, AFTER)]
        (row,) = self.pairs(engine, customers, phones, device_reading("shared", AFTER))
        assert row["subject_id"] == pseudonym_of(ANN)

    def test_each_reading_is_in_a_pair_once_however_often_it_was_delivered(
        self, engine: DuckDBEngine
    ) -> None:
        phones = [phone_reading(ANN, AFTER, day=day) for day in (LATER, EARLIER, LATER)]
        devices = [device_reading(time=AFTER, day=day) for day in (LATEST, DAY, DAY)]
        (row,) = self.pairs(engine, [customer(ANN)], phones, *devices)
        assert row[PARTITION] == max(DAY, EARLIER)

    def test_of_readings_of_the_same_millisecond_each_goes_with_each(
        self, engine: DuckDBEngine
    ) -> None:
        distances, motions = (201, 202), (0.0, 1.0, 2.0)
        found = self.pairs(
            engine,
            [customer(ANN)],
            [phone_reading(ANN, AFTER, x=x) for x in motions],
            *[device_reading(time=AFTER, distance=distance) for distance in distances],
        )
        assert sorted((row["distancefromobject"], row["x"]) for row in found) == sorted(
            product(distances, motions)
        )

    @pytest.mark.parametrize(("after", "pairs"), [(-1, 0), (0, 1), (1, 1)])
    def test_a_pair_from_before_the_consent_is_out(
        self, engine: DuckDBEngine, after: int, pairs: int
    ) -> None:
        time = SINCE + after
        phones = [phone_reading(ANN, time), phone_reading(ANN, AFTER)]
        found = self.pairs(engine, [customer(ANN, SINCE)], phones, device_reading(time=time))
        assert len(found) == pairs
