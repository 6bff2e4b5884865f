"""Hostile landing files: each ends as rows or rejects, in bounded time and memory; none is opened
that is no file.

`STEDI_TEST_SIZE` says how large the large ones are, in bytes, and `STEDI_TEST_FILES` how many the
tiny ones are; by default so that they are quick.
"""

import gzip
import multiprocessing
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from backports import zstd

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import open_lake
from stedi_assets.landing import records as module
from stedi_assets.landing.files import files_by_date
from stedi_assets.landing.reader import Day, count_records, read_days
from stedi_assets.privacy.erasure import find
from stedi_assets.resources import landed_now, open_engine
from stedi_assets.tables import Source
from stedi_assets_tests.landing import fuzz
from stedi_assets_tests.landing.hostile import (
    BOMBS,
    LARGE,
    LINES,
    PHONE,
    SMALL,
    put_what_is_no_file,
    write_small,
)
from stedi_assets_tests.landing.plain_reader import read_plainly

DAY = date(2023, 8, 6)
SIZE = int(os.environ.get("STEDI_TEST_SIZE", "70_000_000"))
FILES = int(os.environ.get("STEDI_TEST_FILES", "1_000"))
PHONES = Source.ACCELEROMETER
Found = tuple[int, list[tuple[str, int | None, str]], int]
"""How many rows; file, line and reason of each reject; and the reader's peak memory, in MB."""


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fuzz.Reader]:
    with fuzz.opened(tmp_path_factory.mktemp("hostile")) as opened:
        yield opened


@pytest.mark.parametrize("few", [0, 1000], ids=["together", "each by itself"])
def test_small_ones_are_read_like_plain_python_reads_them(reading: fuzz.Reader, few: int) -> None:
    one = fuzz.Landing(PHONES, {DAY: SMALL}, 2, fuzz.USUAL | {"_FEW": few})
    assert reading.difference(one) == ""


def test_in_them_is_what_they_are_to_try(tmp_path: Path) -> None:
    """The oracle, too, could take all for the same."""
    found = [read_plainly(PHONES, *of) for of in write_small(tmp_path).items()]
    reasons = Counter(reason for _, rejects in found for _, _, reason, _ in rejects)
    assert sum(len(rows) for rows, _ in found) > 200
    assert {
        "not valid JSON",
        "the file is binary, not text",
        "the file is not UTF-8 text",
        "the file cannot be decompressed",
        "user is given more than once",
        "timestamp is not a valid int64",
        "x is not a valid float64",
    } <= reasons.keys()


def test_random_ones_are_read_like_plain_python_reads_them(reading: fuzz.Reader) -> None:
    assert fuzz.find_difference(reading, 40, seed=8)[1] == ""


@pytest.mark.long
def test_many_random_ones_are_read_like_plain_python_reads_them(reading: fuzz.Reader) -> None:
    seed = int.from_bytes(os.urandom(3))
    print(f"seed {seed}")
    assert fuzz.find_difference(reading, 1500, seed)[1] == ""


