"""Synthetic populations: the confidence of every model on every record is what a test says."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores


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


@dataclass(frozen=True)
class Pairs:
    """By loops: which models a target's record is compared with.

    Attributes:
        seen_MN: what the original of each model was trained on.
        draw_M: the first model with the same training rows.
        audited_M: the targets.
    """

    seen_MN: NDArray[np.bool_]
    draw_M: NDArray[np.intp]
    audited_M: NDArray[np.bool_]

    def compared(
        self, target: int, j: int, side_M: NDArray[np.bool_], inside_M: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Models (M,) of a side without those of the target's draw and of the one paired with it.

        Args:
            target: place of the model.
            j: place of the record.
            side_M: the models to choose from.
            inside_M: the models whose draws a target that has not seen the record may leave out.
        """
        has_seen = self.seen_MN[target, j]
        alike = list(dict.fromkeys(self.draw_M[self.audited_M & (self.seen_MN[:, j] == has_seen)]))
        others_M = ~self.seen_MN[:, j] if has_seen else inside_M & self.seen_MN[:, j]
        beside = list(dict.fromkeys(self.draw_M[self.audited_M & others_M]))
        left = {self.draw_M[target]}
        if beside:
            left.add(beside[alike.index(self.draw_M[target]) % len(beside)])
        kept_M: NDArray[np.bool_] = side_M & ~np.isin(self.draw_M, list(left))
        return kept_M


def pairs(predictions: Predictions) -> Pairs:
    """The draws of a population."""
    seen_MN = predictions.status_MN != UNSEEN
    draw_M = [next(m for m, one in enumerate(seen_MN) if (one == row).all()) for row in seen_MN]
    return Pairs(seen_MN, np.array(draw_M), np.array(predictions.audited_M))


def null(
    attack: Callable[[Predictions], Scores], models: int, populations: int = 24
) -> dict[str, float]:
    """Mean figures where all models answer alike, by the ends of their names."""
    every = [
        attack(shadowed("unlearned", models, 2000, 0.0, seed)).metrics
        for seed in range(populations)
    ]
    return {
        name.partition("_")[2]: float(np.mean([metrics[name][0] for metrics in every]))
        for name in every[0]
    }


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


def nulls() -> str:
    """The nulls of LiRA, RMIA and U-LiRA as Markdown: AUC, and the rate at 1 %, of few models on.

    Means of 40 populations of 2,000 records.
    """
    from unlearnbench.attack.lira import lira
    from unlearnbench.attack.rmia import rmia
    from unlearnbench.attack.ulira import ulira

    attacks: dict[str, Callable[[Predictions], Scores]] = {
        "U-LiRA": partial(ulira, reference="unlearned_out", variance="pooled"),
        "U-LiRA, per_record": partial(ulira, reference="unlearned_out", variance="per_record"),
        "LiRA": partial(lira, mode="online", variance="pooled"),
        "LiRA, offline": partial(lira, mode="offline", variance="pooled"),
        "RMIA": partial(rmia, mode="offline", a=0.3, gamma=1.0),
        "RMIA, online": partial(rmia, mode="online", a=0.3, gamma=1.0),
    }
    counts = (12, 16, 32, 64)
    lines = ["| attack | " + " | ".join(f"{n} models" for n in counts) + " |"]
    lines.append("|---" * (1 + len(counts)) + "|")
    for name, attack in attacks.items():
        every = [null(attack, models, populations=40) for models in counts]
        cells = [f"{one['auc']:.4f}, {one['tpr_at_1pct']:.4f}" for one in every]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(nulls())
