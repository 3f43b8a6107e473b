"""Optuna studies: the journal file, the settings of each slot, the outcomes. Imports no torch.

A study is the folder ``<results>/studies/<key>/``:

    journal             Optuna's journal of all trials; it holds everything that is known
    *.held              locks: of the journal, of asking for settings, of each slot

The locks are those of ``store.lock``, not Optuna's: a lock of a killed process is evicted.
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
"""Number of times a trial's process is killed before the trial counts as failed."""

BEFORE_PRUNING = 10
"""Number of complete trials before pruning starts."""

VALUES = 4
"""Number of objectives, see ``trial.tuning_values``."""

COMPLETE, PRUNED, FAILED, SKIPPED = "complete", "pruned", "failed", "skipped"


@dataclass(frozen=True)
class Outcome:
    """The outcome of settings on one seed.

    Attributes:
        seed: seed of the model.
        values: the four objectives, smaller is better; empty after a failure.
        score: their Euclidean norm; infinite after a failure.
        seconds: seconds of unlearning and evaluation.
        status: ``complete``, ``failed`` or ``skipped``.
        reason: the reason of ``failed`` or ``skipped``.
        measured_on: ``cpu`` (seconds of the processor), or the name of the GPU (wall clock).
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
    """A finished trial.

    Attributes:
        slot: number of the slot.
        settings: the evaluated settings.
        status: ``complete``, ``pruned``, ``failed`` or ``skipped``.
        reason: the reason of ``failed`` or ``skipped``.
        outcomes: one outcome per evaluated tuning seed.
        fresh: one outcome per fresh seed on which the settings were run again.
    """

    slot: int
    settings: dict[str, Any]
    status: str
    reason: str
    outcomes: tuple[Outcome, ...]
    fresh: tuple[Outcome, ...] = ()

    @property
    def score(self) -> float:
        """The mean score over the tuning seeds; infinite unless the trial is complete."""
        return mean(self.outcomes) if self.status == COMPLETE else math.inf

    @property
    def seconds(self) -> float:
        """Seconds of all outcomes, including those on fresh seeds."""
        return sum(outcome.seconds for outcome in (*self.outcomes, *self.fresh))


def mean(outcomes: Sequence[Outcome]) -> float:
    """The mean score; infinite without outcomes."""
    return sum(outcome.score for outcome in outcomes) / len(outcomes) if outcomes else math.inf


# ---------------------------------------------------------------------------------------------
# The journal.


class _Lock:
    """The journal lock of Optuna's interface, based on ``locked``."""

    def __init__(self, journal: Path, is_active: Known) -> None:
        self.journal, self.known = journal, is_active
        self.inside = ExitStack()

    def acquire(self) -> bool:
        lock = locked(self.journal.with_suffix(".held"), lambda: False, self.known)
        with ExitStack() as inside:  # an error releases the lock
            inside.enter_context(lock)
            _drop_partial_line(self.journal)
            self.inside = inside.pop_all()
        return True

    def release(self) -> None:
        self.inside.close()


def _drop_partial_line(journal: Path) -> None:
    """Truncate an incomplete last line, after which Optuna would read nothing.

    Raises:
        Damaged: the last line does not begin like a record.
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
"""First bytes of a line of Optuna's journal."""


def _repair(journal: Path) -> str:
    return f"delete {journal.parent} to search again"


def folder_of(results: Path, study: Study) -> Path:
    """The folder of a study."""
    return results.absolute() / "studies" / study.key


@lru_cache(maxsize=64)
def _storage(folder: Path, is_active: Known) -> JournalStorage:
    """The storage of a study; cached, because a journal is read on from its last position."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "journal"
    lock: Any = _Lock(journal, is_active)  # Optuna's own base class of these is private
    return JournalStorage(JournalFileBackend(str(journal), lock))


def _any(job: str) -> bool:
    return True


def _open(results: Path, study: Study, is_active: Known = _any) -> optuna.Study:
    directions = [StudyDirection.MINIMIZE] * (VALUES if study.sampler == "nsga3" else 1)
    folder = folder_of(results, study)
    with _reading(folder / "journal"):
        return optuna.create_study(
            storage=_storage(folder, is_active),
            study_name=study.key,
            directions=directions,
            load_if_exists=True,
            pruner=_pruner(study),
        )


class Damaged(RuntimeError):
    """The journal of a study cannot be read."""


@contextmanager
def _reading(journal: Path) -> Iterator[None]:
    """Convert errors that the content of a journal raises into ``Damaged``."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        line = _damaged_line(journal)
        where = f" in line {line}" if line else f": {text_of(error)}"
        raise Damaged(f"{journal} is damaged{where}; {_repair(journal)}") from error


