"""The Glue Data Catalog: tables and partitions of a lake on S3, for Athena, Spark and notebooks.

The only module that speaks with Glue. Several may write the same database: each writes what it
knows over what is there now, and begins again where somebody else was faster.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from threading import Lock
from typing import Any, NoReturn, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from stedi_assets.catalog.catalog import CatalogError
from stedi_assets.catalog.hive import (
    PARTITION_COMMENT,
    PARTITION_TYPE,
    TYPES,
    comment,
    location,
    partition_location,
    properties,
)
from stedi_assets.lake import Lake
from stedi_assets.tables import PARTITION, TABLES, Table

_PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}

_A_CALL = 100
_REMOVED_A_CALL = 25
_AT_ONCE = 8
_PAUSES = (0.1, 0.3, 1.0, 3.0)
"""Seconds to wait, at most, before each further attempt at what somebody else was faster with."""

_OVERTAKEN = {
    "AlreadyExistsException",
    "ConcurrentModificationException",
    "EntityNotFoundException",
}

_T = TypeVar("_T")

_Described = dict[str, Any]
"""A table, a partition or a part of one, as Glue takes and gives it."""


def open_glue(database: str, lake: Lake, first: date) -> GlueCatalog:
    """The catalog of a lake on S3; region and credentials are those that boto3 finds.

    Args:
        database: has to exist.
        lake: whose tables it shows.
        first: the first ingestion date.

    Raises:
        CatalogError: boto3 cannot be set up.
    """
    try:
        client = boto3.client(
            "glue", config=Config(retries={"mode": "standard", "max_attempts": 8})
        )
    except BotoCoreError as error:
        raise CatalogError(f"Glue, database {database!r}: {error}") from None
    return GlueCatalog(client, database, lake, first)


class GlueCatalog:
    """The tables of a lake in a database of Glue.

    Args:
        client: boto3's, of Glue.
        database: has to exist.
        lake: whose tables it shows.
        first: the first ingestion date.
    """

    def __init__(self, client: Any, database: str, lake: Lake, first: date) -> None:
        self._client = client
        self._database = database
        self._lake = lake
        self._first = first
        self._root = lake.storage.uri()
        self._tables: dict[str, _Described] | None = None
        self._looking = Lock()

    def published(self, table: Table, days: Collection[date]) -> None:
        """See `Catalog`."""

        def tell() -> None:
            if self._bring_forward(table):
                self._match(table)
            else:
                self._put(table, days)

        self._retried(table, tell)

    def match(self) -> None:
        """See `Catalog`. What Glue has and the registry does not, it leaves alone."""

        def match(table: Table) -> None:
            def work() -> None:
                if table.name in self._found() or self._lake.has_partitions(table):
                    self._bring_forward(table)
                    self._match(table)

            self._retried(table, work)

        self._retried(None, self._found)  # once for all
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(match, TABLES.values()))

    def _found(self) -> dict[str, _Described]:
        """The tables that Glue has, as they were when they were last looked at."""
        # One at a time: what another thread looked up would hide what this one has made since.
        with self._looking:
            if self._tables is None:
                paginator = self._client.get_paginator("get_tables")
                pages = paginator.paginate(DatabaseName=self._database)
                try:
                    self._tables = {
                        found["Name"]: found for page in pages for found in page["TableList"]
                    }
                except self._client.exceptions.EntityNotFoundException:
                    raise CatalogError(
                        f"there is no database {self._database!r} in Glue. Make it, or set "
                        "STEDI_GLUE_DATABASE to one that is there."
                    ) from None
            return self._tables

    def _bring_forward(self, table: Table) -> bool:
        """Make Glue's table say what the registry does; returns whether it did not before."""
        found = self._found().get(table.name)
        if found is None:
            self._client.create_table(
                DatabaseName=self._database, TableInput=self._described(table, [])
            )
        else:
            there = self._writable("TableInput", found)
            wanted = _laid_over(there, self._described(table, self._known_columns(table, found)))
            if wanted == there:
                return False
            self._client.update_table(
                DatabaseName=self._database, TableInput=wanted, VersionId=found["VersionId"]
            )
        self._found()[table.name] = self._client.get_table(
            DatabaseName=self._database, Name=table.name
        )["Table"]
        return True

    def _known_columns(self, table: Table, found: _Described) -> list[_Described]:
        """The columns that Glue has of a table, if it is this one.

        Raises:
            CatalogError: it is another one, or has a column of another type.
        """
        name = f"table {table.name!r} in the database {self._database!r} of Glue"
        keys = [(key["Name"], key["Type"]) for key in found.get("PartitionKeys", [])]
        if keys != [(PARTITION, PARTITION_TYPE)]:
            raise CatalogError(
                f"{name} is not partitioned by {PARTITION} ({PARTITION_TYPE}), so it is none of "
                "this lake. Rename or drop it there, or set STEDI_GLUE_DATABASE to another one."
            )
        columns: list[_Described] = found["StorageDescriptor"]["Columns"]
        types = {column.name: TYPES[column.type] for column in table.columns}
        for column in columns:
            wanted = types.get(column["Name"])
            if wanted and column["Type"] != wanted:
                raise CatalogError(
                    f"{name}: the column {column['Name']!r} is {column['Type']}, and in the "
                    f"registry {wanted}. Nothing was changed there. If the registry is right, drop "
                    "the table in Glue, which removes no file: the next `stedi run` makes it again."
                )
        return columns

    def _described(self, table: Table, known: Sequence[_Described]) -> _Described:
        """A table as the registry has it, after the columns that Glue knows already.

        Those keep their order, and stay if the registry has them no more: a newer or an older
        version of this program may be writing as well.
        """
        columns = {column["Name"]: column for column in known}
        # Partitions from before stay in the table when the first date is set to a later one.
        first = min([self._first, *self._lake.partitions(table)])
        for column in table.columns:
            columns[column.name] = {
                **columns.get(column.name, {}),
                "Name": column.name,
                "Type": TYPES[column.type],
                "Comment": comment(column),
            }
        return {
            "Name": table.name,
            "Description": table.description,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {"EXTERNAL": "TRUE", **properties(self._root, table, first)},
            "PartitionKeys": [
                {"Name": PARTITION, "Type": PARTITION_TYPE, "Comment": PARTITION_COMMENT}
            ],
            "StorageDescriptor": {
                **_PARQUET,
                "Columns": list(columns.values()),
                "Location": location(self._root, table),
            },
        }

    def _match(self, table: Table) -> None:
        """Make Glue have the partitions that the lake has, and no others."""
        found = {}
        pages = self._client.get_paginator("get_partitions").paginate(**self._of(table))
        for page in pages:
            for partition in page["Partitions"]:
                found[partition["Values"][0]] = partition
        # The lake after Glue: whoever publishes in between finds its partition in neither or both.
        there = self._lake.partitions(table)
        self._put(table, [day for day in there if day.isoformat() not in found])
        self._update(table, {value: found[value] for day in there if (value := str(day)) in found})
        self._remove(table, [value for value in found if not self._is_there(table, value)])

    def _is_there(self, table: Table, value: str) -> bool:
        """Whether the lake has a partition now, whatever it had when it was listed."""
        try:
            day = date.fromisoformat(value)
        except ValueError:
            return False
        if day in self._lake.partitions(table):
            return True
        return self._lake.storage.find(self._lake.partition_key(table, day)) is not None

    def _put(self, table: Table, days: Collection[date]) -> None:
        """Add partitions; those that are there already are made to say what they should."""
        already: list[str] = []
        for some in _portions([day.isoformat() for day in days], _A_CALL):
            answer = self._client.batch_create_partition(
                **self._of(table), PartitionInputList=[self._partition(table, day) for day in some]
            )
            already += _refused(answer, "PartitionValues", but="AlreadyExistsException")
        for some in _portions(already, _A_CALL):
            answer = self._client.batch_get_partition(
                **self._of(table), PartitionsToGet=[{"Values": [day]} for day in some]
            )
            self._update(table, {found["Values"][0]: found for found in answer["Partitions"]})

    def _update(self, table: Table, found: dict[str, _Described]) -> None:
        """Make those of the partitions say what they should that do not."""
        entries = []
        for day, partition in found.items():
            there = self._writable("PartitionInput", partition)
            descriptor = there["StorageDescriptor"]
            descriptor = {**descriptor, "Columns": _names_and_types(descriptor["Columns"])}
            there = {**there, "StorageDescriptor": descriptor}
            wanted = _laid_over(there, self._partition(table, day))
            if wanted != there:
                entries.append({"PartitionValueList": [day], "PartitionInput": wanted})
        for some in _portions(entries, _A_CALL):
            answer = self._client.batch_update_partition(**self._of(table), Entries=some)
            _refused(answer, "PartitionValueList")

    def _remove(self, table: Table, values: Sequence[str]) -> None:
        for some in _portions(values, _REMOVED_A_CALL):
            answer = self._client.batch_delete_partition(
                **self._of(table), PartitionsToDelete=[{"Values": [value]} for value in some]
            )
            _refused(answer, "PartitionValues", but="EntityNotFoundException")
        # Somebody may have published one, and told Glue, just before it was taken out there.
        again = [value for value in values if self._is_there(table, value)]
        self._put(table, [date.fromisoformat(value) for value in again])

    def _partition(self, table: Table, day: str) -> _Described:
        columns = self._found()[table.name]["StorageDescriptor"]["Columns"]
        return {
            "Values": [day],
            "StorageDescriptor": {
                **_PARQUET,
                "Columns": _names_and_types(columns),
                "Location": partition_location(self._root, table, day),
            },
        }

    def _of(self, table: Table) -> dict[str, str]:
        return {"DatabaseName": self._database, "TableName": table.name}

    def _writable(self, shape: str, found: _Described) -> _Described:
        """What of an answer can be sent back."""
        members = self._client.meta.service_model.shape_for(shape).members
        return {name: value for name, value in found.items() if name in members}

    def _retried(self, table: Table | None, work: Callable[[], object]) -> None:
        """Do what can be done again, until nobody else is faster.

        Raises:
            CatalogError: Glue refuses, or somebody else is faster every time.
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                work()
                return
            except _RefusedError as error:
                code, problem = error.code, str(error)
            except ClientError as error:
                code, problem = error.response.get("Error", {}).get("Code", ""), str(error)
            except BotoCoreError as error:
                code, problem = "", str(error)
            pause = next(pauses, None)
            if code not in _OVERTAKEN or pause is None:
                self._tell(table, problem)
            time.sleep(pause * random.random())
            self._tables = None  # as they are now

    def _tell(self, table: Table | None, problem: str) -> NoReturn:
        of = f", table {table.name!r}" if table else ""
        raise CatalogError(
            f"Glue, database {self._database!r}{of}: {problem}. The lake is whole, only this "
            "catalog does not say yet what is in it: the next `stedi run` or `stedi reconcile` "
            "tells it."
        )


class _RefusedError(Exception):
    """Glue did not do what it was asked for with a partition of several."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _refused(answer: _Described, values: str, but: str = "") -> list[str]:
    """The partitions that a call refused because of an error that is none.

    Raises:
        _RefusedError: it refused one because of another error.
    """
    refused = []
    for error in answer.get("Errors", []):
        day, detail = error[values][0], error["ErrorDetail"]
        if detail["ErrorCode"] != but:
            problem = f"partition {day}: {detail['ErrorCode']}: {detail.get('ErrorMessage', '')}"
            raise _RefusedError(detail["ErrorCode"], problem)
        refused.append(day)
    return refused


def _laid_over(there: _Described, wanted: _Described) -> _Described:
    """What is there, with what is wanted instead where that says something else."""
    over = {
        name: _laid_over(there[name], value)
        if isinstance(value, dict) and isinstance(there.get(name), dict)
        else value
        for name, value in wanted.items()
    }
    return {**there, **over}


def _names_and_types(columns: Sequence[_Described]) -> list[_Described]:
    return [{"Name": column["Name"], "Type": column["Type"]} for column in columns]


def _portions(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
