"""The charts of a report: each says in a picture what a table beside it says in figures.

Parts differ in colour, of Okabe's and Ito's, and in hatch or place, so that print and the
colour-blind tell them apart. Words in charts are this project's own, and never data.
"""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from stedi_assets.report.figures import (
    ALONE,
    EARLY,
    MOST_READINGS,
    NO_CONSENT,
    NO_READINGS,
    NOBODY,
    OTHERS,
    REJECTED,
    REPEATED,
    SUPERSEDED,
    Figures,
)
from stedi_assets.tables import MOST_REJECTED, Source, landing_table, rejects_table

_KEPT: dict[str, Any] = {"facecolor": "#0072B2", "edgecolor": "white"}
_HATCHED: dict[str, dict[str, Any]] = {
    NO_CONSENT: {"facecolor": "#E69F00", "hatch": "//"},
    REPEATED: {"facecolor": "#56B4E9", "hatch": "--"},
    SUPERSEDED: {"facecolor": "#009E73", "hatch": "\\\\"},
    REJECTED: {"facecolor": "#D55E00", "hatch": "xx"},
    NOBODY: {"facecolor": "#CC79A7", "hatch": "++"},
    NO_READINGS: {"facecolor": "#F0E442", "hatch": "||"},
    OTHERS: {"facecolor": "#FFFFFF", "hatch": "//////"},
    EARLY: {"facecolor": "#FFFFFF", "hatch": "------"},
    ALONE: {"facecolor": "#FFFFFF", "hatch": "||||||"},
}
SUBJECTS = {Source.ACCELEROMETER: "phone", Source.STEP_TRAINER: "step trainer"}
"""What takes the readings of a source."""

_SETTINGS: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "stedi",  # the same figures give the same file
}
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: under which Dagster shows it.
        says: what is to be seen in it, for who does not see it.
        figure: matplotlib's.
    """

    name: str
    says: str
    figure: Figure

    def address(self, form: str) -> str:
        """The picture as an address that holds all of it; `svg` for pages, `png` for the UI."""
        file = io.BytesIO()
        with mpl.rc_context(_SETTINGS):
            metadata = {"Date": None} if form == "svg" else None
            self.figure.savefig(file, format=form, dpi=80, metadata=metadata)
        kind = "svg+xml" if form == "svg" else form
        return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"


def draw(figures: Figures) -> dict[str, Chart]:
    """The charts by their names; none of an empty lake."""
    if not figures.dates:
        return {}
    with mpl.rc_context(_SETTINGS):
        charts = (_kept(figures), _funnel(figures), _by_date(figures), _rates(figures))
    return {chart.name: chart for chart in charts}


def _kept(figures: Figures) -> Chart:
    """Of what each table is made from, the share that is in it and what is left out."""
    chart = Figure(figsize=(8, 3.8), layout="constrained")
    axes = chart.add_subplot()
    names = [account.table.name for account in figures.accounts]
    wholes = [max(account.taken, 1) for account in figures.accounts]
    left = [0.0] * len(names)
    parts = {"in the table": [min(a.rows, a.taken) for a in figures.accounts]}
    parts |= {why: [a.by_reason.get(why, 0) for a in figures.accounts] for why in _HATCHED}
    for part, counts in parts.items():
        if part in _HATCHED and not any(counts):
            continue
        shares = [count / whole for count, whole in zip(counts, wholes, strict=True)]
        style = _HATCHED.get(part, _KEPT)
        axes.barh(
            names, shares, left=left, label=part, linewidth=0.6, **{"edgecolor": "black"} | style
        )
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("of what the table is made from")
    chart.legend(loc="outside lower center", ncols=3, frameon=False)
    says = "; ".join(
        f"{a.table.name} {min(a.rows / max(a.taken, 1), 1):.0%}" for a in figures.accounts
    )
    return Chart("left_out", f"Bars: of what each table is made from, it holds: {says}.", chart)


def _funnel(figures: Figures) -> Chart:
    """How many people come how far."""
    chart = Figure(figsize=(8, 2.2), layout="constrained")
    axes = chart.add_subplot()
    steps, people = list(figures.funnel), list(figures.funnel.values())
    bars = axes.barh(steps, people, **_KEPT)
    axes.bar_label(bars, [f"{count:,}" for count in people], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*people, 1]) * 1.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.set_xlabel("people")
    says = "; ".join(f"{step} {count:,}" for step, count in figures.funnel.items())
    return Chart("consent_funnel", f"Bars that grow shorter: {says}.", chart)


def _by_date(figures: Figures) -> Chart:
    """Of each source the rows that landed, and below the share that was rejected."""
    chart = Figure(figsize=(8, 4), layout="constrained")
    grid = chart.subplots(2, len(Source), sharex=True, squeeze=False)
    first, last = min(figures.dates), max(figures.dates)
    days = [first + timedelta(number) for number in range((last - first).days + 1)]
    for column, source in enumerate(Source):
        rows, rejects = (figures.rows[of(source).name] for of in (landing_table, rejects_table))
        landed = [rows.get(day, 0) for day in days]
        shares = [
            rejects.get(day, 0) / max(rows.get(day, 0) + rejects.get(day, 0), 1) for day in days
        ]
        above, below = grid[0][column], grid[1][column]
        above.set_title(source.value, fontsize=10, loc="left")
        above.stairs(landed, fill=True, color=_KEPT["facecolor"])
        above.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        above.yaxis.set_major_formatter(_THOUSANDS)
        above.set_ylim(0, max([*landed, 1]) * 1.05)
        below.stairs(shares, fill=True, color="#D55E00")
        below.axhline(MOST_REJECTED, color="black", linestyle="--", linewidth=1)
        below.yaxis.set_major_formatter(PercentFormatter(1))
        below.set_ylim(0, max([*shares, MOST_REJECTED]) * 1.2)
        ends = sorted({0, len(days) - 1})
        below.set_xticks([at + 0.5 for at in ends], [f"{days[at]:%Y-%m-%d}" for at in ends])
        below.get_xticklabels()[-1].set_ha("right" if len(ends) > 1 else "center")
    grid[0][0].set_ylabel("rows")
    grid[1][0].set_ylabel("rejected")
    says = (
        f"For each source, the rows that landed on each date from {first} to {last}, and the share "
        f"of records that was rejected, beside a dashed line at {MOST_REJECTED:.0%}, above which "
        "a day is held back."
    )
    return Chart("rows_and_rejects_by_date", says, chart)


def _rates(figures: Figures) -> Chart:
    """In how many seconds a phone, or a device, took how many readings."""
    chart = Figure(figsize=(8, 2.6), layout="constrained")
    grid = chart.subplots(1, len(figures.rates), squeeze=False)[0]
    told = []
    for axes, (source, rates) in zip(grid, figures.rates.items(), strict=True):
        seconds = sum(rates.seconds.values())
        shares = {many: count / seconds for many, count in rates.seconds.items()}
        axes.bar(list(shares), list(shares.values()), **_KEPT)
        axes.set_title(f"a {SUBJECTS[source]}", fontsize=10, loc="left")
        axes.set_xlabel("readings in a second")
        axes.set_xlim(0.3, max([*shares, 4]) + 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        most = max(shares, key=lambda many: shares[many], default=0)
        if shares:
            more = " or more" if most == MOST_READINGS else ""
            told.append(f"a {SUBJECTS[source]} most often took {most}{more} readings in a second")
    grid[0].set_ylabel("share of seconds with any")
    says = f"Bars: {' and '.join(told)}." if told else "There are no readings."
    return Chart("reading_rates", says, chart)
