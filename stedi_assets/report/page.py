"""A report as one HTML page: headings, tables, charts in place, and nothing from anywhere else.

All that comes from figures is escaped. What it says of them, `figures.py` has counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from stedi_assets.privacy.policies import Policy
from stedi_assets.report.charts import SUBJECTS, Chart
from stedi_assets.report.figures import MOST_READINGS, REASONS, Account, Figures
from stedi_assets.tables import TABLES, Source, landing_table, rejects_table

_LATEST = 31
"""So many ingestion dates the table by date tells; the chart beside it shows all."""


_Value = str | int | float
"""What a cell says: a text, a number, or a share."""


@dataclass(frozen=True)
class _Wrong:
    """A cell that is not as it should be."""

    value: _Value


_Cell = _Value | _Wrong

_POLICIES = {
    Policy.REFERENCE: (
        "Under the policy reference all readings of a consenting person count, and all readings of "
        "a device that a curated customer holds. A pair is of one millisecond, of any two curated "
        "customers."
    ),
    Policy.STRICT: (
        "Under the policy strict phone readings count from the moment of the consent on, device "
        "readings where a curated holder of the device has such a phone reading of the same "
        "millisecond, and pairs of one and the same customer alone. Another policy gives other "
        "counts of the same landing files."
    ),
}

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; margin-bottom: 0; }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 2px solid #0072b2; }
p { margin: .5rem 0; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
caption { text-align: left; font-weight: bold; padding: .25rem 0; }
th, td { border-bottom: 1px solid #bbb; padding: .25rem .5rem; text-align: left;
         vertical-align: top; }
thead th { border-bottom: 2px solid #111; vertical-align: bottom; }
tbody th { font-weight: normal; }
tbody th[scope=rowgroup] { font-weight: bold; padding-top: .75rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.total > * { border-top: 1px solid #111; font-weight: bold; }
.wrong { color: #b00000; font-weight: bold; }
.verdict { border-left: .4rem solid #009e73; padding: .5rem 1rem; }
.verdict.wrong { border-color: #b00000; font-weight: normal; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
.small { color: #444; font-size: .875rem; }
@media (max-width: 50rem) {
  table { font-size: .75rem; }
  th, td { padding: .125rem .25rem; }
}
@media print {
  body { font-size: 10pt; max-width: none; margin: 0; padding: 0; }
  h2 { margin-top: 1.5rem; }
  h2, caption { break-after: avoid; }
  tr, figure, .verdict { break-inside: avoid; }
  thead { display: table-header-group; }
}
"""


def page(figures: Figures, charts: Mapping[str, Chart]) -> str:
    """The page.

    Args:
        figures: what it tells.
        charts: by their names.
    """
    problems = list(figures.problems())
    body = [_head(figures, problems)]
    if figures.dates:
        body += [
            *_section("What the tables hold", _counts(figures)),
            *_section("What was left out, and why", _left_out(figures, charts)),
            *_section("From customer to training data", _funnel(figures, charts)),
            *_section("Rows and rejects by ingestion date", _by_date(figures, charts)),
            *_section("Missing values", _nulls(figures)),
            *_section("Pairs of two people", _pairs(figures)),
            *_section("Reading rates", _rates(figures, charts)),
            *_section("What is stale", _stale(figures)),
        ]
    # What is not in the page is not loaded, whatever a browser may find in it.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>STEDI lakehouse report, {figures.at:%Y-%m-%d %H:%M} UTC</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>\n",
        ]
    )


def _head(figures: Figures, problems: Sequence[str]) -> str:
    verdict = (
        '<div class="verdict wrong"><p class="wrong">Not everything is as it should be:</p><ul>'
        + "".join(f"<li>{escape(problem)}</li>" for problem in problems)
        + "</ul></div>"
        if problems
        else '<p class="verdict">All figures add up, and every partition holds what it should.</p>'
    )
    return (
        "<h1>STEDI lakehouse report</h1>"
        f'<p class="small">Of {escape(figures.lake)}, on {figures.at:%Y-%m-%d at %H:%M} UTC, under '
        f"the policy {figures.policy}. It holds counts alone, and names nobody.</p>{verdict}"
    )


def _section(title: str, parts: Iterable[str]) -> Iterator[str]:
    yield f"<section><h2>{title}</h2>"
    yield from parts
    yield "</section>"


