"""Small landing files by hand, runs over them, and what the tables then hold.

Reads what is stored with a DuckDB of its own, so that no test believes the engine that it tests.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from stedi_assets.definitions import defs
from stedi_assets.io_manager import IO_MANAGER_KEY, lake_io_manager
from stedi_assets.jobs import BRING_UP_TO_DATE
from stedi_assets.lake import Lake
from stedi_assets.run_resources import lake_resource, resources
from stedi_assets.tables import TABLES
from stedi_assets_tests.storages import AnyPath, on_disk, opened, put, root_of, same_files

Record = dict[str, Any]

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def customer(
    email: str, serial: str, *, updated: int = 10, consent: int | None = 5, **more: object
) -> Record:
    record: Record = {
        "customerName": f"Name of {email.strip().lower()}",
        "email": email,
        "phone": "5551234567",
        "birthDay": "1970-01-01",
        "serialNumber": serial,
        "registrationDate": 10,
        "lastUpdateDate": updated,
    }
    if consent is not None:
        record["shareWithResearchAsOfDate"] = consent
    return record | more


def phone(user: str, timestamp: int, x: float = 0.5) -> Record:
    return {"user": user, "timestamp": timestamp, "x": x, "y": -1.0, "z": 0.0}


def device(time: int, serial: str, distance: int = 250) -> Record:
    return {"sensorReadingTime": time, "serialNumber": serial, "distanceFromObject": distance}


def land(
    lake: Lake, source: str, day: str, *records: Record | str, name: str = "file.json"
) -> AnyPath:
    """Write a landing file of the ingestion date `day`; texts are lines as they are."""
    path = landed(lake, source, day, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    put(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def landed(lake: Lake, source: str, day: str, name: str = "file.json") -> AnyPath:
    """Where `land` writes."""
    return root_of(lake) / source / "landing" / f"ingestion_date={day}" / name


def twin(lake: Lake, root: AnyPath) -> Lake:
    """A copy of a lake that is as up to date: its landing files are the same ones."""
    if isinstance(root, Path):
        shutil.copytree(root_of(lake), root, copy_function=_link_landing_files)
    else:
        same_files(root_of(lake), "**/*", root)
    return opened(root)


def _link_landing_files(source: str, target: str) -> None:
    if "/landing/" in source:
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


def partition_tags(first: str, last: str) -> dict[str, str]:
    """The tags that make a run one over a range of dates."""
    return {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }


def resources_of(root: AnyPath) -> dict[str, object]:
    """The project's resources, over another lake than that of the environment."""
    lake = lake_resource.configured({"root": str(root)})
    return {**resources(), "lake": lake, IO_MANAGER_KEY: lake_io_manager}


def run(
    lake: Lake, first: str, last: str | None = None, tables: Sequence[str] | None = None
) -> dg.ExecuteInProcessResult:
    """Make the partitions of some dates, of all tables or some, by the project's own job."""
    here = dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=defs.jobs,
        resources=resources_of(root_of(lake)),
        executor=defs.executor,
    )
    return here.resolve_job_def(BRING_UP_TO_DATE.name).execute_in_process(
        partition_key=first if last is None else None,
        tags=partition_tags(first, last) if last else None,
        asset_selection=[dg.AssetKey(name) for name in tables] if tables else None,
        run_config=QUIET,
        raise_on_error=False,
    )


def rows_by_date(lake: Lake, table: str) -> dict[str, Counter[tuple[Any, ...]]]:
    """The rows of every stored partition of a table, however often each is there."""
    found: dict[str, Counter[tuple[Any, ...]]] = {}
    partitions = root_of(lake).glob(f"{TABLES[table].path}/ingestion_date=*/part-0.parquet")
    with duckdb.connect() as connection, on_disk(partitions) as files:
        for file in sorted(files):
            rows = connection.read_parquet(str(file), hive_partitioning=False).fetchall()
            found[file.parent.name.removeprefix("ingestion_date=")] = Counter(rows)
    return found


def counts_by_date(lake: Lake, table: str) -> dict[str, int]:
    """The number of rows of every stored partition of a table."""
    return {day: rows.total() for day, rows in rows_by_date(lake, table).items()}


def file_of(lake: Lake, table: str, day: str) -> AnyPath:
    """The one file of a partition."""
    return root_of(lake) / lake.partition_key(TABLES[table], date.fromisoformat(day))
