"""What SLURM says, with its commands played by scripts."""

from pathlib import Path

import pytest
from commands_of_slurm import Commands

from unlearnbench.sweep import slurm


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path, monkeypatch)


def test_the_queue_by_task(cluster: Commands) -> None:
    lines = "s.1|3|RUNNING|None\ns.1|4|PENDING|Resources\ns.2|N/A|PENDING|Dependency"
    cluster.says("squeue", f"echo '{lines}'")
    assert slurm.queue(["s.1", "s.2"]) == {
        "s.1-3": ("RUNNING", "None"),
        "s.1-4": ("PENDING", "Resources"),
        "s.2-0": ("PENDING", "Dependency"),
    }
    cluster.says("squeue", "exit 1")
    assert slurm.queue(["s.1"]) is None
    assert slurm.queue([]) == {}


def test_how_tasks_ended_by_number_and_name(cluster: Commands) -> None:
    """A cluster that counts anew has another job 7. What never began stands in one line."""
    lines = "s.1|7_3|COMPLETED\ns.1|7_[4,6-7%2]|CANCELLED by 0\nmine|7|TIMEOUT\ns.2|9|NODE_FAIL"
    cluster.says("sacct", f"test $7 = 7,9 && echo '{lines}'")
    assert slurm.accounted({"s.1": "7", "s.2": "9"}) == {
        "s.1-3": "COMPLETED",
        **dict.fromkeys(("s.1-4", "s.1-6", "s.1-7"), "CANCELLED by 0"),
        "s.2-0": "NODE_FAIL",
    }
    cluster.says("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    assert slurm.accounted({"s.1": "7"}) == {}


@pytest.mark.parametrize(
    ("script", "known"),
    [
        ("echo RUNNING", True),
        ("true", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", True),
    ],
)
def test_a_job_is_unknown_only_where_slurm_says_so(
    script: str, known: bool, cluster: Commands
) -> None:
    cluster.says("squeue", script)
    assert slurm.known("17") is known
