"""One trained model for all tests of methods."""

import pytest
from cells import compose
from method.bench import Bench

from unlearnbench.pipeline import Lab


@pytest.fixture(scope="session")
def bench(lab: Lab) -> Bench:
    return Bench(lab, compose())
