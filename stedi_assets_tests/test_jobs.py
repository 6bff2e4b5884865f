"""What jobs are asked for: which tables hang on a source, what a reconciliation puts right.

What the other jobs do: `test_reconcile.py`, `end_to_end/test_forget.py`.
"""

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stedi_assets.assets.landing import LANDING
from stedi_assets.definitions import defs
from stedi_assets.jobs import FORGET, RECONCILE, SAMPLE_FILES, What, tables_after
from stedi_assets.lake import Lake
from stedi_assets.reconcile import Stale
from stedi_assets.sample_data import write_sample
from stedi_assets.tables import TABLES, Source
from stedi_assets_tests.end_to_end.landing_files import (
    QUIET,
    customer,
    device,
    land,
    phone,
    resources_of,
)
from stedi_assets_tests.storages import AnyPath, root_of

CUSTOMER, ACCELEROMETER, STEP_TRAINER = Source
AFTER_READINGS = ["machine_learning_curated", "step_trainer_trusted"]
RESTATED = ["customer_trusted", "customers_curated"]


@pytest.mark.parametrize(
    ("sources", "tables"),
    [
        ([], []),
        (
            [CUSTOMER],
            [
                "customer_landing",
                "customer_rejects",
                "customer_trusted",
                "accelerometer_trusted",
                "customers_curated",
                *AFTER_READINGS,
            ],
        ),
        (
            [ACCELEROMETER],
            [
                "accelerometer_landing",
                "accelerometer_rejects",
                "accelerometer_trusted",
                *RESTATED,
                *AFTER_READINGS,
            ],
        ),
        (
            [STEP_TRAINER],
            ["step_trainer_landing", "step_trainer_rejects", *RESTATED, *AFTER_READINGS],
        ),
        (
            [STEP_TRAINER, ACCELEROMETER],
            [name for name in TABLES if name not in {"customer_landing", "customer_rejects"}],
        ),
        (list(Source), list(TABLES)),
    ],
    ids=["none", "customers", "phones", "devices", "phones and devices", "all"],
)
def test_for_files_of_a_source_its_own_tables_are_made_those_after_them_and_customers_anew(
    sources: list[Source], tables: list[str]
) -> None:
    found = tables_after(sources)
    assert sorted(found) == sorted(tables)
    assert tables_after(reversed(sources)) == found


def stale(table: str, day: int) -> Stale:
    return Stale(TABLES[table], date(2023, 8, day), "missing", 1, 0, 0)


def test_without_limits_everything_is_put_right() -> None:
    what = What()
    assert what.everything
    assert all(what.has(stale(name, day)) for name in TABLES for day in (1, 31))


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ("2023-08-02", None, [2, 3, 4]),
        (None, "2023-08-02", [1, 2]),
        ("2023-08-02", "2023-08-03", [2, 3]),
        ("2023-08-03", "2023-08-03", [3]),
    ],
)
def test_dates_limit_it_both_ends_included(
    first: str | None, last: str | None, days: list[int]
) -> None:
    what = What(first=first, last=last)
    assert [day for day in (1, 2, 3, 4) if what.has(stale("customer_trusted", day))] == days


def test_tables_limit_it_and_none_at_all_are_none() -> None:
    what = What(tables=["customer_trusted", "customer_rejects"])
    assert [name for name in TABLES if what.has(stale(name, 1))] == [
        "customer_trusted",
        "customer_rejects",
    ]
    assert not any(What(tables=[]).has(stale(name, 1)) for name in TABLES)


def test_dates_and_tables_limit_it_together() -> None:
    what = What(first="2023-08-02", tables=["customer_trusted"])
    found = [
        (name, day)
        for name in ("customer_trusted", "customers_curated")
        for day in (1, 2)
        if what.has(stale(name, day))
    ]
    assert found == [("customer_trusted", 2)]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"first": "the first"}, "Invalid isoformat string: 'the first': a date is YYYY-MM-DD."),
        ({"last": "2023-02-30"}, "a date is YYYY-MM-DD."),
        ({"first": "2023-08-07", "last": "2023-08-06"}, "`first` is later than `last`."),
        ({"tables": ["customer_trusted", "no_such"]}, "There is no table no_such. There are cust"),
    ],
)
def test_a_reconciliation_of_nonsense_fails_and_says_why(
    lake: Lake, what: dict[str, Any], says: str
) -> None:
    """Also over a lake in which there is nothing to put right."""
    root_of(lake).mkdir()
    here = dg.Definitions(jobs=[RECONCILE], resources=resources_of(root_of(lake)))
    result = here.resolve_job_def(RECONCILE.name).execute_in_process(
        run_config={**QUIET, "ops": {"make_again": {"config": what}}}, raise_on_error=False
    )
    assert says in why_it_failed(result)


