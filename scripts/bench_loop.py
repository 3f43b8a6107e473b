"""How fast is the training loop? Ours, a plain PyTorch loop, and DataLoader with transforms.

    python scripts/bench_loop.py --root data

Each case trains the same net on the same MNIST rows (3×32×32, random flips, one thread on a CPU).
Each loop runs in a separate process: ours with the settings of the harness's workers, the others
with Python's defaults. The loops take turns within each run, in rotating order, with short epochs
and many runs, since the speed of the machine drifts. Prints seconds per epoch (median), ratios to
ours within runs (median, quartiles in brackets), and the number of runs in which ours was faster.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from unlearnbench.config import compose
from unlearnbench.core.cell import Cell
from unlearnbench.core.data import Batches, Dataset
from unlearnbench.pipeline import inputs
from unlearnbench.sweep import worker
from unlearnbench.train.loop import cross_entropy, descend

CASES = [  # model, rows an epoch, batch size
    ("cnn", 1920, 64),
    ("resnet18", 768, 256),
]
MEAN, STD = 0.1307, 0.3081
SGD: Any = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


def ours(net: nn.Module, batches: Batches) -> None:
    """The loop of the harness."""
    descend(net, batches, cross_entropy, sgd=SGD, epochs=1)


def plain(net: nn.Module, data: Dataset, rows: Tensor, size: int, precision: str) -> None:
    """A plain loop: data in memory, channels last, normalised and flipped per batch."""
    device = rows.device
    optimizer = torch.optim.SGD(net.parameters(), **SGD, fused=True)
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    net.train()
    for chosen in torch.randperm(len(rows)).to(device).split(size):
        picked = rows[chosen]
        x = data.x.index_select(0, picked).float()
        x = ((x - 255 * MEAN) / (255 * STD)).permute(0, 3, 1, 2)
        flip = (torch.rand(len(x)) < 0.5).to(device)
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
        with bf16:
            loss = F.cross_entropy(net(x), data.y[picked])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """MNIST as PIL images that torchvision transforms one at a time."""

    def __init__(self, pixels_NHW: np.ndarray, y: Tensor) -> None:
        self.pixels_NHW, self.y = pixels_NHW, y.tolist()
        self.transform = transforms.Compose(
            [
                transforms.Grayscale(3),
                transforms.Resize(32),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([MEAN] * 3, [STD] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels_NHW[index])), self.y[index]


def loader(net: nn.Module, batches: DataLoader[Any], device: torch.device, precision: str) -> None:
    """The usual loop over a DataLoader."""
    optimizer = torch.optim.SGD(net.parameters(), **SGD)
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    net.train()
    for x, y in batches:
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        with bf16:
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()


LOOPS = ("ours", "plain loop", "DataLoader, workers: 0", "DataLoader, workers: 1")


def loop(name: str, cell: Cell, n: int, size: int, device: str) -> Callable[[], None]:
    """A function that trains a new net for one epoch by one of the loops."""
    if name == "ours":
        worker.configure(device)
    torch.set_num_threads(1)
    data = inputs.dataset(cell, device)
    rows = torch.arange(n, device=data.x.device)
    net = inputs.fresh(cell, data)
    if name == "ours":
        batches = inputs.batches(cell, data, rows, "retain").batched(size).augmented()
        return lambda: ours(net, batches)
    if name == "plain loop":
        return lambda: plain(net, data, rows, size, cell.precision)
    workers = int(name[-1])
    pixels = data.x[:n, 2:30, 2:30, 0].cpu().numpy()  # 28×28, as the transform resizes
    pictures = DataLoader(
        Pictures(np.ascontiguousarray(pixels), data.y[:n].cpu()),
        batch_size=size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    net = net.to(memory_format=torch.contiguous_format)
    return lambda: loader(net, pictures, rows.device, cell.precision)


def serve(turns: Connection, name: str, cell: Cell, n: int, size: int, device: str) -> None:
    """Run in a separate process: train for one epoch at each turn of this loop."""
    run_epoch = loop(name, cell, n, size, device)
    run_epoch()  # warm-up
    turns.send(0.0)
    while turns.recv():
        turns.send(seconds(run_epoch, device))


def seconds(run_epoch: Callable[[], None], device: str) -> float:
    """Seconds of one epoch; the device is synchronised before the clock stops."""
    start = time.perf_counter()
    run_epoch()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Measure all loops and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/")
    parser.add_argument("--runs", type=int, default=15, help="epochs of each loop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32-true")
    arguments = parser.parse_args()
    context = get_context("spawn")
    print(
        f"torch {torch.__version__}, {arguments.device}, {arguments.precision}, "
        f"{arguments.runs} runs"
    )
    for model, n, size in CASES:
        overrides = ["dataset=mnist", f"dataset.root={arguments.root}", f"model={model}"]
        (cell,) = compose.cells([[*overrides, f"precision={arguments.precision}"]])
        started = {name: Pipe() for name in LOOPS}
        turns = {name: parent_end for name, (parent_end, _) in started.items()}
        for name, (_, child_end) in started.items():
            about = (child_end, name, cell, n, size, arguments.device)
            context.Process(target=serve, args=about).start()  # daemons cannot start loader workers
            turns[name].recv()
        runs = []
        for turn in range(arguments.runs):
            first = turn % len(LOOPS)
            run = {}
            for name in LOOPS[first:] + LOOPS[:first]:
                turns[name].send(True)
                run[name] = turns[name].recv()
            runs.append(run)
        for parent_end in turns.values():
            parent_end.send(False)
        print(f"\n{model}, {n} rows an epoch in batches of {size}")
        for name in LOOPS:
            ratios = [run[name] / run["ours"] for run in runs]
            median = statistics.median(run[name] for run in runs)
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            spread = f"{middle:.2f} × ours ({low:.2f} to {high:.2f})"
            slower = f"slower in {sum(ratio > 1 for ratio in ratios)} of {len(ratios)}"
            print(f"  {name:22} {median:7.3f} s   {spread}" + (name != "ours") * f"   {slower}")


if __name__ == "__main__":
    main()
