"""The trial whose settings are kept."""

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
    """What a study has found.

    Attributes:
        study: which.
        trials: what is over, by slot.
        chosen: the trial whose settings are taken; None if there is none yet.
    """

    study: Study
    trials: Mapping[int, Told]
    chosen: Told | None

    @property
    def seconds(self) -> float:
        """What the whole search took one worker."""
        return sum(trial.seconds for trial in self.trials.values())

    @property
    def measured_on(self) -> str | None:
        """The device whose seconds these are; None of several, which add up to nothing."""
        each = {
            outcome.measured_on
            for trial in self.trials.values()
            for outcome in (*trial.outcomes, *trial.fresh)
        }
        return each.pop() if len(each) == 1 else None

    def count(self, status: str) -> int:
        """How many trials ended so."""
        return sum(trial.status == status for trial in self.trials.values())


def found(asked: Asked) -> list[Found]:
    """What each study has found so far."""
    told = []
    for study in asked.studies:
        there = search.told(asked.results, study)
        trials = {slot: one for slot, one in there.items() if slot < asked.options["trials"]}
        told.append(Found(study, trials, choose(study, trials, asked.options)))
    return told


def choose(study: Study, trials: Mapping[int, Told], options: Mapping[str, Any]) -> Told | None:
    """The trial whose settings are taken.

    ``paper``: that with the smallest score on any one seed, as Deep Unlearn takes the best trial of
    its three studies, of a seed each. Else the best on fresh seeds of the ``best`` of the search:
    the minimum of many noisy scores is lucky, a second look at a few is less so. Without fresh
    seeds, the best of the search.

    Args:
        study: which.
        trials: what is over.
        options: of ``conf/tuning.yaml``.
    """
    if options["selection"] == "paper":
        return search.luckiest(trials)
    few = search.best(trials, options["best"])
    if not study.fresh:
        return few[0] if few else None
    again = [one for one in few if len(one.fresh) == len(study.fresh)]
    return min(again, key=lambda one: (search.mean(one.fresh), one.slot), default=None)


def table(there: Sequence[Found]) -> pd.DataFrame:
    """One line a study: what the search saw, and what is left of it on fresh seeds.

    ``in search`` is the mean score of the settings chosen over the tuning seeds, ``fresh`` the same
    over seeds that had no part in the search; the difference is the winner's curse.
    """
    lines = []
    for one in there:
        ends = (search.COMPLETE, search.PRUNED, search.FAILED)
        counts = ", ".join(str(one.count(status)) for status in ends)
        default = one.trials.get(0)
        lines.append(
            {
                "method": one.study.cell.names["method"],
                "trials (whole, pruned, failed)": f"{len(one.trials)} ({counts})",
                "default": _told(default.outcomes if default else ()),
                "default, fresh": _told(default.fresh if default else ()),
                "in search": _told(one.chosen.outcomes if one.chosen else ()),
                "fresh": _told(one.chosen.fresh if one.chosen else ()),
                "curse": _told_curse(one.chosen),
                "trial": "–" if one.chosen is None else str(one.chosen.slot),
                "minutes": f"{one.seconds / 60:.1f}",
            }
        )
    return pd.DataFrame(lines)


def _told(outcomes: Sequence[Outcome]) -> str:
    score = search.mean(outcomes)
    return f"{score:.4f}" if math.isfinite(score) else "–" if not outcomes else "failed"


def _told_curse(chosen: Told | None) -> str:
    if chosen is None or not chosen.fresh:
        return "–"
    return f"{search.mean(chosen.fresh) - chosen.score:+.4f}"
