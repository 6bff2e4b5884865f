"""The tables that the policy `strict` defines otherwise: what a privacy officer would sign."""

import ibis
import ibis.expr.types as ir

from stedi_assets.assets import curated
from stedi_assets.assets.definition import Need, derived
from stedi_assets.assets.trusted import curated_people, each_once, users_of
from stedi_assets.privacy.consent import person
from stedi_assets.tables import PARTITION


def consenting_since(customer_trusted: ir.Table) -> ir.Table:
    """The people of customer_trusted, and since when each consents.

    Returns:
        The columns person (normalised email), since (epoch milliseconds), and the date of the
        record.
    """
    return customer_trusted.select(
        PARTITION,
        person=person(customer_trusted.email),
        since=customer_trusted.sharewithresearchasofdate,
    )


def curated_people_since(customer_trusted: ir.Table, customers_curated: ir.Table) -> ir.Table:
    """The same of customers_curated: the columns of `curated_people`, and since."""
    people = curated_people(customer_trusted, customers_curated)
    since = consenting_since(customer_trusted).select("person", "since")
    return people.join(since, "person")


@derived(
    people=consenting_since,
    accelerometer_landing=Need.SAME_MOMENTS,
    customer_trusted=Need.EVERY_DATE,
)
def accelerometer_trusted(accelerometer_landing: ir.Table, customer_trusted: ir.Table) -> ir.Table:
    """Phone readings at or after the moment of the customer's consent, each delivered once."""
    readings = accelerometer_landing
    users = users_of(readings).join(consenting_since(customer_trusted), "person")
    since = readings.join(users.select("user", "since"), "user")
    return each_once(since.filter(since.timestamp >= since.since).select(*readings.columns))


@derived(
    people=curated_people_since,
    step_trainer_landing=Need.SAME_MOMENTS,
    accelerometer_trusted=Need.SAME_MOMENTS,
    customer_trusted=Need.EVERY_DATE,
    customers_curated=Need.EVERY_DATE,
)
def step_trainer_trusted(
    step_trainer_landing: ir.Table,
    accelerometer_trusted: ir.Table,
    customer_trusted: ir.Table,
    customers_curated: ir.Table,
) -> ir.Table:
    """Device readings of a moment at which a curated customer who holds the device has a reading.

    Each delivered once. The date of one is the later one of its own and of the phone's reading: a
    late half adds rows to the date on which it came.
    """
    # The phone's readings are asked again: on earlier dates they may wait for reconciliation.
    people = curated_people_since(customer_trusted, customers_curated)
    users = users_of(accelerometer_trusted).join(people, "person")
    users = users.select("user", "serialnumber", "since")
    with_device = accelerometer_trusted.join(users, "user")
    with_device = with_device.filter(with_device.timestamp >= with_device.since)
    moments = with_device.group_by(
        with_device.serialnumber, sensorreadingtime=with_device.timestamp
    ).aggregate(phone_date=with_device[PARTITION].min())
    readings = each_once(step_trainer_landing)
    met = readings.join(moments, ["serialnumber", "sensorreadingtime"])
    return met.select(
        "sensorreadingtime",
        "serialnumber",
        "distancefromobject",
        **{PARTITION: ibis.greatest(met[PARTITION], met.phone_date)},
    )


@derived(
    people=curated_people_since,
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
    """Device and phone readings of the same millisecond and of the same customer."""
    pairs = curated.machine_learning_curated(
        step_trainer_trusted, accelerometer_trusted, customer_trusted, customers_curated
    )
    people = curated_people_since(customer_trusted, customers_curated)
    since = pairs.join(people.select("subject_id", "since"), "subject_id")
    kept = since.filter(since.same_customer, since.timestamp >= since.since)
    return kept.select(*pairs.columns)
