"""What Glue is told of tables and partitions, against a server that speaks its language."""

import json
import logging
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError
from moto.glue.exceptions import GlueClientError
from moto.glue.models import GlueBackend
from moto.glue.responses import GlueResponse

from stedi_assets.catalog import glue
from stedi_assets.catalog.catalog import CatalogError, NoCatalog
from stedi_assets.catalog.glue import GlueCatalog
from stedi_assets.catalog.hive import TYPES, comment
from stedi_assets.definitions import defs
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_catalog
from stedi_assets.tables import TABLES, Column, Table
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.landing_files import QUIET, customer, phone, resources_of
from stedi_assets_tests.end_to_end.process import stedi, succeeded

pytestmark = pytest.mark.long

TABLE = TABLES["machine_learning_curated"]
SIXTH, SEVENTH = date(2023, 8, 6), date(2023, 8, 7)
FIRST = date(2022, 1, 1)
ADDED = Column("added", "int64", "A column that came later.")

Calls = Counter[str]


class Glue:
    """A database of Glue, and a client of boto3 to look into it by."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self.client = client

    def table(self, name: str = TABLE.name) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_table(DatabaseName=self.name, Name=name)["Table"]
        return found

    def columns(self, name: str = TABLE.name) -> dict[str, str]:
        columns = self.table(name)["StorageDescriptor"]["Columns"]
        return {column["Name"]: column["Type"] for column in columns}

    def partitions(self, name: str = TABLE.name) -> dict[str, dict[str, Any]]:
        found = self.client.get_partitions(DatabaseName=self.name, TableName=name)["Partitions"]
        return {partition["Values"][0]: partition["StorageDescriptor"] for partition in found}


@pytest.fixture
def database(bucket: Bucket) -> Iterator[Glue]:
    """An empty database."""
    client = boto3.client("glue")
    made = Glue(f"database_{uuid.uuid4().hex}", client)
    client.create_database(DatabaseInput={"Name": made.name})
    yield made
    client.close()


@pytest.fixture
def lake(bucket: Bucket) -> Lake:
    return open_lake(f"s3://{bucket.name}/lake")


@pytest.fixture
def client(bucket: Bucket) -> Iterator[Any]:
    """The client that the catalog is given, which counts its calls."""
    made = boto3.client("glue")
    yield made
    made.close()


@pytest.fixture
def calls(client: Any) -> Calls:
    counted: Calls = Counter()

    def count(model: Any, **_: object) -> None:
        counted[model.name] += 1

    client.meta.events.register("before-call.glue", count)
    return counted


@pytest.fixture
def catalog(client: Any, database: Glue, lake: Lake) -> GlueCatalog:
    return GlueCatalog(client, database.name, lake, FIRST)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glue, "_PAUSES", (0.0, 0.0, 0.0, 0.0))


def put(bucket: Bucket, table: Table, *days: date) -> None:
    """Partitions in the lake; what is in them is no business of Glue's."""
    for day in days:
        bucket.put(f"lake/{table.path}/ingestion_date={day}/part-0.parquet")


def with_columns(monkeypatch: pytest.MonkeyPatch, *columns: Column) -> Table:
    """The table, as another version of the registry has it."""
    changed = replace(TABLE, columns=columns)
    monkeypatch.setitem(TABLES, TABLE.name, changed)
    return changed


def interrupt(client: Any, operation: str, meanwhile: Callable[[], object]) -> None:
    """Let somebody else do something once, right before a call of an operation."""
    todo = [meanwhile]

    def once(**_: object) -> None:
        if todo:
            todo.pop()()

    client.meta.events.register(f"before-call.glue.{operation}", once)


# Tables.


