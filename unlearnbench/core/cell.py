"""A cell: one point of the grid as plain data, its canonical form and its keys. Imports no torch.

A key is the SHA-256 of the canonical JSON of exactly the values that can change an artifact's
bytes. Keys chain: the key of an unlearned model contains that of the original, and the key of
predictions contains that of the model.
"""

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

PACKAGE = __name__.partition(".")[0]

KEEP = ("all", "predictions")
"""Valid values of ``keep``: which files of unlearned models are stored."""

AXES = ("dataset", "model", "train", "forget", "method", "defense", "attack")

# Entries that describe an option or give a location, and cannot change a result. All other entries
# of an option are in its keys. At the top level, only KEYED_SETTINGS are in keys.
NOT_KEYED = (
    *("name", "label", "traits", "threat", "space", "kinds", "root", "path", "privacy", "check"),
    *("trace_every", "checkpoint_minutes", "epochs_on"),
)
KEYED_SETTINGS = ("seed", "split", "precision")

ROWS_VERSION = 3
"""Incremented when the values of a utility metric change, or rows get new content."""

TRAINING_VERSION = 2
"""Incremented when the loop or the batches change the results of trainings and methods."""

OUTPUTS_VERSION = 2
"""Incremented when the layout of stored outputs changes."""

Option = Mapping[str, Any]
"""One option of an axis as plain data: the resolved YAML."""


ORIGINAL: Option = {"name": "original", "call": None}
"""The method without a call: its model is the original."""


NOTHING: Option = {"name": "none", "call": None}
"""The option of an axis without effect."""


class Written(str):
    """Canonical JSON, as hashed by ``digest``."""

    __slots__ = ()


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def digest(*parts: Any) -> str:
    """SHA-256 of the canonical JSON of plain values; a ``Written`` value is used as it is."""
    texts = (value if type(value) is Written else _canonical(value) for value in parts)
    return hashlib.sha256(f"[{','.join(texts)}]".encode()).hexdigest()


_written: dict[tuple[int, bool], tuple[Option, Written]] = {}


def written(option: Option, *, whole: bool = False) -> Written:
    """The canonical JSON of the keyed entries of an option, or of all entries if ``whole``.

    Each option is serialised once: a sweep has many cells and few options, and options are
    immutable.
    """
    place = id(option), whole
    if place not in _written:
        if len(_written) >= WRITTEN_AT_ONCE:
            _written.clear()
        keyed_option = option if whole else keyed(option)
        _written[place] = option, Written(_canonical(keyed_option))  # keeps the id in use
    return _written[place][1]


WRITTEN_AT_ONCE = 10_000
"""Number of cached texts: each shadow model and each request has an option of its own."""


# A sweep computes these keys once per cell, and most results are the same.


@lru_cache(maxsize=50_000)
def _original_key(
    dataset: Written, model: Written, train: Written, split: Written, precision: str, seed: int
) -> str:
    return digest("model", TRAINING_VERSION, dataset, model, train, split, precision, seed)


@lru_cache(maxsize=50_000)
def _model_key(original: str, forget: Written, method: Written) -> str:
    return digest("model", original, forget, method)


@lru_cache(maxsize=50_000)
def _short(*parts: Any) -> str:
    return digest(*parts)[:16]


NO_CALL = _short("none")
"""The key of the options without an attack or a defense."""


def _of_call(option: Option, *more: Option) -> str:
    return NO_CALL if option["call"] is None else _short(*map(written, (option, *more)))


def keyed(option: Option) -> Option:
    """The entries of an option that can change bytes.

    A function of this package is identified by module and function name, ``scrub.scrub``, because
    its folder does not change a result. A user's function is identified by its full path.
    """
    return {key: _without_folders(value) for key, value in option.items() if key not in NOT_KEYED}


