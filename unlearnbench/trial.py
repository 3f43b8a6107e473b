"""One trial of a search on one seed: unlearn in memory, and see how far from the wish it ends.

Nothing that is made here is kept, and no test row is looked at. Axes: N rows, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from unlearnbench import metric, train
from unlearnbench.cell import Cell, target
from unlearnbench.core.errors import RAISED, Failed, Skip
from unlearnbench.core.outputs import FORGET, FORGOTTEN, RETAIN, RETAINED, UNSEEN, VAL, Predictions
from unlearnbench.outputs import predictions
from unlearnbench.pipeline import Lab, batches, clock, dataset, device_name, in_memory
from unlearnbench.search import FAILED, SKIPPED, Evaluate, Outcome
from unlearnbench.split import split_of
from unlearnbench.study import Settings, Study, changed
from unlearnbench.table import reason

PARTS = (RETAIN, FORGET, VAL)

Accuracies = tuple[float, float, float]
"""On retain, forget and validation rows."""


def evaluator(lab: Lab, study: Study, keep: Callable[[BaseException], None]) -> Evaluate:
    """What tries settings on a seed for a study. It never raises: what went wrong is an outcome.

    Args:
        lab: what to work with; models that are measured against come from its store.
        study: which.
        keep: told what was raised.
    """

    def evaluate(settings: Settings, cell: Cell) -> Outcome:
        now, where = clock(lab.device), device_name(lab.device)
        start = now()
        try:
            values = objective(lab, study, replace(cell, method=changed(cell.method, settings)))
        except RAISED as error:  # whatever a method raises is a trial, not a crash
            status = SKIPPED if isinstance(error, Skip) else FAILED
            if status == FAILED and not isinstance(error, Failed):
                keep(error)
            seconds = now() - start
            return Outcome(cell.seed, (), math.inf, seconds, status, reason(error), where)
        seconds = now() - start
        score = metric.tuning_score(values)
        return Outcome(cell.seed, values, score, seconds, measured_on=where)

    return evaluate


def objective(lab: Lab, study: Study, cell: Cell) -> tuple[float, float, float, float]:
    """The four values of a cell's method; see ``metric.tuning_values``.

    Against the retrained model's accuracies, as in Deep Unlearn (arXiv 2410.01276). Who has no
    retrained model takes ``no_retrain``: retain and validation rows are to be answered as well as
    by the original, which is at hand, and forget rows as well as rows that it has never seen, the
    validation rows:  RA = RA_O, FA = VA_O, VA = VA_O.  Where forget rows are easier or harder than
    validation rows, as those of one class are, this asks for the wrong thing.

    Args:
        lab: what to work with.
        study: whose objective.
        cell: with the settings that are tried.

    Raises:
        Failed: outputs are not finite.
        Skip: the method cannot work on this cell, or there are no classes to be right about.
    """
    data = dataset(cell, lab.device)
    if not data.n_classes:
        raise Skip("a search looks at accuracies; this is a regression")
    mine = _in_memory(lab, cell)
    mia = target(cell.attack["call"])
    scores = mia[0](mine, **mia[1])
    retain, forget, val = _accuracies(mine)
    found = float(scores.metrics["mia_val"][0])
    return metric.tuning_values((retain, forget, val), _wished(lab, study, cell), found)


def _in_memory(lab: Lab, cell: Cell) -> Predictions:
    """What the cell's model says of retain, forget and validation rows, and of no others."""
    net, data = in_memory(lab, cell), dataset(cell, lab.device)
    parts = split_of(cell, data)
    rows = (parts.retain, parts.forget, parts.val)
    rows_N = torch.cat([one.cpu() for one in rows])
    split_N = np.repeat(np.array(PARTS, np.int8), [len(one) for one in rows])
    asked = batches(cell, data, rows_N.to(data.x.device), "all")
    logits_NC = train.logits(net, asked)
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
    retain, forget, val = (metric.accuracy(logits_NC[rows], found.y_N[rows]) for rows in chosen)
    return retain, forget, val


def _wished(lab: Lab, study: Study, cell: Cell) -> Accuracies:
    """The accuracies that the model should have."""
    if study.objective == "retrained":
        return _accuracies(predictions(lab, replace(cell, method=cell.reference)))
    retain, _, val = _accuracies(predictions(lab, cell.original()))
    return retain, val, val
