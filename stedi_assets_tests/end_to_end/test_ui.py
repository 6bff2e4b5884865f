"""What people see who open the UI: the graph, a run that they start by a click, every table.

`python -m stedi_assets_tests.end_to_end.test_ui` takes the pictures in docs/images.
"""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from stedi_assets.checks import checks_of
from stedi_assets.sample_data import FIRST_DAY, write_sample
from stedi_assets.tables import TABLES, Table, Zone
from stedi_assets_tests.browser import HEIGHT, WIDTH, Tab, chromium
from stedi_assets_tests.end_to_end.dagster_dev import PATIENCE, ROOT, dagster_dev, new_home
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.end_to_end.test_names_nobody import named_in
from stedi_assets_tests.storages import files_in, opened

pytestmark = pytest.mark.long

IMAGES = ROOT / "docs" / "images"
DAYS = 4

MOMENT = re.compile(r"\b1[67]\d{11}\b")
"""Epoch milliseconds of our days, as readings have them."""


@dataclass(frozen=True)
class UI:
    """The UI, and what is behind it.

    Attributes:
        tab: a browser's, in which it can be opened.
        address: where it is.
        lake: the folder of the lake.
        days: the ingestion dates on which files have landed.
        pictures: where to keep pictures; nowhere, without a folder.
    """

    tab: Tab
    address: str
    lake: Path
    days: list[date]
    pictures: Path | None

    @property
    def page(self) -> Page:
        """What the tab shows."""
        return self.tab.page

    def open(self, path: str) -> None:
        self.page.goto(f"{self.address}/{path}")

    def text(self) -> str:
        """All that can be read on the page."""
        return self.page.locator("body").inner_text()

    def take_picture(self, name: str, clip: FloatRect | None = None) -> None:
        if self.pictures:
            self.page.screenshot(path=self.pictures / f"{name}.png", clip=clip)


def sample_of_the_last_days(lake: Path) -> list[date]:
    """Write a sample whose files landed on the days before today, and give those days.

    Dagster plots the latest partitions alone, and those of a sample are of 2023.
    """
    write_sample(lake, customers=40, days=DAYS, seed=3)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    later = yesterday - (FIRST_DAY + timedelta(days=DAYS - 1))
    days = set()
    for path in sorted(lake.glob("*/landing/*.json")):
        stamp = path.stem.rpartition("-")[2]
        day = datetime.fromtimestamp(int(stamp) / 1000, UTC).date() + later
        folder = path.parent / f"ingestion_date={day}"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
        days.add(day)
    return sorted(days)