def _without_folders(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {
        key: identity(inner) if key == "_target_" else _without_folders(inner)
        for key, inner in value.items()
    }


def identity(path: Any) -> Any:
    """The identity of the function at a dotted path in keys; see `keyed`."""
    if not isinstance(path, str) or not path.startswith(f"{PACKAGE}."):
        return path
    return ".".join(path.rsplit(".", 2)[-2:])


def findable(path: str) -> bool:
    """Whether a dotted path names something in an existing module.

    For a user's path only the first name is checked: importing the rest may take seconds.
    """
    module, _, function = path.rpartition(".")
    if not all(map(str.isidentifier, [*module.split("."), function])):
        return False
    top = module.partition(".")[0]
    try:
        if top == PACKAGE:
            return find_spec(module) is not None
        # A worker also searches the working folder; a script does not.
        return bool(find_spec(top) or PathFinder.find_spec(top, [os.getcwd()]))
    except (ImportError, ValueError):
        return False


def target(call: Option) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that ``_target_`` names, and its arguments.

    Raises:
        ValueError: the function does not exist.
    """
    module, _, name = call["_target_"].rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"_target_={call['_target_']}: cannot be imported ({error})") from error
    return function, {key: value for key, value in call.items() if key != "_target_"}


@dataclass(frozen=True)
class Cell:
    """One point of the grid, as plain data.

    Attributes:
        seed: seed of the model: initial weights, batch orders, all draws of a method.
        split: settings of the split of training rows; fixed over a sweep of seeds.
        precision: precision of training, in Lightning's notation.
        cuda_graphs: whether a GPU may replay training steps; like the device, in no key.
        shadow: options in which the attacker's own models differ, by axis: transfer.
        reference: the option that every method is compared with, ``method=retrain``.
        overrides: settings that differ from the defaults of their options, as typed by a user.
        tuned: source of the method's tuned settings, ``name``, and duration of their search,
            ``seconds`` (None for published settings) on the device ``measured_on``; or None.
        keep: ``all``, or ``predictions``: no weights of unlearned models; in no key.
    """

    dataset: Option
    model: Option
    train: Option
    forget: Option
    method: Option
    defense: Option
    attack: Option
    seed: int
    split: Option
    precision: str
    reference: Option
    overrides: str = ""
    cuda_graphs: bool = True
    shadow: Mapping[str, Option] = field(default_factory=dict)
    keep: str = "all"
    tuned: Option | None = None

    protocol: ClassVar[str] = ""
    """The protocol by which an attack draws the model; "" for a cell of the grid."""

    shares_preparation: ClassVar[bool] = False
    """Whether cells of several forget sets share the state of a blind ``prepare`` step."""

    @property
    def names(self) -> dict[str, str]:
        """The option's name on each axis."""
        return {axis: getattr(self, axis)["name"] for axis in AXES}

    @property
    def traits(self) -> Option:
        """Declared properties of the method, such as ``from_scratch`` or ``uses_val``."""
        return self.method.get("traits") or {}

    @property
    def model_seed(self) -> int:
        """The seed of the cell's model; ``second_retrain`` uses the cell's seed plus one."""
        return self._seed_under(self.method)

    @property
    def kind(self) -> Literal["original", "retrained", "unlearned"]:
        """The kind of the cell's model."""
        if self.is_original:
            return "original"
        return "retrained" if self.from_scratch else "unlearned"

    @property
    def from_scratch(self) -> bool:
        """Whether the method trains a fresh net and needs no original."""
        return bool(self.traits.get("from_scratch", False))

    @property
    def is_original(self) -> bool:
        """Whether the cell has no method call, so that its model is the original."""
        return self.method["call"] is None

    @cached_property
    def original_key(self) -> str:
        """Key of the original. It excludes the forget set: all forget sets share an original."""
        return self._original_key_under(self.method)

    @cached_property
    def model_key(self) -> str:
        """Key of the cell's model."""
        return self._model_key_under(self.method)

    # These functions compute the keys of this cell and of its reference, without making a cell for
    # the reference.

    def _seed_under(self, method: Option) -> int:
        return self.seed + int((method.get("traits") or {}).get("seed_offset", 0))

    def _original_key_under(self, method: Option) -> str:
        options = map(written, (self.dataset, self.model, self.train))
        split = written(self.split, whole=True)
        return _original_key(*options, split, self.precision, self._seed_under(method))

    def _model_key_under(self, method: Option) -> str:
        original = self._original_key_under(method)
        if method["call"] is None:
            return original
        return _model_key(original, written(self.forget), written(method))

    def _predictions_key_under(self, method: Option) -> str:
        model = self._model_key_under(method)
        return digest("predictions", OUTPUTS_VERSION, model, *self.key_parts())

    def key_parts(self) -> list[Any]:
        """The values, in addition to the model, that stored outputs depend on."""
        return [self.queries] if self.queries > 1 else []

    @property
    def prepared_key(self) -> str:
        """Key of the state of the ``prepare`` step; the method's other settings are not in it.

        The forget set is not in it either if the trait ``prepares_blind`` hides it.
        """
        forget = None if self.traits.get("prepares_blind") else written(self.forget)
        made = self.method["prepare"], self.method["version"]
        return digest("prepared", self.original_key, forget, *made)

    @cached_property
    def predictions_key(self) -> str:
        """Key of the model's outputs, on all rows of the data set or on the rows of its split.

        For a request pair they include the outputs of the model before the request, which has its
        own seed. For single deletions the changes of parameters are stored.
        """
        return self._predictions_key_under(self.method)

    @cached_property
    def reference_key(self) -> str:
        """Key of the predictions of the reference model."""
        return self._predictions_key_under(self.reference)

    @property
    def queries(self) -> int:
        """Number of views of each row that a model predicts: the row itself, then augmented."""
        return int(self.attack.get("queries", 1)) if self.attack["call"] is None else 1

    @cached_property
    def utility_key(self) -> str:
        """Key of the utility rows, one set per model: attack none, defense none."""
        compared = self.predictions_key, self.reference_key
        names = {**self.names, "defense": "none", "attack": "none"}
        # The settings that ε depends on.
        privacy = [_without_folders(self.train["privacy"])] if "privacy" in self.train else []
        about = self.seed, compared, written(self.forget), *privacy
        return digest("rows", ROWS_VERSION, names, *about, *self._searched)

    @property
    def _searched(self) -> list[Any]:
        """Cost of the search for the method's settings, without the name of their folder."""
        return [] if self.tuned is None else [{**self.tuned, "name": None}]

    # Keys by which tables group rows: they depend on content, not on how it was typed.

    @cached_property
    def setup_key(self) -> str:
        """Key of the settings that comparable methods share, without the seed."""
        options = map(written, (self.dataset, self.model, self.train, self.forget))
        split = written(self.split, whole=True)
        privacy = Written(_canonical(_without_folders(self.train.get("privacy"))))
        return _short(*options, split, self.precision, privacy)

    @cached_property
    def method_key(self) -> str:
        """Key of its method and of the search for the settings."""
        ahead = self.model_seed - self.seed
        return _short(written(self.method), ahead, *map(digest, self._searched))

    @cached_property
    def defense_key(self) -> str:
        """Key of its defense."""
        return _of_call(self.defense)

    @cached_property
    def attack_key(self) -> str:
        """Key of its attack, and of the attacker's data and model."""
        return _of_call(self.attack, *self.shadow.values())

    @cached_property
    def key(self) -> str:
        """Key of the rows of its attack; that of the utility rows without an attack."""
        if self.attack["call"] is None:
            return self.utility_key
        attacked = map(written, (self.defense, self.attack, *self.shadow.values()))
        return digest("rows", self.utility_key, self.names, *attacked)

    @property
    def trace_every(self) -> int | None:
        """Epochs between two recordings of the model along its run; None without a trace."""
        every: int | None = self.train.get("trace_every")
        return every

    @property
    def checkpoint_minutes(self) -> float | None:
        """Minutes between two checkpoints of a training; None writes none."""
        minutes: float | None = self.train.get("checkpoint_minutes")
        return minutes

    @property
    def trace_key(self) -> str | None:
        """Key of the trace of the model, a separate artifact; None without a trace."""
        every = self.trace_every
        return None if every is None else digest("trace", self.model_key, every)

    @property
    def trace_rows_key(self) -> str | None:
        """Key of the rows of the trace, which depend on the forget set; None without a trace."""
        if self.trace_key is None:
            return None
        return digest("rows", "trace", ROWS_VERSION, self.utility_key, self.trace_key)

    @property
    def row_keys(self) -> set[str]:
        """Keys of all rows of the cell."""
        return {key for key in (self.key, self.utility_key, self.trace_rows_key) if key}

    def original(self) -> "Cell":
        """The cell of the original that this cell's model starts from."""
        return replace(self, method=ORIGINAL, seed=self.model_seed)

    @property
    def start(self) -> "Cell | None":
        """The cell of the original that must exist before this cell's outputs; None without one.

        An original from a user's file also precedes retraining, so that a file of another net is
        refused before any training.
        """
        if self.is_original:
            return None
        if not self.from_scratch:
            return self.original()
        return replace(self, method=ORIGINAL) if "path" in self.train else None

    def stored_models(self) -> list["Cell"]:
        """The cells of the stored models that its outputs are computed from."""
        return [self]

    @property
    def reference_classifier(self) -> "Cell | None":
        """The original that evaluates a white-box attack; None for other attacks.

        An attack with the trait ``compared`` is evaluated with the cell's own original and
        retrained model. The seed is the cell's plus two; plus one is that of ``second_retrain``.
        The classifier is trained even if the original under attack comes from a file.
        """
        traits = self.attack.get("traits") or {}
        if not traits.get("white_box") or traits.get("compared"):
            return None
        trained = {k: v for k, v in self.train.items() if k not in ("path", "content")}
        return replace(self, method=ORIGINAL, train=trained, seed=self.seed + 2)

    def attackers(self) -> "Cell":
        """This cell with the attacker's own data and model."""
        axes: dict[str, Any] = dict(self.shadow)
        return replace(self, **axes, shadow={})
