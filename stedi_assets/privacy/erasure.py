"""Erasing a person: find everything, show it, forget it, and look again.

Only landing files are changed here; the tables follow from them by reconciliation, which the caller
does between `begin` and `finish`. An erasure that was interrupted goes on where `find` finds what
is left of it.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

from stedi_assets.engines.duckdb import DuckDBEngine, file_names, normalised, quoted
from stedi_assets.lake import (
    ERASURES,
    LINK,
    LINK_TO_FOLDER,
    RECONCILED,
    TOO_DEEP,
    Lake,
    StoredFile,
)
from stedi_assets.landing.files import Landed
from stedi_assets.landing.reader import write_without_erased
from stedi_assets.landing.records import EntangledRecordsError, UnreadableFileError, is_text
from stedi_assets.making import files_with_rows, stored_partitions
from stedi_assets.privacy.suppression import (
    COLUMNS,
    ERASED,
    KEY,
    hidden,
    is_erased,
    is_kept_out,
    mentions_erased,
)
from stedi_assets.privacy.traces import Words, search
from stedi_assets.reconcile import landing_partitions
from stedi_assets.snapshots import held, subject_id
from stedi_assets.tables import (
    PARTITION,
    TABLES,
    Source,
    Table,
    landing_table,
    rejects_table,
)

_PLAN = "plan"
_LIST = "to erase"
_LEAST = 6
"""Letters of a serial number that is looked for in texts; shorter ones mean other things too."""
_PRIVATE = ("_staging/", "_writing/")


class ErasureError(Exception):
    """What keeps a person from being erased: what, where, and what to do. Names nobody."""


@dataclass(frozen=True)
class Found:
    """What a lake has of a person.

    Attributes:
        person: keyed hash of the normalised email.
        records: how many records to take out of landing files, by key.
        rows: how many rows the tables hold, by table.
        old_versions: what the storage keeps of files that were replaced or removed.
        by_hand: files that hold a trace that no erasure takes out of them, by what is in the way.
        pending: the key, without extension, of an erasure of the person that was interrupted.
        snapshots: the names of the training sets that held the person.
    """

    person: str
    records: Mapping[str, int]
    rows: Mapping[str, int]
    old_versions: tuple[StoredFile, ...]
    by_hand: Mapping[str, str]
    pending: str
    snapshots: tuple[str, ...]
    _who: str
    _replaced: Mapping[str, tuple[StoredFile, Path]]
    _in_tables: tuple[str, ...]
    _words: Words
    _naming: Words

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.records or self.rows or self.old_versions or self.pending)


@dataclass(frozen=True)
class Receipt:
    """What is kept of an erasure. Times are ISO 8601, UTC.

    Attributes:
        person: keyed hash of the normalised email.
        asked_by: who asked for it.
        asked_at: when it was begun.
        finished_at: when it was found to be done; empty if it was interrupted.
        records: how many records were taken out of landing files, by key.
        rows: how many rows the tables held, by table.
        old_versions: how many old versions of files were removed.
        left: where a second look found traces, and what of.
    """

    person: str
    asked_by: str
    asked_at: str
    finished_at: str
    records: Mapping[str, int]
    rows: Mapping[str, int]
    old_versions: int
    left: Mapping[str, str]


def find(lake: Lake, engine: DuckDBEngine, landed: Landed, email: str) -> Found:
    """Find everything of a person. Changes nothing.

    Theirs are: the customer records with the email, the phone readings of its user, the readings of
    devices that nobody else holds or held, and of shared ones those of the milliseconds of their
    own phone readings; and what could not be read but holds the email or such a serial number.

    Args:
        lake: to look at.
        engine: to compute with.
        landed: its landing files.
        email: of the person; in any case, blanks around it do not matter.

    Raises:
        ErasureError: there is no email, or a file cannot be read; nothing was changed.
    """
    ((who,),) = engine.connection.execute(
        f"SELECT {normalised('$email')}", {"email": email}
    ).fetchall()
    if not who:
        raise ErasureError("There is no email. Say whom to erase.")
    return _find(lake, engine, landed, who)


def _find(
    lake: Lake, engine: DuckDBEngine, landed: Landed, who: str, before: Found | None = None
) -> Found:
    """Find everything of a person, and what `before` knew of them when their records were there."""
    execute = engine.connection.execute
    ((person,),) = execute(f"SELECT {hidden('person', '$who')}", {"who": who}).fetchall()
    try:
        # Also of dates that a run would leave until all their files are left alone: they may say
        # what is the person's.
        partitions = landing_partitions(lake, engine, replace(landed, growing={}))
    except OSError:
        words = Words([who])
        landing = [file for source in Source for file in lake.landing_files(source)]
        if unreadable := search(lake, engine, words, landing).unreadable:
            raise _unreadable(words, unreadable) from None
        raise
    for name, of_table in partitions.items():
        engine.create_view(TABLES[name], files_with_rows(lake, of_table))
    pending = _list_theirs(lake, engine, who, person, is_again=before is not None)
    words = Words([who, *_words(engine, who)])
    everything = [f for f in lake.storage.list("") if not f.key.startswith(_PRIVATE)]
    traces = search(lake, engine, words, everything)
    holding = set(traces.keys)
    growing = {file.key for files in landed.growing.values() for file in files}
    replaced: dict[str, tuple[StoredFile, Path]] = {}
    records: dict[str, int] = {}
    by_hand = {
        file.key: f"it is {file.odd}, and nobody looked at what is in there"
        for file in everything
        if file.odd in {LINK_TO_FOLDER, TOO_DEEP}
    }
    for source in Source:
        by_date = landed.by_date[source]
        of_a_date = {file.key for files in by_date.values() for file in files}
        files = {file.key: file for day in _dates(engine, source) for file in by_date.get(day, [])}
        # What no table was read from, such as a file that waits for its date, only its text shows.
        not_read = _not_read(engine, source)
        files |= {
            file.key: file
            for file in lake.landing_files(source)
            if file.odd in {"", LINK}
            and (file.key in holding or file.key in not_read or file.key not in of_a_date)
        }
        for key in sorted(files.keys() - traces.unreadable.keys()):
            file = files[key]
            staged = _new_file(engine, key)
            path = lake.storage.fetch(file)
            try:
                count = write_without_erased(engine, source, path, staged, quoted(_LIST))
            except UnreadableFileError as error:
                if key in holding or isinstance(error, EntangledRecordsError) or not is_text(path):
                    by_hand[key] = str(error)
                continue
            if not count:
                staged.unlink()
            elif path.is_symlink():
                by_hand[key] = f"it is a link, and what it leads to holds {count:,} records"
            elif key in growing:
                raise ErasureError(
                    f"{words.hidden_in(key)} may still be written to, so nothing was changed. Do "
                    "it again when it has been left alone for some seconds."
                )
            else:
                records[words.hidden_in(key)], replaced[key] = count, (file, staged)
    rows = _rows(lake, engine, who)
    is_known = bool(records or rows or pending or before)
    old_versions, unreadable_old = _old_versions(lake, engine, words, is_known)
    unreadable = traces.unreadable | unreadable_old
    if unreadable:
        raise _unreadable(words, unreadable)
    made_again = {RECONCILED} | {
        file.key
        for table in TABLES.values()
        for day, file in lake.partitions(table).items()
        if landed.first <= day <= landed.last
    }
    for key in holding - made_again - replaced.keys() - by_hand.keys():
        by_hand[key] = "no record of it is the person's, and yet it names them"
    return Found(
        person,
        records,
        rows,
        tuple(old_versions),
        {words.hidden_in(key): why for key, why in sorted(by_hand.items())},
        pending,
        tuple(held(lake, engine.connection, subject_id(engine, who))),
        who,
        replaced,
        tuple(sorted(holding & made_again)),
        words,
        Words([who, *_names(engine, who)]),
    )


def _unreadable(words: Words, files: Mapping[str, str]) -> ErasureError:
    named = "; ".join(
        f"{words.hidden_in(key)}: {words.hidden_in(why)}" for key, why in sorted(files.items())
    )
    return ErasureError(
        f"{len(files):,} files cannot be read, and may hold something of the person, so nothing "
        f"was changed: {named}. Mend or remove them; partitions of tables `stedi reconcile` makes "
        "again."
    )


def begin(lake: Lake, engine: DuckDBEngine, found: Found, asked_by: str, now: datetime) -> None:
    """Keep the person out from now on, and take their records out of the landing files.

    Each file is replaced whole or not at all. What follows from the files is not changed yet.

    Args:
        lake: to change; nobody else may write it.
        engine: that `find` used.
        found: what it found.
        asked_by: who asked for it; stands in the receipt.
        now: when it was begun.

    Raises:
        ErasureError: `asked_by` names the person, and nothing was changed; or a landing file was
            changed meanwhile: doing it again goes on from there.
    """
    if found._words.are_in(asked_by) or found._naming.are_in(asked_by):
        raise ErasureError("Who asks for it must not name the person: say it in another way.")
    key = found.pending or f"{ERASURES}/{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{found.person[:16]}"
    plan = _plan(lake, engine, key) or {
        "asked_by": asked_by,
        "asked_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "records": {},
        "rows": {},
    }
    # Of what is done already only the first plan knows.
    plan["records"] = dict(found.records) | plan["records"]
    plan["rows"] = dict(Counter(plan["rows"]) | Counter(found.rows))  # the larger of each
    path = engine.folder / f"{uuid.uuid4().hex}.parquet"
    engine.connection.execute(
        f"COPY (SELECT DISTINCT * FROM {quoted(_LIST)} ORDER BY hash) TO $path "
        "(FORMAT parquet, COMPRESSION zstd, "
        f"KV_METADATA {{{_PLAN}: $plan, person: $person, {KEY}: $key}})",
        {
            "path": str(path),
            "plan": json.dumps(plan),
            "person": found.person,
            "key": engine.key_id,
        },
    ).fetchall()
    lake.storage.publish(path, f"{key}.parquet")
    # Customer records go last: while they are there, it can be seen which devices are the person's.
    for name, (file, staged) in sorted(
        found._replaced.items(), key=lambda of: of[0].startswith(f"{Source.CUSTOMER}/")
    ):
        now_there = lake.storage.find(name)
        if now_there is None or now_there.version != file.version:
            raise ErasureError(
                f"{found._words.hidden_in(name)} was changed meanwhile. The person is kept out "
                "already, but not all of theirs is erased: do it again, and it goes on from here."
            )
        lake.storage.publish(staged, name, delivered=lake.storage.delivered(file))


def finish(
    lake: Lake, engine: DuckDBEngine, landed: Landed, found: Found, now: datetime
) -> Receipt:
    """Remove old versions and copies, look again, and write the receipt.

    Args:
        lake: to change; it is reconciled with its landing files.
        engine: that `find` used.
        landed: the landing files that there are now.
        found: what it found.
        now: when it is done.

    Raises:
        ErasureError: a file cannot be read.
    """
    left = _find(lake, engine, landed, found._who, found)
    for file in left.old_versions:
        lake.storage.remove_version(file)
    lake.storage.forget_cached()
    still_there = {*left.old_versions}.intersection(lake.storage.old_versions())
    plan = _plan(lake, engine, left.pending)
    if plan is None:
        raise ErasureError("Somebody else has finished it meanwhile: `stedi receipts` shows it.")
    receipt = Receipt(
        person=left.person,
        asked_by=plan["asked_by"],
        asked_at=plan["asked_at"],
        finished_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        records=plan["records"],
        rows=plan["rows"],
        old_versions=len(left.old_versions),
        left={
            **{key: f"{count:,} records" for key, count in left.records.items()},
            **{name: f"{count:,} rows" for name, count in left.rows.items()},
            **dict.fromkeys(left._in_tables, "it still names the person"),
            **{left._words.hidden_in(file.key): "an old version" for file in still_there},
            **left.by_hand,
        },
    )
    path = engine.folder / f"{uuid.uuid4().hex}.json"
    path.write_text(json.dumps(vars(receipt), indent=2) + "\n")
    lake.storage.publish(path, f"{left.pending}.json")
    return receipt


def receipts(lake: Lake, engine: DuckDBEngine) -> list[Receipt]:
    """All erasures, the oldest first, those that were interrupted among them.

    Raises:
        ValueError: a file of them cannot be read.
    """
    files = {file.key: file for file in lake.storage.list(ERASURES)}
    found: list[Receipt] = []
    for key in sorted(key for key in files if key.endswith(".parquet")):
        written = files.get(f"{key.removesuffix('.parquet')}.json")
        try:
            if written:
                found.append(Receipt(**json.loads(lake.storage.fetch(written).read_bytes())))
            else:
                notes = _notes(lake, engine, files[key])
                plan = json.loads(notes[_PLAN])
                found.append(
                    Receipt(person=notes["person"], finished_at="", old_versions=0, left={}, **plan)
                )
        except (duckdb.Error, KeyError, TypeError, ValueError) as error:
            damaged = written.key if written else key
            raise ValueError(
                f"{lake.storage.uri(damaged)} is no receipt of an erasure, or is damaged: put it "
                "back from a copy. Without one, remove a damaged .json, and forget the person "
                "again, which writes it anew; a .parquet of somebody else is to be moved away."
            ) from error
    return found


def _plan(lake: Lake, engine: DuckDBEngine, key: str) -> dict[str, Any] | None:
    file = lake.storage.find(f"{key}.parquet") if key else None
    return json.loads(_notes(lake, engine, file)[_PLAN]) if file else None


def _notes(lake: Lake, engine: DuckDBEngine, file: StoredFile) -> dict[str, str]:
    return engine.notes({date.min: lake.storage.fetch(file)})[date.min]


def _list_theirs(lake: Lake, engine: DuckDBEngine, who: str, person: str, *, is_again: bool) -> str:
    """Make the list of what is theirs; returns the erasure of them that was interrupted.

    The second time in one erasure, their devices and moments are also those that were known before.
    """
    execute = engine.connection.execute
    for known in ("devices", "moments"):
        if is_again:
            execute(f"CREATE OR REPLACE TEMP TABLE known_{known} AS FROM {known}")
    pending = _list_earlier(lake, engine, person)
    execute(
        "CREATE OR REPLACE TEMP TABLE devices AS "
        f"SELECT serialnumber, bool_and({normalised('email')} = $who) AS alone "
        "FROM customer_landing GROUP BY serialnumber "
        f"HAVING bool_or({normalised('email')} = $who)",
        {"who": who},
    )
    if pending and not is_again:  # customer records that say so may be kept out already
        execute(
            "INSERT INTO devices SELECT DISTINCT serialnumber, serialnumber NOT IN "
            "(SELECT serialnumber FROM customer_landing) FROM step_trainer_landing "
            f"WHERE {hidden('device', 'serialnumber')} IN (SELECT hash FROM earlier) "
            "AND serialnumber NOT IN (SELECT serialnumber FROM devices)"
        )
    execute(
        "CREATE OR REPLACE TEMP TABLE moments AS SELECT DISTINCT timestamp AS moment "
        "FROM accelerometer_landing WHERE user IN (SELECT u FROM (SELECT DISTINCT user AS u "
        f"FROM accelerometer_landing) WHERE {normalised('u')} = $who)",
        {"who": who},
    )
    if is_again:
        execute(
            "INSERT INTO devices FROM known_devices "
            "WHERE serialnumber NOT IN (SELECT serialnumber FROM devices)"
        )
        execute("INSERT INTO moments FROM known_moments WHERE moment NOT IN (FROM moments)")
    execute(
        f"""
        CREATE OR REPLACE TABLE {quoted(_LIST)} AS
        SELECT $person AS hash, NULL::BIGINT AS until
        UNION ALL
        SELECT {hidden("device", "serialnumber")}, CASE WHEN alone THEN greatest(
            epoch_ms(now()), (SELECT max(sensorreadingtime) FROM step_trainer_landing AS r
                              WHERE r.serialnumber = devices.serialnumber)) END
        FROM devices
        UNION ALL
        SELECT {hidden("reading", "serialnumber || ' ' || moment")}, NULL
        FROM devices CROSS JOIN moments WHERE NOT alone
        UNION ALL
        FROM earlier
        """,
        {"person": person},
    )
    return pending


def _list_earlier(lake: Lake, engine: DuckDBEngine, person: str) -> str:
    """Make the table of what earlier erasures of a person list; returns the interrupted one."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    engine.connection.execute(f"CREATE OR REPLACE TEMP TABLE earlier ({columns})")
    files = sorted(lake.storage.list(ERASURES), key=lambda file: file.key)
    ended = {file.key for file in files if file.key.endswith(".json")}
    pending = ""
    for file in files:
        key, _, extension = file.key.rpartition(".")
        if extension == "parquet" and key.endswith(person[:16]):
            engine.connection.execute(
                f"INSERT INTO earlier SELECT {', '.join(COLUMNS)} "
                "FROM read_parquet($file, hive_partitioning = false)",
                {"file": file_names([lake.storage.fetch(file)])},
            )
            pending = pending if f"{key}.json" in ended else key
    return pending


