"""Optuna: the study in a journal file, what a slot tries, and what became of it. Imports no torch.

A study is the folder ``<results>/studies/<key>/``:

    journal             Optuna's own, with all trials; whatever is known stands there
    *.held              locks: of the journal, of asking for settings, of each slot

Locks are ``lock``'s and not Optuna's: one whose holder was killed is not waited for.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import (
    BaseSampler,
    NSGAIIISampler,
    PartialFixedSampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from unlearnbench.core import damage
from unlearnbench.core.cell import Cell, digest
from unlearnbench.core.errors import text_of
from unlearnbench.search.study import Axis, Settings, Slot, Study
from unlearnbench.store.lock import Known, locked

optuna.logging.set_verbosity(optuna.logging.ERROR)

ATTEMPTS = 3
"""How often the process of a trial may be killed before the trial counts as failed."""

BEFORE_PRUNING = 10
"""Whole trials before one is left half-way."""

VALUES = 4
"""What a trial is measured by, see ``trial.tuning_values``."""

COMPLETE, PRUNED, FAILED, SKIPPED = "complete", "pruned", "failed", "skipped"


@dataclass(frozen=True)
class Outcome:
    """What came of settings on one seed.

    Attributes:
        seed: of the model.
        values: the four, smaller is better; none where it failed.
        score: their norm; infinite where it failed.
        seconds: that all of it took.
        status: ``complete``, ``failed`` or ``skipped``.
        reason: of the latter two.
        measured_on: ``cpu``, whose seconds are the processor's, or the GPU's name.
    """

    seed: int
    values: tuple[float, ...]
    score: float
    seconds: float
    status: str = COMPLETE
    reason: str = ""
    measured_on: str | None = None


Evaluate = Callable[[Settings, Cell], Outcome]


@dataclass(frozen=True)
class Told:
    """A trial that is over.

    Attributes:
        slot: its number.
        settings: what was tried.
        status: ``complete``, ``pruned``, ``failed`` or ``skipped``.
        reason: of the latter two.
        outcomes: one a seed, as far as it went.
        fresh: the same on fresh seeds, where it was run again.
    """

    slot: int
    settings: dict[str, Any]
    status: str
    reason: str
    outcomes: tuple[Outcome, ...]
    fresh: tuple[Outcome, ...] = ()

    @property
    def score(self) -> float:
        """The mean over the tuning seeds; infinite unless it saw them all."""
        return mean(self.outcomes) if self.status == COMPLETE else math.inf

    @property
    def seconds(self) -> float:
        """All that it took, on fresh seeds too."""
        return sum(one.seconds for one in (*self.outcomes, *self.fresh))


def mean(outcomes: Sequence[Outcome]) -> float:
    """The mean score; infinite for none."""
    return sum(one.score for one in outcomes) / len(outcomes) if outcomes else math.inf


# ---------------------------------------------------------------------------------------------
# The journal.


class _Lock:
    """Optuna's lock of its journal, by ours: that of a killed process is broken at once."""

    def __init__(self, journal: Path, known: Known) -> None:
        self.journal, self.known = journal, known
        self.inside = ExitStack()

    def acquire(self) -> bool:
        lock = locked(self.journal.with_suffix(".held"), lambda: False, self.known)
        with ExitStack() as inside:  # an error gives the lock back
            inside.enter_context(lock)
            _whole(self.journal)
            self.inside = inside.pop_all()
        return True

    def release(self) -> None:
        self.inside.close()


def _whole(journal: Path) -> None:
    """Cut off a line that its writer did not end: Optuna would read nothing that follows it.

    Raises:
        Damaged: what stands there is not the beginning of a line.
    """
    with journal.open("rb+") as file:
        size = file.seek(0, 2)
        if not size:
            return
        file.seek(size - 1)
        if file.read() != b"\n":
            file.seek(0)
            content = file.read()
            end = content.rfind(b"\n") + 1
            if not LINE.startswith(content[end:][: len(LINE)]):
                raise Damaged(f"{journal} is damaged at its end; {_repair(journal)}")
            file.truncate(end)


LINE = b'{"op_code":'
"""How a line of Optuna's journal begins."""


def _repair(journal: Path) -> str:
    return f"delete {journal.parent} to search again"


def folder_of(results: Path, study: Study) -> Path:
    """Where a study is kept."""
    return results.absolute() / "studies" / study.key


@lru_cache(maxsize=64)
def _storage(folder: Path, known: Known) -> JournalStorage:
    """Of one study; kept, for a journal is read from where it was left."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "journal"
    lock: Any = _Lock(journal, known)  # Optuna's own base class of these is private
    return JournalStorage(JournalFileBackend(str(journal), lock))


def _any(job: str) -> bool:
    return True


def _open(results: Path, study: Study, known: Known = _any) -> optuna.Study:
    directions = [StudyDirection.MINIMIZE] * (VALUES if study.sampler == "nsga3" else 1)
    folder = folder_of(results, study)
    with _reading(folder / "journal"):
        return optuna.create_study(
            storage=_storage(folder, known),
            study_name=study.key,
            directions=directions,
            load_if_exists=True,
            pruner=_pruner(study),
        )


class Damaged(RuntimeError):
    """The journal of a study cannot be read."""


@contextmanager
def _reading(journal: Path) -> Iterator[None]:
    """Inside the block an error because of what stands in a journal is ``Damaged``."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        line = _damaged_line(journal)
        where = f" in line {line}" if line else f": {text_of(error)}"
        raise Damaged(f"{journal} is damaged{where}; {_repair(journal)}") from error


