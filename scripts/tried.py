"""Write ``docs/tried.md``: the faults and hostile inputs that tests try, and what happens now.

    python scripts/tried.py

The rows are the marks ``pytest.mark.tried(fault, outcome)`` of the test suite, so that each row has
a test.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tried.md"

HEAD = """# Faults and inputs tried

Each line is tried by the test beside it, each time the test suite runs. This page is made from
the tests by `python scripts/tried.py`.
"""


def sections(items: Iterable[pytest.Item]) -> dict[str, str]:
    """The section of the page for each test file with a mark, by file name.

    Args:
        items: collected tests.
    """
    rows: dict[str, list[str]] = {}
    for item in items:
        name = item.path.relative_to(ROOT / "tests").as_posix()
        for mark in item.iter_markers("tried"):
            test = item.nodeid.rpartition("::")[2].partition("[")[0]
            row = f"| {_cell(mark.args[0])} | {_cell(mark.args[1])} | `{test}` |"
            if row not in rows.setdefault(name, []):
                rows[name].append(row)
    head = "| tried | what happens | test |\n| --- | --- | --- |"
    return {name: "\n".join([f"## {name}\n", head, *rows[name], ""]) for name in sorted(rows)}


def page(items: Iterable[pytest.Item]) -> str:
    """The complete page."""
    return "\n".join([HEAD, *sections(items).values()])


def _cell(text: str) -> str:
    one_line = " ".join(text.split())
    escaped = one_line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")


class _Collected:
    """A plugin that writes the page of all collected tests."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        PAGE.write_text(page(items))


if __name__ == "__main__":
    sys.exit(pytest.main(["--collect-only", "-qq", "-n", "0", str(ROOT / "tests")], [_Collected()]))
