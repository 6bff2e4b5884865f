"""The report as an asset: made of all tables, by a run of its own after those that write them."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets.resources import landed_now
from stedi_assets.tables import TABLES


@dg.asset(
    deps=list(TABLES),
    group_name="reports",
    description="What the lake holds, held against what the landing files give: one HTML page of "
    "counts, that names nobody.",
    owners=["team:data-engineering"],
    kinds={"duckdb", "html"},
)
def lakehouse_report(
    lake: dg.ResourceParam[Lake],
    engine: dg.ResourceParam[DuckDBEngine],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult[None]:
    """Write the report; its charts are shown as pictures, and its figures plotted."""
    from stedi_assets.report.report import write_report  # matplotlib takes a while to import

    made = write_report(lake, engine, policy, landed_now(lake), datetime.now(UTC))
    figures, problems = made.figures, list(made.figures.problems())
    metadata: dict[str, Any] = {
        "dagster/uri": lake.storage.uri(made.key),
        "problems": len(problems),
        "stale partitions": len(figures.stale),
        "pairs of two people": figures.strangers,
    }
    metadata |= {f"rows of {account.table.name}": account.rows for account in figures.accounts}
    metadata |= {f"people who {step}": people for step, people in figures.funnel.items()}
    if problems:
        metadata["found"] = dg.MetadataValue.md("\n".join(f"- {found}" for found in problems))
    for name, chart in made.charts.items():
        metadata[name] = dg.MetadataValue.md(f"![{chart.says}]({chart.address('png')})")
    return dg.MaterializeResult(metadata=metadata)
