"""Several processes over one lake at once: it ends as if they had run one after the other.

Each schedule is drawn by a seed: which commands begin when, what lands meanwhile, who is killed.
`STEDI_TEST_SCHEDULES` is how many there are, `STEDI_TEST_FIRST_SCHEDULE` the seed of the first.
"""

import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from stedi_assets import Lakehouse
from stedi_assets.catalog.views import write_views
from stedi_assets.engines.duckdb import Noted
from stedi_assets.lake import SNAPSHOTS, Lake
from stedi_assets.privacy.erasure import receipts
from stedi_assets.reconcile import settled
from stedi_assets.resources import landed_now, open_engine, policy
from stedi_assets.tables import TABLES
from stedi_assets_tests.end_to_end.forked import Both, Dying, Job, begin
from stedi_assets_tests.end_to_end.histories import (
    DAYS,
    Place,
    Runner,
    compiled_once,
    oracle,
    stored_rows,
    verify,
)
from stedi_assets_tests.end_to_end.landing_files import Record, customer, device, phone
from stedi_assets_tests.end_to_end.watched import SensorRun, Writing
from stedi_assets_tests.storages import (
    ON_S3,
    SETTINGS,
    AnyPath,
    opened,
    put,
    room_for_lakes,
    root_of,
)

pytestmark = [pytest.mark.long, pytest.mark.s3]

SCHEDULES = int(os.environ.get("STEDI_TEST_SCHEDULES") or (2 if ON_S3 else 10))
FIRST = int(os.environ.get("STEDI_TEST_FIRST_SCHEDULE") or 1)
TOGETHER = 5
"""How many schedules a test lives through."""

KEY = "the same for all lakes"
PEOPLE = {"ann@test.com": "s1", "bob@test.com": "s2", "carl@test.com": "s3", "dora@test.com": "s3"}
TO_FORGET = ("ann@test.com", "bob@test.com")
"""Nobody else holds their devices, so that what is theirs is the same whenever they are erased."""

REPLACED = "was replaced or removed after it was listed: try again"
"""What any command may say on S3 of a landing file; on a disk it reads the one that is there."""
REFUSALS = {
    "forget": r"may still be written to|was changed meanwhile|Somebody else has finished it"
    r"|something is left in",
    "snapshot": r"There is nothing of|there are no rows to make|was written to while|"
    r"already: choose",
}
"""What a command may say instead of doing what it was asked for, which then is not done."""


@dataclass(frozen=True)
class Begun:
    """A process that begins some seconds after the others, and may be killed at a point of it."""

    after: float
    command: tuple[str, ...]
    day: str = ""
    dies_at: int = 0


@dataclass(frozen=True)
class Lands:
    """A file that lands, or replaces the one of its name, some seconds after the beginning."""

    after: float
    place: Place
    records: list[Record]


@dataclass(frozen=True)
class Schedule:
    """What happens on a lake.

    Attributes:
        first: the files that are there at the beginning.
        begun: processes.
        lands: files that land meanwhile.
        new_home: whether Dagster has no databases yet.
    """

    first: Mapping[Place, list[Record]]
    begun: list[Begun]
    lands: list[Lands]
    new_home: bool

    @property
    def forgotten(self) -> set[str]:
        return {begun.command[1] for begun in self.begun if begun.command[0] == "forget"}


def _records(chance: random.Random, source: str) -> list[Record]:
    moment = lambda: chance.choice([100, 200, 201, 300])  # noqa: E731
    made: list[Record] = []
    for _ in range(chance.randint(1, 4)):
        email, serial = chance.choice(list(PEOPLE.items()))
        match source:
            case "customer":
                consent = chance.choice([5, 5, 5, 0])
                updated = chance.randint(1, 4)
                made.append(customer(email, serial, updated=updated, consent=consent))
            case "accelerometer":
                made.append(phone(email, moment(), chance.choice([0.5, 0.0])))
            case _:
                made.append(device(moment(), serial, chance.randint(1, 2)))
    return made


