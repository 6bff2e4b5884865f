"""`stedi` in processes of their own that cost a fork instead of three seconds of imports.

A server, Python's own `forkserver`, has imported what a job needs, and is forked for each. It has
one thread and has opened neither DuckDB nor a connection, so that a fork of it is as good as a new
process. What reads settings when it is imported (`stedi_assets.definitions`) each imports itself.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial, wraps
from inspect import isfunction
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

PATIENCE = 120
"""Seconds after which a job that has not ended hangs."""

_IMPORTED = (
    "boto3",
    "dagster",
    "dagster._core.execution.execute_in_process",
    "dagster_aws.s3",
    "dagster_duckdb",
    "duckdb",
    "ibis.backends.duckdb",
    "pytest",
    "stedi_assets.catalog.views",
    "stedi_assets.cli",
    "stedi_assets.event_log",
    "stedi_assets.lake.s3",
    "stedi_assets.lakehouse",
    "stedi_assets.landing.reader",
    "stedi_assets.privacy.erasure",
    "stedi_assets.reconcile",
    "stedi_assets.report.report",
    "stedi_assets.run_launcher",
    __name__,
)
"""By the server; nothing that reads a setting when it is imported. Of the main module, which is
pytest's, Python imports what it imports into each fork."""

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Job:
    """A process of `stedi`, begun by `begin`."""

    arguments: tuple[str, ...]
    output: Path
    process: ForkServerProcess

    def kill(self) -> None:
        """Kill it, as the system does; nothing happens if it has ended."""
        self.process.kill()

    def kill_at(self, seconds: float) -> float:
        """Kill it as soon as it has used so many seconds of CPU time, or wait for its end.

        CPU time, for it is the same instant of a job whatever else the machine does.

        Returns:
            How many it had used when it was last looked at.

        Raises:
            TimeoutError: it hung.
        """
        used = 0.0
        deadline = time.monotonic() + PATIENCE
        while self.process.exitcode is None and used < seconds:
            if time.monotonic() > deadline:
                self.wait(0)
            with suppress(FileNotFoundError, ProcessLookupError):
                # After the name, which may hold anything: utime and stime are fields 14 and 15.
                fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2]
                used = sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")
            time.sleep(0.005)
        self.kill()
        return used

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, or the number of the signal that ended it, below zero."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            self.process.join()
            raise TimeoutError(f"stedi {' '.join(self.arguments)} hung:\n{self.told()}")
        return self.process.exitcode

    def told(self) -> str:
        """What it printed, on stdout and stderr."""
        return self.output.read_text()

    def succeeded(self) -> str:
        """What it printed, if it has come to a good end."""
        status = self.wait()
        assert status == 0, f"stedi {' '.join(self.arguments)} ended with {status}:\n{self.told()}"
        return self.told()


