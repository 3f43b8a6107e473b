"""Composition, keys and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import Cells

from unlearnbench.config import compose, overrides, validate
from unlearnbench.core.cell import AXES, NOT_KEYED, digest
from unlearnbench.core.errors import ConfigError


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [path]
    return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]


def changed(value: Any, path: tuple[str, ...]) -> Any:
    if not path:
        return [value, "changed"]
    return {**value, path[0]: changed(value[path[0]], path[1:])}


CELL = compose.cells([["attack=umia"]])[0]
LEAVES = [(axis, *path) for axis in AXES for path in leaves(getattr(CELL, axis))]


@pytest.mark.parametrize("leaf", LEAVES, ids=".".join)
def test_key_leaves_change_the_key_and_the_others_do_not(leaf: tuple[str, ...]) -> None:
    axis, *path = leaf
    other = replace(CELL, **{axis: changed(getattr(CELL, axis), tuple(path))})
    if path[0] in NOT_KEYED and path[0] != "name":
        assert other.key == CELL.key
    else:
        assert other.key != CELL.key
    model = axis in ("dataset", "model", "train", "forget", "method")
    same_model = other.model_key == CELL.model_key
    assert same_model == (not model or path[0] in NOT_KEYED)
    original = axis in ("dataset", "model", "train")
    same_original = other.original_key == CELL.original_key
    assert same_original == (not original or path[0] in NOT_KEYED)


@pytest.mark.parametrize(
    ("word", "same_original", "same_model"),
    [
        ("seed=5", False, False),
        ("split.seed=5", False, False),
        ("split.val=0.3", False, False),
        ("precision=bf16-mixed", False, False),
        ("forget.call.seed=5", True, False),
        ("method.call.epochs=9", True, False),
        ("device=cuda", True, True),
        ("cuda_graphs=false", True, True),
        ("workers=7", True, True),
        ("paths.results=elsewhere", True, True),
        ("controls=[]", True, True),
    ],
)
def test_settings_in_keys(word: str, same_original: bool, same_model: bool) -> None:
    (other,) = compose.cells([["attack=umia", word]])
    assert (other.original_key == CELL.original_key) == same_original
    assert (other.model_key == CELL.model_key) == same_model
    assert (other.key == CELL.key) == same_model


def test_a_value_is_its_defaults_type(cell: Cells) -> None:
    assert cell("method.call.sgd.lr=1").model_key == cell("method.call.sgd.lr=1.0").model_key
    spelled = cell("method.call.epochs=5")
    assert spelled.key == cell().key
    assert spelled.overrides == cell().overrides


def test_overrides_column_says_what_differs(cell: Cells) -> None:
    found = cell("method.call.epochs=7", "seed=3", "split.seed=9", "device=cpu")
    assert found.overrides == "train.call.epochs=2 method.call.epochs=7 split.seed=9"
    assert cell("model=mlp", "model.call.hidden=[8, 4]").overrides.split()[0].endswith("=[8,4]")


def test_second_retrain_is_the_next_seeds_retrain(cell: Cells) -> None:
    second, retrain = cell("method=second_retrain", "seed=4"), cell("method=retrain", "seed=5")
    assert second.model_key == retrain.model_key
    assert second.predictions_key == retrain.predictions_key
    assert second.utility_key != retrain.utility_key


def test_original_does_not_depend_on_what_follows(cell: Cells) -> None:
    keys = {
        cell(*words).original().model_key
        for words in (
            ["method=finetune"],
            ["method=random_labels", "method.call.epochs=1"],
            ["forget=by_class"],
            ["method=original"],
        )
    }
    assert len(keys) == 1


def test_from_the_parts_equals_composed_whole(cell: Cells) -> None:
    words = ["dataset=wine", "model=mlp", "method=neggrad_plus", "method.call.alpha=0.5", "seed=2"]
    found = cell(*words)
    with validate.hydra_ready():
        whole = validate.hydra_compose("config", overrides=words)
    for axis in ("dataset", "model", "method", "forget"):
        composed = overrides.plain_data(whole[axis])
        composed.pop(overrides.VALID)
        assert dict(getattr(found, axis)) == composed


def test_one_composition_per_distinct_option(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = validate.hydra_compose
    monkeypatch.setattr(
        validate, "hydra_compose", lambda *a, **k: (calls.append(k), real(*a, **k))[1]
    )
    with validate.hydra_ready():
        grid = compose.expand(["method=finetune,random_labels,neggrad_plus", "seed=range(60)"])
        found = compose.cells(grid, ["original", "retrain"])
    assert len(found) == 60 * 5
    assert len(calls) < 15


def test_top_level_shadows_reach_the_attacks_that_have_some() -> None:
    """One sweep of attacks with and without a population, as typed on the attacks themselves."""
    once = ["attack=umia,lira,ulira,rmia", "shadow_models.models=16"]
    found = {one.attack["name"]: one for one in compose.cells(compose.expand(once))}
    plain = {one.attack["name"]: one for one in compose.cells(compose.expand(once[:1]))}
    assert found["umia"] == plain["umia"]
    assert found["umia"].overrides == ""
    typed = compose.expand(["attack=lira,ulira,rmia", "attack.shadow_models.models=16"])
    for one in compose.cells(typed):
        name = one.attack["name"]
        assert one == found[name]
        assert one.attack["shadow_models"]["models"] == 16
        assert one.overrides == "attack.shadow_models.models=16"
        assert plain[name].attack["shadow_models"]["models"] == 64
        assert plain[name].overrides == ""
        assert plain[name].key != one.key
        assert plain[name].utility_key == one.utility_key


def test_top_level_zoo_reaches_double_output_alone() -> None:
    words = ["attack=umia,double_output", "request_pairs.size=50", "request_pairs.online=true"]
    umia, double = compose.cells(compose.expand(words))
    assert umia.overrides == ""
    assert double.overrides == "attack.request_pairs.size=50 attack.request_pairs.online=True"
    (typed,) = compose.cells([["attack=double_output", *(f"attack.{word}" for word in words[1:])]])
    assert typed == double


def test_what_an_attack_says_itself_goes_before_the_top_level() -> None:
    words = ["attack=lira", "shadow_models.models=16", "attack.shadow_models.models=32"]
    (one,) = compose.cells([words])
    assert one.attack["shadow_models"]["models"] == 32


def test_compositions_do_not_grow_with_seeds_under_a_population(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    real = validate.hydra_compose
    monkeypatch.setattr(
        validate, "hydra_compose", lambda *a, **k: (calls.append(k), real(*a, **k))[1]
    )

    def compositions(seeds: int) -> int:
        calls.clear()
        words = ["attack=lira,double_output", "shadow_models.models=16", "request_pairs.size=50"]
        found = compose.cells(compose.expand([*words, f"seed=range({seeds})"]))
        assert len(found) == 2 * seeds
        return len(calls)

    assert compositions(1) == compositions(100) < 12


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["dataset=npz", "dataset.path=x.npz"], "dataset.path"),
        (["model=timm", "model.call.architecture=resnet10t,resnet18"], "model.call.architecture"),
    ],
)
def test_a_key_without_a_default_is_one_in_a_sweep_too(words: list[str], key: str) -> None:
    grid = compose.expand([*words, "seed=0,1"])
    assert all(any(word.startswith(f"{key}=") for word in one) for one in grid)


def test_interpolation_to_another_axis_is_that_of_the_cell(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(
        "defaults: [finetune, _self_]\nname: mine\ncall:\n  epochs: ${train.call.epochs}\n"
    )
    words = [f"hydra.searchpath=[file://{tmp_path}]", "method=mine"]
    found = compose.cells([[*words, "train.call.epochs=11"], [*words, "train.call.epochs=12"]])
    assert [one.method["call"]["epochs"] for one in found] == [11, 12]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method=finetun"], "method=finetun: no such option; did you mean finetune or "),
        (["metod=finetune"], "metod is no key here; did you mean method or model?"),
        (["method.call.epoch=3"], "method.call.epoch is no key here; did you mean epochs?"),
        (["+method.call.tau=3"], "method.call.tau is no key here"),
        (["~method.call.epochs"], "method.call.epochs is missing"),
        (["~seed"], "seed is missing"),
        (["method.call.epochs=three"], "method.call.epochs=three: must be int"),
        (["method.call.epochs=2.5"], "method.call.epochs=2.5: must be int"),
        (["method.call.sgd.lr=true"], "method.call.sgd.lr=True: must be float"),
        (["method.call.sgd=1"], "method.call.sgd=1: holds several keys: lr, momentum"),
        (["seed=x"], "seed=x: must be int"),
        (
            ["attack=lira", "shadow_models.model=8"],
            "shadow_models.model is no key here; did you mean models?",
        ),
        (["attack=lira", "shadow_models.models=x"], "shadow_models.models=x: must be int"),
        (["request_pairs.sizes=8"], "request_pairs.sizes is no key here; did you mean size?"),
        (["zoo.size=8"], "zoo.size is no key here; its name is request_pairs now"),
        (["shadows.models=8"], "shadows.models is no key here; its name is shadow_models now"),
        (["deletions.count=3"], "its name is single_deletions now"),
        (["attack=ulira", "attack.shadows.pool=1"], "its name is shadow_models now"),
        (["dataset=npz"], "dataset.path has no default: say dataset.path="),
    ],
)
def test_mistakes_are_one_line_with_the_nearest_name(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose.cells([words])
    line = compose.explain(caught.value, words)
    assert told in line
    assert "\n" not in line


def test_an_option_that_looks_outside_is_told_apart_by_what_it_sees() -> None:
    """``single_deletions.count`` is the attack's by interpolation, in whatever order."""
    with validate.hydra_ready():
        parts = compose.Composer()
        counts = [
            parts.cell(("attack=hrec", *words)).attack["single_deletions"]["count"]
            for words in ((), ("single_deletions.count=3",), ("single_deletions.count=4",), ())
        ]
    assert counts == [counts[0], 3, 4, counts[0]]


