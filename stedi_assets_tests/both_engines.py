"""The same work by both engines, and what each made of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from stedi_assets.assets.definition import Definition
from stedi_assets.assets.definitions import DEFINITIONS
from stedi_assets.engines.duckdb import DuckDBEngine, Staged
from stedi_assets.engines.spark import SparkEngine
from stedi_assets.lake import Lake
from stedi_assets.making import Partition, Partitions, Upstream, make
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import PARTITION, Table

KEY = "the tests' own key"

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Both:
    """Both engines over one lake."""

    lake: Lake
    duckdb: DuckDBEngine
    spark: SparkEngine

    def stored(self, table: Table, rows: Rows) -> Partitions:
        """Rows as partitions of a table, as an asset that returns them would have them stored."""
        schema = ibis.schema(table.schema).to_pyarrow()
        given = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
        days = set(given[PARTITION].to_pylist())
        files = self.duckdb.write(table, ibis.memtable(given), days, {})
        return partitions(self.duckdb.sealed(table, files, {}, ""))

    def verify_same(self, made: Staged, by_spark: Staged) -> None:
        """Hold what Spark made against what DuckDB made: rows, checksums and notes."""
        assert by_spark.contents == made.contents
        assert by_spark.stamps == made.stamps
        assert by_spark.sql == made.sql
        assert self.spark.noted(by_spark.files) == self.duckdb.noted(made.files)
        for day, file in made.files.items():
            assert rows_in(by_spark.files[day]) == rows_in(file)

    def make(self, definition: Definition, read: Mapping[str, Partitions]) -> Partitions:
        """The partitions of a table, after both engines have made the same of what it reads."""
        made = [self._made(engine, definition, read) for engine in (self.duckdb, self.spark)]
        self.verify_same(*made)
        return partitions(made[0])

    def _made(
        self, engine: DuckDBEngine, definition: Definition, read: Mapping[str, Partitions]
    ) -> Staged:
        upstream = Upstream(self.lake, engine, definition, read)
        return make(upstream, upstream.rows(), upstream.dates(), {})

    def make_all(self, policy: Policy, landing: Mapping[str, Partitions]) -> dict[str, Partitions]:
        """The same of all tables beyond landing, each of what is before it."""
        tables = dict(landing)
        for name, definition in DEFINITIONS[policy].items():
            tables[name] = self.make(definition, {read: tables[read] for read in definition.needs})
        return tables


def partitions(staged: Staged) -> Partitions:
    """Finished files as what other tables read."""
    return {
        day: Partition(file, staged.stamps[day], staged.contents[day])
        for day, file in staged.files.items()
    }


def rows_in(file: Path) -> Counter[tuple[Any, ...]]:
    """The rows of a Parquet file, by PyArrow, and how often each is there.

    Values as text, by which NaN is itself; the two zeros are one, as they are to both engines and
    to the checksum (landing files give one only).
    """
    columns = pq.ParquetFile(file).read().to_pydict().values()
    values = (
        [repr(value + 0.0 if isinstance(value, float) else value) for value in column]
        for column in columns
    )
    return Counter(zip(*values, strict=True))
