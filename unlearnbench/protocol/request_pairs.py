"""Many small originals with some deletion requests each, for attacks on two outputs.

One half is the attacker's own (shadow), the other under attack (target); the halves share no
record. Chen et al., "When Machine Unlearning Jeopardizes Privacy" (CCS 2021, arXiv 2005.02205).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.cell import NOTHING, ORIGINAL, Cell, Written, written
from unlearnbench.core.outputs import FORGOTTEN, RETAIN, RETAINED, UNSEEN, Predictions
from unlearnbench.protocol._member import Arrays, Figures, Member, Models, Records, Rows, Subsets
from unlearnbench.protocol._outliers import outlier_figures

HALVES = ("shadow", "target")


@dataclass(frozen=True)
class Pools:
    """The records of one half, by what they may become.

    Attributes:
        positive: of these the training sets are drawn.
        negative: in no training set, the unseen records.
        replacement: what is learned instead of deleted records, in online learning.
    """

    positive: Rows
    negative: Rows
    replacement: Rows


@dataclass(frozen=True)
class Request:
    """One deletion: the rows to delete, and the rows whose outputs the attacker reads.

    Attributes:
        forget: rows to delete (k,), in the order of their drawing.
        retained: a row (1,) that stays.
        unseen: rows (k,) that are in no training set.
        added: rows learned instead, (k,) in online learning, else (0,).
    """

    forget: Rows
    retained: Rows
    unseen: Rows
    added: Rows

    @property
    def queries(self) -> Rows:
        """The rows (2k + 1,) queried before and after: forget, retained, unseen."""
        return np.concatenate([self.forget, self.retained, self.unseen])


def pools(rows: Rows, half: str) -> Pools:
    """Random halves; of each 80 % positive; of the rest 85 % negative, 15 % replacement.

    With the seeds of the paper's code where it has some.

    Args:
        rows: all records that models may be trained on or queried with.
        half: ``shadow`` or ``target``.
    """
    middle = len(rows) // 2
    shuffled = np.random.default_rng(100).permutation(rows)
    own = {"shadow": shuffled[:middle], "target": shuffled[middle:]}[half]
    positive, rest = np.split(own, [round(0.8 * len(own))])
    negative, replacement = np.split(rest, [round(0.85 * len(rest))])
    return Pools(positive, negative, replacement)


@dataclass(frozen=True)
class RequestPair(Member):
    """The cell of one request to an original, or of the original itself (``forget=none``)."""

    protocol: ClassVar[str] = "request_pairs"
    shares_preparation: ClassVar[bool] = True

    @classmethod
    def models(cls, cell: Cell) -> list["RequestPair"]:
        """The cells of all requests: first the shadow half's, then the target's, by original.

        Their split names the half and the original's place in it, so that originals are shared by
        all methods and all kinds of requests. The shadow half is of another data set or model where
        ``cell.shadow`` says so: transfer.

        Raises:
            ValueError: there is no original, or no request to one, or the seed is below 0.
        """
        settings = cell.attack[cls.protocol]
        for name in ("originals", "requests"):
            if settings[name] < 1:
                raise ValueError(f"attack.request_pairs.{name}={settings[name]}: must be 1 or more")
        if settings["seed"] < 0:
            raise ValueError(f"attack.request_pairs.seed={settings['seed']}: must be 0 or more")
        drawn = {key: settings[key] for key in ("size", "seed")}
        request = {key: settings[key] for key in ("deletions", "online")}
        base = {"target": cell, "shadow": cell.attackers()}
        forget = {"name": "request", "version": 1, "call": None}
        return [
            cls.of(
                base[half],
                seed=_seed(cell, half, index),
                split={**cell.split, cls.protocol: drawn, "half": half, "index": index},
                forget={**forget, "request": number, **request},
            )
            for half in HALVES
            for index in range(settings["originals"])
            for number in range(settings["requests"])
        ]

    @classmethod
    def needed(cls, cell: Cell) -> Iterator[Cell]:
        """Originals, retraining for each request, and the method on it."""
        for member in cls.models(cell):
            yield member.original()
            yield replace(member, method=cell.reference)
            if not cell.is_original:
                yield member

    def key_parts(self) -> list[Written | str]:
        """The outputs include those of the original before the request, which has its own seed."""
        return [written(self.forget), self._original_key_under(ORIGINAL)]

    def original(self) -> "RequestPair":
        """The cell of the original before the request."""
        return replace(self, method=ORIGINAL, forget=NOTHING)

    @property
    def start(self) -> "RequestPair | None":
        """The original, before any request to it, whatever the method starts from."""
        return None if self.is_original else self.original()

    def stored_models(self) -> list[Cell]:
        """Of an ensemble also the ensemble before the request."""
        return [self, *([self.before()] if self.traits.get("ensemble") else [])]

    def before(self) -> "RequestPair":
        """The cell of the model before the request.

        A method whose models are ensembles had an ensemble before the request too: it has deleted
        nothing.
        """
        return replace(self, forget=NOTHING) if self.traits.get("ensemble") else self.original()

    def pools(self, records: Records) -> Pools:
        """The records of the cell's half: all of the data set but the validation rows."""
        return pools(np.concatenate([records.kept, records.test]), self.split["half"])

    def training_rows(self, own: Pools) -> Rows:
        """D_i: the rows that the cell's original is trained on, in the order of their drawing.

        Raises:
            ValueError: there are not enough of them.
        """
        size, n = self.split[self.protocol]["size"], len(own.positive)
        if not 0 < size <= n:
            raise ValueError(f"attack.request_pairs.size={size}: must be between 1 and {n} here")
        rows: Rows = self._random().permutation(own.positive)[:size]
        return rows

    def request(self, own: Pools) -> Request:
        """U_ij and what is queried beside it; a cell's request is one of its original's.

        Unseen records are drawn with replacement, as in the paper's code.

        Raises:
            ValueError: more is to be deleted than was trained on, or added than there is.
        """
        k, trained = self.forget["deletions"], self.training_rows(own)
        if not 0 < k < len(trained):
            most = len(trained) - 1
            raise ValueError(f"attack.request_pairs.deletions={k}: must be between 1 and {most}")
        if self.forget["online"] and k > len(own.replacement):
            limit = f"online learning has {len(own.replacement)} new records here"
            raise ValueError(f"attack.request_pairs.deletions={k}: {limit}")
        random = self._random(self.forget["request"], k)
        order = random.permutation(trained)
        added = random.permutation(own.replacement)[:k]
        return Request(
            forget=order[:k],
            retained=order[k : k + 1],
            unseen=random.choice(own.negative, k),
            added=added if self.forget["online"] else added[:0],
        )

    def _random(self, *purpose: int) -> np.random.Generator:
        seed, half = self.split[self.protocol]["seed"], HALVES.index(self.split["half"])
        return np.random.default_rng([seed, half, self.split["index"], *purpose])

    def parts(self, records: Records) -> Subsets:
        """The original's few rows, in the order of their drawing, and the request's."""
        own = self.pools(records)
        train = self.training_rows(own)
        if "request" not in self.forget:
            return Subsets(train, records.val, own.negative, train[:0])
        request = self.request(own)
        train = np.concatenate([train, request.added])
        return Subsets(train, records.val, own.negative, request.forget)

    def predict(self, models: Models) -> Arrays:
        """Before and after a request; or of an original, on rows it was and was not trained on."""
        own = self.pools(models.records(self))
        before = models.unlearned(self.before())
        if "request" not in self.forget:
            trained = self.training_rows(own)
            rows_N = np.concatenate([trained, own.negative[: len(trained)]])
            return {
                "logits_NC": models.logits(before, self, rows_N),
                "trained_N": np.arange(len(rows_N)) < len(trained),
                "y_N": models.labels(self, rows_N),
            }
        rows_N, k = self.request(own).queries, self.forget["deletions"]
        nets = before, models.ephemeral(self)
        return {
            "logits_2NC": np.stack([models.logits(net, self, rows_N) for net in nets]),
            "y_N": models.labels(self, rows_N),
            "rows_N": rows_N,
            "status_N": np.array([FORGOTTEN] * k + [RETAINED] + [UNSEEN] * k, np.int8),
        }

    @classmethod
    def gather(cls, cell: Cell, models: Models) -> tuple[list[Any], Figures]:
        """Outputs before and after each request, of the target half and of the shadow half.

        The original compared with itself needs no models of its own: its requests are those of
        retraining, without what became of them.
        """
        members = cls.models(replace(cell, method=cell.reference) if cell.is_original else cell)
        by_half = {
            half: [member for member in members if member.split["half"] == half] for half in HALVES
        }
        inputs = [_joined(cell, by_half[half], models) for half in ("target", "shadow")]
        return inputs, _accuracies(by_half["target"], models)


