"""What tests share: an empty lake, an engine over it, the reference files, a bucket."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake
from stedi_assets.resources import open_engine
from stedi_assets_tests.storages import (
    ON_S3,
    SETTINGS,
    AnyPath,
    opened,
    remove_bucket,
    room_for_lakes,
    root_of,
)

_ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker is alone with them at the end."""
    items.sort(key=lambda item: item.path.name != "test_kills.py")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests do not depend on the settings of whoever runs them, but for which server is tested."""
    with pytest.MonkeyPatch.context() as patch:
        _forget_settings(patch)
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        if ON_S3:
            patch.setenv("STEDI_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
        remove_bucket()


@pytest.fixture(autouse=True)
def _no_settings_of_other_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor on what others left."""
    _forget_settings(monkeypatch)
    if ON_S3:
        monkeypatch.setenv("STEDI_CACHE", str(tmp_path / "cache"))


def _forget_settings(patch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        is_of_tests = name in SETTINGS or name.startswith(("STEDI_REFERENCE", "STEDI_TEST_"))
        if name.startswith(("AWS_", "DAGSTER_", "STEDI_", "SPARK_REMOTE")) and not is_of_tests:
            patch.delenv(name)


@pytest.fixture
def lakes(tmp_path: Path) -> Iterator[AnyPath]:
    """Where a test can have lakes."""
    with room_for_lakes(tmp_path) as folder:
        yield folder


@pytest.fixture
def lake(lakes: AnyPath) -> Lake:
    """An empty lake in a folder of its own."""
    return opened(lakes / "lake")


@pytest.fixture
def engine(lake: Lake) -> Iterator[DuckDBEngine]:
    """DuckDB over the empty lake."""
    with open_engine(lake) as opened:
        yield opened


@pytest.fixture(scope="session")
def quick_spark() -> dict[str, str]:
    """Settings of a small Spark that is quick to start, and has a bucket's credentials."""
    return {
        **({} if ON_S3 else _OF_MOTO),
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "STEDI_SPARK_MEMORY": "1g",
    }


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
    for path in reference.glob("*/landing/**/*"):
        if path.is_file():
            to = root_of(lake) / path.relative_to(reference)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
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

    def remove(self) -> None:
        """Take it away with all that is in it."""
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.name)
        for page in pages:
            for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                self.client.delete_object(
                    Bucket=self.name, Key=found["Key"], VersionId=found["VersionId"]
                )
        self.client.delete_bucket(Bucket=self.name)


_OF_MOTO = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "dummy",
    "AWS_SECRET_ACCESS_KEY": "dummy",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


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
def bucket(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    """An empty bucket, where the settings lead to and nowhere else.

    It is of moto's server, if `STEDI_TEST_S3_ENDPOINT` names no other.
    """
    if not ON_S3:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
        monkeypatch.setenv("STEDI_CACHE", str(tmp_path / "cache"))
        for name, value in _OF_MOTO.items():
            monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    made = Bucket(f"bucket-{uuid.uuid4()}", client)
    client.create_bucket(Bucket=made.name)
    yield made
    if ON_S3:  # where it would stay
        made.remove()
    client.close()
