"""What computes tables."""
