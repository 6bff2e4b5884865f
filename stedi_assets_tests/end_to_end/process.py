"""The command line as a process of its own, as people start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from stedi_assets.lake import Lake
from stedi_assets_tests.storages import root_of

_STEDI = "from stedi_assets.cli import entry_point; entry_point()"


def stedi(lake: Lake | str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `stedi` over a lake, in a folder where it could do no harm to another one.

    Args:
        lake: an opened one, or the address of one on S3; on S3 the folder is the working directory.
        arguments: of the command line.
        settings: beside those of the environment.
    """
    root = lake if isinstance(lake, str) else root_of(lake)
    if isinstance(root, Path):
        root.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", _STEDI, *arguments],
        env={**os.environ, "STEDI_LAKE": str(root), **settings},
        cwd=root if isinstance(root, Path) else None,
        capture_output=True,
        text=True,
        timeout=120,
    )


def succeeded(process: subprocess.CompletedProcess[str]) -> str:
    """What a process that must have succeeded printed."""
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def counts(lake: Lake | str) -> dict[str, int]:
    """What `stedi counts --format json` says."""
    found: dict[str, int] = json.loads(succeeded(stedi(lake, "counts", "--format", "json")))
    return found
