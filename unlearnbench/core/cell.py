"""A cell: one point of the grid as plain data, its canonical form and its keys. Imports no torch.

A key is the SHA-256 of the canonical JSON of exactly what can change an artifact's bytes. Keys
chain: the unlearned model's contains the original's, the predictions' contains the model's.
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
"""What can be kept of unlearned models."""

AXES = ("dataset", "model", "train", "forget", "method", "defense", "attack")

# What describes an option, or says where things lie, and cannot change a result. All else of an
# option is in its keys. The same holds at the top level for all that is not in KEYED_SETTINGS.
NOT_KEYED = (
    *("name", "label", "traits", "threat", "space", "kinds", "root", "path", "privacy", "check"),
    *("trace_every", "checkpoint_minutes", "epochs_on"),
)
KEYED_SETTINGS = ("seed", "split", "precision")

ROWS_VERSION = 3
"""Goes up when a utility metric changes its numbers, or rows say what earlier ones did not."""

TRAINING_VERSION = 2
"""Goes up when the loop or the batches change the numbers of trainings and methods alike."""

OUTPUTS_VERSION = 2
"""Goes up when stored outputs are laid out in another way."""

Option = Mapping[str, Any]
"""One option of an axis as plain data: the resolved YAML."""


ORIGINAL: Option = {"name": "original", "call": None}
"""The method that does nothing: its model is the original."""


NOTHING: Option = {"name": "none", "call": None}
"""The option of an axis on which nothing is done."""


class Written(str):
    """Canonical JSON, as it goes into a digest."""

    __slots__ = ()


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def digest(*parts: Any) -> str:
    """SHA-256 of the canonical JSON of some plain values, of which some may be written already."""
    texts = (part if type(part) is Written else _canonical(part) for part in parts)
    return hashlib.sha256(f"[{','.join(texts)}]".encode()).hexdigest()


_written: dict[tuple[int, bool], tuple[Option, Written]] = {}


def written(option: Option, *, whole: bool = False) -> Written:
    """The canonical JSON of the part of an option that can change bytes, or of all of it.

    Each option is written out once, for a sweep has few, and many cells: an option is never
    changed.
    """
    place = id(option), whole
    if place not in _written:
        if len(_written) >= WRITTEN_AT_ONCE:
            _written.clear()
        told = option if whole else keyed(option)
        _written[place] = option, Written(_canonical(told))  # held, so that nothing takes its place
    return _written[place][1]


WRITTEN_AT_ONCE = 10_000
"""Options whose text is kept: each shadow model and each request has its own."""


# A sweep asks for these two once a cell, and most of the answers are the same.


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
"""The key of no attack, and of no defense."""


def _of_call(option: Option, *more: Option) -> str:
    return NO_CALL if option["call"] is None else _short(*map(written, (option, *more)))


def keyed(option: Option) -> Option:
    """The part of an option that can change bytes.

    A function of this package counts by the name of its file and its own, ``scrub.scrub``: the
    folder that the file lies in changes no result. A user's function counts by its whole path.
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
    """What a key says of the function at a dotted path: see `keyed`."""
    if not isinstance(path, str) or not path.startswith(f"{PACKAGE}."):
        return path
    return ".".join(path.rsplit(".", 2)[-2:])


def findable(path: str) -> bool:
    """Whether a dotted path names something in a module that there is.

    Of a user's path the first name alone is looked for: to import the rest may take seconds.
    """
    module, _, function = path.rpartition(".")
    if not all(map(str.isidentifier, [*module.split("."), function])):
        return False
    top = module.partition(".")[0]
    try:
        if top == PACKAGE:
            return find_spec(module) is not None
        # A worker looks in the working folder too, a script does not.
        return bool(find_spec(top) or PathFinder.find_spec(top, [os.getcwd()]))
    except (ImportError, ValueError):
        return False


