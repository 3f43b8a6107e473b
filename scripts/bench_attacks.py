"""What scoring costs: each attack on a shadow population, from outputs in memory, without metrics.

The data are 64 models under attack and their 64 originals, 50,000 records of ten classes. With one
thread:

    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench_attacks.py

Prints processor seconds of the whole attack (median over runs) and its peak memory without the
outputs.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from unlearnbench.attack.lira import lira
from unlearnbench.attack.rmia import rmia
from unlearnbench.attack.ulira import ulira
from unlearnbench.core.outputs import Predictions, Scores
from unlearnbench.protocol.shadow_models import audit_pool

ATTACKS: dict[str, Callable[[Predictions], Scores]] = {
    **{
        f"lira {mode} {variance}": partial(lira, mode=mode, variance=variance)
        for mode in ("online", "offline")
        for variance in ("per_record", "pooled")
    },
    "ulira per_record": partial(ulira, reference="unlearned_out", variance="per_record"),
    "ulira pooled": partial(ulira, reference="unlearned_out", variance="pooled"),
    "rmia offline": partial(rmia, mode="offline", a=0.3, gamma=1.0),
}


def outputs(models: int, n: int, classes: int) -> Predictions:
    """Random outputs of unlearned models and their originals; times do not depend on values."""
    random = np.random.default_rng(0)
    status_MN = audit_pool(np.arange(n), models=models, pool=1.0, seed=0).status_MN
    return Predictions(
        logits_MQNC=random.normal(size=(2 * models, 1, n, classes)).astype(np.float32),
        y_N=random.integers(classes, size=n),
        rows_N=np.arange(n),
        split_N=np.zeros(n, np.int8),
        status_MN=np.concatenate([status_MN, status_MN]),
        kind_M=("unlearned",) * models + ("original",) * models,
        parent_M=(*range(models, 2 * models), *[-1] * models),
        audited_M=(True,) * models + (False,) * models,
    )


def measured(predictions: Predictions, runs: int) -> Iterator[tuple[str, float, float]]:
    """Name, processor seconds and peak memory in MiB of each attack."""
    for name, attack in ATTACKS.items():
        taken = []
        for _ in range(runs):
            start = time.process_time()
            attack(predictions)
            taken.append(time.process_time() - start)
        tracemalloc.start()
        attack(predictions)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        yield name, statistics.median(taken), peak / 2**20


def main() -> None:
    """Measure all attacks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    predictions = outputs(arguments.models, arguments.records, arguments.classes)
    print(
        f"{arguments.models} models × {arguments.records:,} records × "
        f"{arguments.classes} classes, twice:"
    )
    print(f"outputs {predictions.logits_MQNC.nbytes / 2**20:,.0f} MiB; {arguments.runs} runs")
    for name, seconds, peak in measured(predictions, arguments.runs):
        print(f"{name:24} {seconds:6.2f} s   {peak:7,.0f} MiB")


if __name__ == "__main__":
    main()