def _counts(figures: Figures) -> Iterator[str]:
    heads = ["table", "zone", "a row is", "rows", "by the rules"]
    heads += ["as stated"] if figures.stated else []
    rows: list[list[_Cell]] = []
    for account in figures.accounts:
        table = account.table
        row: list[_Cell] = [table.name, table.zone, table.description, account.rows]
        row.append(_held_against(account.expected, account.rows))
        if figures.stated:
            stated = figures.stated.get(table.name)
            row.append("not stated" if stated is None else _held_against(stated, account.rows))
        rows.append(row)
    yield _table("Rows of the eight tables", heads, rows)
    yield _paragraph(_POLICIES[figures.policy])
    yield _paragraph(
        "“By the rules” is what a table should hold by what it is made from and by the consents of "
        "today, counted apart from the definitions that made it."
        + (
            " “As stated” is what whoever made the landing files says that the tables must hold; "
            "after an erasure, or with other files beside them, they hold something else."
            if figures.stated
            else ""
        )
    )


def _held_against(count: int, rows: int) -> _Cell:
    return count if count == rows else _Wrong(count)


def _left_out(figures: Figures, charts: Mapping[str, Chart]) -> Iterator[str]:
    yield _paragraph(
        "What each table is made from, what of that is left out, and the rows that are left. A row "
        "is left out for the first reason that holds, in this order."
    )
    yield _chart(charts["left_out"], "Of what each table is made from, what it holds")
    body = "".join(_account(account) for account in figures.accounts)
    yield (
        "<table><caption>Where the rows of each table come from</caption>"
        f'<thead><tr><th scope="col">what</th>{_number_head("how many")}</tr></thead>{body}</table>'
    )
    met = {reason for account in figures.accounts for reason in account.by_reason}
    meanings: list[list[_Cell]] = [[why, means] for why, means in REASONS.items() if why in met]
    yield _table("What the reasons mean", ["left out", "because"], meanings)


def _account(account: Account) -> str:
    rows = [_row([account.taken_from, account.taken])]
    rows += [_row([f"left out: {why}", count]) for why, count in account.left_out.items()]
    rows.append(_row([f"rows of {account.table.name}", account.rows], "total"))
    if account.lost > 0:
        rows.append(_row([_Wrong("in no table, and not left out"), _Wrong(account.lost)]))
    if account.lost < 0:
        rows.append(_row([_Wrong("too many"), _Wrong(-account.lost)]))
    name = f'<tr><th scope="rowgroup" colspan="2">{account.table.name}</th></tr>'
    return f"<tbody>{name}{''.join(rows)}</tbody>"


def _funnel(figures: Figures, charts: Mapping[str, Chart]) -> Iterator[str]:
    yield _chart(charts["consent_funnel"], "How many people come how far")
    whole = max(next(iter(figures.funnel.values())), 1)
    rows: list[list[_Cell]] = [
        [step, count, count / whole] for step, count in figures.funnel.items()
    ]
    yield _table("People, by how far they come", ["who", "people", "of all"], rows)


def _by_date(figures: Figures, charts: Mapping[str, Chart]) -> Iterator[str]:
    yield _chart(charts["rows_and_rejects_by_date"], "Above rows, below the share of rejects")
    rows = [
        [source.value, _Wrong(found.sentence) if found.is_error else found.sentence]
        for source, found in figures.rejects.items()
    ]
    yield _table("Rejects", ["source", "what was found"], rows)
    shown = list(figures.dates)[-_LATEST:]
    tables = [of(source).name for source in Source for of in (landing_table, rejects_table)]
    heads = ["ingestion date", *(name.replace("_", " ") for name in tables)]
    by_date: list[list[_Cell]] = [
        [str(day), *(figures.rows[name].get(day, 0) for name in tables)] for day in shown
    ]
    which = (
        f"the latest {_LATEST} of {len(figures.dates):,} dates"
        if len(shown) < len(figures.dates)
        else "all dates"
    )
    yield _table(f"Rows and rejects of {which}", heads, by_date)


def _nulls(figures: Figures) -> Iterator[str]:
    rows: list[list[_Cell]] = []
    for (table, column), count in figures.nulls.items():
        if count:
            total = sum(figures.rows[table.name].values())
            means: _Cell = column.null_means or _Wrong("the column is required")
            rows.append([table.name, column.name, count, count / total, means])
    if rows:
        heads = ["table", "column", "missing", "of its rows", "what that means"]
        yield _table("Columns with missing values", heads, rows)
    whole = sum(not count for count in figures.nulls.values())
    yield _paragraph(
        f"{whole:,} of {len(figures.nulls):,} columns have a value in every row, in "
        f"{len(TABLES)} tables, the rejects among them."
    )


