"""A study as its Parquet files, made up: what figures and the page are tested on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unlearnbench.report import files
from unlearnbench.report.analysis.study import Study
from unlearnbench.results import parts, schema

SEEDS = (0, 1, 2)

FIGURES: dict[str, dict[str, float]] = {
    "original": {"test_acc": 0.95, "ret_dev": 0.05, "mia_test_auc": 0.60, "ulira_auc": 0.70},
    "retrain": {"test_acc": 0.94, "ret_dev": 0.0, "mia_test_auc": 0.50, "ulira_auc": 0.50},
    "second_retrain": {"test_acc": 0.94, "ret_dev": 0.01, "mia_test_auc": 0.51, "ulira_auc": 0.51},
    "near": {"test_acc": 0.93, "ret_dev": 0.02, "mia_test_auc": 0.52, "ulira_auc": 0.52, "rte": 2},
    "fast": {"test_acc": 0.92, "ret_dev": 0.04, "mia_test_auc": 0.55, "ulira_auc": 0.58, "rte": 50},
    "worse": {"test_acc": 0.90, "ret_dev": 0.30, "mia_test_auc": 0.70, "ulira_auc": 0.90, "rte": 1},
}
"""What each method gives, before its seed and its data set are added."""

THREATS = {
    "umia": "outputs of one model; records known to be forgotten or unseen",
    "ulira": "outputs of one model; shadow models that forgot; the unlearning method known",
    "double_output": "outputs of two models, before and after",
}

OF = {"mia_test_auc": "umia", "ulira_auc": "ulira"}

ABOUT: dict[str, Any] = {
    "model": "cnn",
    "train": "default",
    "forget": "random",
    "traits": "",
    "overrides": "",
    "n": 100,
    "status": "ok",
    "seconds": 1.0,
    "commit": "abc123def456",
    "version": "0.1.0",
    "device": "cpu",
    "measured_on": "cpu",
    "clock": "processor",
    "memory": "process",
    "schema": schema.SCHEMA_VERSION,
}


def numbers(dataset: str, method: str, seed: int) -> Iterator[tuple[str, str, float]]:
    """Attack, metric and value of one model."""
    harder = 0.02 if dataset == "mnist" else 0.0
    for metric, value in FIGURES[method].items():
        moved = value if metric in ("ret_dev", "rte") else value - harder
        apart = 0.001 * (seed - 1) * (1 if metric != "rte" else 100)
        yield OF.get(metric, "none"), metric, moved + (apart if method != "retrain" else 0.0)
    for metric, value in {"double_output_auc": 0.8, "classical_auc": 0.6}.items():
        yield "double_output", metric, value


def rows() -> Iterator[dict[str, Any]]:
    for dataset in ("digits", "mnist"):
        for method in FIGURES:
            for seed in SEEDS:
                model = f"{dataset}-{method}-{seed}"
                about = {**ABOUT, "dataset": dataset, "method": method, "seed": seed}
                about |= {"utility_key": model, "forget_hash": dataset}
                for attack, metric, value in numbers(dataset, method, seed):
                    key = model if attack == "none" else f"{model}-{attack}"
                    told = {"attack": attack, "defense": "none", "threat": THREATS.get(attack)}
                    yield {**about, **told, "key": key, "metric": metric, "value": value}
        broken = {**ABOUT, "dataset": dataset, "method": "broken", "seed": 0, "attack": "none"}
        broken |= {
            "defense": "none",
            "key": f"{dataset}-broken",
            "utility_key": f"{dataset}-broken",
        }
        yield {**broken, "status": "failed", "reason": "RuntimeError: <it> broke"}
    for step in (0, 1, 2):
        along = {**ABOUT, "dataset": "digits", "method": "near", "seed": 0, "attack": "none"}
        along |= {"defense": "none", "key": "steps", "utility_key": "digits-near-0"}
        along |= {"forget_hash": "digits", "metric": "forget_acc", "step": step}
        yield {**along, "value": 1 - step / 4}


def make(folder: Path) -> Study:
    """Write the study's files, and read it."""
    given = list(rows())
    parts.write(folder / "rows", "all", given, schema.ROWS)
    keys = {
        row["key"]: {"sweep": "small", **{k: row[k] for k in ("key", "utility_key")}}
        for row in given
    }
    parts.write(folder / "sweeps", "small", list(keys.values()), schema.SWEEP)
    fpr = np.geomspace(0.01, 1, 20)
    curves = [
        {"key": key, "fpr": rate, "tpr": min(1.0, rate**power), "others": 100}
        for key, row in keys.items()
        for power in [0.3 if "original" in key else 1.0]
        if key.endswith("-ulira")
        for rate in fpr
    ]
    parts.write(folder / "roc", "all", curves, schema.ROC)
    return files.study(folder, "small")
