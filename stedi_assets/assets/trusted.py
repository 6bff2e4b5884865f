"""The trusted zone: only what belongs to people who consent to research, each reading once."""

import ibis.expr.types as ir

from stedi_assets.assets.definition import Need, derived
from stedi_assets.privacy.consent import consents_to_research, latest_records, person
from stedi_assets.privacy.pseudonyms import pseudonym
from stedi_assets.tables import PARTITION


@derived(customer_landing=Need.EVERY_DATE)
def customer_trusted(customer_landing: ir.Table) -> ir.Table:
    """Each customer's latest record, where it consents to research."""
    latest = latest_records(customer_landing)
    return latest.filter(consents_to_research(latest))


def consenting_people(customer_trusted: ir.Table) -> ir.Table:
    """The people of customer_trusted: person (normalised email), and the date of the record."""
    return customer_trusted.select(PARTITION, person=person(customer_trusted.email))


def curated_people(customer_trusted: ir.Table, customers_curated: ir.Table) -> ir.Table:
    """What names the people of customers_curated, which itself does not.

    Returns:
        The columns person (normalised email), subject_id, serialnumber, device_id, and the date of
        the record.
    """
    people = customer_trusted.select(
        PARTITION,
        "serialnumber",
        person=person(customer_trusted.email),
        subject_id=pseudonym(person(customer_trusted.email)),
    )
    # A join and not a filter: engines then know that all rows pass, and plan what follows by it.
    return people.join(customers_curated.select("subject_id", "device_id"), "subject_id")


@derived(
    people=consenting_people,
    accelerometer_landing=Need.SAME_MOMENTS,
    customer_trusted=Need.EVERY_DATE,
)
def accelerometer_trusted(accelerometer_landing: ir.Table, customer_trusted: ir.Table) -> ir.Table:
    """Phone readings of customers in customer_trusted, each delivered once."""
    users = users_of(accelerometer_landing).join(consenting_people(customer_trusted), "person")
    readings = accelerometer_landing
    return each_once(readings.filter(readings.user.isin(users.user)))


@derived(
    people=curated_people,
    step_trainer_landing=Need.SAME_MOMENTS,
    customer_trusted=Need.EVERY_DATE,
    customers_curated=Need.EVERY_DATE,
)
def step_trainer_trusted(
    step_trainer_landing: ir.Table, customer_trusted: ir.Table, customers_curated: ir.Table
) -> ir.Table:
    """Device readings whose serial number is in customers_curated, each delivered once."""
    readings = step_trainer_landing
    held = curated_people(customer_trusted, customers_curated).serialnumber
    return each_once(readings.filter(readings.serialnumber.isin(held)))


def users_of(readings: ir.Table) -> ir.Table:
    """The users of phone readings as they are spelled, and who each is: user, person.

    There are far fewer users than readings, so emails are normalised here and not in each reading.
    """
    users = readings.select("user").distinct()
    return users.mutate(person=person(users.user))


def each_once(readings: ir.Table) -> ir.Table:
    """Readings that are equal in every column as one, of the earliest date on which it came."""
    columns = [name for name in readings.columns if name != PARTITION]
    return readings.group_by(columns).aggregate(**{PARTITION: readings[PARTITION].min()})
