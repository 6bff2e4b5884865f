"""The tables as Dagster assets: a function each, which is the table's definition."""
