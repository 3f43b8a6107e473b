"""Models that scikit-learn fits, as nets that have no gradient: the base of them, and their fit.

Axes: N rows fitted on, B rows of a batch, F features, C classes.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.core.errors import Skip

ZERO = 1e-45
"""What a posterior of 0 is told as, log 0 being no number: LiRA's guard of its logarithms, as in
the defenses. Softmax gives back what float32 cannot tell from 0."""


class Estimator(nn.Module):
    """A classifier that answers with log-posteriors: softmax gives ``predict_proba`` back.

    What it learns is tensors only, and they are its state. Their shapes follow from the fit, so
    that a fresh one takes over whatever shapes it is given.

    Args:
        name: of its option.
        n_classes: of the data set, 1 for a regression; a fit may see fewer.
        learned: the names of what it learns, and their types.

    Raises:
        Skip: a regression.
    """

    random_state: Tensor

    def __init__(self, name: str, n_classes: int, learned: Mapping[str, torch.dtype]) -> None:
        if n_classes < 2:
            raise Skip(f"model={name} tells classes apart; a regression has none")
        super().__init__()
        self.name, self.n_classes, self.learned = name, n_classes, tuple(learned)
        # Drawn where a net draws its weights: a retrained model starts from the original's.
        self.register_buffer("random_state", torch.randint(2**31 - 1, ()))
        for key, dtype in learned.items():
            self.register_buffer(key, torch.empty(0, dtype=dtype))

    def fit(self, x: Tensor, y_N: Tensor) -> None:
        """Learn from inputs (N, …) and their labels, in this order; what was learned is gone."""
        found = self._learn(x.flatten(1).cpu().numpy(), y_N.cpu().numpy())
        for key in self.learned:
            setattr(self, key, torch.from_numpy(found[key]).to(getattr(self, key)))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Log-posteriors (B, C) of inputs (B, …), float64; a class that no row had is ``ZERO``.

        Raises:
            ValueError: it has not been fitted.
        """
        if not self._fitted:
            raise ValueError(f"model={self.name} has not been fitted")
        return self._answer(x.flatten(1))

    @property
    def _fitted(self) -> bool:
        return all(getattr(self, key).numel() for key in self.learned)

    def _learn(self, x_NF: NDArray[Any], y_N: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What it learns from some rows, by name."""
        raise NotImplementedError

    def _answer(self, x_BF: Tensor) -> Tensor:
        """Log-posteriors (B, C) from what it has learned."""
        raise NotImplementedError

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *others: Any
    ) -> None:
        for key in self.learned:
            if (given := state_dict.get(prefix + key)) is not None:
                setattr(self, key, getattr(self, key).new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *others)

    # A method that moves weights must not take "no parameters" for "nothing to do" and hand the
    # model back as it was: asked for parameters or layers, this one says that it has none.

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Refuse: there is nothing to descend on."""
        self._refuse()

    @property
    def layer_stages(self) -> NoReturn:
        """Refuse: there are no layers."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        if not self._fitted:
            raise ValueError(f"model={self.name} is fitted by scikit-learn: take train=estimator")
        raise Skip(f"model={self.name} has neither gradients nor layers: it can only be refitted")
