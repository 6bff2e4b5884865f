"""Cutting one file into its records; what is a good record is not decided here."""

import gzip
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stedi_assets.landing import records as module
from stedi_assets.landing.records import (
    EntangledRecordsError,
    UnreadableFileError,
    chunks,
    count_lines,
    count_written_lines,
    is_text,
    records,
    write_without,
)


def cut(tmp_path: Path, content: str | bytes, name: str = "a.json") -> list[tuple[int, str]]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(records(path))


A, B, C = '{"a": 1}', '{"b": [1, {"c": "}"}]}', '{"c": "x"}'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"{A}\n{B}\n", [(1, A), (2, B)]),
        (f"{A}\n{B}", [(1, A), (2, B)]),
        (f"{A}\r\n{B}\r\n", [(1, A), (2, B)]),
        (f"{A},\n{B},\n", [(1, A), (2, B)]),
        (f"{A}\n,{B}\n", [(1, A), (2, B)]),
        (f"\n \n{A}\n\n\t\n{B}\n\n", [(3, A), (6, B)]),
        (f"\ufeff{A}\n{B}\n", [(1, A), (2, B)]),
        (f"{A}\n\ufeff{B}\n", [(1, A), (2, B)]),
        (f"{A}{B}{C}", [(1, A), (1, B), (1, C)]),
        (f"{A} {B}\n{C}", [(1, A), (1, B), (2, C)]),
        (f"[{A},{B}]", [(1, A), (1, B)]),
        (f"[{A},\n{B}]\n", [(1, A), (2, B)]),
        (f"[\n  {A},\n  {B}\n]\n", [(2, A), (3, B)]),
        (f"[{A}]\n[{B}]\n", [(1, A), (2, B)]),
        ("", []),
        ("\n\n", []),
        ("\ufeff", []),
        ("[]", []),
    ],
    ids=[
        "one a line",
        "a last line without an end",
        "CRLF",
        "a comma behind each",
        "a comma before each",
        "blank lines",
        "a byte-order mark",
        "a byte-order mark where files were joined",
        "one after the other",
        "some of them on a line",
        "an array on a line",
        "an array over lines",
        "an array with its brackets on lines of their own",
        "an array a line",
        "nothing",
        "blank lines only",
        "a byte-order mark only",
        "an empty array",
    ],
)
def test_records_come_with_their_line_and_text(
    tmp_path: Path, content: str, expected: list[tuple[int, str]]
) -> None:
    assert cut(tmp_path, content) == expected


def test_pretty_printed_objects_are_a_record_each(tmp_path: Path) -> None:
    first, second = '{\n  "a": {\n    "x": 1\n  }\n}', '{ "b":\n 2 }'
    assert cut(tmp_path, f"{first}\n{second}\n{A}\n") == [(1, first), (6, second), (8, A)]
    assert cut(tmp_path, f"[\n{first}, {second}]") == [(2, first), (6, second)]


def test_scalars_are_a_record_each(tmp_path: Path) -> None:
    assert cut(tmp_path, '[1, "a, {b}", null]\n-2.5e3\ntrue\n') == [
        (1, "1"),
        (1, '"a, {b}"'),
        (1, "null"),
        (2, "-2.5e3"),
        (3, "true"),
    ]


@pytest.mark.parametrize(
    "truncated",
    [
        '{"a":',
        '{"a": 1, "b',
        '{"a": "x',
        '{"a": 1,',
        '{"a": {"b": 1',
        '{"a": [1, 2',
        "{",
        '{"a": "\\',
    ],
)
def test_good_records_behind_a_truncated_line_are_kept(tmp_path: Path, truncated: str) -> None:
    expected = [(1, truncated), (2, B), (3, C)]
    assert cut(tmp_path, f"{truncated}\n{B}\n{C}\n") == expected
    assert cut(tmp_path, f"{truncated},\n{B},\n{C}") == [(1, f"{truncated},"), *expected[1:]]
    assert cut(tmp_path, f"{truncated}\n{B}") == expected[:2]


def test_a_truncated_last_line_of_an_array_is_a_record(tmp_path: Path) -> None:
    assert cut(tmp_path, f'[\n{A},\n{{"a": 1, "b"\n]\n') == [(2, A), (3, '{"a": 1, "b"')]