@pytest.mark.parametrize("name", TABLES)
def test_a_published_table_is_as_the_registry_has_it(
    bucket: Bucket, database: Glue, catalog: GlueCatalog, name: str
) -> None:
    table, root = TABLES[name], f"s3://{bucket.name}/lake"
    put(bucket, table, SIXTH)
    catalog.published(table, [SIXTH])
    found = database.table(name)
    assert found["Description"] == table.description
    assert found["TableType"] == "EXTERNAL_TABLE"
    assert [(key["Name"], key["Type"]) for key in found["PartitionKeys"]] == [
        ("ingestion_date", "date")
    ]
    stored = found["StorageDescriptor"]
    assert stored["Columns"] == [
        {"Name": column.name, "Type": TYPES[column.type], "Comment": comment(column)}
        for column in table.columns
    ]
    assert stored["Location"] == f"{root}/{table.path}/"
    assert stored["SerdeInfo"]["SerializationLibrary"].endswith(".parquet.serde.ParquetHiveSerDe")
    assert found["Parameters"] == {
        "EXTERNAL": "TRUE",
        "classification": "parquet",
        "projection.enabled": "true",
        "projection.ingestion_date.type": "date",
        "projection.ingestion_date.format": "yyyy-MM-dd",
        "projection.ingestion_date.range": "2022-01-01,NOW",
        "projection.ingestion_date.interval": "1",
        "projection.ingestion_date.interval.unit": "DAYS",
        "storage.location.template": (f"{root}/{table.path}/ingestion_date=${{ingestion_date}}/"),
    }


def test_a_published_partition_is_added_with_its_folder_and_columns(
    bucket: Bucket, database: Glue, catalog: GlueCatalog
) -> None:
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, [SIXTH])
    ((day, stored),) = database.partitions().items()
    assert day == "2023-08-06"
    assert stored["Location"] == (
        f"s3://{bucket.name}/lake/step_trainer/curated/ingestion_date=2023-08-06/"
    )
    assert {c["Name"]: c["Type"] for c in stored["Columns"]} == database.columns()
    assert stored["SerdeInfo"] == database.table()["StorageDescriptor"]["SerdeInfo"]


def test_the_tables_are_looked_up_once_and_what_is_there_is_not_written_again(
    bucket: Bucket, catalog: GlueCatalog, calls: Calls, client: Any, database: Glue, lake: Lake
) -> None:
    for table in TABLES.values():
        put(bucket, table, SIXTH)
        catalog.published(table, [SIXTH])
    assert calls["GetTables"] == 1
    assert calls["CreateTable"] == len(TABLES)
    calls.clear()
    again = GlueCatalog(client, database.name, lake, FIRST)
    for table in TABLES.values():
        again.published(table, [SIXTH])
    assert calls == {
        "GetTables": 1,
        "BatchCreatePartition": len(TABLES),
        "BatchGetPartition": len(TABLES),
    }
    calls.clear()
    again.match()
    assert calls == {"GetPartitions": len(TABLES)}


def test_partitions_are_told_a_hundred_at_a_time(
    bucket: Bucket, database: Glue, catalog: GlueCatalog, calls: Calls
) -> None:
    days = [SIXTH + timedelta(days=n) for n in range(230)]
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, days[:1])
    calls.clear()
    catalog.published(TABLE, days)
    assert calls == {"BatchCreatePartition": 3, "BatchGetPartition": 1}
    assert list(database.partitions()) == [day.isoformat() for day in days]


def test_a_partition_that_says_something_else_is_put_right_when_it_is_published_again(
    bucket: Bucket, database: Glue, catalog: GlueCatalog, calls: Calls
) -> None:
    put(bucket, TABLE, SIXTH, SEVENTH)
    catalog.published(TABLE, [SIXTH, SEVENTH])
    before = database.partitions()
    older = {
        **before["2023-08-06"],
        "Columns": [{"Name": "subject_id", "Type": "string"}],
        "Location": "s3://elsewhere/",
    }
    database.client.update_partition(
        DatabaseName=database.name,
        TableName=TABLE.name,
        PartitionValueList=["2023-08-06"],
        PartitionInput={"Values": ["2023-08-06"], "StorageDescriptor": older},
    )
    catalog.published(TABLE, [SIXTH, SEVENTH])
    assert database.partitions() == before
    assert calls["BatchUpdatePartition"] == 1


@pytest.mark.parametrize("first", [SIXTH, SEVENTH, date(2023, 8, 8)])
def test_athena_looks_for_every_partition_that_there_is_whatever_the_first_date_is_now(
    bucket: Bucket, database: Glue, client: Any, lake: Lake, first: date
) -> None:
    put(bucket, TABLE, SEVENTH, date(2023, 8, 9))
    GlueCatalog(client, database.name, lake, first).published(TABLE, [SEVENTH])
    range_of = database.table()["Parameters"]["projection.ingestion_date.range"]
    assert range_of == f"{min(first, SEVENTH)},NOW"


