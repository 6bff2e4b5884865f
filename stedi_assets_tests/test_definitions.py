"""The graph of assets and checks, and that the project loads as people load it.

`python -m stedi_assets_tests.test_definitions` renews the snapshot, graph.json.
"""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stedi_assets.checks import keys_of_checks
from stedi_assets.definitions import defs
from stedi_assets.partitions import DAILY, EVERY_DATE, SINGLE_RUN, UP_TO_THIS_DATE
from stedi_assets.tables import PARTITION, TABLES

# Dagster says so of its own copies of sensors, which name no owner.
pytestmark = pytest.mark.filterwarnings("ignore:.*`owners`.*:dagster.BetaWarning")

SNAPSHOT = Path(__file__).with_name("graph.json")
RENEW = "python -m stedi_assets_tests.test_definitions"
ROOT = Path(__file__).parents[1]


def name_of(value: Any) -> str:
    """The name under which `partitions.py` has a value; else the value as it writes itself."""
    names = {
        "DAILY": DAILY,
        "SINGLE_RUN": SINGLE_RUN,
        "EVERY_DATE": EVERY_DATE,
        "UP_TO_THIS_DATE": UP_TO_THIS_DATE,
    }
    return next((name for name, known in names.items() if known == value), repr(value))


def graph() -> dict[str, Any]:
    """What a change of structure changes, by asset."""
    assets = defs.resolve_asset_graph()
    return {
        key.to_user_string(): {
            "deps": {
                parent.to_user_string(): name_of(node.partition_mappings.get(parent))
                for parent in sorted(node.parent_keys)
            },
            "group": node.group_name,
            "owners": sorted(node.owners),
            "kinds": sorted(node.kinds),
            "partitions": name_of(node.partitions_def),
            "backfill": name_of(node.backfill_policy),
            "checks": {
                check.name: "blocking" if assets.get(check).blocking else "reporting"
                for check in sorted(node.check_keys, key=lambda check: check.name)
            },
        }
        for key in sorted(assets.get_all_asset_keys())
        for node in [assets.get(key)]
    }


def written(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def test_the_graph_is_the_one_of_the_snapshot() -> None:
    found, snapshot = graph(), json.loads(SNAPSHOT.read_text())
    assert found == snapshot, (
        f"the graph of assets has changed; if it should have, run `{RENEW}`, and commit graph.json"
    )
    assert SNAPSHOT.read_text() == written(found), f"run `{RENEW}` instead of writing it by hand"


def test_every_table_is_an_asset_and_so_is_the_report_of_them_and_nothing_else_is() -> None:
    assert graph().keys() == {*TABLES, "lakehouse_report"}
    assert graph()["lakehouse_report"]["deps"].keys() == TABLES.keys()


def test_every_check_has_the_partitions_of_its_table_but_the_one_that_looks_at_all_tables() -> None:
    assets = defs.resolve_asset_graph()
    partitions = {check: assets.get(check).partitions_def for check in assets.asset_check_keys}
    assert {check for check, found in partitions.items() if found is None} == {
        dg.AssetCheckKey(dg.AssetKey(name), "up_to_date") for name in TABLES
    }
    assert {found for found in partitions.values() if found is not None} == {DAILY}


def test_the_job_that_brings_up_to_date_has_every_table_and_every_check_of_its_partitions() -> None:
    layer = defs.resolve_job_def("bring_up_to_date").asset_layer
    assert {key.to_user_string() for key in layer.executable_asset_keys} == TABLES.keys()
    assert layer.asset_graph.asset_check_keys == keys_of_checks(TABLES)


def test_dagster_takes_from_the_settings_that_jobs_which_write_the_lake_run_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
    assert queue
    assert queue.max_concurrent_runs > 1
    (limit,) = queue.tag_concurrency_limits
    assert limit["limit"] == 1
    for name in ("bring_up_to_date", "reconcile", "report"):
        assert defs.resolve_job_def(name).tags[limit["key"]] == limit["value"]


def test_an_asset_says_of_its_columns_what_the_registry_says() -> None:
    assets = defs.resolve_asset_graph()
    for name, table in TABLES.items():
        node = assets.get(dg.AssetKey(name))
        assert node.description == table.description
        assert node.tags["source"] == table.source
        columns = node.metadata["dagster/column_schema"].columns
        assert [
            (column.name, column.type, column.constraints.nullable)
            for column in columns
            if column.name != PARTITION
        ] == [(column.name, column.type, not column.required) for column in table.columns]


def in_the_repository(*command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run an installed command as after a fresh clone: no setting, no Dagster home."""
    program = Path(sysconfig.get_path("scripts")) / command[0]
    return subprocess.run(
        [program, *command[1:]],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["dagster definitions validate", "dg check defs"])
def test_the_definitions_load_without_any_setting(command: str, tmp_path: Path) -> None:
    done = in_the_repository(*command.split(), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_the_definitions_are_listed_without_any_setting(tmp_path: Path) -> None:
    done = in_the_repository("dg", "list", "defs", "--json", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = json.loads(done.stdout)
    assert {asset["asset_key"] for asset in listed["assets"]} == graph().keys()
    assert {"bring_up_to_date", "reconcile", "report"} <= {job["name"] for job in listed["jobs"]}
    assert {sensor["name"] for sensor in listed["sensors"]} >= {
        "landing_files",
        "finished_runs",
        "settled_lake",
    }
    assert "every_night" in {schedule["name"] for schedule in listed["schedules"]}


if __name__ == "__main__":
    SNAPSHOT.write_text(written(graph()))
