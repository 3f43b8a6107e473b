"""Who may import whom, and how long things may get: design rules held by a walk over the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "unlearnbench"
FILES = sorted(PACKAGE.rglob("*.py"))
OPTION_FOLDERS = ("dataset", "model", "forget", "method", "defense", "attack")

# Left to right: a module may import what stands to its left, never what stands to its right.
MAY_IMPORT = {
    "atomic": set(),
    "damage": {"words"},
    "checkpoint": {"atomic"},
    "values": {"checkpoint"},
    "seeding": {"values"},
    "train": {"checkpoint", "values", "seeding"},
    "dp_sgd": {"checkpoint", "values", "seeding", "train"},
    "objective": set(),
    "newton": {"objective"},
    "convex": {"objective", "newton"},
    "rff": set(),
    "picture": {"atomic"},
    "exact": {"convex", "model", "objective", "values"},
    "gradient": {"values"},
    "nets": {"gradient", "values"},
    "ops": {"values", "seeding", "train", "model", "gradient"},
    "metric": set(),
    "lock": {"damage"},
    "store": {"atomic", "damage", "lock"},
    "cell": set(),
    "words": set(),
    "valid": {"words"},
    "headers": set(),
    "weights": set(),
    "memory": set(),
    "machine": set(),
    "config": {"cell", "valid", "words"},
    "results": {"atomic", "damage", "lock", "words"},
    "method": {"values", "seeding", "train", "gradient", "ops", "model", "method"},
    "dataset": {"values", "seeding", "headers", "dataset"},
    "model": {"values", "seeding", "model", "rff"},
    "forget": {"values", "seeding", "forget"},
    "defense": {"values", "seeding", "defense"},
    "attack": {
        "values",
        "seeding",
        "train",
        "metric",
        "attack",
        "convex",
        "gradient",
        "nets",
        "objective",
        "rff",
        "picture",
    },
    "population": {"cell"},
    "zoo": {"cell"},
    "deletion": {"cell"},
    "split": {"cell", "deletion", "population", "zoo", "values"},
    "study": {"cell"},
    "search": {"cell", "damage", "lock", "study", "words"},
    "plan": {"cell", "deletion", "store", "study", "population", "zoo"},
    "journal": {"atomic", "damage", "lock"},
    "record": {"atomic", "cell", "lock", "plan", "results", "words"},
    "pack": {"plan"},
    "cost": {"damage", "journal", "pack", "record"},
    "pipeline": {
        "checkpoint",
        "split",
        "cell",
        "store",
        "values",
        "seeding",
        "train",
        "model",
        "weights",
    },
    "parameters": {
        "cell",
        "convex",
        "deletion",
        "exact",
        "gradient",
        "model",
        "nets",
        "objective",
        "pipeline",
        "seeding",
        "split",
        "train",
        "values",
    },
    "outputs": {
        "cell",
        "convex",
        "deletion",
        "loading",
        "metric",
        "nets",
        "parameters",
        "pipeline",
        "population",
        "seeding",
        "split",
        "train",
        "values",
        "zoo",
    },
    "loading": {"results", "store"},
    "trace": {"cell", "metric", "pipeline", "train", "values"},
    "table": {
        "cell",
        "outputs",
        "pipeline",
        "record",
        "values",
        "metric",
        "results",
        "trace",
        "words",
    },
    "trial": {
        "cell",
        "metric",
        "outputs",
        "pipeline",
        "search",
        "split",
        "study",
        "table",
        "train",
        "values",
    },
    "worker": {
        "atomic",
        "machine",
        "cell",
        "journal",
        "checkpoint",
        "memory",
        "outputs",
        "picture",
        "pipeline",
        "table",
        "plan",
        "results",
        "search",
        "slurm",
        "store",
        "study",
        "trace",
        "trial",
        "values",
    },
    "launch": {"cell", "plan", "record", "results", "store", "words"},
    "slurm": set(),
    "trusted": set(),
    "submit": {"config", "launch", "pack", "plan", "record", "slurm", "trusted", "words"},
    "progress": {"cost", "damage", "journal", "lock", "record", "results", "slurm", "store"},
    "commands": {
        "machine",
        "cell",
        "config",
        "cost",
        "damage",
        "journal",
        "launch",
        "lock",
        "pack",
        "plan",
        "progress",
        "record",
        "results",
        "slurm",
        "submit",
        "words",
    },
    "tune": {
        "atomic",
        "cell",
        "commands",
        "config",
        "launch",
        "plan",
        "record",
        "results",
        "search",
        "store",
        "study",
        "words",
    },
    "upkeep": {"cell", "config", "lock", "store", "words"},
    "report": {"atomic", "cell", "damage", "metric", "picture", "results", "report", "words"},
    "observation": {"pipeline", "values"},
    "check": {
        "cell",
        "config",
        "model",
        "observation",
        "ops",
        "pipeline",
        "seeding",
        "split",
        "values",
        "words",
    },
    "cli": {
        "atomic",
        "damage",
        "check",
        "commands",
        "config",
        "launch",
        "plan",
        "record",
        "report",
        "results",
        "tune",
        "upkeep",
        "words",
    },
    "__main__": {"cli", "commands", "damage", "memory", "report", "results", "words"},
    "__init__": {"config", "launch", "loading", "results"},
}
ONLY_IN = {
    "lightning": {"train"},
    "submitit": {"submit", "trusted"},
    "optuna": {"search"},
    "opacus": {"dp_sgd"},
    "hydra": {"config", "cli"},
}
NO_TORCH = {
    "headers",
    "valid",
    "trusted",
    "atomic",
    "damage",
    "machine",
    "cell",
    "config",
    "plan",
    "study",
    "search",
    "tune",
    "deletion",
    "picture",
    "population",
    "zoo",
    "lock",
    "store",
    "results",
    "report",
    "launch",
    "journal",
    "record",
    "pack",
    "cost",
    "slurm",
    "submit",
    "progress",
    "commands",
    "upkeep",
    "cli",
    "metric",
    "words",
    "memory",
    "__init__",
    "__main__",
}
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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    names = imported(path)
    ours = {name.split(".")[1] for name in names if name.startswith("unlearnbench.")}
    theirs = {name.split(".")[0] for name in names}
    assert ours <= MAY_IMPORT[room(path)] | {room(path)}
    for package, rooms in ONLY_IN.items():
        assert package not in theirs or room(path) in rooms, f"{package} belongs to {rooms}"
    if room(path) in NO_TORCH:
        assert not theirs & HEAVY


def test_modules_are_named_after_what_they_know() -> None:
    vague = {"utils", "util", "helpers", "common", "base", "misc", "tools"}
    assert not [path for path in FILES if path.stem in vague]


AMBIENT = r"\.cuda\(\)|globals\(\)|torch\.manual_seed|\b__file__\b"
"""State of the process that results would depend on, and paths that break when a file moves."""


def test_nothing_ambient() -> None:
    ambient = {path for path in FILES if re.search(AMBIENT, path.read_text())}
    assert {path.relative_to(PACKAGE) for path in ambient} <= {Path("seeding.py")}


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room(p) == "method" and p.stem != "__init__"],
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
    assert len(path.read_text().splitlines()) <= 60 + 30 * (len(steps) - 1)


def test_every_method_and_attack_file_has_its_option_and_its_test() -> None:
    for folder in ("method", "attack", "forget"):
        for path in (PACKAGE / folder).glob("[!_]*.py"):
            assert (ROOT / "conf" / folder / f"{path.stem}.yaml").is_file()
            assert (ROOT / "tests" / folder / f"test_{path.stem}.py").is_file()
