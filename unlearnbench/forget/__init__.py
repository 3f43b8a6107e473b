"""Forget sets: functions from training rows to the rows to forget."""
