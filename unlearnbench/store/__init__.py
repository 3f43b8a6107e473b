"""Artifacts on disk by their keys, locks, and maintenance."""
