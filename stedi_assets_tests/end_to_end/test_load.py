"""A large instance, by counts and small: what pages ask of the database, what a daemon keeps.

At full size: `python -m benchmarks load` and `python -m benchmarks.soak`.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.schema import create_schema
from sqlalchemy import Engine, event

from benchmarks.replayed import replay
from benchmarks.soak import soak
from stedi_assets.lake import Lake
from stedi_assets.pruning import prune
from stedi_assets.sample_data import write_sample
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.dagster_dev import ROOT, new_home
from stedi_assets_tests.end_to_end.process import stedi, succeeded

pytestmark = pytest.mark.long

PAGES = """{
  assetNodes {
    assetKey { path }
    partitionStats { numMaterialized numPartitions numFailed numMaterializing }
    latestMaterializationByPartition(partitions: %s) { partition timestamp runId }
    assetMaterializations(limit: 1) { partition timestamp runId }
    assetChecksOrError { ... on AssetChecks { checks {
      name
      partitionStatuses { ... on AssetCheckTimePartitionStatuses { ranges {
        startKey endKey status
      } } }
      executionForLatestMaterialization { status runId evaluation { success description } }
    } } }
  }
}"""
"""What pages of tables ask: partitions, the latest figures, what checks found."""

DAY = date(2023, 8, 6)


def dates(first: int, number: int) -> list[date]:
    return [DAY + timedelta(days=first + day) for day in range(number)]


class Pages:
    """The pages of an instance, and how many statements they need."""

    def __init__(self, instance: dg.DagsterInstance, context: WorkspaceProcessContext) -> None:
        self.instance = instance
        self.context = context
        self.statements = 0

    def ask(self, days: list[date]) -> Any:
        """What pages show, with nothing remembered of the last time."""
        for name in TABLES:
            self.instance.event_log_storage.wipe_asset_cached_status(dg.AssetKey(name))
        partitions = str([day.isoformat() for day in days]).replace("'", '"')
        self.statements = 0

        def count(*_: object) -> None:
            self.statements += 1

        event.listen(Engine, "before_cursor_execute", count)
        try:
            found = asyncio.run(
                create_schema().execute_async(
                    PAGES % partitions, context_value=self.context.create_request_context()
                )
            )
        finally:
            event.remove(Engine, "before_cursor_execute", count)
        assert not found.errors, found.errors
        return {node["assetKey"]["path"][0]: node for node in found.data["assetNodes"]}


@contextmanager
def pages_of(home: Path) -> Iterator[Pages]:
    target = ModuleTarget(
        module_name="stedi_assets.definitions",
        attribute=None,
        working_directory=str(ROOT),
        location_name=None,
    )
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        yield Pages(instance, context)


def test_pages_ask_no_more_often_of_many_runs_and_show_the_same_after_these_were_pruned(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = new_home(tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("STEDI_LAKE", str(lake.storage.root))
    write_sample(lake.storage.root, customers=12, days=1)
    succeeded(stedi(lake, "run", "--date", str(DAY), DAGSTER_HOME=str(home)))
    replay(home, DAY, dates(1, 10))
    with pages_of(home) as pages:
        pages.ask(dates(0, 1))  # what is asked once
        before = pages.ask(dates(0, 11))
        of_few = pages.statements
        replay(home, DAY, [*dates(1, 10), *dates(11, 10)])
        found = pages.ask(dates(0, 21))
        assert pages.statements == of_few
        for name in TABLES:
            assert before[name]["partitionStats"]["numMaterialized"] == 11
            assert found[name]["partitionStats"]["numMaterialized"] == 21
            shown = found[name]["latestMaterializationByPartition"]
            assert [one["partition"] for one in shown] == [str(day) for day in dates(0, 21)]
        checks = found["customer_trusted"]["assetChecksOrError"]["checks"]
        assert {"SUCCEEDED"} <= {
            check["executionForLatestMaterialization"]["status"]
            for check in checks
            if check["executionForLatestMaterialization"]
        }
        runs = pages.instance.get_runs_count(dg.RunsFilter(job_name="bring_up_to_date"))
        assert runs == 1 + 10 + 20
        pruned = prune(pages.instance, datetime.now(UTC) + timedelta(days=1))
        assert pruned.runs >= 10
        assert pruned.events > 1000
        assert pages.ask(dates(0, 21)) == found


def test_a_daemon_and_its_server_keep_no_file_no_thread_and_little_memory(tmp_path: Path) -> None:
    found = soak(tmp_path, ticks=60, runs=6)
    assert found.ticks >= 60
    assert found.runs >= 6
    assert found.left == []
    for process in ("daemon", "code"):
        assert found.grown(process, lambda sample: sample.megabytes) < 40, process
        assert found.grown(process, lambda sample: sample.files) < 10, process
        assert found.grown(process, lambda sample: sample.threads) < 10, process