def schedule(seed: int) -> Schedule:
    """What a seed gives."""
    chance = random.Random(seed)
    first: dict[Place, list[Record]] = {
        ("customer", DAYS[0], "all.json"): [customer(*of, updated=1) for of in PEOPLE.items()]
    }
    for source in ("customer", "accelerometer", "step_trainer"):
        for day in chance.sample(DAYS, 2):
            first[source, day, "one.json"] = _records(chance, source)
    forget = [("forget", email, "--asked-by", "a ticket") for email in TO_FORGET]
    commands: list[tuple[str, ...]] = [
        *[("run",)] * 3,
        *[("sensor",)] * 3,
        *[("reconcile",)] * 2,
        *forget * 2,
        *(("snapshot", f"s{seed}"), ("report",), ("status",), ("counts",)),
    ]
    begun = []
    for _ in range(chance.choice([2, 2, 3])):
        command = chance.choice(commands)
        dies_at = chance.randint(1, 60) if chance.random() < 0.15 else 0
        begun.append(Begun(chance.uniform(0, 1), command, chance.choice(DAYS), dies_at))
    lands = [
        Lands(
            chance.uniform(0, 2),
            (source, chance.choice(DAYS), chance.choice(["one.json", "late.json"])),
            _records(chance, source),
        )
        for source in chance.choices(["customer", "accelerometer", "step_trainer"], k=2)
    ]
    begun.sort(key=lambda of: of.after)
    return Schedule(first, begun, sorted(lands, key=lambda of: of.after), chance.random() < 0.1)


class World:
    """A lake, a Dagster home and a cache of its own, in which a schedule happens."""

    def __init__(self, folder: Path, root: AnyPath, home: Path | None) -> None:
        self.folder, self.root = folder, root
        if home:
            shutil.copytree(home, folder / "home")
        else:
            (folder / "home").mkdir()
            shutil.copy(DAGSTER_YAML, folder / "home")
        (folder / "tmp").mkdir()
        self.settings = {
            **{name: os.environ[name] for name in (*SETTINGS, "AWS_ENDPOINT_URL") if ON_S3},
            "STEDI_LAKE": str(root),
            "STEDI_PSEUDONYM_KEY": KEY,
            "STEDI_CACHE": str(folder / "cache"),
            "DAGSTER_HOME": str(folder / "home"),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "USER": "keeper",
        }
        self.lake = opened(root)
        self.files: dict[Place, list[Record]] = {}
        self._started = 0

    def land(self, place: Place, records: list[Record]) -> None:
        source, day, name = place
        path = self.root / source / "landing" / f"ingestion_date={day}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{name}.{len(self.files)}.draft")
        content = "".join(f"{json.dumps(record)}\n" for record in records).encode()
        if isinstance(draft, Path) and isinstance(path, Path):
            draft.write_bytes(content)
            an_hour_ago = time.time() - 3600 + len(self.files)
            os.utime(draft, (an_hour_ago, an_hour_ago))  # so that nobody waits for it to settle
            draft.replace(path)
        else:
            put(path, content)
        self.files[place] = records

    def begin(self, begun: Begun) -> Job:
        self._started += 1
        is_sensor = begun.command == ("sensor",)
        prepare: Callable[[], object] = Writing(self.folder / "writing")
        if begun.dies_at:
            prepare = Both(prepare, Dying(begun.dies_at))
        if is_sensor:
            prepare = Both(prepare, SensorRun(begun.day))
        return begin(
            *(("run",) if is_sensor else begun.command),
            output=self.folder / f"told {self._started}",
            settings=self.settings,
            prepare=prepare,
        )

    def bring_up_to_date(self) -> None:
        """As `stedi run` does, without Dagster."""
        runner = Runner(self.root)
        with runner.lake.writing():
            runner.reconcile(False)
            write_views(runner.lake, runner.engine)
        runner.end()

    def run(self, *command: str) -> Job:
        job = self.begin(Begun(0, command))
        job.wait()
        return job


DAGSTER_YAML = Path(__file__).parents[2] / "dagster_home" / "dagster.yaml"


@contextmanager
def read_beside(lake: Lake) -> Iterator[list[str]]:
    """Read partitions and tables meanwhile; gives what was seen that must not be."""
    root, seen, stop = root_of(lake), [], threading.Event()
    known: dict[AnyPath, bytes] = {}
    lakehouse = Lakehouse(str(root))

    def read() -> None:
        while not stop.wait(0.2):
            for path in root.glob("*/*/*/part-0.parquet"):
                content = path.read_bytes()
                if known.get(path) == content:
                    continue
                known[path] = content
                with pq.ParquetFile(BytesIO(content)) as file:
                    rows, notes = file.read().num_rows, file.metadata.metadata or {}
                noted = Noted.read({k.decode(): v.decode() for k, v in notes.items()})
                if noted is None or noted.content.rows != rows:
                    seen.append(f"{path} has {rows} rows and says {noted}")
            try:
                lakehouse.read("machine_learning_curated").count().to_pyarrow()
            except FileNotFoundError as error:
                if "There is nothing of" not in str(error):
                    seen.append(str(error))

    def watched() -> None:
        try:
            read()
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")

    reader = threading.Thread(target=watched)
    reader.start()
    try:
        yield seen
    finally:
        stop.set()
        reader.join()


