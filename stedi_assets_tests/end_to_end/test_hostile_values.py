"""Values that would be SQL, shell, HTML or a terminal's commands, through every command of `stedi`.

They come as data, file names, names of people to forget, of snapshots, databases and tables, and
with a mask that lets everybody read and write whatever is made. DuckDB notes every query.
"""

import csv
import os
import re
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stedi_assets.lake import Lake
from stedi_assets.lake.storage import make_folder
from stedi_assets_tests.end_to_end.forked import Job, begin
from stedi_assets_tests.end_to_end.histories import Place, oracle, stored_rows, verify
from stedi_assets_tests.end_to_end.landing_files import Record, customer, device, land, phone
from stedi_assets_tests.end_to_end.watched import Watched
from stedi_assets_tests.storages import only_on_disk, opened

pytestmark = [pytest.mark.long, only_on_disk("modes are a disk's")]

VALUE, NAME, SECRET = "zq9x", "fq7y", "kq5z"
"""What is in each hostile value, in each hostile name of a file or folder, and in the key."""
EVIL = f"""{VALUE}'); DROP TABLE landed; --"; COPY x TO '/tmp/{VALUE}'; <script>$(id){{{{1}}}}"""
ESCAPE = "\x1b]0;owned\x07\x1b[2J"
ANN, BOB = f"ann.{EVIL}@test.com", f"bob.{VALUE}\\' OR 1=1 --@test.com"
SERIAL = f"serial.{EVIL}"
FILE = f"""a{NAME}'; DROP TABLE landed; -- "{ESCAPE}[*]?.json"""
KEY = f"""{SECRET}'); DROP TABLE landed; --"""
DAY = "2023-08-06"

FILES: dict[Place, list[Record]] = {
    ("customer", DAY, FILE): [
        customer(ANN, SERIAL, customerName=EVIL, phone=EVIL, birthDay=EVIL),
        customer(BOB, "another", customerName=ESCAPE),
    ],
    ("accelerometer", DAY, FILE): [phone(ANN, 100), phone(BOB, 100), phone(EVIL, 100)],
    ("step_trainer", DAY, FILE): [device(100, SERIAL), device(100, EVIL)],
    # So many good ones that the date is not held back for the one that is spoilt.
    ("step_trainer", DAY, "many.json"): [device(moment, "nobody") for moment in range(200, 400)],
}
DOUBTFUL = "step_trainer/landing/ingestion_date=never"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("hostile")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def lake(folder: Path) -> Lake:
    found = opened(folder / f"la'ke;{NAME} \"--")
    root = found.storage.folder
    root.mkdir(0o755)
    for (source, day, name), records in FILES.items():
        land(found, source, day, *records, name=name)
    spoilt = root / "step_trainer" / "landing" / f"ingestion_date={DAY}" / "spoilt.json"
    spoilt.write_text(f"{EVIL}{ESCAPE}\n")
    misplaced = root / DOUBTFUL / FILE
    misplaced.parent.mkdir()
    misplaced.write_text("{}")
    return found


@pytest.fixture(scope="module")
def stedi(folder: Path, lake: Lake) -> Callable[..., Job]:
    home, temporary = folder / "home", folder / "tmp"
    for path in (home, temporary, folder / "queries"):
        path.mkdir()
    shutil.copy(Path(__file__).parents[2] / "dagster_home" / "dagster.yaml", home)
    settings = {
        "STEDI_LAKE": str(lake.storage.folder),
        "STEDI_PSEUDONYM_KEY": KEY,
        "DAGSTER_HOME": str(home),
        "TMPDIR": str(temporary),
        "HOME": str(folder),
        "USER": "keeper",
    }
    numbers = iter(range(100))

    def start(*arguments: str, dies_before: str = "", **more: str) -> Job:
        job = begin(
            *arguments,
            output=folder / f"told {next(numbers)}",
            settings=settings | more,
            prepare=Watched(folder / "queries", dies_before),
        )
        job.wait()
        return job

    return start


@pytest.fixture(scope="module")
def done(lake: Lake, stedi: Callable[..., Job]) -> dict[str, Job]:
    """Every command, once, over the lake of hostile values; what some printed, by its name."""
    killed = stedi("run", dies_before="publish step_trainer/landing_parquet")
    assert killed.wait() == -signal.SIGKILL, killed.told()
    return {
        "killed": killed,
        "run": stedi("run"),
        "status": stedi("status"),
        "report": stedi("report"),
        "snapshot": stedi("snapshot", "walks"),
        "find": stedi("forget", ANN, "--dry-run"),
        "held": stedi("snapshots", "--subject", BOB),
    }


def test_tables_hold_hostile_values_as_they_hold_any(lake: Lake, done: dict[str, Job]) -> None:
    assert "  ERROR" not in done["run"].told()
    expected, found = oracle(FILES, KEY), stored_rows(lake)
    rejected = found["step_trainer_rejects"][DAY]
    assert sum(len(row[3]) for row in rejected) == len(EVIL + ESCAPE)
    assert all(row[3] in EVIL + ESCAPE for row in rejected)
    expected["step_trainer_rejects"][DAY] = rejected
    verify(found, expected)
    assert found["machine_learning_curated"][DAY].total() > 0
    assert "Every partition" in done["status"].told()
    assert "machine_learning" in done["find"].told()
    assert "No snapshot held" not in done["held"].told()


