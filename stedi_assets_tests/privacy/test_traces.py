"""Looking for words in texts, bytes and files: where they stand alone, in any spelling."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.landing import records
from stedi_assets.privacy import traces as module
from stedi_assets.privacy.traces import Words, _in_file, search

ANN = "ann@x.com"
WORDS = Words([ANN, "Serial-1"])

HOLDING = [
    ANN,
    "ANN@X.COM",
    f"<{ANN}>",
    f"mailto:{ANN}?",
    f"Write to {ANN}.",
    f"{ANN}, {ANN}",
    f'{{"email":"{ANN}"}}',
    f"é{ANN}".replace("é", "é "),
    "ann\\u0040x.com",
    "\\u0041nn@x.com",
    f'"first line\\n{ANN}"',
    f"{ANN}.json",
    f"{ANN}-1691366400000.json.gz",
    "on loan: serial-1",
    "(SERIAL-1)",
]
NOT_HOLDING = [
    "",
    "jo" + ANN,
    "jo." + ANN,
    "jo+" + ANN,
    "jo-" + ANN,
    "é" + ANN,
    ANN + "munity",
    ANN + ".uk",
    ANN + "-pany.de",
    "ann@xxcom",
    "Serial-10",
    "My-Serial-1",
    "\\u006a\\u006fann@x.com",
]


@pytest.mark.parametrize("text", HOLDING)
def test_a_word_is_found_where_it_stands_alone_in_any_case_and_spelling(text: str) -> None:
    assert WORDS.are_in(text)
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        assert WORDS.are_in_bytes(text.encode(encoding))


@pytest.mark.parametrize("text", NOT_HOLDING)
def test_a_word_is_not_found_in_a_longer_one(text: str) -> None:
    assert not WORDS.are_in(text)
    assert not WORDS.are_in_bytes(text.encode())


def test_words_of_other_scripts_are_found_in_any_case() -> None:
    words = Words(["jürgen@müller.de"])
    assert words.are_in("JÜRGEN@MÜLLER.DE")
    assert words.are_in_bytes("JÜRGEN@MÜLLER.DE".encode())
    assert words.are_in("j\\u00dcrgen@m\\u00FCller.de")
    assert words.are_in_bytes(b"\xff\xff j\\u00dcrgen@m\\u00FCller.de")
    assert not words.are_in("jurgen@muller.de")


def test_what_a_pattern_would_take_for_something_else_is_only_itself() -> None:
    assert Words(["a+b@x.com"]).are_in("a+b@x.com")
    assert not Words(["a+b@x.com"]).are_in("aab@x.com")
    assert not Words([]).are_in("anything")
    assert not Words([""]).are_in("anything")


def test_something_else_stands_for_a_word_that_is_hidden() -> None:
    assert WORDS.hidden_in(f"a/{ANN.upper()}-1691366400000.json") == (
        "a/(the person)-1691366400000.json"
    )
    assert WORDS.hidden_in(f"jo{ANN}") == f"jo{ANN}"


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 4096])
def test_the_size_of_the_chunks_of_a_file_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(records, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_OVERLAP", 100)
    for before in (0, 1, 50, 100, 150):
        for texts, holds in ((HOLDING, True), (NOT_HOLDING, False)):
            for number, text in enumerate(texts[::3]):
                path = tmp_path / f"{before}-{number}-{holds}.txt"
                path.write_text(f"{'. ' * before}{text}{' .' * before}")
                assert _in_file(path, WORDS) is holds, text


def test_what_stands_beside_a_word_is_seen_across_the_edges_of_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_CHUNK", 64)
    monkeypatch.setattr(module, "_OVERLAP", 64)
    path = tmp_path / "a.txt"
    for before in range(200):
        path.write_text(f"{'.' * before} jo{ANN} {ANN}.uk {'.' * (200 - before)}")
        assert not _in_file(path, WORDS), before
        path.write_text(f"{'.' * before} {ANN} {'.' * (200 - before)}")
        assert _in_file(path, WORDS), before


def test_every_file_is_searched_and_those_are_told_that_cannot_be(
    lake: Lake, engine: DuckDBEngine
) -> None:
    root = lake.storage.root
    (root / "customer/landing").mkdir(parents=True)
    os.mkfifo(root / "customer/landing/pipe")
    contents = {
        "others.txt": b"jo" + ANN.encode(),
        "hers.txt": ANN.encode(),
        "cut.txt.gz": gzip.compress(ANN.encode())[:-9],
        f"of {ANN}.txt": b"",
    }
    for name, content in contents.items():
        (root / name).write_bytes(content)
    columns: dict[str, dict[str, list[object]]] = {
        "numbers.parquet": {"a": [1, 2]},
        "others.parquet": {"a": [1], "user": ["jo" + ANN]},
        "hers.parquet": {"a": [1, 2], "user": ["eve@x.com", f"<{ANN.upper()}>"]},
        "hers in escapes.parquet": {"a": [1], "user": ["ann\\u0040x.com"]},
        "hers in a list.parquet": {"friends": [[{"mail": ANN}]], "a": [1]},
        "hers in a column of an odd name.parquet": {"BIGINT": [ANN]},
        "torn.parquet": {"a": [1], "user": ["eve@x.com"]},
        "torn, too.parquet": {"a": [1], "user": ["eve@x.com"]},
    }
    for name, of_file in columns.items():
        pq.write_table(pa.table(of_file), root / name)
        if name.startswith("torn"):
            (root / name).write_bytes((root / name).read_bytes()[:-9])
    files = {file.key: file for file in lake.storage.list("")}
    order = ["customer/landing/pipe", *columns, *contents]
    found = search(lake, engine, WORDS, [files[key] for key in order])
    assert sorted(found.keys) == sorted(
        key for key in order if key.startswith("hers") or key == f"of {ANN}.txt"
    )
    assert set(found.unreadable) == {"torn.parquet", "torn, too.parquet", "cut.txt.gz"}
    assert {found.unreadable[key] for key in files if key.startswith("torn")} == {
        "it is damaged: InvalidInputException"
    }
    assert search(lake, engine, WORDS, [files["hers.txt"]]).keys == ["hers.txt"]
