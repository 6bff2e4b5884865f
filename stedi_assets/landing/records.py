"""Cutting one landing file into its records, each with its line and its text.

Knows JSON's brackets and quotes, not the tables: whether a record is a good one, `reader.py` says.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from backports import zstd

LANDING_EXTENSIONS = tuple(
    kind + compression
    for kind in (".json", ".jsonl", ".ndjson")
    for compression in ("", ".gz", ".zst")
)
"""How the names of landing files end, in any case."""

_CHUNK = 1 << 20
_LONGEST_RECORD = 16 << 20  # as DuckDB's reader has it
_BINARY_SNIFF = 8000  # a NUL this early says binary, as git has it

_BETWEEN_RECORDS = re.compile(r"[\s,\[\]\ufeff]*")
_BRACKETS = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]]')
# Numbers are only skipped over here; float() takes any number of digits, int() does not.
_DECODER = json.JSONDecoder(parse_int=float)


class UnreadableFileError(ValueError):
    """A landing file that cannot be read at all; says why."""


def is_compressed(path: Path) -> bool:
    """Whether a landing file's name says that it is compressed."""
    return path.suffix.lower() in {".gz", ".zst"}


def verify_compression(path: Path) -> None:
    """Decompress a file to its end and drop what comes out.

    DuckDB looks neither at gzip's checksum nor at the end of a zstd frame, and would take a
    damaged file for a shorter or another one.

    Raises:
        UnreadableFileError: the file is truncated or damaged.
    """
    with _open(path) as stream:
        try:
            while stream.read(_CHUNK):
                pass
        except _DAMAGED as error:
            raise _damaged(error) from error


def records(path: Path) -> Iterator[tuple[int, str]]:
    """The records of a file: the line on which each begins, from 1, and its text.

    Read are objects one a line, with a comma behind each, in an array, one after the other without
    a line break, and spread over lines. What is no JSON value is a record too: to the end of its
    object where its brackets close, else to the end of its line.

    Raises:
        UnreadableFileError: the name is not a landing file's, or the content is damaged, binary or
            not UTF-8. Records that came before are then not to be used.
        OSError: the file cannot be opened.
    """
    if not path.name.lower().endswith(LANDING_EXTENSIONS):
        raise UnreadableFileError(
            f"the name does not end in {', '.join(LANDING_EXTENSIONS[::3])} (.gz, .zst)"
        )
    with _open(path) as stream:
        try:
            if b"\0" in stream.read(_BINARY_SNIFF):
                raise UnreadableFileError("the file is binary, not text")
            stream.seek(0)
            yield from _cut(io.TextIOWrapper(stream, "utf-8-sig", newline="\n"))
        except _DAMAGED as error:
            raise _damaged(error) from error
        except UnicodeDecodeError as error:
            raise UnreadableFileError("the file is not UTF-8 text") from error


_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)


def _damaged(error: Exception) -> UnreadableFileError:
    return UnreadableFileError(f"the file cannot be decompressed: {error}")


def _open(path: Path) -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(path))
        case ".zst":
            return cast(IO[bytes], zstd.open(path))
        case _:
            return path.open("rb")


def _cut(lines: IO[str]) -> Iterator[tuple[int, str]]:
    text, line, at, at_end = "", 1, 0, False
    while not at_end:
        more = "".join(lines.readlines(_CHUNK))
        at_end = not more
        # What the last chunk left over is the beginning of a record that goes on in this one.
        text, at = text[at:] + more, 0
        text_end = len(text.rstrip())
        while True:
            start = _BETWEEN_RECORDS.match(text, at).end()  # type: ignore[union-attr]
            line, at = line + text.count("\n", at, start), start
            if start == len(text):
                break
            end = _end_of_value(text, start, text_end)
            if end is None:
                if not at_end and text_end - start < _LONGEST_RECORD:
                    break
                end = _end_of_broken(text, start)
            yield line, text[start:end].rstrip()
            line, at = line + text.count("\n", start, end), end


def _end_of_value(text: str, start: int, text_end: int) -> int | None:
    """Where the value, good or broken, that begins at `start` ends; None: `text` ends first."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        if error.pos >= text_end:
            return None
    except RecursionError:
        pass
    return _end_of_broken(text, start)


def _end_of_broken(text: str, start: int) -> int:
    """Where a broken value ends: with its brackets, if they close on its line, else with the line.

    An object whose first line is a bare bracket is one that is spread over lines.
    """
    newline = text.find("\n", start)
    line_end = newline if newline >= 0 else len(text)
    spread = text[start:line_end].strip() == "{"
    depth = 0
    for token in _BRACKETS.finditer(text, start, len(text) if spread else line_end):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
            if depth <= 0:
                return token.end()
    return line_end
