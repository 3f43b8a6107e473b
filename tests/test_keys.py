"""Keys of cells are held to a file: a change of the code that changes no number changes no key.

Where a key is to change, for a version went up, ``python tests/test_keys.py`` writes them anew.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cells import composed

from unlearnbench.core.cell import AXES, Cell, identity, keyed
from unlearnbench.core.resources import options_folder

GOLDEN = Path(__file__).parent / "keys.json"

CELLS = (
    (),
    ("method=original",),
    ("method=retrain",),
    ("method=second_retrain",),
    ("method=scrub", "method.call.sgd.lr=0.1"),
    ("method=msg", "tuned=published"),
    ("method=sisa",),
    ("method=sisa_retrain",),
    ("method=amnesiac", "train.trace_every=1", "seed=3"),
    ("model=resnet18", "train=deep_unlearn", "method=rni_as_run", "precision=bf16-mixed"),
    ("model=mlp", "train=dp_sgd", "attack=umia", "defense=temperature"),
    ("dataset=wine", "model=ridge", "train=exact", "attack=hrec", "method=retrain"),
    ("dataset=breast_cancer", "model=random_forest", "train=estimator", "method=retrain"),
    ("attack=lira", "shadow_models.models=32", "method=gradient_ascent"),
    ("attack=rmia", "forget.call.seed=5"),
    ("attack=ulira", "method=cfw"),
    ("attack=double_output", "request_pairs.requests=5", "defense=label_only"),
    ("attack=class_shadow", "forget=by_class", "method=random_labels"),
    ("attack=model_inversion", "method=unsir", "split.val=0.2"),
    ("attack=relearn", "method=fisher"),
    ("attack=weights", "method=influence", "seed=7"),
)

KEYS = (
    *("key", "utility_key", "original_key", "model_key", "predictions_key", "reference_key"),
    *("setup_key", "method_key", "defense_key", "attack_key", "trace_rows_key"),
)


def _keys(cell: Cell) -> dict[str, Any]:
    keys = {name: getattr(cell, name) for name in KEYS}
    return keys | ({"prepared_key": cell.prepared_key} if "prepare" in cell.method else {})


@pytest.mark.parametrize("overrides", CELLS, ids=" ".join)
def test_keys_are_those_on_file(overrides: tuple[str, ...]) -> None:
    assert _keys(composed(*overrides)) == json.loads(GOLDEN.read_text())[" ".join(overrides)]


def _targets(value: Any) -> set[str]:
    if not isinstance(value, dict):
        return set()
    here = {value["_target_"]} if "_target_" in value else set()
    return here.union(*map(_targets, value.values()))


def _shipped() -> list[dict[str, Any]]:
    files = [file for axis in AXES for file in (options_folder() / axis).glob("*.yaml")]
    return [yaml.safe_load(file.read_text()) for file in files]


def test_where_a_function_lies_is_in_no_key() -> None:
    options = _shipped()
    texts = {option["name"]: json.dumps(keyed(option)) for option in options}
    assert not [name for name, text in texts.items() if "unlearnbench." in text]
    targets = set().union(*map(_targets, options))
    assert len({identity(target) for target in targets}) == len(targets), "two of the same name"


def test_a_users_function_counts_by_its_whole_path() -> None:
    for path in ("own.method.scrub.scrub", "scrub.scrub", "unlearnbench_more.scrub.scrub"):
        assert keyed({"call": {"_target_": path}}) == {"call": {"_target_": path}}


def test_the_version_of_a_method_is_in_the_key_of_what_it_prepared() -> None:
    cell = composed("method=sisa")
    method = {**cell.method, "version": cell.method["version"] + 1}
    other = type(cell)(**{**vars(cell), "method": method})
    assert other.prepared_key != cell.prepared_key


if __name__ == "__main__":
    golden = {" ".join(overrides): _keys(composed(*overrides)) for overrides in CELLS}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
