"""The reference numbers of the reconstruction attack, ours beside the expected ones.

    python tests/attack/test_hrec_reference.py        prints them as a Markdown table

Cosines are held to ±.01 and shares of right labels to ±.05. The data are scikit-learn's digits
divided by 16, in the order of ``default_rng(0)``; private are the first n rows, public the next m.
How many deletions a row averages was not written down where it is not 100: it is the number at
which the row's Avg, which needs no model, comes out to three digits (40 for softmax and the small
embedding, 15 for the large one). No Avg is known for the mean form: it has 100.
"""

import sys
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits

from unlearnbench.attack import _inversion, _judged, _rank_one
from unlearnbench.convex import deletion
from unlearnbench.convex.deletion import Deletions
from unlearnbench.convex.features import rff
from unlearnbench.convex.objective import Array, Objective

Numbers = dict[str, float]


@cache
def digits() -> tuple[Array, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order] / 16, y[order]


def judged(objective: Objective, found: Deletions, features: Array, m: int) -> Numbers:
    """Guesses from public features, in the space of the features, and the baselines in pixels."""
    (x, y), n, k = digits(), found.n, len(found.rows_K)
    shown, t = objective.features(features[n : n + m]), objective.targets(y[n : n + m], 10)
    guess = _rank_one.reconstruct(objective, found, shown, t, label="auto")
    nearest = _rank_one.max_diff(objective, found, shown, space="probabilities")
    cos = _judged.cosine(guess.x_KF, features[:k])
    return {
        "mean": cos.mean(),
        "median": float(np.median(cos)),
        "avg": _judged.cosine(x[n : n + m].mean(axis=0)[None], x[:k]).mean(),
        "max_diff": _judged.cosine(x[n : n + m][nearest], x[:k]).mean(),
        "label": (guess.y_K == y[:k]).mean(),
    }


@cache
def linear(loss: str, lam: float, m: int, k: int, form: str = "sum") -> Numbers:
    x, y = digits()
    objective = Objective(loss, lam, "penalised", form)
    t = objective.targets(y[:800], 10)
    found = deletion.delete(objective, objective.features(x[:800]), t, np.arange(k))
    return judged(objective, found, x, m)


@cache
def private(loss: str, lam: float, k: int) -> Numbers:
    """The sum over all private rows, of weight 1 each, in the place of the public estimate."""
    x, y = digits()
    objective = Objective(loss, lam, "penalised", "sum")
    features, t = objective.features(x[:800]), objective.targets(y[:800], 10)
    found = deletion.delete(objective, features, t, np.arange(k))
    curved = objective.hessian_product(found.theta_PC, features, t, found.delta_KPC)
    g = curved + lam * found.delta_KPC
    guess = _rank_one.read(objective, found, features, g, label="auto")
    return {"min": _judged.cosine(guess.x_KF, x[:k]).min()}


@cache
def diabetes(lam: float) -> Numbers:
    """Targets from the private covariance C₊: t̂ = θ₋ᵀx̂̃ − ĝ_last."""
    x, y = load_diabetes(return_X_y=True)
    objective = Objective("squared", lam, "penalised", "sum")
    features, t = objective.features(x), objective.targets((y - y.mean()) / y.std(), 0)
    found = deletion.delete(objective, features, t, np.arange(100))
    curved = objective.hessian_product(found.theta_PC, features, t, found.delta_KPC)
    g = curved + lam * found.delta_KPC
    guess = _rank_one.read(objective, found, features, g, label="auto")
    x_KP = objective.features(guess.x_KF)
    y_K = np.einsum("kp,kpc->k", x_KP, found.theta_PC + found.delta_KPC) - g[:, -1, 0]
    return {
        "min": _judged.cosine(guess.x_KF, x[:100]).min(),
        "label error": float(abs(y_K - t[:100, 0]).max()),
    }


@cache
def without_correction(k: int) -> Numbers:
    x, y = digits()
    mean = Objective("softmax", 1 / 800, "penalised", "mean")
    features, t = mean.features(x[:800]), mean.targets(y[:800], 10)
    found = deletion.delete(mean, features, t, np.arange(k))
    return judged(Objective("softmax", 799 / 800, "penalised", "sum"), found, x, 800)


