"""Time of ``unlearnbench report`` on rows with random values.

    python scripts/bench_report.py --folder /tmp/report

The study has 21 methods (with controls) × 10 seeds × 5 data sets × 2 models × ``--forget-sets``,
and 24 metrics each. Prints medians of the whole command and of importing pandas alone. The two take
turns, since their ratio varies less over time than the speed of a machine.
"""

import argparse
import hashlib
import itertools
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

METHODS = "original retrain second_retrain finetune gradient_ascent random_labels neggrad_plus cf_k"
METHODS += " eu_k scrub bad_teacher fisher influence salun fcs msg cfw prmq ct kde rni"
DATASETS = "mnist fashion_mnist cifar10 cifar100 utkface"
UTILITY = (
    "retain_acc forget_acc val_acc test_acc ret_dev js_retain js_forget js_test rte peak_bytes"
)
ATTACK = "mia_test mia_val mia_test_auc mia_val_auc indisc_test indisc_val"
ATTACK += " mia_test_confidence_auc mia_val_confidence_auc mia_test_entropy_auc mia_val_entropy_auc"
ATTACK += " mia_test_modified_entropy_auc mia_val_modified_entropy_auc"
ATTACK += " mia_test_tpr_at_1pct mia_val_tpr_at_1pct"
SEEDS = 10
QUARTERS = (0.25, 0.5, 0.75)


def make(folder: Path, forget_sets: int) -> int:
    """Write the rows of the sweep, and return their number."""
    from unlearnbench.results import parts, schema

    random = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    cells = []
    axes = DATASETS.split(), ("resnet18", "tiny_vit"), range(forget_sets), METHODS.split()
    for dataset, model, forget, method, seed in itertools.product(*axes, range(SEEDS)):
        identity = f"{dataset} {model} {forget} {method} {seed}"
        keys = [hashlib.sha256(f"{identity} {end}".encode()).hexdigest() for end in ("", "umia")]
        about: dict[str, object]
        about = {"dataset": dataset, "model": model, "train": "default", "forget": "random"}
        about |= {"forget_hash": f"{forget:016x}", "method": method, "defense": "none"}
        about |= {"traits": "", "overrides": f"forget.call.seed={forget}", "seed": seed}
        about |= {"status": "ok", "seconds": 1.0, "utility_key": keys[0], "version": "0.1.0"}
        about |= {"measured_on": "cpu", "clock": "processor", "memory": "process"}
        about |= {"setup_key": f"{dataset} {model} {forget}", "method_key": method}
        about |= {"defense_key": "none", "attack_key": "none"}
        about |= {"commit": "0" * 12, "device": "cpu", "schema": schema.SCHEMA_VERSION, "n": 1000}
        for key, attack, names in zip(keys, ("none", "umia"), (UTILITY, ATTACK), strict=True):
            of = {**about, "key": key, "attack": attack, "attack_key": attack}
            rows += [{**of, "metric": name, "value": random.random()} for name in names.split()]
        cells.append({"sweep": "bench", "key": keys[1], "utility_key": keys[0]})
    parts.write(folder / "rows", "all", rows, schema.ROWS)
    parts.write(folder / "sweeps", "bench", cells, schema.SWEEP)
    return len(rows)


def taken(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of a whole command."""
    environment = {**os.environ, "UNLEARNBENCH_RESULTS": str(folder)}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forget-sets", type=int, default=2, help="50,400 rows each")
    parser.add_argument("--folder", type=Path, required=True, help="for what is made; is kept")
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()
    print(f"{make(arguments.folder, arguments.forget_sets):,} rows, {os.cpu_count()} cores")
    report = [str(Path(sys.executable).with_name("unlearnbench")), "report", "bench"]
    pandas = [sys.executable, "-c", "import pandas"]
    taken(report, arguments.folder)  # warm-up: compiles bytecode
    pairs = [
        [taken(command, arguments.folder) for command in (report, pandas)]
        for _ in range(arguments.runs)
    ]
    for label, place in (("the report", 0), ("to import pandas", 1)):
        wall, used = np.median([pair[place] for pair in pairs], axis=0)
        print(f"{label:16} {wall:.2f} s, {used:.2f} s of processor time")
    low, middle, high = np.quantile([a[0] / b[0] for a, b in pairs], QUARTERS)
    print(f"{middle:.1f} × as long ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