def test_a_key_of_what_a_study_chooses_needs_the_option_beside_it() -> None:
    """Hydra reads the command line with the default options, and so do we."""
    words = ["sweep=amnesiac_digits", "attack.call.starts=3"]
    with pytest.raises(ConfigError, match="name attack=… beside it, as sweep=amnesiac_digi"):
        compose.study(words)
    assert "method=finetune,random_labels,wrong_labels,amnesiac" in compose.study(
        [*words, "attack=model_inversion"]
    )


def test_an_empty_sweep_is_told() -> None:
    with pytest.raises(ConfigError, match="a sweep is empty in seed=range"):
        compose.expand(["seed=range(0)"])


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        (["dataset=cifar10"], 182),
        (["dataset=digits"], 182),
        (["dataset=mnist"], 50),
        (["dataset=mnist", "train.call.epochs=3"], 3),
    ],
)
def test_the_paper_s_training_has_the_epochs_of_its_data_set(words: list[str], epochs: int) -> None:
    (cell,) = compose.cells([["model=resnet18", "train=deep_unlearn", *words]])
    assert cell.train["call"]["epochs"] == epochs


def test_a_study_stands_for_its_axes() -> None:
    assert compose.study(["seed=1"]) == []
    assert compose.study(["sweep=quickstart", "seed=1"]) == [
        "method=glob(*)",
        "tuned=digits_cnn",
        "seed=range(3)",
    ]
    with pytest.raises(ConfigError, match="did you mean quickstart"):
        compose.study(["sweep=quickstar"])


