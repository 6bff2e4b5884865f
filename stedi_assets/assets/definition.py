"""What a table's definition is to all else: a function, and what it needs of the tables it reads.

Knows nothing of Dagster, so that what a table should hold can be asked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import ibis.expr.types as ir

from stedi_assets.tables import TABLES, Table


class Need(Enum):
    """Which partitions of a table that it reads a partition may need."""

    EVERY_DATE = "every date"
    """For small tables, in which a later record changes what an earlier one means."""

    USERS_OF_EVERY_DATE = "the users of every date"
    """For readings that only say which of the customers in customer_trusted have some."""

    SAME_MOMENTS = "the same moments, up to this date"
    """For readings: they meet readings of the same event time only, and what comes later adds rows
    to later dates only."""


@dataclass(frozen=True)
class Definition:
    """A table's definition; calling it with the tables that it reads gives the table.

    Attributes:
        table: the table.
        rows: takes the tables that it reads by their names.
        needs: the names of the tables that it reads, and what it needs of them.
        people: gives from those tables that are needed on every date what the definition takes
            from them: `person`, if need be with `serialnumber` or `since` (when the consent
            began, epoch milliseconds), and the date of the row that says so. A partition without
            rows of people of whom that changes stays the same. None where the whole table depends
            on all of its input, or on no table of every date.
    """

    table: Table
    rows: Callable[..., ir.Table]
    needs: Mapping[str, Need]
    people: Callable[..., ir.Table] | None

    def __call__(self, *upstream: ir.Table, **by_name: ir.Table) -> ir.Table:
        return self.rows(*upstream, **by_name)

    def reads(self, need: Need) -> list[Table]:
        """The tables of which it needs that."""
        return [TABLES[name] for name, needed in self.needs.items() if needed is need]

    @property
    def dated_by(self) -> list[Table]:
        """The tables whose dates are the table's own: a partition of one makes one of the other."""
        return self.reads(Need.SAME_MOMENTS) or [TABLES[self.table.filters]]


def derived(
    people: Callable[..., ir.Table] | None = None, **needs: Need
) -> Callable[[Callable[..., ir.Table]], Definition]:
    """Decorates a table's definition, which is named as the table.

    Args:
        people: see `Definition`.
        needs: for each table that it reads, which of its partitions one of this table may need.
    """

    def decorate(rows: Callable[..., ir.Table]) -> Definition:
        return Definition(TABLES[rows.__name__], rows, needs, people)

    return decorate
