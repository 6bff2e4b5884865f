"""Every command of README and docs runs, what they name is there, and links lead somewhere.

A page's commands run in order, as somebody types them in who reads it: in a copy of the project,
over a lake of sample files and of one person, `ann@example.com`. Each section is a new terminal.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import boto3
import botocore.session
import click
import pytest
from botocore import xform_name

from stedi_assets import resources
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.cli import main
from stedi_assets.privacy.policies import Policy
from stedi_assets.sample_data import MANIFEST, write_sample
from stedi_assets.tables import PARTITION, TABLES, Source, Zone, landing_table
from stedi_assets_tests.conftest import Bucket
from stedi_assets_tests.end_to_end.landing_files import customer, device, phone
from stedi_assets_tests.end_to_end.process import AWS
from stedi_assets_tests.pages import PAGES, ROOT, Block, Page

README, ARCHITECTURE, CONTRIBUTING = (
    next(page for page in PAGES if page.path.name == name)
    for name in ("README.md", "architecture.md", "contributing.md")
)

NO_AWS = "there is no AWS here; its operation and options are looked up, and test_stack.py "
PIP = "would change the packages that tests run with"
NOT_RUN = {
    ("For data scientists", "pip install -e '.[science]'"): PIP,
    ("On Spark", "pip install -e '.[spark]'"): PIP,
    ("On Spark", "STEDI_ENGINE=spark stedi run"): "needs Java: it runs with the tests on Spark",
    ("On Spark", "stedi run"): "needs Glue; test_jobs_on_aws.py runs what the job does",
    ("Install", ".venv/bin/dagster-daemon run"): "never ends; test_dagster_dev.py starts it",
    (
        "Install",
        ".venv/bin/dagster-webserver -h 127.0.0.1 -p 3000",
    ): "never ends; test_dagster_dev.py starts it",
    (
        "Install",
        "aws cloudformation deploy --stack-name stedi --template-file deploy/aws/stack.yaml "
        "--capabilities CAPABILITY_IAM",
    ): NO_AWS + "makes the stack as far as moto can",
    (
        "Install",
        'aws cloudformation describe-stacks --stack-name stedi --query "Stacks[0].Outputs" '
        "--output table",
    ): NO_AWS + "reads the outputs",
    (
        "Jobs on AWS",
        "aws s3 cp stedi.gluewheels.zip s3://<LogsBucket>/jobs/stedi.gluewheels.zip",
    ): "there is no archive, which docker makes",
    (
        "Trying bad input again",
        "STEDI_TEST_SIZE=1000000000 pytest stedi_assets_tests/landing/test_hostile.py -k large",
    ): "takes a quarter of an hour; it runs with smaller files",
    (
        "Trying bad input again",
        "STEDI_TEST_FILES=50000 pytest stedi_assets_tests/landing/test_hostile.py -k very_many",
    ): "takes minutes; it runs with fewer files",
}
"""Commands that do not run here, by section, and why not."""

NO_PROGRAM = {"docker": "there is no daemon of it; test_image.py reads what it would build"}
"""Programs of which no command runs here, and why not."""


def runs(block: Block, command: str) -> bool:
    return (block.section, command) not in NOT_RUN and command.split()[0] not in NO_PROGRAM


def commands(page: Page) -> list[tuple[Block, str]]:
    return [(block, c) for block in page.blocks if not block.language for c in block.commands]


ALL = [(page, block, command) for page in PAGES for block, command in commands(page)]


def without_settings(command: str) -> list[str]:
    """The words of a command, without what it sets before the program."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"\w+=", words[0]):
        words.pop(0)
    return words


# Running them.


