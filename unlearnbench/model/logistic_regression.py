"""Logistic regression of scikit-learn, one class against the rest on standardised inputs.

Axes: N rows fitted on, B rows of a batch, F features, C classes, S classes of those rows.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from unlearnbench.model.estimator import ZERO, Estimator


def logistic_regression(
    shape: Sequence[int], n_classes: int, *, C: float, max_iter: int
) -> nn.Module:
    """Linear scores of flattened, standardised inputs. Use with ``train=estimator``.

        p(c | x) ∝ σ( w_c · (x − μ)/s + b_c ),   μ and s of the fitted rows

    Each class against the rest, penalty |w|²/2C, by L-BFGS. Chen et al., "When Machine Unlearning
    Jeopardizes Privacy" (CCS 2021, arXiv 2005.02205). Differs: the published code computes μ and s
    on the queries, so that its output for a single query is constant. ``model=logreg`` is the
    softmax regression that is trained as a net.

    Args:
        shape: shape of one input.
        n_classes: number of outputs.
        C: inverse strength of the penalty.
        max_iter: maximal number of iterations per class.
    """
    return OneVsRest("logistic_regression", n_classes, C, max_iter)


LEARNED = {
    "mean": torch.float64,
    "scale": torch.float64,
    "classes": torch.int64,
    "coefficients": torch.float64,
    "intercept": torch.float64,
}
"""μ (F,), s (F,); the classes S among the rows (S,), and their w (S, F) and b (S,)."""


class OneVsRest(Estimator):
    """Model of ``logistic_regression``."""

    mean: Tensor
    scale: Tensor
    classes: Tensor
    coefficients: Tensor
    intercept: Tensor

    def __init__(self, name: str, n_classes: int, C: float, max_iter: int) -> None:
        super().__init__(name, n_classes, LEARNED)
        self.settings = {"C": C, "max_iter": max_iter}

    def _learn(self, x_NF: NDArray[Any], y_N: NDArray[Any]) -> dict[str, NDArray[Any]]:
        scaler = StandardScaler()
        z_NF = scaler.fit_transform(x_NF.astype(np.float64))
        classes_S = np.unique(y_N)
        w_SF, b_S = np.zeros((len(classes_S), z_NF.shape[1])), np.zeros(len(classes_S))
        # With two classes only the second is fitted, and the first has the negated scores; a single
        # class needs no scores.
        first = 1 if len(classes_S) < 3 else 0
        for s in range(first, len(classes_S)):
            classifier = LogisticRegression(solver="lbfgs", **self.settings)
            classifier.fit(z_NF, y_N == classes_S[s])
            w_SF[s], b_S[s] = classifier.coef_[0], classifier.intercept_[0]
        if len(classes_S) == 2:
            w_SF[0], b_S[0] = -w_SF[1], -b_S[1]
        return {
            "mean": scaler.mean_,
            "scale": scaler.scale_,
            "classes": classes_S,
            "coefficients": w_SF,
            "intercept": b_S,
        }

    def _answer(self, x_BF: Tensor) -> Tensor:
        z_BF = (x_BF.double().contiguous() - self.mean) / self.scale
        # Not a matrix product: its last bits depend on the number of rows.
        score_BS = torch.stack([(z_BF * w_F).sum(1) for w_F in self.coefficients], 1)
        log_BC = z_BF.new_full((len(z_BF), self.n_classes), math.log(ZERO))
        log_BC[:, self.classes] = F.logsigmoid(score_BS + self.intercept).log_softmax(1)
        return log_BC