def test_a_truncated_last_line_is_a_record(tmp_path: Path) -> None:
    assert cut(tmp_path, f'{A}\n{B}\n{{"c": 1, "d') == [(1, A), (2, B), (3, '{"c": 1, "d')]


@pytest.mark.parametrize(
    "broken",
    ['{"a": }', '{"a" 1}', "{'a': 1}", '{"a": 01}', "{a: 1}", '{"a": [1 2]}', "oops"],
)
def test_a_broken_record_in_an_array_on_a_line_leaves_the_others(
    tmp_path: Path, broken: str
) -> None:
    assert cut(tmp_path, f"[{A},{broken}, {C}]") == [(1, A), (1, broken), (1, C)]


def test_a_broken_record_among_objects_on_a_line_leaves_the_others(tmp_path: Path) -> None:
    assert cut(tmp_path, f'{A}{{"a": }}{C}') == [(1, A), (1, '{"a": }'), (1, C)]


def test_a_string_without_an_end_takes_what_stands_behind_it_into_its_record(
    tmp_path: Path,
) -> None:
    content = f'[{A},{{"a": "x}}, {C}]\n{B}\n'
    assert cut(tmp_path, content) == [(1, A), (1, f'{{"a": "x}}, {C}'), (2, B)]


def test_garbage_is_a_record_to_the_end_of_its_line(tmp_path: Path) -> None:
    assert cut(tmp_path, f"this is, not JSON\n{A} and more\n{B}\n") == [
        (1, "this is, not JSON"),
        (2, A),
        (2, "and more"),
        (3, B),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        '{\n  "a": ,\n  "b": 2\n}',
        '{\n  "a": 1\n  "b": 2\n}',
        '{\n  "a": {\n    "x": oops oops\n  },\n  "b": "}"\n}',
        "{\n  'a': 1,\n  'b': 2\n}",
    ],
    ids=["a value is missing", "a comma is missing", "deeper down", "the wrong quotes"],
)
def test_a_pretty_printed_broken_object_is_one_record(tmp_path: Path, broken: str) -> None:
    after = 2 + broken.count("\n")
    assert cut(tmp_path, f"{A}\n{broken}\n{C}\n") == [(1, A), (2, broken), (after + 1, C)]
    assert cut(tmp_path, f"[\n{broken},\n{C}\n]\n") == [(2, broken), (after + 1, C)]


@pytest.mark.parametrize(
    "value",
    ["1,", "NaN", "-inf", "Infinity", "1" * 10_000],
    ids=["a comma at the end", "NaN", "inf", "Infinity", "10,000 digits"],
)
def test_what_the_database_takes_for_json_is_not_cut_at_its_lines(
    tmp_path: Path, value: str
) -> None:
    lenient = f'{{ "a": 0,\n  "b": {value}\n}}'
    assert cut(tmp_path, f"{lenient}\n{A}\n") == [(1, lenient), (4, A)]


def test_a_truncated_pretty_printed_object_leaves_the_good_ones(tmp_path: Path) -> None:
    found = cut(tmp_path, f'{{\n  "a": 1,\n{A}\n{C}\n')
    assert found[0] == (1, "{")
    assert found[-2:] == [(3, A), (4, C)]


@pytest.mark.parametrize("chunk", [1, 7, 20, 64])
def test_records_may_cross_from_one_chunk_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    pretty, broken = '{\n "a": [\n  1,\n  2\n ]\n}', '{\n "a": ,\n "b": {\n }\n}'
    content = f"[\n{A},\n{pretty},\n{broken},\n{B}\n]\ngarbage\n{pretty}\n{C}"
    assert cut(tmp_path, content) == [
        (2, A),
        (3, pretty),
        (9, broken),
        (14, B),
        (16, "garbage"),
        (17, pretty),
        (23, C),
    ]


def test_a_record_longer_than_any_is_cut_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 8)
    monkeypatch.setattr(module, "_LONGEST_RECORD", 64)
    assert cut(tmp_path, '{"a": [\n' + "1,\n" * 50 + "{\n") == [
        (1, '{"a": ['),
        *((line, "1") for line in range(2, 52)),
        (52, "{"),
    ]


