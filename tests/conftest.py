"""Fixtures: cells, and a lab to run them in, in this process."""

import os
from pathlib import Path

# As ``launch`` has it for its workers, and before the libraries start their threads: on rows this
# few, threads that wait for each other are most of what the tests of attacks would cost.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import pytest
import torch
from cells import Cells, compose

from unlearnbench import pipeline
from unlearnbench.store import Store

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as in a worker on the CPU


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file run in one process, for they share what is trained; but for those that
    all methods pass through, which share it by method.
    """
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        group = name if item.path.stem in ("test_contract", "test_golden") else item.path.stem
        group = "slurm" if item.get_closest_marker("slurm") else group  # one cluster for all
        item.add_marker(pytest.mark.xdist_group(str(group)))


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
