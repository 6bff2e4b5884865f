"""Cutting one landing file into its records, each with its line and its text, or without some.

Knows JSON's brackets and quotes, not the tables: whether a record is a good one, `reader.py` says.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, TypeVar, cast

import numpy as np
from backports import zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

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
_BATCH_LETTERS = 16 << 20
_LONGEST_RECORD = 32 << 20
"""Letters of a record: DuckDB's reader takes none that is longer."""
_UNPACKED = 256 << 20
"""Bytes to which any file may decompress: they are read in seconds."""
_RATIO = 250
"""How many times its size a larger file may decompress to. Landing files come to 5 to 20, those of
a phone that lies still to 95, and what is packed to do harm to 1,000 (gzip) and 10,000 (zstd)."""
_LARGEST = 64 << 30
"""Bytes to which no file may decompress."""
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


_Found = TypeVar("_Found", bound=tuple[object, ...])


class UnreadableFileError(ValueError):
    """A landing file that cannot be read at all; says why."""


class EntangledRecordsError(UnreadableFileError):
    """A broken landing file of which some records cannot be taken without changing others."""


def count_lines(path: Path) -> int:
    """How many lines a file has; on the way it is seen whether the file can be read to its end.

    DuckDB looks neither at gzip's checksum nor at the end of a zstd frame, and would take a
    damaged file for a shorter or another one; and it reads whatever it is given.

    Raises:
        UnreadableFileError: the name is not a landing file's, or the content is damaged, or
            decompresses to too much.
        OSError: the file cannot be opened.
    """
    verify_name(path)
    with _open(path) as stream:
        try:
            chunk = np.empty(_CACHED, np.uint8)
            newlines, last = 0, _NEWLINE
            while size := stream.readinto(chunk):  # type: ignore[attr-defined]
                newlines += int(np.count_nonzero(chunk[:size] == _NEWLINE))
                last = chunk[size - 1]
            return newlines + (last != _NEWLINE)
        except _DAMAGED as error:
            raise _damaged(error) from error


def count_written_lines(path: Path) -> tuple[int, int]:
    """How many lines a file has with anything but blanks, and how many bytes; slower.

    Raises:
        UnreadableFileError, OSError: as `count_lines`.
    """
    verify_name(path)
    count, size, is_written = 0, 0, False
    for chunk in chunks(path):
        first, *more = chunk.split(b"\n")
        is_written = is_written or bool(first.strip())
        if more:
            *whole, begun = more
            count += is_written + sum(1 for line in whole if line.strip())
            is_written = bool(begun.strip())
        size += len(chunk)
    return count + is_written, size


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


def batches(found: Iterable[_Found], size: int) -> Iterator[list[_Found]]:
    """Records, or pieces, so many at a time, and fewer where they are long."""
    batch: list[_Found] = []
    letters = 0
    for one in found:
        batch.append(one)
        letters += sum(len(part) for part in one if isinstance(part, str))
        if len(batch) == size or letters >= _BATCH_LETTERS:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


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
    with _open(to, "wb") as stream, io.TextIOWrapper(stream, "utf-8", newline="") as out:
        for batch in batches(pieces(path), BATCH):
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
        UnreadableFileError: the name is not a landing file's, or the content is damaged, binary,
            not UTF-8, or too large: a record, or what is decompressed. Records that came before
            are then not to be used.
        OSError: the file cannot be opened.
    """
    verify_name(path)
    with _open(path) as start, _open(path) as stream:
        try:
            if b"\0" in start.read(_BINARY_SNIFF):
                raise UnreadableFileError("the file is binary, not text")
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
    of_file = path.stat() if mode == "rb" else None
    if of_file and not stat.S_ISREG(of_file.st_mode):  # opening a pipe waits for its other end
        raise UnreadableFileError("it is no file but a pipe, a device or a folder")
    if of_file and of_file.st_size > _UNPACKED and _has_holes(path, of_file.st_size):
        raise UnreadableFileError("it has holes, of which nobody wrote anything")
    match path.suffix.lower():
        case ".gz":
            if of_file and not of_file.st_size:  # gzip.open would take it for a whole file
                raise _damaged(EOFError("Compressed file is empty"))
            return _limited(cast(IO[bytes], gzip.open(path, mode)), of_file)
        case ".zst":
            return _limited(cast(IO[bytes], zstd.open(path, mode)), of_file)
        case _:
            return path.open(mode)


def _has_holes(path: Path, size: int) -> bool:
    """Whether parts of a file were left out: it can be of any size, and take no room."""
    with path.open("rb") as stream:
        return os.lseek(stream.fileno(), 0, os.SEEK_HOLE) < size


def _limited(stream: IO[bytes], packed: os.stat_result | None) -> IO[bytes]:
    if not packed:  # it is to be written
        return stream
    limit = min(max(_UNPACKED, _RATIO * packed.st_size), _LARGEST)
    return cast(IO[bytes], io.BufferedReader(_Unpacked(stream, limit), _CACHED))


class _Unpacked(io.RawIOBase):
    """What a compressed file decompresses to, up to a limit."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit, self._left = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        size: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._left -= size
        if self._left < 0:
            raise UnreadableFileError(f"the file decompresses to more than {self._limit:,} bytes")
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


