"""Data sets: a loader is a function that gives a whole set in memory."""
