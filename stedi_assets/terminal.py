"""How the command line looks: colours and a bar where a terminal shows them, errors in a line.

In a pipe or a file there is neither colour nor bar, and the words are the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LOOKING = "Looking at every partition"
_WARNS = re.compile(r"^( *)(error|warning)(?=: )", re.IGNORECASE)
_COLOURS = {"error": "red", "warning": "yellow"}


def tell(line: str = "", *, err: bool = False) -> None:
    """Print a line; a word that warns, at its beginning, is coloured.

    Names of files may hold anything. What a terminal would obey, or could not show, is printed as
    Python writes it in a string.

    Args:
        line: plain text.
        err: whether it belongs on stderr.
    """

    def coloured(found: re.Match[str]) -> str:
        return found[1] + click.style(found[2], fg=_COLOURS[found[2].lower()], bold=True)

    # By itself Click would print past what a bar puts in the streams' place.
    click.echo(_WARNS.sub(coloured, _shown(line)), file=sys.stderr if err else sys.stdout)


def _shown(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in line
    )


def fail(why: str) -> NoReturn:
    """End with an error that says all there is to say."""
    tell(f"Error: {why}", err=True)
    sys.exit(1)


def is_debug() -> bool:
    """Whether `stedi --debug` asks to be shown where errors come from."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().params.get("debug"))


@dataclass(frozen=True)
class Bar:
    """How far something long has come; says nothing where there is no terminal."""

    shown: tuple[Progress, TaskID] | None = None

    def begins(self, step: str) -> None:
        """Say what is done now."""
        if self.shown:
            progress, task = self.shown
            progress.update(task, description=step)

    def advance(self) -> None:
        """Count one more."""
        if self.shown:
            progress, task = self.shown
            progress.advance(task)


NO_BAR = Bar()


@contextmanager
def bar(what: str, total: int | None = None, many: str = "") -> Iterator[Bar]:
    """Show a bar meanwhile, at the foot of the terminal that is stderr; lines go above it.

    Args:
        what: is done, until a step begins.
        total: how many there are to count; unknown without it.
        many: what is counted; nothing without it.
    """
    if not sys.stderr.isatty():
        yield NO_BAR
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn

    count = "{task.completed}" if total is None else "{task.completed} of {task.total}"
    progress = Progress(
        SpinnerColumn("line"),
        "{task.description:<28}",
        *([BarColumn()] if total else []),
        *([f"{count} {many}"] if many else []),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else lines would not go where they belong
    )
    with progress:
        yield Bar((progress, progress.add_task(what, total=total)))
