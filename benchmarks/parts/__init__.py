"""What is measured, a module each; each part may be run by itself."""

from collections.abc import Callable, Iterator, Mapping

from benchmarks.parts import (
    growth,
    larger_than_memory,
    load,
    many_files,
    on_s3,
    speed,
    start,
    year,
)
from benchmarks.results import Comparison

PARTS: Mapping[str, Callable[[], Iterator[Comparison]]] = {
    "speed": speed.run,
    "growth": growth.run,
    "larger-than-memory": larger_than_memory.run,
    "start": start.run,
    "year": year.run,
    "many-files": many_files.run,
    "s3": on_s3.run,
    "load": load.run,
}