def test_content_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    (folder / "b").write_bytes(b"2")
    first = compose.content_fingerprint(folder)
    (folder / "b").write_bytes(b"3")
    second = compose.content_fingerprint(folder)
    (folder / "b").rename(folder / "c")
    third = compose.content_fingerprint(folder)
    assert len({first, second, third, compose.content_fingerprint(folder / "a")}) == 4
    with pytest.raises(FileNotFoundError):
        compose.content_fingerprint(tmp_path / "nowhere")


def test_a_users_file_is_in_the_key(tmp_path: Path, cell: Cells) -> None:
    file = tmp_path / "rows.txt"
    file.write_text("1 2 3")
    first = cell("forget=rows", f"forget.path={file}").model_key
    other = tmp_path / "moved.txt"
    file.rename(other)
    assert cell("forget=rows", f"forget.path={other}").model_key == first
    other.write_text("1 2 4")
    assert cell("forget=rows", f"forget.path={other}").model_key != first


def test_digest_is_of_canonical_json() -> None:
    assert digest({"b": 1, "a": 2}) == digest(json.loads('{"a": 2, "b": 1}'))
    assert digest(1) != digest(1.0)


# ---------------------------------------------------------------------------------------------
# Values that are not valid.


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("forget.call.seed=null", "must be int"),
        ("seed=null", "must be int"),
        ("paths.results=null", "must be str"),
        ("method.call.epochs=-1", "must be in [0, 1e9]"),
        ("method.call.sgd.lr=nan", "must be in [0, 1e9]"),
        ("method.call.sgd.lr=inf", "must be in [0, 1e9]"),
        ("dataset.limit=0", "must be in [1, 1e9] integer or null"),
        ("dataset.limit=2.5", "must be in [1, 1e9] integer or null"),
        ("dataset.call.std=[0.0]", "must be a list, each in [1e-9, 1e9]"),
        ("precision=16-mixed", "must be 32-true, bf16-mixed or 64-true"),
        ("shadow_models.models=63", "must be in [4, 1e9] multiple of 4"),
        ("store.keep=non", "must be all or predictions"),
    ],
)
@pytest.mark.tried(
    "null, a number out of range, or a wrong word as a setting",
    "one line with the key, the value and what is valid, before anything runs",
)
def test_a_value_out_of_its_declared_range_is_refused(word: str, told: str) -> None:
    name, _, value = word.partition("=")
    with pytest.raises(ConfigError) as caught:
        compose.cells([[word]])
    assert str(caught.value).startswith(f"{name}={value}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["attack=double_output", "attack.call.classifier=forest"],
        ["attack=rmia", "attack.call.mode=onlin"],
        ["attack=ulira", "attack.call.variance=pooledd"],
        ["attack=lira", "attack.shadow_models.models=63"],
    ],
    ids=lambda words: words[1],
)
@pytest.mark.tried("a wrong word for a choice of an attack", "refused before a model is trained")
def test_a_choice_is_checked_when_it_is_composed(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        compose.cells([words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["forget.call.count=[1,2]"], "forget.call.count=[1, 2]: must be in [1, 1e9] integer"),
        (["forget.call.count={a: 1}"], "forget.call.count={'a': 1}: must be in [1, 1e9] integer"),
        (["train.trace_every=[]"], "train.trace_every=[]: must be in [1, 1e9] integer or null"),
        (["dataset.call.mean=[]"], "dataset.call.mean=[]: must be a list, each in [-1e9, 1e9]"),
        (["forget.call.fraction=1"], "forget.call.fraction=1.0: must be in (0, 1) or null"),
        (["method.name=x"], "method.name: is part of the option's YAML alone"),
        (["method.traits.ignores_forget=false"], "ignores_forget: is part of the option's YAML"),
        (["+method.valid.x=1"], "method.valid.x: is part of the option's YAML alone"),
        (["method.call._target_=nowhere.f"], "must be module.function, of a module that can be"),
        (["method.call._target_=../x"], "method.call._target_=../x: must be module.function"),
        (["train=checkpoint", "train.path=README.md", "train.check._target_=''"], "_='': must be"),
        (["train=dp_sgd", "train.privacy.epochs=1"], "must be that of train.call.epochs, 30"),
        (["dataset=mnist", "dataset.root=''"], "dataset.root='': is no path (it is empty)"),
        (["forget=rows", "forget.path=''"], "forget.path='': is no path (it is empty)"),
        (["forget=rows", f"forget.path={'x' * 5000}"], "is no path (File name too long)"),
        (["forget=rows", "forget.path='~nobody-x/a'"], "is no path (Could not determine home"),
        ([f"tuned={'x' * 5000}"], "is no path (File name too long)"),
        (["seed=~/x"], "as a text it is \"seed='~/x'\""),
        (["seed=é"], "as a text it is \"seed='é'\""),
    ],
    ids=lambda value: value[-1][:40] if isinstance(value, list) else "",
)
@pytest.mark.tried(
    "lists, maps, empty and endless texts, names of no module; name, traits or ε of an option",
    "one line with the key, the value and what is valid, before anything runs",
)
def test_a_value_of_another_kind_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose.cells([words])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("names", ["[1,2]", "[finetun]"])
def test_a_control_is_a_method(names: str) -> None:
    with pytest.raises(ConfigError, match=r"controls=\w+: no such method; "):
        compose.settings([f"controls={names}"])


