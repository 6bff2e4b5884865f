"""Pseudonyms: what stands for a person or a device in the curated zone, and the key they need.

A pseudonym is the SHA-256 of key and value, in hexadecimal. Each engine provides it to its
queries as the function `pseudonym`, so that no query holds the key.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import ibis

from stedi_assets.lake.storage import LocalFolder, write_through

KEY_FILE = ".pseudonym_key"


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def pseudonym(value: str) -> str:  # type: ignore[empty-body]
    """The pseudonym of a value: 64 hexadecimal digits."""


def local_key(root: Path) -> str:
    """The key of a local lake, made once, in a file that only its owner can read.

    Raises:
        ValueError: the file is blank: what is made without a key anybody can make.
    """
    path = root / KEY_FILE
    if not path.exists():
        with LocalFolder(root).staging() as folder:
            draft = folder / KEY_FILE
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_hex(32))
            write_through(draft)
            with suppress(FileExistsError):  # another process was first; its key counts
                path.hardlink_to(draft)
            write_through(root)
    if key := path.read_text().strip():
        return key
    raise ValueError(
        f"{path}, which holds the key of pseudonyms, is blank. Put it back from a copy; only if "
        "there is none, remove it, and everybody gets another pseudonym."
    )
