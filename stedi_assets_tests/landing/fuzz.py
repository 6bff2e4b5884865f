"""Random landing files, good and spoilt, read by the reader and by plain Python; both must agree.

    python -m stedi_assets_tests.landing.fuzz --inputs 100000

An input is a landing file. Files come in landings of some days, as a run finds them; a landing that
is read otherwise is made smaller and shown, with the seed that makes it again.
"""

import argparse
import gzip
import itertools
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from random import Random
from unittest.mock import patch

from backports import zstd

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import open_lake
from stedi_assets.landing import reader, records
from stedi_assets.landing.reader import Day, count_records, read_days
from stedi_assets.resources import open_engine
from stedi_assets.tables import Source
from stedi_assets_tests.landing.plain_reader import FIELDS, Reject, Row, read_plainly
from stedi_assets_tests.storages import room_for_lakes

FIRST = date(2023, 8, 6)

NAMES = [
    "a",
    "it's",
    'say "x"',
    "*",
    "[ab]",
    "wh?",
    "{a,b}",
    "new\nline",
    "100%s",
    "Zoë 😀",
    "$HOME",
]
"""Of files, without number and extension."""

VALUES = [
    *("12.7", "12.0", "1e3", "1E2", "-0", "-0.0", "0.1", "true", "false", "null", '"123"', '""'),
    *(
        "NaN",
        "nan",
        "-inf",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1e-400",
        "5e-324",
        "1e308",
    ),
    *("9" * 400, "2147483647", "2147483648", "-2147483649", "9223372036854775807"),
    *("9223372036854775808", "-9223372036854775808", "-9223372036854775809", "9007199254740993"),
    *("18446744073709551615", "18446744073709551616", "0.1000000000000000055511151231257827"),
    *("[]", "{}", '[1, {"user": "}"}]', '{"timestamp": 1}', "[" * 40 + "]" * 40, '"\\u0000"'),
    *('" v"', '" \\t"', '"\\u000b"', '"\u00a0"', '"\u2028"', '"\ufeff"', '"\\ud83d\\ude00"', '"é"'),
    *("1" + "0" * 30, "179769313486231580793e289", "4.9e-325", "1E+2", "0e0", "1.0E-2", '"null"'),
]
"""What may stand where a value is wanted: all of it is JSON, or nearly."""

SPOILT = [
    *(
        "",
        "01",
        "+1",
        "oops",
        "1 2",
        "'a'",
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\x"',
        '"a\tb"',
        ".5",
    ),
    *("1.", "1e", "--1", "0x10", "1_000", "/* c */ 1", "1 // c", "undefined", "None", "True", '"x'),
    *("+Infinity", "-nan", "١٢", '"\x00"', '"\x7f"', "\x0c1", "\u20281", "[1", "{", "}", "]", "1,"),
]
"""What is no value."""

KEYS = [
    "extra",
    "",
    "users",
    "a.b",
    "$",
    "/user",
    "x y",
    "é",
    "USER",
    "Timestamp",
    "t\\u0069mestamp",
]

TOKENS = [
    *'{}[],:"\\\n\r\t \f\v\0\x1c\x85',
    *("\n\n", "\r\n", "{}", "[]", "{{", "}}", "[[", "]]", "\ufeff", "\u00a0", "\u2028", "\u2029"),
    *(
        "//",
        "/*",
        "*/",
        "#",
        "NaN",
        "null",
        "true",
        "-",
        "1e400",
        '"user"',
        '"x":1',
        '\\"',
        "\\u0000",
    ),
    *(
        "\\ud800",
        "\ud800",
        "😀",
        "'",
        "'; DROP TABLE landed; --",
        "${HOME}",
        "{{ 7*7 }}",
        "%s",
        "\x1b[2J",
    ),
]
"""What is put anywhere. A lone surrogate becomes three bytes that UTF-8 has not."""

LAYOUTS = [  # before all records, between two, after all
    ("", "\n", "\n"),
    ("", "\n", "\n"),
    ("", "\n", "\n"),
    ("", "\n", ""),
    ("", ",\n", ",\n"),
    ("", "\r\n", "\r\n"),
    ("", "\r", "\r"),
    ("\n \n", "\n\n\n", "\n\n"),
    ("\ufeff", "\n", "\n"),
    ("[\n", ",\n", "\n]\n"),
    ("[", ",", "]"),
    ("[ ", " , ", " ]\r\n"),
    ("", "", ""),
    ("", " ", "\n"),
    ("[", "]\n[", "]\n"),
    ("[", ",", "]\n[]"),
    ("", "\f", "\n"),
    ("", "\u2028", "\n"),
    ("\n", "\t\n", " "),
]

ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7"]


