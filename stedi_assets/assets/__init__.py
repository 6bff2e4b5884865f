"""The tables: a function each, which is a table's definition, and how Dagster is told of it."""
