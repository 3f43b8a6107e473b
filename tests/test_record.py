"""What a run leaves about itself: the commit of the code."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unlearnbench.core import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository as the package believes to be in."""
    for path in (
        "unlearnbench/sweep/run_record.py",
        "conf/config.yaml",
        "results/rows.txt",
        "README.md",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("first\n")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    about = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*about, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(provenance, "package_folder", lambda: tmp_path / "unlearnbench")
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def test_a_clean_checkout_has_its_commit_alone(checkout: Path) -> None:
    asked = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert provenance.commit() == name
    (checkout / "results" / "rows.txt").write_text("others\n")  # as running leaves them
    (checkout / "notes.txt").write_text("of the user\n")
    (checkout / "unlearnbench" / "record.pyc").write_text("ignored\n")
    provenance.commit.cache_clear()
    assert provenance.commit() == name


@pytest.mark.tried("rows computed by an edited tree", "their `commit` ends in `-dirty`")
@pytest.mark.parametrize(
    ("path", "staged"),
    [
        ("unlearnbench/sweep/run_record.py", False),
        ("unlearnbench/sweep/run_record.py", True),
        ("conf/config.yaml", False),
        ("README.md", False),
        ("unlearnbench/method_of_mine.py", False),
        ("conf/method/mine.yaml", False),
    ],
)
def test_an_edited_checkout_is_called_so(checkout: Path, path: str, staged: bool) -> None:
    (checkout / path).parent.mkdir(exist_ok=True)
    (checkout / path).write_text("other\n")
    if staged:
        subprocess.run(["git", "-C", str(checkout), "add", "."], check=True)
    assert str(provenance.commit()).endswith("-dirty")


def test_an_installed_package_has_no_commit(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / "git")
    assert provenance.commit() is None
