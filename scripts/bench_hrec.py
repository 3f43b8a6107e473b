"""How long does the reconstruction attack take, and in how much memory?

    OMP_NUM_THREADS=1 python scripts/bench_hrec.py --root data [--case ridge softmax …]

Four cases, each in a separate process, from the data in memory to the figures:

    ridge        MNIST, 30,000 private and 30,000 public rows, 1,000 deletions
    softmax      the same rows, 100 deletions
    softmax_rff  4,096 Fourier features of 5,000 and 5,000 of these rows (40,970 parameters), 20
                 deletions; figures in the space of the features
    rff          ridge on 4,096 Fourier features of CIFAR-10-sized images, 25,000 and 25,000 rows,
                 100 deletions and their inversion to pixels

The images of ``rff`` are smooth random fields of 3×32×32, as the time depends only on the sizes.
Prints wall-clock and processor seconds of each stage, which differ on a shared machine, then the
peak of resident memory and the quality of the reconstructions.
"""

import argparse
import gzip
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from unlearnbench.attack import _inversion, _judged, _rank_one
from unlearnbench.convex import deletion
from unlearnbench.convex.features import median_gamma, rff
from unlearnbench.convex.objective import Array, Objective


@contextmanager
def clock(stage: str) -> Iterator[None]:
    """Print the wall-clock and processor seconds of a stage."""
    start, busy = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - start, time.process_time() - busy
    print(f"  {stage:24} {wall:7.1f} s   {cpu:7.1f} s of processor", flush=True)


def mnist(root: Path) -> tuple[Array, NDArray[np.uint8]]:
    """60,000 rows of 784 pixels in [0, 1] and their labels, in random order."""
    images, labels = (
        gzip.decompress((root / "MNIST" / "raw" / f"train-{name}-ubyte.gz").read_bytes())
        for name in ("images-idx3", "labels-idx1")
    )
    order = np.random.default_rng(0).permutation(60_000)
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)
    return x[order] / 255, np.frombuffer(labels, np.uint8, offset=8)[order]


def fields(n: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Smooth random images (n, 3072) in [0, 1] and classes: the nearest of ten random fields."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((n, 3, 32, 32), dtype=np.float32)
    smooth = gaussian_filter(noise, (0, 0, 2, 2)).reshape(n, -1)
    smooth /= smooth.std()
    means = gaussian_filter(random.standard_normal((10, 3, 32, 32)), (0, 0, 4, 4)).reshape(10, -1)
    y = (smooth @ means.T.astype(np.float32)).argmax(axis=1)
    return np.clip(0.5 + 0.25 * smooth, 0, 1), y


def attacked(x: Array, y: NDArray[np.generic], objective: Objective, deletions: int) -> None:
    """Delete rows of the first half, and reconstruct them with the second half as public data."""
    n = len(x) // 2
    with clock("training, deletions"):
        private, public = objective.features(x[:n]), objective.features(x[n:])
        t, t_public = objective.targets(y[:n], 10), objective.targets(y[n:], 10)
        changes = deletion.delete(objective, private, t, np.arange(deletions))
    with clock("reconstruction"):
        guess = _rank_one.reconstruct(objective, changes, public, t_public, label="auto")
        figures = _judged.figures(guess.x_KF, x[:deletions], x[n:])
    with clock("MaxDiff"):
        nearest = _rank_one.max_diff(objective, changes, public, space="probabilities")
    print(f"  residual                 {max(changes.residual, changes.residual_K.max()):.1e}")
    other = _judged.cosine(x[n:][nearest], x[:deletions]).mean()
    mean = _judged.cosine(x[n:].mean(axis=0)[None], x[:deletions]).mean()
    right = (guess.y_K == y[:deletions]).mean()
    print(f"  cosine                   {figures['cos'].mean():.4f}, label {right:.3f}")
    print(f"  MaxDiff, Avg             {other:.4f}, {mean:.4f}")


def ridge(root: Path) -> None:
    """One-hot ridge regression."""
    attacked(*mnist(root), Objective("squared", 1.0, "penalised", "sum"), 1000)


def softmax(root: Path) -> None:
    """Softmax regression."""
    attacked(*mnist(root), Objective("softmax", 1.0, "penalised", "sum"), 100)


def softmax_on_features(root: Path) -> None:
    """Softmax regression on an embedding; its Hessian is too large to be formed."""
    x, y = mnist(root)
    rows = torch.from_numpy(x[:10_000])
    with clock("features"):
        drawn = torch.Generator().manual_seed(0)
        embedding = rff(x.shape[1], dimension=4096, gamma=median_gamma(rows), generator=drawn)
        features = torch.cat([embedding(chunk) for chunk in rows.split(1000)]).numpy()
    attacked(features, y[:10_000], Objective("softmax", 1.0, "penalised", "sum"), 20)


def fourier(root: Path) -> None:
    """Ridge regression on an embedding; reconstructions are inverted to pixels."""
    del root
    n, deletions = 25_000, 100
    x, y = fields(2 * n)
    rows = torch.from_numpy(x)
    objective = Objective("squared", 10.0, "penalised", "sum")
    with clock("features"):
        drawn = torch.Generator().manual_seed(0)
        embedding = rff(x.shape[1], dimension=4096, gamma=median_gamma(rows), generator=drawn)
        private, public = (
            objective.features(
                torch.cat([embedding(chunk.double()) for chunk in half.split(1000)]).numpy()
            )
            for half in (rows[:n], rows[n:])
        )
    with clock("training, deletions"):
        changes = deletion.delete(
            objective, private, objective.targets(y[:n], 10), np.arange(deletions)
        )
        truth = private[:deletions, :-1].copy()
        del private
    with clock("reconstruction"):
        t_public = objective.targets(y[n:], 10)
        guess = _rank_one.reconstruct(objective, changes, public, t_public, label="auto")
    with clock("inversion"):
        embedded = torch.from_numpy(guess.x_KF).float()
        features = torch.from_numpy(public[:, :-1].astype(np.float32))
        begin = _inversion.starts(embedded, rows[n:], features, restarts=4)
        single = embedding.to(torch.float32)
        pixels, apart = _inversion.invert(single, embedded, begin, low=0.0, high=1.0, steps=500)
    figures = _judged.figures(pixels.double().numpy(), x[:deletions].astype(float), x[n:])  # type: ignore[arg-type]
    print(f"  residual                 {max(changes.residual, changes.residual_K.max()):.1e}")
    print(f"  cosine in features       {_judged.cosine(guess.x_KF, truth).mean():.4f}")
    print(f"  cosine, centred          {figures['cos'].mean():.4f}, ", end="")
    print(f"{figures['cos_centered'].mean():.4f}")
    print(f"  1 - cosine to the guess  {float(apart.mean()):.2e} (mean), {float(apart.max()):.2e}")
    print(f"  label                    {(guess.y_K == y[:deletions]).mean():.3f}")


CASES = {"ridge": ridge, "softmax": softmax, "softmax_rff": softmax_on_features, "rff": fourier}


def measured(name: str, root: Path) -> None:
    """Measure one case in this process."""
    print(name, flush=True)
    with clock("in all"):
        CASES[name](root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"  peak memory              {peak / 2**20:.2f} GB\n", flush=True)


def main() -> None:
    """Measure each case in a new process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    print(f"numpy {np.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in arguments.case:
        process = get_context("spawn").Process(target=measured, args=(name, arguments.root))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