def _damaged_line(journal: Path) -> int | None:
    """The number of the first line that is no record of Optuna's; None if all are."""
    for number, line in enumerate(journal.read_bytes().splitlines(), 1):
        try:
            if not damage.fits(json.loads(line), {"op_code": int, "worker_id": str}):
                return number
        except ValueError:
            return number
    return None


def told(results: Path, study: Study) -> dict[int, Told]:
    """What is over of a study, by slot; nothing where it has not begun.

    Args:
        results: the results folder.
        study: which.
    """
    journal = folder_of(results, study) / "journal"
    if not journal.exists():
        return {}
    try:
        opened = _open(results, study)
        with _reading(journal):
            return _told(opened, study)
    except (Damaged, IsADirectoryError) as error:
        damage.passed_over(journal, str(error).partition(";")[0], _repair(journal))
        return {}


def _told(opened: optuna.Study, study: Study) -> dict[int, Told]:
    found, fresh = {}, opened.user_attrs
    for trial in opened.get_trials(deepcopy=False):
        attrs = trial.user_attrs
        if "told" in attrs and trial.state.is_finished():
            about, slot = attrs["told"], int(attrs["slot"])
            outcomes = tuple(_outcome(one) for one in about["outcomes"])
            names = (_fresh_name(slot, cell) for cell in study.fresh)
            again = tuple(_outcome(fresh[name]) for name in names if name in fresh)
            status, reason = about["status"], about["reason"]
            found[slot] = Told(slot, about["settings"], status, reason, outcomes, again)
    return dict(sorted(found.items()))


def _outcome(told: Mapping[str, Any]) -> Outcome:
    return Outcome(**{**told, "values": tuple(told["values"])})


def _fresh_name(slot: int, cell: Cell) -> str:
    return f"fresh {slot} {digest(cell.predictions_key)[:16]}"


# ---------------------------------------------------------------------------------------------
# What is tried.


def _distribution(axis: Axis) -> BaseDistribution:
    """An axis as Optuna knows it; zero is the decade below a range of logarithms."""
    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    low = axis.low / 10 if axis.zero else axis.low
    return FloatDistribution(low, axis.high, log=axis.log)


def _value(axis: Axis, drawn: Any) -> Any:
    return 0.0 if axis.zero and drawn < axis.low else drawn


def _drawn(axis: Axis, value: Any) -> Any:
    return axis.low / math.sqrt(10) if axis.zero and value == 0 else value


def _sampler(study: Study, number: int) -> BaseSampler:
    """The sampler of one slot: its draws depend on the slot, and on no process before it."""
    seed = int(digest("sampler", study.seed, number)[:8], 16)
    if number == 0:
        fixed = {name: _drawn(axis, axis.default) for name, axis in study.space.items()}
        return PartialFixedSampler(fixed, RandomSampler(seed))
    if study.sampler == "nsga3":
        return NSGAIIISampler(seed=seed)
    if study.sampler == "random":
        return RandomSampler(seed)
    # Together, for a learning rate is good for some numbers of epochs; and away from where others
    # are at work.
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _pruner(study: Study) -> BasePruner:
    return MedianPruner(n_startup_trials=BEFORE_PRUNING) if study.pruned else NopPruner()


def run(results: Path, slot: Slot, evaluate: Evaluate, known: Known = _any) -> Told | None:
    """Do what a slot is for, unless it is done.

    Args:
        results: the results folder.
        slot: which.
        evaluate: tries settings on one seed; whatever goes wrong is an outcome.
        known: whether SLURM knows a job.

    Returns:
        The trial; None of a fresh run for which there is none.

    Raises:
        Damaged: the journal of the study cannot be read.
    """
    opened = _open(results, slot.study, known)
    with _reading(folder_of(results, slot.study) / "journal"):
        _told(opened, slot.study)
    return (_again if slot.fresh else _searched)(opened, results, slot, evaluate, known)


def _searched(
    opened: optuna.Study, results: Path, slot: Slot, evaluate: Evaluate, known: Known
) -> Told:
    study, number, folder = slot.study, slot.number, folder_of(results, slot.study)

    def done() -> bool:
        return number in _told(opened, study)

    with locked(folder / f"{number}.held", done, known) as claim:
        if claim is not None and not done():
            with locked(folder / "ask.held", lambda: False, known):
                trial = _asked(opened, study, number)
            if trial is not None:
                _tried(opened, study, trial, evaluate)
    return _told(opened, study)[number]


