"""Decision trees as arrays of nodes, grown by scikit-learn and evaluated without it.

Axes: N rows fitted on, B rows of a batch, F features, C classes, T trees, K nodes of all trees.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, clone
from torch import Tensor

from unlearnbench.model.estimator import ZERO, Estimator

LEARNED = {
    "root": torch.int64,
    "feature": torch.int64,
    "threshold": torch.float64,
    "left": torch.int64,
    "right": torch.int64,
    "posterior": torch.float64,
}
"""Root node of each tree (T,); for each node (K,) its feature, the largest value that goes left,
and its two children, with a leaf as its own child; and the class shares of its rows (K, C)."""


class Trees(Estimator):
    """A decision tree, or the mean posterior of several.

    Args:
        name: name of its option.
        n_classes: number of classes of the data set.
        learner: unfitted classifier of scikit-learn; only its settings are used.
    """

    root: Tensor
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    posterior: Tensor

    def __init__(self, name: str, n_classes: int, learner: ClassifierMixin) -> None:
        super().__init__(name, n_classes, LEARNED)
        self.learner = learner

    def _learn(self, x_NF: NDArray[Any], y_N: NDArray[Any]) -> dict[str, NDArray[Any]]:
        learner = clone(self.learner).set_params(random_state=int(self.random_state))
        grown = learner.fit(x_NF, y_N)
        trees = [estimator.tree_ for estimator in getattr(grown, "estimators_", [grown])]
        counts = [tree.node_count for tree in trees]
        root_T = np.cumsum([0, *counts[:-1]])
        first_K, own_K = np.repeat(root_T, counts), np.arange(sum(counts))
        feature, threshold, left, right = (
            np.concatenate([getattr(tree, key) for tree in trees])
            for key in ("feature", "threshold", "children_left", "children_right")
        )
        leaf_K = left < 0
        posterior_KC = np.zeros((len(own_K), self.n_classes))
        posterior_KC[:, grown.classes_] = np.concatenate([tree.value[:, 0] for tree in trees])
        return {
            "root": root_T,
            "feature": np.where(leaf_K, 0, feature),
            "threshold": np.where(leaf_K, 0, threshold),
            "left": np.where(leaf_K, own_K, first_K + left),
            "right": np.where(leaf_K, own_K, first_K + right),
            "posterior": posterior_KC,
        }

    def _answer(self, x_BF: Tensor) -> Tensor:
        # scikit-learn rounds inputs to float32 and compares them with thresholds in float64.
        x_BF = x_BF.float().double()
        node_BT = self.root.expand(len(x_BF), -1)
        while True:
            seen_BT = x_BF.gather(1, self.feature.take(node_BT))
            goes_left_BT = seen_BT <= self.threshold.take(node_BT)
            below_BT = torch.where(goes_left_BT, self.left.take(node_BT), self.right.take(node_BT))
            if torch.equal(below_BT, node_BT):
                break
            node_BT = below_BT
        # One tree at a time, in the order of scikit-learn: same bits, and no (B, T, C) in memory.
        sum_BC = sum(self.posterior[node_B] for node_B in node_BT.T)
        assert isinstance(sum_BC, Tensor)
        return (sum_BC / len(self.root)).log().clamp(min=math.log(ZERO))
