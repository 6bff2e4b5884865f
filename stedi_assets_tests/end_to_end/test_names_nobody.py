"""What the lakehouse says of itself, anywhere, names nobody and tells no key."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stedi_assets.lake import Lake
from stedi_assets.landing.records import UnreadableFileError, records
from stedi_assets_tests.end_to_end.process import stedi
from stedi_assets_tests.storages import AnyPath, on_disk, root_of

pytestmark = pytest.mark.long

KEY = "a key that nobody must see anywhere"
NAMING = ("customerName", "email", "user", "phone", "serialNumber")


def named_in(root: AnyPath) -> set[bytes]:
    """All that names somebody in the landing files below a root, long enough to be told apart."""
    found: set[str] = set()
    landing_files = [path for path in root.glob("*/landing/**/*") if path.is_file()]
    with on_disk(landing_files) as paths:
        for path in paths:
            try:
                texts = [text for _, text in records(path)]
            except UnreadableFileError:
                continue
            for text in texts:
                pattern = rf'"(?i:{"|".join(NAMING)})"\s*:\s*"([^"\\]+)"'
                found |= {value.strip().lower() for value in re.findall(pattern, text)}
    return {value.encode() for value in found if len(value) >= 6}


def contents(root: AnyPath) -> Iterator[tuple[AnyPath, bytes]]:
    return ((path, path.read_bytes()) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def messy(lake: Lake) -> Lake:
    """A lake with what the sample's producers get wrong, and files that cannot be read at all."""
    assert stedi(lake, "sample", "--customers", "60", "--days", "3").returncode == 0
    folder = root_of(lake) / "accelerometer" / "landing"
    whole = gzip.compress(b'{"user": "cut.short@test.com", "timestamp": 1}\n' * 100)
    (folder / "accelerometer-1691362802099.json.gz").write_bytes(whole[: len(whole) // 2])
    strange = {"user": ["nested.person@test.com"], "timestamp": "ann.text@test.com", "x": 1}
    half = '{"user": "half.line@test.com", "time'
    text = f"{json.dumps(strange)}\n{half}"
    (folder / "accelerometer-1691362802098.json").write_bytes(text.encode())
    return lake


def test_no_output_and_no_event_of_any_command_names_anybody_or_tells_the_key(
    messy: Lake, tmp_path: Path
) -> None:
    home = tmp_path / "dagster home"
    home.mkdir()
    settings = {"STEDI_PSEUDONYM_KEY": KEY, "DAGSTER_HOME": str(home)}
    told: list[str] = []
    for arguments in (
        ["status"],
        ["run"],
        ["status", "--format", "json"],
        ["reconcile"],
        ["counts"],
        ["report"],
        ["receipts"],
    ):
        done = stedi(messy, *arguments, **settings)
        told += [done.stdout, done.stderr]
    strict = stedi(messy, "run", STEDI_POLICY="strict", **settings)
    told += [strict.stdout, strict.stderr]
    assert "machine_learning_curated" in strict.stdout

    naming = named_in(root_of(messy))
    assert len(naming) > 100
    assert b"nested.person@test.com" not in naming  # it is looked for by its host:
    reports = list(contents(root_of(messy) / "reports"))
    assert len(reports) == 2, "one by its time, and the latest"
    said: list[tuple[AnyPath, bytes]] = [
        (Path("the terminal"), "\n".join(told).encode()),
        *contents(home),
        *reports,
    ]
    assert sum(len(content) for _, content in said) > 100_000
    for path, content in said:
        lower = content.lower()
        assert not {name for name in naming if name in lower}, path
        assert b"@test.com" not in lower, path
        assert KEY.encode() not in content, path
    for path, content in [*contents(root_of(messy)), *contents(messy.storage.folder)]:
        assert KEY.encode() not in content, path
