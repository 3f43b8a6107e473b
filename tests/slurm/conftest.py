"""The cluster, and the table that every sweep on it must end with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import WORDS, Cluster, Sweep, missing, table_here


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    one = Cluster()
    try:
        one.up()
        yield one
    finally:
        one.down()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep by the local launcher."""
    results = tmp_path_factory.mktemp("reference") / "results"
    table_here(results, WORDS)
    return results


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Sweep:
    """A new results folder, on a cluster with nothing to do."""
    cluster.clear()
    return Sweep(cluster, tmp_path / "results")
