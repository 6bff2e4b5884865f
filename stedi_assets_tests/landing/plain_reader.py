"""What is in a landing file, by plain Python: `json`, and the rules as the documents have them.

Written from the demands, for files that fit into memory; how the reader under test finds the same,
and which of its ways it takes, is no matter here. Slow on purpose where that is simple.
"""

import gzip
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

from backports import zstd

from stedi_assets.tables import Source

FIELDS: dict[Source, list[tuple[str, str, bool]]] = {
    Source.CUSTOMER: [
        ("customerName", "string", False),
        ("email", "string", True),
        ("phone", "string", False),
        ("birthDay", "string", False),
        ("serialNumber", "string", True),
        ("registrationDate", "int64", True),
        ("lastUpdateDate", "int64", True),
        ("shareWithResearchAsOfDate", "int64", False),
        ("shareWithPublicAsOfDate", "int64", False),
        ("shareWithFriendsAsOfDate", "int64", False),
    ],
    Source.ACCELEROMETER: [
        ("user", "string", True),
        ("timestamp", "int64", True),
        ("x", "float64", True),
        ("y", "float64", True),
        ("z", "float64", True),
    ],
    Source.STEP_TRAINER: [
        ("sensorReadingTime", "int64", True),
        ("serialNumber", "string", True),
        ("distanceFromObject", "int32", True),
    ],
}
"""The producers' key, the type, and whether it is required."""

Row = tuple[Any, ...]
Reject = tuple[str, int | None, str, str | None]
"""File, line, reason, record."""


# --- One record ------------------------------------------------------------------------------


class Members(list[tuple[str, Any]]):
    """What stands in an object, in order, keys that occur twice among them."""


class Whole(str):
    """A number without fraction and exponent."""


class Real(str):
    """Any other number, NaN and Infinity among them."""


def judge(source: Source, text: str) -> Row | str:
    """The row of a record, or the reason why there is none."""
    try:
        record = json.loads(
            strict(text),
            object_pairs_hook=Members,
            parse_int=Whole,
            parse_float=Real,
            parse_constant=Real,
        )
        json.dumps(record, ensure_ascii=False).encode()  # which half a surrogate pair cannot be
    except ValueError:
        return "not valid JSON"
    if not isinstance(record, Members):
        return "not a JSON object"
    row = []
    for key, kind, is_required in FIELDS[source]:
        name = key.lower()
        given = [value for found, value in record if found == key]
        given = given or [value for found, value in record if lower(found) == name]
        if len(given) > 1:
            return f"{name} is given more than once"
        raw = given[0] if given else None
        value = None if raw is None else typed(kind, raw)
        if raw is None and is_required:
            return f"{name} is missing"
        if raw is not None and value is None:
            return f"{name} is not a valid {kind}"
        if is_required and kind == "string" and not value.strip(" \t\r\n\f\v"):
            return f"{name} is blank"
        row.append(value)
    return tuple(row)


def lower(key: str) -> str:
    """A key in small letters, a letter for each: `İ`, which has none, stays no `i`."""
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in key)


def typed(kind: str, raw: Any) -> Any:
    """The value of a field, None where it is none of its type."""
    if kind == "string":
        return raw if type(raw) is str else None
    if kind == "float64":
        number = float(raw) if isinstance(raw, Whole | Real) else math.nan
        return number if math.isfinite(number) else None
    if not isinstance(raw, Whole) or len(raw) > 100:
        return None
    limit = 2 ** (int(kind[3:]) - 1)
    return int(raw) if -limit <= int(raw) < limit else None


_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+|\s+|"', re.DOTALL)
_NO_NUMBER = re.compile(r"-?(?:nan|inf|infinity)", re.IGNORECASE)


def strict(text: str) -> str:
    """JSON with a comma behind a last value, or NaN in any case, as Python's reader takes it."""
    parts = _PARTS.findall(text)
    told = [place for place, part in enumerate(parts) if not part.isspace()]
    for before, here, after in zip([-1, *told], told, told[1:], strict=False):
        if parts[here] == "," and parts[after] in {"}", "]"} and before >= 0:
            parts[here] = " " if parts[before] not in {"{", "[", ",", ":"} else ","
    return "".join("NaN" if _NO_NUMBER.fullmatch(part) else part for part in parts)


# --- One file --------------------------------------------------------------------------------


