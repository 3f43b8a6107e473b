"""Test accuracy of a net whose last batch has few rows; the evidence for ``Batches.sizes``.

    python scripts/last_batch.py [--model resnet18 --rows 256 --epochs 10]

Trains on ``rows`` + r rows of digits, where r rows remain after full batches of 64. The r rows form
either a separate batch or the batches of ``Batches.sizes``. Prints one test accuracy in percent per
seed.
"""

import argparse
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch

from unlearnbench.config import compose
from unlearnbench.core.data import Batches
from unlearnbench.core.seeding import seeded
from unlearnbench.pipeline import inputs
from unlearnbench.pipeline.split import split_of
from unlearnbench.train import loop

REST = (0, 1, 2, 3, 4, 8, 16, 32)


def on_its_own(batches: Batches) -> list[int]:
    """Batch sizes of an epoch in which the remaining rows form a separate batch."""
    full, rest = divmod(len(batches.rows), batches.size)
    return ([batches.size] * full + [rest] * bool(rest))[: batches.limit]


def accuracy(rows: int, seed: int, *, model: str, epochs: int) -> float:
    """Test accuracy in percent of a net trained on the first rows of digits."""
    overrides = [f"model={model}", f"train.call.epochs={epochs}", f"seed={seed}", "attack=none"]
    (cell,) = compose.cells([overrides])
    data = inputs.dataset(cell)
    parts = split_of(cell, data)
    few = replace(parts, train=parts.train[:rows], forget=parts.forget[:0])
    task = inputs.task(cell, data, few)
    with seeded(cell.model_seed, "global"):
        net = task.fit(inputs.fresh(cell, data), task.train)
    logits_NC = loop.logits(net, inputs.batches(cell, data, parts.test, "test"))
    return 100 * float((logits_NC.argmax(1) == data.y[parts.test]).float().mean())


def main() -> None:
    """Train all nets and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_on = partial(accuracy, model=arguments.model, epochs=arguments.epochs)
    print("rest   on its own         as it is")
    for rest in REST:
        rows, seeds = arguments.rows + rest, range(arguments.seeds)
        with patch.object(Batches, "sizes", property(on_its_own)):
            alone = [train_on(rows, seed) for seed in seeds]
        merged = [train_on(rows, seed) for seed in seeds]
        columns = ("  ".join(f"{a:5.1f}" for a in accuracies) for accuracies in (alone, merged))
        print(f"{rest:4}   " + "   ".join(columns), flush=True)


if __name__ == "__main__":
    main()
