"""Runs the benchmarks, prints what they find beside its goals, and keeps it in benchmarks/results.

Usage: python -m benchmarks [PART…]; without a part all of them.
"""

import os
import sys
import time

from benchmarks import charts
from benchmarks.lakes import MADE_UP, REFERENCE, WORK
from benchmarks.parts import PARTS
from benchmarks.results import RESULTS, Part, environment, java_version, load, save, tell_one


def main(chosen: list[str]) -> None:
    """Run those parts; each is kept as soon as it is done."""
    if unknown := {*chosen} - PARTS.keys():
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    kept = load()  # and not after hours: what is there may be of another version
    WORK.mkdir(exist_ok=True)
    if MADE_UP and "STEDI_REFERENCE" in os.environ:
        sys.exit(f"STEDI_REFERENCE is {REFERENCE}, which is no folder")
    if MADE_UP:
        print(f"There are no reference files at {REFERENCE}: made-up ones take their place.")
    if not java_version():
        print("No Java: what runs on Spark is left out.")
    for name, run in PARTS.items():
        if name in chosen or not chosen:
            started = time.monotonic()
            found = []
            for comparison in run():
                print(f"\n{tell_one(comparison)}", flush=True)
                found.append(comparison)
            minutes = (time.monotonic() - started) / 60
            on = environment() | {"minutes": f"{minutes:.0f}"}
            kept[name] = Part(on, found)
            kept = {part: kept[part] for part in PARTS if part in kept}
            save(kept)
            charts.draw(kept)
            print(f"\n{name}: kept in {RESULTS}, after {minutes:.1f} minutes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
