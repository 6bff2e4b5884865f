"""The command line, `stedi`: says what it does in the words of the UI, and leaves the doing to it.

Imports are made where they are needed, so that `--help` is there at once.
"""

from __future__ import annotations

import errno
import gc
import getpass
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import click

from stedi_assets.tables import TABLES
from stedi_assets.terminal import LOOKING, bar, fail, is_debug, tell

if TYPE_CHECKING:
    from stedi_assets.dates import Stretch
    from stedi_assets.engines.duckdb import DuckDBEngine
    from stedi_assets.lake import Lake
    from stedi_assets.reconcile import Stale

_DATE = click.DateTime(["%Y-%m-%d"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stedi-assets")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """The STEDI lakehouse: landing files in, a training table out.

    The lake is the folder, or s3://bucket/prefix, that STEDI_LAKE names; by default ./lake.

    \b
    stedi sample                   # made-up landing files, to try it
    stedi run                      # makes the tables from whatever has landed
    stedi counts                   # what they hold
    stedi --debug run              # where an error comes from
    """
    if os.environ.get("NO_COLOR"):  # as no-color.org has it
        context.color = False
    # Dagster says so of partitioned checks and single-run backfills, on which the design rests.
    warnings.filterwarnings("ignore", message=".* is currently in (beta|preview)")


@main.command()
@click.option("--date", "only", type=_DATE, help="Look at this ingestion date only.")
@click.option("--from", "first", type=_DATE, help="Look at ingestion dates from this one on.")
@click.option("--to", "last", type=_DATE, help="Look at ingestion dates up to this one.")
@click.option(
    "--select",
    shell_complete=lambda context, option, typed: [n for n in TABLES if n.startswith(typed)],
    help="Tables, as Dagster selects assets, such as 'customer_trusted+'.",
)
def run(
    only: datetime | None, first: datetime | None, last: datetime | None, select: str | None
) -> None:
    """Bring the lake up to date.

    Finds the dates whose landing files are new or changed, makes their partitions in Dagster runs,
    one for each unbroken stretch of dates; then makes again what they changed on other dates, and
    what was damaged or deleted; and prints what the tables hold.

    \b
    stedi run
    stedi run --from 2023-08-01 --to 2023-08-31
    stedi run --select 'customer_trusted+'
    """
    if only and (first or last):
        raise click.UsageError("--date goes without --from and --to.")
    if first and last and first > last:
        raise click.UsageError("--from is later than --to.")
    from stedi_assets.catalog.catalog import CatalogError
    from stedi_assets.catalog.views import write_views
    from stedi_assets.dates import stretches
    from stedi_assets.reconcile import settled, unread
    from stedi_assets.resources import glue_database, landed_now, open_catalog, policy

    tables = _selected(select)
    earliest, latest = only or first or datetime.min, only or last or datetime.max
    with _opened_lake() as (lake, engine), _told_without_traceback(CatalogError):
        with _told_without_traceback(ValueError):
            catalog = open_catalog(lake, glue_database())
            landed = landed_now(lake)
        for problem in landed.misplaced:
            tell(f"Error: {problem}", err=True)
        changed = {
            source: [day for day in why if earliest.date() <= day <= latest.date()]
            for source, why in unread(lake, engine, landed).items()
        }
        if not any(landed.by_date.values()) and not any(map(lake.partitions, TABLES.values())):
            if landed.misplaced:
                sys.exit(1)
            fail(
                f"there are no landing files below {lake.storage.uri()}. Put them into "
                "customer/landing and the others, or make some up with `stedi sample`."
            )
        ok = not landed.misplaced
        made: set[tuple[str, date]] = set()
        if (only or first or last) and not any(
            earliest.date() <= day <= latest.date()
            for days in landed.by_date.values()
            for day in days
        ):
            tell("There are no landing files of these dates.")
        runs = stretches(set().union(*changed.values())) if tables else []
        for number, stretch in enumerate(runs, 1):
            from stedi_assets.jobs import tables_after

            sources = [
                source for source, days in changed.items() if any(d in stretch for d in days)
            ]
            wanted = [name for name in tables_after(sources) if name in tables]
            if wanted:
                tell(f"Run {number} of {len(runs)}: ingestion date {stretch}")
                ok = _run_dates(stretch, wanted, made) and ok
        with lake.writing():  # so that nothing changes meanwhile
            is_settled = settled(lake, engine, policy(), landed, made)
            found = _count(lake, engine) if is_settled else {}
            if is_settled:
                write_views(lake, engine)
                catalog.match()
        if not is_settled:
            tell("Reconciliation: looking for partitions that should hold other rows")
            ok = _reconcile(False, only or first, only or last, tables if select else None) and ok
            found = _count(lake, engine)
        elif not made:
            tell("All tables are up to date.")
        tell()
        _print_counts(lake, found)
        _tell_interrupted(lake, engine)
    sys.exit(0 if ok else 1)


@main.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def status(form: str) -> None:
    """Print which partitions do not hold what they should, and why.

    Reads every row of every partition. `stedi run` and `stedi reconcile` put right what it prints.

    \b
    stedi status
    stedi status --format json
    """
    from stedi_assets.reconcile import examine
    from stedi_assets.resources import landed_now, policy

    with _opened_lake() as (lake, engine):
        with _told_without_traceback(ValueError):
            landed = landed_now(lake)
        with bar(LOOKING):
            stale = examine(lake, engine, policy(), landed).stale
        _tell_interrupted(lake, engine)
    if form == "json":
        tell(json.dumps(_as_json(stale, landed.misplaced), indent=2))
        return
    for problem in landed.misplaced:
        tell(f"Error: {problem}", err=True)
    _print_stale(stale)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only print what would be made again.")
def reconcile(dry_run: bool) -> None:
    """Make every partition again that does not hold what its definition gives.

    After late or withdrawn consent, replaced or deleted landing files, a changed definition, a
    partition that was damaged or deleted by hand. Reads every row of every partition.

    \b
    stedi reconcile --dry-run
    stedi reconcile
    """
    from stedi_assets.reconcile import examine
    from stedi_assets.resources import landed_now, policy

    with _opened_lake() as (lake, engine):
        with _told_without_traceback(ValueError):
            landed = landed_now(lake)
        if dry_run:
            with bar(LOOKING):
                stale = examine(lake, engine, policy(), landed).stale
            _print_stale(stale)
            return
        ok = _reconcile(True)
        tell()
        _print_counts(lake, _count(lake, engine))
    sys.exit(0 if ok else 1)


@main.command()
@click.argument("email")
@click.option("--dry-run", is_flag=True, help="Only tell what would be erased.")
@click.option(
    "--asked-by", default=getpass.getuser, help="Who asks for it; the user of the system without."
)
def forget(email: str, dry_run: bool, asked_by: str) -> None:
    """Erase everything of the person with EMAIL, in every zone, and keep it out from then on.

    Finds first, tells what it found, then erases it: the records in landing files, and by
    reconciliation what the tables hold; looks again, and writes a receipt into the lake's folder
    `erasures`. Stops before it changes anything if any file cannot be read. If it was interrupted,
    doing it again goes on from there.

    \b
    stedi forget ann@example.com --dry-run
    stedi forget ann@example.com --asked-by "ticket 4711"
    """
    from stedi_assets.jobs import SETTLED_AFTER
    from stedi_assets.privacy.erasure import ErasureError, as_lines, begin, find, finish
    from stedi_assets.resources import landed_and_left_alone, landed_now

    with _opened_lake() as (lake, engine), _told_without_traceback(ErasureError, ValueError):
        with lake.writing():  # so that nothing changes meanwhile
            with bar("Looking for the person"):
                found = find(lake, engine, landed_and_left_alone(lake, SETTLED_AFTER), email)
            for line in as_lines(found):
                tell(line)
            if not (found.anything or found.by_hand):
                tell("Nothing of this person is in the lake.")
            if dry_run or not found.anything:
                sys.exit(1 if found.by_hand else 0)
            begin(lake, engine, found, asked_by, datetime.now(UTC))
        tell("Reconciliation: making the partitions again that hold the person")
        ok = _reconcile(False)
        with lake.writing():
            receipt = finish(lake, engine, landed_now(lake), found, datetime.now(UTC))
    for where, what in receipt.left.items():
        tell(f"Error: something is left in {where}: {what}", err=True)
    if not receipt.left:
        tell("No trace of the person is left.")
    sys.exit(0 if ok and not receipt.left else 1)


@main.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def receipts(form: str) -> None:
    """Print which erasures there were, and which of them were interrupted.

    \b
    stedi receipts
    stedi receipts --format json
    """
    from stedi_assets.privacy.erasure import receipts as receipts_of

    with _opened_lake() as (lake, engine):
        found = receipts_of(lake, engine)
    if form == "json":
        tell(json.dumps([vars(receipt) for receipt in found], indent=2))
        return
    if not found:
        tell("Nobody was erased.")
        return
    tell(f"{'asked at':<27}{'by':<20}{'person':<18}{'records':>9}{'rows':>9}  state")
    for receipt in found:
        state = "interrupted: do it again" if not receipt.finished_at else "done"
        state = f"left in {len(receipt.left):,} places" if receipt.left else state
        tell(
            f"{receipt.asked_at:<27}{receipt.asked_by:<20}{receipt.person[:16]:<18}"
            f"{sum(receipt.records.values()):>9,}{sum(receipt.rows.values()):>9,}  {state}"
        )


@main.command()
@click.argument("name")
@click.option("--from", "first", type=_DATE, help="Take rows of ingestion dates from this one on.")
@click.option("--to", "last", type=_DATE, help="Take rows of ingestion dates up to this one.")
def snapshot(name: str, first: datetime | None, last: datetime | None) -> None:
    """Freeze the rows of machine_learning_curated as a training set of this NAME.

    Notes which rows there are, of whom, and under which policy and consents, and splits them by
    people into train, validation and test. It copies no row: who withdraws is out of it.

    \b
    stedi snapshot walks-2023-08 --to 2023-08-31
    """
    from stedi_assets.lakehouse import Lakehouse

    with _told_without_traceback(ValueError, OSError):
        made = Lakehouse().snapshot(name, first, last)
    tell(
        f"Snapshot {made.name}: {made.rows:,} rows under policy {made.policy}, with the consents "
        f"that had landed until {made.consents_landed_until}."
    )
    tell(f"{'split':<12}{'rows':>13}{'people':>13}")
    for split, figures in made.splits.items():
        tell(f"{split:<12}{figures['rows']:>13,}{figures['people']:>13,}")
    for why, rows in made.left_out.items():
        tell(f"Left out: {rows:,} rows {why}.")


@main.command()
@click.option("--subject", metavar="EMAIL", help="Only those that held rows of this person.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def snapshots(subject: str | None, form: str) -> None:
    """Print the training sets that were made.

    With --subject, those that held a person: models that were trained on them know the person.
    That can be told also of who has withdrawn since, or was erased.

    \b
    stedi snapshots
    stedi snapshots --subject ann@example.com
    """
    from stedi_assets.lakehouse import Lakehouse

    if subject is None:
        with _told_without_traceback(ValueError, OSError):
            found = Lakehouse().snapshots()
        splits, others = {}, 0
    else:
        from stedi_assets.snapshots import held, load_all, subject_id

        with _opened_lake() as (lake, engine):
            known = load_all(lake, engine.connection)
            splits = held(lake, engine.connection, subject_id(engine, subject))
        found = [snapshot for snapshot in known if snapshot.name in splits]
        others = sum(snapshot.key_id != engine.key_id for snapshot in known)
    if form == "json":
        extra = [{"split": splits[of.name]} if splits else {} for of in found]
        tell(json.dumps([vars(of) | more for of, more in zip(found, extra, strict=True)], indent=2))
    elif not found and not others:
        tell("There are no snapshots." if subject is None else "No snapshot held the person.")
    elif found:
        tell(
            f"{'snapshot':<26}{'made at':<27}{'policy':<11}{'consents until':<16}{'rows':>13}"
            + ("  the person's split" if splits else "")
        )
        for of in found:
            tell(
                f"{of.name:<26}{of.made_at:<27}{of.policy:<11}{of.consents_landed_until:<16}"
                f"{of.rows:>13,}" + (f"  {splits[of.name]}" if splits else "")
            )
    if others:
        fail(
            f"{others:,} snapshots were made with another pseudonym key, so nobody can say whether "
            "they held the person. Set STEDI_PSEUDONYM_KEY to that key."
        )


@main.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def counts(form: str) -> None:
    """Print the rows of the eight tables and of the three tables of rejects.

    \b
    stedi counts
    stedi counts --format json
    """
    with _opened_lake() as (lake, engine):
        found = _count(lake, engine)
        if form == "json":
            tell(json.dumps(found, indent=2))
        else:
            _print_counts(lake, found)


@main.command()
def report() -> None:
    """Write a report of the lake, one HTML page, into its folder `reports`.

    What the tables hold, held against what the landing files give: what was left out and why, how
    many people consent, rejects, missing values, pairs of two people, reading rates, what is stale.
    In counts alone; it names nobody. `latest.html` is always the latest one.

    \b
    stedi report
    """
    from stedi_assets.report.report import LATEST, write_report
    from stedi_assets.resources import landed_now, policy

    told = _told_without_traceback(ValueError)
    with _opened_lake() as (lake, engine), told, lake.writing():  # so that nothing changes
        made = write_report(lake, engine, policy(), landed_now(lake), datetime.now(UTC))
    for problem in made.figures.problems():
        tell(f"  warning: {problem}")
    tell(f"The report is {lake.storage.uri(made.key)}, and the same as {lake.storage.uri(LATEST)}.")


@main.command()
@click.option(
    "--database", help="The database to name; that of STEDI_GLUE_DATABASE without, else 'stedi'."
)
def ddl(database: str | None) -> None:
    """Print the DDL of all tables for Athena, to keep it in files.

    The Parquet tables, the rejects, and external tables over the landing files as they are. The
    lake has to be on S3, where Athena finds it, and need not be there yet: nothing is asked of AWS.

    \b
    STEDI_LAKE=s3://bucket/prefix stedi ddl
    STEDI_LAKE=s3://bucket/prefix stedi ddl --database research
    """
    from stedi_assets.catalog.ddl import statements
    from stedi_assets.catalog.hive import DATABASE
    from stedi_assets.lake import LocalStorage, StorageError, open_lake
    from stedi_assets.resources import cache_folder, glue_database, lake_root, start_date

    with _told_without_traceback(ValueError, StorageError):
        storage, first = open_lake(lake_root(), cache_folder()).storage, start_date()
    if isinstance(storage, LocalStorage):
        fail(
            f"Athena reads no local folder, and the lake is {storage.uri()}. Set STEDI_LAKE to "
            "s3://bucket/prefix, where the tables are or will be."
        )
    for statement in statements(storage.uri(), database or glue_database() or DATABASE, first):
        tell(f"{statement};\n")


@main.command()
@click.option("--customers", default=200, show_default=True, help="How many people to make up.")
@click.option("--days", default=7, show_default=True, help="Over how many ingestion dates.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same files.")
def sample(customers: int, days: int, seed: int) -> None:
    """Write made-up landing files, and the counts that they must give, into an empty lake.

    \b
    stedi sample
    stedi sample --customers 1000 --days 30
    """
    from stedi_assets.lake import open_lake
    from stedi_assets.landing.sample import sample_into
    from stedi_assets.resources import cache_folder, lake_root

    with _told_without_traceback(ValueError, OSError):
        lake = open_lake(lake_root(), cache_folder())
        manifest = sample_into(lake, customers=customers, days=days, seed=seed)
    tell(
        f"Wrote landing files of {customers:,} customers over {days:,} days from "
        f"{manifest['first_day']} into {lake.storage.uri()}. `stedi run` reads them."
    )


@contextmanager
def _told_without_traceback(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors that say all there is to say into the command line's own."""
    try:
        yield
    except errors as error:
        if is_debug():
            raise
        fail(str(error))


@contextmanager
def _told_if_not_allowed(lake: Lake) -> Iterator[None]:
    """Turn what the file system does not allow into an error that says what it takes."""
    try:
        yield
    except OSError as error:
        if is_debug() or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        fail(
            f"{error.filename}: {error.strerror}. Whoever runs `stedi` has to read and write what "
            f"is in {lake.storage.uri()}; also commands that change nothing work there."
        )


@contextmanager
def _opened_lake() -> Iterator[tuple[Lake, DuckDBEngine]]:
    from stedi_assets.lake import StorageError, open_lake
    from stedi_assets.privacy.suppression import OtherKeyError
    from stedi_assets.resources import (
        cache_folder,
        dagster_home,
        engines,
        lake_root,
        open_engine,
        policy,
        pseudonym_key,
        start_date,
    )

    with _told_without_traceback(StorageError, OtherKeyError):
        with _told_without_traceback(ValueError, PermissionError):
            start_date()
            policy()
            engines()
            dagster_home()
            lake = open_lake(lake_root(), cache_folder())
        with ExitStack() as at_end, _told_if_not_allowed(lake):
            if not lake.storage.exists():
                fail(
                    f"there is no lake at {lake.storage.uri()}. Set STEDI_LAKE to the folder that "
                    "holds customer/landing and the others, or make one up with `stedi sample`."
                )
            with _told_without_traceback(ValueError):
                pseudonym_key(lake)
                engine = at_end.enter_context(open_engine(lake))
            yield lake, engine


def _tell_interrupted(lake: Lake, engine: DuckDBEngine) -> None:
    """Tell on stderr of erasures that have not come to their end."""
    from stedi_assets.privacy.erasure import receipts as receipts_of

    for receipt in receipts_of(lake, engine):
        if not receipt.finished_at:
            tell(
                f"Error: an erasure that {receipt.asked_by} asked for at {receipt.asked_at} was "
                "interrupted, and the person is still in the lake: do `stedi forget` again.",
                err=True,
            )


def _selected(select: str | None) -> list[str]:
    """The names of the tables that `--select` means; all without it."""
    if select is None:
        return list(TABLES)
    import dagster as dg

    from stedi_assets.definitions import defs

    try:
        selection = dg.AssetSelection.from_string(select).required_multi_asset_neighbors()
        keys = selection.resolve(defs.resolve_asset_graph())
    except dg.DagsterInvalidSubsetError as error:
        raise click.BadParameter(
            f"{select!r} names what is not there. There are {', '.join(TABLES)}.",
            param_hint="--select",
        ) from error
    except Exception as error:
        raise click.BadParameter(str(error), param_hint="--select") from error
    if names := [name for name in TABLES if dg.AssetKey(name) in keys]:
        return names
    raise click.BadParameter(f"{select!r} selects no table.", param_hint="--select")


def entry_point() -> None:
    """The process `stedi`: the commands, without what Python spends on its own housekeeping.

    Collecting garbage among a hundred thousand objects of imported modules, and taking them down
    at the end, is a third of a short run's time.
    """
    gc.disable()
    status = 1
    try:
        main()
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        else:
            tell(f"Error: {type(error).__name__}: {error}", err=True)
            tell("`stedi --debug …` shows where it comes from.", err=True)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is where a shell closes it
            stream.flush()
    os._exit(status)


def _run_dates(stretch: Stretch, tables: list[str], made: set[tuple[str, date]]) -> bool:
    from stedi_assets.runs import run_dates

    with _collecting_garbage(), _told_without_traceback(ValueError):
        return run_dates(stretch, tables, tell, made)


def _reconcile(
    everything: bool,
    first: datetime | None = None,
    last: datetime | None = None,
    tables: list[str] | None = None,
) -> bool:
    from stedi_assets.runs import run_reconciliation

    what = {
        "everything": everything,
        "first": first and first.date().isoformat(),
        "last": last and last.date().isoformat(),
        "tables": tables,
        "unsettled": True,  # who asks for it has put them there
    }
    with _collecting_garbage(), _told_without_traceback(ValueError):
        return run_reconciliation(tell, what)


@contextmanager
def _collecting_garbage() -> Iterator[None]:
    """What `entry_point` turned off, for as long as garbage is made."""
    gc.freeze()
    gc.set_threshold(200_000)  # thousands of events live long, and looking at them takes time
    gc.enable()
    yield
    gc.disable()


def _print_stale(stale: list[Stale]) -> None:
    """Print partitions that are not right, a line for each."""
    if not stale:
        tell("Every partition holds what it should.")
        return
    columns = ("missing", "extra", "changed")
    heads = "".join(f"{name:>12}" for name in columns)
    tell(f"{'table':<26}{'ingestion date':<16}{heads}  why")
    for found in stale:
        figures = "".join(f"{getattr(found, name):>12,}" for name in columns)
        tell(f"{found.table.name:<26}{found.day!s:<16}{figures}  {found.reason}")
    rows = sum(found.missing + found.extra + found.changed for found in stale)
    tell(f"{len(stale):,} partitions are not what they should be, by {rows:,} rows.")


def _as_json(stale: list[Stale], misplaced: Sequence[str]) -> dict[str, object]:
    return {
        "up_to_date": not stale,
        "stale": [
            {
                "table": found.table.name,
                "ingestion_date": found.day.isoformat(),
                "why": found.why,
                "missing": found.missing,
                "extra": found.extra,
                "changed": found.changed,
                "held_back": found.held_back,
            }
            for found in stale
        ],
        "misplaced": list(misplaced),
    }


def _count(lake: Lake, engine: DuckDBEngine) -> dict[str, int]:
    """The number of rows of every table."""
    from stedi_assets.making import stored_partitions

    found = {}
    for name, table in TABLES.items():
        partitions = stored_partitions(lake, engine, table)
        for day, file in lake.partitions(table).items():
            if day not in partitions:
                fail(
                    f"a partition is damaged: {lake.storage.uri(file.key)}. "
                    "`stedi run` makes it again."
                )
        found[name] = sum(partition.content.rows for partition in partitions.values())
    return found


def _print_counts(lake: Lake, found: dict[str, int]) -> None:
    """Print the rows of every table, beside those that a sample's manifest says."""
    from stedi_assets.landing.sample import stated_counts

    expected = stated_counts(lake)
    tell(f"{'table':<26}{'zone':<9}{'rows':>13}" + (f"{'expected':>13}" if expected else ""))
    for name, table in TABLES.items():
        line = f"{name:<26}{table.zone:<9}{found[name]:>13,}"
        if name in expected:
            differs = "" if expected[name] == found[name] else "  differs"
            line += f"{expected[name]:>13,}{differs}"
        tell(line)
