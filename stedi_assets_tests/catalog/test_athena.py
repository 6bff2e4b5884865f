"""The check of what Athena counts, against a server that answers what it was told to.

The real Athena cannot run here: that its own answers look as these do, no test shows. What it is
asked is read by a parser of its dialect.
"""

import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import boto3
import pytest
import sqlglot
from sqlglot import exp

from stedi_assets.catalog import athena
from stedi_assets.checks import checks_of, keys_of_checks
from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import open_engine
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import TABLES
from stedi_assets_tests.catalog.partitions import publish
from stedi_assets_tests.conftest import Bucket

pytestmark = pytest.mark.long

TABLE = TABLES["accelerometer_landing"]
SIXTH, SEVENTH, NINTH = date(2023, 8, 6), date(2023, 8, 7), date(2023, 8, 9)


@dataclass
class Athena:
    """A workgroup, the queries that ran in it, and where to say what it answers."""

    server: str
    workgroup: str
    queries: list[str] = field(default_factory=list)

    def answers(self, counts: Mapping[date, int]) -> None:
        """What the next query gives; the first row of a result names the columns."""
        rows = [("ingestion_date", "_col1"), *counts.items()]
        data = [{"Data": [{"VarCharValue": str(value)} for value in row]} for row in rows]
        self.post({"results": [{"rows": data, "column_info": []}]})

    def post(self, what: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.server}/moto-api/static/athena/query-results",
            data=json.dumps(what).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 201


@pytest.fixture
def workgroup(bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Athena]:
    """The workgroup of the settings, with a place for results."""
    made = Athena(s3_server, f"workgroup-{uuid.uuid4()}")
    monkeypatch.setenv("STEDI_ATHENA_WORKGROUP", made.workgroup)
    boto3.setup_default_session()
    place = {"OutputLocation": f"s3://{bucket.name}/results/"}

    def put(params: dict[str, Any], **_: object) -> None:
        assert params["WorkGroup"] == made.workgroup
        made.queries.append(params["QueryString"])
        params["ResultConfiguration"] = place  # the workgroup's, of which moto makes nothing

    boto3.DEFAULT_SESSION.events.register("provide-client-params.athena.StartQueryExecution", put)
    boto3.client("athena").create_work_group(
        Name=made.workgroup, Configuration={"ResultConfiguration": place}
    )
    monkeypatch.setattr("time.sleep", lambda _: None)
    yield made
    boto3.DEFAULT_SESSION = None


@pytest.fixture
def full_lake(lake: Lake) -> Lake:
    """A lake with 2 rows on the sixth, 1 on the seventh and 1 on the ninth."""
    for day, rows in {SIXTH: 2, SEVENTH: 1, NINTH: 1}.items():
        publish(lake, TABLE, day, rows)
    return lake


def checked(lake: Lake, *days: date) -> Finding:
    with open_engine(lake) as engine:
        stored = Stored(lake, engine, Policy.REFERENCE, TABLE, days)
        return checks_of(TABLE)["athena_count"](stored)


def test_without_a_workgroup_there_is_no_such_check() -> None:
    assert not [key for key in keys_of_checks(TABLES) if key.name == "athena_count"]


def test_with_a_workgroup_every_table_has_the_check_in_the_graph() -> None:
    program = (
        "from stedi_assets.definitions import defs; "
        "keys = defs.resolve_asset_graph().asset_check_keys; "
        "print(sorted(k.asset_key.to_user_string() for k in keys if k.name == 'athena_count'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"STEDI_ATHENA_WORKGROUP": "any", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{sorted(TABLES)}\n", done.stderr


def test_what_athena_counts_as_it_was_published_passes(full_lake: Lake, workgroup: Athena) -> None:
    workgroup.answers({SIXTH: 2, SEVENTH: 1, NINTH: 1})
    found = checked(full_lake, SIXTH, SEVENTH, NINTH)
    assert found.passed
    assert found.sentence == "Athena counts 4 rows of 4"
    assert found.figures[SIXTH] == {"published": 2, "counted": 2}


def test_a_table_is_counted_in_one_query_over_the_runs_dates_alone(
    full_lake: Lake, workgroup: Athena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_GLUE_DATABASE", 'a "database"')
    workgroup.answers({SIXTH: 2, SEVENTH: 1, NINTH: 1})
    assert checked(full_lake, SIXTH, SEVENTH, NINTH).passed
    (query,) = workgroup.queries
    tree = sqlglot.parse_one(query, dialect="athena")
    table = tree.find(exp.Table)
    assert table
    assert (table.db, table.name) == ('a "database"', TABLE.name)
    assert [between.sql() for between in tree.find_all(exp.Between)] == [
        "\"ingestion_date\" BETWEEN CAST('2023-08-06' AS DATE) AND CAST('2023-08-07' AS DATE)",
        "\"ingestion_date\" BETWEEN CAST('2023-08-09' AS DATE) AND CAST('2023-08-09' AS DATE)",
    ]


@pytest.mark.parametrize(
    ("counts", "wrong"),
    [({SIXTH: 2}, 1), ({SIXTH: 1, SEVENTH: 1}, 1), ({}, 2), ({SIXTH: 1, SEVENTH: 2}, 2)],
)
def test_other_counts_than_were_published_are_an_error(
    full_lake: Lake, workgroup: Athena, counts: dict[date, int], wrong: int
) -> None:
    workgroup.answers(counts)
    found = checked(full_lake, SIXTH, SEVENTH)
    assert not found.passed
    assert found.is_error
    assert found.sentence == (
        f"Athena counts {sum(counts.values())} rows of 3; "
        f"other numbers than were published on {wrong} dates"
    )
    assert {day: of["counted"] for day, of in found.figures.items()} == {
        SIXTH: counts.get(SIXTH, 0),
        SEVENTH: counts.get(SEVENTH, 0),
    }


def test_a_date_without_rows_is_as_it_was_published(full_lake: Lake, workgroup: Athena) -> None:
    workgroup.answers({})
    assert checked(full_lake, date(2023, 8, 8)).passed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (athena.AthenaError("TABLE_NOT_FOUND: no such table"), "TABLE_NOT_FOUND: no such table"),
        (athena.AthenaTimeout(), "it took longer than 600 s"),
        (KeyError("OutputLocation"), "its answer has no 'OutputLocation'"),
    ],
)
def test_where_athena_cannot_count_the_check_warns_and_says_why(
    full_lake: Lake, workgroup: Athena, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("dagster_aws.athena.AthenaClient._poll", fail)
    found = checked(full_lake, SIXTH)
    assert (found.passed, found.is_error) == (False, False)
    assert found.sentence == (f"Athena, workgroup '{workgroup.workgroup}', could not count: {told}")


def test_where_there_is_no_server_the_check_warns(
    full_lake: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("STEDI_ATHENA_WORKGROUP", "any")
    found = checked(full_lake, SIXTH)
    assert (found.passed, found.is_error) == (False, False)
    assert "could not count: Could not connect to the endpoint URL" in found.sentence
