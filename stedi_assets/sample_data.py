"""Made-up landing files, and the row counts that every table must have for them.

The counts come from the written bytes, in plain Python. Nothing of the pipeline belongs here: its
tables are checked against these counts, so the two share no code.
"""

import itertools
import json
import math
import random
import re
import sys
import uuid
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Person = tuple[str, str, int]  # email, serial number, day of registration
Lines = list[list[str]]  # the lines that land on each day

SOURCES = ("customer", "accelerometer", "step_trainer")
FIRST_DAY = date(2023, 8, 6)  # fixed, so that a sample does not depend on when it is made

MANIFEST = "manifest.json"

_HOUR = 3_600_000
_DAY = 24 * _HOUR
_START = (FIRST_DAY - date(1970, 1, 1)).days * _DAY
_RESEARCH = "shareWithResearchAsOfDate"

_FIRST_NAMES = ("Ada", "Bruno", "Chidi", "Dana", "Emil", "Farah", "Greta", "Hugo", "Ines", "Jonas")
_LAST_NAMES = ("Abel", "Brook", "Castillo", "Dahl", "Fontaine", "Holm", "Ito", "Kowal", "Okoro")
_DIRECTIONS = list(itertools.product((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0), (-1.0, 0.0)))

# The type that each field must have; "?" where it may be missing or null. A name is not blank.
_FIELDS = {
    "customer": {
        "customerName": "string?",
        "email": "name",
        "phone": "string?",
        "birthDay": "string?",
        "serialNumber": "name",
        "registrationDate": "int64",
        "lastUpdateDate": "int64",
        _RESEARCH: "int64?",
        "shareWithPublicAsOfDate": "int64?",
        "shareWithFriendsAsOfDate": "int64?",
    },
    "accelerometer": {
        "user": "name",
        "timestamp": "int64",
        "x": "float",
        "y": "float",
        "z": "float",
    },
    "step_trainer": {
        "sensorReadingTime": "int64",
        "serialNumber": "name",
        "distanceFromObject": "int32",
    },
}
# A name and an integer of each source, to spoil.
_SPOILT_FIELDS = {
    "customer": ("email", "lastUpdateDate"),
    "accelerometer": ("user", "timestamp"),
    "step_trainer": ("serialNumber", "distanceFromObject"),
}


