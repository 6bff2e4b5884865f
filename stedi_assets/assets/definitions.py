"""The definitions of all derived tables, by name, in the order in which rows flow."""

from stedi_assets.assets.curated import customers_curated, machine_learning_curated
from stedi_assets.assets.definition import Definition
from stedi_assets.assets.trusted import (
    accelerometer_trusted,
    customer_trusted,
    step_trainer_trusted,
)

DEFINITIONS: dict[str, Definition] = {
    definition.table.name: definition
    for definition in (
        customer_trusted,
        accelerometer_trusted,
        customers_curated,
        step_trainer_trusted,
        machine_learning_curated,
    )
}
