"""Fixtures: cells, and a lab to run them in, in this process."""

from pathlib import Path

import pytest
import torch
from cells import Cells, compose

from unlearnbench import pipeline
from unlearnbench.store import Store

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cell() -> Cells:
    return compose


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Lab:
    """One store for the whole run: an original is trained once for all tests."""
    return pipeline.Lab(Store(tmp_path_factory.mktemp("store")), "cpu")


@pytest.fixture
def new_lab(tmp_path: Path) -> pipeline.Lab:
    return pipeline.Lab(Store(tmp_path / "store"), "cpu")
