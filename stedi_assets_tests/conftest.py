"""What tests share: an empty lake, an engine over it, the reference files, a bucket."""

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.resources import open_engine

_ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not depend on the settings of whoever runs them."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "DAGSTER_")) or (
            name.startswith("STEDI_") and name != "STEDI_REFERENCE"
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake in a folder of its own."""
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture
def engine(lake: Lake) -> Iterator[DuckDBEngine]:
    """DuckDB over the empty lake."""
    with open_engine(lake) as opened:
        yield opened


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with the real landing files; without them the test is skipped, but in CI."""
    folder = Path(os.environ.get("STEDI_REFERENCE") or _ROOT.parent / "shared" / "reference")
    if not folder.is_dir():
        pytest.skip(f"the reference files are not at {folder}; set STEDI_REFERENCE")
    return folder


@pytest.fixture
def reference_lake(reference: Path, lake: Lake) -> Lake:
    """A lake that holds copies of the reference files and nothing else."""
    for source in ("customer", "accelerometer", "step_trainer"):
        shutil.copytree(
            reference / source,
            lake.storage.root / source,
            copy_function=shutil.copyfile,
        )
    return lake


@dataclass(frozen=True)
class Bucket:
    """A bucket, and a client of boto3 to look into it by."""

    name: str
    client: Any

    @property
    def keys(self) -> list[str]:
        return [found["Key"] for found in self.objects]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return list(self.client.list_objects_v2(Bucket=self.name).get("Contents", []))

    def put(self, key: str, content: bytes = b"{}", **more: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content, **more)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, where the settings lead to and nowhere else."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_CONFIG_FILE": str(tmp_path / "no config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "STEDI_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    made = Bucket(f"bucket-{uuid.uuid4()}", client)
    client.create_bucket(Bucket=made.name)
    yield made
    client.close()
