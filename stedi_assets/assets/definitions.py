"""The definitions of all derived tables, by policy and name, in the order in which rows flow."""

from collections.abc import Mapping
from types import ModuleType

from stedi_assets.assets import curated, strict, trusted
from stedi_assets.assets.definition import Definition, Need
from stedi_assets.privacy.policies import Policy
from stedi_assets.tables import TABLES


def _of(*modules: ModuleType) -> dict[str, Definition]:
    """The definitions in modules, of which a later one replaces those before."""
    found = {
        definition.table.name: definition
        for module in modules
        for definition in vars(module).values()
        if isinstance(definition, Definition)
    }
    return {name: found[name] for name in TABLES if name in found}


DEFINITIONS: Mapping[Policy, dict[str, Definition]] = {
    Policy.REFERENCE: _of(trusted, curated),
    Policy.STRICT: _of(trusted, curated, strict),
}


def needs_of(name: str) -> dict[str, Need]:
    """The tables that a table reads under any policy, and what it needs of them."""
    return {
        read: need
        for definitions in DEFINITIONS.values()
        for read, need in definitions[name].needs.items()
    }