@pytest.fixture
def project(tmp_path: Path, bucket: Bucket) -> Iterator[Path]:
    """A copy of the project, with an environment, a lake `my-lake` and an S3 that has `bucket`."""
    folder = tmp_path / "project"
    for name in ("stedi_assets", "stedi_assets_tests", "docs", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "setup.cfg", "pyproject.toml", "dagster_home/dagster.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "empty-lake").mkdir()
    lake = folder / "my-lake"
    write_sample(lake, customers=20, days=2, seed=1)
    (lake / MANIFEST).unlink()  # for there is one person more
    for source, record in (
        ("customer", customer("ann@example.com", "serial of ann")),
        ("accelerometer", phone("ann@example.com", 1_691_300_000_000)),
        ("step_trainer", device(1_691_300_000_000, "serial of ann")),
    ):
        file = lake / source / "landing" / f"{PARTITION}=2023-08-06" / "ann.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(record))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "aws").write_text(AWS.format(python=sys.executable))
    (programs / "aws").chmod(0o755)
    named = Bucket("bucket", boto3.client("s3"))
    named.client.create_bucket(Bucket=named.name)
    yield folder
    named.remove()
    named.client.close()


SUCCEEDED = "[ $? = 0 ]"
"""Also of a command whose first part fails, at which the shell would not stop."""


def typed_in(project: Path, *commands: str) -> str:
    """What a shell prints that stops at the first command which fails."""
    file = project.parent / "typed_in.sh"
    file.write_text("".join(f"{command}\n{SUCCEEDED}\n" for command in commands))
    programs = f"{project.parent / 'programs'}:{Path(sys.executable).parent}"
    done = subprocess.run(
        ["bash", "-e", "-v", file],
        cwd=project,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(project),
            "STEDI_LAKE": "my-lake",
            "DAGSTER_HOME": str(project / "dagster_home"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def followed(project: Path, page: Page) -> dict[str, str]:
    """What each section of a page prints when one does what it says, block by block.

    Code is applied to the project where the page says so; README's test_notebook.py runs.
    """
    told: dict[str, str] = {}
    sections = dict.fromkeys(block.section for block in page.blocks)
    for section in sections:
        script: list[str] = []
        for block in (found for found in page.blocks if found.section == section):
            if page is CONTRIBUTING and block.language in {"diff", "python"}:
                told[section] = told.get(section, "") + typed_in(project, *script)
                script = []
                block.applied_to(project)
            elif not block.language:
                script += [command for command in block.commands if runs(block, command)]
        told[section] = told.get(section, "") + typed_in(project, *script)
    return told


@pytest.mark.parametrize("command", ["false", "false && true", "stedi fly", "exit 3"])
def test_a_command_that_fails_is_found(command: str, project: Path) -> None:
    with pytest.raises(AssertionError):
        typed_in(project, "true", command, "echo what follows")


def test_a_command_goes_on_over_lines_and_to_the_end_of_what_it_reads() -> None:
    text = "# first\na --b \\\n    --c\nd <<'END'\ne \\\nf\nEND\n\ng  # last\n"
    found = Block("", text, 1, "", "").commands
    assert found == ["a --b \\\n    --c", "d <<'END'\ne \\\nf\nEND", "g  # last"]


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page) and page is not CONTRIBUTING], ids=str
)
def test_the_commands_of_a_page_run_in_its_order(page: Page, project: Path) -> None:
    assert any(runs(block, command) for block, command in commands(page))
    followed(project, page)


@pytest.mark.long
def test_who_follows_the_page_on_contributing_has_a_new_column_and_a_new_table(
    project: Path,
) -> None:
    typed_in(project, "stedi run")  # over which what is new comes
    charged = project / "my-lake" / "accelerometer" / "landing" / f"{PARTITION}=2023-08-06"
    reading = phone("ann@example.com", 1_691_300_000_001) | {"battery": 0.25}
    (charged / "charged.json").write_text(json.dumps(reading))
    told = followed(project, CONTRIBUTING)

    made = told["Adding a column"]
    assert re.search(r"^ +accelerometer_landing +[\d,]+ rows$", made, re.MULTILINE)
    assert "Every partition holds what it should.\n" in made
    assert look(project, "SELECT count(*) FROM accelerometer_trusted WHERE battery = 0.25") == [[1]]

    made = told["Adding a table"]
    assert "Every partition holds what it should.\n" in made
    assert "CREATE EXTERNAL TABLE IF NOT EXISTS `stedi`.`device_days_curated`" in made
    counted = "SELECT count(DISTINCT (device_id, ingestion_date)) FROM machine_learning_curated"
    ((expected,),) = look(project, counted)
    assert expected > 2
    assert look(project, "SELECT count(*), sum(pairs) FROM device_days_curated") == [
        [expected, *look(project, "SELECT count(*) FROM machine_learning_curated")[0]]
    ]
    assert re.search(rf"^device_days_curated +curated +{expected}$", made, re.MULTILINE)
    dictionary = (project / "docs" / "data-dictionary.md").read_text()
    assert "\n## device_days_curated\n" in dictionary
    assert "| `battery` | float64 | How full" in dictionary
    graph = json.loads((project / "stedi_assets_tests" / "graph.json").read_text())
    asset = graph["device_days_curated"]
    assert asset["deps"] == {"machine_learning_curated": "UP_TO_THIS_DATE"}
    printed = typed_in(project, f"python -c {shlex.quote(CHECKS)}")
    looked_at = json.loads(printed.splitlines()[-2])
    assert {"consent", "no_identifiers", "row_count", "schema"} < looked_at.keys()
    assert {*looked_at, "up_to_date"} == asset["checks"].keys()
    assert all(looked_at.values()), looked_at
    damaged = next((project / "my-lake" / "step_trainer" / "days").glob("*/part-0.parquet"))
    damaged.unlink()
    assert "device_days_curated" in typed_in(project, "stedi reconcile --dry-run")
    typed_in(project, "stedi reconcile")
    assert damaged.exists()