def _pairs(figures: Figures) -> Iterator[str]:
    total = sum(figures.rows["machine_learning_curated"].values())
    rows: list[list[_Cell]] = [
        [who, count, count / max(total, 1)]
        for who, count in {
            "of one customer": total - figures.strangers,
            "of two customers": figures.strangers,
        }.items()
    ]
    yield _table(
        "Pairs in machine_learning_curated", ["phone and device are", "pairs", "of all"], rows
    )
    yield _paragraph(
        "Phone and device are joined by time alone, so that two people's readings of the same "
        "millisecond meet. The column same_customer tells them apart, and the policy strict leaves "
        "them out."
    )


def _rates(figures: Figures, charts: Mapping[str, Chart]) -> Iterator[str]:
    yield _chart(charts["reading_rates"], "How many readings there are in a second with any")
    rows: list[list[_Cell]] = [
        [
            f"a {SUBJECTS[source]}",
            rates.subjects,
            rates.readings,
            sum(rates.seconds.values()),
            rates.quartiles[1] if rates.quartiles else "none",
            " to ".join(map(str, rates.quartiles[::2])),
        ]
        for source, rates in figures.rates.items()
    ]
    heads = ["of", "how many there are", "readings", "seconds with any", "median", "middle half"]
    yield _table("Readings a second, of people who consent", heads, rows)
    yield _paragraph(
        "Counted is, in each second in which a phone or a device took any reading, how many it "
        f"took; the chart has {MOST_READINGS} and more together."
    )


def _stale(figures: Figures) -> Iterator[str]:
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for stale in figures.stale:
        more = (1, stale.missing, stale.extra, stale.changed)
        key = (stale.table.name, stale.reason)
        found[key] = [old + new for old, new in zip(found[key], more, strict=True)]
    heads = ["table", "why", "partitions", "rows missing", "rows too many", "rows changed"]
    rows: list[list[_Cell]] = [
        [name, _Wrong(why), *counts] for (name, why), counts in found.items()
    ]
    if rows:
        yield _table("Partitions that are not what they should be", heads, rows)
    else:
        yield _paragraph("Nothing: every partition holds what its definition gives.")
    yield _paragraph(
        "Looked at were partitions whose files, inputs or definitions changed since they were "
        "found right; stedi status reads every row of all. stedi run puts right what is here."
    )


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _chart(chart: Chart, title: str) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><img src="{chart.address("svg")}" '
        f'alt="{escape(chart.says)}"></figure>'
    )


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[_Cell]]) -> str:
    """A table; each row begins with what it is about."""
    numbers = [
        all(_is_number(row[column]) for row in rows) and bool(rows) for column in range(len(heads))
    ]
    head = "".join(
        _number_head(name) if number else f'<th scope="col">{escape(name)}</th>'
        for name, number in zip(heads, numbers, strict=True)
    )
    body = "".join(_row(row) for row in rows)
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _number_head(name: str) -> str:
    return f'<th scope="col" class="number">{escape(name)}</th>'


def _row(cells: Sequence[_Cell], kind: str = "") -> str:
    first, *others = cells
    about = f'<th scope="row"{_class_of(first)}>{_text(first)}</th>'
    rest = "".join(f"<td{_class_of(cell)}>{_text(cell)}</td>" for cell in others)
    return f'<tr class="{kind}">{about}{rest}</tr>' if kind else f"<tr>{about}{rest}</tr>"


def _text(cell: _Cell) -> str:
    if isinstance(cell, _Wrong):
        return f"✗ {_text(cell.value)}"  # for who sees no red
    if isinstance(cell, float):
        return f"{cell:.1%}"
    return f"{cell:,}" if isinstance(cell, int) else escape(cell)


def _class_of(cell: _Cell) -> str:
    names = ["number"] * _is_number(cell) + ["wrong"] * isinstance(cell, _Wrong)
    return f' class="{" ".join(names)}"' if names else ""


def _is_number(cell: _Cell) -> bool:
    return isinstance(cell.value if isinstance(cell, _Wrong) else cell, int | float)
