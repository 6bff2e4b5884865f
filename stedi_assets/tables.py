"""The registry: every table of the lakehouse once, with its columns, keys and personal data.

Schemas, casts, contracts, checks, Dagster metadata and the data dictionary derive from it.
Nothing here computes or stores anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

PARTITION = "ingestion_date"
"""The partition column of every table: a date, kept in the folder's name and not in the file."""

MOST_REJECTED = 0.05
"""The share of a day's records above which its rejects are an error that stops what follows."""

ColumnType = Literal["string", "int64", "int32", "float64", "boolean"]


class Zone(StrEnum):
    """How far a table's rows have come: as they came, consented to, ready to train on."""

    LANDING = "landing"
    TRUSTED = "trusted"
    CURATED = "curated"


class Source(StrEnum):
    """Who drops the landing files: the website, the phone app, the device."""

    CUSTOMER = "customer"
    ACCELEROMETER = "accelerometer"
    STEP_TRAINER = "step_trainer"


class Personal(StrEnum):
    """What kind of personal data a column holds."""

    NONE = "none"
    NAME = "name"
    CONTACT = "contact"
    BIRTHDAY = "birthday"
    DEVICE = "device"
    FREE_TEXT = "free text"
    CONSENT = "consent"
    BEHAVIOUR = "behaviour"
    GENERALISED = "generalised"
    PSEUDONYM = "pseudonym"

    @property
    def identifies(self) -> bool:
        """Whether a value names a person, or may; such columns never reach the curated zone."""
        return self in _IDENTIFYING


_IDENTIFYING = frozenset(
    {Personal.NAME, Personal.CONTACT, Personal.BIRTHDAY, Personal.DEVICE, Personal.FREE_TEXT}
)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: lowercase, as Glue and Athena have it.
        type: of the values, by Ibis' and Arrow's name. Moments are int64 epoch milliseconds, UTC.
        description: what a value says.
        personal: what kind of personal data it is.
        null_means: what a missing value says; empty where the column is required.
        key: the producers' own spelling in landing files; other cases are read as well.
        generalises: of a column that tells less, the one that would name a person.
    """

    name: str
    type: ColumnType
    description: str
    personal: Personal = Personal.NONE
    null_means: str = ""
    key: str = ""
    generalises: str = ""

    @property
    def required(self) -> bool:
        """Whether every row has a value."""
        return not self.null_means


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: also the Dagster asset's key.
        zone: landing, trusted or curated.
        source: whose folder of the lake holds it.
        folder: its folder below the source's.
        description: what a row is.
        owner: who answers for it, as Dagster writes owners.
        columns: in the order in which they are stored, without the partition column.
        key: columns whose values together occur once in the table; empty where nothing is unique.
        event_time: the column that says when a row's event was, epoch milliseconds; empty where
            none does.
        filters: the table whose rows this one lets through; empty where it does more than filter.
        subjects: the columns that say whose data a row is.
        restated: whether new records change earlier partitions in the very run that brings them.
        in_order: whether rows come in an order by which readers can leave out most of a file, and
            so are not sorted: of the landing files, or of the sorted readings that are joined.
        grows_daily: whether new rows are due every day: people walk every day, and need not
            register.
    """

    name: str
    zone: Zone
    source: Source
    folder: str
    description: str
    owner: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    event_time: str = ""
    filters: str = ""
    subjects: tuple[str, ...] = ()
    restated: bool = False
    in_order: bool = False
    grows_daily: bool = False

    @property
    def path(self) -> str:
        """The table's folder, relative to the lake's root."""
        return f"{self.source}/{self.folder}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the stored columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def required_names(self) -> tuple[str, ...]:
        """The names of the columns that have a value in every row."""
        return tuple(column.name for column in self.columns if column.required)

    @property
    def sort_order(self) -> tuple[str, ...]:
        """The columns by which rows are sorted that are not in order: event time, else all."""
        return (self.event_time,) if self.event_time else self.column_names

    @property
    def schema(self) -> dict[str, str]:
        """Column types by name, the partition column last."""
        return {column.name: column.type for column in self.columns} | {PARTITION: "date"}


_WEBSITE = "team:website"
_MOBILE = "team:mobile"
_DEVICES = "team:devices"
_DATA = "team:data-engineering"
_SCIENCE = "team:data-science"

