"""Rows of small studies whose figures can be computed by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unlearnbench.results import schema

ABOUT: dict[str, Any] = {
    "dataset": "digits",
    "model": "cnn",
    "train": "default",
    "forget": "random",
    "forget_hash": "f0",
    "defense": "none",
    "attack": "none",
    "traits": "",
    "overrides": "",
    "n": 100,
    "status": "ok",
    "seconds": 1.0,
    "commit": "c0ffee",
    "version": "0.1.0",
    "device": "cpu",
    "measured_on": "cpu",
    "clock": "processor",
    "memory": "process",
    "schema": schema.SCHEMA_VERSION,
}


def key(method: str, seed: int, attack: str = "none", **about: Any) -> str:
    """A key that says what it is of."""
    return " ".join(map(str, (method, seed, attack, *about.values())))


def rows(
    method: str, values: Mapping[str, Sequence[float | None]], attack: str = "none", **about: Any
) -> list[dict[str, Any]]:
    """A value a seed of each metric; None is a seed that has none."""
    return [
        {
            **ABOUT,
            **about,
            "method": method,
            "attack": attack,
            "metric": metric,
            "seed": seed,
            "value": value,
            "key": key(method, seed, attack, **about),
            "utility_key": key(method, seed, **about),
        }
        for metric, over_seeds in values.items()
        for seed, value in enumerate(over_seeds)
        if value is not None
    ]


def trouble(method: str, seed: int, status: str = "failed", **about: Any) -> list[dict[str, Any]]:
    """The row of a cell that gave no number."""
    told = {"reason": "it broke", "forget_hash": None, "n": None, **about}
    ((first),) = rows(method, {"none": [0.0]}, **about)
    return [
        {
            **first,
            **told,
            "seed": seed,
            "status": status,
            "metric": None,
            "value": None,
            "key": key(method, seed, **about),
            "utility_key": key(method, seed, **about),
        }
    ]


def frame(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as ``load_results`` gives them."""
    return pd.DataFrame([row for part in parts for row in part]).reindex(columns=schema.ROWS.names)
