"""How others find the tables: Athena and Glue on AWS, DuckDB anywhere."""