_REGISTRATION = Column(
    "registrationdate",
    "int64",
    "When the customer registered, epoch milliseconds.",
    key="registrationDate",
)
_LAST_UPDATE = Column(
    "lastupdatedate",
    "int64",
    "When this record was made, epoch milliseconds; the latest record of a customer counts.",
    key="lastUpdateDate",
)
_CONSENTS = (
    Column(
        "sharewithresearchasofdate",
        "int64",
        "Since when the customer shares data with research, epoch milliseconds; 0 is no consent.",
        Personal.CONSENT,
        null_means="no consent to research",
        key="shareWithResearchAsOfDate",
    ),
    Column(
        "sharewithpublicasofdate",
        "int64",
        "Since when the customer shares data with the public, epoch milliseconds; 0 is no consent.",
        Personal.CONSENT,
        null_means="no consent to the public",
        key="shareWithPublicAsOfDate",
    ),
    Column(
        "sharewithfriendsasofdate",
        "int64",
        "Since when the customer shares data with friends, epoch milliseconds; 0 is no consent.",
        Personal.CONSENT,
        null_means="no consent to friends",
        key="shareWithFriendsAsOfDate",
    ),
)
_CUSTOMER = (
    Column(
        "customername",
        "string",
        "The customer's name.",
        Personal.NAME,
        null_means="the customer gave no name",
        key="customerName",
    ),
    Column(
        "email",
        "string",
        "The customer's email; trimmed and in lower case it says who a person is.",
        Personal.CONTACT,
        key="email",
    ),
    Column(
        "phone",
        "string",
        "The customer's phone number.",
        Personal.CONTACT,
        null_means="the customer gave no phone number",
        key="phone",
    ),
    Column(
        "birthday",
        "string",
        "The customer's birthday, YYYY-MM-DD; text, for some lie before the year 1000.",
        Personal.BIRTHDAY,
        null_means="the customer gave no birthday",
        key="birthDay",
    ),
    Column(
        "serialnumber",
        "string",
        "The serial number of the step trainer that the customer was sent.",
        Personal.DEVICE,
        key="serialNumber",
    ),
    _REGISTRATION,
    _LAST_UPDATE,
    *_CONSENTS,
)
_MOTION = (
    Column(
        "timestamp",
        "int64",
        "When the phone took the reading, epoch milliseconds.",
        Personal.BEHAVIOUR,
        key="timestamp",
    ),
    Column("x", "float64", "Acceleration along the phone's x axis.", Personal.BEHAVIOUR, key="x"),
    Column("y", "float64", "Acceleration along the phone's y axis.", Personal.BEHAVIOUR, key="y"),
    Column("z", "float64", "Acceleration along the phone's z axis.", Personal.BEHAVIOUR, key="z"),
)
_PHONE_READING = (
    Column("user", "string", "The email of the phone's user.", Personal.CONTACT, key="user"),
    *_MOTION,
)
_SENSOR_TIME = Column(
    "sensorreadingtime",
    "int64",
    "When the device took the reading, epoch milliseconds.",
    Personal.BEHAVIOUR,
    key="sensorReadingTime",
)
_DISTANCE = Column(
    "distancefromobject",
    "int32",
    "The distance that the device measured.",
    Personal.BEHAVIOUR,
    key="distanceFromObject",
)
_DEVICE_READING = (
    _SENSOR_TIME,
    Column(
        "serialnumber",
        "string",
        "The serial number of the step trainer.",
        Personal.DEVICE,
        key="serialNumber",
    ),
    _DISTANCE,
)
_SUBJECT_ID = Column(
    "subject_id",
    "string",
    "The person, as a keyed hash of the email: 64 hexadecimal digits.",
    Personal.PSEUDONYM,
)
_DEVICE_ID = Column(
    "device_id",
    "string",
    "The step trainer, as a keyed hash of the serial number: 64 hexadecimal digits.",
    Personal.PSEUDONYM,
)
_REJECT = (
    Column("file", "string", "The landing file, relative to the lake's root."),
    Column(
        "line",
        "int64",
        "The line on which the record begins, from 1.",
        null_means="the whole file could not be read",
    ),
    Column("reason", "string", "Why the record is not in the landing table."),
    Column(
        "record",
        "string",
        "The record's text as it came.",
        Personal.FREE_TEXT,
        null_means="the file could not be read as text",
    ),
)


