"""What does a method cost beyond its arithmetic? Time per retain row, relative to finetuning.

    python scripts/bench_methods.py

Each method runs with its default settings on the same original (digits, cnn, one thread on a CPU).
The methods take turns, and each turn includes finetuning. A separate run counts rows: each draw of
a row from the retain set counts, whether for training, scoring or distillation.
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnbench.config import compose
from unlearnbench.core.cell import Cell, target
from unlearnbench.core.data import Dataset, Split
from unlearnbench.core.errors import Skip
from unlearnbench.core.seeding import seeded
from unlearnbench.core.task import Task
from unlearnbench.pipeline import inputs, models
from unlearnbench.pipeline.split import split_of
from unlearnbench.sweep import worker

REFERENCE = "finetune"


class Bench:
    """One method on a trained original."""

    def __init__(self, cell: Cell, data: Dataset, parts: Split, original: nn.Module) -> None:
        self.cell, self.data, self.parts, self.original = cell, data, parts, original
        self.left = models.left_by_prepare(cell, deepcopy(original), data, parts)

    def seconds(self, task: Task | None = None) -> float:
        """Seconds of one run; the clock covers only the call of the method."""
        task = task or self.task()
        method, arguments = target(self.cell.method["call"])
        scratch = self.cell.from_scratch
        model = inputs.fresh(self.cell, self.data) if scratch else deepcopy(self.original)
        with seeded(0, "global"):
            start = time.perf_counter()
            method(model, task, **arguments)
            if self.data.x.is_cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - start

    def task(self) -> Task:
        """A task with new generators."""
        return inputs.task(self.cell, self.data, self.parts, prepared=self.left)

    def rows(self) -> tuple[int, int]:
        """Numbers of retain rows and of other rows that a run draws."""
        counts = [0, 0]
        retain = self.task().retain.rows

        def count(rows_B: Tensor) -> nullcontext[None]:
            retained = int(torch.isin(rows_B, retain).sum())
            counts[0] += retained
            counts[1] += len(rows_B) - retained
            return nullcontext()

        task = self.task()
        parts = {name: getattr(task, name).watched(count) for name in PARTS}
        self.seconds(replace(task, **parts))
        return counts[0], counts[1]


PARTS = ("retain", "forget", "val", "train")


def main() -> None:
    """Measure all methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=7, help="runs of each method")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*", help="as on the command line: dataset=, model= …")
    arguments = parser.parse_args()
    worker.configure(arguments.device)
    overrides = [*arguments.overrides, "method=glob(*,exclude=original)"]
    cells = compose.cells(compose.expand(overrides))
    data = inputs.dataset(cells[0], arguments.device)
    parts = split_of(cells[0], data)
    task = inputs.task(cells[0], data, parts.hide_forget())
    original = task.fit(inputs.fresh(cells[0], data), task.train)
    benches, skipped = {}, []
    for cell in cells:
        bench, name = Bench(cell, data, parts, original), cell.method["name"]
        try:
            bench.seconds()  # warm-up
        except Skip as reason:
            skipped.append(f"{name}: {reason}")
        else:
            benches[name] = bench
    runs = []
    for _ in range(arguments.runs):
        runs.append({name: bench.seconds() for name, bench in benches.items()})
    drawn = {name: bench.rows() for name, bench in benches.items()}
    base = [run[REFERENCE] / drawn[REFERENCE][0] for run in runs]
    print(
        f"torch {torch.__version__}, {arguments.device}, {arguments.runs} runs, "
        f"{' '.join(overrides[:-1])}"
    )
    print(
        f"{'method':22}{'seconds':>9}{'retain rows':>13}{'others':>8}   a retain row, × {REFERENCE}"
    )
    for name in sorted(benches):
        seconds = [run[name] for run in runs]
        retain, others = drawn[name]
        line = f"{name:22}{statistics.median(seconds):9.3f}{retain:13,}{others:8,}"
        if retain:
            ratios = [s / retain / b for s, b in zip(seconds, base, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            line += f"   {middle:6.2f} ({low:.2f} to {high:.2f})"
        print(line)
    print(*(f"skipped: {line}" for line in skipped), sep="\n")


if __name__ == "__main__":
    main()
