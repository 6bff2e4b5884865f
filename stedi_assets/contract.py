"""What must hold of a partition before it is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

from stedi_assets.engines.duckdb import (
    SQL_TYPES,
    DuckDBEngine,
    FileStatistics,
    file_names,
    quoted,
)
from stedi_assets.tables import PARTITION, Table


class BrokenContractError(Exception):
    """A partition that must not be published: which table, partition and rule, how many rows."""

    def __init__(
        self,
        table: Table,
        day: date,
        rule: str,
        rows: int | None = None,
        example: Mapping[str, object] | None = None,
    ) -> None:
        broken_by = "all rows break" if rows is None else f"{rows:,} rows break"
        shown = ", ".join(f"{name}={value}" for name, value in (example or {}).items())
        super().__init__(
            f"{table.name}, partition {day}: {rule}; {'1 row breaks' if rows == 1 else broken_by} "
            f"this, for example ({shown or 'none to show'}). "
            "Nothing of it was published, the old partition stands. "
            "Mend the definition or the data; running it again as it is will not help."
        )


def verify_columns(table: Table, day: date, columns: Iterable[str]) -> None:
    """Hold the columns of a definition's result against the registry.

    Raises:
        BrokenContractError: the registry has other columns.
    """
    found, expected = set(columns), {*table.column_names, PARTITION}
    if found != expected:
        lacks, has = sorted(expected - found), sorted(found - expected)
        rule = f"it lacks the columns {lacks} and has {has}, which the registry has not"
        raise BrokenContractError(table, day, rule)


def verify(
    engine: DuckDBEngine,
    table: Table,
    files: Mapping[date, Path],
    statistics: Mapping[date, FileStatistics],
) -> None:
    """Hold finished files against the registry.

    Raises:
        BrokenContractError: the columns are not the registry's, a required column has nulls, or a
            key occurs more than once.
    """
    expected = {column.name: SQL_TYPES[column.type] for column in table.columns}
    for day, found in statistics.items():
        if list(found.types.items()) != list(expected.items()):
            rule = f"its columns are {dict(found.types)}, the registry has {expected}"
            raise BrokenContractError(table, day, rule, found.rows)
        for name in table.required_names:
            if found.nulls[name]:
                example = _example(engine, table, files[day], f"{quoted(name)} IS NULL")
                rule = f"the required column {name} has nulls"
                raise BrokenContractError(table, day, rule, found.nulls[name], example)
    if table.key and files:
        key = ", ".join(map(quoted, table.key))
        repeated = engine.connection.execute(
            f"SELECT filename, sum(n)::BIGINT FROM (SELECT filename, count(*) AS n "
            f"FROM read_parquet($files, filename = true) GROUP BY filename, {key} "
            "HAVING count(*) > 1) GROUP BY filename LIMIT 1",
            {"files": file_names(files.values())},
        ).fetchall()
        for name, rows in repeated:
            (day,) = (day for day, file in files.items() if str(file) == name)
            rule = f"the key ({', '.join(table.key)}) occurs more than once"
            condition = f"({key}) IN (SELECT ({key}) FROM rows GROUP BY ALL HAVING count(*) > 1)"
            example = _example(engine, table, files[day], condition)
            raise BrokenContractError(table, day, rule, rows, example)


def _example(engine: DuckDBEngine, table: Table, file: Path, condition: str) -> dict[str, object]:
    """The first row that meets the condition, without the columns that name a person."""
    names = [column.name for column in table.columns if not column.personal.identifies]
    (row,) = engine.connection.execute(
        f"WITH rows AS (FROM read_parquet($file)) "
        f"SELECT {', '.join(map(quoted, names))} FROM rows WHERE {condition} LIMIT 1",
        {"file": file_names([file])},
    ).fetchall()
    return dict(zip(names, row, strict=True))
