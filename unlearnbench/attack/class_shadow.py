"""Class-wise shadow attack: do a class's posteriors look as on records a model was trained on?

Axes: M models, T targets, N records, n records of the class in some models, C classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn
from torch.optim import Adam

from unlearnbench.attack._population import Array, Mask, draws, under_attack
from unlearnbench.core.data import Batches, Dataset
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores
from unlearnbench.core.seeding import generator, seeded
from unlearnbench.metric import membership
from unlearnbench.train.loop import descend

Places = NDArray[np.intp]
Figures = dict[str, tuple[float, int]]


def class_shadow(
    predictions: Predictions, *, epochs: int, batch_size: int, lr: float, held_out: float, seed: int
) -> Scores:
    """One net for the forgotten class, learnt on shadow originals and asked about the targets.

        p = softmax(f(x)) for x of class c;   m = sigmoid(net(p)): "was trained on" if m > ½
        net: C – 256 – 128 – 1, ReLU and dropout ½ after both hidden layers; cross-entropy, Adam

    Members are a target's FORGOTTEN records, the others its UNSEEN ones. The net learns to tell
    them apart on originals that share no target's training rows. ``recall`` is the share of the
    members that it finds, ``fpr`` that of the others it takes for some. A retrained model saw
    neither, so there the AUC is ½. Graves, Nagisetty & Ganesh, "Amnesiac Machine Learning" (AAAI
    2021).

    Figures with ``_correct`` have the filter of the paper's code: a member counts only if its own
    original calls it c, among the shadow records learnt from and among those asked about, whatever
    was made of the original since; the others all count. Such a net learns to tell "still called
    c". Once the class is gone its recall is 0, for a model retrained from scratch as well, and
    where nothing is left to find its AUC need not be ½, for the filter picks the easy members.

    Targets are models of the population, on random halves as in the paper, and not the cell's own:
    that is trained on twice as many rows as a shadow model, and test rows would be its others.

    Differs: the paper gives the filtered recall alone, of one target. Here several targets make one
    pool, with an interval, and the same attack without the filter stands beside. ``held_out``
    figures are of shadow records that the net has not learnt from.

    Args:
        predictions: of a population whose targets forget one class; logits (M, Q, N, C), of which
            p is a mean over queries.
        epochs: of learning.
        batch_size: of learning.
        lr: of Adam.
        held_out: share of the shadow records that is not learnt from, in [0, 1).
        seed: of the net, its dropout, its batches and the choice of what is held out.

    The headline pool has all records. A figure of no record is NaN: of the filtered ones, where
    originals call no member c.

    Raises:
        ValueError: ``held_out`` is out of range, or logits are not finite.
        Skip: a regression, no model under attack, a forget set that is not of one class, no shadow
            model or no original of a target, or no record on a side.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"attack.call.held_out={held_out}: must be 0 or more, and below 1")
    targets_T, own_T, shadows_M = _models(predictions)
    label = _forgotten_class(predictions.status_MN[targets_T], predictions.y_N)
    known = _records(predictions, label, shadows_M, shadows_M)
    asked = _records(predictions, label, targets_T, own_T)
    asked = asked.chosen(asked.status_n != RETAINED)
    if not (known.two_sided and asked.two_sided):
        raise Skip(f"class_shadow: a side has no record of class {label}")
    settings = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    score_n, figures = _attack(known, asked, held_out, seed, settings)
    if np.isnan(score_n).any():
        raise Skip(f"class_shadow: too few shadow records of class {label} to learn from")
    _, filtered = _attack(known.filtered(), asked.filtered(), held_out, seed, settings)
    return Scores(
        metrics={
            **{f"class_shadow_{name}": told for name, told in figures.items()},
            **{f"class_shadow_{name}_correct": told for name, told in filtered.items()},
        },
        pool=[f"model {model:02d}" for model in asked.model_n],
        row=asked.row_n,
        member=asked.member_n,
        score=score_n,
    )


def _models(predictions: Predictions) -> tuple[Places, Places, Places]:
    """Places of the targets (T,), of their originals (T,), and of the shadow models (M,)."""
    targets_T, draw = under_attack(predictions), draws(predictions)
    originals = np.flatnonzero([kind == "original" for kind in predictions.kind_M])
    own = {draw[place]: place for place in originals}
    if not set(draw[targets_T]) <= own.keys():
        raise Skip("class_shadow: a model under attack has no original among the others")
    shadows_M = originals[~np.isin(draw[originals], draw[targets_T])]
    if not len(shadows_M):
        told = "all originals are those of models under attack, none is left to learn from"
        raise Skip(f"class_shadow: {told}")
    return targets_T, np.array([own[each] for each in draw[targets_T]], np.intp), shadows_M


def _forgotten_class(status_TN: NDArray[np.int8], y_N: NDArray[Any]) -> int:
    labels = np.unique(y_N[(status_TN == FORGOTTEN).any(axis=0)])
    if len(labels) != 1:
        told = f"{len(labels)} classes are to be forgotten" if len(labels) else "nothing is"
        raise Skip(f"class_shadow needs one forgotten class, as of forget=by_class: {told}")
    return int(labels[0])