def _words(engine: DuckDBEngine, who: str) -> list[str]:
    """What else than the email says that something is theirs."""
    found = engine.connection.execute(
        "SELECT serialnumber FROM devices WHERE alone AND length(serialnumber) >= $least UNION "
        "SELECT pseudonym(serialnumber) FROM devices WHERE alone UNION SELECT pseudonym($who)",
        {"who": who, "least": _LEAST},
    ).fetchall()
    return [word for (word,) in found]


def _names(engine: DuckDBEngine, who: str) -> list[str]:
    """Names and phone numbers in their customer records."""
    found = engine.connection.execute(
        "SELECT unnest([customername, phone]) FROM customer_landing "
        f"WHERE {normalised('email')} = $who",
        {"who": who},
    ).fetchall()
    return [name.strip() for (name,) in found if name]


def _dates(engine: DuckDBEngine, source: Source) -> list[date]:
    """The dates whose landing files may hold records of theirs."""
    table, rejects = landing_table(source), rejects_table(source)
    found = engine.connection.execute(
        f"SELECT {PARTITION} FROM {table.name} "
        f"WHERE {is_erased(table, table.name, quoted(_LIST))} "
        f"UNION SELECT {PARTITION} FROM {rejects.name} "
        f"WHERE reason = $erased OR {mentions_erased('record', quoted(_LIST))}",
        {"erased": ERASED},
    ).fetchall()
    return sorted(day for (day,) in found)