@cache
def fourier(dimension: int, lam: float, k: int, intercept: str, seed: int = 0) -> Numbers:
    x, y = digits()
    drawn = torch.Generator().manual_seed(seed)
    embedding = rff(64, dimension=dimension, gamma=0.05, generator=drawn)
    phi = embedding(torch.from_numpy(x[:1700])).numpy()
    objective = Objective("squared", lam, intercept, "sum")
    t = objective.targets(y[:800], 10)
    found = deletion.delete(objective, objective.features(phi[:800]), t, np.arange(k))
    numbers = judged(objective, found, phi, 900)
    shown = objective.features(phi[800:1700])
    g = _rank_one.gradient(objective, found, shown, objective.targets(y[800:1700], 10))
    embedded = _rank_one.read(objective, found, shown, g, label="auto").x_KF
    numbers["x"] = inverted(embedding, embedded, phi, k)
    if intercept == "none":  # the largest entry of v is taken for the label, and gives the sign
        u, _, v = np.linalg.svd(g, full_matrices=False)
        largest = np.take_along_axis(v[:, 0], abs(v[:, 0]).argmax(axis=1)[:, None], axis=1)
        by_label = -np.sign(largest) * u[:, :, 0]
        numbers["phi by label"] = _judged.cosine(by_label, phi[:k]).mean()
        numbers["x by label"] = inverted(embedding, by_label, phi, k)
    return numbers


def inverted(embedding: Callable, embedded: Array, phi: Array, k: int) -> float:
    x, _ = digits()
    goal, shown = torch.from_numpy(embedded).float(), torch.from_numpy(x[800:1700]).float()
    begin = _inversion.starts(goal, shown, torch.from_numpy(phi[800:1700]).float(), restarts=4)
    single = embedding.to(torch.float32)
    found, _ = _inversion.invert(single, goal, begin, low=0.0, high=1.0, steps=500)
    return float(_judged.cosine(found.double().numpy(), x[:k]).mean())


@cache
def gaussian(n: int) -> Numbers:
    random = np.random.default_rng(0)
    x = random.normal(size=(2 * n, 50))
    y = x @ random.normal(size=50) + random.normal(size=2 * n)
    objective = Objective("squared", 1e-3, "penalised", "sum")
    t = objective.targets(y, 0)
    features = objective.features(x)
    found = deletion.delete(objective, features[:n], t[:n], np.arange(100))
    guess = _rank_one.reconstruct(objective, found, features[n:], t[n:], label="auto")
    return {"mean": _judged.cosine(guess.x_KF, x[:100]).mean()}


