"""Trainings of original and retrained models, one option each, and their shared code."""

from unlearnbench.train.default import fit

__all__ = ["fit"]