@dataclass(frozen=True)
class _Records:
    """Records of the class, as some models see them."""

    p_nC: Array
    status_n: NDArray[np.int8]
    correct_n: Mask
    model_n: Places
    row_n: NDArray[np.int64]

    @property
    def member_n(self) -> Mask:
        seen_n: Mask = self.status_n != UNSEEN
        return seen_n

    @property
    def two_sided(self) -> bool:
        return bool(self.member_n.any() and not self.member_n.all())

    def chosen(self, which_n: NDArray[Any]) -> "_Records":
        return _Records(*(getattr(self, name)[which_n] for name in self.__dataclass_fields__))

    def filtered(self) -> "_Records":
        """Of the members those alone that their original calls by the class, and all others."""
        return self.chosen(self.correct_n | ~self.member_n)


def _records(predictions: Predictions, label: int, places_M: Places, own_M: Places) -> _Records:
    """Of models at some places, whose originals stand at others; model by model."""
    of_class = np.flatnonzero(predictions.y_N == label)

    def posteriors(place: int) -> Array:
        logits_QnC = predictions.logits_MQNC[place][:, of_class].astype(np.float64)
        p_nC: Array = softmax(logits_QnC, axis=-1).mean(axis=0)
        if not np.isfinite(p_nC).all():
            raise ValueError("class_shadow: logits are not finite")
        return p_nC

    return _Records(
        p_nC=np.concatenate([posteriors(place) for place in places_M]),
        status_n=predictions.status_MN[np.ix_(places_M, of_class)].ravel(),
        correct_n=np.concatenate([posteriors(own).argmax(axis=1) == label for own in own_M]),
        model_n=np.repeat(places_M, len(of_class)),
        row_n=np.tile(predictions.rows_N[of_class], len(places_M)),
    )


def _attack(
    known: _Records, asked: _Records, held_out: float, seed: int, settings: dict[str, Any]
) -> tuple[Array, Figures]:
    """Scores (n,) of the records asked about, NaN if there was nothing to learn from; figures."""
    # Sorted, so that what is learnt does not depend on the order of models and records.
    order_n = np.lexsort((known.member_n, *known.p_nC.T))
    shuffled_n = np.random.default_rng(seed).permutation(order_n)
    first = round(held_out * len(shuffled_n))
    held, learnt = (known.chosen(part) for part in (shuffled_n[:first], shuffled_n[first:]))
    if learnt.two_sided:
        net = _learnt(learnt, seed=seed, **settings)
        score_n, held_score_n = (_logit(net, one.p_nC) for one in (asked, held))
    else:
        score_n, held_score_n = (np.full(len(one.p_nC), np.nan) for one in (asked, held))
    figures = _figures(held_score_n, held.member_n)
    on_held_out = {f"held_out_{name}": told for name, told in figures.items()}
    return score_n, {**_figures(score_n, asked.member_n), **on_held_out}


def _learnt(records: _Records, *, epochs: int, batch_size: int, lr: float, seed: int) -> nn.Module:
    """The net, fitted to tell members; then in float64, so that small posteriors still differ."""
    rows_n = torch.arange(len(records.p_nC))
    data = Dataset(
        x=torch.from_numpy(records.p_nC.astype(np.float32)),
        y=torch.from_numpy(records.member_n.astype(np.int64)),
        n_classes=2,
        kind="tabular",
        train_rows=rows_n,
        test_rows=rows_n[:0],
    )
    order, noise = (generator(seed, "attack", name) for name in ("order", "augmentation"))
    batches = Batches(data, rows_n, data.y, batch_size, order, noise)
    with seeded(seed, "attack"):  # the first weights, and what is dropped out
        net = nn.Sequential(
            *(nn.Linear(records.p_nC.shape[1], 256), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(128, 1),
        )
        adam = Adam(net.parameters(), lr=lr, fused=True)
        return descend(net, batches, _loss, sgd=adam, epochs=epochs).double()


def _loss(net: nn.Module, p: Tensor, member: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(net(p).squeeze(1), member.to(p))


@torch.inference_mode()
def _logit(net: nn.Module, p_nC: Array) -> Array:
    """Log-odds (n,) of membership, which do not saturate as its probability does."""
    score_n: Array = net(torch.from_numpy(p_nC)).squeeze(1).numpy()
    if not np.isfinite(score_n).all():
        raise ValueError("class_shadow: the net has diverged; attack.call.lr must be smaller")
    return score_n


def _figures(score_n: Array, member_n: Mask) -> Figures:
    """Of the rule m > ½, log-odds above 0, and of all thresholds; NaN of no record with a score."""
    inside, outside = (score_n[side & ~np.isnan(score_n)] for side in (member_n, ~member_n))
    return {
        "recall": (_share(inside > 0), len(inside)),
        "fpr": (_share(outside > 0), len(outside)),
        "bal_acc": (membership.balanced_accuracy(inside, outside, 0.0), len(inside) + len(outside)),
        "auc": (membership.auc(inside, outside), len(inside) + len(outside)),
    }


def _share(which_n: Mask) -> float:
    return float(which_n.mean()) if len(which_n) else float("nan")
