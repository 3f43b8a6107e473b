"""Selection of the trial whose settings are used."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unlearnbench.search import journal_study as search
from unlearnbench.search.journal_study import Outcome, Told
from unlearnbench.search.study import Study
from unlearnbench.tune.request import Asked


@dataclass(frozen=True)
class Found:
    """The result of one study.

    Attributes:
        study: the study.
        trials: the finished trials, by slot.
        chosen: the trial whose settings are used; None if there is none yet.
    """

    study: Study
    trials: Mapping[int, Told]
    chosen: Told | None

    @property
    def seconds(self) -> float:
        """Seconds of the whole search on one worker."""
        return sum(trial.seconds for trial in self.trials.values())

    @property
    def measured_on(self) -> str | None:
        """The device on which seconds were measured; None if there are several devices."""
        devices = {
            outcome.measured_on
            for trial in self.trials.values()
            for outcome in (*trial.outcomes, *trial.fresh)
        }
        return devices.pop() if len(devices) == 1 else None

    def count(self, status: str) -> int:
        """The number of trials with this status."""
        return sum(trial.status == status for trial in self.trials.values())


def found(request: Asked) -> list[Found]:
    """The results of each study so far."""
    results = []
    for study in request.studies:
        finished = search.told(request.results, study)
        trials = {
            slot: trial for slot, trial in finished.items() if slot < request.options["trials"]
        }
        results.append(Found(study, trials, choose(study, trials, request.options)))
    return results


def choose(study: Study, trials: Mapping[int, Told], options: Mapping[str, Any]) -> Told | None:
    """The trial whose settings are used.

    ``paper``: the trial with the smallest score on any single seed, as Deep Unlearn takes the best
    trial of three studies with one seed each. Otherwise: the trial with the best mean score on
    fresh seeds among the ``best`` trials of the search, because the minimum of many noisy scores is
    biased downwards, and a second evaluation of a few trials less so. Without fresh seeds: the best
    trial of the search.

    Args:
        study: the study.
        trials: the finished trials, by slot.
        options: the options of ``conf/tuning.yaml``.

    Returns:
        The chosen trial; None if no trial qualifies.
    """
    if options["selection"] == "paper":
        return search.luckiest(trials)
    top_trials = search.best(trials, options["best"])
    if not study.fresh:
        return top_trials[0] if top_trials else None
    rerun_trials = [trial for trial in top_trials if len(trial.fresh) == len(study.fresh)]
    return min(rerun_trials, key=lambda trial: (search.mean(trial.fresh), trial.slot), default=None)


def table(study_results: Sequence[Found]) -> pd.DataFrame:
    """One row per study: scores in the search and on fresh seeds.

    ``in search`` is the mean score of the chosen settings over the tuning seeds, ``fresh`` the mean
    score over seeds that the search did not use; the difference is the winner's curse.
    """
    rows = []
    for result in study_results:
        statuses = (search.COMPLETE, search.PRUNED, search.FAILED)
        counts = ", ".join(str(result.count(status)) for status in statuses)
        default = result.trials.get(0)
        rows.append(
            {
                "method": result.study.cell.names["method"],
                "trials (whole, pruned, failed)": f"{len(result.trials)} ({counts})",
                "default": _score_text(default.outcomes if default else ()),
                "default, fresh": _score_text(default.fresh if default else ()),
                "in search": _score_text(result.chosen.outcomes if result.chosen else ()),
                "fresh": _score_text(result.chosen.fresh if result.chosen else ()),
                "curse": _curse_text(result.chosen),
                "trial": "–" if result.chosen is None else str(result.chosen.slot),
                "minutes": f"{result.seconds / 60:.1f}",
            }
        )
    return pd.DataFrame(rows)


def _score_text(outcomes: Sequence[Outcome]) -> str:
    score = search.mean(outcomes)
    return f"{score:.4f}" if math.isfinite(score) else "–" if not outcomes else "failed"


def _curse_text(chosen: Told | None) -> str:
    if chosen is None or not chosen.fresh:
        return "–"
    return f"{search.mean(chosen.fresh) - chosen.score:+.4f}"
