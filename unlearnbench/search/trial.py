"""One trial of a search on one seed: unlearn in memory, and see how far from the wish it ends.

Nothing that is made here is kept, and no test row is looked at. Axes: N rows, C classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from unlearnbench.core.cell import Cell, target
from unlearnbench.core.errors import RAISED, Failed, Skip
from unlearnbench.core.outputs import FORGET, FORGOTTEN, RETAIN, RETAINED, UNSEEN, VAL, Predictions
from unlearnbench.metric import utility
from unlearnbench.metric.utility import indisc
from unlearnbench.pipeline.inputs import batches, dataset
from unlearnbench.pipeline.models import unlearn_in_memory
from unlearnbench.pipeline.outputs import predictions
from unlearnbench.pipeline.rows import reason
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace, clock, device_name
from unlearnbench.search import trial
from unlearnbench.search.journal_study import FAILED, SKIPPED, Evaluate, Outcome
from unlearnbench.search.study import Settings, Study, changed
from unlearnbench.train import loop

PARTS = (RETAIN, FORGET, VAL)

Accuracies = tuple[float, float, float]
"""On retain, forget and validation rows."""


def evaluator(
    workspace: Workspace, study: Study, keep: Callable[[BaseException], None]
) -> Evaluate:
    """What tries settings on a seed for a study. It never raises: what went wrong is an outcome.

    Args:
        workspace: what to work with; models that are measured against come from its store.
        study: which.
        keep: told what was raised.
    """

    def evaluate(settings: Settings, cell: Cell) -> Outcome:
        now, where = clock(workspace.device), device_name(workspace.device)
        start = now()
        try:
            values = objective(
                workspace, study, replace(cell, method=changed(cell.method, settings))
            )
        except RAISED as error:  # whatever a method raises is a trial, not a crash
            status = SKIPPED if isinstance(error, Skip) else FAILED
            if status == FAILED and not isinstance(error, Failed):
                keep(error)
            seconds = now() - start
            return Outcome(cell.seed, (), math.inf, seconds, status, reason(error), where)
        seconds = now() - start
        score = trial.tuning_score(values)
        return Outcome(cell.seed, values, score, seconds, measured_on=where)

    return evaluate


def objective(workspace: Workspace, study: Study, cell: Cell) -> tuple[float, float, float, float]:
    """The four values of a cell's method; see ``trial.tuning_values``.

    Against the retrained model's accuracies, as in Deep Unlearn (arXiv 2410.01276). Who has no
    retrained model takes ``no_retrain``: retain and validation rows are to be answered as well as
    by the original, which is at hand, and forget rows as well as rows that it has never seen, the
    validation rows:  RA = RA_O, FA = VA_O, VA = VA_O.  Where forget rows are easier or harder than
    validation rows, as those of one class are, this asks for the wrong thing.

    Args:
        workspace: what to work with.
        study: whose objective.
        cell: with the settings that are tried.

    Raises:
        Failed: outputs are not finite.
        Skip: the method cannot work on this cell, or there are no classes to be right about.
    """
    data = dataset(cell, workspace.device)
    if not data.n_classes:
        raise Skip("a search looks at accuracies; this is a regression")
    mine = _in_memory(workspace, cell)
    mia = target(cell.attack["call"])
    scores = mia[0](mine, **mia[1])
    retain, forget, val = _accuracies(mine)
    found = float(scores.metrics["mia_val"][0])
    return trial.tuning_values((retain, forget, val), _wished(workspace, study, cell), found)


def _in_memory(workspace: Workspace, cell: Cell) -> Predictions:
    """What the cell's model says of retain, forget and validation rows, and of no others."""
    net, data = unlearn_in_memory(workspace, cell), dataset(cell, workspace.device)
    parts = split_of(cell, data)
    rows = (parts.retain, parts.forget, parts.val)
    rows_N = torch.cat([one.cpu() for one in rows])
    split_N = np.repeat(np.array(PARTS, np.int8), [len(one) for one in rows])
    asked = batches(cell, data, rows_N.to(data.x.device), "all")
    logits_NC = loop.logits(net, asked)
    if not logits_NC.isfinite().all():
        raise Failed("outputs are not finite")
    status_N = np.select([split_N == RETAIN, split_N == FORGET], [RETAINED, FORGOTTEN], UNSEEN)
    return Predictions(
        logits_MQNC=logits_NC.numpy()[None, None],
        y_N=asked.y.cpu().numpy(),
        rows_N=rows_N.numpy(),
        split_N=split_N,
        status_MN=status_N[None].astype(np.int8),
        kind_M=("unlearned",),
        parent_M=(-1,),
    )


def _accuracies(found: Predictions) -> Accuracies:
    logits_NC = found.logits_MQNC[0, 0]
    chosen = (found.split_N == part for part in PARTS)
    retain, forget, val = (utility.accuracy(logits_NC[rows], found.y_N[rows]) for rows in chosen)
    return retain, forget, val


def _wished(workspace: Workspace, study: Study, cell: Cell) -> Accuracies:
    """The accuracies that the model should have."""
    if study.objective == "retrained":
        return _accuracies(predictions(workspace, replace(cell, method=cell.reference)))
    retain, _, val = _accuracies(predictions(workspace, cell.original()))
    return retain, val, val


def tuning_values(
    unlearned: tuple[float, float, float], wished: tuple[float, float, float], mia: float
) -> tuple[float, float, float, float]:
    """The four objectives of a search, each 0 at best.

        J = (|RA_U − RA|/3, |FA_U − FA|/3, |VA_U − VA|/3, Disc),   Disc = |2·MIA − 1|

    Deep Unlearn (arXiv 2410.01276), whose RA, FA, VA are the retrained model's.

    Args:
        unlearned: accuracies on retain, forget and validation rows.
        wished: those that it should have.
        mia: accuracy of the attack that tells forget rows from validation rows.
    """
    retain, forget, val = (abs(u - w) / 3 for u, w in zip(unlearned, wished, strict=True))
    return retain, forget, val, 1 - indisc(mia)


def tuning_score(values: Sequence[float]) -> float:
    """Euclidean norm of the objectives: what they are ranked by."""
    return float(np.linalg.norm(values))
