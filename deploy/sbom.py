"""A bill of materials, as CycloneDX has it, of a lock file: its packages and their hashes.

The lock file is all that there is to know, so nothing is installed or asked for:
`python deploy/sbom.py deploy/aws/requirements.lock`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_PACKAGE = re.compile(r"([A-Za-z0-9._-]+)(\[[^]]*\])?==([^\s;]+)(?: *; *(.*?))?")


def bill(lock: str) -> dict[str, Any]:
    """The bill of a lock file's text; a package that only some machines need is optional."""
    packages: list[dict[str, Any]] = []
    for line in lock.replace(" \\", "").splitlines():
        if line.startswith("    --hash=sha256:"):
            found = {"alg": "SHA-256", "content": line.rpartition(":")[2]}
            packages[-1]["hashes"].append(found)
        elif package := _PACKAGE.fullmatch(line):
            name, _, version, only_on = package.groups()
            packages.append(
                {
                    "type": "library",
                    "bom-ref": f"{name}=={version}",
                    "name": name,
                    "version": version,
                    "scope": "optional" if only_on else "required",
                    "purl": f"pkg:pypi/{name.lower()}@{version}",
                    "hashes": [],
                }
            )
        else:
            raise ValueError(f"{line!r} is neither a package nor the hash of one")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "stedi-assets"}},
        "components": packages,
    }


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1]).read_text()), indent=2))
