"""What `stedi ddl` prints, read back by a parser of Athena's dialect and held to the registry."""

from pathlib import Path
from typing import Any

import pytest
import sqlglot
from click.testing import CliRunner, Result
from sqlglot import exp

from stedi_assets.catalog.hive import comment
from stedi_assets.cli import main
from stedi_assets.tables import TABLES, Source, landing_table

ROOT = "s3://bucket/it's a prefix"

# As the parser names Hive's types.
PARSED = {
    "string": "TEXT",
    "int64": "BIGINT",
    "int32": "INT",
    "float64": "DOUBLE",
    "boolean": "BOOLEAN",
}

Column = tuple[str, str, str]


@pytest.fixture(autouse=True)
def _a_lake_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no server, and there are no credentials."""
    monkeypatch.setenv("STEDI_LAKE", f"{ROOT}/")
    monkeypatch.setenv("STEDI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no credentials"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["ddl", *arguments])


def parsed(*arguments: str) -> list[exp.Create]:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    found = [tree for tree in sqlglot.parse(result.stdout, dialect="athena") if tree]
    assert all(isinstance(tree, exp.Create) and tree.args["exists"] for tree in found)
    return found


def tables(*arguments: str) -> dict[str, exp.Create]:
    """The statements that make tables, by the tables' names."""
    found = [tree for tree in parsed(*arguments) if tree.kind == "TABLE"]
    by_name = {tree.this.this.name: tree for tree in found}
    assert len(by_name) == len(found)
    return by_name


def columns(tree: exp.Expression) -> list[Column]:
    return [
        (
            column.name,
            column.args["kind"].this.name,
            column.find(exp.CommentColumnConstraint).this.this,
        )
        for column in tree.expressions
    ]


def one(tree: exp.Create, kind: type[exp.Expression]) -> Any:
    """The only property of a kind."""
    (found,) = [value for value in tree.args["properties"].expressions if type(value) is kind]
    return found


def table_properties(tree: exp.Create) -> dict[str, str]:
    return {
        value.this.this: value.args["value"].this
        for value in tree.args["properties"].expressions
        if type(value) is exp.Property
    }


def test_every_table_of_the_registry_and_the_raw_files_of_every_source_have_a_table() -> None:
    assert [*tables()] == [*TABLES, *(f"{source}_landing_json" for source in Source)]


@pytest.mark.parametrize("name", TABLES)
def test_a_parquet_table_has_the_columns_types_and_comments_of_the_registry(name: str) -> None:
    table, tree = TABLES[name], tables()[name]
    assert columns(tree.this) == [
        (column.name, PARSED[column.type], comment(column)) for column in table.columns
    ]
    assert columns(one(tree, exp.PartitionedByProperty).this) == [
        ("ingestion_date", "DATE", "The ingestion date, UTC.")
    ]
    assert one(tree, exp.SchemaCommentProperty).this.this == table.description
    assert one(tree, exp.FileFormatProperty).this.name == "PARQUET"
    assert one(tree, exp.ExternalProperty)
    assert one(tree, exp.LocationProperty).this.this == f"{ROOT}/{table.path}/"


@pytest.mark.parametrize("name", TABLES)
def test_athena_works_out_the_partitions_of_a_table_from_the_start_date_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_START_DATE", "2023-08-06")
    assert table_properties(tables()[name]) == {
        "classification": "parquet",
        "projection.enabled": "true",
        "projection.ingestion_date.type": "date",
        "projection.ingestion_date.format": "yyyy-MM-dd",
        "projection.ingestion_date.range": "2023-08-06,NOW",
        "projection.ingestion_date.interval": "1",
        "projection.ingestion_date.interval.unit": "DAYS",
        "storage.location.template": (
            f"{ROOT}/{TABLES[name].path}/ingestion_date=${{ingestion_date}}/"
        ),
    }


@pytest.mark.parametrize("source", Source)
def test_a_table_of_raw_files_has_the_columns_as_their_producer_spells_them(source: Source) -> None:
    tree = tables()[f"{source}_landing_json"]
    assert columns(tree.this) == [
        (column.key, PARSED[column.type], comment(column))
        for column in landing_table(source).columns
    ]
    row_format = one(tree, exp.RowFormatSerdeProperty)
    assert row_format.this.this == "org.openx.data.jsonserde.JsonSerDe"
    assert one(tree, exp.LocationProperty).this.this == f"{ROOT}/{source}/landing/"
    assert table_properties(tree) == {"classification": "json"}
    assert not tree.find(exp.PartitionedByProperty)


def test_the_raw_customer_files_have_the_columns_of_the_courses_documents() -> None:
    names = [name for name, _, _ in columns(tables()["customer_landing_json"].this)]
    assert sorted(names) == sorted(
        [
            "serialNumber",
            "shareWithPublicAsOfDate",
            "birthDay",
            "registrationDate",
            "shareWithResearchAsOfDate",
            "customerName",
            "email",
            "lastUpdateDate",
            "phone",
            "shareWithFriendsAsOfDate",
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "setting", "database"),
    [
        ([], None, "stedi"),
        ([], "of_glue", "of_glue"),
        (["--database", "named"], "of_glue", "named"),
        (["--database", "odd`; DROP TABLE x; --"], None, "odd`; DROP TABLE x; --"),
    ],
)
def test_the_database_is_the_one_that_is_named_else_that_of_glue(
    arguments: list[str], setting: str | None, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        monkeypatch.setenv("STEDI_GLUE_DATABASE", setting)
    first, *others = parsed(*arguments)
    assert (first.kind, first.this.name) == ("DATABASE", database)
    assert {tree.this.this.db for tree in others} == {database}


def test_a_local_lake_is_an_error_with_what_to_do_for_athena_reads_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_LAKE", str(tmp_path))
    result = invoke()
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"Athena reads no local folder, and the lake is {tmp_path}" in result.stderr
    assert "Set STEDI_LAKE to s3://bucket/prefix" in result.stderr


@pytest.mark.parametrize(
    ("setting", "value"), [("STEDI_LAKE", "s3://"), ("STEDI_START_DATE", "1st of May")]
)
def test_a_setting_that_makes_no_sense_is_an_error_of_one_line(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, value)
    result = invoke()
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {setting} is {value!r}: set it to")
    assert result.stderr.count("\n") == 1


def test_comments_are_no_longer_than_glue_takes_them() -> None:
    for table in TABLES.values():
        assert len(table.description) <= 2048
        for column in table.columns:
            assert len(comment(column)) <= 255, f"{table.name}.{column.name}"
