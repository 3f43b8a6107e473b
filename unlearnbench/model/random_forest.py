"""A random forest of scikit-learn."""

from collections.abc import Sequence

from sklearn.ensemble import RandomForestClassifier
from torch import nn

from unlearnbench.model.trees import Trees


def random_forest(
    shape: Sequence[int], n_classes: int, *, n_estimators: int, min_samples_leaf: int
) -> nn.Module:
    """Trees on bootstraps of the rows, √F features per split, on flattened inputs.

    The output is the mean posterior of the trees. Use with ``train=estimator``. Chen et al., "When
    Machine Unlearning Jeopardizes Privacy" (CCS 2021, arXiv 2005.02205).

    Args:
        shape: shape of one input.
        n_classes: number of outputs.
        n_estimators: number of trees.
        min_samples_leaf: minimal number of training rows in a leaf.
    """
    learner = RandomForestClassifier(n_estimators=n_estimators, min_samples_leaf=min_samples_leaf)
    return Trees("random_forest", n_classes, learner)
