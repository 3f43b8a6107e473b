"""Every YAML composes, names itself, and says exactly what its function takes."""

import importlib
import inspect
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from cells import composed
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from unlearnbench.config import overrides as overrides_module
from unlearnbench.config import validate
from unlearnbench.config.compose import Composer, expand, study
from unlearnbench.config.overrides import plain_data
from unlearnbench.core.cell import AXES
from unlearnbench.core.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = [(axis, name) for axis in AXES for name in validate.options(axis)]
GIVEN = {  # what the harness passes beside the YAML's `call`
    "train": {"model", "batches", "loss"},
    "forget": {"train_rows", "y_N", "path"},
    "method": {"model", "task"},
    "model": {"shape", "n_classes"},
    "dataset": {"root", "path", "fingerprint"},
    "attack": {"predictions", "shadow", "deletions", "white_box", "models"},
    "defense": {"predictions"},
}


@cache
def own_files() -> TemporaryDirectory[str]:
    """Files of a user's own, of which the headers are read; deleted when the process ends."""
    folder = TemporaryDirectory()
    np.savez(
        Path(folder.name) / "x.npz", x_train=np.zeros((5, 2)), y_train=np.array([0, 1, 0, 1, 0])
    )
    (Path(folder.name) / "rows.txt").write_text("1")
    save_file({"weight": np.zeros(1)}, Path(folder.name) / "x.safetensors")
    return folder


def mandatory(name: str) -> list[str]:
    """The settings that an option has no default for."""
    folder = Path(own_files().name)
    given = {
        "npz": f"dataset.path={folder / 'x.npz'}",
        "rows": f"forget.path={folder / 'rows.txt'}",
        "acs_income": f"dataset.path={folder}",
        "utkface": f"dataset.path={folder}",
        "timm": "model.call.architecture=resnet10t",
        "checkpoint": f"train.path={folder / 'x.safetensors'}",
    }
    return [given[name]] if name in given else []


def option(axis: str, name: str) -> dict[str, Any]:
    return dict(getattr(composed(f"{axis}={name}", *mandatory(name)), axis))


@pytest.mark.parametrize(("axis", "name"), OPTIONS)
def test_option_composes_and_names_itself(axis: str, name: str) -> None:
    found = option(axis, name)
    assert found["name"] == name
    assert found["label"]
    assert isinstance(found["version"], int)


@pytest.mark.parametrize(("axis", "name"), OPTIONS)
def test_call_is_the_functions_signature_both_ways(axis: str, name: str) -> None:
    found = option(axis, name)
    if found["call"] is None:
        assert (axis, name) in {("method", "original"), ("defense", "none"), ("attack", "none")}
        return
    for call in filter(None, (found["call"], found.get("prepare"))):
        module, _, function = call["_target_"].rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), function))
        keywords = {p.name: p for p in signature.parameters.values() if p.name not in GIVEN[axis]}
        assert set(call) - {"_target_"} == set(keywords)
        for parameter in keywords.values():
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert parameter.default is inspect.Parameter.empty, "defaults live in the YAML alone"


@pytest.mark.parametrize("name", validate.options("method"))
def test_space_covers_every_hyper_parameter(name: str) -> None:
    method = option("method", name)
    parts = {"": method["call"], "prepare": method.get("prepare")}
    leaves = {
        path
        for prefix, part in parts.items()
        for path, _ in overrides_module.leaves(part or {}, prefix)
        if not path.endswith("_target_")
    }
    assert set(method["space"]) == leaves


def test_every_study_composes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What several of them choose alike is composed once; checking only reads it."""

    def once(name: str, *, overrides: list[str], return_hydra_config: bool = False) -> Any:
        key = (*overrides, return_hydra_config)
        if key not in found:
            found[key] = compose(name, overrides, return_hydra_config)
        return found[key]

    found: dict[tuple[str | bool, ...], Any] = {}
    compose = validate.hydra_compose
    monkeypatch.setattr(validate, "hydra_compose", once)
    for path in (ROOT / "conf" / "sweep").glob("*.yaml"):
        words = study([f"sweep={path.stem}"])
        assert words
        assert expand(words)


def test_yaml_files_are_the_options() -> None:
    for axis in AXES:
        files = {path.stem for path in (ROOT / "conf" / axis).glob("*.yaml")}
        assert files == set(validate.options(axis))
        for name in files:
            assert OmegaConf.load(ROOT / "conf" / axis / f"{name}.yaml").name == name


DESCRIBE = ("name", "label", "version", "threat", "kinds", "traits", "space", "fingerprint")
PATHS = ("path", "root", "content")


@pytest.mark.parametrize(("axis", "name"), OPTIONS)
@pytest.mark.tried("a shipped setting without a range or a choice", "a test fails")
def test_each_setting_declares_what_is_valid(axis: str, name: str) -> None:
    found = option(axis, name)
    words = [f"{axis}={name}", *mandatory(name)]
    with validate.hydra_ready():
        declared = plain_data(validate.hydra_compose("config", overrides=words)[axis]).get(
            "valid", {}
        )
    settings = {
        key: value
        for key, value in overrides_module.leaves(found)
        if key.split(".")[0] not in (*DESCRIBE, *PATHS)
        and not key.endswith("_target_")
        and not isinstance(value, bool)
    }
    assert set(settings) == set(declared)


HOSTILE = ("null", "''", "nan", "-inf", "-1", "0", "1e300", "true", "[1,2]", "{a: 1}", "x y", "[]")
HOSTILE += ('"it\'s"', "~/nofile", "../x", "${nonexistent}", "${seed}", f"'{'x' * 5000}'", "ü猫")


@pytest.mark.parametrize(("axis", "name"), OPTIONS)
@pytest.mark.tried(
    "hostile values for each setting of each option, two of nineteen a setting",
    "valid and of its default's type, or one line with the key",
)
def test_each_setting_is_valid_or_refused_in_one_line(axis: str, name: str) -> None:
    words = (f"{axis}={name}", *mandatory(name))
    with validate.hydra_ready():
        parts = Composer()
        settings = dict(overrides_module.leaves(parts._default(axis, words[:1]), axis))
        for place, (key, default) in enumerate(settings.items()):
            if key.startswith(f"{axis}.space."):
                continue
            for value in (HOSTILE * 2)[2 * place % len(HOSTILE) :][:2]:
                others = [word for word in words if not word.startswith(f"{key}=")]
                refusal = ""
                try:
                    changed = parts.option(axis, (*others, f"{key}={value}"))
                except ConfigError as error:
                    refusal = str(error)
                if refusal:
                    assert key in refusal
                    assert len(refusal.splitlines()) == 1
                    assert len(refusal) < 400
                    continue
                accepted = dict(overrides_module.leaves(changed, axis))[key]
                if default in (None, "???") or accepted is None:
                    assert not isinstance(accepted, dict)
                else:
                    assert type(accepted) is type(default)
