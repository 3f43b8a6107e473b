"""Synthetic populations: the confidence of every model on every record is what a test says."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.values import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores


def keep(models: int, n: int, seed: int = 0) -> NDArray[np.int8]:
    """Each record is unseen by half of the models, to be forgotten by a quarter of them."""
    rank = np.random.default_rng(seed).random((models, n)).argsort(axis=0).argsort(axis=0)
    parts = [rank < models // 2, rank < 3 * models // 4]
    return np.select(parts, [UNSEEN, FORGOTTEN], RETAINED).astype(np.int8)


def population(phi: NDArray[Any], status: NDArray[np.int8], kind: str = "unlearned") -> Predictions:
    """Audited models of two classes whose log p_y − log p_other is ``phi``, (M, N) or (M, Q, N)."""
    phi = phi[:, None] if phi.ndim == 2 else phi
    models, _, n = phi.shape
    y = np.arange(n) % 2
    logits = np.where(np.arange(2) == y[:, None], phi[..., None], 0).astype(np.float32)
    return Predictions(
        logits_MQNC=logits,
        y_N=y,
        rows_N=np.arange(n) * 3 + 1,
        split_N=np.zeros(n, np.int8),
        status_MN=status,
        kind_M=(kind,) * models,
        parent_M=(-1,) * models,
        audited_M=(True,) * models,
    )


def beside(audited: Predictions, *others: Predictions) -> Predictions:
    """The audited models, and others to compare with."""
    every = (audited, *others)
    return replace(
        audited,
        logits_MQNC=np.concatenate([one.logits_MQNC for one in every]),
        status_MN=np.concatenate([one.status_MN for one in every]),
        kind_M=sum((one.kind_M for one in every), ()),
        parent_M=sum((one.parent_M for one in every), ()),
        audited_M=audited.audited_M + (False,) * sum(len(one.kind_M) for one in others),
    )


def shadowed(
    kind: str, models: int, n: int, shift: float, seed: int = 0, left: float = 0.0, queries: int = 1
) -> Predictions:
    """φ ~ N(easiness + shift if trained on, 1); unlearning leaves ``left`` of what is forgotten.

    In the order of a real population: the audited models, then originals and retrained models
    unless it is they that are audited.
    """
    random = np.random.default_rng(seed)
    status, easy = keep(models, n, seed), random.normal(size=n)
    effects = {"unlearned": left, "original": shift, "retrained": 0.0}
    groups = []
    for one in dict.fromkeys((kind, "original", "retrained")):
        raised = shift * (status == RETAINED) + effects[one] * (status == FORGOTTEN)
        phi = random.normal(size=(models, queries, n)) + easy + raised[:, None]
        groups.append(population(phi, status, one))
    return beside(*groups)


def raised(predictions: Predictions, models: Sequence[int], by: float) -> Predictions:
    """The confidences of some models, all raised."""
    logits = predictions.logits_MQNC.copy()
    logits[np.asarray(models)] += by * np.eye(2, dtype=np.float32)[predictions.y_N]
    return replace(predictions, logits_MQNC=logits)


def apart(predictions: Predictions, target: int) -> NDArray[np.bool_]:
    """Which models are originals that were not trained on the target's rows."""
    seen = predictions.status_MN != UNSEEN
    same = [bool((one == seen[target]).all()) for one in seen]
    return (np.array(predictions.kind_M) == "original") & ~np.array(same)


def taken(predictions: Predictions, models: Sequence[int], records: Sequence[int]) -> Predictions:
    """Some models and records, in this order."""
    m, n = np.asarray(models), np.asarray(records)
    return replace(
        predictions,
        logits_MQNC=predictions.logits_MQNC[m][:, :, n],
        y_N=predictions.y_N[n],
        rows_N=predictions.rows_N[n],
        split_N=predictions.split_N[n],
        status_MN=predictions.status_MN[np.ix_(m, n)],
        kind_M=tuple(predictions.kind_M[i] for i in m),
        parent_M=tuple(predictions.parent_M[i] for i in m),
        audited_M=tuple(predictions.audited_M[i] for i in m),
    )


def table(scores: Scores) -> dict[tuple[int, int], float]:
    """Score by model and row."""
    models = (int(name.removeprefix("model ")) for name in scores.pool)
    return dict(zip(zip(models, scores.row.tolist(), strict=True), scores.score, strict=True))


def phi_of(predictions: Predictions) -> NDArray[np.float64]:
    """The confidences (M, Q, N) back, as rounded to float32."""
    logits = predictions.logits_MQNC.astype(np.float64)
    own = predictions.y_N[:, None] == np.arange(2)
    return logits[..., own] - logits[..., ~own]