def test_a_run_of_no_date_fails_and_says_what_to_choose(lake: Lake) -> None:
    """The Launchpad's button can be pressed before a partition is chosen."""
    root_of(lake).mkdir()
    with pytest.raises(dg.Failure, match="of no date: choose a partition, which is an") as failed:
        dg.materialize(LANDING[:1], resources=resources_of(root_of(lake)), run_config=QUIET)
    assert not failed.value.allow_retries, "it would be of no date again"


def test_an_erasure_that_cannot_be_begun_fails_with_why_and_not_with_where(lake: Lake) -> None:
    root_of(lake).mkdir()
    here = dg.Definitions(jobs=[FORGET], resources=resources_of(root_of(lake)))
    result = here.resolve_job_def(FORGET.name).execute_in_process(
        run_config={
            **QUIET,
            "ops": {"forget_person": {"config": {"email": " ", "asked_by": "ticket 4711"}}},
        },
        raise_on_error=False,
    )
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.error
    assert error is not None
    assert error.message.endswith("Failure: There is no email. Say whom to erase.\n")


@pytest.mark.filterwarnings(
    # Dagster says so of itself, whenever it gives the job of a sensor its resources.
    "ignore:Parameter .owners. of initializer .SensorDefinition:dagster.BetaWarning"
)
def test_every_job_says_what_it_does() -> None:
    jobs = {job.name: job.description for job in defs.resolve_all_job_defs()}
    for name in ("bring_up_to_date", "reconcile", "forget", "prune", "sample_files"):
        assert len(jobs[name] or "") > 40


def write_sample_files(lake: Lake, **config: int) -> dg.ExecuteInProcessResult:
    here = dg.Definitions(jobs=[SAMPLE_FILES], resources=resources_of(root_of(lake)))
    return here.resolve_job_def(SAMPLE_FILES.name).execute_in_process(
        run_config={**QUIET, "ops": {"write_sample_files": {"config": config}}},
        raise_on_error=False,
    )


def contents(root: AnyPath) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith((".", "_"))
    }


def why_it_failed(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = result.get_step_failure_events()
    return str(failure.step_failure_data.error_display_string)


@pytest.mark.s3
def test_the_job_writes_the_same_sample_as_everybody_and_not_twice(
    lake: Lake, tmp_path: Path
) -> None:
    what = {"customers": 3, "days": 2, "seed": 5}
    write_sample(tmp_path / "beside", **what)
    assert write_sample_files(lake, **what).success
    before = contents(root_of(lake))
    assert before == contents(tmp_path / "beside")
    again = write_sample_files(lake)
    assert not again.success
    assert "and a sample does not mix with others: choose an empty lake" in why_it_failed(again)
    assert contents(root_of(lake)) == before


@pytest.mark.s3
@pytest.mark.parametrize(
    ("source", "record"),
    [
        ("customer", customer("ann@test.com", "s")),
        ("accelerometer", phone("ann@test.com", 1)),
        ("step_trainer", device(1, "s")),
    ],
)
def test_the_job_writes_nothing_beside_anybodys_landing_file(
    lake: Lake, source: str, record: dict[str, Any]
) -> None:
    land(lake, source, "2023-08-06", record)
    before = contents(root_of(lake))
    assert not write_sample_files(lake).success
    assert contents(root_of(lake)) == before


@pytest.mark.parametrize("name", ["customers", "days"])
def test_the_job_says_that_a_sample_of_nothing_is_none(lake: Lake, name: str) -> None:
    result = write_sample_files(lake, **{name: 0})
    assert f"{name} must be at least 1, not 0" in why_it_failed(result)
    assert contents(root_of(lake)) == {}