def test_what_others_wrote_beside_it_stays(
    bucket: Bucket, database: Glue, client: Any, catalog: GlueCatalog, lake: Lake
) -> None:
    catalog.published(TABLE, [SIXTH])
    found = database.table()
    database.client.update_table(
        DatabaseName=database.name,
        TableInput={
            "Name": TABLE.name,
            "Owner": "somebody",
            "Description": "Another one.",
            "PartitionKeys": found["PartitionKeys"],
            "Parameters": {**found["Parameters"], "theirs": "1", "projection.enabled": "false"},
            "StorageDescriptor": {**found["StorageDescriptor"], "Compressed": True},
        },
    )
    GlueCatalog(client, database.name, lake, FIRST).published(TABLE, [SIXTH])
    now = database.table()
    assert (now["Owner"], now["Description"]) == ("somebody", TABLE.description)
    assert now["Parameters"] == {**found["Parameters"], "theirs": "1"}
    assert now["StorageDescriptor"]["Compressed"]


# Other versions of the registry.


def test_a_table_of_an_older_registry_gets_the_added_column_and_so_do_its_partitions(
    bucket: Bucket,
    database: Glue,
    client: Any,
    catalog: GlueCatalog,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(bucket, TABLE, SIXTH, SEVENTH)
    catalog.published(TABLE, [SIXTH, SEVENTH])
    before = list(database.columns())
    newer = with_columns(monkeypatch, TABLE.columns[0], ADDED, *TABLE.columns[1:])
    GlueCatalog(client, database.name, lake, FIRST).published(newer, [SEVENTH])
    assert list(database.columns()) == [*before, "added"]
    for stored in database.partitions().values():
        assert {c["Name"]: c["Type"] for c in stored["Columns"]} == database.columns()


def test_a_column_that_the_registry_does_not_have_stays(
    database: Glue,
    client: Any,
    catalog: GlueCatalog,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = with_columns(monkeypatch, *TABLE.columns, ADDED)
    catalog.published(newer, [SIXTH])
    version = database.table()["VersionId"]
    GlueCatalog(client, database.name, lake, FIRST).published(TABLE, [SIXTH])
    assert database.columns()["added"] == "bigint"
    assert database.table()["VersionId"] == version


def test_another_type_is_an_error_that_names_it_and_changes_nothing(
    bucket: Bucket,
    database: Glue,
    client: Any,
    catalog: GlueCatalog,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, [SIXTH])
    before = database.table()
    changed = with_columns(
        monkeypatch,
        *(
            replace(column, type="string") if column.name == "distancefromobject" else column
            for column in TABLE.columns
        ),
        ADDED,
    )
    with pytest.raises(CatalogError) as error:
        GlueCatalog(client, database.name, lake, FIRST).published(changed, [SEVENTH])
    told = str(error.value)
    assert f"table 'machine_learning_curated' in the database '{database.name}'" in told
    assert "the column 'distancefromobject' is int, and in the registry string" in told
    assert "drop the table in Glue, which removes no file" in told
    assert database.table() == before
    assert list(database.partitions()) == ["2023-08-06"]


def test_a_table_of_somebody_else_is_an_error_and_stays_as_it_is(
    database: Glue, catalog: GlueCatalog
) -> None:
    theirs = {"Columns": [{"Name": "email", "Type": "string"}], "Location": "s3://theirs/"}
    database.client.create_table(
        DatabaseName=database.name,
        TableInput={"Name": TABLE.name, "StorageDescriptor": theirs},
    )
    with pytest.raises(CatalogError, match="is not partitioned by ingestion_date"):
        catalog.published(TABLE, [SIXTH])
    assert database.table()["StorageDescriptor"] == theirs


def test_a_lake_that_was_moved_moves_its_tables_and_partitions(
    bucket: Bucket, database: Glue, client: Any, catalog: GlueCatalog
) -> None:
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, [SIXTH])
    bucket.put(f"moved/{TABLE.path}/ingestion_date=2023-08-06/part-0.parquet")
    moved = open_lake(f"s3://{bucket.name}/moved")
    GlueCatalog(client, database.name, moved, FIRST).match()
    folder = f"s3://{bucket.name}/moved/step_trainer/curated/"
    assert database.table()["StorageDescriptor"]["Location"] == folder
    (stored,) = database.partitions().values()
    assert stored["Location"] == f"{folder}ingestion_date=2023-08-06/"


# What the lake has, and Glue has not, and the other way round.


def test_matching_adds_what_is_missing_and_takes_out_what_is_gone(
    bucket: Bucket, database: Glue, catalog: GlueCatalog
) -> None:
    days = [SIXTH + timedelta(days=n) for n in range(60)]
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, [SIXTH])
    catalog.published(TABLE, [day for day in days if day != SEVENTH])
    assert len(database.partitions()) == 59
    put(bucket, TABLE, SEVENTH)
    catalog.match()
    assert list(database.partitions()) == ["2023-08-06", "2023-08-07"]


