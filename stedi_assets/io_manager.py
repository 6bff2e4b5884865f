"""The IO manager: joins registry, engine and lake to Dagster.

Loads the partitions that a step needs as an Ibis table, and stores what it returns by stage,
contract, publish. How tables are computed and where they lie, it asks others.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import ibis
import ibis.expr.types as ir

from stedi_assets import contract
from stedi_assets.assets.definitions import DEFINITIONS, needs_of
from stedi_assets.catalog.catalog import Catalog, CatalogError
from stedi_assets.dates import Stretch, days
from stedi_assets.engines.duckdb import DuckDBEngine, Staged
from stedi_assets.lake import Lake
from stedi_assets.making import Partition, Upstream, make
from stedi_assets.metadata import of_partition
from stedi_assets.privacy.policies import Policy
from stedi_assets.remembered import Remembered
from stedi_assets.tables import PARTITION, TABLES, Table

if TYPE_CHECKING:
    import pandas as pd

IO_MANAGER_KEY = "lake_io_manager"

_AT_ONCE = 8


class LakeIOManager(dg.IOManager):
    """Keeps the registry's tables in the lake, one file a partition."""

    def __init__(self, lake: Lake, engine: DuckDBEngine, policy: Policy, catalog: Catalog) -> None:
        self.lake = lake
        self.engine = engine
        self.policy = policy
        self.catalog = catalog
        self._known: dict[str, dict[date, Partition]] = {}
        self._made: set[tuple[str, date]] = set()
        self._catalog_failed = False

    def load_input(self, context: dg.InputContext) -> ir.Table | pd.DataFrame:
        """The partitions that the step needs: an Ibis table, or a DataFrame if annotated so."""
        table = _registered(context.asset_key)
        wanted = context.dagster_type.typing_type
        as_frame = getattr(wanted, "__module__", "").startswith("pandas")
        reader = context.op_def.name
        is_definition = reader in DEFINITIONS[self.policy] and table.name in needs_of(reader)
        if is_definition and not as_frame:
            return self.engine.expression(table)  # `make` says which partitions it is over
        needed = None
        if context.has_asset_partitions:
            keys = context.asset_partition_key_range  # listing them all takes longer than reading
            needed = Stretch(*days([keys.start, keys.end]))
        rows = self.engine.table(table, self.lake.fetch(table, needed))
        return _to_pandas(table, rows) if as_frame else rows

    def handle_output(
        self, context: dg.OutputContext, rows: ir.Table | pd.DataFrame | Staged
    ) -> None:
        """Publish the partitions of the run.

        Args:
            context: says which table and partitions.
            rows: the table's rows, of which those of the run's partitions are written; or
                finished files with them.

        Raises:
            BrokenContractError: a partition breaks the registry's rules; nothing is published.
        """
        table = _registered(context.asset_key)
        wanted = days(context.asset_partition_keys)
        staged = rows if isinstance(rows, Staged) else self._stage(table, rows, wanted)
        self._known.pop(table.name, None)
        for day, figures in publish(self.lake, self.engine, self.policy, table, staged).items():
            partition = day.isoformat()
            self._made.add((table.name, day))
            if day in wanted:
                context.step_context.add_asset_metadata(figures, context.asset_key, partition)
            else:
                context.log_event(
                    dg.AssetMaterialization(context.asset_key, None, figures, partition)
                )
        self._tell_catalog(context, table, staged.files)

    def _tell_catalog(
        self, context: dg.OutputContext, table: Table, published: Collection[date]
    ) -> None:
        """Tell the catalog of partitions, unless it has failed in this run.

        That it fails is no reason not to make the tables that follow. It may be slow to fail, and
        the reconciliation after every run tells it all, and fails if it cannot.
        """
        if self._catalog_failed:
            return
        try:
            self.catalog.published(table, published)
        except CatalogError as error:
            self._catalog_failed = True
            context.log.warning(str(error))

    def _stage(self, table: Table, rows: ir.Table | pd.DataFrame, wanted: list[date]) -> Staged:
        """Write the partitions of the run, and those that it restates, into finished files."""
        expression = rows if isinstance(rows, ir.Table) else ibis.memtable(rows)
        contract.verify_columns(table, wanted[0], expression.columns)
        if not isinstance(rows, ir.Table):  # a DataFrame has dates as moments
            expression = expression.mutate(**{PARTITION: expression[PARTITION].cast("date")})
        definition = DEFINITIONS[self.policy].get(table.name)
        if definition is None:  # a landing table, filled by an asset that reads no landing files
            files = self.engine.write(table, expression, wanted, {})
            return self.engine.sealed(table, files, {}, self.engine.sql(expression))
        read = {name: self._stored(TABLES[name]) for name in definition.needs}
        stored = self._stored(table) if table.restated else {}
        upstream = Upstream(self.lake, self.engine, definition, read, self._remembered.bind_users)
        return make(upstream, expression, wanted, stored)

    def _stored(self, table: Table) -> dict[date, Partition]:
        """A table's partitions, which no other run changes while this one has the lake.

        A file that holds other rows than it says is left out, as a file that cannot be read is.
        """
        if table.name not in self._known:
            found, _ = self._remembered.sound(table, but=self._made)
            self._known[table.name] = found
        return self._known[table.name]

    @cached_property
    def _remembered(self) -> Remembered:
        return Remembered(self.lake, self.engine)


def publish(
    lake: Lake, engine: DuckDBEngine, policy: Policy, table: Table, staged: Staged
) -> dict[date, dict[str, Any]]:
    """Make finished files the content of their partitions, if all of them keep the contract.

    Returns:
        What Dagster is told of each partition.

    Raises:
        BrokenContractError: a partition breaks the registry's rules; nothing is published.
    """
    statistics = engine.statistics(table, staged.files)
    contract.verify(engine, table, staged.files, statistics)
    sizes = {day: file.stat().st_size for day, file in staged.files.items()}

    def publish_one(day: date) -> None:
        lake.publish(table, day, staged.files[day], staged.noted(day).as_notes())

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # each waits for the disk, or for the network
        list(pool.map(publish_one, staged.files))
    return {
        day: of_partition(
            table,
            statistics[day],
            uri=lake.storage.uri(lake.partition_key(table, day)),
            size=sizes[day],
            sql=staged.sql,
            policy=policy,
        )
        for day in staged.files
    }


@dg.io_manager(required_resource_keys={"lake", "engine", "policy", "catalog"})
def lake_io_manager(context: dg.InitResourceContext) -> LakeIOManager:
    """Keeps the registry's tables in the lake."""
    found = context.resources
    return LakeIOManager(found.lake, found.engine, found.policy, found.catalog)


def _to_pandas(table: Table, rows: ir.Table) -> pd.DataFrame:
    """A DataFrame in which integers beside nulls are still integers, and not rounded to floats."""
    integers = {
        column.name: column.type.title()
        for column in table.columns
        if column.type in {"int32", "int64"} and not column.required
    }
    frame: pd.DataFrame = rows.to_pyarrow().to_pandas(
        integer_object_nulls=True, date_as_object=False
    )
    return frame.astype(integers)


def _registered(key: dg.AssetKey) -> Table:
    try:
        return TABLES[key.to_user_string()]
    except KeyError:
        raise dg.DagsterInvariantViolationError(
            f"{key.to_user_string()} is not in the registry, so the lake cannot keep it. Add it to "
            f"stedi_assets/tables.py, or give the asset another io_manager_key than "
            f"{IO_MANAGER_KEY!r}."
        ) from None
