"""A decision tree of scikit-learn."""

from collections.abc import Sequence

from sklearn.tree import DecisionTreeClassifier
from torch import nn

from unlearnbench.model.trees import Trees


def decision_tree(
    shape: Sequence[int], n_classes: int, *, max_leaf_nodes: int, min_samples_leaf: int
) -> nn.Module:
    """One tree, grown best-first, on flattened inputs. Use with ``train=estimator``.

    Chen et al., "When Machine Unlearning Jeopardizes Privacy" (CCS 2021, arXiv 2005.02205).

    Args:
        shape: shape of one input.
        n_classes: number of outputs.
        max_leaf_nodes: maximal number of leaves.
        min_samples_leaf: minimal number of training rows in a leaf.
    """
    learner = DecisionTreeClassifier(
        max_leaf_nodes=max_leaf_nodes, min_samples_leaf=min_samples_leaf
    )
    return Trees("decision_tree", n_classes, learner)
