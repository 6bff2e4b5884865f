"""The command line on a terminal, in a pipe, with `--debug`, and as shells complete it."""

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stedi_assets.cli import main
from stedi_assets.terminal import tell
from stedi_assets_tests.end_to_end.process import succeeded

STEDI = Path(sys.executable).with_name("stedi")
WIDE = {"COLUMNS": "500", "TERM": "xterm-256color"}  # so that no line is wrapped
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RED, YELLOW = "\x1b[31m\x1b[1m", "\x1b[1;33m"


def on_terminal(
    *arguments: str, stdout: Path | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run `stedi` on a terminal of its own, with its output, or without it if that goes to a file.

    Returns:
        What the terminal got, codes and all, as the process' stdout.
    """
    ours, its = pty.openpty()
    with (stdout or Path(os.devnull)).open("w") as file:
        process = subprocess.Popen(
            [STEDI, *arguments],
            env={**os.environ, **WIDE, **settings},
            stdin=its,
            stdout=file if stdout else its,
            stderr=its,
        )
    os.close(its)
    told = b""
    try:
        while some := os.read(ours, 1 << 16):
            told += some
    except OSError:  # as Linux says that a terminal's last user has left it
        pass
    os.close(ours)
    return subprocess.CompletedProcess(arguments, process.wait(120), told.decode())


def in_pipe(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [STEDI, *arguments], env={**os.environ, **settings}, capture_output=True, text=True
    )


def lines(told: str) -> list[str]:
    """The lines that were written to a terminal, also those that others took the place of."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", CODES.sub("", told))]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake with a sample's landing files, as the settings have it."""
    lake = tmp_path / "lake"
    monkeypatch.setenv("STEDI_LAKE", str(lake))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    succeeded(in_pipe("sample", "--customers", "40", "--days", "2"))
    return lake


@pytest.mark.long
def test_a_run_shows_how_far_it_is_and_colours_what_warns(lake: Path) -> None:
    ran = on_terminal("run")
    assert ran.returncode == 0, ran.stdout
    assert f"  {YELLOW}warning\x1b[0m: accelerometer_landing, check rejects: " in ran.stdout
    shown = [line for line in lines(ran.stdout) if re.search(r"\d+ of \d+ steps", line)]
    assert any("machine_learning_curated" in line for line in shown)
    last = re.search(r"(\d+) of (\d+) steps", shown[-1])
    assert last
    assert last[1] == last[2]
    assert "steps" not in ran.stdout.rsplit("\x1b[2K", 1)[1], "the bar is still there at the end"


@pytest.mark.long
def test_a_pipe_gets_the_same_words_without_codes_and_bars(lake: Path) -> None:
    ran = on_terminal("run")
    (lake / "again").mkdir()
    again = {"STEDI_LAKE": str(lake / "again")}
    succeeded(in_pipe("sample", "--customers", "40", "--days", "2", **again))
    piped = succeeded(in_pipe("run", **again))
    assert "\x1b" not in piped
    assert "steps" not in piped
    assert "warning: accelerometer_landing" in piped
    assert "machine_learning_curated" in piped
    told = set(lines(ran.stdout))
    assert not [line for line in piped.splitlines() if line.rstrip() not in told]


@pytest.mark.long
def test_what_goes_to_a_file_has_no_codes_while_the_bar_is_on_the_terminal(
    lake: Path, tmp_path: Path
) -> None:
    ran = on_terminal("run", stdout=tmp_path / "told")
    told = (tmp_path / "told").read_text()
    assert "steps" in ran.stdout
    assert "rows" not in ran.stdout
    assert "\x1b" not in told
    assert "steps" not in told
    assert re.search(r"^  machine_learning_curated +[\d,]+ rows$", told, re.MULTILINE)


@pytest.mark.long
def test_a_reconciliation_shows_that_it_goes_on(lake: Path) -> None:
    succeeded(in_pipe("run"))
    looked = on_terminal("status")
    assert "Looking at every partition" in looked.stdout
    assert lines(looked.stdout)[-2:] == ["Every partition holds what it should.", ""]