@pytest.mark.parametrize("chunk", [1, 8, 1000])
@pytest.mark.parametrize(
    "record", ["x" * 65, '{"a": "' + "é" * 65 + '"}', '{"a": [' + "1," * 40 + "1]}"]
)
def test_a_record_that_does_not_fit_into_memory_makes_its_file_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str, chunk: int
) -> None:
    """However it comes: it could be cut only where it would be read as other records."""
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_LONGEST_RECORD", 64)
    for content in (f"{A}\n{record}\n{A}\n", f"{A}\n[{A},{record},{A}]"):
        with pytest.raises(UnreadableFileError) as error:
            cut(tmp_path, content)
        assert str(error.value) == "a record on line 2 is longer than 64 letters"


@pytest.mark.parametrize("chunk", [16, 32, 64])
def test_a_record_of_which_as_much_was_read_as_it_may_have_is_not_cut_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_LONGEST_RECORD", 64)
    with pytest.raises(UnreadableFileError, match="a record on line 1 is longer than 64 letters"):
        cut(tmp_path, '{"a": [' + "1," * 80 + "1]}\n")


@pytest.mark.parametrize("chunk", [1, 8, 1000])
def test_a_line_may_be_longer_than_any_record_and_blanks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_LONGEST_RECORD", 64)
    blanks, scalar = " " * 200 + "," * 200, "1234567"
    content = f"[{','.join([A, B, scalar, 'tru', C] * 20)}]{blanks}{A}"
    of_five = [(1, A), (1, B), (1, scalar), (1, "tru"), (1, C)]
    assert cut(tmp_path, content) == [*of_five * 20, (1, A)]


def test_a_record_as_long_as_any_may_be_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_RECORD", 64)
    longest = '{"a": "' + "é" * 55 + '"}'
    assert len(longest) == 64
    assert cut(tmp_path, f"{A}\n{longest}\n[{longest},{A}]") == [
        (1, A),
        (2, longest),
        (3, longest),
        (3, A),
    ]


@pytest.mark.parametrize(("depth", "is_one"), [(30, True), (31, False)])
def test_a_record_that_is_spread_over_lines_has_thirty_levels_at_most(
    tmp_path: Path, depth: int, is_one: bool
) -> None:
    spread = '{"a":\n' * depth + "1" + "}" * depth
    assert (cut(tmp_path, f"{spread}\n{A}\n") == [(1, spread), (depth + 2, A)]) == is_one


@pytest.mark.parametrize(
    ("content", "lines", "written"),
    [
        ("", 0, 0),
        ("\n", 1, 0),
        ("a", 1, 1),
        ("ab\n", 1, 1),
        ("abcdx\n", 1, 1),
        ("abcdx\ny", 2, 2),
        ("abc\nx", 2, 2),
        ("\n \n\t\nab cd\n\n   ef", 6, 2),
        ("     a\nb     \n     ", 3, 2),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_lines_are_counted_and_those_with_anything_but_blanks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    lines: int,
    written: int,
    name: str,
) -> None:
    """Also where they cross from one chunk, of four bytes, to the next."""
    path = tmp_path / name
    path.write_bytes(COMPRESS[".gz" if name.endswith(".gz") else ""](content.encode()))
    for size in (4, 1 << 20):
        monkeypatch.setattr(module, "_CACHED", size)
        monkeypatch.setattr(module, "_CHUNK", size)
        assert count_lines(path) == lines
        assert count_written_lines(path) == (written, len(content))


def test_a_file_may_decompress_to_as_much_as_the_limit_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNPACKED", 1000)
    monkeypatch.setattr(module, "_RATIO", 0)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b" " * 1000))
    assert count_lines(path) == 1
    path.write_bytes(gzip.compress(b" " * 1001))
    with pytest.raises(UnreadableFileError, match="decompresses to more than 1,000 bytes"):
        count_lines(path)


def test_a_nul_among_the_first_8000_bytes_says_that_a_file_is_binary(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="the file is binary, not text"):
        cut(tmp_path, b"a" * 7999 + b"\0")
    assert cut(tmp_path, b"a" * 8000 + b"\0") == [(1, "a" * 8000 + "\0")]


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ([3, 3, 3, 3, 5, 5, 3, 3, 3, 3, 1], [[3, 3, 3, 3], [5, 5], [3, 3, 3, 3], [1]]),
        ([5, 5, 5, 5, 9], [[5, 5], [5, 5], [9]]),
        ([10, 11, 1], [[10], [11], [1]]),
    ],
)
def test_a_batch_ends_when_it_is_of_so_many_letters(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], batches: list[list[int]]
) -> None:
    monkeypatch.setattr(module, "_BATCH_LETTERS", 10)
    found = module.batches([(1, "x" * length) for length in lengths], 100)
    assert [[len(text) for _, text in batch] for batch in found] == batches


