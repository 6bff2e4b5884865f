"""What a step makes of what its job tells. The jobs are processes that need no Spark."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import dagster as dg
import pytest

from stedi_assets.checks import checks_of, keys_of_checks
from stedi_assets.jobs import tables_after
from stedi_assets.lake import Lake
from stedi_assets.resources import engines
from stedi_assets.tables import TABLES, Source
from stedi_assets_tests.end_to_end.landing_files import counts_by_date, customer, land, run
from stedi_assets_tests.jobs import GLUE, PROGRAM, Ran, definitions, process, run_by
from stedi_assets_tests.storages import files_in, root_of

DAY = "2023-08-06"
KEY = "the key of the run"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)


@pytest.fixture
def landed(lake: Lake) -> Lake:
    """A lake with a customer, of whom the landing table knows."""
    land(lake, "customer", DAY, customer("ann@test.com", "s1"), customer("bob@test.com", "s2"))
    assert run(lake, DAY, tables=["customer_landing", "customer_rejects"]).success
    return lake


@pytest.fixture
def by_glue(landed: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The same, and from then on Glue makes customer_trusted."""
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,customer_trusted=glue")
    monkeypatch.setenv("STEDI_GLUE_JOB", "of-no-matter")
    return landed


def program(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(dedent(text))
    return path


# Definitions.


def graph(defs: dg.Definitions) -> dict[str, Any]:
    assets = defs.resolve_asset_graph()
    return {
        key.to_user_string(): {
            "deps": {up: node.partition_mappings.get(up) for up in node.parent_keys},
            "checks": {check: assets.get(check).blocking for check in node.check_keys},
            "kinds": node.kinds,
            "of asset": [node.partitions_def, node.backfill_policy, node.group_name, node.owners],
        }
        for key in assets.get_all_asset_keys()
        for node in [assets.get(key)]
    }


@pytest.mark.parametrize("engine", ["glue", "emr-serverless"])
def test_the_graph_is_the_same_whatever_makes_the_tables_but_for_what_it_says_of_that(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    before = graph(definitions(lake))
    monkeypatch.setenv("STEDI_ENGINE", f"{engine},customers_*=spark")
    for name in ("GLUE_JOB", "EMR_APPLICATION", "EMR_ROLE", "EMR_ENTRY_POINT"):
        monkeypatch.setenv(f"STEDI_{name}", "there")
    after = graph(definitions(lake))
    shown = {"glue": "glue", "emr-serverless": "emr", "spark": "spark"}
    for name, node in before.items():
        assert node.pop("kinds") == {"duckdb", "parquet"}
        assert after[name].pop("kinds") == {shown[engines()[name]], "parquet"}
    assert after == before


def test_what_a_job_checks_is_no_step_of_its_own_and_the_question_to_athena_is_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,customer_*=glue")
    monkeypatch.setenv("STEDI_GLUE_JOB", "there")

    def steps() -> set[str]:
        job = definitions(lake).resolve_job_def("bring_up_to_date")
        return {name for name in job.graph.node_dict if "customer" in name}

    made = {"read_customer_files", "customer_trusted", "customers_curated"}
    assert steps() == {*made, "check_customers_curated"}
    monkeypatch.setenv("STEDI_ATHENA_WORKGROUP", "there")
    of_athena = {"check_customer_landing", "check_customer_trusted"}
    assert steps() == {*made, "check_customers_curated", *of_athena}


@pytest.mark.parametrize("source", Source)
def test_what_runs_choose_after_new_files_can_be_chosen_where_jobs_make_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, source: Source
) -> None:
    monkeypatch.setenv("STEDI_ENGINE", "glue")
    monkeypatch.setenv("STEDI_GLUE_JOB", "there")
    tables = tables_after([source])
    job = definitions(lake).resolve_job_def("bring_up_to_date")
    chosen = job.get_subset(
        asset_selection={dg.AssetKey(name) for name in tables},
        asset_check_selection=keys_of_checks(tables),
    )
    assert {key.to_user_string() for key in chosen.asset_layer.selected_asset_keys} == {*tables}
    assert chosen.asset_layer.asset_graph.asset_check_keys >= keys_of_checks(tables)


# Jobs that would make something else.


def test_a_job_with_another_key_is_refused_before_it_does_anything(by_glue: Lake) -> None:
    before = files_in(root_of(by_glue))
    job = process(STEDI_PSEUDONYM_KEY="another key")
    ran = run_by(definitions(by_glue, **{GLUE: job}), DAY, ["customer_trusted"])
    told = ran.why_it_failed
    assert "OtherVersionError: The job and the run that started it differ in the key of" in told
    assert "the definition" not in told
    assert KEY not in told
    assert "another key" not in told
    assert files_in(root_of(by_glue)) == before


@pytest.mark.long
def test_a_job_with_another_definition_is_refused_before_it_does_anything(
    by_glue: Lake, tmp_path: Path
) -> None:
    before = files_in(root_of(by_glue))
    other = program(
        tmp_path,
        """
        from dataclasses import replace
        from stedi_assets.assets.definitions import DEFINITIONS
        from stedi_assets.job import main

        for of_policy in DEFINITIONS.values():
            now = of_policy["customer_trusted"]
            other = replace(now, rows=lambda **read: read["customer_landing"])
            of_policy["customer_trusted"] = other
        main()
        """,
    )
    ran = run_by(definitions(by_glue, **{GLUE: process(other)}), DAY, ["customer_trusted"])
    told = ran.why_it_failed
    assert "the run that started it differ in the definition of customer_trusted. Nothing" in told
    assert files_in(root_of(by_glue)) == before


def test_the_program_says_what_it_is_for_if_no_run_has_started_it(by_glue: Lake) -> None:
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Runs start this, for the tables that STEDI_ENGINE has made by jobs.\n"


# Jobs that do not tell what they should.

TELLS = """
    import sys
    from dagster_pipes import open_dagster_pipes

    FIGURES = {{"rows": 1, "types": {{}}, "nulls": {{}}, "first": None, "last": None}}
    with open_dagster_pipes() as pipes:
        {}
"""


def told(day: str) -> str:
    of_day = f'"statistics": {{"{day}": FIGURES}}, "sizes": {{"{day}": 1}}'
    of_all = '"sql": "", "seconds": 1, "rejects": {}, "consents": {}, "previews": {}'
    message = f'{{"table": "customer_trusted", "published": {{{of_day}, {of_all}}}}}'
    return f"pipes.report_custom_message({message})"


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("pass", "has not told that it published customer_trusted"),
        ("pipes.report_asset_materialization()", "has not told that it published customer_trusted"),
        (told("2023-08-05"), "has not told that it published customer_trusted"),
        (told(DAY), "1 partitions of customer_trusted that are not in"),
    ],
)
def test_a_step_whose_job_does_not_tell_what_it_published_fails(
    by_glue: Lake, tmp_path: Path, what: str, error: str
) -> None:
    job = process(program(tmp_path, TELLS.format(what)))
    ran = run_by(definitions(by_glue, **{GLUE: job}), DAY, ["customer_trusted"])
    assert error in ran.why_it_failed
    assert not ran.result.asset_materializations_for_node("customer_trusted")


