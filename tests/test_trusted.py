"""Whose a folder must be before a job unpickles from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearnbench.sweep import trusted

TRIED = pytest.mark.tried(
    "another member of the group replaces what a SLURM job unpickles",
    "the folder is its owner's alone, and a job that finds it otherwise ends before it reads",
)


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    os.close(trusted.check(tmp_path / "mine"))


@TRIED
@pytest.mark.parametrize("mode", [0o770, 0o750, 0o701, 0o2770])
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    with pytest.raises(PermissionError, match="must be of user"):
        trusted.check(tmp_path / "shared")


@TRIED
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(PermissionError, match="is of user 12345"):
        trusted.check(tmp_path / "theirs")


@TRIED
def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="link"):
        trusted.check(tmp_path / "link")


@TRIED
def test_a_job_ends_with_one_line_before_it_reads(tmp_path: Path) -> None:
    (tmp_path / "1_submitted.pkl").write_bytes(b"cos\nsystem\n(S'echo owned'\ntR.")
    tmp_path.chmod(0o770)
    command = [sys.executable, "-m", "unlearnbench.sweep.trusted", str(tmp_path)]
    environment = {**os.environ, "SLURM_JOB_ID": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("unlearnbench: nothing is unpickled: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
