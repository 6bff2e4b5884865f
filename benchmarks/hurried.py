"""The project's definitions and Dagster's daemon, whose sensors look as often as they can.

For a soak: what takes three hours at their own pace takes minutes.
Usage: python -m benchmarks.hurried ARGUMENTS… (as of dagster-daemon)
"""

from dagster._daemon import sensor
from dagster._daemon.cli import create_dagster_daemon_cli

from stedi_assets.definitions import defs as defs  # which the code location's server looks for
from stedi_assets.sensors import finished_runs, landing_files, settled_lake

for _sensor in (landing_files, finished_runs, settled_lake):
    _sensor._min_interval = 1  # Dagster takes 0 for what it has by default

if __name__ == "__main__":
    sensor.MIN_INTERVAL_LOOP_TIME = 1
    create_dagster_daemon_cli()(obj={})