def _joined(cell: Cell, members: list[RequestPair], models: Models) -> Predictions:
    """The outputs of some requests as one table."""
    each = [models.outputs(member) for member in members]
    joined = {
        name: np.concatenate([arrays[name] for arrays in each], axis=int(name == "logits_2NC"))
        for name in each[0]
    }
    logits_2NC = joined["logits_2NC"][[0, 0] if cell.is_original else [0, 1]]
    places = np.array([[member.split["index"], member.forget["request"]] for member in members])
    model_N, request_N = np.repeat(places, [len(arrays["y_N"]) for arrays in each], axis=0).T
    trained_N = np.where(joined["status_N"] == UNSEEN, UNSEEN, RETAINED)
    return Predictions(
        logits_MQNC=logits_2NC[:, None],
        y_N=joined["y_N"],
        rows_N=joined["rows_N"],
        split_N=np.full(len(joined["y_N"]), RETAIN, np.int8),
        status_MN=np.stack([trained_N, joined["status_N"]]).astype(np.int8),
        kind_M=("original", cell.kind),
        parent_M=(-1, 0),
        audited_M=(False, True),
        model_N=model_N,
        request_N=request_N,
    )


def _accuracies(members: list[RequestPair], models: Models) -> Figures:
    """Accuracy of the targets' originals on training rows, and on as many rows never seen.

    The attack lives on what lies between: Chen et al. (2005.02205) blame overfitting.
    """
    originals = {member.original().predictions_key: member.original() for member in members}
    right: dict[bool, list[NDArray[np.bool_]]] = {True: [], False: []}
    for original in originals.values():
        arrays = models.outputs(original)
        right_N = arrays["logits_NC"].argmax(axis=1) == arrays["y_N"]
        for is_trained, parts in right.items():
            parts.append(right_N[arrays["trained_N"] == is_trained])
    accuracies_M = np.array([right_N.mean() for right_N in right[False]])
    pooled = {
        "request_pairs_train_acc": np.concatenate(right[True]),
        "request_pairs_test_acc": np.concatenate(right[False]),
    }
    figures = {name: (float(right_N.mean()), len(right_N)) for name, right_N in pooled.items()}
    return {**figures, **outlier_figures("request_pairs", [accuracies_M])}


def _seed(cell: Cell, half: str, index: int) -> int:
    """Where neither a sweep's seeds reach, nor those of shadow models."""
    return 10_000 * (cell.seed + 1) + 5_000 + 2_000 * HALVES.index(half) + index
