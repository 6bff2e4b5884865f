"""What starts jobs by itself: new landing files, finished runs, the time of day."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from stedi_assets.checks import keys_of_checks
from stedi_assets.dates import stretches
from stedi_assets.jobs import (
    BRING_UP_TO_DATE,
    ONE_AT_A_TIME,
    PRUNE,
    RECONCILE,
    REPORT,
    SETTLED_AFTER,
    What,
    tables_after,
)
from stedi_assets.lake import Lake, StoredFile
from stedi_assets.landing.files import Landed, fingerprint
from stedi_assets.making import landing_stamps, stored_partitions
from stedi_assets.resources import landed_now, open_engine
from stedi_assets.tables import Source, landing_table, rejects_table

_RUNNING = dg.DefaultSensorStatus.RUNNING

States = dict[date, dict[Source, str]]
"""What state each source's landing files of a date are in; without files, there is none."""


class MisplacedFilesError(Exception):
    """Landing files that belong to no partition: which, why, and what to do."""


@dataclass(frozen=True)
class Seen:
    """What a tick leaves for the next one.

    Dagster keeps the cursor with every tick: of years of dates that would be a gigabyte a day. So
    the states lie beside it in Dagster's storage, and the cursor says which they are.

    Attributes:
        states: what was asked for.
        changes: how often something was; tells a state that comes back from the first time.
    """

    states: States
    changes: int

    @classmethod
    def read(cls, context: dg.SensorEvaluationContext, lake: Lake) -> "Seen":
        """What the last tick left; what the landing tables say, where it is not known."""
        changes, _, hashed = (context.cursor or "").partition(":")
        if not (changes.isdecimal() and hashed):
            return cls(_stored_states(lake), 0)
        key = _key(lake, int(changes))
        kept = context.instance.daemon_cursor_storage.get_cursor_values({key}).get(key, "")
        if _hashed(kept) != hashed:
            return cls(_stored_states(lake), int(changes))
        found: dict[str, dict[str, str]] = json.loads(kept)
        states = {
            date.fromisoformat(day): {Source(source): state for source, state in of_day.items()}
            for day, of_day in found.items()
        }
        return cls(states, int(changes))

    def keep(self, context: dg.SensorEvaluationContext, lake: Lake) -> str:
        """Leave it for the next tick; the cursor.

        What the tick before left stays until the next change: if the daemon dies before it has
        kept the cursor, that one counts.
        """
        states = {day.isoformat(): state for day, state in sorted(self.states.items())}
        kept = json.dumps(states, sort_keys=True)
        storage = context.instance.daemon_cursor_storage
        storage.set_cursor_values({_key(lake, self.changes): kept})
        return f"{self.changes}:{_hashed(kept)}"


def _key(lake: Lake, changes: int) -> str:
    return f"landing_files/{changes % 2}/{lake.storage.uri()}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dg.sensor(
    job=BRING_UP_TO_DATE,
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Asks for a run of each date whose landing files are new, replaced or gone.",
)
def landing_files(
    context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]
) -> dg.SensorResult | dg.SkipReason:
    """Compare the landing files with those of the last tick.

    Raises:
        MisplacedFilesError: files belong to no partition, and there is nothing else to do.
    """
    landed = landed_now(lake, SETTLED_AFTER)
    seen = Seen.read(context, lake)
    now = _states(landed, seen.states)
    changed = {
        day: sources
        for day in sorted(now.keys() | seen.states.keys())
        for sources in [_changed(seen.states.get(day, {}), now.get(day, {}))]
        if sources and landed.first <= day <= landed.last
    }
    for problem in landed.misplaced:
        context.log.error(problem)
    if not changed:
        if landed.misplaced:
            raise MisplacedFilesError("\n".join(landed.misplaced))
        return dg.SkipReason(_why_nothing(now, landed.growing))
    after = Seen(now, seen.changes + 1)
    unread = _without_those_read(lake, landed, changed)
    return dg.SensorResult(
        run_requests=list(_requests(unread, after)),
        skip_reason=None if unread else "The tables are made from these landing files already.",
        cursor=after.keep(context, lake),
    )


def _states(landed: Landed, before: States) -> States:
    """Of what may still be written to, the state is that of before."""
    now = {
        (source, day): fingerprint(files)[:16]
        for source, by_date in landed.by_date.items()
        for day, files in by_date.items()
    }
    now |= {(source, day): before.get(day, {}).get(source, "") for source, day in landed.growing}
    states: States = {}
    for (source, day), state in now.items():
        if state:
            states.setdefault(day, {})[source] = state
    return states


def _stored_states(lake: Lake) -> States:
    """What the landing tables were made from; no date is in such a state by what `_states` says."""
    states: States = {}
    with open_engine(lake) as engine:
        for source in Source:
            for day, partition in stored_partitions(lake, engine, landing_table(source)).items():
                if partition.stamp:  # else it was made of no file
                    states.setdefault(day, {})[source] = partition.stamp
    return states


def _changed(before: Mapping[Source, str], after: Mapping[Source, str]) -> set[Source]:
    return {source for source in Source if before.get(source) != after.get(source)}