def _pieces(content: bytes, random: Random) -> list[bytes]:
    """A content in parts, as a sender that compresses each by itself has it."""
    at = sorted(random.choices(range(len(content) + 1), k=random.choice([0, 0, 1, 2])))
    return [content[a:b] for a, b in zip([0, *at], [*at, len(content)], strict=True)]


def _gzipped(content: bytes, random: Random) -> bytes:
    return b"".join(
        gzip.compress(part, random.choice([0, 1, 9]), mtime=0) for part in _pieces(content, random)
    )


_SKIPPED = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"  # a zstd frame that says nothing


def _zstandard(content: bytes, random: Random) -> bytes:
    frames = [
        zstd.compress(part, options={zstd.CompressionParameter.checksum_flag: random.randint(0, 1)})
        for part in _pieces(content, random)
    ]
    if random.random() < 0.2:
        frames.insert(random.randint(0, len(frames)), _SKIPPED)
    return b"".join(frames)


COMPRESSIONS: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": lambda content, _: content,
    ".jsonl": lambda content, _: content,
    ".NDJSON": lambda content, _: content,
    ".json.gz": _gzipped,
    ".ndjson.zst": _zstandard,
}


USUAL = {"_LARGE": 2_000_000, "_AT_ONCE": 2_000, "BATCH": 20_000, "_FEW": 20, "_CHUNK": 1 << 20}
"""How the reader's modules are set."""


@dataclass(frozen=True)
class Landing:
    """Landing files of one source, and how the reader is set.

    Attributes:
        source: whose they are.
        days: the bytes of each file by its name, by date.
        threads: of DuckDB.
        settings: of the reader's modules, made small, so that little files meet every edge.
    """

    source: Source
    days: Mapping[date, Mapping[str, bytes]]
    threads: int
    settings: Mapping[str, int]


# --- Making them -----------------------------------------------------------------------------


def landing(random: Random) -> Landing:
    """Any landing."""
    source = random.choice(list(Source))
    spoils = random.choice([0.0, 0.3, 1.0])
    number = iter(range(100))
    days = {
        FIRST + timedelta(day): dict(
            _file(random, source, next(number), random.random() < spoils)
            for _ in range(random.choice([0, 1, 2, 5, 10, 25]))
        )
        for day in range(random.choice([1, 1, 2, 4]))
    }
    settings = {
        "_LARGE": random.choice([0, 300, 2_000_000, 2_000_000]),
        "BATCH": random.choice([1, 2, 7, 20_000]),
        "_AT_ONCE": random.choice([1, 3, 2_000]),
        "_FEW": random.choice([0, 0, 1, 20]),
        "_CHUNK": random.choice([1, 5, 64, 1 << 20]),
    }
    return Landing(source, days, random.randint(1, 4), settings)


def _file(random: Random, source: Source, number: int, is_spoilt: bool) -> tuple[str, bytes]:
    extension = random.choice(list(COMPRESSIONS))
    name = f"{random.choice(NAMES)} {number}{extension}"
    if random.random() < 0.05:
        name = f"user=someone/x=5/{name}"
    faults = random.choice([0, 0, 1, 3]) if is_spoilt else 0
    texts = [_record(random, source, faults) for _ in range(random.choice([0, 1, 2, 3, 5, 12]))]
    before, between, after = random.choice(LAYOUTS if is_spoilt else LAYOUTS[:4])
    text = before + between.join(texts) + after
    content = text.encode("utf-8", "surrogatepass")
    if is_spoilt:
        for _ in range(random.choice([0, 0, 1, 1, 2, 5])):
            content = random.choice(MUTATIONS)(content, random)
        if random.random() < 0.04:
            encoding = random.choice(ENCODINGS)
            content = content.decode("utf-8", "replace").encode(encoding, "replace")
    packed = COMPRESSIONS[extension](content, random)
    if is_spoilt and random.random() < 0.08:
        packed = random.choice(MUTATIONS)(packed, random)
    return name, packed


