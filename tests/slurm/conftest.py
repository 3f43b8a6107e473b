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
def sweep(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sweep]:
    """A new results folder, on a cluster with nothing to do."""
    cluster.clear()
    one = Sweep(cluster, tmp_path / "results")
    yield one
    trained = [words[0] for words in map(str.split, one.begun()) if len(words) == 3]
    if trained:
        told = one.retries, len(set(trained)), len(trained) - len(set(trained))
        request.node.user_properties.append(("account", told))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What each fault has cost: commands to be whole again, and trainings that began again."""
    lines = [
        (*dict(report.user_properties)["account"], report.location[2])
        for report in terminalreporter.getreports("")
        if report.when == "teardown" and report.user_properties
    ]
    if lines:
        terminalreporter.write_line("retries  trained  of them twice")
    for retries, trained, twice, name in lines:
        terminalreporter.write_line(f"{retries:7}  {trained:7}  {twice:14}  {name}")
