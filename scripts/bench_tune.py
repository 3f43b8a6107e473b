"""What does a search cost beyond its trials? A study of 20 trials, by one worker.

    python scripts/bench_tune.py --method finetune

The study runs in this process as in a worker: with Optuna's sampler, a journal on this disk, locks
and pruning. Originals and retrained models are made first and are not counted. Prints the
seconds of the study, the seconds that its trials report (unlearning, forward passes, attack), and
their ratio; then the same for the whole command, which also starts Python, imports torch and
Optuna, and writes tables. The script checks nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as in workers

from unlearnbench import load_trials
from unlearnbench.pipeline import outputs
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.search import journal_study as search
from unlearnbench.search import trial
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import slurm, worker
from unlearnbench.tune import request, run, write


def main() -> None:
    """Run the study twice: in this process, and by the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="finetune")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("words", nargs="*", help="dataset=mnist, dataset.limit=10000, …")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"method={arguments.method}",
            f"trials={arguments.trials}",
            "workers=1",
            *arguments.words,
        ]
        store = f"paths.store={folder}/store"
        tune_request = request.ask([*overrides, store, f"paths.results={folder}/here"])
        (study,) = tune_request.studies
        worker.configure("cpu")
        workspace = Workspace(Store(Path(folder) / "store", slurm.known), "cpu")
        for fresh in (False, True):
            for cell in study.needs(fresh):
                outputs.predict(workspace, cell)
        evaluate = trial.evaluator(workspace, study, lambda error: None)
        slots = [job.slot for job in run.plan(tune_request).jobs if job.slot is not None]
        start = time.perf_counter()
        for slot in slots:
            search.run(tune_request.results, slot, evaluate, slurm.known)
        taken = time.perf_counter() - start
        write.log(tune_request)
        told("in this process", taken, tune_request.results)
        program = str(Path(sys.executable).with_name("unlearnbench"))
        other = Path(folder) / "command"
        command = [program, "tune", *overrides, store, f"paths.results={other}"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        told("by the command", time.perf_counter() - start, other)


def told(how: str, taken: float, results: Path) -> None:
    """Print the times of one of the two runs."""
    trials = load_trials(results)
    own, seeds = trials["seconds"].sum(), len(trials)
    line = f"{how}: {taken:.1f} s for {seeds} evaluations that took {own:.1f} s"
    print(f"{line}: {taken / own:.3f} times as long")


if __name__ == "__main__":
    main()
