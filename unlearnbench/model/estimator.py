"""Base class of models that scikit-learn fits, as nets without gradients.

Axes: N rows fitted on, B rows of a batch, F features, C classes.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.core.errors import Skip

ZERO = 1e-45
"""Replacement of a posterior of 0, so that its logarithm is finite: the guard of LiRA, as in the
defenses. Softmax of its logarithm is 0 up to float32 precision."""


class Estimator(nn.Module):
    """A classifier that returns log-posteriors: their softmax is ``predict_proba``.

    The learned values are tensors, which form its state. Their shapes follow from the fit, so a
    fresh model accepts any shapes when it loads a state.

    Args:
        name: name of its option.
        n_classes: number of classes of the data set, 1 for a regression; a fit may see fewer.
        learned: names of the learned tensors and their dtypes.

    Raises:
        Skip: a regression.
    """

    random_state: Tensor

    def __init__(self, name: str, n_classes: int, learned: Mapping[str, torch.dtype]) -> None:
        if n_classes < 2:
            raise Skip(f"model={name} tells classes apart; a regression has none")
        super().__init__()
        self.name, self.n_classes, self.learned = name, n_classes, tuple(learned)
        # Drawn with the initial weights: a retrained model has the random state of the original.
        self.register_buffer("random_state", torch.randint(2**31 - 1, ()))
        for key, dtype in learned.items():
            self.register_buffer(key, torch.empty(0, dtype=dtype))

    def fit(self, x: Tensor, y_N: Tensor) -> None:
        """Fit to inputs (N, …) and their labels, in this order; replaces an earlier fit."""
        learned = self._learn(x.flatten(1).cpu().numpy(), y_N.cpu().numpy())
        for key in self.learned:
            setattr(self, key, torch.from_numpy(learned[key]).to(getattr(self, key)))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Log-posteriors (B, C) of inputs (B, …), float64; log ``ZERO`` for a class without rows.

        Raises:
            ValueError: the model is not fitted.
        """
        if not self._fitted:
            raise ValueError(f"model={self.name} has not been fitted")
        return self._answer(x.flatten(1))

    @property
    def _fitted(self) -> bool:
        return all(getattr(self, key).numel() for key in self.learned)

    def _learn(self, x_NF: NDArray[Any], y_N: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Learn from rows; returns the learned arrays by name."""
        raise NotImplementedError

    def _answer(self, x_BF: Tensor) -> Tensor:
        """Log-posteriors (B, C) from the learned tensors."""
        raise NotImplementedError

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *others: Any
    ) -> None:
        for key in self.learned:
            if (tensor := state_dict.get(prefix + key)) is not None:
                setattr(self, key, getattr(self, key).new_empty(tensor.shape))
        super()._load_from_state_dict(state_dict, prefix, *others)

    # A method that changes weights must not return the model unchanged because it has no
    # parameters: access to parameters or layers raises.

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Raise: there are no parameters."""
        self._refuse()

    @property
    def layer_stages(self) -> NoReturn:
        """Raise: there are no layers."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        if not self._fitted:
            raise ValueError(f"model={self.name} is fitted by scikit-learn: take train=estimator")
        raise Skip(f"model={self.name} has neither gradients nor layers: it can only be refitted")
