"""Samples in a lake, wherever it is; what is in them, `sample_data.py` makes up."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from stedi_assets.lake import Lake, LocalStorage
from stedi_assets.lake.storage import make_folder
from stedi_assets.sample_data import MANIFEST, write_sample
from stedi_assets.tables import Source


def sample_into(lake: Lake, *, customers: int, days: int, seed: int) -> dict[str, Any]:
    """Write a sample into an empty lake; returns its manifest. See `write_sample`.

    Raises:
        FileExistsError: the lake holds landing files.
    """
    if isinstance(lake.storage, LocalStorage):
        make_folder(lake.storage.root)
        return write_sample(lake.storage.root, customers=customers, days=days, seed=seed)
    if any(any(lake.landing_files(source)) for source in Source):
        raise FileExistsError(
            f"{lake.storage.uri()} already holds landing files, and a sample does not mix with "
            "others: choose an empty lake"
        )
    with lake.staging() as folder:
        manifest = write_sample(folder, customers=customers, days=days, seed=seed)
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == MANIFEST):  # the manifest last
            lake.storage.publish(path, path.relative_to(folder).as_posix())
    return manifest


def stated_counts(lake: Lake) -> dict[str, int]:
    """The rows of each table by the manifest of the lake's sample.

    None without a sample; a `manifest.json` of something else is none.
    """
    counts = {}
    if manifest := lake.storage.find(MANIFEST):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            found = json.loads(lake.storage.fetch(manifest).read_bytes())["counts"]
            counts = {str(table): int(count) for table, count in found.items()}
    return counts
