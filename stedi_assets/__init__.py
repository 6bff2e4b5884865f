"""The STEDI lakehouse: step-trainer data from landing files to a training table.

`from stedi_assets import Lakehouse` is for who reads it; nothing is imported before that is asked.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stedi_assets.lakehouse import Lakehouse

__all__ = ["Lakehouse"]


def __getattr__(name: str) -> Any:
    if name != "Lakehouse":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stedi_assets.lakehouse import Lakehouse

    return Lakehouse
