"""A run as the sensor asks for it, in the place of the command line, in a forked process.

Imports nothing that reads settings: it is imported before the process has its own.
"""

import os
import sys
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class SensorRun:
    """Makes all tables of a date in the process, which ends with 1 if that fails."""

    day: str

    def __call__(self) -> None:
        from stedi_assets.dates import Stretch
        from stedi_assets.runs import run_dates
        from stedi_assets.tables import TABLES

        day = date.fromisoformat(self.day)
        ok = run_dates(Stretch(day, day), list(TABLES), print, set())
        sys.stdout.flush()
        os._exit(0 if ok else 1)