def _not_read(engine: DuckDBEngine, source: Source) -> set[str]:
    """The landing files of which no record could be read."""
    found = engine.connection.execute(
        f"SELECT file FROM {rejects_table(source).name} WHERE line IS NULL"
    ).fetchall()
    return {file for (file,) in found}


def _rows(lake: Lake, engine: DuckDBEngine, who: str) -> dict[str, int]:
    """How many rows of theirs the stored tables hold, without tables that hold none."""
    found: Counter[str] = Counter()
    for table in TABLES.values():
        engine.create_view(table, files_with_rows(lake, stored_partitions(lake, engine, table)))
        ((count,),) = engine.connection.execute(
            f"SELECT count(*) FROM {table.name} WHERE {_is_theirs(table)}",
            {"who": who} if "subject_id" in table.column_names else None,
        ).fetchall()
        found[table.name] = count
    return {name: count for name, count in found.items() if count}


def _is_theirs(table: Table) -> str:
    """SQL for whether a row of a table is of the person."""
    if "subject_id" not in table.column_names:
        return is_kept_out(table, table.name, quoted(_LIST))
    own = "subject_id = pseudonym($who)"
    if "sensorreadingtime" not in table.column_names:
        return own
    devices = "SELECT pseudonym(serialnumber) FROM devices"
    return (
        f"({own} OR device_id IN ({devices} WHERE alone) OR (device_id IN ({devices}) "
        "AND sensorreadingtime IN (FROM moments)))"
    )


