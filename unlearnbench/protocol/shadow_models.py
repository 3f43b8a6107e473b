"""Shadow models: what each of many models sees, and is to forget, of the records under audit.

M models are trained on the same data but for the audited records, of which each model sees some
and is asked to forget some. The models are shared by all methods and attacks.

Axes: M models, N audited records.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.cell import NOTHING, ORIGINAL, Cell, Option
from unlearnbench.core.outputs import FORGOTTEN, RETAIN, RETAINED, UNSEEN, Predictions
from unlearnbench.protocol._member import Arrays, Figures, Member, Models, Records, Rows, Subsets
from unlearnbench.protocol._outliers import outlier_figures


@dataclass(frozen=True)
class AuditPool:
    """The keep matrix.

    Attributes:
        rows_N: the audited records, rows of the data set.
        status_MN: UNSEEN, RETAINED or FORGOTTEN.
    """

    rows_N: Rows
    status_MN: NDArray[np.int8]

    def parts(self, model: Cell, records: Records) -> Subsets:
        """All rows but the audited ones that the model's line of the matrix leaves out."""
        status_N = self.status_MN[model.split["index"]]
        unseen, forget = (self.rows_N[status_N == part] for part in (UNSEEN, FORGOTTEN))
        train = records.kept[~np.isin(records.kept, unseen)]
        return Subsets(train, records.val, records.test, forget)

    def at(self, rows_P: Rows) -> "AuditPool":
        """The same draw, its records' places exchanged for the rows at them."""
        return replace(self, rows_N=rows_P[self.rows_N])


def audit_pool(train_rows: Rows, *, models: int, pool: float, seed: int) -> AuditPool:
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
    return AuditPool(rows_N, status_MN.astype(np.int8))


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

    def parts(self, model: Cell, records: Records) -> Subsets:
        """The model's half, and its own validation rows."""
        s, f = model.split["index"], model.forget["set"]
        # The order is that of the audited records, which training shuffles.
        train = self.rows_N[np.isin(self.rows_N, self.train(s))]
        forget = self.rows_N[np.isin(self.rows_N, self.forget(s, f))]
        return Subsets(train, self.val, records.test, forget)

    def at(self, rows_P: Rows) -> "HalfSplits":
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

    def parts(self, model: Cell, records: Records) -> Subsets:
        """The model's half; it forgets what the cell's option chooses of it."""
        train = self.train(model.split["index"])
        return Subsets(train, records.val, records.test, records.forget(train))

    def at(self, rows_P: Rows) -> "RandomHalves":
        """The same draw, its records' places exchanged for the rows at them."""
        return replace(self, rows_N=rows_P[self.rows_N])


NEEDED = {
    "audit_pool": ("models", "pool", "seed"),
    "deep_unlearn": ("splits", "forgets"),
    "random_halves": ("models", "targets", "seed"),
}
"""What is to be set for each protocol."""

COUNTS = ("models", "splits", "forgets", "targets")