CHECKS = """
import json
from stedi_assets.checks import checks_of
from stedi_assets.lake import open_lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import open_engine
from stedi_assets.stored import Stored
from stedi_assets.tables import TABLES

table, lake = TABLES["device_days_curated"], open_lake("my-lake")
with open_engine(lake) as engine:
    stored = Stored(lake, engine, Policy.REFERENCE, table, list(lake.partitions(table)))
    print(json.dumps({name: check(stored).passed for name, check in checks_of(table).items()}))
"""


def look(project: Path, query: str) -> list[list[int]]:
    """The rows of a query over the lake's views, by a DuckDB of its own."""
    program = (
        "import duckdb, json, sys; "
        "found = duckdb.connect('my-lake/stedi.duckdb', read_only=True).execute(sys.argv[1]); "
        "print(json.dumps(found.fetchall(), default=int))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, query], cwd=project, capture_output=True, check=True
    )
    rows: list[list[int]] = json.loads(done.stdout)
    return rows


@pytest.mark.spark
def test_the_commands_on_spark_run(project: Path, quick_spark: dict[str, str]) -> None:
    (command,) = (c for (section, c) in NOT_RUN if section == "On Spark" and "=spark " in c)
    settings = [f"export {name}={shlex.quote(of)}" for name, of in quick_spark.items()]
    assert "machine_learning_curated  curated" in typed_in(project, *settings, command)