def _record(random: Random, source: Source, faults: int) -> str:
    members = [(json.dumps(key), _right(random, kind)) for key, kind, _ in FIELDS[source]]
    for _ in range(random.randint(0, faults)):
        at = random.randrange(len(members))
        key, value = members[at]
        match random.choice(["value", "value", "key", "drop", "twice", "extra", "order", "spoil"]):
            case "value":
                members[at] = key, random.choice(VALUES)
            case "key":
                members[at] = random.choice([key.upper(), key.lower(), key.title()]), value
            case "drop" if len(members) > 1:
                del members[at]
            case "twice":
                again = random.choice([key, key.upper(), key.lower()])
                members.insert(random.randint(0, len(members)), (again, random.choice(VALUES)))
            case "extra":
                members.insert(at, (f'"{random.choice(KEYS)}"', random.choice(VALUES)))
            case "order":
                random.shuffle(members)
            case "spoil":
                members[at] = key, random.choice(SPOILT)
    start, colon, comma, end = random.choice(
        [
            ("{", ":", ",", "}"),
            ("{", ":", ",", "}"),
            ("{", ": ", ", ", "}"),
            ("{ ", " : ", " , ", " }"),
            *(
                [("{\n  ", ": ", ",\n  ", "\n}"), ("{\r\n\t", ":", ",\r\n\t", ",\r\n}")]
                if faults
                else []
            ),
        ]
    )
    return start + comma.join(f"{key}{colon}{value}" for key, value in members) + end


def _right(random: Random, kind: str) -> str:
    match kind:
        case "string":
            return json.dumps(
                random.choice(["a@b.c", " B@b.c", "50f7", "é😀", 'x"\\\n}', "{,}"]),
                ensure_ascii=random.random() < 0.5,
            )
        case "float64":
            return random.choice(
                [
                    repr(random.uniform(-9, 9)),
                    repr(random.uniform(-1, 1) * 10.0 ** random.randint(-320, 308)),
                    str(random.randint(-9, 9)),
                ]
            )
        case "int64":
            return str(random.choice([random.randint(0, 99), random.randint(-(2**63), 2**63 - 1)]))
        case _:
            return str(random.randint(-(2**31), 2**31 - 1))


def _at(content: bytes, random: Random) -> int:
    return random.randint(0, len(content))


def _cut_off(content: bytes, random: Random) -> bytes:
    return content[: _at(content, random)]


def _cut_out(content: bytes, random: Random) -> bytes:
    start = _at(content, random)
    return content[:start] + content[start + random.choice([1, 1, 2, 30]) :]


def _put_in(content: bytes, random: Random) -> bytes:
    start = _at(content, random)
    token = random.choice(TOKENS).encode("utf-8", "surrogatepass")
    return content[:start] + token + content[start:]


def _flip(content: bytes, random: Random) -> bytes:
    start = _at(content, random)
    return content[:start] + bytes([random.randrange(256)]) + content[start + 1 :]


def _double(content: bytes, random: Random) -> bytes:
    start, end = sorted((_at(content, random), _at(content, random)))
    return content[:end] + content[start:end] + content[end:]


