"""Data sets: a loader is a function that returns a complete set in memory."""
