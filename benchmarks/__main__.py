"""Runs the benchmarks and prints medians and their ratios, each beside its goal.

Whole processes are measured, in turn, A B A B …, so that a machine whose speed drifts slows both.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import duckdb

from benchmarks.lakes import link_tree, move_last_date, write_copies, write_empty_files
from stedi_assets_tests.s3_server import ServerError, s3_server

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmarks" / "work"
REFERENCE = Path(os.environ.get("STEDI_REFERENCE") or ROOT.parent / "shared" / "reference")
STEDI = str(Path(sys.executable).parent / "stedi")


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds by the clock, and megabytes at its peak."""

    wall: float
    peak: float


@dataclass(frozen=True)
class Contestant:
    """A command to measure, and what to do before each of its runs."""

    name: str
    command: list[str]
    before: Callable[[], Mapping[str, str]] = dict


def measure(contestant: Contestant) -> Cost:
    """Run the command once; RuntimeError where it fails."""
    environment = {**os.environ, **contestant.before()}
    started = time.perf_counter()
    process = subprocess.Popen(
        contestant.command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{contestant.name} failed: {contestant.command}")
    return Cost(wall, usage.ru_maxrss / 1024)


def compare(
    first: Contestant, second: Contestant, rounds: int, *, warm_up: bool = True
) -> tuple[Cost, Cost]:
    """Medians of both, measured in turn, by default after one round that is not counted."""
    costs: dict[str, list[Cost]] = {first.name: [], second.name: []}
    for number in range(rounds + warm_up):
        for contestant in (first, second):
            cost = measure(contestant)
            if number >= warm_up:
                costs[contestant.name].append(cost)
    one, other = (
        Cost(statistics.median(c.wall for c in found), statistics.median(c.peak for c in found))
        for found in costs.values()
    )
    return one, other


def new_home(home: Path) -> Path:
    """A Dagster instance with no runs."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", home)
    return home


def stedi_run(lake: Path, name: str = "stedi run") -> Contestant:
    """`stedi run` on a lake that holds landing files alone, in a Dagster instance with no runs."""

    def before() -> Mapping[str, str]:
        remove_tables(lake)
        return {"STEDI_LAKE": str(lake), "DAGSTER_HOME": str(new_home(WORK / "dagster_home"))}

    return Contestant(name, [STEDI, "run"], before)


def remove_tables(lake: Path) -> None:
    """Leave a lake its landing files alone."""
    (lake / "_reconciled.parquet").unlink(missing_ok=True)
    for folder in lake.glob("*/*"):
        if folder.name != "landing":
            shutil.rmtree(folder)


def day_on_history(history: Path, home: Path, day: Path) -> Contestant:
    """`stedi run` when a day's files come to a lake and a Dagster instance with a year of them."""
    lake, copied = WORK / "day on history", WORK / "home with history"

    def before() -> Mapping[str, str]:
        for folder in (lake, copied):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(home, copied)
        link_tree(history, lake)
        for landing in day.glob("*/landing"):
            link_tree(landing, lake / landing.relative_to(day))
        return {"STEDI_LAKE": str(lake), "DAGSTER_HOME": str(copied)}

    return Contestant("on 364 days of history", [STEDI, "run"], before)


def floor(lake: Path, out: Path) -> Contestant:
    """The bare DuckDB script on the same landing files."""
    command = [sys.executable, "-m", "benchmarks.floor", str(lake), str(out)]
    return Contestant("floor script", command)


def check_counts(lake: Path, out: Path) -> None:
    """RuntimeError where both did not give the same rows."""
    found = json.loads(
        subprocess.check_output(
            [STEDI, "counts", "--format", "json"], env={**os.environ, "STEDI_LAKE": str(lake)}
        )
    )
    with duckdb.connect() as connection:
        for file in out.glob("*.parquet"):
            ((rows,),) = connection.execute(
                "SELECT count(*) FROM read_parquet($file)", {"file": str(file)}
            ).fetchall()
            if rows != found[file.stem]:
                raise RuntimeError(f"{file.stem}: {rows} rows here, {found[file.stem]} there")


def show(title: str, one: str, other: str, costs: tuple[Cost, Cost], goals: str) -> None:
    """Print one comparison."""
    first, second = costs
    print(f"\n{title}")
    for name, cost in ((one, first), (other, second)):
        print(f"  {name:<28}{cost.wall:8.2f} s{cost.peak:9.0f} MB")
    print(f"  {'ratio':<28}{first.wall / second.wall:8.2f}  {first.peak / second.peak:9.2f}")
    print(f"  goal: {goals}", flush=True)


def main() -> None:
    """Run all comparisons."""
    if not REFERENCE.is_dir():
        sys.exit(f"no reference files at {REFERENCE}: set STEDI_REFERENCE")
    WORK.mkdir(exist_ok=True)
    small, large, out = WORK / "x1", WORK / "x100", WORK / "floor"
    write_copies(REFERENCE, small, 1)
    imports = Contestant("imports", [sys.executable, "-c", "import dagster, ibis"])
    show(
        "Reference files: the whole job against its imports",
        "stedi run",
        'python -c "import dagster, ibis"',
        compare(stedi_run(small), imports, rounds=7),
        "at most 3.0 times the time",
    )
    write_copies(REFERENCE, large, 100)
    costs = compare(stedi_run(large), floor(large, out), rounds=5)
    check_counts(large, out)
    show(
        "Reference files x100, 1 GB of JSON: the whole job against eight bare statements",
        "stedi run",
        "floor script",
        costs,
        "at most 2.5 times the time, and 2048 MB",
    )
    a_year(out)
    many_files()
    on_s3()


def a_year(out: Path) -> None:
    """What a year of days costs, each of the size of the reference files, and a day after it."""
    year, last = WORK / "365 days", WORK / "the last day"
    write_copies(REFERENCE, year, 365, dates=True)
    costs = compare(stedi_run(year), floor(year, out), rounds=1, warm_up=False)
    check_counts(year, out)
    show(
        "365 days, 3.8 GB of JSON: a first load in one run against eight bare statements",
        "stedi run",
        "floor script",
        costs,
        "at most 2.5 times the time",
    )
    here = {"STEDI_LAKE": str(year)}
    status = Contestant("stedi status", [STEDI, "status"], lambda: here)
    scan = Contestant("scan", [sys.executable, "-m", "benchmarks.scan", str(year)])
    show(
        "Those 365 days: is everything as it should be, against reading and hashing it",
        "stedi status",
        "plain DuckDB scan",
        compare(status, scan, rounds=5),
        "at most 2.0 times the time",
    )
    history, home = WORK / "364 days", WORK / "home of 364 days"
    if not home.exists():
        shutil.rmtree(history, ignore_errors=True)
        link_tree(year, history)
        remove_tables(history)
        shutil.rmtree(last, ignore_errors=True)
        move_last_date(history, last)
        environment = {"STEDI_LAKE": str(history), "DAGSTER_HOME": str(new_home(home))}
        subprocess.run([STEDI, "run"], env={**os.environ, **environment}, cwd=ROOT, check=True)
    show(
        "A day of the size of the reference files: after 364 others against alone",
        "on 364 days of history",
        "on an empty lake",
        compare(day_on_history(history, home, last), stedi_run(last, "on an empty lake"), rounds=5),
        "at most 1.3 times the time and the memory",
    )


def on_s3() -> None:
    """What S3 costs, on this machine: time beside a local disk, and bytes of history."""
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
            against_a_disk(bucket)
            bytes_of_history(bucket)
    except ServerError as error:
        print(f"\nOn S3: not measured. {error}", flush=True)


def against_a_disk(bucket: Any) -> None:
    """The same landing files in a bucket and in a folder; what is in the bucket is fetched anew."""
    local = WORK / "x20"
    write_copies(REFERENCE, local, 20)
    upload(local, bucket, "x20")

    def before() -> Mapping[str, str]:
        shutil.rmtree(WORK / "cache", ignore_errors=True)
        for found in bucket.objects.filter(Prefix="x20/"):
            if "/landing/" not in found.key:
                found.delete()
        return on_bucket(bucket, "x20", new_home(WORK / "dagster_home"), WORK / "cache")

    show(
        "Reference files x20: the whole job on S3 (Ceph, on this machine) against a local disk",
        "on S3",
        "on a local disk",
        compare(Contestant("on S3", [STEDI, "run"], before), stedi_run(local), rounds=5),
        "at most 1.6 times the time",
    )


def bytes_of_history(bucket: Any) -> None:
    """What a day fetches when it comes to 364 others, on a machine that knows nothing of them."""
    history, last = WORK / "364 days", WORK / "the last day"  # as `a_year` leaves them
    upload(history, bucket, "year")
    environment = {**os.environ, **on_bucket(bucket, "year", new_home(WORK / "home"), WORK / "old")}
    subprocess.run([STEDI, "run"], env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    upload(last, bucket, "year")
    its_own = sum(file.stat().st_size for file in last.glob("*/landing/*"))
    cold, first = fetched_by_run(bucket, WORK / "cold")
    for file in last.glob("*/landing/*"):  # the same records in another file
        key = f"year/{file.relative_to(last).as_posix()}"
        bucket.put_object(Key=key, Body=file.read_bytes() + b"\n")
    _, second = fetched_by_run(bucket, WORK / "cold")
    twice = len(first) - len({*first}) + sum("/landing/" not in key for key in second)
    print("\nA day of the size of the reference files after 364 others, on S3: what it fetches")
    print(f"  {'on a machine without a cache':<32}{cold:12,} bytes in {len(first)} objects")
    print(f"  {'landing files of the day':<32}{its_own:12,} bytes")
    print(f"  {'ratio':<32}{cold / its_own:12.2f}")
    print(f"  {'fetched twice, also by a second run':<36}{twice:8} objects")
    print("  goal: at most 3.0 times the bytes, and nothing twice", flush=True)
    for folder in ("old", "cold"):
        shutil.rmtree(WORK / folder)


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


def many_files() -> None:
    """What looking for news costs among 100,000 files."""
    lake = WORK / "100,000 files"
    write_empty_files(lake, 100_000)
    seconds = [
        float(
            subprocess.check_output(
                [sys.executable, "-m", "benchmarks.tick"],
                env={**os.environ, "STEDI_LAKE": str(lake)},
                cwd=ROOT,
            )
        )
        for _ in range(5)
    ]
    print("\n100,000 landing files: a tick of their sensor without news")
    print(f"  {'tick':<28}{statistics.median(seconds):8.2f} s")
    print("  goal: at most 3 s", flush=True)


if __name__ == "__main__":
    main()