def _damaged_line(journal: Path) -> int | None:
    """The number of the first line that is no Optuna record; None if there is none."""
    for number, line in enumerate(journal.read_bytes().splitlines(), 1):
        try:
            if not damage.fits(json.loads(line), {"op_code": int, "worker_id": str}):
                return number
        except ValueError:
            return number
    return None


def told(results: Path, study: Study) -> dict[int, Told]:
    """The finished trials of a study, by slot; empty if the study has not begun.

    Args:
        results: the results folder.
        study: the study.
    """
    journal = folder_of(results, study) / "journal"
    if not journal.exists():
        return {}
    try:
        opened = _open(results, study)
        with _reading(journal):
            return _finished_trials(opened, study)
    except (Damaged, IsADirectoryError) as error:
        damage.passed_over(journal, str(error).partition(";")[0], _repair(journal))
        return {}


def _finished_trials(opened: optuna.Study, study: Study) -> dict[int, Told]:
    finished, fresh = {}, opened.user_attrs
    for trial in opened.get_trials(deepcopy=False):
        attrs = trial.user_attrs
        if "told" in attrs and trial.state.is_finished():
            record, slot = attrs["told"], int(attrs["slot"])
            outcomes = tuple(_outcome(fields) for fields in record["outcomes"])
            names = (_fresh_name(slot, cell) for cell in study.fresh)
            fresh_outcomes = tuple(_outcome(fresh[name]) for name in names if name in fresh)
            status, reason = record["status"], record["reason"]
            finished[slot] = Told(
                slot, record["settings"], status, reason, outcomes, fresh_outcomes
            )
    return dict(sorted(finished.items()))


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    return Outcome(**{**fields, "values": tuple(fields["values"])})


def _fresh_name(slot: int, cell: Cell) -> str:
    return f"fresh {slot} {digest(cell.predictions_key)[:16]}"


# ---------------------------------------------------------------------------------------------
# Sampling and evaluation of settings.


def _distribution(axis: Axis) -> BaseDistribution:
    """The Optuna distribution of an axis; zero is the decade below a logarithmic range."""
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
    """The sampler of a slot: its seed depends only on the study and the slot."""
    seed = int(digest("sampler", study.seed, number)[:8], 16)
    if number == 0:
        fixed = {name: _drawn(axis, axis.default) for name, axis in study.space.items()}
        return PartialFixedSampler(fixed, RandomSampler(seed))
    if study.sampler == "nsga3":
        return NSGAIIISampler(seed=seed)
    if study.sampler == "random":
        return RandomSampler(seed)
    # multivariate: a good learning rate depends on the number of epochs. constant_liar: avoid the
    # settings of running trials.
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _pruner(study: Study) -> BasePruner:
    return MedianPruner(n_startup_trials=BEFORE_PRUNING) if study.pruned else NopPruner()


def run(results: Path, slot: Slot, evaluate: Evaluate, is_active: Known = _any) -> Told | None:
    """Run a slot, unless it is finished.

    Args:
        results: the results folder.
        slot: the slot.
        evaluate: evaluates settings on one seed; errors are returned as outcomes.
        is_active: whether SLURM has a job of this number.

    Returns:
        The trial; None for a fresh slot without a candidate.

    Raises:
        Damaged: the journal of the study cannot be read.
    """
    opened = _open(results, slot.study, is_active)
    with _reading(folder_of(results, slot.study) / "journal"):
        _finished_trials(opened, slot.study)
    return (_run_fresh if slot.fresh else _run_search)(opened, results, slot, evaluate, is_active)


def _run_search(
    opened: optuna.Study, results: Path, slot: Slot, evaluate: Evaluate, is_active: Known
) -> Told:
    study, number, folder = slot.study, slot.number, folder_of(results, slot.study)

    def done() -> bool:
        return number in _finished_trials(opened, study)

    with locked(folder / f"{number}.held", done, is_active) as handle:
        if handle is not None and not done():
            with locked(folder / "ask.held", lambda: False, is_active):
                trial = _ask_trial(opened, study, number)
            if trial is not None:
                _evaluate_trial(opened, study, trial, evaluate)
    return _finished_trials(opened, study)[number]


