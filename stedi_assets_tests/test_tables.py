"""The registry's own rules, which all that derives from it relies on."""

import re

import ibis
import pytest

from stedi_assets.tables import (
    PARTITION,
    TABLES,
    Personal,
    Source,
    Table,
    Zone,
    landing_table,
    rejects_table,
)

PATHS = {
    "customer_landing": "customer/landing_parquet",
    "accelerometer_landing": "accelerometer/landing_parquet",
    "step_trainer_landing": "step_trainer/landing_parquet",
    "customer_trusted": "customer/trusted",
    "accelerometer_trusted": "accelerometer/trusted",
    "customers_curated": "customer/curated",
    "step_trainer_trusted": "step_trainer/trusted",
    "machine_learning_curated": "step_trainer/curated",
    "customer_rejects": "customer/rejected",
    "accelerometer_rejects": "accelerometer/rejected",
    "step_trainer_rejects": "step_trainer/rejected",
}
PRODUCER_KEYS = {
    Source.CUSTOMER: "customerName email phone birthDay serialNumber registrationDate "
    "lastUpdateDate shareWithResearchAsOfDate shareWithPublicAsOfDate shareWithFriendsAsOfDate",
    Source.ACCELEROMETER: "user timestamp x y z",
    Source.STEP_TRAINER: "sensorReadingTime serialNumber distanceFromObject",
}
LANDING = [landing_table(source) for source in Source]
DERIVED = [table for table in TABLES.values() if table.zone is not Zone.LANDING]

each_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
each_landing_table = pytest.mark.parametrize("table", LANDING, ids=lambda table: table.name)
each_derived_table = pytest.mark.parametrize("table", DERIVED, ids=lambda table: table.name)


def test_the_tables_and_their_folders_are_the_known_ones() -> None:
    assert {name: table.path for name, table in TABLES.items()} == PATHS
    assert list(TABLES) == list(PATHS)


@each_table
def test_a_table_is_registered_under_its_name_in_the_zone_that_it_says(table: Table) -> None:
    assert TABLES[table.name] is table
    zone = "landing" if table.name.endswith("_rejects") else table.name.rpartition("_")[2]
    assert table.zone == zone
    assert table.description.endswith(".")
    assert re.fullmatch(r"team:[a-z-]+", table.owner)


def test_a_source_has_its_own_landing_table_and_rejects() -> None:
    for source in Source:
        assert landing_table(source) is TABLES[f"{source}_landing"]
        assert rejects_table(source) is TABLES[f"{source}_rejects"]
        assert landing_table(source).source == rejects_table(source).source == source


@each_table
def test_columns_are_unique_lowercase_and_without_the_partition(table: Table) -> None:
    names = list(table.column_names)
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []
    assert PARTITION not in names


@each_table
def test_types_are_ibis_types_and_the_partition_is_the_last_of_them(table: Table) -> None:
    schema = ibis.schema(table.schema)
    assert schema.names == (*table.column_names, PARTITION)
    assert schema[PARTITION].is_date()
    assert {column.name: column.type for column in table.columns} == {
        name: str(schema[name]) for name in table.column_names
    }


def test_a_column_has_one_type_and_is_text_but_for_the_known_ones() -> None:
    types = {
        (column.name, column.type)
        for table in TABLES.values()
        for column in table.columns
        if column.type != "string"
    }
    moments = {
        "registrationdate",
        "lastupdatedate",
        "sharewithresearchasofdate",
        "sharewithpublicasofdate",
        "sharewithfriendsasofdate",
        "timestamp",
        "sensorreadingtime",
    }
    assert types == {
        *((name, "int64") for name in moments),
        ("line", "int64"),
        *((name, "float64") for name in "xyz"),
        ("distancefromobject", "int32"),
        ("birthyear", "int32"),
        ("same_customer", "boolean"),
    }


@each_table
def test_keys_event_time_and_subjects_are_columns_of_the_table(table: Table) -> None:
    for names in (table.key, table.subjects, filter(None, [table.event_time])):
        assert set(names) <= set(table.column_names)
    assert set(table.key) <= set(table.required_names)
    assert set(table.subjects) <= set(table.required_names)


@each_table
def test_event_time_is_required_and_in_epoch_milliseconds(table: Table) -> None:
    assert bool(table.event_time) == (not table.name.endswith("_rejects"))
    if table.event_time:
        (column,) = (column for column in table.columns if column.name == table.event_time)
        assert (column.type, column.required) == ("int64", True)
        assert "epoch milliseconds" in column.description


@each_table
def test_files_are_sorted_by_event_time_or_all_columns(table: Table) -> None:
    assert table.sort_order == ((table.event_time,) if table.event_time else table.column_names)


