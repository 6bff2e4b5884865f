"""What Athena counts in a table, held against what was published.

The only module that speaks with Athena, by dagster-aws' client; its settings are those of boto3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date

from botocore.exceptions import BotoCoreError, ClientError
from dagster_aws.athena import AthenaClientResource, AthenaError, AthenaTimeout

from stedi_assets.dates import stretches
from stedi_assets.engines.duckdb import quoted
from stedi_assets.stored import Finding, Stored
from stedi_assets.tables import PARTITION, Table

_SECONDS = 600
"""After which a query that has not ended is given up."""


_FAILURES = (AthenaError, BotoCoreError, ClientError, KeyError)


def athena_count(workgroup: str, database: str) -> Callable[[Stored], Finding]:
    """The check of what Athena counts, in one query a table.

    Args:
        workgroup: in which the queries run; it says where their results go.
        database: of the tables.
    """

    def compare(stored: Stored) -> Finding:
        """Athena counts the rows that were published."""
        try:
            counted = _count(workgroup, _query(database, stored.table, stored.days))
        except _FAILURES as error:
            # Nothing is known to be wrong. Of two errors dagster-aws says little.
            problem = {
                AthenaTimeout: f"it took longer than {_SECONDS} s",
                KeyError: f"its answer has no {error}",
            }.get(type(error), str(error))
            sentence = f"Athena, workgroup {workgroup!r}, could not count: {problem}"
            return Finding(False, sentence, {}, is_error=False)
        figures = {
            day: {"published": rows, "counted": counted.get(day, 0)}
            for day, rows in stored.rows.items()
        }
        wrong = [day for day, of in figures.items() if of["published"] != of["counted"]]
        return Finding(
            not wrong,
            f"Athena counts {sum(counted.values()):,} rows of {sum(stored.rows.values()):,}"
            + (f"; other numbers than were published on {len(wrong):,} dates" if wrong else ""),
            figures,
        )

    return compare


def _query(database: str, table: Table, days: Collection[date]) -> str:
    dates = " OR ".join(
        f"{quoted(PARTITION)} BETWEEN DATE '{stretch.first}' AND DATE '{stretch.last}'"
        for stretch in stretches(days)
    )
    return (
        f"SELECT {quoted(PARTITION)}, count(*) FROM {quoted(database)}.{quoted(table.name)} "
        f"WHERE {dates} GROUP BY 1"
    )


def _count(workgroup: str, query: str) -> dict[date, int]:
    athena = AthenaClientResource(workgroup=workgroup, polling_interval=1, max_polls=_SECONDS)
    client = athena.get_client()
    rows = client.execute_query(query, fetch_results=True)  # type: ignore[no-untyped-call]
    return {date.fromisoformat(day): int(count) for day, count in rows}