def _cut(lines: IO[str]) -> Iterator[tuple[str, int, str]]:
    text, line, at, at_end, between = "", 1, 0, False, ""
    while not at_end:
        # What the last chunk left over is the beginning of a record that goes on in this one.
        text, at = text[at:], 0
        size = max(_CHUNK, len(text))
        more = lines.read(size)
        more += lines.readline(size)  # whole lines, where they are not longer than that
        text, at_end = text + more, not more
        is_whole_line = at_end or text.endswith("\n")
        while True:
            start = _BETWEEN_RECORDS.match(text, at).end()  # type: ignore[union-attr]
            between += text[at:start]
            line, at = line + text.count("\n", at, start), start
            if start == len(text):
                break
            is_long = len(text) - start >= _LONGEST_RECORD
            end = _end_of_record(text, start, at_end or is_long, is_whole_line)
            if end is None and not is_long:
                break
            if end is None or end - start > _LONGEST_RECORD:
                raise UnreadableFileError(
                    f"a record on line {line:,} is longer than {_LONGEST_RECORD:,} letters"
                )
            record = text[start:end].rstrip()
            yield between, line, record
            between = text[start + len(record) : end]
            line, at = line + text.count("\n", start, end), end
        if len(between) > _LONGEST_RECORD:
            yield between, line, ""
            between = ""
    yield between, line, ""


def _end_of_record(text: str, start: int, is_whole: bool, is_whole_line: bool) -> int | None:
    """Where the record, good or broken, that begins at `start` ends; None: not in this text.

    It ends where its brackets close, if that is on its line; or on a later line, if it is
    well-formed until there, or its first line is a bare bracket, as of an object spread over lines.
    What does not close ends with its line, and what is no object also before the line's next one.

    One that does not close is looked at again from its second line on, so that a limit to the
    levels is a limit to how often a line is looked at.

    Args:
        text: lines.
        start: where in them the record begins.
        is_whole: whether it has to end in this text, at the latest with its line.
        is_whole_line: whether the last line is there to its end; else of strings that do not end
            nobody can tell.
    """
    if found := _FLAT_OBJECT.match(text, start):
        return found.end()
    if found := _SCALAR.match(text, start):
        return found.end() if is_whole_line or found.end() < len(text) else None
    cut_off = len(text) if is_whole_line else text.rfind("\n") + 1
    is_spread = _BARE_BRACKET.match(text, start) is not None
    is_well_formed = True
    line_end: int | None = None
    brackets: list[str] = []
    last = ""
    for token in _TOKEN.finditer(text, start):
        kind = _kind(token[0])
        if kind == '"' and token.start() >= cut_off:
            return None
        inner = brackets[-1] if brackets else ""
        if kind == "\n":
            line_end = token.start() if line_end is None else line_end
        elif is_well_formed:
            is_well_formed = kind in _MAY_FOLLOW[inner + last]
        if line_end is not None and (len(brackets) > _DEEPEST or not (is_well_formed or is_spread)):
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
    if line_end is not None:
        return line_end if is_whole else None
    return len(text) if is_whole and is_whole_line else None


def _kind(token: str) -> str:
    if len(token) == 1 and token in '{}[],:"\n':
        return token
    return "s" if token.startswith('"') else "w"