def _swap(content: bytes, random: Random) -> bytes:
    a, b, c = sorted(_at(content, random) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _swap_lines(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    random.shuffle(lines)
    return b"\n".join(lines)


MUTATIONS = [_cut_off, _cut_out, _put_in, _put_in, _put_in, _flip, _double, _swap, _swap_lines]


# --- Reading them ----------------------------------------------------------------------------


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Reader:
    """The reader under test, over a folder of its own."""

    def __init__(self, engine: DuckDBEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder

    def difference(self, one: Landing) -> str:
        """What the reader makes otherwise of a landing than plain Python does; empty if nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        paths = {
            day: {name: self._write(day, name, content) for name, content in files.items()}
            for day, files in one.days.items()
        }
        expected = {
            day: [read_plainly(one.source, _shown(name), path) for name, path in files.items()]
            for day, files in paths.items()
        }
        try:
            found = self._read(one, paths)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        for day, files in expected.items():
            rows, rejects, count = found[day]
            wanted = Counter(row for of_file, _ in files for row in of_file)
            if rows != wanted:
                return f"{day}: rows {dict(rows - wanted)} are wrong, {dict(wanted - rows)} missing"
            refused = Counter(reject for _, of_file in files for reject in of_file)
            if rejects != refused:
                more, less = dict(rejects - refused), dict(refused - rejects)
                return f"{day}: rejects {more} are wrong, {less} missing"
            if count != wanted.total() + refused.total():
                return f"{day}: {count} records are noted"
            if (counted := count_records(paths[day].values())) != count:
                return f"{day}: {counted} records are counted"
        return ""

    def rows(self, written: Mapping[date, Path], day: date = FIRST) -> list[Row]:
        """What is in the file that was written for a day."""
        query = "FROM read_parquet($path, hive_partitioning = false)"
        found = self.engine.connection.execute(query, {"path": str(written[day])}).fetchall()
        return list(found)

    def _write(self, day: date, name: str, content: bytes) -> Path:
        path = self.folder / str(day) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def _read(
        self, one: Landing, paths: Mapping[date, Mapping[str, Path]]
    ) -> dict[date, tuple[Counter[Row], Counter[Reject], int]]:
        execute = self.engine.connection.execute
        execute(f"SET threads = {one.threads}")
        with (
            patch.object(reader, "_LARGE", one.settings["_LARGE"]),
            patch.object(reader, "_AT_ONCE", one.settings["_AT_ONCE"]),
            patch.object(reader, "_FEW", one.settings["_FEW"]),
            patch.object(reader, "BATCH", one.settings["BATCH"]),
            patch.object(records, "_CHUNK", one.settings["_CHUNK"]),
        ):
            wanted = {day: Day(files, "") for day, files in paths.items()}
            written = read_days(self.engine, one.source, wanted)
        notes = self.engine.notes(written[0])
        found = {}
        for day in paths:
            rows, rejects = (Counter(self.rows(files, day)) for files in written)
            # zlib and zstd each say it in their words, and the reader adds them.
            known = Counter(
                {
                    (
                        file,
                        line,
                        "the file cannot be decompressed"
                        if why.startswith("the file cannot be decompressed")
                        else why,
                        record,
                    ): count
                    for (file, line, why, record), count in rejects.items()
                }
            )
            found[day] = rows, known, int(notes[day]["records"])
        for files in written:
            for path in files.values():
                path.unlink()
        return found


@contextmanager
def opened(folder: Path) -> Iterator[Reader]:
    """A reader, whose files lie in a folder."""
    with open_engine(open_lake(str(folder / "lake"))) as engine:
        yield Reader(engine, folder / "files")


def smaller(one: Landing, is_wrong: Callable[[Landing], bool]) -> Landing:
    """As little of a landing as is still read wrongly."""
    for day in list(one.days):
        less = replace(one, days={d: files for d, files in one.days.items() if d != day})
        one = less if is_wrong(less) else one
    for day, name in [(day, name) for day, files in one.days.items() for name in files]:
        of_day = {n: content for n, content in one.days[day].items() if n != name}
        less = replace(one, days={**one.days, day: of_day})
        one = less if is_wrong(less) else one
    for day, name in [(day, name) for day, files in one.days.items() for name in files]:
        size = len(one.days[day][name]) // 2
        while size:
            at = 0
            while at < len(content := one.days[day][name]):
                rest = content[:at] + content[at + size :]
                less = replace(one, days={**one.days, day: {**one.days[day], name: rest}})
                one, at = (less, at) if is_wrong(less) else (one, at + size)
            size //= 2
    return one


def find_difference(
    reading: Reader, inputs: int, seed: int, seconds: float = math.inf
) -> tuple[int, str]:
    """Read so many random files; returns how many, and the first that is read wrongly, if any."""
    count = 0
    began = time.monotonic()
    for number in itertools.count():
        if count >= inputs or time.monotonic() - began > seconds:
            break
        one = landing(Random(f"{seed} {number}"))
        count += sum(map(len, one.days.values()))
        if why := reading.difference(one):
            least = smaller(one, lambda less: bool(reading.difference(less)))
            so = reading.difference(least)
            return count, f"seed {seed}, landing {number}: {why}\nas little as {least}:\n{so}"
    return count, ""


def main() -> None:
    """Read random files until one is read wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many files")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="by which they are made")
    parser.add_argument("--seconds", type=float, default=math.inf, help="at most about so long")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    began = time.monotonic()
    with room_for_lakes() as folder, opened(Path(folder)) as reading:
        count, wrong = find_difference(reading, asked.inputs, asked.seed, asked.seconds)
    print(f"{count:,} files in {time.monotonic() - began:,.0f} s")
    raise SystemExit(wrong or 0)


if __name__ == "__main__":
    main()