@pytest.mark.long
def test_a_step_whose_job_does_not_tell_what_a_check_found_fails_and_names_it(
    landed: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(landed, DAY, tables=["customer_trusted"]).success
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,customer_trusted=glue")
    monkeypatch.setenv("STEDI_GLUE_JOB", "of-no-matter")
    missing, *others = sorted(checks_of(TABLES["customer_trusted"]))
    reports = [
        f"pipes.report_asset_check({name!r}, True, metadata={json.dumps({'finding': 'x'})})"
        for name in others
    ]
    job = process(program(tmp_path, TELLS.format("; ".join([told(DAY), *reports]))))
    ran = run_by(definitions(landed, **{GLUE: job}), DAY, ["customer_trusted"])
    assert f"has not told what its checks found: {missing}." in ran.why_it_failed


def test_a_step_whose_job_ends_with_an_error_fails_and_the_error_is_told(
    by_glue: Lake, tmp_path: Path
) -> None:
    job = process(program(tmp_path, TELLS.format('raise ValueError("the job is out of sorts")')))
    ran = run_by(definitions(by_glue, **{GLUE: job}), DAY, ["customer_trusted"])
    assert "ValueError: the job is out of sorts" in ran.why_it_failed
    assert "  ERROR: ValueError: the job is out of sorts\n  ERROR: step customer" in ran.told


def test_what_a_job_has_published_is_told_as_if_the_run_had(
    landed: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(landed, DAY, tables=["customer_trusted"])
    monkeypatch.setenv("STEDI_ENGINE", "duckdb,customer_trusted=glue")
    monkeypatch.setenv("STEDI_GLUE_JOB", "of-no-matter")
    # On DuckDB, and so without Spark: all else is as it is on Spark.
    without_spark = program(
        tmp_path,
        """
        from stedi_assets import job

        use_settings = job.use_settings
        job.use_settings = lambda settings: use_settings({**settings, "STEDI_ENGINE": "duckdb"})
        job.main()
        """,
    )
    job = process(without_spark)
    ran = run_by(definitions(landed, **{GLUE: job}), DAY, ["customer_trusted"])
    assert ran.result.success

    def figures(of: dg.ExecuteInProcessResult) -> dict[str, Any]:
        (made,) = of.asset_materializations_for_node("customer_trusted")
        assert made.partition == DAY
        of_jobs_alone = {name for name in made.metadata if name.startswith("job_")}
        times = {"seconds", "rows_a_second"}
        assert made.metadata.keys() >= times
        return {name: v for name, v in made.metadata.items() if name not in times | of_jobs_alone}

    assert figures(ran.result) == figures(first)
    assert ran.findings == Ran(first).findings
    assert ran.findings.keys() == keys_of_checks(["customer_trusted"])
    assert counts_by_date(landed, "customer_trusted") == {DAY: 2}
