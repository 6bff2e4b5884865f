"""Which landing files there are, of which ingestion date, and in what state.

Looks at names, sizes and times only; `reader.py` looks inside.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from stedi_assets.lake import Lake, StoredFile
from stedi_assets.tables import PARTITION, Source

_IN_PATH = re.compile(rf"(?:^|/){PARTITION}=([^/.]*)")
_EXTENSIONS = re.compile(r"(\.(json|jsonl|ndjson|gz|zst))+$", re.IGNORECASE)
_MILLISECONDS = re.compile(r"(?<!\d)\d{13}$")
_UNFINISHED = re.compile(r"(\.(tmp|temp|part|partial|crdownload|swp)|~)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Landed:
    """The landing files of all sources at one moment.

    Attributes:
        first: the first partition.
        last: the last partition, today's.
        by_date: the files of each source by ingestion date, those that have a partition.
        misplaced: for those that have none, what is wrong with them and what to do.
        growing: the files that may still be written to, for which their source's date has to wait.
            Other sources do not wait for them: one file that is written to without end would keep
            withdrawals of consent from being read.
    """

    first: date
    last: date
    by_date: Mapping[Source, Mapping[date, list[StoredFile]]]
    misplaced: Sequence[str]
    growing: Mapping[tuple[Source, date], Sequence[StoredFile]]


def look(lake: Lake, first: date, now: datetime, settled_after: timedelta) -> Landed:
    """Which landing files there are.

    Args:
        lake: where to look.
        first: the first partition.
        now: the moment, UTC; the last partition is its date.
        settled_after: a file that was written less than this ago may still be written to.
    """
    last = now.date()
    found: dict[Source, dict[date, list[StoredFile]]] = {}
    misplaced: list[str] = []
    outside: dict[date, list[StoredFile]] = defaultdict(list)
    for source in Source:
        all_dates = files_by_date(lake, source, misplaced.append)
        found[source] = {day: files for day, files in all_dates.items() if first <= day <= last}
        for day in all_dates.keys() - found[source].keys():
            outside[day] += all_dates[day]
    for day, files in sorted(outside.items()):
        remedy = (
            f"before the first partition, {first}: set STEDI_START_DATE to {day} or earlier"
            if day < first
            else "in the future: give the files the date on which they came"
        )
        keys = [_shown(file) for file in files]
        named = ", ".join(keys[:5]) + (f" and {len(keys) - 5:,} more" if len(keys) > 5 else "")
        misplaced.append(f"{named}: the ingestion date {day} is {remedy}.")
    growing: dict[tuple[Source, date], list[StoredFile]] = defaultdict(list)
    for source, by_date in found.items():
        for day, files in by_date.items():
            for file in files:
                # Clocks of disk and machine may differ.
                if abs(now - file.modified) < settled_after:
                    growing[source, day].append(file)
    return Landed(first, last, found, misplaced, growing)


def files_by_date(
    lake: Lake, source: Source, misplaced: Callable[[str], object] = lambda _: None
) -> dict[date, list[StoredFile]]:
    """The landing files of a source by ingestion date, both in order.

    Hidden and unfinished files are left out: a file or folder whose name begins with `.` or `_`,
    and names as downloads and editors give them (`.tmp`, `.part`, `~`).

    Args:
        lake: where to look.
        source: whose files.
        misplaced: is told of each file whose path says `ingestion_date=` and then no date, and of
            what is no file: a link, which could lead anywhere, or a pipe, at which reading waits.
    """
    found: dict[date, list[StoredFile]] = defaultdict(list)
    for file in lake.landing_files(source):
        if not _is_hidden(file.key):
            if file.odd:
                misplaced(f"landing file {_shown(file)}: it is {file.odd}; put a file in its place")
                continue
            try:
                found[ingestion_date(file, lake.storage.delivered)].append(file)
            except ValueError as error:
                misplaced(str(error))
    return {day: sorted(found[day], key=lambda file: file.key) for day in sorted(found)}


def ingestion_date(file: StoredFile, delivered: Callable[[StoredFile], datetime]) -> date:
    """The date on which a landing file came, UTC.

    `ingestion_date=YYYY-MM-DD` in its path says it; else the 13-digit epoch milliseconds that end
    its name before the extension, as the producers write them; else when it was delivered.

    Args:
        file: the landing file.
        delivered: says when it was; asked only if its path does not say it.

    Raises:
        ValueError: the path says `ingestion_date=` and then no date.
    """
    if in_path := _IN_PATH.search(file.key):
        with suppress(ValueError):
            day = date.fromisoformat(in_path[1])
            if day.isoformat() == in_path[1]:  # Python takes more forms of dates
                return day
        raise ValueError(
            f"landing file {_shown(file)}: {in_path[0].lstrip('/')!r} is no date; "
            f"rename it to {PARTITION}=YYYY-MM-DD"
        )
    if in_name := _MILLISECONDS.search(_EXTENSIONS.sub("", file.key)):
        return datetime.fromtimestamp(int(in_name[0]) / 1000, UTC).date()
    return delivered(file).date()


def fingerprint(files: Iterable[StoredFile]) -> str:
    """A hash that changes when a file comes, goes or changes; empty where there are no files."""
    state = sorted((file.key, file.size, file.version) for file in files)
    return hashlib.sha256(json.dumps(state).encode()).hexdigest() if state else ""


def _shown(file: StoredFile) -> str:
    """The key of a file in one line, whatever is in it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in file.key)


def _is_hidden(key: str) -> bool:
    is_unfinished = _UNFINISHED.search(key) is not None
    return is_unfinished or any(name.startswith((".", "_")) for name in key.split("/"))
