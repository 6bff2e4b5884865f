"""Reports in the lake: where they are, which are kept, and what an erasure sees of them."""

from datetime import timedelta

import pytest

from stedi_assets.lake import Lake
from stedi_assets.report.report import KEPT
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.report.lakes import ANN, DEE, NOON, page_of, reported
from stedi_assets_tests.storages import root_of


def names(lake: Lake) -> list[str]:
    """The files in the folder of reports."""
    return sorted(path.name for path in root_of(lake).glob("reports/*"))


@pytest.mark.s3
@pytest.mark.long
def test_a_report_is_named_by_its_time_and_is_the_latest_as_well(town: Lake) -> None:
    before = reported(town)
    first = page_of(town)
    assert before.key == "reports/2023-08-08T12-00-00Z.html"
    assert (root_of(town) / before.key).read_bytes().decode() == first
    after = reported(town, NOON + timedelta(hours=1))
    assert names(town) == ["2023-08-08T12-00-00Z.html", "2023-08-08T13-00-00Z.html", "latest.html"]
    assert (root_of(town) / before.key).read_bytes().decode() == first
    assert (root_of(town) / after.key).read_bytes().decode() == page_of(town) != first


@pytest.mark.s3
def test_old_reports_are_removed_and_nothing_else_that_lies_beside_them(lake: Lake) -> None:
    folder = root_of(lake) / "reports"
    folder.mkdir(parents=True)
    (folder / "notes.html").write_text("somebody's own")
    old = [f"2022-01-{day:02}T{hour:02}-00-00Z.html" for hour in range(2) for day in range(1, 30)]
    for name in old:
        (folder / name).write_text("old")
    reported(lake)
    kept = names(lake)
    assert len(kept) == KEPT + len(["latest.html", "notes.html"])
    assert {"2023-08-08T12-00-00Z.html", "latest.html", "notes.html"} <= set(kept)
    assert set(kept) >= set(sorted(old)[-(KEPT - 1) :])


def test_the_same_lake_gives_the_same_page(town: Lake) -> None:
    reported(town)
    first = page_of(town)
    reported(town)
    assert page_of(town) == first


@pytest.mark.long
def test_an_erasure_finds_nothing_in_reports_for_nobody_is_in_them(town: Lake) -> None:
    reported(town)
    before = page_of(town)
    told = succeeded(stedi(town, "forget", DEE))
    assert "No trace of the person is left." in told
    assert page_of(town) == before
    assert "reports/" not in told


@pytest.mark.long
def test_an_erasure_tells_of_a_report_that_somebody_wrote_a_name_into(town: Lake) -> None:
    key = reported(town).key
    file = root_of(town) / key
    file.write_bytes(file.read_bytes().replace(b"</body>", f"<p>{ANN}</p></body>".encode()))
    done = stedi(town, "forget", ANN, "--dry-run")
    assert f"To be mended by hand: {key}" in done.stdout