def test_a_reader_that_loses_a_record_is_found_out_and_the_landing_is_made_small(
    reading: fuzz.Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fuzzer itself: a reader that takes 1e2 for a whole number would get past nobody."""
    honest = fuzz.read_days

    def forgetful(engine: DuckDBEngine, source: Source, days: dict[date, Day]) -> object:
        return honest(
            engine,
            source,
            {day: Day(dict([*of.files.items()][:1]), "") for day, of in days.items()},
        )

    monkeypatch.setattr(fuzz, "read_days", forgetful)
    _, told = fuzz.find_difference(reading, 200, seed=1)
    assert "seed 1, landing" in told
    assert "as little as" in told


# --- Large ones ------------------------------------------------------------------------------


def _read_here(paths: list[Path], folder: Path) -> Found:
    with open_engine(open_lake(str(folder))) as engine:
        files = {path.name: path for path in paths}
        rows, rejects = read_days(engine, PHONES, {DAY: Day(files, "")})
        execute = engine.connection.execute
        ((count,),) = execute(
            "SELECT count(*) FROM read_parquet($f)", {"f": str(rows[DAY])}
        ).fetchall()
        refused = execute(
            "SELECT file, line, reason FROM read_parquet($f, hive_partitioning = false)",
            {"f": str(rejects[DAY])},
        ).fetchall()
    return count, refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def read_apart(paths: list[Path], folder: Path) -> Found:
    """Read files in a process of its own, whose peak of memory is that of this reading."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_read_here, (paths, folder))


@pytest.mark.long
def test_large_ones_are_read_or_rejected_and_do_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "files"
    path.mkdir()
    for name, large in LARGE.items():
        large.write(path / name, SIZE)
        rows, rejects, memory = read_apart([path / name], tmp_path / "lake")
        print(f"{name}: {(path / name).stat().st_size:,} bytes, {rows:,} rows, {memory:,} MB")
        assert rows == large.rows(SIZE), name
        assert [reason for _, _, reason in rejects] == list(large.rejects), name
        assert memory < (2200 if large.rows(SIZE) > 1 else 900), name  # DuckDB may have 1600 MB
        (path / name).unlink()


# --- What decompresses to too much -----------------------------------------------------------


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNPACKED", 3_000_000)
    monkeypatch.setattr(module, "_RATIO", 20)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("days", [1, 2])
def test_what_decompresses_to_too_much_is_one_reject_and_others_go_on(
    tmp_path: Path, reading: fuzz.Reader, monkeypatch: pytest.MonkeyPatch, name: str, days: int
) -> None:
    """Whether its day is read alone or with another one."""
    seen: list[int] = []
    read_together = fuzz.reader._DayReader._read_together

    def spy(self: fuzz.reader._DayReader, files: list[Path]) -> None:
        seen.extend(file.stat().st_size for file in files if file.name == name)
        read_together(self, files)

    monkeypatch.setattr(fuzz.reader._DayReader, "_read_together", spy)
    BOMBS[name](tmp_path / name, 30_000_000)
    (tmp_path / "a.json").write_text(LINES)
    bomb, good = {name: tmp_path / name}, {"a.json": tmp_path / "a.json"}
    dates = {DAY: bomb | good, date(2023, 8, 7): good, date(2023, 8, 8): good}
    wanted = {day: Day(files, "") for day, files in list(dates.items())[: 2 * days - 1]}
    written = read_days(reading.engine, PHONES, wanted)
    for day in wanted:
        found, refused = (reading.rows(files, day) for files in written)
        assert len(found) == 2
        limit = max(3_000_000, 20 * bomb[name].stat().st_size)
        why = f"the file decompresses to more than {limit:,} bytes"
        assert refused == ([(name, None, why, None)] if day == DAY else [])
    assert seen == [], "DuckDB, which knows no limit, has been given it"
    assert count_records([bomb[name]]) == 1


def test_the_ratio_lets_files_pass_that_compress_very_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a phone that lies still only the time goes on; packed as well as zstd can."""
    monkeypatch.setattr(module, "_UNPACKED", 1)
    still = "".join(
        f"{PHONE.replace('455341', str(n + 100_000))}\n" for n in range(50_000)
    ).encode()
    for name, packed in (
        ("a.json.gz", gzip.compress(still, 9)),
        ("a.json.zst", zstd.compress(still, 19)),
    ):
        (tmp_path / name).write_bytes(packed)
        assert module.count_lines(tmp_path / name) == 50_000
    assert len(still) > 60 * len(packed)


def test_the_limit_grows_with_the_file_but_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNPACKED", 1000)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(os.urandom(100_000).hex().encode() * 2))
    assert module.count_lines(path) == 1
    monkeypatch.setattr(module, "_LARGEST", 300_000)
    with pytest.raises(module.UnreadableFileError, match="decompresses to more than 300,000 bytes"):
        module.count_lines(path)


# --- What is no file, and files that change --------------------------------------------------


def test_what_is_no_file_is_told_and_not_opened_and_files_beside_it_are_read(
    tmp_path: Path,
) -> None:
    """Also not by an erasure, which looks into everything."""
    lake = open_lake(str(tmp_path / "lake"))
    folder = lake.storage.folder / f"accelerometer/landing/ingestion_date={DAY}"
    folder.mkdir(parents=True)
    odd = put_what_is_no_file(folder, tmp_path / "outside")
    told: list[str] = []
    found = files_by_date(lake, PHONES, told.append)
    key = f"accelerometer/landing/ingestion_date={DAY}"
    inside = [f"{key}/inside.json", f"{key}/x.json/a.json"]
    assert [file.key for file in found[DAY]] == inside
    assert sorted(told) == sorted(
        f"landing file {key}/{name}: it is {kind}; put a file in its place"
        for name, kind in odd.items()
    )
    with open_engine(lake) as engine:
        erased = find(lake, engine, landed_now(lake), "a@test.com")
    assert erased.records == dict.fromkeys(inside, 1)
    link = "it is a link, and what it leads to holds 1 records"
    into = "it is a link to a folder, and nobody looked at what is in there"
    assert erased.by_hand == {
        f"{key}/{name}": link if kind == "a link" else into
        for name, kind in odd.items()
        if kind in {"a link", "a link to a folder"}
    }


def test_names_are_told_in_one_line_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    folder = lake.storage.folder / "accelerometer/landing/ingestion_date=x\x1b[2J"
    for name in ("a\nError: b.json", "\u202egpj.json", os.fsdecode(b"\xff.json")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(LINES)
    told: list[str] = []
    assert files_by_date(lake, PHONES, told.append) == {}
    start = "landing file accelerometer/landing/ingestion_date=x\\x1b[2J/"
    assert sorted(one.partition(": 'ingestion_date")[0] for one in told) == sorted(
        start + name for name in ("a\\nError: b.json", "\\u202egpj.json", "\\udcff.json")
    )


@pytest.mark.parametrize(
    "read", [module.count_lines, lambda path: list(module.records(path)), module.is_text]
)
def test_a_file_that_a_pipe_took_the_place_of_is_not_waited_for(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(module.UnreadableFileError, match="it is no file but a pipe"):
        read(tmp_path / "a.json")


CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": lambda path: path.write_text(LINES * 3),
    "shrinks": lambda path: path.write_text(f"{PHONE}\n"),
    "is emptied": lambda path: path.write_text(""),
    "is spoilt": lambda path: path.write_text(f"{PHONE}\noops\n"),
    "is replaced": lambda path: (path.unlink(), path.write_text(f"[{PHONE},{PHONE},{PHONE}]")),
    "is cut in a record": lambda path: path.write_text(LINES[:-9]),
}


def change_after(patch: pytest.MonkeyPatch, looks: int, change: Callable[[], object]) -> None:
    """Let a file be changed behind the reader's back when it has looked at it so many times."""
    count = iter(range(1, 100))

    def look(of: object, name: str) -> None:
        honest = getattr(of, name)

        def looked(*given: object) -> object:
            found = honest(*given)
            if next(count) == looks:
                change()
            return found

        patch.setattr(of, name, looked)

    look(fuzz.reader, "count_lines")
    look(fuzz.reader, "count_written_lines")
    look(fuzz.reader._DayReader, "_insert")
    look(fuzz.reader._DayReader, "_spelling")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("content", [LINES, f"[{PHONE}]\n", f"{PHONE}\noops\n"])
def test_a_file_that_changes_while_it_is_read_is_read_as_it_was_or_as_it_is(
    tmp_path: Path,
    reading: fuzz.Reader,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    content: str,
) -> None:
    """Never as something between; its date is read again, for it is not the file that was seen."""
    for looks in range(1, 6):
        path = tmp_path / f"{looks}.json"
        path.write_text(content)
        before = read_plainly(PHONES, path.name, path)
        with monkeypatch.context() as patch:
            change_after(patch, looks, lambda path=path: CHANGES[change](path))  # type: ignore[misc]
            files = read_days(reading.engine, PHONES, {DAY: Day({path.name: path}, "")})
        found = tuple(map(reading.rows, files))
        assert found in (before, read_plainly(PHONES, path.name, path))


def test_a_file_that_cannot_be_opened_is_an_error_that_names_it(
    tmp_path: Path, reading: fuzz.Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the system's refusal, for tests may run as root, who may read everything."""
    path = tmp_path / "locked.json"
    path.write_text(LINES)

    def refuse(self: Path, *_: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"locked\.json"):
        read_days(reading.engine, PHONES, {DAY: Day({path.name: path}, "")})


# --- Very many -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["none", "all"])
def test_very_many_tiny_files_take_few_queries(
    tmp_path: Path, reading: fuzz.Reader, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """Time is no measure on a busy machine; each by itself would take a query or more."""
    queries = 0
    insert, judge = fuzz.reader._DayReader._insert, fuzz.reader._DayReader._judge

    def inserted(*of: object) -> int | None:
        nonlocal queries
        queries += 1
        return insert(*of)  # type: ignore[arg-type]

    def judged(*of: object) -> None:
        nonlocal queries
        queries += 1
        judge(*of)  # type: ignore[arg-type]

    monkeypatch.setattr(fuzz.reader._DayReader, "_insert", inserted)
    monkeypatch.setattr(fuzz.reader._DayReader, "_judge", judged)
    files = {}
    for number in range(FILES):
        path = files[f"{number}.json"] = tmp_path / f"{number}.json"
        path.write_text(f"{PHONE}\n" + ("oops\n" if bad == "all" else ""))
    rows, rejects = read_days(reading.engine, PHONES, {DAY: Day(files, "")})
    notes = reading.engine.notes(rows)[DAY]
    assert int(notes["records"]) == FILES * (1 if bad == "none" else 2)
    refused = reading.engine.connection.execute(
        "SELECT count(DISTINCT file) FROM read_parquet($f) WHERE line = 2",
        {"f": str(rejects[DAY])},
    ).fetchall()
    assert refused == [(0 if bad == "none" else FILES,)]
    assert queries < 150 + FILES // 100
