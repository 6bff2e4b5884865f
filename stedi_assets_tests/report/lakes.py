"""A small lake of which each row can be followed by hand, and reports of lakes."""

from __future__ import annotations

from datetime import UTC, datetime

from stedi_assets.lake import Lake
from stedi_assets.report.figures import Figures, collect
from stedi_assets.report.report import Report, write_report
from stedi_assets.resources import landed_now, open_engine, policy
from stedi_assets_tests.end_to_end.landing_files import customer, device, land, phone
from stedi_assets_tests.storages import root_of

FIRST, SECOND = "2023-08-06", "2023-08-07"
ANN, BOB, CY, DEE = (f"{name}@test.com" for name in ("ann", "bob", "cy", "dee"))
NOON = datetime(2023, 8, 8, 12, tzinfo=UTC)


def land_town(lake: Lake) -> None:
    """Ann consents since 103, bob never, cy has no readings, dee consents by a later record."""
    land(
        lake,
        "customer",
        FIRST,
        customer(ANN, "s", consent=103),
        customer(BOB, "t", consent=None),
        customer(CY, "u"),
        customer(DEE, "v", consent=None),
    )
    land(lake, "customer", SECOND, customer(DEE, "v", updated=20))
    land(
        lake,
        "accelerometer",
        FIRST,
        *(phone(ANN, time) for time in range(100, 130)),
        phone(BOB, 100),
        phone("nobody@test.com", 100),
        phone(DEE, 101),
        phone(DEE, 110),
        "{spoilt",
    )
    land(lake, "accelerometer", SECOND, phone(ANN, 100), phone(ANN, 110))  # both came before
    land(
        lake,
        "step_trainer",
        FIRST,
        *(device(time, "s") for time in (100, 101, 110, 500)),
        device(100, "t"),
        device(100, "u"),
        device(100, "x"),
    )
    land(lake, "step_trainer", SECOND, device(100, "s"), device(101, "v"))  # the first came before


def reported(lake: Lake, now: datetime = NOON) -> Report:
    """Write a report of a lake, by the settings."""
    with open_engine(lake) as engine, lake.writing():
        return write_report(lake, engine, policy(), landed_now(lake), now)


def figures_of(lake: Lake) -> Figures:
    """What a report of it would tell."""
    with open_engine(lake) as engine, lake.writing():
        return collect(lake, engine, policy(), landed_now(lake), NOON)


def problems_of(lake: Lake) -> list[str]:
    """What it says is not as it should be."""
    return list(figures_of(lake).problems())


def page_of(lake: Lake) -> str:
    """The latest report."""
    return (root_of(lake) / "reports" / "latest.html").read_bytes().decode()