def test_as_many_records_are_taken_together_as_are_wanted_and_fewer_long_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_BATCH_LETTERS", 10)
    short, long = (1, "abc"), (2, "abcdefghijk")
    found = list(module.batches(iter([short, short, short, short, long, long, short]), 3))
    assert found == [[short] * 3, [short, long], [long], [short]]


N = 100_000
LINES = 20_000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": ' + "[" * N + "]" * N + "}", [(1, '{"a": ' + "[" * N + "]" * N + "}")]),
        ('{"a": ' + "[" * N, [(1, '{"a": ' + "[" * N)]),
        ('{"a":' * N, [(1, '{"a":' * N)]),
        ("}" * N, [(1, "}")] * N),
        ("{\n" * LINES, [(line, "{") for line in range(1, LINES + 1)]),
        ('{"a":\n' * LINES, [(line, '{"a":') for line in range(1, LINES + 1)]),
        ('{"a": }' * N, [(1, '{"a": }')] * N),
        ('{"a": }\n' * N, [(line, '{"a": }') for line in range(1, N + 1)]),
        ("'" * N, [(1, "'" * N)]),
        ('{"' * N, [(1, '{"' * N)]),
    ],
    ids=[
        "arrays that close",
        "arrays that do not close",
        "objects that do not close",
        "nothing but closing brackets",
        "an opening bracket a line",
        "an opening bracket and a key a line",
        "broken objects on one line",
        "broken objects, one a line",
        "quotes",
        "brackets and quotes",
    ],
)
def test_a_hundred_thousand_brackets_neither_crash_nor_hang(
    tmp_path: Path, content: str, expected: list[tuple[int, str]]
) -> None:
    (tmp_path / "a.json").write_text(content + f"\n{A}\n")
    start = time.process_time()
    found = list(records(tmp_path / "a.json"))
    assert time.process_time() - start < 20  # what takes squared time takes minutes or hours
    assert found == [*expected, (found[-1][0], A)]


def test_a_number_of_ten_thousand_digits_is_a_record_like_others(tmp_path: Path) -> None:
    long = '{"a": ' + "9" * 10_000 + "}"
    assert cut(tmp_path, f"{long}\n{A}\n") == [(1, long), (2, A)]
    assert cut(tmp_path, "9" * 10_000) == [(1, "9" * 10_000)]


@pytest.mark.parametrize("extension", [".json", ".jsonl", ".ndjson", ".JSON", ".NdJson"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst", ".GZ", ".ZST"])
def test_each_extension_is_read_in_any_case(
    tmp_path: Path, extension: str, compression: str
) -> None:
    compress = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}[compression.lower()]
    content = compress(f"{A}\n{B}\n".encode())
    assert cut(tmp_path, content, f"a{extension}{compression}") == [(1, A), (2, B)]


def test_what_was_compressed_in_parts_is_read_whole(tmp_path: Path) -> None:
    for name, compress in (("a.json.gz", gzip.compress), ("a.json.zst", zstd.compress)):
        content = compress(f"{A}\n".encode()) + compress(f"{B}\n".encode())
        assert cut(tmp_path, content, name) == [(1, A), (2, B)]


@pytest.mark.parametrize("name", ["a.txt", "a", "a.gz", "a.json.bz2", "a.csv.gz", "json"])
def test_a_file_with_another_name_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableFileError) as error:
        cut(tmp_path, A, name)
    assert str(error.value) == "the name does not end in .json, .jsonl, .ndjson (.gz, .zst)"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"{A}\n".encode("utf-16"), "the file is binary, not text"),
        (f"{A}\n".encode("utf-16-le"), "the file is binary, not text"),
        (f"{A}\n".encode() + b"\0", "the file is binary, not text"),
        (f"{A}\n".encode() + b"\xff", "the file is not UTF-8 text"),
        ('{"a": "é"}'.encode("latin-1"), "the file is not UTF-8 text"),
        ("\ufeffя".encode("utf-16")[2:], "the file is not UTF-8 text"),
        (b'{"a": "\xed\xa0\x80"}', "the file is not UTF-8 text"),
        (f"{A}\n".encode() + "é".encode()[:1], "the file is not UTF-8 text"),
    ],
    ids=[
        "UTF-16",
        "UTF-16 without a mark",
        "a NUL",
        "a byte that UTF-8 has not",
        "Latin-1",
        "UTF-16 without a NUL",
        "half a surrogate pair",
        "half a character at its end",
    ],
)
def test_what_is_no_text_cannot_be_read(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFileError) as error:
        cut(tmp_path, content)
    assert str(error.value) == reason


