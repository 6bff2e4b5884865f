"""The definitions, each called with tables that are made in memory."""
