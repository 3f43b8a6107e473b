"""Attacks: functions from predictions to scores."""
