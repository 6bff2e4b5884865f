"""The STEDI lakehouse: step-trainer data from landing files to a training table."""
