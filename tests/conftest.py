"""Fixtures: cells, and a lab to run them in, in this process."""

import gc
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# As ``launch`` has it for its workers, and before the libraries start their threads: on rows this
# few, threads that wait for each other are most of what the tests of attacks would cost.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import pytest

from unlearnbench.config import validate
from unlearnbench.sweep import memory

memory.collect_seldom()  # to collect tests makes as many objects as to start a command

if TYPE_CHECKING:  # what starts the workers of pytest-xdist reads this file and needs no torch
    from cells import Cells

    from unlearnbench.pipeline.workspace import Workspace


COLLECTED = pytest.StashKey[list[pytest.Item]]()
"""All tests that were found, slow ones too."""


def pytest_configure(config: pytest.Config) -> None:
    """Groups of tests are handed out in their own order, not those of most tests first."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of a file run in one process, for they share what is trained; but for those that
    all methods pass through, which share it by method.

    These come last: they are many and short, so that no process waits for the end of another.
    """
    config.stash[COLLECTED] = list(items)
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        group = name if of_each_method(item) else item.path.stem
        group = "slurm" if item.get_closest_marker("slurm") else group  # one cluster for all
        item.add_marker(pytest.mark.xdist_group(str(group)))
    items.sort(key=of_each_method)


def of_each_method(item: pytest.Item) -> bool:
    return item.path.stem in ("test_contract", "test_golden")


def pytest_collection_finish() -> None:
    """What the libraries made when they were imported stays; no need to look through it again."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # at the interpreter's end some libraries complain of what is still there


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as in a worker on the CPU


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """The same words are composed once for all tests: it takes Hydra 50 ms, and tests thousands.

    Whoever composes only reads what he gets, for ``config.Parts`` keeps it too. Words that name
    another folder of options are composed each time: a test may have written there since.
    """
    from hydra.core.global_hydra import GlobalHydra

    from unlearnbench.core.resources import options_folder

    compose = validate.hydra_compose
    kept = lru_cache(maxsize=500)(
        lambda name, words, whole: compose(name, list(words), return_hydra_config=whole)
    )

    def once(name: str, overrides: Any = (), return_hydra_config: bool = False) -> Any:
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        path = hydra.config_loader.get_search_path().get_path()
        here = {place.provider: str(place.path).removeprefix("file://") for place in path}
        ours = {
            "hydra": "pkg://hydra.conf",
            "main": str(options_folder()),
            "schema": "structured://",
        }
        if here != ours or any("hydra.searchpath" in word for word in overrides):
            return compose(name, list(overrides), return_hydra_config=return_hydra_config)
        return kept(name, tuple(overrides), return_hydra_config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "hydra_compose", once)
        yield


@pytest.fixture(scope="session")
def collected(pytestconfig: pytest.Config) -> list[pytest.Item]:
    """All tests that were found, those that do not run among them."""
    return pytestconfig.stash[COLLECTED]


@pytest.fixture(scope="session")
def cell() -> "Cells":
    from cells import compose

    return compose


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> "Workspace":
    """One store for the whole run: an original is trained once for all tests."""
    from unlearnbench.pipeline.workspace import Workspace
    from unlearnbench.store.artifacts import Store

    return Workspace(Store(tmp_path_factory.mktemp("store")), "cpu")


@pytest.fixture
def new_workspace(tmp_path: Path) -> "Workspace":
    from unlearnbench.pipeline.workspace import Workspace
    from unlearnbench.store.artifacts import Store

    return Workspace(Store(tmp_path / "store"), "cpu")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data sets; the test is skipped where there is none."""
    named = os.environ.get("UNLEARNBENCH_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: set UNLEARNBENCH_TEST_DATA to a folder of them")
    return folder
