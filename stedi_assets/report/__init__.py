"""The report: an audit of the lake as one page, in figures alone; no row and no name is in it."""