@pytest.mark.long
def test_the_readme_shows_what_the_first_command_prints(project: Path) -> None:
    """`make run` writes a sample into an empty lake, makes the tables and reports."""
    recipe = subprocess.run(
        ["make", "-n", "--no-print-directory", "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "stedi sample" in recipe
    assert [line.rpartition("/")[2] for line in recipe.splitlines()[-2:]] == [
        "stedi run",
        "stedi report",
    ]
    told = typed_in(project, "export STEDI_LAKE=lake", "stedi sample", "stedi run", "stedi report")
    (shown,) = (b.text for b in README.blocks if b.language == "text" and "expected" in b.text)
    assert f"\n\n{shown}{SUCCEEDED}\n" in told
    assert (project / "lake" / "reports" / "latest.html").is_file()


LOOKED_AT = {
    "": "commands, which run in their order",
    "diff": "the page on contributing, which is followed",
    "mermaid": "pictures, held against registry and definitions",
    "python": "README's, which test_notebook.py runs, and that of the page on contributing",
    "text": "what is shown",
}
"""The languages of blocks, and what is done with them."""

PROGRAMS = r"(stedi|make|python|pip|pytest|dagster|aws|docker|source|export|git|\.venv/bin/\w+) "


def not_looked_at(page: Page) -> list[str]:
    """The lines of a page in which a command would stand that no test sees."""
    shown = [
        line
        for block in page.blocks
        if block.language == "text"
        for line in block.text.splitlines()
        if re.match(rf"[$ ]*(\w+=\S* )*{PROGRAMS}", line)
    ]
    languages = [b.language for b in page.blocks if b.language not in LOOKED_AT]
    fences = re.findall(r"^ *(?:```|~~~).*$", page.prose, re.MULTILINE)
    indented = re.findall(rf"^(?: {{4,}}|\t)[$ ]*{PROGRAMS}.*$", page.prose, re.MULTILINE)
    return [*shown, *languages, *fences, *map(str, indented)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_command_of_a_page_stands_where_no_test_sees_it(page: Page) -> None:
    assert not_looked_at(page) == []


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nstedi fly\n```",
        "``` sh\nstedi fly\n```",
        "~~~\nstedi fly\n~~~",
        "```text\n$ stedi fly\n```",
        "Do this:\n\n    stedi fly away\n",
    ],
)
def test_a_command_that_stands_where_no_test_sees_it_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"# Page\n\n{text}\n")
    assert not_looked_at(Page(tmp_path / "page.md"))


# What does not run here.


def test_what_does_not_run_stands_on_a_page_and_nothing_else_is_on_the_list() -> None:
    found = {(block.section, command) for _, block, command in ALL}
    assert NOT_RUN.keys() <= found
    assert NO_PROGRAM.keys() <= {command.split()[0] for _, command in found}
    assert all(NOT_RUN.values())


@pytest.mark.parametrize("command", [c for _, _, c in ALL if re.match(r"\.venv/bin/dagster", c)])
def test_a_server_that_is_not_started_takes_the_options_that_it_is_given(command: str) -> None:
    program, *options = shlex.split(command)
    here = Path(sys.executable).parent / Path(program).name
    subprocess.run([here, *options, "--help"], check=True, capture_output=True, timeout=60)


AWS_COMMANDS = [
    command
    for page in PAGES
    for command in [*(c for _, c in commands(page)), *page.spans]
    if command.startswith("aws ")
]


@pytest.mark.parametrize("command", AWS_COMMANDS)
def test_an_operation_of_aws_is_one_that_there_is_with_such_options(command: str) -> None:
    service, operation, *words = shlex.split(command)[1:]
    for name in (word for word in words if (ROOT / "deploy").name == Path(word).parts[0]):
        assert (ROOT / name).is_file()
    if service == "s3":  # files up and down, which the services' own models do not have
        assert operation == "cp"
        assert {word for word in words if word.startswith("--")} <= {
            *("--recursive", "--exclude", "--include")
        }
        return
    model = botocore.session.get_session().get_service_model(service)
    if (service, operation) == ("cloudformation", "deploy"):  # makes a change set, and executes it
        operation, words = "create-change-set", [w for w in words if w != "--template-file"]
    names = {xform_name(name, "-"): name for name in model.operation_names}
    members = model.operation_model(names[operation]).input_shape.members
    options = {xform_name(name, "-") for name in members} | {"query", "output"}
    assert {word.removeprefix("--") for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize(
    "command",
    [
        command
        for page in PAGES
        for command in [*(c for _, c in commands(page)), *page.spans]
        if command.startswith("docker ") and "deploy/" in command
    ],
)
def test_files_that_docker_is_given_are_there(command: str) -> None:
    for name in re.findall(r"deploy/aws/[\w.]+", command):
        assert (ROOT / name).is_file()


@pytest.mark.parametrize(
    "command", [c for _, _, c in ALL if c.startswith("docker exec ") and " stedi " in c]
)
def test_a_command_of_stedi_in_a_container_is_one_that_there_is(command: str) -> None:
    is_understood(command.partition(" code ")[2])


# Commands in the text.


def is_understood(command: str) -> None:
    """Hold a command of `stedi` against what the command line takes; runs nothing."""
    _, *words = without_settings(command)
    of_all = [option for parameter in main.params for option in parameter.opts]
    while words and words[0] in [*of_all, "--help", "-h"]:
        words.pop(0)
    if not words:
        return
    name, *arguments = words
    assert name in main.commands
    if name == "forget" and not arguments:
        arguments = ["EMAIL"]
    if "--help" not in arguments:
        main.commands[name].make_context(name, arguments, parent=click.Context(main))


IN_TEXT = sorted({(str(page), span) for page in PAGES for span in page.spans if " " in span})


def spans_of(program: str) -> list[tuple[str, str]]:
    return [
        (page, span)
        for page, span in IN_TEXT
        if re.match(rf"(\w+=\S* )*(\.venv/bin/)?{program} ", span)
    ]


@pytest.mark.parametrize(("page", "command"), spans_of("stedi"))
def test_a_command_of_stedi_in_the_text_is_one_that_there_is(page: str, command: str) -> None:
    is_understood(command)


@pytest.mark.parametrize(("page", "command"), spans_of("make"))
def test_a_target_of_make_in_the_text_is_one_that_there_is(page: str, command: str) -> None:
    target = ["make", "-n", *command.split()[1:]]
    subprocess.run(target, cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(("page", "command"), spans_of("python"))
def test_a_module_that_python_is_to_run_in_the_text_is_there(page: str, command: str) -> None:
    words = without_settings(command)
    assert words[1] == "-m"
    assert find_spec(words[2])


@pytest.mark.parametrize(("page", "command"), spans_of(r"dagster\S*"))
def test_a_command_of_dagster_in_the_text_is_one_that_there_is(page: str, command: str) -> None:
    program, *arguments = command.split()
    here = Path(sys.executable).parent / Path(program).name
    subprocess.run([here, *arguments, "--help"], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_settings_that_a_page_names_are_read_somewhere(page: Page) -> None:
    code = "".join(
        (ROOT / name).read_text()
        for name in ("stedi_assets/resources.py", "Makefile", "deploy/aws/workspace.yaml")
    )
    code += "".join(path.read_text() for path in (ROOT / "stedi_assets_tests").rglob("*.py"))
    for name in set(re.findall(r"\bSTEDI_[A-Z_]+\b", page.text)):
        assert name in code


def test_engines_that_pages_set_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {value for page in PAGES for value in re.findall(r"STEDI_ENGINE=([^\s`]+)", page.text)}
    assert len(found) > 2
    for value in found:
        monkeypatch.setenv("STEDI_ENGINE", value)
        assert resources.engines().keys() == TABLES.keys()


# Links.


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_images_of_a_page_lead_to_what_is_there(page: Page) -> None:
    anchors = {ROOT / other.path: other.anchors for other in PAGES}
    for link in page.links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page.path.parent / path).resolve() if path else ROOT / page.path
        assert target.exists(), link
        assert not anchor or anchor in anchors[target], link


