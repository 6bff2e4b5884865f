"""What the UI's pages cost its server, opened in Chromium, which has to be installed.

Prints, as JSON, the CPU seconds of the server by page.
Usage: STEDI_LAKE=… DAGSTER_HOME=… python -m benchmarks.pages
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

_TABLE = "/assets/machine_learning_curated"
PAGES = {
    "the graph": "/asset-groups",
    "the catalog of tables": "/assets",
    "a table": _TABLE,
    "a table's partitions": f"{_TABLE}?view=partitions",
    "a table's checks": f"{_TABLE}?view=checks",
    "a table's events": f"{_TABLE}?view=events",
    "all runs": "/runs",
    "a run": "/runs/{run}",
    "sensors and schedules": "/automation",
}
_PATIENCE = 120


def main() -> None:
    """Open each page, and once more."""
    from playwright.sync_api import sync_playwright

    home = Path(os.environ["DAGSTER_HOME"])
    with closing(sqlite3.connect(home / "runs.db")) as runs:
        (run,) = runs.execute("SELECT run_id FROM runs ORDER BY id DESC").fetchone()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    program = str(Path(sys.executable).with_name("dagster-webserver"))
    server = subprocess.Popen(
        [program, "-h", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    found = {}
    try:
        _wait_for(port, server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page()
            for name, path in [*PAGES.items(), *PAGES.items()]:  # the second time counts
                before = _cpu(server.pid)
                page.goto(f"http://127.0.0.1:{port}{path.format(run=run)}")
                page.wait_for_timeout(1000)
                page.wait_for_load_state("networkidle", timeout=_PATIENCE * 1000)
                found[name] = _cpu(server.pid) - before
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    print(json.dumps(found))


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < until:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise RuntimeError("the UI does not answer")


def _cpu(process: int) -> float:
    """The seconds that a process has computed."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
