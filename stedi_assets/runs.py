"""Running the job that brings tables up to date, in this process, and telling how it goes."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance import InstanceRef
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy.exc import OperationalError

from stedi_assets.checks import keys_of_checks, up_to_date
from stedi_assets.dates import Stretch
from stedi_assets.definitions import defs
from stedi_assets.jobs import BRING_UP_TO_DATE, ONE_AT_A_TIME, RECONCILE
from stedi_assets.lake.storage import locked
from stedi_assets.resources import batch_events, dagster_home
from stedi_assets.run_launcher import PROCESS, this_process
from stedi_assets.terminal import LOOKING, NO_BAR, Bar, bar, is_debug

_NOT_QUEUED = dict.fromkeys(ONE_AT_A_TIME, "no place in the queue")
"""Instead of the jobs' tag: a run here waits for the lake by itself, and if it is killed, the runs
of the queue do not wait for it."""

_NO_CAPTURE = "dagster._core.storage.noop_compute_log_manager", "NoOpComputeLogManager"


def run_dates(
    stretch: Stretch,
    tables: Sequence[str],
    tell: Callable[[str], None],
    made: set[tuple[str, date]],
) -> bool:
    """Make the partitions of a stretch of dates, as one run.

    The run is kept in the Dagster instance of `DAGSTER_HOME`, where the UI finds it.

    Args:
        stretch: the ingestion dates.
        tables: the names of the tables to make.
        tell: takes a line for people whenever there is something to tell.
        made: takes the table names and dates of the partitions that were made.

    Returns:
        Whether the run succeeded and every check passed or only warned.
    """
    first, last = stretch.first.isoformat(), stretch.last.isoformat()
    several = {
        ASSET_PARTITION_RANGE_START_TAG: first,
        ASSET_PARTITION_RANGE_END_TAG: last,
    }
    job = defs.resolve_job_def(BRING_UP_TO_DATE.name).get_subset(
        asset_selection={dg.AssetKey(name) for name in tables},
        asset_check_selection=keys_of_checks(tables),
    )
    with bar("Dagster starts", len(job.nodes), "steps") as progress:
        narrator = Narrator(tell, progress)
        success = _run(
            job,
            narrator,
            partition_key=first if first == last else None,
            tags=several if first != last else {},
        )
    if not_made := [name for name in tables if name not in narrator.made]:
        tell(f"  not made: {', '.join(not_made)}")
    made |= {(name, day) for name, days in narrator.made.items() for day in days}
    return success and not narrator.failed


def run_reconciliation(tell: Callable[[str], None], what: dict[str, Any]) -> bool:
    """Make every partition again that does not hold what it should, as one run.

    Args:
        tell: takes a line for people whenever there is something to tell.
        what: see `jobs.What`.

    Returns:
        Whether the run succeeded, and found no error that stays.
    """
    config = {"ops": {"make_again": {"config": {k: v for k, v in what.items() if v is not None}}}}
    with bar(LOOKING, many="partitions made again") as progress:
        narrator = Narrator(tell, progress, dg.DagsterEventType.ASSET_MATERIALIZATION)
        success = _run(defs.resolve_job_def(RECONCILE.name), narrator, run_config=config)
    for evaluation in narrator.left.values():
        narrator.tell_finding(evaluation)
    if success and not narrator.made and all(left.passed for left in narrator.left.values()):
        tell("  every partition holds what it should")
    return success and not narrator.failed


def _run(
    job: dg.JobDefinition,
    narrator: Narrator,
    run_config: dict[str, Any] | None = None,
    **more: Any,
) -> bool:
    run_id = str(uuid.uuid4())
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    batch_events()
    with _told_of_home(), _instance(narrator.tell) as instance:
        instance.add_event_listener(run_id, narrator)
        result = job.execute_in_process(
            run_config={**quiet, **(run_config or {})},
            instance=instance,
            raise_on_error=False,
            run_id=run_id,
            tags={**more.pop("tags", {}), **_NOT_QUEUED, PROCESS: this_process()},
            **more,
        )
    if narrator.interrupted:  # which Dagster takes for a failure like any other
        narrator.tell("  stopped: what was made stays, and what is missing is made the next time")
        raise KeyboardInterrupt
    return result.success


@contextmanager
def _told_of_home() -> Iterator[None]:
    """Turn an error of the databases in `DAGSTER_HOME` into one that says what to do.

    Raises:
        ValueError: runs cannot be kept there.
    """
    try:
        yield
    except OperationalError as error:
        raise ValueError(
            f"runs cannot be kept in DAGSTER_HOME, {dagster_home()}: {error.orig}. See to it that "
            "its disk is neither full nor read-only, then do it again; nothing is lost."
        ) from error


@contextmanager
def _instance(tell: Callable[[str], None]) -> Iterator[dg.DagsterInstance]:
    home = dagster_home()
    if home:
        # What steps print goes to the terminal; catching it as well would cost three processes.
        no_capture = {"compute_logs": {"module": _NO_CAPTURE[0], "class": _NO_CAPTURE[1]}}
        with locked(Path(home), wait=True):  # two processes must not make its databases at once
            try:
                ref = InstanceRef.from_dir(home, overrides=no_capture)
                instance = dg.DagsterInstance.from_ref(ref)
            except OperationalError:
                raise  # of a database, which is told as it is when runs are written to it
            except Exception as error:  # of YAML, of the settings, of the disk
                why = f"{type(error).__name__}: {error}"
                raise ValueError(
                    f"DAGSTER_HOME is {home!r}, and Dagster cannot keep runs there: {why}"
                ) from error
    else:
        tell("  DAGSTER_HOME is not set: this run will not be seen in the UI.")
        # Its steps hand over nothing by files. A folder for them, which Dagster would make, would
        # stay for good if this process is killed.
        instance = dg.DagsterInstance.ephemeral(tempdir=os.devnull)
    with instance:
        yield instance


class Narrator:
    """Tells a run's events in a line for each table, failure and check that did not pass.

    Args:
        tell: takes a line for people.
        progress: a bar to keep up to date.
        counted: what it counts.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        progress: Bar = NO_BAR,
        counted: dg.DagsterEventType = dg.DagsterEventType.STEP_SUCCESS,
    ) -> None:
        self.tell = tell
        self.progress = progress
        self.counted = counted
        self.failed = False
        self.interrupted = False
        self.made: dict[str, set[date]] = {}
        self.rows: Counter[str] = Counter()
        self.left: dict[dg.AssetKey, dg.AssetCheckEvaluation] = {}

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        if event.event_type is self.counted:
            self.progress.advance()
        if _is_interruption(event):
            self.interrupted = True
            return
        match event.event_type:
            case dg.DagsterEventType.STEP_START:
                self.progress.begins(str(event.step_key))
            case dg.DagsterEventType.ASSET_MATERIALIZATION:
                materialization = event.step_materialization_data.materialization
                count = materialization.metadata["dagster/partition_row_count"].value
                table = materialization.asset_key.to_user_string()
                day = date.fromisoformat(str(materialization.partition))
                self.made.setdefault(table, set()).add(day)
                self.rows[table] += int(str(count))
            case dg.DagsterEventType.STEP_SUCCESS:
                for table, rows in self.rows.items():
                    self.tell(f"  {table:<26}{rows:>13,} rows")
                self.rows.clear()
            case dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.asset_check_evaluation_data
                if evaluation.check_name == up_to_date.__name__:
                    # A reconciliation tells first what it found, and then what it left.
                    self.left[evaluation.asset_key] = evaluation
                else:
                    self.tell_finding(evaluation)
            case dg.DagsterEventType.ENGINE_EVENT if event.engine_event_data.error:
                # What a job says of its end; that it did not end well, its step says.
                self.tell(f"  ERROR: {_told(event.engine_event_data.error)}")
            case dg.DagsterEventType.STEP_FAILURE:
                error = event.step_failure_data.error
                self.tell(f"  ERROR: step {event.step_key} failed: {_told(error)}")
            case dg.DagsterEventType.RUN_FAILURE:
                failure = event.job_failure_data
                if not failure.first_step_failure_event:  # else it is told already
                    self.tell(f"  ERROR: the run could not begin: {_told(failure.error)}")

    def tell_finding(self, evaluation: dg.AssetCheckEvaluation) -> None:
        """Tell of a check, if it did not pass."""
        if evaluation.passed:
            return
        is_error = evaluation.severity is dg.AssetCheckSeverity.ERROR
        self.failed = self.failed or is_error
        self.tell(
            f"  {'ERROR' if is_error else 'warning'}: {evaluation.asset_key.to_user_string()}, "
            f"check {evaluation.check_name}: {evaluation.description}"
        )


def _is_interruption(event: dg.DagsterEvent) -> bool:
    """Whether a step or a run ended because the process was told to: by Ctrl-C, or to terminate."""
    error = None
    if event.event_type is dg.DagsterEventType.STEP_FAILURE:
        error = event.step_failure_data.error
    elif event.event_type is dg.DagsterEventType.RUN_FAILURE:
        error = event.job_failure_data.error
    while error is not None and error.cls_name != dg.DagsterExecutionInterruptedError.__name__:
        error = error.cause
    return error is not None


def _told(error: SerializableErrorInfo | None) -> str | None:
    """What an error's last cause says; with `--debug` all of it, and where it comes from."""
    if error is not None and is_debug():
        return error.to_string().strip()
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else None
