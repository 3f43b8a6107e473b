"""What costs seconds and serves many tests: a fork server with torch, and one whole sweep."""

import os

import pytest
from sweeps import SWEEP, TESTS, Preloaded, Undisturbed, command

from unlearnbench.sweep import local as launch


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Preloaded:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))  # where the fork server finds this module
        for name, value in launch.ONE_THREAD.items():
            patch.setenv(name, value)
        server = Preloaded(tmp_path_factory.mktemp("said"))
        server.context.Process(target=os.getpid).start()  # starts the server in this environment
    return server


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    results = tmp_path_factory.mktemp("undisturbed")
    done = command([*SWEEP, "workers=2"], results)
    assert done.returncode == 0, done.stderr
    return Undisturbed(results, done.stdout)