def read_plainly(source: Source, name: str, path: Path) -> tuple[list[Row], list[Reject]]:
    """The rows of a file, and its rejects."""
    try:
        text = text_of(path)
    except ValueError as error:
        return [], [(name, None, str(error), None)]
    rows: list[Row] = []
    rejects: list[Reject] = []
    for line, record in cut(text):
        match judge(source, record):
            case str(reason):
                rejects.append((name, line, reason, record))
            case row:
                rows.append(row)
    return rows, rejects


def text_of(path: Path) -> str:
    """What a file says.

    Raises:
        ValueError: it cannot be read; why, as far as all agree on it.
    """
    content = path.read_bytes()
    kind = path.suffix.lower()
    if not path.name.lower().removesuffix(kind if kind in {".gz", ".zst"} else "").endswith(
        (".json", ".jsonl", ".ndjson")
    ):
        raise ValueError("the name does not end in .json, .jsonl, .ndjson (.gz, .zst)")
    try:
        if kind in {".gz", ".zst"} and not content:
            raise EOFError
        if kind == ".gz":
            content = gzip.decompress(content)
        elif kind == ".zst":
            content = zstd.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError):
        raise ValueError("the file cannot be decompressed") from None
    if b"\0" in content[:8000]:
        raise ValueError("the file is binary, not text")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None


def cut(text: str) -> list[tuple[int, str]]:
    """The records of a text: the line on which each begins, and what stands there."""
    found = []
    at = 0
    while True:
        while at < len(text) and (text[at].isspace() or text[at] in ",[]\ufeff"):
            at += 1
        if at == len(text):
            return found
        end = end_of_record(text, at)
        found.append((1 + text.count("\n", 0, at), text[at:end].rstrip()))
        at = end


_TOKENS = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"|[{}\[\],:"\n]|[^\s{}\[\],:"]+')
_LITERAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")


def end_of_record(text: str, start: int) -> int:
    """Where the record that begins at `start` ends.

    Where its brackets close, if they do on its first line. Of what goes on over lines, where they
    close, if it is well-formed until there, or if its first line is nothing but a bracket; but not
    if it is more than thirty brackets deep at its second line or later. All else ends with its
    first line, or, outside brackets, before a comma with an object behind it. A string, a number or
    a word of JSON that stands alone ends where it ends.
    """
    newline = text.find("\n", start)
    first_line_ends = len(text) if newline < 0 else newline
    first_line = text[start:first_line_ends]
    if alone := re.match(r'"(?:[^"\\]|\\.)*"', first_line) or _LITERAL.match(first_line):
        behind = first_line[alone.end() :].lstrip(" \t\r")
        if not behind or behind[0] in ",[]{":
            return start + alone.end()
    open_brackets = ""
    shape = Shape()
    for token in _TOKENS.finditer(text, start):
        if token[0] != "\n":
            shape.take(token[0])
        is_behind = token.start() >= first_line_ends
        may_go_on = shape.is_right or first_line.rstrip(" \t\r") == "{"
        if is_behind and (len(open_brackets) > 30 or not may_go_on):
            return first_line_ends
        if token[0] in "{[":
            open_brackets += token[0]
        elif token[0] in "}]":
            open_brackets = open_brackets[:-1]
            if not open_brackets:
                return token.end()
        elif token[0] == "," and not open_brackets:
            if re.match(r",[ \t]*\{", text[token.start() : first_line_ends]):
                return token.start()
    return first_line_ends


class Shape:
    """Whether tokens, one after the other, can be the beginning of one object.

    Taken are any word for a value, and a comma behind the last one.
    """

    def __init__(self) -> None:
        self.is_right = True
        self._stack: list[str] = []
        self._wanted = "start"

    def take(self, token: str) -> None:
        if self.is_right:
            self._wanted = self._after(token)
            self.is_right = self._wanted != "nothing"

    def _after(self, token: str) -> str:
        wanted, inner = self._wanted, self._stack[-1] if self._stack else ""
        is_string = len(token) > 1 and token[0] == '"'
        is_value = is_string or (token[0] not in '{}[],:"')
        if token == "{" and wanted in {"start", "value", "value or end"}:
            self._stack.append("{")
            return "key or end"
        if token == "[" and wanted in {"value", "value or end"}:
            self._stack.append("[")
            return "value or end"
        if token == ("}" if inner == "{" else "]") and wanted.endswith("end"):
            self._stack.pop()
            return "comma or end"
        if is_string and wanted == "key or end":
            return "colon"
        if token == ":" and wanted == "colon":
            return "value"
        if is_value and wanted in {"value", "value or end"}:
            return "comma or end"
        if token == "," and wanted == "comma or end" and inner:
            return "key or end" if inner == "{" else "value or end"
        return "nothing"
