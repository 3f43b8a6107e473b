"""Design rules held by a walk over the code: which module imports which, how long things get."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "unlearnbench"
FILES = sorted(PACKAGE.rglob("*.py"))
OPTION_FOLDERS = ("dataset", "model", "forget", "method", "defense", "attack")

LAYERS = (
    "core",
    "metric",
    "convex",
    "store",
    "config",
    "results",
    "protocol",
    "model",
    "dataset",
    "forget",
    "defense",
    "report",
    "train",
    "method",
    "attack",
    "pipeline",
    "search",
    "check",
    "sweep",
    "tune",
    "cli",
    "__init__",
    "__main__",
)
"""Bottom to top: a folder imports only what stands before it."""

ONLY_IN = {
    "lightning": ("train/loop.py",),
    "submitit": ("sweep/submit.py", "sweep/trusted.py"),
    "optuna": ("search/journal_study.py",),
    "opacus": ("train/dp_sgd.py",),
    "hydra": ("config/", "cli/"),
}
"""Where a library is imported."""

TORCH_IN = (
    *("core/data.py", "core/task.py", "core/seeding.py", "protocol/_audit.py", "results/public.py"),
    *("model/", "dataset/", "forget/", "train/", "method/", "attack/", "pipeline/", "check/"),
    *("convex/features.py", "search/trial.py", "sweep/worker.py", "sweep/scheduler.py"),
)
"""Where torch and what imports it may be imported: planning and reports start without them."""

HEAVY = {"torch", "torchvision", "timm", "lightning", "sklearn", "safetensors"}


def room(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_go_one_way() -> None:
    assert {room(path) for path in FILES} == set(LAYERS)
    for path in FILES:
        below = {*LAYERS[: LAYERS.index(room(path)) + 1]}
        names = [name.split(".") for name in imported(path)]
        upward = {
            parts[1] for parts in names if parts[0] == PACKAGE.name and len(parts) > 1
        } - below
        assert not upward, f"{path} imports {upward}, which stands above it"


def test_libraries_are_imported_where_they_belong() -> None:
    for path in FILES:
        libraries = {name.split(".")[0] for name in imported(path)}
        inside = str(path.relative_to(PACKAGE))
        for library, homes in ONLY_IN.items():
            assert library not in libraries or inside.startswith(homes), f"{path}: {library}"
        assert not libraries & HEAVY or inside.startswith(TORCH_IN), f"{path}: {libraries & HEAVY}"


def test_modules_are_named_after_what_they_know() -> None:
    vague = {"utils", "util", "helpers", "common", "base", "misc", "tools"}
    assert not [path for path in FILES if path.stem in vague]


AMBIENT = r"\.cuda\(\)|globals\(\)|torch\.manual_seed|\b__file__\b"
"""State of the process that results would depend on, and paths that break when a file moves."""


def test_nothing_ambient() -> None:
    ambient = {path for path in FILES if re.search(AMBIENT, path.read_text())}
    assert {path.relative_to(PACKAGE) for path in ambient} <= {Path("core/seeding.py")}


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room(p) == "method" and p.stem[0] != "_"],
    ids=lambda p: p.stem,
)
def test_a_method_is_one_short_file_with_one_public_function_beside_prepare(path: Path) -> None:
    tree = ast.parse(path.read_text())
    public = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    steps = [path.stem] if public == [path.stem] else [path.stem, "prepare"]
    assert public == steps
    lines = path.read_text().split('"""\n', 1)[1].splitlines()
    lines = [line for line in lines if not re.match("(from|import) ", line)]
    assert len(lines) <= 60 + 30 * (len(steps) - 1)


def test_every_method_and_attack_file_has_its_option_and_its_test() -> None:
    for folder in ("method", "attack", "forget"):
        for path in (PACKAGE / folder).glob("[!_]*.py"):
            assert (ROOT / "conf" / folder / f"{path.stem}.yaml").is_file()
            assert (ROOT / "tests" / folder / f"test_{path.stem}.py").is_file()
