"""The page of a report: what stands in it, that it is sound HTML, and that it names nobody."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from stedi_assets.lake import Lake
from stedi_assets_tests.end_to_end.landing_files import customer, device, land, phone, run
from stedi_assets_tests.report.lakes import FIRST, SECOND, page_of, reported
from stedi_assets_tests.storages import AnyPath, opened, root_of

VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """A page, read by Python: its texts by where they stand, and its elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.inside: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if data.strip():
            self.inside.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def texts(self, tag: str) -> list[str]:
        """The texts right in elements of a kind."""
        return [text for name, text in self.inside if name == tag]


def test_a_page_tells_counts_reasons_people_rejects_nulls_pairs_rates_and_what_is_stale(
    town: Lake,
) -> None:
    reported(town)
    page = Page(page_of(town))
    assert page.texts("h2") == [
        "What the tables hold",
        "What was left out, and why",
        "From customer to training data",
        "Rows and rejects by ingestion date",
        "Missing values",
        "Pairs of two people",
        "Reading rates",
        "What is stale",
    ]
    rows = Counter(map(tuple, page.rows))
    for row in (
        ("left out: rejected: not valid JSON", "1"),
        ("left out: nobody's", "1"),
        ("left out: delivered before", "2"),
        ("rows of accelerometer_trusted", "32"),
        ("consent to research", "3", "75.0%"),
        (FIRST, "4", "0", "34", "1", "7", "0"),
        (SECOND, "1", "0", "2", "0", "2", "0"),
        ("of two customers", "3", "42.9%"),
        ("a phone", "2", "32", "2", "2", "2 to 30"),
    ):
        assert rows[row], row
    assert "All figures add up, and every partition holds what it should." in page.texts("p")
    assert not [attributes for _, attributes in page.elements if _is_wrong(attributes)]


def _is_wrong(attributes: dict[str, str | None]) -> bool:
    return "wrong" in (attributes.get("class") or "").split()


@pytest.mark.long
def test_under_the_policy_strict_a_page_says_why_it_counts_otherwise(strict_town: Lake) -> None:
    reported(strict_town)
    text = page_of(strict_town)
    assert "phone readings count from the moment of the consent on" in text
    assert "left out: before the consent" in text
    assert "left out: no phone reading then" in text


def test_what_is_wrong_is_red_and_marked_where_it_is_and_told_at_the_top(town: Lake) -> None:
    for file in root_of(town).glob("accelerometer/trusted/*/*.parquet"):
        file.unlink()
    reported(town)
    page = Page(page_of(town))
    told = page.texts("li")
    assert "accelerometer_trusted is missing: it has no partition." in told
    assert "accelerometer_trusted does not add up: 32 are in no table and not left out." in told
    wrong = [cell for row in page.rows for cell in row if cell.startswith("✗")]
    assert {"✗ in no table, and not left out", "✗ 32", "✗ missing"} <= set(wrong)
    red = [tag for tag, attributes in page.elements if _is_wrong(attributes)]
    assert Counter(red)["td"] + Counter(red)["th"] == len(wrong)


def test_of_an_empty_lake_a_page_says_so_and_nothing_else(lake: Lake) -> None:
    root_of(lake).mkdir()
    reported(lake)
    page = Page(page_of(lake))
    assert page.texts("li") == ["The lake is empty: there are no landing files and no tables."]
    assert page.texts("h2") == []


def test_a_page_is_sound_html_that_who_does_not_see_can_read(town: Lake) -> None:
    reported(town)
    html = page_of(town)
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert len(page.all("table")) == len(page.all("caption")) > 5
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row", "rowgroup"}
    for picture in page.all("img"):
        assert len(picture["alt"] or "") > 40
    assert len(page.all("img")) == len(page.all("figcaption")) == 4


def test_charts_are_drawings_that_a_printer_makes_sharp(town: Lake) -> None:
    reported(town)
    for picture in Page(page_of(town)).all("img"):
        kind, _, content = (picture["src"] or "").partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")


def test_a_page_leads_nowhere_and_loads_nothing(town: Lake) -> None:
    reported(town)
    page = Page(page_of(town))
    addresses = [
        address
        for _, attributes in page.elements
        for name in ("src", "href", "srcset", "action", "data", "poster")
        if (address := attributes.get(name)) is not None
    ]
    assert len(addresses) > 4
    assert not [address for address in addresses if not address.startswith("data:")]
    assert not page.all("script")
    assert not re.search(r"url\(|@import", page_of(town))


# Whatever people are called.

TAG = "<img src=x onerror=alert(1)>"
HOSTILE = [
    f'"{TAG}@test.com',
    "'><script>alert(2)</script>@test.com",
    "&lt;b&gt;&amp;@test.com",
    "]]>--></style></title><h2>@test.com",
    "{0}%s$HOME${x}\\N@test.com",
    "ann\u202e\u0000\u2028@test.com",
]


@pytest.fixture
def hostile(lakes: AnyPath) -> Lake:
    """A lake whose people, devices, broken records and files are named to break a page."""
    lake = opened(lakes / 'lake "&amp; <b>')
    for number, email in enumerate(HOSTILE):
        land(
            lake,
            "customer",
            FIRST,
            customer(email, f"{email} device", customerName=f"{TAG} {number}", phone=TAG),
            name=f"<script>alert({number})<-script>.json",
        )
        readings = [phone(email, time) for time in range(100, 130)]
        broken = [json.dumps({"user": f"{TAG}{email}"})[:-1]] * (number % 2)
        land(lake, "accelerometer", FIRST, *readings, *broken, name=f"{number}.json")
        land(lake, "step_trainer", FIRST, device(100, f"{email} device"), name=f"{number}.json")
    land(lake, "customer", "1999-01-01", customer(HOSTILE[0], "s"), name=f"{TAG}.json")
    assert run(lake, FIRST).success
    return lake


def test_nothing_of_a_person_is_in_a_page_whatever_people_are_called(hostile: Lake) -> None:
    report = reported(hostile)
    assert sum(report.figures.funnel.values()) == 4 * len(HOSTILE)
    html = page_of(hostile)
    for trace in ("test.com", "alert", "onerror", "Name of", "device</", "<script", "&lt;script"):
        assert trace not in html, trace
    page = Page(html)
    assert page.open == []
    assert len(page.all("img")) == 4
    assert len(page.texts("h2")) == 8


@pytest.mark.long
def test_the_lake_s_own_name_is_shown_as_it_is(hostile: Lake) -> None:
    reported(hostile)
    (said,) = [text for text in Page(page_of(hostile)).texts("p") if text.startswith("Of ")]
    assert '/lake "&amp; <b>, on 2023-08-08 at 12:00 UTC' in said