@dataclass(frozen=True)
class ShadowModel(Member):
    """The cell of a model at a place among the shadow models."""

    protocol: ClassVar[str] = "shadow_models"

    @classmethod
    def models(cls, cell: Cell) -> list["ShadowModel"]:
        """The cells of the shadow models under the cell's method.

        Their split names the draw and the model's place in it, so that originals are trained once
        for all methods and attacks. Their seeds begin where those of a sweep do not reach.

        Raises:
            ValueError: an unknown draw, a setting that it lacks, none of something, or a seed below
                0.
        """
        settings = cell.attack[cls.protocol]
        draw = settings["protocol"]
        if draw not in NEEDED:
            valid = f"must be one of {', '.join(NEEDED)}"
            raise ValueError(f"attack.shadow_models.protocol={draw}: {valid}")
        if missing := [name for name in NEEDED[draw] if name not in settings]:
            names = " and ".join(f"attack.shadow_models.{name}" for name in missing)
            raise ValueError(f"attack.shadow_models.protocol={draw}: needs {names}")
        counts = {f"shadow_models.{name}": settings.get(name, 1) for name in COUNTS}
        for name, count in {**counts, "queries": cell.attack.get("queries", 1)}.items():
            if count < 1:
                raise ValueError(f"attack.{name}={count}: must be 1 or more")
        if settings.get("seed", 0) < 0:
            raise ValueError(f"attack.shadow_models.seed={settings['seed']}: must be 0 or more")
        if draw == "random_halves":
            return [cls.at(cell, index, cell.forget) for index in range(settings["targets"])]
        forgets = settings["forgets"] if draw == "deep_unlearn" else 1
        places = range(settings["splits" if draw == "deep_unlearn" else "models"])
        option = {"name": cls.protocol, "version": 1, "call": None}
        sets = [{**option, "set": number} for number in range(forgets)]
        return [cls.at(cell, index, forget) for index in places for forget in sets]

    @classmethod
    def originals(cls, cell: Cell) -> list["ShadowModel"]:
        """The cells of the originals, each once, in the order of their places.

        On random halves those of the models under attack come first, then the attacker's own.
        """
        is_original = replace(cell, method=ORIGINAL)
        shared = [model for model in cls.models(is_original) if not model.forget.get("set")]
        settings = cell.attack[cls.protocol]
        own = settings["models"] if settings["protocol"] == "random_halves" else 0
        return shared + [cls.at(is_original, len(shared) + k, cell.forget) for k in range(own)]

    @classmethod
    def at(cls, cell: Cell, index: int, forget: Option) -> "ShadowModel":
        """The cell's method on the model at a place."""
        settings = dict(cell.attack[cls.protocol])
        if settings["protocol"] == "deep_unlearn":
            settings = {"protocol": settings["protocol"]}
        if settings["protocol"] == "random_halves":
            settings = {"protocol": settings["protocol"], "seed": settings["seed"]}
        views = {"queries": cell.attack["queries"]} if cell.attack.get("queries", 1) > 1 else {}
        return cls.of(
            cell,
            seed=10_000 * (cell.seed + 1) + index,
            split={**cell.split, cls.protocol: settings, "index": index},
            forget=forget,
            attack={**NOTHING, **views},
        )

    @classmethod
    def needed(cls, cell: Cell) -> Iterator[Cell]:
        """The originals, then each model retrained and under the method."""
        yield from cls.originals(cell)
        yield from super().needed(cell)

    def draw(self, records: Records) -> "Draw":
        """The records under audit, and what each model sees of them."""
        settings = json.dumps(self.split[self.protocol], sort_keys=True)
        draw = _draw(settings, len(records.train), records.places.tobytes())
        return draw.at(records.train)

    def parts(self, records: Records) -> Subsets:
        """Which rows do what: the audited records that the model does not see are in no part."""
        return self.draw(records).parts(self, records)

    def status_N(self, records: Records) -> NDArray[np.int8]:
        """The part (N,) that each audited record has for this model."""
        rows_N, parts = self.draw(records).rows_N, self.parts(records)
        is_forgotten_N, is_seen_N = np.isin(rows_N, parts.forget), np.isin(rows_N, parts.train)
        statuses = [is_forgotten_N, is_seen_N], [FORGOTTEN, RETAINED]
        return np.select(*statuses, UNSEEN).astype(np.int8)

    def predict(self, models: Models) -> Arrays:
        """Outputs on views (Q, N, C) of the audited records."""
        rows_N = self.draw(models.records(self)).rows_N
        logits_QNC = models.views(models.ephemeral(self), self, rows_N)
        return {"logits_QNC": logits_QNC, "y_N": models.labels(self, rows_N)}

    @classmethod
    def gather(cls, cell: Cell, models: Models) -> tuple[list[Any], Figures]:
        """The outputs of all models on the audited records.

        First the models under the cell's method, which are under attack; then, to compare with, the
        originals and the retrained models, unless it is they that are under attack.
        """
        audited = cls.models(cell)
        keys = {model.model_key for model in audited}
        others = [model for model in cls.originals(cell) if model.model_key not in keys]
        if cell.method != cell.reference:
            others += cls.models(replace(cell, method=cell.reference))
        every, records = [*audited, *others], models.records(audited[0])
        outputs = [models.outputs(model) for model in every]
        parents = [
            len(audited) + model.split["index"] if model.kind == "unlearned" else -1
            for model in every
        ]
        rows_N = audited[0].draw(records).rows_N
        predictions = Predictions(
            logits_MQNC=np.stack([arrays["logits_QNC"] for arrays in outputs]),
            y_N=outputs[0]["y_N"],
            rows_N=rows_N,
            split_N=np.full(len(rows_N), RETAIN, np.int8),
            status_MN=np.stack([model.status_N(records) for model in every]),
            kind_M=tuple(model.kind for model in every),
            parent_M=tuple(parents),
            audited_M=tuple(place < len(audited) for place in range(len(every))),
        )
        return [predictions], accuracies(predictions)


Draw = AuditPool | HalfSplits | RandomHalves


@lru_cache(maxsize=2)
def _draw(settings: str, n: int, places: bytes) -> Draw:
    """Over the places 0..n-1 of the training part, of which those in ``places`` may be audited."""
    # Settings and places as text and bytes: a cache needs what can be hashed.
    arguments = json.loads(settings)
    name = arguments.pop("protocol")
    if name == "deep_unlearn":
        return half_splits(np.arange(n))
    rows = np.frombuffer(places, np.int64)
    if name == "random_halves":
        return RandomHalves(np.sort(rows), **arguments)
    return audit_pool(rows, **arguments)


def accuracies(predictions: Predictions) -> Figures:
    """How accurate trained models are on the audited records that they never saw.

    A training that went wrong distorts what an attack finds in all the others: models far below
    the rest of their kind are counted as ``shadow_models_outliers`` (``low_outliers``).
    """
    right_MN = predictions.logits_MQNC[:, 0].argmax(2) == predictions.y_N
    accuracies_M = np.ma.masked_array(right_MN, predictions.status_MN != UNSEEN).mean(axis=1)
    kinds_M = np.array(predictions.kind_M)
    of_kind = [accuracies_M[kinds_M == kind].compressed() for kind in ("original", "retrained")]
    return outlier_figures("shadow_models", of_kind)
