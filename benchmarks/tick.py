"""Ticks of the sensor on landing files: prints, as JSON, their CPU and clock seconds.

The first one, with nothing remembered, one without news, and one after a new file.
Usage: STEDI_LAKE=… python -m benchmarks.tick
"""

import json
import os
import time
import warnings
from pathlib import Path

import dagster as dg

from benchmarks.lakes import FIRST
from stedi_assets.lake import open_lake
from stedi_assets.resources import cache_folder, lake_root

_NEW = Path("customer", "landing", f"new-{FIRST}.json")


def main() -> None:
    """Tick, and take the new file away again."""
    warnings.filterwarnings("ignore", message=".* is currently in (beta|preview)")
    from stedi_assets.sensors import landing_files

    cursor: str | None = None
    found = {}
    new = Path(lake_root()) / _NEW
    with dg.DagsterInstance.ephemeral() as instance:
        for name in ("first", "without news", "with news"):
            if name == "with news":
                new.touch()
                os.utime(new, (0, 0))
            lake = open_lake(lake_root(), cache_folder())
            context = dg.build_sensor_context(instance, cursor=cursor, resources={"lake": lake})
            wall, cpu = time.perf_counter(), time.process_time()
            result = landing_files(context)
            found[name] = {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
            }
            new.unlink(missing_ok=True)
            if isinstance(result, dg.SkipReason) != (name == "without news"):
                raise RuntimeError(f"the tick {name} gave {result}")
            cursor = result.cursor if isinstance(result, dg.SensorResult) else cursor
    print(json.dumps(found))


if __name__ == "__main__":
    main()
