"""Load an option as the harness does, and find real data where there are any."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_method
from omegaconf import OmegaConf

from unlearnbench.core.data import Dataset

REPOSITORY = Path(__file__).resolve().parents[2]
PASSED = ("root", "path", "fingerprint")

torch.set_num_threads(1)


@pytest.fixture
def load() -> Callable[..., Dataset]:
    """``load(name, {"call.size": 28, "root": folder})``: the option with some values changed."""

    def load(name: str, changes: dict[str, Any] | None = None) -> Dataset:
        option = OmegaConf.load(REPOSITORY / "conf" / "dataset" / f"{name}.yaml")
        for key, value in (changes or {}).items():
            # Replaced, not merged; file names of a fingerprint have dots in them.
            OmegaConf.update(option, key, str(value) if isinstance(value, Path) else value)
        values = OmegaConf.to_container(option, resolve=True)
        call = dict(values["call"])
        function = get_method(call.pop("_target_"))
        return function(**call, **{key: values[key] for key in PASSED if key in values})

    return load


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads fail at once, and not by trying."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network\nin this test")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
