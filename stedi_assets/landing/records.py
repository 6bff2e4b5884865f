"""Cutting one landing file into its records, each with its line and its text, or without some.

Knows JSON's brackets and quotes, not the tables: whether a record is a good one, `reader.py` says.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
from backports import zstd

LANDING_EXTENSIONS = tuple(
    kind + compression
    for kind in (".json", ".jsonl", ".ndjson")
    for compression in ("", ".gz", ".zst")
)
"""How the names of landing files end, in any case."""

_CHUNK = 1 << 20
_CACHED = 1 << 18
"""Bytes that a core still has in its cache when it looks at them again."""
BATCH = 20_000
"""Records that are looked at together."""
_LONGEST_RECORD = 16 << 20  # as DuckDB's reader has it
_NEWLINE = ord("\n")
_BINARY_SNIFF = 8000  # a NUL this early says binary, as git has it

_DEEPEST = 30  # levels of a record that is spread over lines; see `_end_of_record`

_STRING = r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"'
_BETWEEN_RECORDS = re.compile(r"[\s,\[\]\ufeff]*")
_FLAT_OBJECT = re.compile(rf'\{{[^"{{}}\[\]\n]*+(?:{_STRING}[^"{{}}\[\]\n]*+)*+\}}')
_SCALAR = re.compile(
    rf"(?:{_STRING}|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)[ \t\r]*(?=[,\[\]{{\n]|\Z)"
)
_BARE_BRACKET = re.compile(r"\{[ \t\r]*\n")
_NEXT_OBJECT = re.compile(r",[ \t]*\{")
_LINE_BREAK = re.compile(r"[ \t\r]*\n")
_COMMA_BEHIND = re.compile(r"([\s\ufeff]*),")
_COMMA_BEFORE = re.compile(r",([\s\ufeff]*)\Z")
_TOKEN = re.compile(rf'{_STRING}|[{{}}\[\],:"\n]|[^\s{{}}\[\],:"]+')

_MAY_FOLLOW = {
    "": "{",
    "{{": "s}",
    "{,": "s}",
    "{k": ":",
    "{:": "sw{[",
    "{v": ",}",
    "[[": "sw{[]",
    "[,": "sw{[]",
    "[v": ",]",
}
"""Which kinds of token may come, by the innermost open bracket and the kind of the last token.

Kinds are (s)trings, other (w)ords and the punctuation; of the last token, (k)eys and whole
(v)alues. As DuckDB has it, a comma may be the last, and any word may be a value.
"""


class UnreadableFileError(ValueError):
    """A landing file that cannot be read at all; says why."""


class EntangledRecordsError(UnreadableFileError):
    """A broken landing file of which some records cannot be taken without changing others."""


def count_lines(path: Path, *, blank_ones: bool = True) -> int:
    """How many lines a file has; on the way it is seen whether the file can be read to its end.

    DuckDB looks neither at gzip's checksum nor at the end of a zstd frame, and would take a
    damaged file for a shorter or another one; and it reads whatever it is given.

    Args:
        path: a landing file.
        blank_ones: whether lines without anything but blanks count; without them it is slower.

    Raises:
        UnreadableFileError: the name is not a landing file's, or the content is damaged.
        OSError: the file cannot be opened.
    """
    verify_name(path)
    with _open(path) as stream:
        try:
            if not blank_ones:
                return sum(1 for line in stream if not line.isspace())
            chunk = np.empty(_CACHED, np.uint8)
            newlines, last = 0, _NEWLINE
            while size := stream.readinto(chunk):  # type: ignore[attr-defined]
                newlines += int(np.count_nonzero(chunk[:size] == _NEWLINE))
                last = chunk[size - 1]
            return newlines + (last != _NEWLINE)
        except _DAMAGED as error:
            raise _damaged(error) from error


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of any file, decompressed if its name says that it is compressed.

    Raises:
        UnreadableFileError: it cannot be decompressed.
        OSError: it cannot be opened.
    """
    with _open(path) as stream:
        try:
            while chunk := stream.read(_CHUNK):
                yield chunk
        except _DAMAGED as error:
            raise _damaged(error) from error


