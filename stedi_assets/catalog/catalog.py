"""What a catalog is told of the lake, whichever it is; and none at all.

Which there are, the modules beside this one say, and which one a lake has, `resources.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Protocol

from stedi_assets.tables import Table


class CatalogError(Exception):
    """A catalog that refuses, does not answer or knows a table otherwise; says what to do."""


class Catalog(Protocol):
    """Where others look up which tables and partitions there are.

    Everything raises `CatalogError`, and leaves the lake as it is.
    """

    def published(self, table: Table, days: Collection[date]) -> None:
        """Tell of partitions that have just been published."""

    def match(self) -> None:
        """Make the catalog say what is in the lake: after a failure, and after files were removed.

        What it says already is not written again.
        """


class NoCatalog:
    """A catalog that nobody reads."""

    def published(self, table: Table, days: Collection[date]) -> None:
        """See `Catalog`."""

    def match(self) -> None:
        """See `Catalog`."""