NOT_MET = {
    ("mean form λ'=1/800, without −λ'θ₊", "mean"): "the term is worth .002 here, not .012",
    (
        "RFF D=4096 λ=.1 no intercept, sign by largest v",
        "phi by label",
    ): "a count of signs, by chance",
    (
        "RFF D=4096 λ=.1 no intercept, sign by largest v",
        "x by label",
    ): "a count of signs, by chance",
}
CASES: list[tuple[str, Callable[[], Numbers], Numbers]] = [
    *[
        (f"exact C₊, ridge λ={lam:g}", lambda lam=lam: private("squared", lam, 100), {"min": 1.0})
        for lam in (1e-3, 1.0, 100.0)
    ],
    *[
        (f"exact C₊, diabetes λ={lam:g}", lambda lam=lam: diabetes(lam), {"label error": 0.0})
        for lam in (1e-3, 1.0, 100.0)
    ],
    *[
        (
            f"ridge n=800 m={m} λ={lam:g}",
            lambda lam=lam, m=m: linear("squared", lam, m, 100),
            dict(zip(("mean", "median", "avg", "max_diff", "label"), expected, strict=True)),
        )
        for m, lam, expected in (
            (800, 1e-3, (0.960, 0.979, 0.831, 0.894, 0.80)),
            (800, 1.0, (0.971, 0.984, 0.831, 0.922, 0.86)),
            (800, 100.0, (0.997, 0.998, 0.831, 0.943, 1.00)),
            (200, 1.0, (0.924, 0.961, 0.831, 0.880, 0.86)),
            (100, 1.0, (0.825, 0.930, 0.830, 0.864, 0.82)),
        )
    ],
    *[
        (
            f"softmax n=m=800 λ={lam:g}, 40 deletions",
            lambda lam=lam: linear("softmax", lam, 800, 40),
            dict(zip(("mean", "median", "avg", "max_diff", "label"), expected, strict=True)),
        )
        for lam, expected in (
            (0.1, (0.927, 0.951, 0.828, 0.843, 0.95)),
            (1.0, (0.954, 0.988, 0.828, 0.873, 0.975)),
            (10.0, (0.996, 0.997, 0.828, 0.929, 1.00)),
        )
    ],
    *[
        (
            f"softmax λ={lam:g}, private Hessian, 40 deletions",
            lambda lam=lam: private("softmax", lam, 40),
            {"min": 0.9997},
        )
        for lam in (0.1, 1.0, 10.0)
    ],
    (
        "mean form λ'=1/800, with −λ'θ₊",
        lambda: linear("softmax", 1 / 800, 800, 100, "mean"),
        {"mean": 0.964},
    ),
    ("mean form λ'=1/800, without −λ'θ₊", lambda: without_correction(100), {"mean": 0.952}),
    (
        "RFF D=1024 γ=.05 λ=10 m=900, 40 deletions",
        lambda: fourier(1024, 10.0, 40, "penalised"),
        {"mean": 0.998, "x": 0.999, "avg": 0.828, "max_diff": 0.949, "label": 1.00},
    ),
    (
        "RFF D=4096 λ=.1 no intercept, sign by largest v",
        lambda: fourier(4096, 0.1, 15, "none"),
        {"phi by label": -0.03, "x by label": 0.57, "avg": 0.815, "max_diff": 0.948},
    ),
    ("Gaussian d=50 n=m=20000", lambda: gaussian(20_000), {"mean": 0.9976}),
    ("Gaussian d=50 n=m=2000", lambda: gaussian(2000), {"mean": 0.9756}),
]


def close(name: str, ours: float, expected: float) -> bool:
    if name == "min":
        return ours >= expected - 1e-9
    tolerance = {"label": 0.05, "label error": 1e-11}.get(name, 0.01)
    return abs(ours - expected) <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(
            number,
            name,
            id=f"{title}: {name}",
            marks=[pytest.mark.xfail(reason=NOT_MET[title, name], strict=True)]
            if (title, name) in NOT_MET
            else [],
        )
        for number, (title, _, expected) in enumerate(CASES)
        for name in expected
    ],
)
def test_reference(case: int, name: str) -> None:
    _, made, expected = CASES[case]
    assert close(name, made()[name], expected[name]), f"{made()[name]:.4f} for {expected[name]}"


@pytest.mark.slow
def test_what_holds_where_the_numbers_are_not_met() -> None:
    for k in (25, 40, 100):
        with_it = linear("softmax", 1 / 800, 800, k, "mean")["mean"]
        assert with_it > without_correction(k)["mean"] + 0.001
    for seed in range(3):
        found = fourier(4096, 0.1, 15, "none", seed)
        assert abs(found["phi by label"]) < 0.5, "signs by label are a toss-up"
        assert found["x by label"] < found["avg"]
        assert found["x"] > found["max_diff"] + 0.02, "signs by the public mean are right"


def lines() -> Iterator[str]:
    """All rows, in Markdown."""
    yield "| case | number | expected | ours | |"
    yield "|---|---|---|---|---|"
    for title, made, expected in CASES:
        for name, value in expected.items():
            ours = made()[name]
            shown = f"{ours:.1e}" if name == "label error" else f"{ours:.4f}"
            met = "" if close(name, ours, value) else f"**not met**: {NOT_MET.get((title, name))}"
            yield f"| {title} | {name} | {value:g} | {shown} | {met} |"
    yield ""
    for k in (40, 60, 100):
        pair = linear("softmax", 1 / 800, 800, k, "mean")["mean"], without_correction(k)["mean"]
        yield f"mean form, {k} deletions: with {pair[0]:.4f}, without {pair[1]:.4f}"
    for seed in range(3):
        found = fourier(4096, 0.1, 15, "none", seed)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        yield f"RFF D=4096, seed {seed}: {shown}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines())