def test_tables_that_come_in_order_are_those_of_landing_files_and_joins_of_sorted_readings() -> (
    None
):
    assert {name for name, table in TABLES.items() if table.in_order} == {
        *("customer_landing", "accelerometer_landing", "step_trainer_landing"),
        "machine_learning_curated",
    }


@each_table
def test_a_filter_lets_rows_of_an_earlier_table_of_the_same_source_through(table: Table) -> None:
    if table.filters:
        upstream = TABLES[table.filters]
        assert list(TABLES).index(upstream.name) < list(TABLES).index(table.name)
        assert upstream.source == table.source
    assert bool(table.filters) == (table in DERIVED and table.name != "machine_learning_curated")


@each_table
def test_every_column_has_a_description(table: Table) -> None:
    assert [column.name for column in table.columns if not column.description.endswith(".")] == []


@each_table
def test_every_column_that_may_be_missing_says_what_that_means(table: Table) -> None:
    for column in table.columns:
        assert column.required == (column.null_means == "")
        assert column.null_means == column.null_means.strip()
        assert (column.name in table.required_names) == column.required


def test_the_columns_that_may_be_missing_are_the_known_ones() -> None:
    consents = [f"sharewith{whom}asofdate" for whom in ("research", "public", "friends")]
    optional = {
        name: [column.name for column in table.columns if not column.required]
        for name, table in TABLES.items()
    }
    customer = ["customername", "phone", "birthday", *consents]
    rejects = ["line", "record"]
    assert {name: columns for name, columns in optional.items() if columns} == {
        "customer_landing": customer,
        "customer_trusted": customer,
        "customers_curated": ["birthyear", *consents],
        "customer_rejects": rejects,
        "accelerometer_rejects": rejects,
        "step_trainer_rejects": rejects,
    }


@each_landing_table
def test_every_landing_column_has_the_producers_key_in_another_case_at_most(table: Table) -> None:
    assert [column.key for column in table.columns] == PRODUCER_KEYS[table.source].split()
    assert [column.key.lower() for column in table.columns] == list(table.column_names)


@pytest.mark.parametrize(
    "name", ["customer_trusted", "accelerometer_trusted", "step_trainer_trusted"]
)
def test_a_trusted_table_has_the_columns_of_its_landing_table(name: str) -> None:
    assert TABLES[name].columns == landing_table(TABLES[name].source).columns


def test_a_curated_table_has_exactly_the_columns_that_it_may_have() -> None:
    curated = {table.name: table.column_names for table in DERIVED if table.zone is Zone.CURATED}
    assert {name: set(columns) for name, columns in curated.items()} == {
        "customers_curated": {
            "subject_id",
            "device_id",
            "birthyear",
            "registrationdate",
            "lastupdatedate",
            "sharewithresearchasofdate",
            "sharewithpublicasofdate",
            "sharewithfriendsasofdate",
        },
        "machine_learning_curated": {
            "subject_id",
            "device_id",
            "sensorreadingtime",
            "distancefromobject",
            "timestamp",
            "x",
            "y",
            "z",
            "same_customer",
        },
    }


def test_no_curated_column_identifies_a_person() -> None:
    assert [
        (table.name, column.name)
        for table in DERIVED
        if table.zone is Zone.CURATED
        for column in table.columns
        if column.personal.identifies
    ] == []


def test_names_contacts_birthdays_devices_and_free_text_identify_and_nothing_else() -> None:
    assert {kind for kind in Personal if kind.identifies} == {
        Personal.NAME,
        Personal.CONTACT,
        Personal.BIRTHDAY,
        Personal.DEVICE,
        Personal.FREE_TEXT,
    }


def test_the_columns_that_identify_a_person_are_the_known_ones() -> None:
    found = {
        (column.name, column.personal)
        for table in TABLES.values()
        for column in table.columns
        if column.personal.identifies
    }
    assert found == {
        ("customername", Personal.NAME),
        ("email", Personal.CONTACT),
        ("phone", Personal.CONTACT),
        ("birthday", Personal.BIRTHDAY),
        ("serialnumber", Personal.DEVICE),
        ("user", Personal.CONTACT),
        ("record", Personal.FREE_TEXT),
    }


@each_derived_table
def test_every_row_beyond_landing_says_whose_data_it_is(table: Table) -> None:
    assert table.subjects


def test_the_derived_customer_tables_are_restated_and_have_a_key_and_no_other_is() -> None:
    assert {table.name: table.key for table in TABLES.values() if table.restated} == {
        "customer_trusted": ("email",),
        "customers_curated": ("subject_id",),
    }
    assert all(table.restated for table in TABLES.values() if table.key)