def _asked(opened: optuna.Study, study: Study, number: int) -> optuna.Trial | None:
    """Settings for a slot; None if it is over now, having been left when all was known of it.

    Who was killed has left a running trial. Nobody works at one of this slot, whose lock is ours,
    nor at one without a slot, for asking has a lock too.
    """
    killed = 0
    for left in opened.get_trials(deepcopy=False):
        if left.user_attrs.get("slot", number) != number:
            continue
        if left.state == TrialState.RUNNING:
            if "told" in left.user_attrs:
                _settle(opened, left, left.user_attrs["told"])
                return None
            opened.tell(left.number, state=TrialState.FAIL)
        killed += "slot" in left.user_attrs
    with warnings.catch_warnings():  # half of its samplers are "experimental" since years
        warnings.simplefilter("ignore", ExperimentalWarning)
        opened.sampler = _sampler(study, number)
    names = study.space.items()
    trial = opened.ask({name: _distribution(axis) for name, axis in names})
    trial.set_user_attr("slot", number)
    if killed < ATTEMPTS:
        return trial
    reason = f"its process was killed {killed} times"
    _tell(opened, study, trial, FAILED, reason, [])
    return None


def _tried(opened: optuna.Study, study: Study, trial: optuna.Trial, evaluate: Evaluate) -> None:
    """Evaluate a trial seed after seed, as far as it is worth it, and say what came of it."""
    settings = _settings(study, trial.params)
    outcomes: list[Outcome] = []
    status, reason = COMPLETE, ""
    for step, cell in enumerate(study.cells, 1):
        outcomes.append(evaluate(settings, cell))
        if outcomes[-1].status != COMPLETE:
            status, reason = outcomes[-1].status, outcomes[-1].reason
            break
        if study.pruned and step < len(study.cells):
            trial.report(mean(outcomes), step)
            if trial.should_prune():
                status = PRUNED
                break
    _tell(opened, study, trial, status, reason, outcomes)


def _settings(study: Study, drawn: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(axis, drawn[name]) for name, axis in study.space.items()}


def _tell(
    opened: optuna.Study,
    study: Study,
    trial: optuna.Trial,
    status: str,
    reason: str,
    outcomes: Sequence[Outcome],
) -> None:
    about = {
        "settings": _settings(study, trial.params),
        "status": status,
        "reason": reason,
        "outcomes": [vars(one) for one in outcomes],
    }
    trial.set_user_attr("told", about)
    _settle(opened, trial, about)


def _settle(
    opened: optuna.Study, trial: optuna.Trial | FrozenTrial, about: Mapping[str, Any]
) -> None:
    """End a trial. A failed one is worse than all others, which the sampler is to know."""
    outcomes = [_outcome(one) for one in about["outcomes"]]
    if about["status"] == SKIPPED:
        opened.tell(trial.number, state=TrialState.FAIL)
    elif about["status"] == PRUNED:
        opened.tell(trial.number, state=TrialState.PRUNED)
    elif about["status"] == FAILED:
        opened.tell(trial.number, [math.inf] * len(opened.directions))
    elif len(opened.directions) == 1:
        opened.tell(trial.number, mean(outcomes))
    else:
        sums = map(sum, zip(*(one.values for one in outcomes), strict=True))
        opened.tell(trial.number, [total / len(outcomes) for total in sums])


# ---------------------------------------------------------------------------------------------
# The best once more.


def best(trials: Mapping[int, Told], number: int) -> list[Told]:
    """The trials of the smallest mean scores, the best first; of equals the earlier."""
    whole = [one for one in trials.values() if math.isfinite(one.score)]
    return sorted(whole, key=lambda one: (one.score, one.slot))[:number]


def luckiest(trials: Mapping[int, Told]) -> Told | None:
    """The trial with the smallest score on any one seed, which is what the paper takes."""
    scores = [(one.score, trial.slot) for trial in trials.values() for one in trial.outcomes]
    scores = [pair for pair in scores if math.isfinite(pair[0])]
    return trials[min(scores)[1]] if scores else None


def candidates(trials: Mapping[int, Told], number: int) -> list[Told]:
    """What is run on fresh seeds: the best, what the paper would take, and the defaults."""
    chosen = [*best(trials, number), luckiest(trials), trials.get(0)]
    worth = [one for one in chosen if one is not None and one.status != SKIPPED]
    return list({one.slot: one for one in worth}.values())


def _again(
    opened: optuna.Study, results: Path, slot: Slot, evaluate: Evaluate, known: Known
) -> Told | None:
    study, folder = slot.study, folder_of(results, slot.study)
    asked = candidates(_told(opened, study), slot.best)
    if slot.number >= len(asked):
        return None
    number, settings = asked[slot.number].slot, asked[slot.number].settings

    def missing() -> list[Cell]:
        return [c for c in study.fresh if _fresh_name(number, c) not in opened.user_attrs]

    with locked(folder / f"{number}.held", lambda: not missing(), known) as claim:
        for cell in missing() if claim is not None else []:
            outcome = evaluate(settings, cell)
            opened.set_user_attr(_fresh_name(number, cell), vars(outcome))
    return _told(opened, study)[number]
