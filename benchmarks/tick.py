"""A tick of the sensor on landing files without news: prints its seconds.

Usage: STEDI_LAKE=… python -m benchmarks.tick
"""

import time
import warnings

import dagster as dg

from stedi_assets.lake import open_lake
from stedi_assets.resources import cache_folder, lake_root


def main() -> None:
    """Tick twice, and measure the second one."""
    warnings.filterwarnings("ignore", message=".* is currently in (beta|preview)")
    from stedi_assets.sensors import landing_files

    cursor: str | None = None
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            lake = open_lake(lake_root(), cache_folder())
            context = dg.build_sensor_context(instance, cursor=cursor, resources={"lake": lake})
            started = time.perf_counter()
            result = landing_files(context)
            seconds = time.perf_counter() - started
            cursor = result.cursor if isinstance(result, dg.SensorResult) else cursor
    if not isinstance(result, dg.SkipReason):
        raise RuntimeError("the second tick has news")
    print(seconds)


if __name__ == "__main__":
    main()
