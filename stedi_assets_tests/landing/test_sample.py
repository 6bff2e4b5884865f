"""A sample in a lake on a disk and in a bucket, and the counts that its manifest states."""

import json
from pathlib import Path

import pytest

from stedi_assets.lake import open_lake
from stedi_assets.landing.sample import sample_into, stated_counts
from stedi_assets.sample_data import MANIFEST
from stedi_assets_tests.conftest import Bucket


def test_a_sample_in_a_bucket_is_the_one_on_a_disk_and_its_manifest_comes_last(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk, in_bucket = open_lake(str(tmp_path / "lake")), open_lake(f"s3://{bucket.name}/lake")
    came: list[str] = []

    def watched(path: Path, key: str) -> None:
        came.append(key)
        publish(path, key)

    publish = in_bucket.storage.publish
    monkeypatch.setattr(in_bucket.storage, "publish", watched)
    manifests = [sample_into(lake, customers=5, days=2, seed=1) for lake in (on_disk, in_bucket)]
    assert manifests[0] == manifests[1]
    files = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    keys = {f"lake/{path.relative_to(tmp_path / 'lake').as_posix()}": path for path in files}
    assert set(bucket.keys) == keys.keys()
    for key, path in keys.items():
        found = bucket.client.get_object(Bucket=bucket.name, Key=key)
        assert found["Body"].read() == path.read_bytes()
    assert came[-1] == MANIFEST
    assert stated_counts(in_bucket) == stated_counts(on_disk) == manifests[0]["counts"]


def test_a_sample_does_not_mix_with_the_files_of_others(bucket: Bucket) -> None:
    bucket.put("customer/landing/a.json")
    with pytest.raises(FileExistsError, match="already holds landing files"):
        sample_into(open_lake(f"s3://{bucket.name}"), customers=5, days=2, seed=1)
    assert bucket.keys == ["customer/landing/a.json"]


def test_a_lake_without_a_sample_states_no_counts(tmp_path: Path) -> None:
    assert stated_counts(open_lake(str(tmp_path))) == {}
    (tmp_path / MANIFEST).write_text(json.dumps({"counts": {"customer_landing": 5}}))
    assert stated_counts(open_lake(str(tmp_path))) == {"customer_landing": 5}
