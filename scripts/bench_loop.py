"""How fast is the training loop? Ours, a plain PyTorch loop, and DataLoader with transforms.

    python scripts/bench_loop.py --root data

Each case trains the same net on the same MNIST rows (3×32×32, random flips, one thread on a CPU),
the loops taking turns within one run, in another order each time: short epochs and many turns,
for the machine's speed drifts. Printed are seconds an epoch (median) and ratios to ours of the runs
side by side (median, with the quartiles in brackets).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from unlearnbench import config, pipeline, train
from unlearnbench.cell import Cell
from unlearnbench.values import Batches, Compute, Dataset

CASES = [  # model, rows an epoch, batch size
    ("cnn", 1920, 64),
    ("resnet18", 768, 256),
]
MEAN, STD = 0.1307, 0.3081
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


def ours(net: nn.Module, batches: Batches) -> None:
    """The harness's own loop."""
    train.descend(net, batches, train.cross_entropy, sgd=SGD, epochs=1)


def plain(net: nn.Module, data: Dataset, rows: Tensor, size: int, precision: str) -> None:
    """A loop by hand: data in memory, channels last, normalised and flipped by the batch."""
    device = rows.device
    stepper = torch.optim.SGD(net.parameters(), **SGD, fused=True)
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
        stepper.step()
        stepper.zero_grad(set_to_none=True)


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """MNIST as torchvision gives it: one PIL image at a time, transformed one at a time."""

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


def loader(net: nn.Module, batches: DataLoader, device: torch.device, precision: str) -> None:
    """The ordinary loop over a DataLoader."""
    stepper = torch.optim.SGD(net.parameters(), **SGD)
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    net.train()
    for x, y in batches:
        x, y = x.to(device), y.to(device)
        stepper.zero_grad()
        with bf16:
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        stepper.step()


def loops(cell: Cell, n: int, size: int, device: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The loops of one case, each with a net of its own."""
    data = pipeline.dataset(cell, device)
    rows = torch.arange(n, device=data.x.device)
    parts = pipeline._batches(cell, data, rows, "retain")
    compute = Compute(str(data.x.device), cell.precision)
    batches = Batches(data, rows, data.y[rows], size, parts.order, parts.noise, compute, True)
    net = pipeline.fresh(cell, data)
    yield "ours", lambda: ours(net, batches)
    other = pipeline.fresh(cell, data)
    yield "plain loop", lambda: plain(other, data, rows, size, cell.precision)
    pixels = data.x[:n, 2:30, 2:30, 0].cpu().numpy()  # 28×28 again, to be resized by the transform
    for workers in (0, 1):
        third = pipeline.fresh(cell, data).to(memory_format=torch.contiguous_format)
        pictures = DataLoader(
            Pictures(np.ascontiguousarray(pixels), data.y[:n].cpu()),
            batch_size=size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        yield (
            f"DataLoader, workers: {workers}",
            lambda net=third, given=pictures: loader(net, given, rows.device, cell.precision),
        )


def seconds(loop: Callable[[], None], device: str) -> float:
    """One epoch, the device's queue emptied before the clock stops."""
    start = time.perf_counter()
    loop()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/")
    parser.add_argument("--runs", type=int, default=15, help="epochs of each loop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32-true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {given.device}, {given.precision}, {given.runs} runs")
    for model, n, size in CASES:
        words = ["dataset=mnist", f"dataset.root={given.root}", f"model={model}"]
        (cell,) = config.cells([[*words, f"precision={given.precision}"]])
        named = dict(loops(cell, n, size, given.device))
        for loop in named.values():  # warm-up
            loop()
        runs = []
        for turn in range(given.runs):
            order = list(named)[turn % len(named) :] + list(named)[: turn % len(named)]
            runs.append({name: seconds(named[name], given.device) for name in order})
        print(f"\n{model}, {n} rows an epoch in batches of {size}")
        for name in named:
            ratios = [run[name] / run["ours"] for run in runs]
            median = statistics.median(run[name] for run in runs)
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            spread = f"{middle:.2f} × ours ({low:.2f} to {high:.2f})"
            print(f"  {name:22} {median:7.3f} s   {spread}")


if __name__ == "__main__":
    main()