def _ask_trial(opened: optuna.Study, study: Study, number: int) -> optuna.Trial | None:
    """New settings for a slot; None if the slot is finished now.

    A trial that is still running was left by a killed process: the caller holds the slot's lock,
    and trials without a slot are created under the lock of asking. If its outcome is recorded, the
    trial is settled; else it fails.
    """
    killed = 0
    for earlier in opened.get_trials(deepcopy=False):
        if earlier.user_attrs.get("slot", number) != number:
            continue
        if earlier.state == TrialState.RUNNING:
            if "told" in earlier.user_attrs:
                _settle(opened, earlier, earlier.user_attrs["told"])
                return None
            opened.tell(earlier.number, state=TrialState.FAIL)
        killed += "slot" in earlier.user_attrs
    with warnings.catch_warnings():  # several samplers are marked experimental
        warnings.simplefilter("ignore", ExperimentalWarning)
        opened.sampler = _sampler(study, number)
    axes = study.space.items()
    trial = opened.ask({name: _distribution(axis) for name, axis in axes})
    trial.set_user_attr("slot", number)
    if killed < ATTEMPTS:
        return trial
    reason = f"its process was killed {killed} times"
    _tell(opened, study, trial, FAILED, reason, [])
    return None


def _evaluate_trial(
    opened: optuna.Study, study: Study, trial: optuna.Trial, evaluate: Evaluate
) -> None:
    """Evaluate a trial on one seed after another until it ends or is pruned; record it."""
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
    record = {
        "settings": _settings(study, trial.params),
        "status": status,
        "reason": reason,
        "outcomes": [vars(outcome) for outcome in outcomes],
    }
    trial.set_user_attr("told", record)
    _settle(opened, trial, record)


def _settle(
    opened: optuna.Study, trial: optuna.Trial | FrozenTrial, record: Mapping[str, Any]
) -> None:
    """End a trial in Optuna. A failed trial gets infinite values, so that the sampler avoids it."""
    outcomes = [_outcome(fields) for fields in record["outcomes"]]
    if record["status"] == SKIPPED:
        opened.tell(trial.number, state=TrialState.FAIL)
    elif record["status"] == PRUNED:
        opened.tell(trial.number, state=TrialState.PRUNED)
    elif record["status"] == FAILED:
        opened.tell(trial.number, [math.inf] * len(opened.directions))
    elif len(opened.directions) == 1:
        opened.tell(trial.number, mean(outcomes))
    else:
        sums = map(sum, zip(*(outcome.values for outcome in outcomes), strict=True))
        opened.tell(trial.number, [total / len(outcomes) for total in sums])


# ---------------------------------------------------------------------------------------------
# Runs of the best trials on fresh seeds.


def best(trials: Mapping[int, Told], number: int) -> list[Told]:
    """The trials with the smallest mean scores in ascending order; ties by slot."""
    scored = [trial for trial in trials.values() if math.isfinite(trial.score)]
    return sorted(scored, key=lambda trial: (trial.score, trial.slot))[:number]


def luckiest(trials: Mapping[int, Told]) -> Told | None:
    """The trial with the smallest score on any single seed, as selected in the paper."""
    scores = [
        (outcome.score, trial.slot) for trial in trials.values() for outcome in trial.outcomes
    ]
    scores = [pair for pair in scores if math.isfinite(pair[0])]
    return trials[min(scores)[1]] if scores else None


def candidates(trials: Mapping[int, Told], number: int) -> list[Told]:
    """The trials to run on fresh seeds: the best, the paper's choice, and the defaults."""
    chosen = [*best(trials, number), luckiest(trials), trials.get(0)]
    usable = [trial for trial in chosen if trial is not None and trial.status != SKIPPED]
    return list({trial.slot: trial for trial in usable}.values())


def _run_fresh(
    opened: optuna.Study, results: Path, slot: Slot, evaluate: Evaluate, is_active: Known
) -> Told | None:
    study, folder = slot.study, folder_of(results, slot.study)
    chosen = candidates(_finished_trials(opened, study), slot.best)
    if slot.number >= len(chosen):
        return None
    number, settings = chosen[slot.number].slot, chosen[slot.number].settings

    def missing() -> list[Cell]:
        return [cell for cell in study.fresh if _fresh_name(number, cell) not in opened.user_attrs]

    with locked(folder / f"{number}.held", lambda: not missing(), is_active) as handle:
        for cell in missing() if handle is not None else []:
            outcome = evaluate(settings, cell)
            opened.set_user_attr(_fresh_name(number, cell), vars(outcome))
    return _finished_trials(opened, study)[number]