def _old_versions(
    lake: Lake, engine: DuckDBEngine, words: Words, is_known: bool
) -> tuple[list[StoredFile], dict[str, str]]:
    """The old versions of files to remove, and why others cannot be read, by key.

    If anything else is the person's, old partitions are removed, whatever they hold: the tables are
    made from the landing files. Otherwise, and of all other files, only those are that hold
    something of the person.
    """
    of_landing = {f"{source}/landing/": source for source in Source}
    of_tables = (RECONCILED, *(f"{table.path}/" for table in TABLES.values()))
    remove: list[StoredFile] = []
    made: list[StoredFile] = []
    unreadable: dict[str, str] = {}
    for file in lake.storage.old_versions():
        if file.key.startswith(of_tables):
            made.append(file)
            continue
        source = next((s for folder, s in of_landing.items() if file.key.startswith(folder)), None)
        traces = search(lake, engine, words, [file])
        unreadable |= {f"an old version of {key}": why for key, why in traces.unreadable.items()}
        is_theirs = source and not traces.unreadable and _holds(lake, engine, source, file)
        if traces.keys or is_theirs:
            remove.append(file)
    if not (is_known or remove):
        named = set(search(lake, engine, words, made).keys)
        made = [file for file in made if file.key in named]
    return remove + made, unreadable


def _holds(lake: Lake, engine: DuckDBEngine, source: Source, file: StoredFile) -> bool:
    staged = _new_file(engine, file.key)
    try:
        path = lake.storage.fetch(file)
        return bool(write_without_erased(engine, source, path, staged, quoted(_LIST)))
    except UnreadableFileError:  # as text; its bytes were searched
        return False
    finally:
        staged.unlink()


def _new_file(engine: DuckDBEngine, key: str) -> Path:
    """Where a file can be written that takes the place of `key`, with the same extensions."""
    return engine.folder / f"{uuid.uuid4().hex}{''.join(Path(key).suffixes[-2:])[-20:]}"


def as_lines(found: Found) -> Iterator[str]:
    """What was found, for people, a line each."""
    counts = {**found.records, **found.rows}
    if found.old_versions:
        counts["old versions of files"] = len(found.old_versions)
    if counts:
        yield f"{'landing file or table':<70}{'records or rows':>17}"
    for name, count in counts.items():
        yield f"{name:<70}{count:>17,}"
    for key, why in found.by_hand.items():
        yield f"To be mended by hand: {key}: {why}"
    if found.snapshots:
        yield f"Models know the person that were trained on: {', '.join(found.snapshots)}"
