"""Logistic regression; with one output and squared error, linear regression."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from unlearnbench.model.stages import declare


def logreg(shape: Sequence[int], n_classes: int) -> nn.Module:
    """One linear layer on flattened inputs."""
    head = nn.Linear(math.prod(shape), n_classes)
    net = nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=head))
    return declare(net, ((), ("head",)))