@pytest.mark.parametrize("name", ["a.json", "readme.txt", "a.json.gz", "a.json.zst"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("é and \U0001f600".encode(), True),
        (b"", True),
        (b"a" * 9000 + b"\0", False),
        ("é".encode("latin-1"), False),
        (b"a" + "é".encode()[:1], False),
    ],
    ids=["letters", "nothing", "a NUL", "Latin-1", "half a character at its end"],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_text_is_utf_8_without_a_nul_whatever_the_name_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    expected: bool,
    chunk: int,
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    path = tmp_path / name
    path.write_bytes(COMPRESS[path.suffix if path.suffix in COMPRESS else ""](content))
    assert is_text(path) == expected


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.zst"])
def test_a_large_file_that_takes_no_room_is_not_read_to_its_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(f"{A}\n".encode()) if name.endswith(".gz") else A.encode())
    os.truncate(path, 1 << 40)  # a terabyte, as gzip takes it of padding
    reads: list[Callable[[Path], object]] = [
        count_lines,
        count_written_lines,
        lambda file: list(chunks(file)),
        lambda file: list(records(file)),
    ]
    for read in reads:
        with pytest.raises(UnreadableFileError, match="it has holes, of which nobody wrote"):
            read(path)


def test_a_file_of_the_size_that_any_may_have_may_take_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNPACKED", 1 << 20)
    path = tmp_path / "a.json"
    path.write_text("{")
    os.truncate(path, 1 << 20)
    assert count_lines(path) == 1
    os.truncate(path, (1 << 20) + 1)
    with pytest.raises(UnreadableFileError, match="it has holes"):
        count_lines(path)


def test_a_missing_file_is_no_unreadable_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(records(tmp_path / "a.json"))


FRAGMENTS = st.sampled_from(
    [
        *('{"a": 1}', '{"b": "}{"}', '{\n "a": 1\n}', '{\n "a": ,\n}', '{"a":\n{"b": 2}', '"x'),
        *("{", "}", "[", "]", ",", ":", '"', "\n", "\r\n", " ", "\\", "1", "oops", "\ufeff", "é"),
    ]
)
CONTENTS = st.lists(FRAGMENTS, max_size=30).map("".join)
any_content = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@any_content
@given(content=CONTENTS)
def test_nothing_but_what_stands_between_records_is_left_out(tmp_path: Path, content: str) -> None:
    def without_separators(text: str) -> str:
        return re.sub(r"[\s,\[\]\ufeff]", "", text)

    found = cut(tmp_path, content)
    assert without_separators("".join(text for _, text in found)) == without_separators(content)
    assert all(text == text.strip() != "" for _, text in found)


@any_content
@given(content=CONTENTS)
def test_each_record_begins_on_its_line(tmp_path: Path, content: str) -> None:
    lines = content.split("\n")
    found = cut(tmp_path, content)
    assert all(text.split("\n")[0].rstrip() in lines[line - 1] for line, text in found)
    assert [line for line, _ in found] == sorted(line for line, _ in found)


@any_content
@given(content=CONTENTS, chunk=st.integers(1, 40))
def test_the_size_of_the_chunks_is_no_matter(tmp_path: Path, content: str, chunk: int) -> None:
    at_once = cut(tmp_path, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        assert cut(tmp_path, content) == at_once


@any_content
@given(
    values=st.lists(
        st.dictionaries(
            st.text(max_size=3),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner),
                max_leaves=4,
            ),
            max_size=4,
        ),
        max_size=5,
    ),
    indent=st.none() | st.integers(0, 2),
    separator=st.sampled_from(["\n", ",", "", " , ", "\r\n", "\n\n", "]\n["]),
    ascii_only=st.booleans(),
)
def test_objects_come_out_as_they_went_in(
    tmp_path: Path,
    values: list[object],
    indent: int | None,
    separator: str,
    ascii_only: bool,
) -> None:
    texts = [json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values]
    assert [text for _, text in cut(tmp_path, separator.join(texts))] == texts


