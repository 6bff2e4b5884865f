"""Runs a command and prints, as JSON, what it and every process that it started took.

A process of its own, because it adopts what outlives the command: Spark's JVM does, and the
system tells the CPU seconds of a process to none but its parent.
Usage: python -m benchmarks.measured COMMAND…
"""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

INTERVAL = 0.2  # seconds between two looks at the memory of several processes
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER, of <sys/prctl.h>


def main(command: list[str]) -> int:
    """Run it, print its cost, and return its exit code."""
    if ctypes.CDLL(None, use_errno=True).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")
    peaks = [0.0]
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(peaks, ended))
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watcher.start()
    cpu, status, wall = 0.0, 0, 0.0
    with suppress(ChildProcessError):  # when there is none left
        while True:
            pid, ended_with, usage = os.wait4(-1, 0)
            if pid == process.pid:
                wall, status = time.perf_counter() - started, ended_with
            cpu += usage.ru_utime + usage.ru_stime
            peaks.append(usage.ru_maxrss / 1024)  # of the largest process, and exact
    ended.set()
    watcher.join()
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": max(peaks)}))
    return os.waitstatus_to_exitcode(status)


def _watch(peaks: list[float], ended: threading.Event) -> None:
    """Note what all processes hold together; of one alone the system itself knows the peak."""
    while not ended.wait(INTERVAL):
        if len(processes := descendants(os.getpid())) > 1:
            peaks.append(sum(map(megabytes, processes)))


def descendants(ancestor: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(ancestor, []))
    for process in found:  # which grows
        found += children.get(process, [])
    return found


def megabytes(process: int) -> float:
    """The memory that a process holds; of what several share, its share."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
