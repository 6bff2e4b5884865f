"""Ingestion dates: stretches of them, and partition keys as dates.

What Dagster is told of partitions is in `partitions.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True)
class Stretch:
    """An unbroken stretch of dates, both ends included."""

    first: date
    last: date

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and self.first <= day <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


def days(keys: Iterable[str]) -> list[date]:
    """Partition keys as dates."""
    return [date.fromisoformat(key) for key in keys]


def stretches(dates: Iterable[date]) -> list[Stretch]:
    """The fewest stretches that hold exactly the given dates, in order."""
    found: list[Stretch] = []
    for day in sorted(dates):
        if found and day - found[-1].last <= timedelta(days=1):
            found[-1] = Stretch(found[-1].first, day)
        else:
            found.append(Stretch(day, day))
    return found
