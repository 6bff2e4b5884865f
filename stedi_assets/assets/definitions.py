"""The definitions of all derived tables, by policy and name, in the order in which rows flow."""

from collections.abc import Mapping

from stedi_assets.assets import curated, strict, trusted
from stedi_assets.assets.definition import Definition, Need
from stedi_assets.privacy.policies import Policy

_REFERENCE = (
    trusted.customer_trusted,
    trusted.accelerometer_trusted,
    curated.customers_curated,
    trusted.step_trainer_trusted,
    curated.machine_learning_curated,
)
_STRICT = (
    trusted.customer_trusted,
    strict.accelerometer_trusted,
    curated.customers_curated,
    strict.step_trainer_trusted,
    strict.machine_learning_curated,
)

DEFINITIONS: Mapping[Policy, dict[str, Definition]] = {
    policy: {definition.table.name: definition for definition in definitions}
    for policy, definitions in ((Policy.REFERENCE, _REFERENCE), (Policy.STRICT, _STRICT))
}


def needs_of(name: str) -> dict[str, Need]:
    """The tables that a table reads under any policy, and what it needs of them."""
    return {
        read: need
        for definitions in DEFINITIONS.values()
        for read, need in definitions[name].needs.items()
    }
