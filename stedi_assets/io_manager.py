"""The IO manager: joins registry, engine and lake to Dagster.

Loads the partitions that a step needs as an Ibis table, and stores what it returns by stage,
contract, publish. How tables are computed and where they lie, it asks others.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
import ibis
import ibis.expr.types as ir

from stedi_assets import contract
from stedi_assets.assets.definitions import DEFINITIONS, needs_of
from stedi_assets.catalog.catalog import Catalog, CatalogError
from stedi_assets.dates import Stretch, days
from stedi_assets.engines.duckdb import DuckDBEngine, Staged
from stedi_assets.lake import Lake
from stedi_assets.metadata import of_partitions
from stedi_assets.privacy.policies import Policy
from stedi_assets.publishing import Maker, Published, publish
from stedi_assets.tables import PARTITION, TABLES, Table

if TYPE_CHECKING:
    import pandas as pd

IO_MANAGER_KEY = "lake_io_manager"


class LakeIOManager(dg.IOManager):
    """Keeps the registry's tables in the lake, one file a partition."""

    def __init__(self, lake: Lake, engine: DuckDBEngine, policy: Policy, catalog: Catalog) -> None:
        self.lake = lake
        self.engine = engine
        self.policy = policy
        self.catalog = catalog
        self._maker = Maker(lake, engine, policy)
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
        self, context: dg.OutputContext, rows: ir.Table | pd.DataFrame | Staged | Published
    ) -> None:
        """Publish the partitions of the run.

        Args:
            context: says which table and partitions.
            rows: the table's rows, of which those of the run's partitions are written; or
                finished files with them; or what a job has published, which is only told.

        Raises:
            BrokenContractError: a partition breaks the registry's rules; nothing is published.
        """
        table = _registered(context.asset_key)
        wanted = days(context.asset_partition_keys)
        if isinstance(rows, Published):
            published = rows
        else:
            staged = rows if isinstance(rows, Staged) else self._stage(table, rows, wanted)
            published = publish(self.lake, self.engine, table, staged)
        self._maker.published(table, published.sizes)
        for day, figures in of_partitions(self.lake, table, published, self.policy).items():
            partition = day.isoformat()
            if day in wanted:
                context.step_context.add_asset_metadata(figures, context.asset_key, partition)
            else:
                context.log_event(
                    dg.AssetMaterialization(context.asset_key, None, figures, partition)
                )
        self._tell_catalog(context, table, published.sizes)

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
        if isinstance(rows, ir.Table):
            return self._maker.stage(table, rows, wanted)
        expression = ibis.memtable(rows)
        contract.verify_columns(table, wanted[0], expression.columns)
        dates = {PARTITION: expression[PARTITION].cast("date")}  # a DataFrame has them as moments
        return self._maker.stage(table, expression.mutate(**dates), wanted)


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