def test_matching_makes_no_table_of_which_there_is_nothing(
    bucket: Bucket, database: Glue, catalog: GlueCatalog
) -> None:
    put(bucket, TABLE, SIXTH)
    catalog.match()
    tables = database.client.get_tables(DatabaseName=database.name)["TableList"]
    assert [table["Name"] for table in tables] == [TABLE.name]


def test_a_partition_that_is_published_while_another_one_matches_is_not_taken_out(
    bucket: Bucket, database: Glue, client: Any, catalog: GlueCatalog, lake: Lake
) -> None:
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, [SIXTH])
    with lake.writing():
        lake.partitions(TABLE)  # as one machine has listed them

        def another() -> None:
            put(bucket, TABLE, SEVENTH)
            others = open_lake(f"s3://{bucket.name}/lake")
            GlueCatalog(database.client, database.name, others, FIRST).published(TABLE, [SEVENTH])

        interrupt(client, "GetPartitions", another)
        catalog.match()
    assert list(database.partitions()) == ["2023-08-06", "2023-08-07"]


def test_a_partition_that_is_published_again_while_it_is_taken_out_is_there_in_the_end(
    bucket: Bucket, database: Glue, client: Any, catalog: GlueCatalog
) -> None:
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, [SIXTH])
    catalog.published(TABLE, [SEVENTH])  # which is not in the lake

    def another() -> None:
        put(bucket, TABLE, SEVENTH)
        others = open_lake(f"s3://{bucket.name}/lake")
        GlueCatalog(database.client, database.name, others, FIRST).published(TABLE, [SEVENTH])

    interrupt(client, "BatchDeletePartition", another)
    catalog.match()
    assert set(database.partitions()) == {"2023-08-06", "2023-08-07"}


# Several at once.


