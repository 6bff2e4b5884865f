"""Landing files: finding them, their ingestion dates, and reading them with rejects."""
