"""The town's lake, made under each policy."""

from collections.abc import Iterator

import pytest

from stedi_assets.lake import Lake
from stedi_assets.privacy.policies import Policy
from stedi_assets_tests.end_to_end.landing_files import run, twin
from stedi_assets_tests.report.lakes import FIRST, SECOND, land_town
from stedi_assets_tests.storages import AnyPath, opened, room_for_lakes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The town, made under the policy reference; not to be changed."""
    with room_for_lakes(tmp_path_factory.mktemp("town")) as root:
        lake = opened(root / "town")
        land_town(lake)
        assert run(lake, FIRST, SECOND).success
        yield lake


@pytest.fixture
def town(made: Lake, lakes: AnyPath) -> Lake:
    """A copy of it."""
    return twin(made, lakes / "lake")


@pytest.fixture
def strict_town(town: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The same under the policy strict."""
    monkeypatch.setenv("STEDI_POLICY", Policy.STRICT)
    assert run(town, FIRST, SECOND).success
    return town
