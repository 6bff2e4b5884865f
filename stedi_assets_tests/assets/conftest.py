"""All tests of definitions know the key that pseudonyms are made with."""

import pytest

from stedi_assets_tests.assets.rows import KEY


@pytest.fixture(autouse=True)
def _pseudonym_key(_no_settings_from_outside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
