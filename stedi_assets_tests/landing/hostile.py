"""Landing files that are to break the reader: small ones, ones of any size, and what is no file.

    python -m stedi_assets_tests.landing.hostile FOLDER --size 1000000000

writes them all; they are read as files of a phone. What a file of any size holds is said here; what
a small one holds, `plain_reader.py` says.
"""

import argparse
import gzip
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backports import zstd

PHONE = '{"user":"a@test.com","timestamp":1655564455341,"x":1.0,"y":-2,"z":0.25}'
LINES = f"{PHONE}\n{PHONE}\n"


def _with(field: str, value: str) -> str:
    fields = {key: json.dumps(old) for key, old in json.loads(PHONE).items()} | {field: value}
    return "{" + ",".join(f'"{key}":{raw}' for key, raw in fields.items()) + "}"


_NUMBERS = [
    *("1e400", "-1e400", "1e-400", "-0", "-0.0", "0.1", "1E2", "1.0", "5e-324", "1e308", "NaN"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *(
        "18446744073709551616",
        "9" * 5000,
        "0." + "0" * 5000 + "1",
        "Infinity",
        "-Infinity",
        "1_000",
    ),
    *("0x10", "01", "+1", ".5", "1.", "9007199254740993", "١٢"),
]
_STRINGS = [
    *(r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u0000"', '"\0"', '"\u2028"', '"\x7f"'),
    *('"\ufeff"', '"\u202e"', '"\'; DROP TABLE landed; --"', '"${jndi:ldap://x}"', '"{{ 7*7 }}"'),
    *(
        '"%s%n"',
        '"`id`"',
        r'"\u003cscript\u003e"',
        '"' + "\u0301" * 3000 + '"',
        '"\\u002"',
        '"a\tb"',
    ),
]

SMALL: dict[str, bytes] = {
    **{
        f"numbers of {field}.json": "\n".join(_with(field, n) for n in _NUMBERS).encode()
        for field in ("timestamp", "x")
    },
    "strings.json": (
        # A raw NUL this early would say that the file is binary; that is a file of its own.
        "\n".join([PHONE] * 150 + [_with("user", text) for text in _STRINGS]).encode()
    ),
    "raw NUL.json": _with("user", '"\0"').encode(),
    "surrogates in UTF-8.json": LINES.encode()
    + _with("user", '"\ud800"').encode("utf-8", "surrogatepass"),
    "emoji in CESU-8.json": _with("user", '"\ud83d\ude00"').encode("utf-8", "surrogatepass"),
    "overlong.json": LINES.encode() + _with("user", '"?"').encode().replace(b"?", b"\xc0\xaf"),
    **{
        f"{name}.json": LINES.encode(name)
        for name in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig")
    },
    "UTF-16 without a NUL.json": "\u4e00\u4e8c".encode("utf-16"),
    "latin-1.json": _with("user", '"é"').encode("latin-1"),
    "duplicate keys.json": (
        f'{PHONE[:-1]},"user":"b"}}\n{PHONE[:-1]},"USER":"b"}}\n{{"user":"c",{PHONE[1:]}\n'
        f'{PHONE[:-1]},"extra":1,"extra":2}}\n{{"x":null,{PHONE[1:]}'
    ).encode(),
    "CR only.json": LINES.replace("\n", "\r").encode(),
    "form feeds.json": f"{PHONE}\f{PHONE}\n\f\n{PHONE}\v\n".encode(),
    "line separators.json": f"{PHONE}\u2028{PHONE}\u2029\x85{PHONE}\n".encode(),
    "comments.json": f"// a\n{PHONE} // b\n/* c */ {PHONE}\n# d\n{PHONE}\n".encode(),
    "NaN in what nobody reads.json": f'{PHONE[:-1]},"more":NaN,"and":[-Infinity,nan]}}\n'.encode(),
    "commas at the end.json": f"{PHONE[:-1]},}}\n{PHONE[:-1]},,}}\n[{PHONE},]\n[,]".encode(),
    "arrays behind each other.json": f"[{PHONE}][{PHONE}]\n[[{PHONE}]]\n[]".encode(),
    "an array and more.json": f"[{PHONE}] {PHONE}\noops".encode(),
    "an array behind a record.json": f"{PHONE}\n[{PHONE}]".encode(),
    "an array that does not end.json": f"[{PHONE},\n{PHONE},".encode(),
    "records in a record.json": f'{{"records":[{PHONE},{PHONE}]}}'.encode(),
    "a string that does not end.json": f'{PHONE}\n{{"user":"{PHONE}\n{PHONE}\n'.encode(),
    "empty.json": b"",
    "only blanks.json": b" \t\r\n\n \f\v\n",
    "only a mark.json": b"\xef\xbb\xbf",
    "only commas.json": b",,,[],[\n,]",
    "deep.json": (
        PHONE[:-1] + ',"extra":' + "[" * 400 + "]" * 400 + "}\n" + '{"a":' * 400
    ).encode(),
    "cut short.json": LINES.encode()[:-20],
    **{
        f"{name}{kind}": content
        for kind, packed, part in (
            (".json.gz", gzip.compress(LINES.encode(), mtime=0), gzip.compress(b"")),
            (".json.zst", zstd.compress(LINES.encode()), zstd.compress(b"")),
        )
        for name, content in {
            "in parts": packed + part * 500 + packed,
            "cut short": packed[:-3],
            "one byte wrong": packed[:20] + bytes([packed[20] ^ 255]) + packed[21:],
            "something behind": packed + b"oops",
            "packed twice": (gzip if kind.endswith("gz") else zstd).compress(packed),
            "empty": b"",
            "nothing in it": part,
            "not packed": LINES.encode(),
        }.items()
    },
    "blanks behind.json.gz": gzip.compress(LINES.encode(), mtime=0) + bytes(512),
    "named within.json.gz": (
        b"\x1f\x8b\x08\x1e\0\0\0\0\x02\xff\x04\0abcd../../etc/x\0\x1b[2J\0\0\0"
        + gzip.compress(LINES.encode(), mtime=0)[10:]
    ),
    "a frame to skip.json.zst": (
        zstd.compress(LINES.encode())
        + b"\x50\x2a\x4d\x18\x03\0\0\0abc"
        + zstd.compress(LINES.encode())
    ),
    "a window of 2 GB.json.zst": b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00",
    "packed twice.json.gz.gz": gzip.compress(gzip.compress(LINES.encode())),
    **{
        name: f"{PHONE}\noops\n".encode()
        for name in (
            *("it's.json", 'say "a".json', "new\nline.json", "carriage\rreturn.json", "*.json"),
            *(
                "[ab].json",
                "wh?.json",
                "{a,b}.json",
                "{}.json",
                "%s%n.json",
                "$HOME.json",
                "`id`.json",
            ),
            *(
                "$(id).json",
                "..%2F..%2Fx.json",
                "...json",
                "..\\..\\x.json",
                "-rf.json",
                "a;id.json",
            ),
            *(
                "'; DROP TABLE landed; --.json",
                "{{ 7*7 }}.json",
                "<b>&amp;.json",
                "[red]a[&red].json",
            ),
            *(
                "\x1b[2J.json",
                "\u202egpj.json",
                "x" * 250 + ".json",
                "a|b>c.json",
                "~.json",
                "#.json",
            ),
            *("ingestion_date=2023-08-06.json", "x=ingestion_date=9999-99-99.json"),
            os.fsdecode(b"\xff\xfe.json"),
        )
    },
}
"""Files by name, each small enough to be read by plain Python. `/` cannot be in a name."""


def phones(size: int) -> Iterator[str]:
    """Good records, some thousand at a time, that come to `size` bytes or a little more."""
    some = f"{PHONE}\n" * 10_000
    for _ in range(0, size, len(some)):
        yield some


def _repeated(text: str, size: int) -> Iterator[str]:
    some = text * max(1, 1_000_000 // len(text))
    for _ in range(0, size, len(some)):
        yield some


@dataclass(frozen=True)
class OfAnySize:
    """A file that is as large as one likes.

    Attributes:
        parts: its text, for a size.
        rows: how many good records it has, for a size.
        rejects: reasons of rejects.
    """

    parts: Callable[[int], Iterator[str]]
    rows: Callable[[int], int]
    rejects: tuple[str, ...] = ()

    def write(self, path: Path, size: int) -> None:
        """Write it, a part at a time."""
        with path.open("w", encoding="utf-8", newline="") as file:
            for part in self.parts(size):
                file.write(part)


def _around(before: str, parts: Iterator[str], after: str) -> Iterator[str]:
    yield before
    yield from parts
    yield after


def _count(text: str, size: int) -> int:
    return sum(part.count(text) for part in _repeated(text, size))


TOO_LONG = "a record on line 2 is longer than 33,554,432 letters"
BAD_USER = '"user":5}\n'

LARGE: dict[str, OfAnySize] = {
    "a line of letters.json": OfAnySize(
        lambda size: _around(f"{PHONE}\n", _repeated("x", size), f"\n{PHONE}\n"),
        lambda _: 0,
        (TOO_LONG,),
    ),
    "a string of a line.json": OfAnySize(
        lambda size: _around(f'{PHONE}\n{{"user":"', _repeated("é", size // 2), '"}\n'),
        lambda _: 0,
        (TOO_LONG,),
    ),
    "a line of records.json": OfAnySize(
        lambda size: _around("[", _repeated(f"{PHONE},", size), f"oops,{PHONE}]"),
        lambda size: _count(f"{PHONE},", size) + 1,
        ("not valid JSON",),
    ),
    "blanks.json": OfAnySize(lambda size: _repeated(" ", size), lambda _: 0),
    "brackets.json": OfAnySize(lambda size: _repeated("[,]", size), lambda _: 0),
    "keys.json": OfAnySize(lambda size: _around("{", _numbered(size), PHONE[1:]), lambda _: 1),
    "keys of a bad record.json": OfAnySize(
        lambda size: _around("{", _numbered(size), BAD_USER),
        lambda _: 0,
        ("user is not a valid string",),
    ),
    "deep arrays.json": OfAnySize(lambda size: _deep("[", "]", size), lambda _: 1),
    "deep objects.json": OfAnySize(lambda size: _deep('{"a":', "}", size), lambda _: 1),
    "objects that do not end.json": OfAnySize(
        lambda size: _around("", iter(['{"a":' * _levels(size)]), f"\n{PHONE}\n"),
        lambda _: 1,
        ("not valid JSON",),
    ),
}
"""Files by name. Of keys and levels there are a twentieth of the size, and a million at most."""


def _levels(size: int) -> int:
    return min(size // 20, 1_000_000)


def _numbered(size: int) -> Iterator[str]:
    yield "".join(f'"k{number}":{number},' for number in range(_levels(size)))


def _deep(opening: str, closing: str, size: int) -> Iterator[str]:
    levels = _levels(size)
    value = "1" if closing == "}" else ""
    yield f'{PHONE[:-1]},"extra":{opening * levels}{value}{closing * levels}}}\n'


BOMBS: dict[str, Callable[[Path, int], None]] = {
    "bomb.json.gz": lambda path, size: _pack(gzip.open, path, size),
    "bomb.json.zst": lambda path, size: _pack(zstd.open, path, size),
    "bomb in parts.json.gz": lambda path, size: _in_parts(path, size, gzip.compress),
    "bomb in parts.json.zst": lambda path, size: _in_parts(path, size, zstd.compress),
}
"""What writes files that decompress to `size` bytes of the same record."""


def _pack(packed: Callable[..., IO[bytes]], path: Path, size: int) -> None:
    with packed(path, "wb") as file:
        for some in phones(size):
            file.write(some.encode())


def _in_parts(path: Path, size: int, compress: Callable[[bytes], bytes]) -> None:
    part = compress(b"".join(some.encode() for some in phones(20_000_000)))
    with path.open("wb") as file:
        for _ in range(0, size, 20_000_000):
            file.write(part)


def put_what_is_no_file(folder: Path, outside: Path) -> dict[str, str]:
    """Put links, a pipe, a socket, if it may a device, into a folder; what each of them is.

    Some links lead to another folder, which is made.
    """
    (outside / "folder").mkdir(parents=True)
    for path in (outside / "secret.json", outside / "folder" / "a.json"):
        path.write_text(f"{PHONE}\n")
    (folder / "inside.json").write_text(f"{PHONE}\n")
    (folder / "x.json").mkdir()  # a folder, whose files are read like others
    (folder / "x.json" / "a.json").write_text(f"{PHONE}\n")
    found = {}
    for name, leads_to, kind in (
        ("out.json", outside / "secret.json", "a link"),
        ("out by dots.json", Path(os.path.relpath(outside, folder), "secret.json"), "a link"),
        ("within.json", Path("inside.json"), "a link"),
        ("out", outside / "folder", "a link to a folder"),
        ("all", Path("/"), "a link to a folder"),
        ("loop", Path(), "a link to a folder"),
        ("itself.json", Path("itself.json"), "a link to no file"),
        ("nowhere.json", Path("nowhere"), "a link to no file"),
        ("to a pipe.json", Path("pipe.json"), "a link to no file"),
        ("to a device.json", Path("/dev/zero"), "a link to no file"),
    ):
        (folder / name).symlink_to(leads_to)
        found[name] = kind
    os.mkfifo(folder / "pipe.json")
    found["pipe.json"] = "a pipe"
    here = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:  # by a short name, for long ones it has not
            made.bind(f"/proc/self/fd/{here}/socket.json")
    finally:
        os.close(here)
    found["socket.json"] = "a socket"
    try:
        os.mknod(folder / "device.json", 0o20600, os.makedev(1, 5))
        found["device.json"] = "a device"
    except PermissionError:
        pass
    return found


def write_small(folder: Path) -> dict[str, Path]:
    """Write the small files into a folder; each by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in SMALL}
    for name, path in paths.items():
        path.write_bytes(SMALL[name])
    return paths


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="is made, with folders in it")
    parser.add_argument("--size", type=int, default=70_000_000, help="of each large one, in bytes")
    asked = parser.parse_args()
    write_small(asked.folder / "small")
    for name in ("large", "bombs", "no files"):
        (asked.folder / name).mkdir(parents=True)
    for name, large in LARGE.items():
        large.write(asked.folder / "large" / name, asked.size)
    for name, write in BOMBS.items():
        write(asked.folder / "bombs" / name, asked.size)
    put_what_is_no_file(asked.folder / "no files", asked.folder / "outside")


if __name__ == "__main__":
    main()
