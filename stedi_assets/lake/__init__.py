"""Where tables live: paths, storage, and publishing whole partitions."""

from stedi_assets.lake.lake import (
    ERASURES,
    EXCHANGE,
    RECONCILED,
    REPORTS,
    SNAPSHOTS,
    Lake,
    open_lake,
)
from stedi_assets.lake.storage import (
    LINK,
    LINK_TO_FOLDER,
    TOO_DEEP,
    LocalStorage,
    Storage,
    StorageError,
    StoredFile,
)

__all__ = [
    "ERASURES",
    "EXCHANGE",
    "LINK",
    "LINK_TO_FOLDER",
    "RECONCILED",
    "REPORTS",
    "SNAPSHOTS",
    "TOO_DEEP",
    "Lake",
    "LocalStorage",
    "Storage",
    "StorageError",
    "StoredFile",
    "open_lake",
]