def _rejects(source: Source, owner: str) -> Table:
    return Table(
        f"{source}_rejects",
        Zone.LANDING,
        source,
        "rejected",
        f"A record of the {source} landing files that could not be read, with the reason.",
        owner,
        _REJECT,
    )


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "customer_landing",
            Zone.LANDING,
            Source.CUSTOMER,
            "landing_parquet",
            "A customer record of the website, as it came.",
            _WEBSITE,
            _CUSTOMER,
            event_time="lastupdatedate",
            in_order=True,
        ),
        Table(
            "accelerometer_landing",
            Zone.LANDING,
            Source.ACCELEROMETER,
            "landing_parquet",
            "A motion reading of the phone app, as it came.",
            _MOBILE,
            _PHONE_READING,
            event_time="timestamp",
            in_order=True,
            subjects=("user",),
            grows_daily=True,
        ),
        Table(
            "step_trainer_landing",
            Zone.LANDING,
            Source.STEP_TRAINER,
            "landing_parquet",
            "A distance reading of a step trainer, as it came.",
            _DEVICES,
            _DEVICE_READING,
            event_time="sensorreadingtime",
            in_order=True,
            subjects=("serialnumber",),
            grows_daily=True,
        ),
        Table(
            "customer_trusted",
            Zone.TRUSTED,
            Source.CUSTOMER,
            "trusted",
            "A customer whose latest record consents to research: that record.",
            _DATA,
            _CUSTOMER,
            key=("email",),
            event_time="lastupdatedate",
            filters="customer_landing",
            subjects=("email",),
            restated=True,
        ),
        Table(
            "accelerometer_trusted",
            Zone.TRUSTED,
            Source.ACCELEROMETER,
            "trusted",
            "A motion reading of a customer who consents to research, each delivered once.",
            _DATA,
            _PHONE_READING,
            event_time="timestamp",
            filters="accelerometer_landing",
            subjects=("user",),
            grows_daily=True,
        ),
        Table(
            "customers_curated",
            Zone.CURATED,
            Source.CUSTOMER,
            "curated",
            "A consenting customer who has motion readings, without what names the person.",
            _SCIENCE,
            (
                _SUBJECT_ID,
                _DEVICE_ID,
                Column(
                    "birthyear",
                    "int32",
                    "The year of the customer's birthday.",
                    Personal.GENERALISED,
                    null_means="no birthday, or one that begins with no year",
                    generalises="birthday",
                ),
                _REGISTRATION,
                _LAST_UPDATE,
                *_CONSENTS,
            ),
            key=("subject_id",),
            event_time="lastupdatedate",
            filters="customer_trusted",
            subjects=("subject_id", "device_id"),
            restated=True,
        ),
        Table(
            "step_trainer_trusted",
            Zone.TRUSTED,
            Source.STEP_TRAINER,
            "trusted",
            "A distance reading of a device that a curated customer holds, each delivered once.",
            _DATA,
            _DEVICE_READING,
            event_time="sensorreadingtime",
            filters="step_trainer_landing",
            subjects=("serialnumber",),
            grows_daily=True,
        ),
        Table(
            "machine_learning_curated",
            Zone.CURATED,
            Source.STEP_TRAINER,
            "curated",
            "A distance reading and a motion reading of the same millisecond, to train on.",
            _SCIENCE,
            (
                _SUBJECT_ID,
                _DEVICE_ID,
                _SENSOR_TIME,
                _DISTANCE,
                *_MOTION,
                Column(
                    "same_customer",
                    "boolean",
                    "Whether the phone's user is the customer who was sent the device.",
                ),
            ),
            event_time="sensorreadingtime",
            in_order=True,
            subjects=("subject_id", "device_id"),
            grows_daily=True,
        ),
        _rejects(Source.CUSTOMER, _WEBSITE),
        _rejects(Source.ACCELEROMETER, _MOBILE),
        _rejects(Source.STEP_TRAINER, _DEVICES),
    )
}
"""All tables by name: the eight of the lakehouse in the order in which rows flow, then rejects."""


def landing_table(source: Source) -> Table:
    """The table that holds a source's records as they came."""
    return TABLES[f"{source}_landing"]


def rejects_table(source: Source) -> Table:
    """The table that holds a source's records that could not be read."""
    return TABLES[f"{source}_rejects"]