def test_errors_are_red_on_a_terminal_alone_and_nowhere_with_no_color(tmp_path: Path) -> None:
    nowhere = {"STEDI_LAKE": str(tmp_path / "nowhere")}
    words = f"Error: there is no lake at {tmp_path / 'nowhere'}."
    coloured = on_terminal("counts", **nowhere)
    plain = on_terminal("counts", NO_COLOR="1", **nowhere)
    piped = in_pipe("counts", **nowhere)
    assert coloured.returncode == plain.returncode == piped.returncode == 1
    assert coloured.stdout.startswith(f"{RED}Error\x1b[0m: there is no lake")
    assert plain.stdout.startswith(words)
    assert piped.stderr.startswith(words)
    assert not piped.stdout


@pytest.mark.long
def test_an_error_is_told_in_a_line_and_debug_shows_where_it_comes_from(tmp_path: Path) -> None:
    nowhere = {"STEDI_LAKE": "s3:///no-bucket"}
    short, long = in_pipe("counts", **nowhere), in_pipe("--debug", "counts", **nowhere)
    assert short.returncode == long.returncode == 1
    assert short.stderr.startswith("Error: ")
    assert len(short.stderr.splitlines()) == 1
    assert "Traceback (most recent call last)" in long.stderr
    assert "cli.py" in long.stderr
    assert short.stderr.removeprefix("Error: ").strip() in long.stderr


@pytest.mark.long
def test_an_error_that_nobody_thought_of_is_told_without_its_traceback_too(lake: Path) -> None:
    (lake / "_reconciled.parquet").mkdir()  # where there should be a file
    short, long = in_pipe("run"), in_pipe("--debug", "run")
    assert short.returncode == long.returncode == 1
    first, last = short.stderr.splitlines()
    assert first.startswith("Error: IsADirectoryError: ")
    assert last == "`stedi --debug …` shows where it comes from."
    assert "Traceback (most recent call last)" in long.stderr
    assert "\nIsADirectoryError: " in long.stderr


@pytest.mark.long
def test_what_fails_in_a_step_is_told_in_a_line_and_whole_with_debug(lake: Path) -> None:
    (lake / "customer" / "trusted").touch()  # where there should be a folder
    other = shutil.copytree(lake, lake.with_name("other"))
    short, long = in_pipe("run"), in_pipe("--debug", "run", STEDI_LAKE=str(other))
    assert short.returncode == long.returncode == 1
    told = "  ERROR: NotADirectoryError: [Errno 20] Not a directory: "
    assert told in short.stdout
    assert "Stack Trace" not in short.stdout
    assert told in long.stdout
    assert "Stack Trace:\n" in long.stdout


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_of_a_command_ends_its_text_with_examples_that_can_be_typed(name: str) -> None:
    command = main.commands[name]
    told = CliRunner().invoke(main, [name, "--help"]).output
    examples = [
        shlex.split(line)
        for line in told.splitlines()
        if re.match(rf"  (STEDI_LAKE=\S+ )?stedi {name}\b", line)
    ]
    assert examples, told
    for words in examples:
        arguments = words[words.index(name) + 1 :]
        command.make_context(name, arguments)  # raises UsageError where there is no such option


def test_an_example_that_cannot_be_typed_is_found() -> None:
    with pytest.raises(click.UsageError):
        main.commands["run"].make_context("run", ["--no-such-option"])


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["rec"], ["receipts", "reconcile"]),
        (["status", "--format", ""], ["table", "json"]),
        (["run", "--select", "customer"], ["customer_landing", "customer_trusted"]),
        (["run", "--f"], ["--from"]),
    ],
)
def test_bash_completes_commands_options_and_tables(typed: list[str], completed: list[str]) -> None:
    script = f"""
        eval "$(_STEDI_COMPLETE=bash_source {shlex.quote(str(STEDI))})"
        COMP_WORDS=(stedi {shlex.join(typed)}); COMP_CWORD={len(typed)}
        $(complete -p stedi | sed 's/.*-F \\([^ ]*\\).*/\\1/') {shlex.quote(str(STEDI))}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    found = done.stdout.split()
    assert [word for word in completed if word not in found] == [], done


def test_what_a_terminal_would_obey_or_cannot_show_is_printed_as_python_writes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell("two\nlines\tof plain text: é 日本")
    tell("Error: \x1b]0;owned\x07\x9b2J\rhidden \u202egpj.exe \udcff")
    shown = r"Error: \x1b]0;owned\x07\x9b2J\rhidden \u202egpj.exe \udcff"
    assert capsys.readouterr().out == f"two\nlines\tof plain text: é 日本\n{shown}\n"
