"""The image: what its Dockerfile says, read line by line, for no test here builds it."""

import fnmatch
import re
import shlex
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "aws"


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str
    stage: int


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    found: list[Instruction] = []
    stage = -1
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        name, rest = line.split(maxsplit=1)
        stage += name == "FROM"
        found.append(Instruction(name, " ".join(rest.split()), stage))
    return found


def of_last_stage(instructions: list[Instruction], name: str) -> list[str]:
    last = instructions[-1].stage
    return [i.text for i in instructions if i.stage == last and i.name == name]


def requirements(path: Path) -> dict[str, list[str]]:
    """The hashes of each requirement of a lock file."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if line.startswith("    --hash="):
            found[name].append(line.strip(" \\"))
        else:
            name = line.rstrip(" \\")
            found[name] = []
    return found


def test_every_stage_starts_from_one_and_the_same_image(instructions: list[Instruction]) -> None:
    images = [i.text.split()[0] for i in instructions if i.name == "FROM"]
    assert len(images) == 2
    (image,) = set(images)
    assert re.fullmatch(r"python:3\.13\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", image)


def test_it_does_not_run_as_root(instructions: list[Instruction]) -> None:
    (user,) = of_last_stage(instructions, "USER")
    assert int(user) >= 1000, "a number, by which a cluster sees that it is not root"
    names = [i.name for i in instructions]
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])


def test_packages_are_installed_by_their_hashes_and_nothing_is_compiled(
    instructions: list[Instruction],
) -> None:
    installs = [
        words
        for i in instructions
        if i.name == "RUN"
        for command in i.text.split("&&")
        for words in [shlex.split(command)]
        if "install" in words and words[0] == "pip"
    ]
    assert len(installs) == 2
    for words in installs:
        from_lock = {"--require-hashes", ":all:", "requirements.lock"} <= set(words)
        from_nowhere = {"--no-index", "--no-deps", "--no-build-isolation"} <= set(words)
        assert from_lock or from_nowhere


def test_no_tool_that_builds_is_left(instructions: list[Instruction]) -> None:
    everything = " ".join(i.text for i in instructions)
    assert not re.search(r"apt-get|\bgcc\b|\bcurl\b|\bwget\b|\buv\b|build-essential", everything)
    assert any("pip uninstall" in run for run in of_last_stage(instructions, "RUN"))
    assert "uninstall --yes setuptools" in everything


def test_no_secret_is_in_the_image(instructions: list[Instruction]) -> None:
    for setting in (i.text for i in instructions if i.name in ("ENV", "ARG")):
        assert not re.search("KEY|PASSWORD|SECRET|TOKEN", setting)


def test_the_lock_of_the_image_is_a_part_of_the_other_one() -> None:
    of_image = requirements(FOLDER / "requirements.lock")
    whole = requirements(ROOT / "requirements.lock")
    assert all(of_image.values()), "one has no hash"
    known = {name.partition(" ;")[0]: hashes for name, hashes in whole.items()}
    for name, hashes in of_image.items():
        assert known[name.partition(" ;")[0]] == hashes
    names = {re.split(r"[=\[]", name)[0] for name in of_image}
    assert {"dagster", "dagster-webserver", "dagster-postgres", "dagster-aws"} <= names
    assert not {"pytest", "moto", "mypy", "ruff", "hypothesis"} & names


@pytest.mark.parametrize("name", ["requirements.lock", "deploy/aws/requirements.lock"])
def test_a_lock_says_versions_and_hashes_and_not_where_they_are(name: str) -> None:
    for line in (ROOT / name).read_text().splitlines():
        package = r"[a-z0-9][a-z0-9.-]*(\[[a-z0-9,-]+\])?==[\w.+]+( ; .+)? \\"
        assert re.fullmatch(rf"{package}|    --hash=sha256:[0-9a-f]{{64}}( \\)?", line), line


def test_what_it_copies_is_there_and_not_ignored(instructions: list[Instruction]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "or a lake, its key and its runs would go into the image"
    kept = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        name
        for i in instructions
        if i.name == "COPY" and "--from" not in i.text
        for name in i.text.split()[:-1]
    ]
    assert sorted(copied) == sorted(kept)
    for name in copied:
        assert (ROOT / name).exists()
    assert fnmatch.filter(ignored, "**/__pycache__")


def test_the_image_for_emr_copies_and_installs_the_same_and_does_not_run_as_root() -> None:
    lines = (FOLDER / "emr.Dockerfile").read_text().replace("\\\n", " ").splitlines()
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert {"stedi_assets", "deploy/aws/requirements.lock"} <= set(copied)
    assert {f"!{name}" for name in copied} <= set(kept)
    installs = [set(line.split()) for line in lines if "pip install" in line]
    from_lock, own = installs
    assert {"--require-hashes", "--only-binary", "-r"} <= from_lock
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= own
    assert lines[-1] == "USER hadoop:hadoop"
    assert "pyspark" not in (FOLDER / "requirements.lock").read_text(), "beside that of EMR"


def test_what_it_starts_is_a_command_of_what_is_installed(
    instructions: list[Instruction],
) -> None:
    commands = of_last_stage(instructions, "CMD") + [
        text.partition("CMD ")[2] for text in of_last_stage(instructions, "HEALTHCHECK")
    ]
    assert len(commands) == 2
    scripts = {script.name for script in entry_points(group="console_scripts")}
    for command in commands:
        words = [word.strip('",') for word in command.strip("[]").split()]
        assert words[0] in scripts
        assert words[words.index("-p") + 1] == "4000"
    assert import_module("stedi_assets.definitions").defs