def test_the_readme_leads_to_every_page_and_pages_show_every_image() -> None:
    from_readme = {(ROOT / link.partition("#")[0]).resolve() for link in README.links}
    assert {ROOT / page.path for page in PAGES} - {ROOT / README.path} <= from_readme
    shown = {(ROOT / p.path.parent / link).resolve() for p in PAGES for link in p.links}
    assert set((ROOT / "docs" / "images").glob("*")) <= shown


# Pictures.


def diagrams(page: Page, kind: str) -> list[str]:
    found = [block.text for block in page.blocks if block.language == "mermaid"]
    return [text for text in found if text.startswith(kind)]


def test_the_readmes_picture_has_the_tables_in_their_zones_and_what_each_is_made_from() -> None:
    (text,) = diagrams(README, "flowchart")
    zones = dict(re.findall(r"subgraph (\w+)\n(.*?)\n    end", text, re.DOTALL))
    assert {zone: set(names.split()) for zone, names in zones.items()} == {
        zone: {table.name for table in TABLES.values() if table.zone is zone} for zone in Zone
    }
    assert set(re.findall(r"(\w+) --> (\w+)", text)) == {
        (read, definition.table.name)
        for definition in DEFINITIONS[Policy.REFERENCE].values()
        for read in definition.needs
    }


def test_the_picture_of_the_sources_has_columns_of_the_registry_and_joins_on_them() -> None:
    (text,) = diagrams(ARCHITECTURE, "erDiagram")
    entities = dict(re.findall(r"(\w+) \{\n(.*?)\n    \}", text, re.DOTALL))
    assert entities.keys() == {landing_table(source).name for source in Source}
    columns = {
        name: {column: kind for kind, column in re.findall(r"^ +(\w+) (\w+) \"", of, re.M)}
        for name, of in entities.items()
    }
    for name, shown in columns.items():
        assert len(shown) > 2
        assert shown.items() <= TABLES[name].schema.items()
    joins = re.findall(r"(\w+) \}o--o\{ (\w+) : \"(\w+)(?: = (\w+))?\"", text)
    assert len(joins) == 3
    for left, right, column, other in joins:
        assert column in columns[left]
        assert (other or column) in columns[right]


def test_a_picture_connects_only_what_it_has_named() -> None:
    (text,) = diagrams(ARCHITECTURE, "flowchart")
    named = re.findall(r"^ +(\w+)[\[{]", text, re.MULTILINE)
    edges = re.findall(r"^ +(\w+) --(?:[^>\n]+--)?> (\w+)$", text, re.MULTILINE)
    lines = [line for line in text.splitlines()[1:] if line.strip()]
    assert len(named) + len(edges) == len(lines)
    assert len(set(named)) == len(named)
    assert {end for edge in edges for end in edge} == set(named)


def test_what_each_module_is_for_is_told_of_every_module_that_there_is() -> None:
    section = ARCHITECTURE.text.partition("## What each module is for")[2]
    first_cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    told = [name for cell in first_cells for name in re.findall(r"`([\w/.]+)`", cell)]
    package = ROOT / "stedi_assets"
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert sorted(told) == sorted(modules | folders)