# Writing a file again without some of its records.


OBJECTS = st.sampled_from(
    [A, B, C, '{ "d" : "," }', '{"e": "\\u00e4 ä \\" ]"}', '{"f": {"g": [[], {}]}}', "{}"]
)
SPREAD = st.sampled_from(
    ['{\n  "a": {\n    "x": 1\n  }\n}', '{ "b":\n 2 }', '{\r\n "c": [\n1,\n2]}']
)
KEPT_AND_NOT = st.lists(st.tuples(OBJECTS, st.booleans()), max_size=12)
"""Records, and whether each is left out."""
SIZES = st.tuples(st.sampled_from([1, 7, 40, 1 << 20]), st.sampled_from([1, 2, 3, 20_000]))
"""How much of a file, and how many of its records, are looked at together."""
COMPRESSIONS = st.sampled_from(["", ".gz", ".zst"])
COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}
DECOMPRESS = {"": bytes, ".gz": gzip.decompress, ".zst": zstd.decompress}


def left_of(
    tmp_path: Path,
    content: str,
    leave_out: Sequence[bool],
    compression: str = "",
    sizes: tuple[int, int] = (1 << 20, 20_000),
) -> str:
    """What is left of a file; looks on the way whether it is read as the records that are kept."""
    source, target = tmp_path / f"a.json{compression}", tmp_path / f"b.json{compression}"
    source.write_bytes(COMPRESS[compression](content.encode()))
    flags = iter(leave_out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", sizes[0])
        patch.setattr(module, "BATCH", sizes[1])
        count = write_without(source, target, lambda batch: [next(flags) for _ in batch])
        before, after = ([text for _, text in records(path)] for path in (source, target))
    assert next(flags, None) is None
    assert count == sum(leave_out)
    assert after == [text for text, out in zip(before, leave_out, strict=True) if not out]
    return DECOMPRESS[compression](target.read_bytes()).decode()


@any_content
@given(
    KEPT_AND_NOT,
    st.sampled_from(["\n", "\r\n", ",\n", "\n,", " \n"]),
    st.booleans(),
    st.sampled_from(["", "\ufeff"]),
    COMPRESSIONS,
    SIZES,
)
def test_of_lines_the_others_are_left_as_lines_without_blank_ones(
    tmp_path: Path,
    drawn: list[tuple[str, bool]],
    end: str,
    has_last_end: bool,
    mark: str,
    compression: str,
    sizes: tuple[int, int],
) -> None:
    last_end = end.rstrip(",") if has_last_end else ""
    content = mark + end.join(text for text, _ in drawn) + last_end
    left = left_of(tmp_path, content, [out for _, out in drawn], compression, sizes)
    kept = [text for text, out in drawn if not out]
    if drawn:
        assert [
            line.strip(" ,\r\ufeff") for line in left.split("\n") if line.strip("\ufeff")
        ] == kept
    if kept and end in ("\n", "\r\n"):
        assert left.removesuffix(end) == mark + end.join(kept) or not has_last_end
    if not any(out for _, out in drawn):
        assert left == content


@any_content
@given(
    KEPT_AND_NOT,
    st.sampled_from(
        ["[{},{}]", "[{}, {}]\n", "[\n{},\n{}\n]\n", "[\r\n  {},\r\n  {}\r\n]", "[{}\n,{}]"]
    ),
    COMPRESSIONS,
    SIZES,
)
def test_of_an_array_an_array_is_left(
    tmp_path: Path,
    drawn: list[tuple[str, bool]],
    form: str,
    compression: str,
    sizes: tuple[int, int],
) -> None:
    start, between, end = form.split("{}")
    content = start + between.join(text for text, _ in drawn) + end
    left = left_of(tmp_path, content, [out for _, out in drawn], compression, sizes)
    assert json.loads(left) == [json.loads(text) for text, out in drawn if not out]
    if drawn and not any(out for _, out in drawn):
        assert left == content


@any_content
@given(
    st.lists(st.tuples(st.one_of(OBJECTS, SPREAD), st.booleans()), max_size=8),
    st.lists(
        st.sampled_from(["", " ", "\n", "\r\n", "\n\n", ",", ", ", ",\n", "\t"]),
        min_size=9,
        max_size=9,
    ),
    COMPRESSIONS,
    SIZES,
)
def test_of_objects_in_any_form_the_others_are_left_as_they_were(
    tmp_path: Path,
    drawn: list[tuple[str, bool]],
    between: list[str],
    compression: str,
    sizes: tuple[int, int],
) -> None:
    content = (
        "".join(before + text for (text, _), before in zip(drawn, between, strict=False))
        + between[-1]
    )
    left_of(tmp_path, content, [out for _, out in drawn], compression, sizes)


@any_content
@given(st.lists(st.lists(st.tuples(OBJECTS, st.booleans()), max_size=3), max_size=4), SIZES)
def test_of_arrays_in_an_array_arrays_in_an_array_are_left(
    tmp_path: Path, drawn: list[list[tuple[str, bool]]], sizes: tuple[int, int]
) -> None:
    content = f"[{', '.join('[' + ','.join(text for text, _ in of) + ']' for of in drawn)}]"
    left = left_of(tmp_path, content, [out for of in drawn for _, out in of], sizes=sizes)
    assert json.loads(left) == [[json.loads(text) for text, out in of if not out] for of in drawn]


@any_content
@given(CONTENTS, st.randoms(use_true_random=False), SIZES)
def test_what_is_left_of_any_text_is_read_as_what_was_kept_or_refused(
    tmp_path: Path, content: str, random: Random, sizes: tuple[int, int]
) -> None:
    leave_out = [random.random() < 0.5 for _ in cut(tmp_path, content)]
    with suppress(EntangledRecordsError):
        left_of(tmp_path, content, leave_out, sizes=sizes)


def test_a_file_of_which_nothing_is_left_is_an_empty_one_of_its_kind(tmp_path: Path) -> None:
    for compression in COMPRESS:
        for content, left in ((f"{A}\n{B}\n", ""), (f"[{A},{B}]\n", "[]\n"), ("", "")):
            leave_out = [True] * len(cut(tmp_path, content))
            assert left_of(tmp_path, content, leave_out, compression) == left


def test_a_broken_file_of_which_a_record_cannot_be_taken_without_changing_others_is_refused(
    tmp_path: Path,
) -> None:
    content = '{"a": 1,\n{"b": 2}\n"c": 3}\n'
    assert [text for _, text in cut(tmp_path, content)] != ['{"a": 1,\n"c": 3}']
    with pytest.raises(EntangledRecordsError, match="would be read as other ones"):
        left_of(tmp_path, content, [text == '{"b": 2}' for _, text in cut(tmp_path, content)])


@pytest.mark.parametrize(
    ("content", "out", "left"),
    [
        (f", \n{A}\n{B}\n", [1], f", \n{A}\n"),
        (f", \n{A}\n{B}\n", [0], f" \n{B}\n"),
        (f"\n\n{A}\n{B}\n", [1], f"\n\n{A}\n"),
        (f"{A}\n{B}\n\n\n{C}\n", [1], f"{A}\n\n\n{C}\n"),
        (f"{A}\n\n{B}\n{C}", [1], f"{A}\n\n{C}"),
        (f"{A}{B}\n", [1], f"{A}\n"),
        (f"{A}{B}\n{C}\n", [0, 1], f"{C}\n"),
        (f"{A}{B}\n{C}\n", [1], f"{A}\n{C}\n"),
        (f"{A} {B}\n{C}\n", [1], f"{A} \n{C}\n"),
        (f"{A}{B}{C}", [1], f"{A}\n{C}"),
        (f"{A}{B}{C}", [2], f"{A}{B}"),
        (f"[{A},\n{B}]", [0], f"[\n{B}]"),
        (f"[{A},\n{B},\n{C}]", [1], f"[{A},\n{C}]"),
        (f"[{A},{B},,\n{C}]", [1], f"[{A},,\n{C}]"),
        (f"\ufeff{A}\n{B}\n", [0], f"\ufeff{B}\n"),
    ],
)
def test_what_stands_between_the_others_is_left_but_for_a_comma_and_a_line_break(
    tmp_path: Path, content: str, out: list[int], left: str
) -> None:
    count = len(cut(tmp_path, content))
    assert left_of(tmp_path, content, [number in out for number in range(count)]) == left