def test_no_value_is_in_the_text_of_a_query_and_no_path_outside_of_quotes(
    folder: Path, done: dict[str, Job]
) -> None:
    assert done
    queries = "\n".join(
        entry["message"]
        for file in (folder / "queries").glob("*/duckdb_log_entries.csv")
        for entry in csv.DictReader(file.read_text().splitlines(keepends=True))
    )
    assert queries.count("SELECT") > 500
    assert VALUE not in queries
    assert SECRET not in queries
    assert NAME in queries
    assert NAME not in re.sub(r"'(?:[^']|'')*'", "''", queries)


def test_names_that_are_none_are_refused_and_touch_nothing(
    folder: Path, lake: Lake, done: dict[str, Job], stedi: Callable[..., Job]
) -> None:
    assert done
    root = lake.storage.folder

    def files() -> dict[Path, int]:
        there = (path for path in folder.rglob("*") if not path.name.startswith("told "))
        return {path: path.stat().st_mtime_ns for path in there}

    before = files()
    for name in ("../../erasures/a", "/etc/a", ".hidden", f"a'{VALUE}\n"):
        refused = stedi("snapshot", name)
        assert refused.wait() == 1
        assert "is no name for a snapshot" in refused.told()
    for select in ("__import__('os').system('id')", f"key:{EVIL}"):
        refused = stedi("run", "--select", select)
        assert refused.wait() == 2
        assert "Error" in refused.told()
    after = files()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    aside = {folder, folder / "tmp", root / "_staging"}
    assert [
        path for path in changed - aside if folder / "queries" not in (path, *path.parents)
    ] == []


def test_a_databases_name_is_quoted_in_ddl(stedi: Callable[..., Job]) -> None:
    on_s3 = {"STEDI_LAKE": "s3://bucket/lake", "AWS_DEFAULT_REGION": "us-east-1"}
    told = stedi("ddl", "--database", "a`; DROP TABLE `b", **on_s3).succeeded()
    assert told.count("EXISTS `a``; DROP TABLE ``b`.`") == told.count("TABLE IF NOT EXISTS")


def test_nothing_that_is_printed_or_kept_of_runs_holds_a_value_the_key_or_what_terminals_obey(
    folder: Path, lake: Lake, done: dict[str, Job]
) -> None:
    told = {name: job.told() for name, job in done.items()}
    for name, text in told.items():
        assert VALUE not in text, name
        assert SECRET not in text, name
        assert all(letter.isprintable() or letter == "\n" for letter in text), name
    assert rf"{DOUBTFUL}/a{NAME}'; DROP" in told["run"]
    assert r"\x1b]0;owned\x07" in told["run"]
    kept = [path for path in (folder / "home").rglob("*") if path.is_file()]
    kept += (lake.storage.folder / "reports").iterdir()
    kept += [lake.storage.folder / "stedi.duckdb", *(lake.storage.folder / "snapshots").iterdir()]
    assert len(kept) > 6
    for path in kept:
        content = path.read_bytes()
        assert VALUE.encode() not in content, path
        assert SECRET.encode() not in content, path


def reachable(folder: Path) -> Iterator[Path]:
    """What is below a folder and another user can read or write, or look into, getting there."""
    for path in folder.iterdir():
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink() or not mode & stat.S_IRWXO:
            continue
        yield path
        if path.is_dir():
            yield from reachable(path)


def test_nobody_else_can_read_or_write_anything_that_was_made(
    folder: Path, lake: Lake, done: dict[str, Job]
) -> None:
    root = lake.storage.folder
    assert done["killed"].wait() == -signal.SIGKILL
    of_producers = {root / source for source in ("customer", "accelerometer", "step_trainer")}
    for path in reachable(root):
        assert path in of_producers or "landing" in path.relative_to(root).parts, path
    assert (
        list(reachable(folder / "home")) == []
        or stat.S_IMODE((folder / "home").stat().st_mode) == 0o700
    )
    assert list(reachable(folder / "tmp")) == []
    assert {path.name for path in folder.iterdir() if "told" not in path.name} == {
        "queries",
        "home",
        "tmp",
        root.name,
    }, "nothing is left in the working directory"


def test_what_a_killed_run_leaves_nobody_else_can_read(
    folder: Path, lake: Lake, done: dict[str, Job], stedi: Callable[..., Job]
) -> None:
    assert done
    (lake.storage.folder / "customer" / "trusted" / f"ingestion_date={DAY}").rename(folder / "gone")
    killed = stedi("run", dies_before="publish customer/trusted")
    assert killed.wait() == -signal.SIGKILL
    left = [path for path in (lake.storage.folder / "_staging").rglob("*") if path.is_file()]
    assert left, "what was to be published"
    assert list(reachable(lake.storage.folder / "_staging")) == []
    assert list(reachable(folder / "tmp")) == []
    assert "Reconciliation" in stedi("run").told()
    assert list((lake.storage.folder / "_staging").iterdir()) == []


def test_a_lake_that_is_made_is_closed_to_others_and_open_to_the_group_that_the_mask_lets_in(
    tmp_path: Path,
) -> None:
    for mask, mode in ((0o000, 0o770), (0o022, 0o750), (0o077, 0o700)):
        before = os.umask(mask)
        try:
            make_folder(tmp_path / f"{mask}" / "lake")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mask}" / "lake").stat().st_mode) == mode
