"""Whether forked processes are as good as new ones, and die where they should."""

import signal
from multiprocessing import forkserver
from pathlib import Path

from stedi_assets_tests.end_to_end.forked import Dying, Telling, begin
from stedi_assets_tests.end_to_end.landing_files import customer, land
from stedi_assets_tests.storages import opened


def test_jobs_are_forked_from_a_process_of_one_thread_and_know_no_settings_but_their_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "one").mkdir()
    settings = {"STEDI_LAKE": "one", "STEDI_START_DATE": "soon"}
    job = begin("counts", output=tmp_path / "told", settings=settings)
    assert job.wait() == 1
    assert job.told() == "Error: STEDI_START_DATE is 'soon': set it to a date, YYYY-MM-DD\n"
    again = begin("counts", output=tmp_path / "told again", settings={"STEDI_LAKE": "one"})
    assert "machine_learning_curated" in again.succeeded()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    assert len([*Path(f"/proc/{server}/task").iterdir()]) == 1


def test_a_job_dies_at_each_point_of_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    settings = {"STEDI_LAKE": "lake"}
    told = tmp_path / "told"
    begin(
        "counts", output=told, settings=settings, prepare=Telling(tmp_path / "points")
    ).succeeded()
    points = (tmp_path / "points").read_text().splitlines()
    assert points[0] == "1 before exists"
    for number in (1, len(points)):
        job = begin("counts", output=told, settings=settings, prepare=Dying(number))
        assert job.wait() == -signal.SIGKILL
        assert job.told().endswith(f"killed at {points[number - 1]}\n")
    job = begin("counts", output=told, settings=settings, prepare=Dying(len(points) + 1))
    job.succeeded()


def test_of_a_run_that_is_killed_nothing_is_left_where_all_programs_have_temporary_files(
    tmp_path: Path,
) -> None:
    """Where nobody would remove it: what a run has not finished lies in its lake."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    land(opened(tmp_path / "lake"), "customer", "2023-08-06", customer("ann@x.com", "s"))
    settings = {"STEDI_LAKE": "lake", "TMPDIR": str(temporary)}
    dying = Dying(before="publish customer/landing_parquet/")
    job = begin("run", output=tmp_path / "told", settings=settings, prepare=dying)
    assert job.wait() == -signal.SIGKILL
    assert "killed at" in job.told()
    assert [*temporary.iterdir()] == []
