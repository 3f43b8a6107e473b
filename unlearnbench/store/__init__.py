"""Artifacts on disk, addressed by key; locks; maintenance."""