def took_turns(notes: list[str], killed: set[int | None]) -> None:
    """Of all processes one at a time had the lake, and who published had it."""
    has_it = ""
    for note in notes:
        process, what = note.split(" ", 1)
        if what.startswith("in"):
            assert not has_it or int(has_it) in killed, f"{process} took the lake of {has_it}"
            has_it = process
        elif what.startswith("at the end"):
            assert process == has_it
            has_it = ""
        elif not what.startswith(f"before publish {SNAPSHOTS}/"):
            assert process == has_it, f"{what}, and {has_it or 'nobody'} has the lake"


def without(files: Mapping[Place, list[Record]], people: set[str]) -> dict[Place, list[Record]]:
    """What is left of files when people were erased, whose devices nobody else holds."""
    devices = {PEOPLE[email] for email in people}

    def is_theirs(record: Record) -> bool:
        email = record.get("email") or record.get("user")
        return email in people if email else record["serialNumber"] in devices

    return {
        place: [record for record in records if not is_theirs(record)]
        for place, records in files.items()
    }


def live_through(seed: int, world: World) -> None:
    """Let a schedule happen, look at what each process says, and hold the end to the oracle."""
    plan = schedule(seed)
    for place, records in plan.first.items():
        world.land(place, records)
    events = sorted([*plan.begun, *plan.lands], key=lambda of: of.after)
    jobs: list[tuple[Begun, Job]] = []
    undone: set[str] = set()  # whom an erasure did not come to its end for
    with read_beside(world.lake) as seen:
        began = time.monotonic()
        for event in events:
            time.sleep(max(0, began + event.after - time.monotonic()))
            if isinstance(event, Lands):
                world.land(event.place, event.records)
            else:
                jobs.append((event, world.begin(event)))
        for begun, job in jobs:
            status = job.wait()
            told = job.told()
            assert "stedi --debug" not in told, f"an error that nobody thought of: {told}"
            assert "Traceback" not in told, told
            if status != 0 and begun.command[0] == "forget":
                undone.add(begun.command[1])
            if begun.dies_at and status < 0:
                continue
            refused = re.search(f"{REPLACED}|{REFUSALS.get(begun.command[0], REPLACED)}", told)
            assert status == 0 or refused, f"{begun} ended with {status}: {told}"
        for email in sorted(undone):
            again = world.run("forget", email, "--asked-by", "a ticket")
            assert again.wait() == 0, again.told()
        if seed % 5 == 0:
            world.run("run").succeeded()
        else:  # the same, but a second faster
            world.bring_up_to_date()
    assert seen == []
    killed = {job.process.pid for _, job in jobs if job.wait() < 0}
    took_turns((world.folder / "writing").read_text().splitlines(), killed)

    expected = oracle(without(world.files, plan.forgotten), KEY)
    found = stored_rows(world.lake)
    for name in (name for name in TABLES if name.endswith("_rejects")):
        assert {row[2:] for rows in found[name].values() for row in rows} <= {("erased", None)}
        expected[name] = found[name]
    verify(found, expected)
    with open_engine(world.lake) as engine:
        assert settled(world.lake, engine, policy(), landed_now(world.lake), ())
        kept = receipts(world.lake, engine)
    assert all(receipt.finished_at for receipt in kept)
    assert len({receipt.person for receipt in kept}) <= len(plan.forgotten)
    assert_views_show(world, found)
    assert list((world.lake.storage.folder / "_staging").iterdir()) == []


def assert_views_show(world: World, found: Mapping[str, Mapping[str, object]]) -> None:
    """What `stedi.duckdb` shows is what is stored."""
    if not isinstance(world.root, Path):
        return
    with duckdb.connect(world.root / "stedi.duckdb", read_only=True) as connection:
        for name in TABLES:
            ((rows,),) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
            assert rows == sum(of.total() for of in found[name].values()), name  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dagster home with databases, which take a second to make."""
    folder = tmp_path_factory.mktemp("home")
    with room_for_lakes(folder / "first") as root:
        if isinstance(root, Path):
            root.mkdir()
        world = World(folder, root / "lake", None)
        world.land(("customer", DAYS[0], "a.json"), [customer("ann@test.com", "s1")])
        world.run("run").succeeded()
    return folder / "home"


@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, TOGETHER))
def test_processes_at_once_end_as_if_one_ran_after_the_other(
    first: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    for seed in range(first, min(first + TOGETHER, FIRST + SCHEDULES)):
        print(f"schedule {seed}: {schedule(seed)}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        with room_for_lakes(folder / "lakes") as lakes:
            if isinstance(lakes, Path):
                lakes.mkdir()
            live_through(
                seed, World(folder, lakes / "lake", None if schedule(seed).new_home else home)
            )
        shutil.rmtree(folder)
