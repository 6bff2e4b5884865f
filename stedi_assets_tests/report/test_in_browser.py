"""The report in a real browser: without errors and without network, on screen and on paper.

`python -m stedi_assets_tests.report.test_in_browser` takes the picture in docs/images.
"""

import tempfile
from pathlib import Path

import pytest

from stedi_assets.lake import Lake
from stedi_assets_tests.browser import chromium
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.storages import opened

pytestmark = pytest.mark.long

PAPER = {"width": 700, "height": 1000}
"""A4 between its margins, in the browser's pixels."""
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "report.png"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with a small sample and a report."""
    return reported(tmp_path_factory.mktemp("sample"), "--customers", "60", "--days", "3")


def reported(folder: Path, *size: str) -> Lake:
    """A lake with a sample, all tables and a report, by three commands."""
    lake = opened(folder)
    succeeded(stedi(lake, "sample", *size))
    succeeded(stedi(lake, "run"))
    succeeded(stedi(lake, "report"))
    return lake


def test_a_report_opens_in_the_browser_without_errors_and_without_network(sample: Lake) -> None:
    address = Path(sample.storage.uri("reports/latest.html")).as_uri()
    with chromium(offline=True) as tab:
        tab.page.goto(address)
        assert "STEDI lakehouse report" in tab.page.title()
        assert tab.page.locator("h1").inner_text() == "STEDI lakehouse report"
        assert tab.page.get_by_text("All figures add up").is_visible()
        drawn = "images => images.map(image => image.complete && image.naturalWidth > 300)"
        assert tab.page.locator("img").evaluate_all(drawn) == [True] * 4
        for picture in tab.page.get_by_role("img").all():
            assert picture.is_visible()
        headings = tab.page.get_by_role("heading", level=2)
        assert headings.count() == 8
        assert tab.page.get_by_role("table", name="Rows of the eight tables").is_visible()
        assert tab.errors == []
        asked = [one for one in tab.requested if not one.startswith("data:")]
        assert asked == [address]


def test_nothing_that_gets_into_a_report_runs_or_is_loaded(sample: Lake, tmp_path: Path) -> None:
    html = Path(sample.storage.uri("reports/latest.html")).read_text()
    spoilt = tmp_path / "spoilt.html"
    inserted = "<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x.png'>"
    spoilt.write_text(html.replace("<body>", f"<body>{inserted}"))
    with chromium() as tab:
        tab.page.goto(spoilt.as_uri())
        assert "STEDI lakehouse report" in tab.page.title()
        assert len(tab.errors) == 2
        assert all("Content Security Policy" in error for error in tab.errors)


def test_a_report_fits_on_paper_and_on_a_narrow_screen(sample: Lake) -> None:
    address = Path(sample.storage.uri("reports/latest.html")).as_uri()
    with chromium(offline=True) as tab:
        tab.page.goto(address)
        for media, size in (("print", PAPER), ("screen", PAPER), ("screen", None)):
            tab.page.emulate_media(media=media)
            tab.page.set_viewport_size(size or {"width": 1440, "height": 900})
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert tab.page.evaluate(wide) <= 0, (media, size)
        pages = tab.page.pdf(format="A4").count(b"/Type /Page\n")
        assert 3 <= pages <= 12


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, chromium(offline=True) as tab:
        lake = reported(Path(folder) / "lake")
        tab.page.set_viewport_size({"width": 1100, "height": 1500})
        tab.page.goto(Path(lake.storage.uri("reports/latest.html")).as_uri())
        tab.page.screenshot(path=PICTURE)