def write_sample(lake: Path, *, customers: int = 200, days: int = 7, seed: int = 1) -> Record:
    """Write landing files of made-up people into an empty lake, and return their manifest.

    The same arguments give the same bytes. The manifest, which is also written, last, to
    `manifest.json`, has the arguments and the rows that each table must have (`count_tables`).
    """
    if customers < 1:
        raise ValueError(f"customers must be at least 1, not {customers}")
    if days < 1:
        raise ValueError(f"days must be at least 1, not {days}")
    if days > (most := (datetime.now(UTC).date() - FIRST_DAY).days):
        raise ValueError(f"days must be at most {most}, not {days}: nothing lands in the future")
    for source in SOURCES:
        folder = lake / source / "landing"
        if any(path.is_file() for path in folder.rglob("*")):
            raise FileExistsError(
                f"{folder} already holds files, and a sample does not mix with others: "
                "choose an empty lake"
            )

    rng = random.Random(seed)
    landed: dict[str, Lines] = {source: [[] for _ in range(days)] for source in SOURCES}
    people = _send_customers(rng, customers, landed["customer"])
    _send_readings(rng, people, landed["accelerometer"], landed["step_trainer"])
    for source in SOURCES:
        # Customer records are few: with 0.1, some come again after the record that replaced them.
        _redeliver(rng, 0.1 if source == "customer" else 0.02, landed[source])
        _add_spoilt_lines(rng, source, landed[source])
        _write_files(rng, lake, source, landed[source])

    manifest = {
        "seed": seed,
        "customers": customers,
        "days": days,
        "first_day": FIRST_DAY.isoformat(),
        "counts": count_tables(lake),
    }
    _publish(lake, lake / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return manifest


def count_tables(lake: Path) -> dict[str, int]:
    """Count the rows and rejects that each table must have for the landing files of a lake.

    It understands `.json` files of one object a line, whose names end in 13 digits of epoch
    milliseconds: when they landed.
    """
    customer, customer_rejects = _read_landing(lake, "customer")
    accelerometer, accelerometer_rejects = _read_landing(lake, "accelerometer")
    step_trainer, step_trainer_rejects = _read_landing(lake, "step_trainer")

    latest: dict[str, tuple[tuple[int, int, int], Record]] = {}
    for day, record in customer:
        person = _person(record["email"])
        rank = (record["lastUpdateDate"], record["registrationDate"], day)
        if person not in latest or rank > latest[person][0]:
            latest[person] = (rank, record)
    trusted = {
        person: record
        for person, (_, record) in latest.items()
        if record.get(_RESEARCH) not in (None, 0)
    }

    phone_readings = {
        (reading["user"], reading["timestamp"], reading["x"], reading["y"], reading["z"])
        for _, reading in accelerometer
        if _person(reading["user"]) in trusted
    }
    curated = {_person(user) for user, *_ in phone_readings}
    serials = {trusted[person]["serialNumber"] for person in curated}
    device_readings = {
        (reading["sensorReadingTime"], reading["serialNumber"], reading["distanceFromObject"])
        for _, reading in step_trainer
        if reading["serialNumber"] in serials
    }
    # Whoever has a trusted phone reading is curated, so every trusted phone reading may pair.
    phone_readings_at = Counter(timestamp for _, timestamp, *_ in phone_readings)

    return {
        "customer_landing": len(customer),
        "accelerometer_landing": len(accelerometer),
        "step_trainer_landing": len(step_trainer),
        "customer_trusted": len(trusted),
        "accelerometer_trusted": len(phone_readings),
        "customers_curated": len(curated),
        "step_trainer_trusted": len(device_readings),
        "machine_learning_curated": sum(phone_readings_at[time] for time, *_ in device_readings),
        "customer_rejects": customer_rejects,
        "accelerometer_rejects": accelerometer_rejects,
        "step_trainer_rejects": step_trainer_rejects,
    }


def _read_landing(lake: Path, source: str) -> tuple[list[tuple[int, Record]], int]:
    """Give a source's good records, each with the day that it landed, and the number of rejects."""
    good: list[tuple[int, Record]] = []
    rejects = 0
    for path in sorted((lake / source / "landing").rglob("*.json")):
        stamp = re.search(r"(?<!\d)\d{13}(?=\.json$)", path.name)
        if stamp is None:
            raise ValueError(f"{path}: the name does not end in 13 digits of epoch milliseconds")
        day = int(stamp[0]) // _DAY
        for line in path.read_bytes().split(b"\n"):
            if not line.strip():
                continue
            record = _parse(source, line)
            if record is None:
                rejects += 1
            else:
                good.append((day, record))
    return good, rejects


def _parse(source: str, line: bytes) -> Record | None:
    try:
        # Python would read NaN and Infinity, which JSON does not have.
        record = json.loads(line.decode(), parse_constant=_refuse)
    except ValueError:
        return None
    fields = _FIELDS[source].items()
    if isinstance(record, dict) and all(_fits(record.get(field), kind) for field, kind in fields):
        return record
    return None


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("?")
    match kind.removesuffix("?"):
        case "string":
            return isinstance(value, str)
        case "name":
            return isinstance(value, str) and value.strip() != ""
        case "int64":
            return type(value) is int and -(2**63) <= value < 2**63  # isinstance takes true too
        case "int32":
            return type(value) is int and -(2**31) <= value < 2**31
        case _:
            return type(value) in (int, float) and abs(value) <= sys.float_info.max  # 1e999 is inf


def _refuse(token: str) -> None:
    raise ValueError(f"{token} is not JSON")


def _person(email: str) -> str:
    return email.strip().lower()


def _dump(source: str, record: Record) -> str:
    # The website puts blanks after separators, the phone and the device do not.
    return json.dumps(record, separators=None if source == "customer" else (",", ":"))


def _moment(rng: random.Random, day: int, from_hour: int, to_hour: int) -> int:
    return _START + day * _DAY + rng.randrange(from_hour * _HOUR, to_hour * _HOUR)


def _send_customers(rng: random.Random, customers: int, landed: Lines) -> list[Person]:
    """Add the website's lines, and return whom it registered."""
    people = []
    for number in range(customers):
        first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
        day = rng.randrange(len(landed))
        registered = _moment(rng, day, 6, 12)
        record: Record = {
            "customerName": f"{first} {last}",
            "email": f"{first}.{last}{number}@test.com",
            "phone": f"555{rng.randrange(10**7):07}",
            # Real records have birthdays from before the Gregorian calendar too.
            "birthDay": f"{rng.randrange(1300, 2006)}-{rng.randrange(1, 13):02}-01",
            "serialNumber": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "registrationDate": registered,
            "lastUpdateDate": registered,
        }
        for consent in (_RESEARCH, "shareWithPublicAsOfDate", "shareWithFriendsAsOfDate"):
            if rng.random() < 0.5:
                record[consent] = registered
            elif rng.random() < 0.2:
                record[consent] = 0
        landed[day].append(_dump("customer", record))
        if rng.random() < 0.25:
            later = rng.randrange(day, len(landed))
            # An afternoon is after every registration of that day, so a person's records never tie.
            update = _update(rng, record, _moment(rng, later, 13, 22))
            landed[later].append(_dump("customer", update))
        people.append((record["email"], record["serialNumber"], day))
    return people


def _update(rng: random.Random, record: Record, moment: int) -> Record:
    """Change a person's consent, the spelling of the email, or both."""
    update = record | {"lastUpdateDate": moment}
    change = rng.choice(("consent", "spelling", "both"))
    if change != "spelling":
        if not record.get(_RESEARCH):
            update[_RESEARCH] = moment
        elif rng.random() < 0.3:
            update[_RESEARCH] = 0
        else:
            del update[_RESEARCH]
    if change != "consent":
        email = record["email"]
        update["email"] = rng.choice((email.upper(), email.lower(), f" {email}", f"{email}  "))
    return update


def _send_readings(rng: random.Random, people: list[Person], phone: Lines, device: Lines) -> None:
    """Add the readings of everyone who walks; a tenth of the people never do."""
    days = len(device)
    walkers = [person for person in people if rng.random() < 0.9]
    for day in range(days):
        bursts_of_others: list[list[int]] = []
        for email, serial, first_day in walkers:
            if day < first_day or rng.random() < 0.5:
                continue
            bursts = [_burst(rng, day) for _ in range(3)]
            if bursts_of_others and rng.random() < 0.2:
                # Two who step at the same milliseconds: the join on time pairs across them.
                bursts[0] = rng.choice(bursts_of_others)
            bursts_of_others.extend(bursts)
            # A phone without reception delivers a day late, and so the later half of its pairs.
            arrival = day + 1 if day + 1 < days and rng.random() < 0.05 else day
            for time in sorted(set().union(*bursts)):
                device[day].append(
                    f'{{"sensorReadingTime":{time},"serialNumber":"{serial}",'
                    f'"distanceFromObject":{rng.randint(201, 300)}}}'
                )
                phone[arrival].extend(
                    f'{{"user":"{email}","timestamp":{time},"x":{x},"y":{y},"z":{z}}}'
                    for x, y, z in rng.sample(_DIRECTIONS, rng.randint(1, 6))
                )


def _burst(rng: random.Random, day: int) -> list[int]:
    start = _moment(rng, day, 6, 21)
    return list(itertools.accumulate((rng.randrange(500, 4000) for _ in range(9)), initial=start))


def _redeliver(rng: random.Random, share: float, landed: Lines) -> None:
    """Deliver some lines again, the same day or later."""
    for day, lines in enumerate(landed):
        for line in list(lines):
            if rng.random() < share:
                landed[rng.randrange(day, len(landed))].append(line)


def _add_spoilt_lines(rng: random.Random, source: str, landed: Lines) -> None:
    """Add spoilt copies of good lines: about 1 %, and always below 4 % of a day's lines."""
    name, integer = _SPOILT_FIELDS[source]
    # None cuts the line short, `...` leaves the field out, else the field gets that value.
    faults: list[tuple[str, Any] | None] = [None, (name, ""), (integer, 12.7), (integer, ...)]
    faults += [(integer, True), (name, "  ")]
    if source == "accelerometer":
        faults.append(("x", math.nan))
    fault = itertools.cycle(faults)
    for lines in landed:
        number = max(0, min(1 + len(lines) // 100, (len(lines) - 1) // 24))
        lines.extend([_spoil(source, line, next(fault)) for line in rng.sample(lines, number)])


def _spoil(source: str, line: str, fault: tuple[str, Any] | None) -> str:
    if fault is None:
        return line[: len(line) // 2]
    field, value = fault
    record = json.loads(line)
    del record[field]
    return _dump(source, record if value is ... else record | {field: value})


def _write_files(rng: random.Random, lake: Path, source: str, landed: Lines) -> None:
    folder = lake / source / "landing"
    folder.mkdir(parents=True, exist_ok=True)
    for day, lines in enumerate(landed):
        rng.shuffle(lines)  # no table may depend on the order
        files = rng.randint(1, 3)
        for number in range(files):
            part = lines[number::files]
            stamp = _START + day * _DAY + 23 * _HOUR + number * 60_000 + rng.randrange(60_000)
            if part:
                text = "".join(line + "\n" for line in part)
                _publish(lake, folder / f"{source}-{stamp}.json", text)


def _publish(lake: Path, path: Path, text: str) -> None:
    # The temporary name is outside the landing folders: whoever watches them sees whole files only.
    temporary = lake / f".{path.name}.tmp"
    temporary.write_bytes(text.encode())
    temporary.replace(path)
