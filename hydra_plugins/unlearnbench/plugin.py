"""Thin classes between Hydra and ``unlearnbench.cli``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class Sweeper(BasicSweeper):
    """Hydra's sweeper, except that it does not compose cells before the launcher gets them."""

    def sweep(self, arguments: list[str]) -> Any:
        """Multiply out the sweep and launch all of it at once."""
        from unlearnbench.cli import main
        from unlearnbench.config import compose

        assert self.launcher is not None
        assert self.config is not None
        batch = compose.expand([*self._parse_config(), *main.typed(self.config.hydra)])
        returned = self.launcher.launch(batch, initial_job_idx=0)
        for job in returned:  # for other launchers: raises the exception of the job
            _ = job.return_value
        return [returned]


class LocalLauncher(Launcher):
    """The whole sweep as one plan, on worker processes of this machine."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store the configuration of Hydra."""
        self.config = config

    @property
    def study(self) -> str | None:
        """The option ``sweep=`` that was chosen."""
        choices = OmegaConf.to_container(self.config.hydra.runtime.choices)
        assert isinstance(choices, dict)
        return choices.get("sweep")

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the cells; exit with code 1 if one of them failed."""
        from unlearnbench.cli import commands, main
        from unlearnbench.config import compose

        settings, overrides = compose.settings(job_overrides[0]), main.asked(self.config.hydra)
        if not commands.execute(job_overrides, settings, self.study, overrides, swept=True):
            sys.exit(1)
        return []


class SlurmLauncher(LocalLauncher):
    """The whole sweep as one plan, as job arrays on SLURM. Returns once they are submitted.

    Args:
        options: settings of ``hydra.launcher``; not used, since they are read from the overrides,
            as in ``unlearnbench plan``.
    """

    def __init__(self, **options: Any) -> None:
        pass

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the cells."""
        from unlearnbench.cli import commands, main
        from unlearnbench.config import compose

        settings, overrides = compose.settings(job_overrides[0]), main.asked(self.config.hydra)
        commands.submit(overrides, job_overrides, settings, self.study)
        return []


@dataclass
class SweeperConf(BasicSweeperConf):
    """``hydra/sweeper=unlearnbench``."""

    _target_: str = "hydra_plugins.unlearnbench.plugin.Sweeper"


@dataclass
class LocalLauncherConf:
    """``hydra/launcher=local``."""

    _target_: str = "hydra_plugins.unlearnbench.plugin.LocalLauncher"


_store = ConfigStore.instance()
_store.store(group="hydra/sweeper", name="unlearnbench", node=SweeperConf, provider="unlearnbench")
_store.store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="unlearnbench")
