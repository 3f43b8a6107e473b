"""Defenses: functions from predictions to predictions."""