def answers(port: int) -> bool:
    """Whether a server listens; Dagster says that it serves a moment before it does."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def opened_ui(folder: Path, pictures: Path | None = None) -> Iterator[UI]:
    """`dagster dev` over a lake that is up to date, and a browser.

    Args:
        folder: an empty one, for lake and Dagster home.
        pictures: see `UI`.
    """
    home, lake = new_home(folder / "home"), opened(folder / "lake")
    days = sample_of_the_last_days(folder / "lake")
    settings = {"STEDI_START_DATE": str(days[0])}
    succeeded(stedi(lake, "run", DAGSTER_HOME=str(home), **settings))
    with dagster_dev(home, lake, **settings) as dev, chromium() as tab:
        dev.wait_until("there", lambda: answers(dev.port))
        tab.page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        yield UI(tab, f"http://127.0.0.1:{dev.port}", folder / "lake", days, pictures)


def test_the_graph_a_run_and_every_table_can_be_seen_and_no_row_below_curated(
    tmp_path: Path,
) -> None:
    with opened_ui(tmp_path) as ui:
        look_at_everything(ui)


def look_at_everything(ui: UI) -> None:
    a_day_is_materialized_by_clicks(ui)
    naming = {name.decode() for name in named_in(ui.lake)}
    assert len(naming) > 50
    for table in TABLES.values():
        a_table_says_what_it_is(ui, table)
        figures_are_plotted_over_the_dates(ui, table)
        only_curated_tables_show_rows(ui, table, naming)
    checks_tell_sentences_with_figures(ui, TABLES["machine_learning_curated"])
    jobs_say_what_they_do(ui)
    all_tables_are_in_three_groups(ui)
    assert ui.tab.errors == []


def all_tables_are_in_three_groups(ui: UI) -> None:
    page = ui.page
    groups_there_are = len(Zone) + len(["reports"])
    page.set_viewport_size({"width": 4400, "height": 3800})  # in a smaller one names are cut
    ui.open("asset-groups")
    expect(page.get_by_label("unfold_more")).to_have_count(groups_there_are)
    page.keyboard.press("Alt+KeyE")
    groups = page.locator("foreignObject.group")
    expect(groups).to_have_count(groups_there_are)
    boxes = {zone: box_of(drawn(groups, zone)) for zone in Zone}
    for name, table in TABLES.items():
        box = box_of(drawn(page.locator("foreignObject:not(.group)"), name))
        assert [zone for zone in Zone if is_in(box, boxes[zone])] == [table.zone]
    around = [group.bounding_box() for group in groups.all()]
    ui.take_picture("graph", clip_around([box for box in around if box]))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def drawn(nodes: Locator, name: str) -> Locator:
    """The one that has a name."""
    node = nodes.filter(has=nodes.page.get_by_text(name, exact=True))
    expect(node).to_have_count(1)
    return node


def box_of(node: Locator) -> tuple[float, ...]:
    """Left, top, right and bottom of something in the graph, as the graph counts."""
    x, y, width, height = (
        float(node.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")
    )
    return x, y, x + width, y + height


def is_in(inner: tuple[float, ...], outer: tuple[float, ...]) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def clip_around(boxes: list[FloatRect]) -> FloatRect:
    left, top = min(box["x"] for box in boxes) - 20, min(box["y"] for box in boxes) - 20
    right = max(box["x"] + box["width"] for box in boxes) + 20
    bottom = max(box["y"] + box["height"] for box in boxes) + 20
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def a_day_is_materialized_by_clicks(ui: UI) -> None:
    page, day = ui.page, ui.days[1]
    before = files_in(ui.lake, "*/landing_parquet/*/part-0.parquet")
    ui.open("asset-groups")
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")
    partitions = dialog.get_by_role("textbox").first
    partitions.fill(str(day))
    partitions.press("Enter")
    dialog.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("View", exact=True).click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.reload()  # for the picture, in which else some steps seem not to have ended
    expect(page.get_by_text("Executing (0)", exact=True)).to_be_visible()
    expect(page.get_by_text("STEP_START", exact=True).first).to_be_visible()
    ui.take_picture("run")
    after = files_in(ui.lake, "*/landing_parquet/*/part-0.parquet")
    changed = {path for path in after if after[path] != before.get(path)}
    assert {Path(path).parent.name for path in changed} == {f"ingestion_date={day}"}
    assert len(changed) == 3


def a_table_says_what_it_is(ui: UI, table: Table) -> None:
    page = ui.page
    ui.open(f"assets/{table.name}")
    expect(page.get_by_text(table.description, exact=True).first).to_be_visible()
    for column in table.columns:
        expect(page.get_by_text(column.name, exact=True).first).to_be_visible()
        assert column.description in ui.text()
    told = ui.text()
    for word in (table.zone, table.owner.removeprefix("team:"), "DuckDB", "Parquet"):
        assert re.search(rf"^{word}$", told, re.MULTILINE), word
    assert ("Freshness policy" in told) == table.grows_daily
    address = page.get_by_role("link", name="in editor").get_attribute("href") or ""
    assert Path(re.sub(r"^\w+://file(.*):\d+$", r"\1", address)).is_file()


def figures_are_plotted_over_the_dates(ui: UI, table: Table) -> None:
    page = ui.page
    page.get_by_text("Plots", exact=True).click()
    figures = {"bytes", "dagster/partition_row_count"}
    if not table.name.endswith("_rejects"):
        figures |= {"seconds", "rows_a_second"}
    if table.name.endswith("_landing"):
        figures |= {"rejects"}
    if table.name == "customer_landing":
        figures |= {"share_of_consent"}
    for figure in figures:
        expect(page.get_by_text(figure, exact=True)).to_be_visible()
    expect(page.locator("canvas")).to_have_count(len(figures))
    page.get_by_text("Table", exact=True).click()
    expect(page.get_by_placeholder("Filter metadata keys")).to_be_visible()


def only_curated_tables_show_rows(ui: UI, table: Table, naming: set[str]) -> None:
    page, is_curated = ui.page, table.zone is Zone.CURATED
    told = [ui.text()]
    if table.name == "machine_learning_curated":
        page.set_viewport_size({"width": 1800, "height": 1250})
        page.get_by_text("nulls", exact=True).scroll_into_view_if_needed()
        ui.take_picture(table.name)
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    for view in (f"partitions&partition={ui.days[1]}", "events"):
        ui.open(f"assets/{table.name}?view={view}")
        expect(page.get_by_text("dagster/partition_row_count", exact=True)).to_be_visible()
        told.append(ui.text())
    for text in told:
        assert ("preview" in text.split()) == is_curated
        assert bool(MOMENT.search(text)) == is_curated
        assert not [name for name in naming if name in text.lower()]


def checks_tell_sentences_with_figures(ui: UI, table: Table) -> None:
    page = ui.page
    for name in [*checks_of(table), "up_to_date"]:
        ui.open(f"assets/{table.name}?view=checks&checkDetail={name}")
        found = page.locator("tr").filter(has=page.get_by_text("finding", exact=True)).first
        sentence = found.inner_text().partition("finding")[2].strip()
        assert re.search(r"\d", sentence), (name, sentence)
        assert len(sentence.split()) > 4, (name, sentence)


def jobs_say_what_they_do(ui: UI) -> None:
    for name, words in {
        "bring_up_to_date": "makes all tables",
        "reconcile": "Makes every partition again",
        "forget": "Erases everything of a person",
        "sample_files": "Writes made-up landing files",
    }.items():
        ui.open(f"locations/stedi_assets.definitions/jobs/{name}")
        expect(ui.page.get_by_text(words).first).to_be_visible()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, opened_ui(Path(folder), IMAGES) as ui:
        look_at_everything(ui)