def test_two_that_make_the_same_table_at_once_lose_no_column_and_no_partition(
    bucket: Bucket,
    database: Glue,
    client: Any,
    catalog: GlueCatalog,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = with_columns(monkeypatch, *TABLE.columns, ADDED)
    put(bucket, TABLE, SIXTH, SEVENTH)
    other = GlueCatalog(database.client, database.name, lake, FIRST)
    interrupt(client, "CreateTable", lambda: other.published(newer, [SEVENTH]))
    catalog.published(TABLE, [SIXTH])
    assert "added" in database.columns()
    assert set(database.partitions()) == {"2023-08-06", "2023-08-07"}


@pytest.fixture
def _as_strict_as_glue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server refuse to update a table that is another version by now, as Glue does."""
    lock = threading.Lock()
    create, update = GlueBackend.create_table, GlueResponse.update_table

    def create_one(*of: Any, **more: Any) -> Any:
        with lock:
            return create(*of, **more)

    def update_this(self: GlueResponse) -> Any:
        of = self.parameters
        with lock:
            now = self.glue_backend.get_table(of["DatabaseName"], of["TableInput"]["Name"])
            if now.as_dict()["VersionId"] != of["VersionId"]:
                raise GlueClientError("ConcurrentModificationException", "Update table failed")
            return update(self)

    monkeypatch.setattr(GlueBackend, "create_table", create_one)
    monkeypatch.setattr(GlueResponse, "update_table", update_this)


@pytest.mark.usefixtures("_as_strict_as_glue")
def test_two_that_bring_a_table_forward_at_once_lose_no_column(
    bucket: Bucket,
    database: Glue,
    client: Any,
    catalog: GlueCatalog,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(bucket, TABLE, SIXTH)
    catalog.published(TABLE, [SIXTH])
    one = with_columns(monkeypatch, *TABLE.columns, ADDED)
    two = with_columns(monkeypatch, *TABLE.columns, replace(ADDED, name="added_by_another"))
    slow = GlueCatalog(client, database.name, lake, FIRST)
    fast = GlueCatalog(database.client, database.name, lake, FIRST)
    slow._found()  # before the other one changes it
    fast.published(two, [SIXTH])
    slow.published(one, [SIXTH])
    assert {"added", "added_by_another"} <= database.columns().keys()
    ((_, stored),) = database.partitions().items()
    assert {c["Name"]: c["Type"] for c in stored["Columns"]} == database.columns()


def test_who_is_overtaken_every_time_says_so_in_the_end(
    database: Glue, client: Any, catalog: GlueCatalog, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.published(TABLE, [SIXTH])
    newer = with_columns(monkeypatch, *TABLE.columns, ADDED)
    tries = []

    def refuse(**_: Any) -> None:
        tries.append(1)
        error = {"Code": "ConcurrentModificationException", "Message": "Update table failed"}
        raise ClientError({"Error": error}, "UpdateTable")

    monkeypatch.setattr(client, "update_table", refuse)
    with pytest.raises(CatalogError, match=r"Update table failed.*The lake is whole"):
        GlueCatalog(client, database.name, lake, FIRST).published(newer, [SIXTH])
    assert len(tries) == 5


def test_a_table_that_one_thread_makes_while_another_looks_at_all_of_them_is_not_forgotten(
    bucket: Bucket, database: Glue, client: Any, catalog: GlueCatalog
) -> None:
    """Matching looks at several tables at once, and again at all where it was overtaken."""
    put(bucket, TABLE, SIXTH)
    others = TABLES["customer_landing"]
    looking, made, looked = threading.Event(), threading.Event(), threading.Event()
    first = [looking]

    def while_looking(**_: object) -> None:
        if first:
            first.pop().set()
            made.wait(1)

    def after_looking(params: dict[str, Any], **_: object) -> None:
        if others.name.encode() in params["body"]:
            looked.set()

    def while_making(params: dict[str, Any], **_: object) -> None:
        if TABLE.name.encode() in params["body"]:
            made.set()
            looked.wait(1)

    client.meta.events.register("after-call.glue.GetTables", while_looking)
    client.meta.events.register("before-call.glue.CreateTable", after_looking)
    client.meta.events.register("before-call.glue.GetPartitions", while_making)
    other = threading.Thread(target=catalog.published, args=(others, [SIXTH]))
    other.start()
    assert looking.wait(10)
    catalog.published(TABLE, [SIXTH])
    other.join()
    assert list(database.partitions()) == ["2023-08-06"]


A_PROCESS = """
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from stedi_assets.lake import open_lake
from stedi_assets.resources import open_catalog
from stedi_assets.tables import TABLES, Column

root, database, cache, name, column, *days = sys.argv[1:]
table = TABLES[name]
if column:
    table = TABLES[name] = replace(table, columns=(*table.columns, Column(column, "int64", "New.")))
lake = open_lake(root, Path(cache))
catalog = open_catalog(lake, database)
print("ready", flush=True)
sys.stdin.readline()
for day in map(date.fromisoformat, days):
    staged = Path(cache, f"{column}{day}")
    staged.write_text("{}")
    lake.publish(table, day, staged)
    catalog.published(table, [day])
"""


@pytest.mark.usefixtures("_as_strict_as_glue")
def test_processes_of_several_versions_that_publish_at_once_lose_no_partition_and_no_column(
    bucket: Bucket, database: Glue, catalog: GlueCatalog, tmp_path: Path
) -> None:
    days = [SIXTH + timedelta(days=n) for n in range(12)]
    added = ["", "added_by_one", "added_by_another"]
    processes = []
    for n, column in enumerate(added):
        cache = tmp_path / f"cache {n}"
        cache.mkdir()
        mine = [day.isoformat() for day in days[n :: len(added)]]
        of = [f"s3://{bucket.name}/lake", database.name, str(cache), TABLE.name, column]
        command = [sys.executable, "-W", "ignore", "-c", A_PROCESS, *of, *mine]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    assert [process.communicate("go\n")[1] for process in processes] == [""] * len(added)
    assert set(added[1:]) < database.columns().keys()
    assert sorted(database.partitions()) == [day.isoformat() for day in days]
    catalog.match()  # as the reconciliation after runs
    for stored in database.partitions().values():
        assert {c["Name"]: c["Type"] for c in stored["Columns"]} == database.columns()


# Settings and errors.


def test_a_lake_without_glue_does_not_wait_for_boto3() -> None:
    program = (
        "import sys, stedi_assets.definitions; "
        "print([name for name in sys.modules if name in ('boto3', 'botocore', 'dagster_aws')])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_without_a_database_nobody_is_told(lake: Lake) -> None:
    assert isinstance(open_catalog(lake, None), NoCatalog)


def test_a_database_for_a_local_lake_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    local = open_lake(str(tmp_path / "lake"))
    local.storage.folder.mkdir()
    result = stedi(local, "run", STEDI_GLUE_DATABASE="stedi")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: STEDI_GLUE_DATABASE is 'stedi', and the lake is ")
    assert "unset STEDI_GLUE_DATABASE." in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_database_that_is_not_there_is_an_error_with_what_to_do(
    bucket: Bucket, lake: Lake
) -> None:
    with pytest.raises(CatalogError, match="there is no database 'nowhere' in Glue"):
        open_catalog(lake, "nowhere").match()


def test_a_server_that_is_not_there_is_an_error_that_says_that_the_lake_is_whole(
    database: Glue, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    catalog = open_catalog(lake, database.name)
    monkeypatch.setattr(catalog, "_client", boto3.client("glue"))
    with pytest.raises(CatalogError, match=r"Could not connect.*The lake is whole, only this"):
        catalog.published(TABLE, [SIXTH])


# Runs.


@pytest.fixture
def landed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The address of a lake with landing files of one date."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "a key of a test")
    for source, record in {
        "customer": customer("ann@test.com", "s"),
        "accelerometer": phone("ann@test.com", 1),
    }.items():
        key = f"lake/{source}/landing/ingestion_date=2023-08-06/file.json"
        bucket.put(key, json.dumps(record).encode())
    return f"s3://{bucket.name}/lake"


def published(bucket: Bucket) -> set[str]:
    """The keys of the partitions in the lake."""
    return {key for key in bucket.keys if key.endswith("part-0.parquet")}


def test_a_run_tells_glue_and_what_it_could_not_tell_the_next_one_does(
    bucket: Bucket, database: Glue, landed: str
) -> None:
    for _ in range(2):
        failed = stedi(landed, "run", STEDI_GLUE_DATABASE="no_such_database")
        assert failed.returncode == 1
        assert failed.stderr.startswith("Error: there is no database 'no_such_database' in Glue")
        assert failed.stderr.count("\n") == 1

    told = succeeded(stedi(landed, "run", STEDI_GLUE_DATABASE=database.name))
    assert told.startswith("All tables are up to date.\n")
    tables = database.client.get_tables(DatabaseName=database.name)["TableList"]
    in_glue = {
        f"{partition['Location']}part-0.parquet"
        for table in tables
        for partition in database.partitions(table["Name"]).values()
    }
    assert in_glue == {f"s3://{bucket.name}/{key}" for key in published(bucket)}

    key = "lake/customer/landing/ingestion_date=2023-08-07/file.json"
    bucket.put(key, json.dumps(customer("bob@test.com", "t")).encode())
    succeeded(stedi(landed, "run", STEDI_GLUE_DATABASE=database.name))
    assert list(database.partitions("customer_landing")) == ["2023-08-06", "2023-08-07"]
    assert list(database.partitions("customer_trusted")) == ["2023-08-06", "2023-08-07"]


def job(name: str, lake: str) -> dg.JobDefinition:
    """A job of the project's over a lake, as Dagster's servers run it."""
    here = dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=defs.jobs,
        resources=resources_of(lake),
        executor=defs.executor,
    )
    return here.resolve_job_def(name)


def test_a_run_makes_and_tells_of_every_table_where_glue_fails_and_the_reconciliation_fails(
    bucket: Bucket, landed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_GLUE_DATABASE", "no_such_database")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job("bring_up_to_date", landed).execute_in_process(
            partition_key="2023-08-06", instance=instance, run_config=QUIET
        )
        assert result.success
        for name in TABLES:
            assert instance.get_latest_materialization_event(dg.AssetKey(name)), name
        warnings = [
            entry.user_message
            for entry in instance.all_logs(result.run_id)
            if entry.level == logging.WARNING
        ]
    assert len(published(bucket)) == len(TABLES)
    (warning,) = warnings
    assert warning.startswith("there is no database 'no_such_database' in Glue")
    result = job("reconcile", landed).execute_in_process(run_config=QUIET, raise_on_error=False)
    assert not result.success
    (error,) = (event.step_failure_data.error for event in result.get_step_failure_events())
    assert "there is no database 'no_such_database' in Glue" in str(error)