def target(call: Option) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that ``_target_`` names, and the arguments beside it.

    Raises:
        ValueError: there is no such function.
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
        seed: of the model: initial weights, batch orders, every draw of a method.
        split: how training rows are split; fixed over a sweep of seeds.
        precision: of training, as Lightning names it.
        cuda_graphs: whether a GPU may replay training steps; like the device, in no key.
        shadow: options in which the attacker's own models differ, by axis: transfer.
        reference: the option that every method is compared with, ``method=retrain``.
        overrides: settings that differ from their options' defaults, as a user would type them.
        tuned: where its method's settings are from, ``name``, and what their search took,
            ``seconds`` on the device ``measured_on``; None of settings that were published.
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
    """How the model was drawn for an attack; "" of a cell of the grid."""

    shares_preparation: ClassVar[bool] = False
    """Whether cells of several forget sets share what a blind ``prepare`` step left."""

    @property
    def names(self) -> dict[str, str]:
        """The option's name on each axis."""
        return {axis: getattr(self, axis)["name"] for axis in AXES}

    @property
    def traits(self) -> Option:
        """What the method says of itself, such as ``from_scratch`` or ``uses_val``."""
        return self.method.get("traits") or {}

    @property
    def model_seed(self) -> int:
        """The seed its model is made with; ``second_retrain`` takes the one after its own."""
        return self._seed_under(self.method)

    @property
    def kind(self) -> Literal["original", "retrained", "unlearned"]:
        """What the cell's model is."""
        if self.is_original:
            return "original"
        return "retrained" if self.from_scratch else "unlearned"

    @property
    def from_scratch(self) -> bool:
        """Whether the method trains a fresh net and needs no original."""
        return bool(self.traits.get("from_scratch", False))

    @property
    def is_original(self) -> bool:
        """Whether the method does nothing, so that its model is the original."""
        return self.method["call"] is None

    @cached_property
    def original_key(self) -> str:
        """Not over the forget set: one original serves every forget set."""
        return self._original_key_under(self.method)

    @cached_property
    def model_key(self) -> str:
        """Of the model the cell is about."""
        return self._model_key_under(self.method)

    # Of a cell's own keys, and of those of the cell that it is compared with, which need not be
    # made for that.

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
        """What stored outputs depend on beside the model."""
        return [self.queries] if self.queries > 1 else []

    @property
    def prepared_key(self) -> str:
        """Of what the method's ``prepare`` step leaves; the method's other settings have no say.

        Nor has the forget set, where the trait ``prepares_blind`` says that it is hidden.
        """
        forget = None if self.traits.get("prepares_blind") else written(self.forget)
        made = self.method["prepare"], self.method["version"]
        return digest("prepared", self.original_key, forget, *made)

    @cached_property
    def predictions_key(self) -> str:
        """Of that model's outputs: on every row of the data set, or on those its split says.

        Of a request pair they include those of the model before the request, which has its own
        seed. Of single deletions the changes of parameters are stored.
        """
        return self._predictions_key_under(self.method)

    @cached_property
    def reference_key(self) -> str:
        """Of the predictions of the model that this one is compared with."""
        return self._predictions_key_under(self.reference)

    @property
    def queries(self) -> int:
        """Views of each row that a model is asked about: as it is, the others augmented."""
        return int(self.attack.get("queries", 1)) if self.attack["call"] is None else 1

    @cached_property
    def utility_key(self) -> str:
        """Of the rows that stand once per model: attack none, defense none."""
        compared = self.predictions_key, self.reference_key
        names = {**self.names, "defense": "none", "attack": "none"}
        # What ε is of.
        privacy = [_without_folders(self.train["privacy"])] if "privacy" in self.train else []
        about = self.seed, compared, written(self.forget), *privacy
        return digest("rows", ROWS_VERSION, names, *about, *self._searched)

    @property
    def _searched(self) -> list[Any]:
        """What the search for its method's settings took, which rows tell; not where they lie."""
        return [] if self.tuned is None else [{**self.tuned, "name": None}]

    # What rows are put together by in tables: content, whatever was typed for it.

    @cached_property
    def setup_key(self) -> str:
        """Of what its method shares with others that it can be held to, but for the seed."""
        options = map(written, (self.dataset, self.model, self.train, self.forget))
        split = written(self.split, whole=True)
        privacy = Written(_canonical(_without_folders(self.train.get("privacy"))))
        return _short(*options, split, self.precision, privacy)

    @cached_property
    def method_key(self) -> str:
        """Of its method and the search for the settings."""
        ahead = self.model_seed - self.seed
        return _short(written(self.method), ahead, *map(digest, self._searched))

    @cached_property
    def defense_key(self) -> str:
        """Of its defense."""
        return _of_call(self.defense)

    @cached_property
    def attack_key(self) -> str:
        """Of its attack, and of the data and the model that the attacker has."""
        return _of_call(self.attack, *self.shadow.values())

    @cached_property
    def key(self) -> str:
        """Of the rows of its attack; the utility rows' where there is none."""
        if self.attack["call"] is None:
            return self.utility_key
        attacked = map(written, (self.defense, self.attack, *self.shadow.values()))
        return digest("rows", self.utility_key, self.names, *attacked)

    @property
    def trace_every(self) -> int | None:
        """Epochs from one look at the model on its way to the next; None where nobody looks."""
        every: int | None = self.train.get("trace_every")
        return every

    @property
    def checkpoint_minutes(self) -> float | None:
        """From one writing down of where a long training is to the next; None never does."""
        minutes: float | None = self.train.get("checkpoint_minutes")
        return minutes

    @property
    def trace_key(self) -> str | None:
        """Of what the model said on its way, an artifact of its own; None where nobody looks."""
        every = self.trace_every
        return None if every is None else digest("trace", self.model_key, every)

    @property
    def trace_rows_key(self) -> str | None:
        """Of the rows of that, which know the forget set; None where nobody looks."""
        if self.trace_key is None:
            return None
        return digest("rows", "trace", ROWS_VERSION, self.utility_key, self.trace_key)

    @property
    def row_keys(self) -> set[str]:
        """Of all the rows that it asks for."""
        return {key for key in (self.key, self.utility_key, self.trace_rows_key) if key}

    def original(self) -> "Cell":
        """The cell of the original this one's model starts from."""
        return replace(self, method=ORIGINAL, seed=self.model_seed)

    @property
    def start(self) -> "Cell | None":
        """The original that must be there before this cell's outputs can be, if one must.

        One that a user brings comes before retraining too, so that a file of another net is refused
        before anything is trained.
        """
        if self.is_original:
            return None
        if not self.from_scratch:
            return self.original()
        return replace(self, method=ORIGINAL) if "path" in self.train else None

    def stored_models(self) -> list["Cell"]:
        """The cells of the models that its outputs are made of and that are stored."""
        return [self]

    @property
    def reference_classifier(self) -> "Cell | None":
        """The original that measures an attack on the model itself; None for other attacks.

        An attack with the trait ``compared`` measures by the cell's own original and retraining.

        Of the seed after the next, which is that of ``second_retrain``; trained here, where the
        original under attack was brought.
        """
        traits = self.attack.get("traits") or {}
        if not traits.get("white_box") or traits.get("compared"):
            return None
        trained = {k: v for k, v in self.train.items() if k not in ("path", "content")}
        return replace(self, method=ORIGINAL, train=trained, seed=self.seed + 2)

    def attackers(self) -> "Cell":
        """This cell on the data and model that the attacker has for his own."""
        axes: dict[str, Any] = dict(self.shadow)
        return replace(self, **axes, shadow={})
