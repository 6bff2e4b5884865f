"""The command line as a process of its own, as people start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from stedi_assets.lake import Lake
from stedi_assets_tests.storages import root_of

AWS = """\
#!{python}
import sys
from fnmatch import fnmatchcase
from pathlib import Path
import boto3
s3, cp, recursive, folder, address, *filters = sys.argv[1:]
assert (s3, cp, recursive) == ("s3", "cp", "--recursive")
assert set(filters[::2]) <= {{"--exclude", "--include"}}
bucket, _, prefix = address.removeprefix("s3://").partition("/")
for path in Path(folder).rglob("*"):
    name = path.relative_to(folder).as_posix()
    said = [how for how, names in zip(filters[::2], filters[1::2]) if fnmatchcase(name, names)]
    if path.is_file() and said[-1:] != ["--exclude"]:
        boto3.client("s3").upload_file(str(path), bucket, f"{{prefix}}/{{name}}")
"""
"""What AWS's command line, which is no part of the project, does for who uploads a folder."""

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
        timeout=300,
    )


def succeeded(process: subprocess.CompletedProcess[str]) -> str:
    """What a process that must have succeeded printed."""
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def counts(lake: Lake | str) -> dict[str, int]:
    """What `stedi counts --format json` says."""
    found: dict[str, int] = json.loads(succeeded(stedi(lake, "counts", "--format", "json")))
    return found
