"""Metrics: arrays in, floats out. NumPy and SciPy only."""
