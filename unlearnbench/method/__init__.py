"""Unlearning methods: functions from a model and a task to a model."""
