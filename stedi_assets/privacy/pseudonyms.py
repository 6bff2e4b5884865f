"""Pseudonyms: what stands for a person or a device in the curated zone, and the key they need.

A pseudonym is the SHA-256 of key and value, in hexadecimal. Each engine provides it to its
queries as the function `pseudonym`, so that no query holds the key.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import ibis

KEY_FILE = ".pseudonym_key"


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def pseudonym(value: str) -> str:  # type: ignore[empty-body]
    """The pseudonym of a value: 64 hexadecimal digits."""


def local_key(root: Path) -> str:
    """The key of a local lake, made once, in a file that only its owner can read."""
    path = root / KEY_FILE
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        draft = root / f"{KEY_FILE}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(draft)  # fails where another process was first; its key counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
