"""The curated zone: what data scientists train on, with nothing in it that names a person."""

import ibis
import ibis.expr.types as ir

from stedi_assets.assets.definition import Need, derived
from stedi_assets.assets.trusted import curated_people, users_of
from stedi_assets.privacy.consent import person
from stedi_assets.privacy.pseudonyms import pseudonym
from stedi_assets.tables import PARTITION


@derived(customer_trusted=Need.EVERY_DATE, accelerometer_trusted=Need.USERS_OF_EVERY_DATE)
def customers_curated(customer_trusted: ir.Table, accelerometer_trusted: ir.Table) -> ir.Table:
    """Customers in customer_trusted who have readings, without what names them."""
    with_readings = users_of(accelerometer_trusted).person
    customers = customer_trusted.filter(person(customer_trusted.email).isin(with_readings))
    return customers.select(
        "registrationdate",
        "lastupdatedate",
        "sharewithresearchasofdate",
        "sharewithpublicasofdate",
        "sharewithfriendsasofdate",
        PARTITION,
        subject_id=pseudonym(person(customers.email)),
        device_id=pseudonym(customers.serialnumber),
        birthyear=year_of(customers.birthday),
    )


def year_of(birthday: ir.StringValue) -> ir.IntegerValue:
    """The year with which a birthday begins, one to four digits; null where it begins otherwise."""
    # Blanks by name: what else \s means, regular expressions do not agree on.
    return birthday.re_extract(r"^[ \t\n\f\r]*(\d{1,4})-", 1).nullif("").cast("int32")


@derived(
    people=curated_people,
    step_trainer_trusted=Need.SAME_MOMENTS,
    accelerometer_trusted=Need.SAME_MOMENTS,
    customer_trusted=Need.EVERY_DATE,
    customers_curated=Need.EVERY_DATE,
)
def machine_learning_curated(
    step_trainer_trusted: ir.Table,
    accelerometer_trusted: ir.Table,
    customer_trusted: ir.Table,
    customers_curated: ir.Table,
) -> ir.Table:
    """Device and phone readings of the same millisecond, both of customers in customers_curated.

    The date of a pair is the later one of its two readings: a late half adds rows to the date on
    which it came.
    """
    people = curated_people(customer_trusted, customers_curated)
    devices = people.select("serialnumber", "device_id").distinct()
    phones = people.select("person", "subject_id", own_device_id=people.device_id)
    pairs = step_trainer_trusted.join(
        accelerometer_trusted,
        step_trainer_trusted.sensorreadingtime == accelerometer_trusted.timestamp,
        rname="phone_{name}",
    )
    pairs = pairs.join(devices, "serialnumber")
    pairs = pairs.join(phones, person(pairs.user) == phones.person)
    return pairs.select(
        "subject_id",
        "device_id",
        "sensorreadingtime",
        "distancefromobject",
        "timestamp",
        "x",
        "y",
        "z",
        same_customer=pairs.device_id == pairs.own_device_id,
        **{PARTITION: ibis.greatest(pairs[PARTITION], pairs[f"phone_{PARTITION}"])},
    )
