"""A lake with a person who is to be erased, the erasure, and a search that shares no code with it.

The search knows files alone: it walks everything below a folder, decompresses, reads every value of
every Parquet file, and undoes JSON's escapes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from backports import zstd

from stedi_assets.lake import Lake
from stedi_assets.privacy.erasure import Receipt, begin, find, finish
from stedi_assets.resources import landed_now
from stedi_assets_tests.end_to_end.histories import Runner
from stedi_assets_tests.end_to_end.landing_files import Record, customer, device, phone
from stedi_assets_tests.storages import AnyPath, root_of

KEY = "the key of pseudonyms"

ANN = "ann@x.com"
ANNS_OWN = "Serial-Of-Ann-0001"
SHARED = "Serial-Of-Two-0002"
"""Carl holds it, and Ann held it."""
ANNS_NAME = "Annabel Uncommon"
ANNS_PHONE = "5559876543"
BOBS = "Serial-Of-Bob-0003"


class Line(NamedTuple):
    """A record, or a text in its place, and whether it is Ann's."""

    record: Record | str
    is_anns: bool = False


def _anns(record: Record | str) -> Line:
    return Line(record, True)


def _ann(serial: str = ANNS_OWN, email: str = ANN, **more: object) -> Line:
    named = {"customerName": ANNS_NAME, "phone": ANNS_PHONE}
    return _anns(customer(email, serial, **named, **more))  # type: ignore[arg-type]


MODIFIED = datetime(2023, 8, 9, 12, 30, tzinfo=UTC)

TOWN: dict[str, list[Line]] = {
    # Dated by the folder, by the name, and by the time of the last modification.
    "customer/landing/ingestion_date=2023-08-06/a.json": [
        Line(customer("bob@x.com", BOBS)),
        _ann(),
        Line(customer("joann@x.com", "Serial-Of-Joann-0004")),
        Line(customer("carl@x.com", "Serial-Of-Carl-0005", updated=5)),
        Line(customer("ann@x.com.uk", "Serial-Of-Ann-UK")),
        Line(customer("ann@x.community", "Serial-Of-Ann-CY")),
    ],
    "customer/landing/customer-1691366400000.json.gz": [
        Line(customer("carl@x.com", SHARED, updated=20)),
        _ann(SHARED, " ANN@X.COM\t", updated=3),
    ],
    "customer/landing/undated.json.zst": [
        _ann(email="Ann@x.com", updated=5, consent=None),
        Line(customer("dora@x.com", "Serial-Of-Dora")),
    ],
    "accelerometer/landing/ingestion_date=2023-08-06/a.json": [
        _anns(phone(ANN, 100)),
        Line(phone("bob@x.com", 100)),
        Line(phone("carl@x.com", 100)),
        Line(phone("joann@x.com", 200)),
    ],
    "accelerometer/landing/accelerometer-1691366400000.json": [
        _anns(phone("ANN@x.com ", 200)),
        _anns(phone(ANN, 100)),
        Line(phone("carl@x.com", 300)),
    ],
    "accelerometer/landing/undated.json": [
        _anns(phone("\nann@X.com", 400)),
        Line(phone("bob@x.com", 400)),
    ],
    "step_trainer/landing/ingestion_date=2023-08-06/a.json": [
        _anns(device(100, ANNS_OWN)),
        _anns(device(100, SHARED)),
        Line(device(300, SHARED)),
        Line(device(100, BOBS)),
        _anns(device(999, ANNS_OWN)),
    ],
    "step_trainer/landing/step_trainer-1691366400000.json.gz": [
        _anns(device(400, SHARED)),
        Line(device(401, SHARED)),
        Line(device(200, "Serial-Of-Joann-0004")),
    ],
    "step_trainer/landing/undated.json": [
        _anns(device(300, ANNS_OWN)),
        Line(device(400, BOBS)),
    ],
}


def build(lake: Lake, files: dict[str, list[Line]] = TOWN, *, without_ann: bool = False) -> Lake:
    """Write landing files; as they would be if Ann had never been, if that is asked for."""
    for key, lines in files.items():
        write(lake, key, [line for line in lines if not (without_ann and line.is_anns)])
    return lake


def write(lake: Lake, key: str, lines: Collection[Line]) -> AnyPath:
    """Write one landing file; an undated one is of `MODIFIED`, on a disk."""
    texts = (
        line.record if isinstance(line.record, str) else json.dumps(line.record) for line in lines
    )
    content = "".join(f"{text}\n" for text in texts).encode()
    compress = {".gz": gzip.compress, ".zst": zstd.compress}.get(Path(key).suffix, bytes)
    path = root_of(lake) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be another lake's as well, by a link
    path.write_bytes(compress(content))
    if path.name.startswith("undated") and isinstance(path, Path):
        os.utime(path, (MODIFIED.timestamp(), MODIFIED.timestamp()))
    return path


def forget(runner: Runner, email: str = ANN, asked_by: str = "ticket 4711") -> Receipt | None:
    """Erase a person as the command and the job do; None: there was nothing."""
    lake = runner.lake
    with lake.writing():
        found = find(lake, runner.engine, landed_now(lake), email)
        if not found.anything:
            return None
        begin(lake, runner.engine, found, asked_by, moment())
        runner.reconcile(False)
        return finish(lake, runner.engine, landed_now(lake), found, moment())


_moments: Iterator[int] = iter(range(10**6))


def moment() -> datetime:
    """Now; a second later each time."""
    return datetime.now(UTC) + timedelta(seconds=next(_moments))


def pseudonym(value: str) -> str:
    """What stands for a person or a device in the curated zone."""
    return hashlib.sha256((KEY + value).encode()).hexdigest()


ALL_OF_ANN = (
    ANN,
    ANNS_OWN,
    ANNS_NAME,
    ANNS_PHONE,
    pseudonym(ANN),
    pseudonym(ANNS_OWN),
)
"""What nothing may hold any more when Ann is erased."""


def traces(root: AnyPath, words: Collection[str] = ALL_OF_ANN) -> dict[str, set[str]]:
    """The files below a folder that hold one of some words where it stands alone, and which."""
    either = "|".join(re.escape(word.lower()) for word in sorted(words, key=len, reverse=True))
    pattern = re.compile(rf"(?<![a-z0-9.+-])(?:{either})(?![a-z0-9-]|\.[a-z0-9])")
    found: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        texts = [name, *(_texts(path) if path.is_file() else ())]
        if hits := {hit for text in texts for hit in pattern.findall(text.lower())}:
            found[name] = hits
    return found


def _texts(path: AnyPath) -> Iterator[str]:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    elif content.startswith(b"\x28\xb5\x2f\xfd"):
        content = zstd.decompress(content)
    text = content.decode("utf-8", "replace")
    yield text
    plain = re.sub(r"\\[bfnrt]", " ", text)
    yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), plain)
    if path.suffix == ".parquet":
        with pq.ParquetFile(BytesIO(path.read_bytes())) as file:
            for key, note in (file.metadata.metadata or {}).items():
                yield key.decode("utf-8", "replace")
                yield note.decode("utf-8", "replace")
            table = file.read()
        for column in table.column_names:
            yield column
            yield "\n".join(str(value) for value in table[column].to_pylist())


def all_bytes(root: AnyPath) -> dict[str, bytes]:
    """Every file below a folder that is readable, but for what a process works on."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and "_staging" not in path.parts
    }
