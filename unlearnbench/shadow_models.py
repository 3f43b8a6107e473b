"""Shadow populations: what each of many models sees, and is to forget, of the records under audit.

M models are trained on the same data but for the audited records, of which each model sees some
and is asked to forget some. The models are shared by all methods and attacks. Imports no torch.

Axes: M models, N audited records.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unlearnbench.cell import NOTHING, UNTOUCHED, Cell, Option

UNSEEN, RETAINED, FORGOTTEN = 0, 1, 2


Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """The keep matrix.

    Attributes:
        rows_N: the audited records, rows of the data set.
        status_MN: UNSEEN, RETAINED or FORGOTTEN.
    """

    rows_N: Rows
    status_MN: NDArray[np.int8]

    def status_N(self, shadow: Cell) -> NDArray[np.int8]:
        """Its row for a shadow cell."""
        found: NDArray[np.int8] = self.status_MN[shadow.split["index"]]
        return found

    def of(self, rows_P: Rows) -> "Population":
        """The same draw, its records' places exchanged for the rows at them."""
        return replace(self, rows_N=rows_P[self.rows_N])


def audit_pool(train_rows: Rows, *, models: int, pool: float, seed: int) -> Population:
    """Each audited record is unseen by half of the models; of the others half must forget it.

    Balanced by record: uniform draws are ranked over the models, as in LiRA's keep matrix (Carlini
    et al., arXiv 2112.03570), here with three states.

    Args:
        train_rows: the training rows.
        models: M, a multiple of 4.
        pool: share of the training rows that is audited; all models see the others.
        seed: of the choice of records and of the matrix.

    Raises:
        ValueError: ``models`` is no multiple of 4, or ``pool`` leaves no record.
    """
    if models < 4 or models % 4:
        raise ValueError(f"attack.shadow_models.models={models}: must be a multiple of 4")
    n = round(pool * len(train_rows))
    if not 0 < n <= len(train_rows):
        share = f"audits {n} of {len(train_rows)} records"
        raise ValueError(f"attack.shadow_models.pool={pool}: {share}")
    random = np.random.default_rng(seed)
    rows_N = np.sort(random.permutation(train_rows)[:n])
    rank_MN = random.random((models, n)).argsort(axis=0).argsort(axis=0)
    status_MN = np.select([rank_MN < models // 2, rank_MN < 3 * models // 4], [0, 2], 1)
    return Population(rows_N, status_MN.astype(np.int8))


@dataclass(frozen=True)
class HalfSplits:
    """The protocol of Deep Unlearn: originals on random halves, with several forget sets each.

    ``s`` numbers the halves and ``f`` the forget sets of each:

        val = the last 5 % of permutation(123) of the training part; the others are the pool
        train_s = the first half of permutation(s) of the pool
        forget_s,f = the last tenth of permutation(f) of train_s

    Deep Unlearn (arXiv 2410.01276); on the 50,000 training images of CIFAR-10 the very rows of its
    code. All of the pool is audited.

    Attributes:
        val: validation rows.
        pool: the others, in the order of their permutation.
    """

    val: Rows
    pool: Rows

    @property
    def rows_N(self) -> Rows:
        """The audited records, rows of the data set, sorted."""
        return np.sort(self.pool)

    def train(self, s: int) -> Rows:
        """Rows that the originals of half ``s`` are trained on."""
        return np.random.default_rng(s).permutation(self.pool)[: len(self.pool) // 2]

    def forget(self, s: int, f: int) -> Rows:
        """Rows of half ``s`` that its models number ``f`` are asked to forget."""
        train = self.train(s)
        return np.random.default_rng(f).permutation(train)[len(train) - len(train) // 10 :]

    def status_N(self, shadow: Cell) -> NDArray[np.int8]:
        """The part that each audited record has for a shadow cell."""
        s, f = shadow.split["index"], shadow.forget["set"]
        seen_N, gone_N = (np.isin(self.rows_N, r) for r in (self.train(s), self.forget(s, f)))
        return np.select([gone_N, seen_N], [FORGOTTEN, RETAINED], UNSEEN).astype(np.int8)

    def of(self, rows_P: Rows) -> "HalfSplits":
        """The same draw, its records' places exchanged for the rows at them."""
        return HalfSplits(rows_P[self.val], rows_P[self.pool])


def half_splits(train_rows: Rows) -> HalfSplits:
    """Cut the training part (n,) into validation rows and pool."""
    shuffled = np.random.default_rng(123).permutation(train_rows)
    pool, val = np.split(shuffled, [len(shuffled) - len(shuffled) // 20])
    return HalfSplits(val, pool)


@dataclass(frozen=True)
class RandomHalves:
    """Originals on random halves: first the targets', then those an attacker has for himself.

        train_i = the first half of a permutation by (seed, i) of the training rows

    A target forgets what the cell's option says of its half. Graves et al., "Amnesiac Machine
    Learning" (AAAI 2021). All rows are audited, so that an original serves every forget set, and
    none depends on how many there are.

    Attributes:
        rows_N: the training rows, without the validation ones.
        seed: of all halves.
    """

    rows_N: Rows
    seed: int

    def train(self, index: int) -> Rows:
        """Rows that model ``index`` is trained on."""
        random = np.random.default_rng([self.seed, index])
        return random.permutation(self.rows_N)[: len(self.rows_N) // 2]

    def of(self, rows_P: Rows) -> "RandomHalves":
        """The same draw, its records' places exchanged for the rows at them."""
        return replace(self, rows_N=rows_P[self.rows_N])


NEEDED = {
    "audit_pool": ("models", "pool", "seed"),
    "deep_unlearn": ("splits", "forgets"),
    "random_halves": ("models", "targets", "seed"),
}
"""What is to be set for each protocol."""

COUNTS = ("models", "splits", "forgets", "targets")


def shadows(cell: Cell) -> list[Cell]:
    """The cells of the population's models under the cell's method; none without an attack on one.

    Their split names the population and the model's place in it, so that originals are trained
    once for all methods and attacks. Their seeds begin where those of a sweep do not reach.

    Raises:
        ValueError: an unknown protocol, a setting it lacks, none of something, or a seed below 0.
    """
    settings = cell.attack.get("shadow_models")
    if not settings:
        return []
    protocol = settings["protocol"]
    if protocol not in NEEDED:
        known = f"must be one of {', '.join(NEEDED)}"
        raise ValueError(f"attack.shadow_models.protocol={protocol}: {known}")
    if missing := [name for name in NEEDED[protocol] if name not in settings]:
        told = " and ".join(f"attack.shadow_models.{name}" for name in missing)
        raise ValueError(f"attack.shadow_models.protocol={protocol}: needs {told}")
    counts = {f"shadows.{name}": settings.get(name, 1) for name in COUNTS}
    for name, count in {**counts, "queries": cell.attack.get("queries", 1)}.items():
        if count < 1:
            raise ValueError(f"attack.{name}={count}: must be 1 or more")
    if settings.get("seed", 0) < 0:
        raise ValueError(f"attack.shadow_models.seed={settings['seed']}: must be 0 or more")
    if protocol == "random_halves":
        return [_member(cell, index, cell.forget) for index in range(settings["targets"])]
    forgets = settings["forgets"] if protocol == "deep_unlearn" else 1
    places = range(settings["splits" if protocol == "deep_unlearn" else "models"])
    sets = [{"name": "shadow_models", "version": 1, "call": None, "set": f} for f in range(forgets)]
    return [_member(cell, index, forget) for index in places for forget in sets]


def originals(cell: Cell) -> list[Cell]:
    """The cells of the population's originals, each once, in the order of their places.

    On random halves those of the models under attack come first, then the attacker's own.
    """
    untouched = replace(cell, method=UNTOUCHED)
    found = [one for one in shadows(untouched) if not one.forget.get("set")]
    settings = cell.attack.get("shadow_models") or {}
    own = settings["models"] if settings.get("protocol") == "random_halves" else 0
    return found + [_member(untouched, len(found) + k, cell.forget) for k in range(own)]


def _member(cell: Cell, index: int, forget: Option) -> Cell:
    """The cell's method on the model at a place in its population."""
    told = dict(cell.attack["shadow_models"])
    if told["protocol"] == "deep_unlearn":
        told = {"protocol": told["protocol"]}
    if told["protocol"] == "random_halves":
        told = {"protocol": told["protocol"], "seed": told["seed"]}
    views = {"queries": cell.attack["queries"]} if cell.attack.get("queries", 1) > 1 else {}
    return replace(
        cell,
        seed=10_000 * (cell.seed + 1) + index,
        split={**cell.split, "shadow_models": told, "index": index},
        forget=forget,
        attack={**NOTHING, **views},
        defense=NOTHING,
        overrides="",
    )
