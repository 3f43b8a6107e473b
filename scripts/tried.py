"""Write ``docs/tried.md``: the faults and hostile inputs that tests try, and what happens now.

    python scripts/tried.py

The rows are the decorators ``@pytest.mark.tried(fault, outcome)`` of the test suite, read from its
source, so that a row without a test cannot stand there.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tried.md"

HEAD = """# Faults and inputs tried

Each line is tried by the test beside it, each time the test suite runs. This page is made from
the tests by `python scripts/tried.py`.
"""


def tried(test_file: Path) -> Iterator[tuple[str, str, str]]:
    """Fault, outcome and test name of each decorator in a test file, in the order of the file.

    Raises:
        ValueError: an argument is no literal string, so that it cannot be read from the source.
    """
    tree = ast.parse(test_file.read_text())
    for test in tree.body:
        for call in ast.walk(test):
            if not isinstance(call, ast.Call) or not ast.unparse(call.func).endswith("mark.tried"):
                continue
            try:
                fault, outcome = map(ast.literal_eval, call.args)
            except ValueError as error:
                place = f"{test_file.relative_to(ROOT)}:{call.lineno}"
                raise ValueError(f"{place}: tried() takes two literal strings") from error
            yield fault, outcome, getattr(test, "name", "")


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for test_file in sorted((ROOT / "tests").rglob("test_*.py")):
        rows = list(tried(test_file))
        if not rows:
            continue
        parts.append(f"\n## {test_file.relative_to(ROOT / 'tests')}\n")
        parts.append("| tried | what happens | test |\n| --- | --- | --- |")
        parts += [f"| {_cell(fault)} | {_cell(end)} | `{name}` |" for fault, end, name in rows]
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    PAGE.write_text(page())