def begin(
    *arguments: str,
    output: Path,
    settings: Mapping[str, str],
    folder: Path | None = None,
    prepare: Callable[[], object] | None = None,
) -> Job:
    """Start `stedi` with some arguments, in a process of its own.

    Args:
        arguments: of the command line.
        output: the file that takes what it prints.
        settings: the whole environment of the process, beside the way to programs.
        folder: its working directory; that of the output without.
        prepare: is called in the process before anything else, as `Dying`; it is pickled, and must
            not be of a module that imports `stedi_assets.definitions`.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), **settings}
    process = _context().Process(
        target=_stedi,
        args=(arguments, output, environment, folder or output.parent, prepare),
        daemon=True,
    )
    output.touch()
    process.start()
    return Job(arguments, output, process)


@cache
def _context() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context


def _stedi(
    arguments: tuple[str, ...],
    output: Path,
    environment: dict[str, str],
    folder: Path,
    prepare: Callable[[], object] | None,
) -> None:
    if "stedi_assets.definitions" in sys.modules:
        raise ImportError("stedi_assets.definitions has read other settings than the job's")
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # as TMPDIR says now
    sys.argv = ["stedi", *arguments]
    if prepare:
        prepare()
    from stedi_assets.cli import entry_point

    entry_point()


# --- What can be prepared ------------------------------------------------------------------------


def at_calls(act: Callable[[int, str], object]) -> None:
    """Let something be done before and after each call of the storage in this process.

    Args:
        act: takes the number of the point in the process, from 1 on, and what it is, such as
            "before publish customer/trusted/…".
    """
    from stedi_assets.lake.s3 import S3Storage
    from stedi_assets.lake.storage import LocalStorage, Storage

    number = 0

    def reached(when: str, name: str, arguments: tuple[object, ...]) -> None:
        nonlocal number
        number += 1
        keys = [str(of) for of in (getattr(a, "key", a) for a in arguments) if isinstance(of, str)]
        act(number, " ".join([when, name, *keys]))

    for storage in (LocalStorage, S3Storage):
        for name, promised in vars(Storage).items():
            if not name.startswith("_") and isfunction(promised):
                setattr(storage, name, _told_of(getattr(storage, name), name, reached))


def _told_of(
    method: Callable[..., Any], name: str, reached: Callable[[str, str, tuple[object, ...]], None]
) -> Callable[..., Any]:
    if name in {"writing", "staging"}:

        @contextmanager
        def whole(storage: object) -> Iterator[Any]:
            reached("before", name, ())
            with method(storage) as entered:
                reached("in", name, ())
                try:
                    yield entered
                finally:  # also where the process ends by itself, as with an error
                    reached("at the end of", name, ())
            reached("after", name, ())

        return whole

    if name in {"list", "old_versions"}:

        @wraps(method)
        def listed(storage: object, *arguments: Any) -> Iterator[Any]:
            reached("before", name, arguments)
            yield from method(storage, *arguments)
            reached("after", name, arguments)

        return listed

    @wraps(method)
    def called(storage: object, *arguments: Any, **more: Any) -> Any:
        reached("before", name, arguments)
        given = method(storage, *arguments, **more)
        reached("after", name, arguments)
        return given

    return called


@dataclass(frozen=True)
class Telling:
    """Writes each point at the storage into a file, a line each, and so counts them."""

    points: Path

    def __call__(self) -> None:
        descriptor = os.open(self.points, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        at_calls(lambda number, what: os.write(descriptor, f"{number} {what}\n".encode()))


@dataclass(frozen=True)
class Dying:
    """Kills the process at a point at the storage, by its number, or by how its name begins."""

    point: int = 0
    before: str = ""

    def __call__(self) -> None:
        def act(number: int, what: str) -> None:
            named = self.before and what.startswith(f"before {self.before}")
            if number == self.point or named:
                os.write(1, f"killed at {number} {what}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

        at_calls(act)


@dataclass(frozen=True)
class InParts:
    """Has S3 take tables in parts, as it takes large ones."""

    def __call__(self) -> None:
        from stedi_assets.lake import s3

        s3.TransferConfig = partial(s3.TransferConfig, multipart_threshold=1)


@dataclass(frozen=True)
class Both:
    """One preparation, and then another one."""

    one: Callable[[], object]
    other: Callable[[], object]

    def __call__(self) -> None:
        self.one()
        self.other()


@dataclass(frozen=True)
class Memory:
    """Lets the process take some bytes of address space more than it has now, and no more."""

    more: int

    def __call__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + self.more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@dataclass(frozen=True)
class Clock:
    """Another clock than the machine's, for all that asks Python for the time.

    Attributes:
        seconds: by which it differs.
        after: how often it has to be asked before it does.
    """

    seconds: float
    after: int = 0

    def __call__(self) -> None:
        seconds, after = self.seconds, self.after
        asked = 0
        real_time, real = time.time, datetime.datetime

        def shift() -> float:
            nonlocal asked
            asked += 1
            return seconds if asked > after else 0

        class AnyMoment(type):
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, real)

        class Shifted(real, metaclass=AnyMoment):  # type: ignore[misc, valid-type]
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
                return real.fromtimestamp(time.time(), tz)

        time.time = lambda: real_time() + shift()
        time.time_ns = lambda: int(time.time() * 1e9)
        for module in [*sys.modules.values()]:
            name = getattr(module, "__name__", "")
            ours = name.startswith(("stedi_assets.", "dagster"))
            if ours and getattr(module, "datetime", None) is real:
                module.datetime = Shifted  # type: ignore[attr-defined]
