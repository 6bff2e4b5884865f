"""Who may be in the data, and under which name."""
