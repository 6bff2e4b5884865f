"""How fast the lakehouse is, beside what else one could run."""
