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
    """Train one membership classifier for the forgotten class on shadow originals.

        p = softmax(f(x)) for x of class c;   m = sigmoid(net(p)): "was trained on" if m > ½
        net: C – 256 – 128 – 1, ReLU and dropout ½ after both hidden layers; cross-entropy, Adam

    Members are the FORGOTTEN records of a target, non-members its UNSEEN ones. The net is trained
    on originals that share no target's training rows. ``recall`` is the share of members classified
    as members, ``fpr`` the share of non-members classified as members. A retrained model has seen
    neither, so its AUC is ½. Graves, Nagisetty & Ganesh, "Amnesiac Machine Learning" (AAAI 2021).

    Metrics with ``_correct`` use the filter of the paper's code: a member counts only if its
    original predicts class c, both among the shadow records and among the target records, whatever
    the unlearned model predicts; all non-members count. This net learns to detect "still predicted
    as c". Without the class its recall is 0, also for a model retrained from scratch, and without
    any leakage its AUC need not be ½, because the filter selects the easy members.

    The targets are shadow models on random halves of the rows, as in the paper. The model of the
    cell is no target: it is trained on twice as many rows, and its non-members would be test rows.

    Differs: the paper reports the filtered recall of one target. Here several targets form one
    pool, with an interval, and the unfiltered attack is reported too. ``held_out`` metrics are
    computed on shadow records that are not used for training.

    Args:
        predictions: predictions of shadow models whose targets forget one class; logits
            (M, Q, N, C), p is a mean over queries.
        epochs: epochs of training.
        batch_size: batch size of training.
        lr: learning rate of Adam.
        held_out: share of the shadow records that is not used for training, in [0, 1).
        seed: seed of the net, its dropout, its batches and the held-out records.

    The headline pool has all records. A metric without records is NaN, for example a filtered one
    if the originals predict c for no member.

    Raises:
        ValueError: ``held_out`` is out of range, or logits are not finite.
        Skip: a regression, no model under attack, a forget set that is not of one class, no shadow
            model, no original of a target, or no record on a side.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"attack.call.held_out={held_out}: must be 0 or more, and below 1")
    targets_T, own_T, shadows_M = _models(predictions)
    label = _forgotten_class(predictions.status_MN[targets_T], predictions.y_N)
    shadow = _records(predictions, label, shadows_M, shadows_M)
    target = _records(predictions, label, targets_T, own_T)
    target = target.chosen(target.status_n != RETAINED)
    if not (shadow.two_sided and target.two_sided):
        raise Skip(f"class_shadow: a side has no record of class {label}")
    settings = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    score_n, figures = _attack(shadow, target, held_out, seed, settings)
    if np.isnan(score_n).any():
        raise Skip(f"class_shadow: too few shadow records of class {label} to learn from")
    _, filtered = _attack(shadow.filtered(), target.filtered(), held_out, seed, settings)
    return Scores(
        metrics={
            **{f"class_shadow_{name}": value for name, value in figures.items()},
            **{f"class_shadow_{name}_correct": value for name, value in filtered.items()},
        },
        pool=[f"model {model:02d}" for model in target.model_n],
        row=target.row_n,
        member=target.member_n,
        score=score_n,
    )


def _models(predictions: Predictions) -> tuple[Places, Places, Places]:
    """Return indices of the targets (T,), their originals (T,), and the shadow models (M,)."""
    targets_T, draw = under_attack(predictions), draws(predictions)
    originals = np.flatnonzero([kind == "original" for kind in predictions.kind_M])
    own = {draw[place]: place for place in originals}
    if not set(draw[targets_T]) <= own.keys():
        raise Skip("class_shadow: a model under attack has no original among the others")
    shadows_M = originals[~np.isin(draw[originals], draw[targets_T])]
    if not len(shadows_M):
        reason = "all originals are those of models under attack, none is left to learn from"
        raise Skip(f"class_shadow: {reason}")
    return targets_T, np.array([own[each] for each in draw[targets_T]], np.intp), shadows_M


def _forgotten_class(status_TN: NDArray[np.int8], y_N: NDArray[Any]) -> int:
    labels = np.unique(y_N[(status_TN == FORGOTTEN).any(axis=0)])
    if len(labels) != 1:
        reason = f"{len(labels)} classes are to be forgotten" if len(labels) else "nothing is"
        raise Skip(f"class_shadow needs one forgotten class, as of forget=by_class: {reason}")
    return int(labels[0])


@dataclass(frozen=True)
class _Records:
    """Posteriors and membership of the records of the class, for some models."""

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
        """Keep all non-members, and the members whose original predicts the class."""
        return self.chosen(self.correct_n | ~self.member_n)


def _records(predictions: Predictions, label: int, places_M: Places, own_M: Places) -> _Records:
    """Collect the records of the models ``places_M``, whose originals are ``own_M``."""
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
    shadow: _Records, target: _Records, held_out: float, seed: int, settings: dict[str, Any]
) -> tuple[Array, Figures]:
    """Return scores (n,) of the target records, NaN without training data, and the metrics."""
    # Sorted: the trained net does not depend on the order of models and records.
    order_n = np.lexsort((shadow.member_n, *shadow.p_nC.T))
    shuffled_n = np.random.default_rng(seed).permutation(order_n)
    first = round(held_out * len(shuffled_n))
    holdout, learnt = (
        shadow.chosen(which_n) for which_n in (shuffled_n[:first], shuffled_n[first:])
    )
    if learnt.two_sided:
        net = _learnt(learnt, seed=seed, **settings)
        score_n, holdout_score_n = (_logit(net, side.p_nC) for side in (target, holdout))
    else:
        score_n, holdout_score_n = (np.full(len(side.p_nC), np.nan) for side in (target, holdout))
    figures = _figures(holdout_score_n, holdout.member_n)
    on_held_out = {f"held_out_{name}": value for name, value in figures.items()}
    return score_n, {**_figures(score_n, target.member_n), **on_held_out}


def _learnt(records: _Records, *, epochs: int, batch_size: int, lr: float, seed: int) -> nn.Module:
    """Train the net; the result is float64, so that small posteriors stay distinct."""
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
    with seeded(seed, "attack"):  # initial weights and dropout
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
    """Log-odds (n,) of membership, which do not saturate like the probability."""
    score_n: Array = net(torch.from_numpy(p_nC)).squeeze(1).numpy()
    if not np.isfinite(score_n).all():
        raise ValueError("class_shadow: the net has diverged; attack.call.lr must be smaller")
    return score_n


def _figures(score_n: Array, member_n: Mask) -> Figures:
    """Metrics of the rule m > ½ (log-odds above 0) and over all thresholds; NaN without scores."""
    inside, outside = (score_n[side & ~np.isnan(score_n)] for side in (member_n, ~member_n))
    return {
        "recall": (_share(inside > 0), len(inside)),
        "fpr": (_share(outside > 0), len(outside)),
        "bal_acc": (membership.balanced_accuracy(inside, outside, 0.0), len(inside) + len(outside)),
        "auc": (membership.auc(inside, outside), len(inside) + len(outside)),
    }


def _share(which_n: Mask) -> float:
    return float(which_n.mean()) if len(which_n) else float("nan")
