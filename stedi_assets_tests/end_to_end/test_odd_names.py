"""Landing files whose names are hard on URLs, SQL, globs and shells are files like any other."""

import gzip
import json
from pathlib import Path

import pytest

from stedi_assets.lake import Lake
from stedi_assets_tests.end_to_end.erasing import ANN, KEY, traces
from stedi_assets_tests.end_to_end.landing_files import (
    counts_by_date,
    customer,
    landed,
    phone,
    rows_by_date,
)
from stedi_assets_tests.end_to_end.process import stedi, succeeded
from stedi_assets_tests.storages import put, root_of

pytestmark = [pytest.mark.long, pytest.mark.s3]

DAY = "2023-08-06"
NAMES = [
    "a b.json",
    "it's.json",
    'say "quoted".json',
    "100%25 %2F.json",
    "x=1/ä+ö&?#;.json",
    "日本語 👟.json.gz",
    "back\\slash.json",
    "*[1]?{a,b}.json",
    "$HOME `id`.json",
]
OF_BOB = 25
"""Readings of each file; one that is spoilt is less than the twentieth part of them."""


@pytest.fixture
def odd(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Each file has a reading of Ann's, readings of Bob's, and a line that cannot be read."""
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    people = [customer(ANN, "Serial-Of-Ann"), customer("bob@x.com", "Serial-Of-Bob")]
    readings = {
        name: [phone(ANN, 1_000 * n), *(phone("bob@x.com", 1_000 * n + i) for i in range(OF_BOB))]
        for n, name in enumerate(NAMES)
    }
    for source, name, lines in [
        ("customer", "people.json", [json.dumps(record) for record in people]),
        *(
            ("accelerometer", name, [*(json.dumps(record) for record in records), "{spoilt"])
            for name, records in readings.items()
        ),
    ]:
        content = "\n".join(lines).encode()
        path = landed(lake, source, DAY, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, gzip.compress(content) if name.endswith(".gz") else content)
    return lake


def key_of(name: str) -> str:
    return f"accelerometer/landing/ingestion_date={DAY}/{name}"


def test_they_are_read_rejects_name_them_and_erasure_finds_them(odd: Lake) -> None:
    succeeded(stedi(odd, "run"))
    each = len(NAMES)
    assert counts_by_date(odd, "accelerometer_landing") == {DAY: each * (1 + OF_BOB)}
    assert counts_by_date(odd, "accelerometer_trusted") == {DAY: each * (1 + OF_BOB)}
    rejects = rows_by_date(odd, "accelerometer_rejects")[DAY]
    assert sorted(row[:2] for row in rejects.elements()) == sorted(
        (key_of(name), OF_BOB + 2) for name in NAMES
    )
    assert succeeded(stedi(odd, "run")).startswith("All tables are up to date.\n")

    shown = succeeded(stedi(odd, "forget", ANN, "--dry-run"))
    assert [name for name in NAMES if key_of(name) not in shown] == []
    succeeded(stedi(odd, "forget", ANN))
    assert traces(root_of(odd)) == traces(odd.storage.folder) == {}
    assert counts_by_date(odd, "accelerometer_landing") == {DAY: each * OF_BOB}
    assert counts_by_date(odd, "accelerometer_trusted") == {DAY: each * OF_BOB}
    there = [
        path.relative_to(root_of(odd))
        for path in root_of(odd).glob("accelerometer/landing/**/*.json*")
    ]
    assert sorted(map(str, there)) == sorted(map(key_of, NAMES))
