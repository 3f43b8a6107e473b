"""SLURM's commands, played by scripts."""

import os
from pathlib import Path

import pytest

from unlearnbench.config import compose
from unlearnbench.sweep import control, estimate

WORDS = ["dataset=wine", "model=logreg", "attack=none", "seed=range(3)", "hydra/launcher=slurm"]


class Commands:
    """A folder of commands in front of all others."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.results = folder / "bin", folder / "results"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")
        monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(self.results))
        self.says("srun", "")
        self.says("scontrol", "echo 'MaxArraySize            = 1001'")
        self.says("sinfo", "echo '(null)'")
        self.says("scancel", f'echo "$@" >> {folder}/cancelled')
        self.says(
            "sbatch",
            f'cp "$1" {folder}/$(ls {folder} | grep -c batch)batch\n'
            f"echo Submitted batch job 10$(ls {folder} | grep -c batch)",
        )

    def says(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def submit(self, *words: str) -> list[str]:
        asked = [*WORDS, *words]
        grid = estimate.grid_of(asked)
        settings = compose.settings(grid[0])
        cells = compose.cells(grid, ["original", "retrain"])
        return list(control.submit(cells, asked, settings, "study"))

    def batches(self) -> list[dict[str, str]]:
        """The flags of each submission, and the command in it."""
        found = []
        for path in sorted(self.folder.parent.glob("*batch")):
            lines = path.read_text().splitlines()
            flags = [line.removeprefix("#SBATCH --") for line in lines if "#SBATCH" in line]
            told = dict(flag.partition("=")[::2] for flag in flags)
            found.append(
                {
                    **told,
                    "command": next(line for line in lines if "unlearnbench.sweep.trusted" in line),
                }
            )
        return found
