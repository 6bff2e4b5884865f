"""What S3 costs, on this machine: time beside a local disk, and bytes of history."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3

from benchmarks.days import history_of
from benchmarks.lakes import ROOT, WORK, copies
from benchmarks.measuring import STEDI, Contestant, in_turn, new_home, stedi_run
from benchmarks.results import Comparison, Goal, ratio
from stedi_assets_tests.s3_server import ServerError, s3_server


def run() -> Iterator[Comparison]:
    """Measure both on Ceph's gateway, where there is one."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="stedi-s3-", ignore_cleanup_errors=True) as folder,
            s3_server(Path(folder)) as settings,
        ):
            endpoint = settings.pop("STEDI_TEST_S3_ENDPOINT")
            os.environ.update(
                settings,
                AWS_ENDPOINT_URL=endpoint,
                AWS_DEFAULT_REGION="us-east-1",
                STEDI_PSEUDONYM_KEY="of benchmarks",
            )
            bucket = boto3.resource("s3").create_bucket(Bucket="benchmarks")
            yield against_a_disk(bucket)
            yield bytes_of_history(bucket)
    except ServerError as error:
        yield Comparison("On S3", remark=f"Not measured: {error}")


def against_a_disk(bucket: Any) -> Comparison:
    """The same landing files in a bucket and in a folder; what is in the bucket is fetched anew."""
    local = copies(20)
    upload(local, bucket, "x20")

    def before() -> Mapping[str, str]:
        shutil.rmtree(WORK / "cache", ignore_errors=True)
        for found in bucket.objects.filter(Prefix="x20/"):
            if "/landing/" not in found.key:
                found.delete()
        return on_bucket(bucket, "x20", new_home(WORK / "dagster_home"), WORK / "cache")

    there, here = in_turn(
        [Contestant("on S3", [STEDI, "run"], before), stedi_run(local, "on a local disk")],
        rounds=5,
    )
    return Comparison(
        "x20: the whole job on S3 (Ceph, on this machine) against a local disk",
        [there, here],
        ratio("time on S3 / on a local disk", there, here, 1.6),
    )


def bytes_of_history(bucket: Any) -> Comparison:
    """What a day fetches when it comes to 364 others, on a machine that knows nothing of them."""
    year = history_of(364)
    upload(year.lake, bucket, "year")
    environment = {**os.environ, **on_bucket(bucket, "year", new_home(WORK / "home"), WORK / "old")}
    subprocess.run([STEDI, "run"], env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    upload(year.day, bucket, "year")
    its_own = sum(file.stat().st_size for file in year.day.glob("*/landing/*"))
    cold, first = fetched_by_run(bucket, WORK / "cold")
    for file in year.day.glob("*/landing/*"):  # the same records in another file
        key = f"year/{file.relative_to(year.day).as_posix()}"
        bucket.put_object(Key=key, Body=file.read_bytes() + b"\n")
    _, second = fetched_by_run(bucket, WORK / "cold")
    twice = len(first) - len({*first}) + sum("/landing/" not in key for key in second)
    for folder in ("old", "cold"):
        shutil.rmtree(WORK / folder)
    return Comparison(
        "A day after 364 others, on S3: what it fetches on a machine without a cache",
        goals=[
            Goal("bytes fetched", cold, unit="bytes"),
            Goal("objects fetched", len(first), unit="objects"),
            Goal("bytes fetched / bytes of the day's landing files", cold / its_own, 3.0),
            Goal("fetched twice, also by a second run", twice, 0, unit="objects"),
        ],
    )


def fetched_by_run(bucket: Any, cache: Path) -> tuple[int, list[str]]:
    """The bytes that `stedi run` fetches, and the keys of the objects."""
    notes = WORK / "fetched"
    notes.write_text("")
    environment = {**os.environ, **on_bucket(bucket, "year", WORK / "home", cache)}
    command = [sys.executable, "-m", "benchmarks.fetched", str(notes), "run"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = [json.loads(line) for line in notes.read_text().splitlines()]
    return sum(size for _, size in found), [key for key, _ in found]


def on_bucket(bucket: Any, prefix: str, home: Path, cache: Path) -> dict[str, str]:
    """The settings for a lake in a bucket."""
    return {
        "STEDI_LAKE": f"s3://{bucket.name}/{prefix}",
        "STEDI_CACHE": str(cache),
        "DAGSTER_HOME": str(home),
    }


def upload(lake: Path, bucket: Any, prefix: str) -> None:
    """Put a lake's landing files below a prefix of a bucket."""
    for file in sorted(lake.glob("*/landing/*")):
        bucket.upload_file(str(file), f"{prefix}/{file.relative_to(lake).as_posix()}")
