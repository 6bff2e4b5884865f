"""Making a report of the lake, and keeping it there: each by the time of it, and the latest one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import REPORTS, Lake
from stedi_assets.landing.files import Landed
from stedi_assets.privacy.policies import Policy
from stedi_assets.report.charts import Chart, draw
from stedi_assets.report.figures import Figures, collect
from stedi_assets.report.page import page

_NAME = f"{REPORTS}/%Y-%m-%dT%H-%M-%SZ.html"

KEPT = 50
"""So many reports are kept by their time; older ones are removed."""

LATEST = f"{REPORTS}/latest.html"
"""The key of the latest report."""


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        key: its file's in the lake.
        figures: what it tells.
        charts: what it shows, by name.
    """

    key: str
    figures: Figures
    charts: Mapping[str, Chart]


def write_report(
    lake: Lake, engine: DuckDBEngine, policy: Policy, landed: Landed, now: datetime
) -> Report:
    """Write a report into the lake, which the caller has for itself.

    Args:
        lake: of which it is.
        engine: to compute with.
        policy: whose definitions the lake's tables follow.
        landed: its landing files.
        now: the moment, UTC.
    """
    figures = collect(lake, engine, policy, landed, now)
    charts = draw(figures)
    html = page(figures, charts)
    key = now.astimezone(UTC).strftime(_NAME)
    for target in (key, LATEST):
        path = engine.folder / f"{uuid.uuid4().hex}.html"
        path.write_text(html, encoding="utf-8")  # as the page says, whatever the system's is
        lake.storage.publish(path, target)
    kept = sorted(file.key for file in lake.storage.list(REPORTS) if _is_one(file.key))
    for old in kept[:-KEPT]:
        lake.storage.remove(old)
    return Report(key, figures, charts)


def _is_one(key: str) -> bool:
    """Whether a file is a report by its time, and nothing that somebody put beside it."""
    try:
        datetime.strptime(key, _NAME)
    except ValueError:
        return False
    return True