@pytest.mark.tried(
    "an option of your own whose YAML lacks a function, or names it by a list",
    "one line with the key",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("call: {strength: 1}", "method.call: must give _target_, the function, or be null"),
        ("call: 3", "method.call: must give _target_"),
        ("call: {_target_: [1]}", r"method.call._target_=\[1\]: must be module.function"),
        ("call: null\ntraits: 3", "method.traits=3: must be a mapping"),
        ("call: null\nversion: x", "method.version=x: must be int"),
        ("call: null\nprepare: 3", "method.prepare=3: must be a mapping"),
        ("call: null\nname: [1]", r"method.name=\[1\]: must be a text"),
    ],
)
def test_an_option_of_ones_own_is_checked(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    name = "" if "name:" in text else "name: own\n"
    (tmp_path / "method" / "own.yaml").write_text(f"{name}{text}\n")
    with pytest.raises(ConfigError, match=f"^{message}"):
        compose.cells([[f"hydra.searchpath=[file://{tmp_path}]", "method=own"]])


def test_controls_have_the_overrides_of_their_cell(tmp_path: Path) -> None:
    """A value with a space in it is one value, whatever stands behind the space."""
    path = tmp_path / "a  method.b.npz"
    np.savez(path, x_train=np.zeros((5, 2)), y_train=np.array([0, 1, 0, 1, 0]))
    words = ["dataset=npz", f"dataset.path='{path}'"]
    control, cell = compose.cells([[*words, "method.call.epochs=1"]], ["retrain"])
    assert control.overrides == f"dataset.path='{path}'"
    assert cell.overrides == f"{control.overrides} method.call.epochs=1"


@pytest.mark.parametrize(
    "value",
    ["a b", "ab", "null", "true", "3", "it's", 'a"b', "a,b", "[a]", "x=y", "a\\", "a\\'b",
     "${seed}", "\\${seed}", "ä", "a#b", "a:b", "{a}", " a ", "~/a", "1e5", "(a)", "$a", "a\tb"],
)  # fmt: skip
@pytest.mark.tried(
    "values with spaces, quotes, backslashes, ${…} and words such as null",
    "recorded so that they can be typed again",
)
def test_recorded_overrides_can_be_typed_back(value: str) -> None:
    words = ["model=timm", f"model.call.architecture={overrides.as_typed(value)}"]
    (first,) = compose.cells([words])
    assert first.model["call"]["architecture"] == value
    (again,) = compose.cells([["model=timm", first.overrides]])
    assert again.key == first.key
    assert again.overrides == first.overrides


@pytest.mark.parametrize("value", [None, True, 3, 1e-05, -2.5, [1, 2], ["a b", "c"], [None]])
def test_values_are_typed_as_they_are_read(value: Any) -> None:
    assert overrides.below([f"x.y={overrides.as_typed(value)}"], "x")["y"] == value


@pytest.mark.tried("one file under several spellings of its path", "one data set")
def test_spellings_of_a_path_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OF_TEST", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name, label in (("a b", 0), ("ab", 1)):
        np.savez(tmp_path / name, x_train=np.zeros((5, 2)), y_train=np.array([0, 1, 0, 1, label]))
    texts = ["~/a b.npz", "a b.npz", "./a b.npz", "$OF_TEST/a b.npz", str(tmp_path / "a b.npz")]
    cells = compose.cells([["dataset=npz", f"dataset.path='{text}'"] for text in texts])
    assert len(cells) == 1
    (other,) = compose.cells([["dataset=npz", "dataset.path=ab.npz"]])
    assert other.key != cells[0].key
    assert other.overrides != cells[0].overrides


@pytest.mark.parametrize("path", ["nowhere.npz", "~/nowhere.npz"])
@pytest.mark.tried("a file that is not there", "refused, by its whole path")
def test_a_missing_file_has_no_key(path: str) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.path=/.*nowhere\.npz: there is no such file"):
        compose.cells([["dataset=npz", f"dataset.path='{path}'"]])


@pytest.mark.parametrize("sets", ["mnist,digits", "digits,mnist"])
@pytest.mark.tried("dataset.root in a sweep over data sets", "holds for those that have a root")
def test_a_setting_in_a_sweep_holds_where_it_applies(sets: str) -> None:
    cells = compose.cells(compose.expand([f"dataset={sets}", "dataset.root=/d"]))
    roots = {one.dataset["name"]: one.dataset.get("root") for one in cells}
    assert roots == {"mnist": "/d", "digits": None}
    with pytest.raises(ConfigError, match=r"dataset\.root is no key here"):
        compose.expand(["dataset=wine,digits", "dataset.root=/d"])


@pytest.mark.parametrize(
    "word",
    ["seed=${nonexistent}", "seed='${seed}'", "hydra.searchpath=nope", "hydra.searchpath=[nope]"],
)
@pytest.mark.tried("interpolations of nothing, or of themselves", "one line")
def test_what_cannot_be_composed_is_one_line(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose.cells(compose.expand([word]))
    assert "\n" not in str(caught.value)
