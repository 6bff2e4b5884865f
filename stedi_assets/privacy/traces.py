"""Looking for words that name a person in everything that a lake holds, whatever it is.

Knows files, not tables: Parquet value by value, all else byte by byte, decompressed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from stedi_assets.engines.duckdb import DuckDBEngine, file_names, quoted
from stedi_assets.lake import LINK, Lake, StoredFile
from stedi_assets.landing.records import UnreadableFileError, chunks

_OVERLAP = 4000
"""Bytes by which chunks of a file overlap: no email or serial number is longer, also escaped."""
_EDGE = 16
"""Letters at an edge of a chunk, where it cannot be seen what stands beside a word."""

_EXTENSION = r"(?:json|jsonl|ndjson|gz|zst|parquet|csv|txt|tmp|temp|part)"
"""What may stand behind a word in a file's name, where it is no part of an email's host."""

_NO_TEXTS = {"BIGINT", "INTEGER", "DOUBLE", "BOOLEAN", "UBIGINT", "DATE"}
"""Types of columns in which no word can be; of all others, lists of texts among them, any can."""

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


@dataclass
class Traces:
    """What a search found.

    Attributes:
        keys: of the files that hold one of the words, or have it in their name.
        unreadable: why files could not be searched, by key.
    """

    keys: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


class Words:
    """Words to look for, in any case, where they stand alone: `ann@a.com`, not `joann@a.com`."""

    def __init__(self, words: Collection[str]) -> None:
        self.words = sorted({word.lower() for word in words if word})
        either = "|".join(map(re.escape, self.words)) or r"(?!)"
        self._pattern = re.compile(
            rf"(?<![\w.+-])(?:{either})(?!\w|-(?!\d{{13}}\b)|\.(?!{_EXTENSION}\b)\w)", re.IGNORECASE
        )
        self._bytes = [word.encode() for word in self.words]

    def are_in(self, text: str, is_start: bool = True, is_end: bool = True) -> bool:
        """Whether one of them is in a text, as it stands or in JSON's escapes.

        Args:
            text: to look at.
            is_start: whether nothing stands before it; if something does, the letters at its
                beginning are left to who looks at what they belong to.
            is_end: whether nothing stands behind it, likewise.
        """
        for form in (text, _unescaped(text)) if "\\" in text else (text,):
            first, last = 0 if is_start else _EDGE, len(form) - (0 if is_end else _EDGE)
            found = self._pattern.finditer(form)
            if any(first <= word.start() and word.end() <= last for word in found):
                return True
        return False

    def hidden_in(self, text: str) -> str:
        """A text in which something else stands for them."""
        return self._pattern.sub("(the person)", text)

    def are_in_bytes(self, content: bytes, is_start: bool = True, is_end: bool = True) -> bool:
        """The same of the bytes of a text, in UTF-8 or UTF-16."""
        content = content.replace(b"\0", b"")
        lower = content.lower()  # of ASCII alone
        if (
            not any(word in lower for word in self._bytes)
            and lower.isascii()
            and b"\\" not in lower
        ):
            return False
        return self.are_in(content.decode("utf-8", "replace"), is_start, is_end)


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(_letter, text)
    # Of two halves of a letter one is made.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _letter(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return "/" if escape[2] == "/" else " "


def search(lake: Lake, engine: DuckDBEngine, words: Words, files: Iterable[StoredFile]) -> Traces:
    """Look for words in files.

    Args:
        lake: has the files.
        engine: reads Parquet.
        words: to look for.
        files: where to look.
    """
    found = Traces()
    parquet: dict[Path, StoredFile] = {}
    for file in files:
        if words.are_in(file.key):
            found.keys.append(file.key)
        if file.odd not in {"", LINK}:  # nothing is in it, or nobody looks
            continue
        if file.key.endswith(".parquet"):
            parquet[lake.storage.fetch(file)] = file
            continue
        try:
            if _in_file(lake.storage.fetch(file), words):
                found.keys.append(file.key)
        except (OSError, UnreadableFileError) as error:
            found.unreadable[file.key] = str(error)
    for path in _in_parquet(engine, list(parquet), words, found, parquet):
        found.keys.append(parquet[path].key)
    return found


def _in_file(path: Path, words: Words) -> bool:
    held, is_start = b"", True
    for chunk in chunks(path):
        held += chunk
        if words.are_in_bytes(held, is_start, is_end=False):
            return True
        if len(held) > _OVERLAP:
            held, is_start = held[-_OVERLAP:], False
    return words.are_in_bytes(held, is_start)


def _in_parquet(
    engine: DuckDBEngine,
    paths: Sequence[Path],
    words: Words,
    found: Traces,
    files: dict[Path, StoredFile],
) -> list[Path]:
    """The files in which a text holds one of the words; all at once, for they are thousands."""
    if not paths:
        return []
    try:
        return _in_readable_parquet(engine, paths, words)
    except duckdb.Error as error:
        if len(paths) == 1:
            found.unreadable[files[paths[0]].key] = f"it is damaged: {type(error).__name__}"
            return []
        middle = len(paths) // 2
        return [
            path
            for half in (paths[:middle], paths[middle:])
            for path in _in_parquet(engine, half, words, found, files)
        ]


def _in_readable_parquet(engine: DuckDBEngine, paths: Sequence[Path], words: Words) -> list[Path]:
    execute = engine.connection.execute
    schemas: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file, name, kind in execute(
        "SELECT file_name, name, duckdb_type FROM parquet_schema($files) ORDER BY column_id",
        {"files": file_names(paths)},
    ).fetchall():
        schemas[file].append((name, kind))
    of_schema: dict[tuple[tuple[str, str], ...], list[Path]] = defaultdict(list)
    for path in paths:
        of_schema[tuple(schemas[str(path)])].append(path)
    alike: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for of_these in of_schema.values():
        rows = "FROM read_parquet($files, hive_partitioning = false) LIMIT 0"
        described = execute(rows, {"files": file_names(of_these[:1])}).description or []
        texts = (of[0] for of in described if str(of[1]) not in _NO_TEXTS)
        alike[tuple(texts)] += of_these
    holding: set[str] = set()
    for columns, of_these in alike.items():
        for column in columns:
            candidates = execute(
                f"SELECT DISTINCT filename, {quoted(column)}::VARCHAR AS value "
                "FROM read_parquet($files, filename = true, hive_partitioning = false) "
                f"WHERE list_bool_or(list_transform($words, lambda word: "
                f"contains(lower({quoted(column)}::VARCHAR), word))) "
                rf"OR contains({quoted(column)}::VARCHAR, '\')",
                {"files": file_names(of_these), "words": words.words},
            ).fetchall()
            holding |= {name for name, value in candidates if words.are_in(value)}
    return [path for path in paths if str(path) in holding]
