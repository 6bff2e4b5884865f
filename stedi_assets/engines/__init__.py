"""What computes tables: DuckDB on one machine, or Spark on many.

An engine is a `DuckDBEngine`, or a `SparkEngine`, which is one as well: what it has to do for
itself is reading landing files (`landing/reader.py` and `landing/on_spark.py`) and computing
definitions, the two that all rows pass through. Both give finished files that DuckDB lays down:
sorted, with notes of the same checksums and of the definition in DuckDB's SQL. So nothing tells
which engine made a partition, and none is stale when the engine is another one. And it is one file
a partition, however many Spark wrote: a file can be replaced in one step, a folder cannot.

Looking at what is stored (contract, checks, reconciliation, erasure) is DuckDB's on either engine:
it reads footers and few columns, and there is one way only to be wrong.

Where a job on AWS makes a table, the engine there is Spark, and all of this is the same: `job.py`.
"""
