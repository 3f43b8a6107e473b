"""Searches for settings: studies, trials and their scores."""
