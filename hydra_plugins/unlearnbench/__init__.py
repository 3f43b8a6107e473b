"""Hydra plugin: the project's sweeper and its launchers. Hydra finds them only here."""