def _without_those_read(
    lake: Lake, landed: Landed, changed: Mapping[date, set[Source]]
) -> dict[date, set[Source]]:
    """Without files that the landing tables hold already, made by runs that nobody asked for here.

    The first tick on a lake, and one after `stedi run`, would ask for all of them again. Files that
    are gone are asked for in any case: a run that waits may have read them.
    """
    with open_engine(lake) as engine:
        stored = {
            source: [
                stored_partitions(lake, engine, of(source)) for of in (landing_table, rejects_table)
            ]
            for source in Source
        }
        stamps = {
            source: landing_stamps(engine, source, landed.by_date[source]) for source in Source
        }
    found = {
        day: {
            source
            for source in sources
            if day not in stamps[source]
            or any(
                day not in partitions or partitions[day].stamp != stamps[source][day]
                for partitions in stored[source]
            )
        }
        for day, sources in changed.items()
    }
    return {day: sources for day, sources in found.items() if sources}


def _why_nothing(now: States, growing: Mapping[tuple[Source, date], Sequence[StoredFile]]) -> str:
    if growing:
        file, *_ = next(iter(growing.values()))
        return (
            f"{file.key} may still be written to; it is read when it has been left alone for "
            f"{SETTLED_AFTER.seconds} seconds."
        )
    if not now:
        return "There are no landing files."
    return f"No landing file is new, replaced or gone on {len(now):,} ingestion dates."


def _requests(changed: Mapping[date, set[Source]], after: Seen) -> Iterator[dg.RunRequest]:
    """A run for each unbroken stretch of dates: of what changed, and of what hangs on it."""
    for stretch in stretches(changed):
        dates = [day for day in changed if day in stretch]
        sources = set[Source]().union(*(changed[day] for day in dates))
        states = [[day.isoformat(), after.states.get(day, {})] for day in dates]
        state = json.dumps([states, after.changes], sort_keys=True)
        only = str(stretch.first) if stretch.first == stretch.last else None
        whole = {
            ASSET_PARTITION_RANGE_START_TAG: str(stretch.first),
            ASSET_PARTITION_RANGE_END_TAG: str(stretch.last),
        }
        tables = tables_after(sources)
        yield dg.RunRequest(
            run_key=f"{stretch}: {_hashed(state)}",
            asset_selection=[dg.AssetKey(name) for name in tables],
            asset_check_keys=sorted(keys_of_checks(tables), key=str),
            partition_key=only,
            tags=None if only else whole,
        )


@dg.sensor(
    job=RECONCILE,
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Asks for a reconciliation after runs: new customer records, and files that come "
    "late, change what earlier partitions should hold.",
)
def finished_runs(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Look for runs of other jobs that ended since the last time, well or not."""
    latest = _latest_ended(context.instance, but={RECONCILE.name, REPORT.name, PRUNE.name})
    if latest is None or latest.run_id == context.cursor:
        return dg.SkipReason("No run has ended since the last reconciliation was asked for.")
    waiting = dg.RunsFilter(job_name=RECONCILE.name, statuses=[dg.DagsterRunStatus.QUEUED])
    if context.instance.get_runs_count(waiting):
        return dg.SkipReason("A reconciliation is in the queue; it will look at all that ended.")
    context.update_cursor(latest.run_id)
    return dg.RunRequest(
        run_key=latest.run_id,
        run_config=dg.RunConfig({"make_again": What(everything=False)}),
    )


@dg.sensor(
    job=REPORT,
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Asks for a report when a reconciliation has succeeded, which follows every run "
    "that writes the lake, and nothing else is to be written.",
)
def settled_lake(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Look for a reconciliation after which no run has ended, and none is waiting or running."""
    latest = _latest_ended(context.instance, but={REPORT.name, PRUNE.name})
    if latest is None or latest.run_id == context.cursor:
        return dg.SkipReason("No run has ended since the last report was asked for.")
    if latest.job_name != RECONCILE.name or not latest.is_success:
        return dg.SkipReason("A report follows the next reconciliation that succeeds.")
    if context.instance.get_runs_count(
        dg.RunsFilter(tags=ONE_AT_A_TIME, statuses=list(NOT_FINISHED_STATUSES))
    ):
        return dg.SkipReason("A run is to write the lake; a report follows when all have ended.")
    context.update_cursor(latest.run_id)
    return dg.RunRequest(run_key=latest.run_id)


def _latest_ended(instance: dg.DagsterInstance, but: Collection[str]) -> dg.DagsterRun | None:
    """The run that ended last, well or not, of other jobs than those with some names."""
    ended = [
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELED,
    ]
    found = instance.get_run_records(
        dg.RunsFilter(statuses=ended), limit=25, order_by="update_timestamp"
    )
    runs = (record.dagster_run for record in found)
    return next((run for run in runs if run.job_name not in but), None)


@dg.schedule(
    job=RECONCILE,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Holds every row of every partition against what it should be.",
)
def every_night() -> dg.RunRequest:
    """Ask for a reconciliation of everything."""
    return dg.RunRequest()


@dg.schedule(
    job=PRUNE,
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps Dagster's storage from growing without end.",
)
def prune_every_night() -> dg.RunRequest:
    """Ask for the removal of what old runs wrote."""
    return dg.RunRequest()
