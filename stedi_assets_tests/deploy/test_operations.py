"""docs/operations.md says what to do in every case, and only what there is."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import click
import yaml
from dagster._cli.dev import dev_command
from dagster_webserver.cli import dagster_webserver

import stedi_assets
from stedi_assets import resources
from stedi_assets.checks import checks_of, up_to_date
from stedi_assets.tables import TABLES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()


def section(heading: str) -> str:
    return TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_every_check_is_among_the_alarms() -> None:
    checks = {name for table in TABLES.values() for name in checks_of(table)}
    for name in {*checks, up_to_date.__name__}:
        assert f"`{name}`" in section("When an alarm rings")


def test_every_error_that_the_package_defines_is_among_the_alarms() -> None:
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(stedi_assets.__path__, "stedi_assets.")
    ]
    errors = {
        name
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__.startswith("stedi_assets")
    }
    assert len(errors) > 5
    for name in {name for name in errors if not name.startswith("_")}:  # others are caught inside
        assert f"`{name}`" in section("When an alarm rings")


def test_every_setting_is_in_the_table() -> None:
    code = Path(resources.__file__).read_text()
    image = (ROOT / "deploy" / "aws" / "Dockerfile").read_text()
    settings = set(re.findall(r"environ[^\n]*\"((?:STEDI|DAGSTER)_\w+)\"", code))
    settings |= set(re.findall(r"((?:STEDI|DAGSTER|PG)\w+)=", image))
    instance = yaml.safe_load((ROOT / "deploy" / "aws" / "dagster.yaml").read_text())
    settings |= set(re.findall(r"'env': '(\w+)'", str(instance)))
    assert len(settings) > 10
    told = re.sub(r"`(DAGSTER_POSTGRES)_HOST`(.*)", _with_prefixes, section("Settings"))
    for name in settings:
        assert f"`{name}`" in told


def _with_prefixes(found: re.Match[str]) -> str:
    return f"`{found[1]}_HOST`" + found[2].replace("`_", f"`{found[1]}_")


def test_every_output_and_parameter_that_is_named_is_the_stacks() -> None:
    stack = (ROOT / "deploy" / "aws" / "stack.yaml").read_text()
    for name in re.findall(r"outputs? `(\w+)`|`(Keep\w+|ScanLimit\w+)`", TEXT):
        assert f"\n  {name[0] or name[1]}:\n" in stack


def test_the_ui_listens_on_loopback_unless_it_is_told_otherwise() -> None:
    option_of_nobody = click.Option(["--host"])
    (host,) = (of for of in dagster_webserver.params if of.name == "host")
    assert host.default == "127.0.0.1"
    dev = re.findall(r"(?m)^\t.*dagster dev.*$", (ROOT / "Makefile").read_text())
    assert dev == ["\t$(BIN)/dagster dev"]
    (option,) = (of for of in dev_command.params if of.name == "host")
    assert option.default == option_of_nobody.default, "so it is the webserver's own"
    starts = re.findall(r"dagster-webserver -h \S+|docker run .*dagster-webserver.*", TEXT)
    assert len(starts) == 2
    for start in starts:
        assert "-h 127.0.0.1" in start or "-p 127.0.0.1:3000:3000" in start
    assert len(re.findall(r"docker run .* -p ", TEXT)) == 1, "nothing else is published"
    for settings in ("dagster_home/dagster.yaml", "deploy/aws/dagster.yaml"):
        assert "host" not in re.sub("hostname:", "", (ROOT / settings).read_text())
    assert "ENV DAGSTER_GRPC_HOST" not in (ROOT / "deploy" / "aws" / "Dockerfile").read_text()
