"""Trainings of original and retrained models, an option each, and what they share."""

from unlearnbench.train.default import fit

__all__ = ["fit"]
