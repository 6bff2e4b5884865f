"""The consent policies that a lake can be kept under; what they mean for a table, `assets` says."""

from enum import StrEnum


class Policy(StrEnum):
    """Which readings of a person who consents to research may go beyond landing."""

    REFERENCE = "reference"
    """All of them: the definitions by which the tables were first described."""

    STRICT = "strict"
    """Those from the moment of the consent on; of a device, those that belong to a phone reading
    of the same millisecond of somebody who consents and holds the device."""
