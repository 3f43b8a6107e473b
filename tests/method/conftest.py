"""One trained model for all tests of methods."""

import pytest
from cells import compose
from method.bench import Bench

from unlearnbench.pipeline.workspace import Workspace


@pytest.fixture(scope="session")
def bench(workspace: Workspace) -> Bench:
    return Bench(workspace, compose())