def is_text(path: Path) -> bool:
    """Whether a file's bytes, decompressed, are text in UTF-8, whatever its name says."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in chunks(path):
            if b"\0" in chunk:
                return False
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def verify_name(path: Path) -> None:
    """Look at how a file's name ends.

    Raises:
        UnreadableFileError: the name is not a landing file's.
    """
    if not path.name.lower().endswith(LANDING_EXTENSIONS):
        raise UnreadableFileError(
            f"the name does not end in {', '.join(LANDING_EXTENSIONS[::3])} (.gz, .zst)"
        )


def records(path: Path) -> Iterator[tuple[int, str]]:
    """The records of a file: the line on which each begins, from 1, and its text.

    Raises:
        UnreadableFileError, OSError: as `pieces`.
    """
    return ((line, text) for _, line, text in pieces(path) if text)


def write_without(
    path: Path, to: Path, leave_out: Callable[[Sequence[tuple[int, str]]], Sequence[bool]]
) -> int:
    """Write a file again without some of its records.

    The others are as they were, byte for byte, and so is what stands between them, but for the
    comma and the line break of one that is left out: lines stay lines, and an array an array.

    Args:
        path: a landing file.
        to: the file to write; its name ends as the other's does.
        leave_out: takes records, by line and text, and says of each whether it is left out.

    Returns:
        How many were left out.

    Raises:
        UnreadableFileError, OSError: as `pieces`.
        EntangledRecordsError: the others would be read as other ones than they were.
    """
    count, gap, is_start, is_gap_open = 0, "", True, False
    kept = hashlib.sha256()
    found = pieces(path)
    with _open(to, "wb") as stream, io.TextIOWrapper(stream, "utf-8", newline="") as out:
        while batch := list(islice(found, BATCH)):
            whole = [(line, text) for _, line, text in batch if text]
            flags = iter(leave_out(whole) if whole else ())
            for between, _, text in batch:
                was_open = is_gap_open
                gap = _closed(gap, between, is_start) if was_open else between
                is_gap_open = bool(text) and next(flags)
                if is_gap_open:
                    count += 1
                    continue
                if was_open and text and not (gap or is_start):
                    gap = "\n"  # the one that is left out kept them apart
                out.write(gap + text)
                kept.update(f"{len(text)} {text}".encode() if text else b"")
                is_start = False
    if count and _hashed(text for _, text in records(to)) != kept.digest():
        raise EntangledRecordsError(
            "a record is broken in such a way that the others, without those that are to be left "
            "out, would be read as other ones"
        )
    return count


def _hashed(texts: Iterable[str]) -> bytes:
    found = hashlib.sha256()
    for text in texts:
        found.update(f"{len(text)} {text}".encode())
    return found.digest()


def _closed(before: str, after: str, is_start: bool) -> str:
    """What stands between two records when the one between them is left out."""
    # The commas and brackets behind its own comma are those of other arrays.
    if _COMMA_BEHIND.match(after):
        after = _COMMA_BEHIND.sub(r"\1", after, count=1)
    else:
        before = _COMMA_BEFORE.sub(r"\1", before)
    if "\n" in before or (is_start and not before.strip("\ufeff")):
        after = _LINE_BREAK.sub("", after, count=1) if _LINE_BREAK.match(after) else after
    return before + after


def pieces(path: Path) -> Iterator[tuple[str, int, str]]:
    """The records of a file, and what stands between them.

    For each record: what stands before it, the line on which it begins, from 1, and its text. The
    last piece is what stands behind all records, with an empty text.

    Read are objects one a line, with a comma behind each, in an array, one after the other without
    a line break, and spread over lines. What is no JSON value is a record too.

    Raises:
        UnreadableFileError: the name is not a landing file's, or the content is damaged, binary or
            not UTF-8. Records that came before are then not to be used.
        OSError: the file cannot be opened.
    """
    verify_name(path)
    with _open(path) as stream:
        try:
            if b"\0" in stream.read(_BINARY_SNIFF):
                raise UnreadableFileError("the file is binary, not text")
            stream.seek(0)
            with io.TextIOWrapper(stream, "utf-8", newline="\n") as lines:
                yield from _cut(lines)
        except _DAMAGED as error:
            raise _damaged(error) from error
        except UnicodeDecodeError as error:
            raise UnreadableFileError("the file is not UTF-8 text") from error


_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)


def _damaged(error: Exception) -> UnreadableFileError:
    return UnreadableFileError(f"the file cannot be decompressed: {error}")


def _open(path: Path, mode: Literal["rb", "wb"] = "rb") -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            if mode == "rb" and not path.stat().st_size:  # gzip.open would take it for a whole file
                raise _damaged(EOFError("Compressed file is empty"))
            return cast(IO[bytes], gzip.open(path, mode))
        case ".zst":
            return cast(IO[bytes], zstd.open(path, mode))
        case _:
            return path.open(mode)


def _cut(lines: IO[str]) -> Iterator[tuple[str, int, str]]:
    text, line, at, at_end, between = "", 1, 0, False, ""
    while not at_end:
        # What the last chunk left over is the beginning of a record that goes on in this one.
        text, at = text[at:], 0
        more = "".join(lines.readlines(max(_CHUNK, len(text))))
        text, at_end = text + more, not more
        while True:
            start = _BETWEEN_RECORDS.match(text, at).end()  # type: ignore[union-attr]
            between += text[at:start]
            line, at = line + text.count("\n", at, start), start
            if start == len(text):
                break
            is_whole = at_end or len(text) - start >= _LONGEST_RECORD
            end = _end_of_record(text, start, is_whole)
            if end is None:
                break
            record = text[start:end].rstrip()
            yield between, line, record
            between = text[start + len(record) : end]
            line, at = line + text.count("\n", start, end), end
    yield between, line, ""


def _end_of_record(text: str, start: int, is_whole: bool) -> int | None:
    """Where the record, good or broken, that begins at `start` ends; None: not in this text.

    It ends where its brackets close, if that is on its line; or on a later line, if it is
    well-formed until there, or its first line is a bare bracket, as of an object spread over lines.
    What does not close ends with its line, and what is no object also before the line's next one.

    One that does not close is looked at again from its second line on, so that a limit to the
    levels is a limit to how often a line is looked at.
    """
    if found := _FLAT_OBJECT.match(text, start) or _SCALAR.match(text, start):
        return found.end()
    is_spread = _BARE_BRACKET.match(text, start) is not None
    is_well_formed = True
    line_end = -1
    brackets: list[str] = []
    last = ""
    for token in _TOKEN.finditer(text, start):
        kind = _kind(token[0])
        inner = brackets[-1] if brackets else ""
        if kind == "\n":
            line_end = token.start() if line_end < 0 else line_end
        elif is_well_formed:
            is_well_formed = kind in _MAY_FOLLOW[inner + last]
        if line_end >= 0 and (len(brackets) > _DEEPEST or not (is_well_formed or is_spread)):
            return line_end
        if kind in "{[":
            brackets.append(kind)
            last = kind
        elif kind in "}]":
            if len(brackets) <= 1:
                return token.end()
            brackets.pop()
            last = "v"
        elif kind in ",:":
            if not brackets and _NEXT_OBJECT.match(text, token.start()):
                return token.start()
            last = kind
        elif kind != "\n":
            last = "k" if inner == "{" and last in "{," else "v"
    if not is_whole:
        return None
    return line_end if line_end >= 0 else len(text)


def _kind(token: str) -> str:
    if len(token) == 1 and token in '{}[],:"\n':
        return token
    return "s" if token[0] == '"' else "w"
