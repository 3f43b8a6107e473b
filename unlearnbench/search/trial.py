"""One trial of a search on one seed: unlearn in memory and measure the distance to the target.

Models and predictions of a trial are not stored, and test rows are not used. Axes: N rows,
C classes.
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
from unlearnbench.search.journal_study import FAILED, SKIPPED, Evaluate, Outcome
from unlearnbench.search.study import Settings, Study, changed
from unlearnbench.train import loop

PARTS = (RETAIN, FORGET, VAL)

Accuracies = tuple[float, float, float]
"""On retain, forget and validation rows."""


def evaluator(
    workspace: Workspace, study: Study, keep: Callable[[BaseException], None]
) -> Evaluate:
    """A function that evaluates settings on one seed; it returns errors as outcomes.

    Args:
        workspace: the device, and the store of the reference models.
        study: the study.
        keep: receives each unexpected error.
    """

    def evaluate(settings: Settings, cell: Cell) -> Outcome:
        now, device = clock(workspace.device), device_name(workspace.device)
        start = now()
        try:
            values = objective(
                workspace, study, replace(cell, method=changed(cell.method, settings))
            )
        except RAISED as error:  # an error of the method is an outcome of the trial
            status = SKIPPED if isinstance(error, Skip) else FAILED
            if status == FAILED and not isinstance(error, Failed):
                keep(error)
            seconds = now() - start
            return Outcome(cell.seed, (), math.inf, seconds, status, reason(error), device)
        seconds = now() - start
        score = tuning_score(values)
        return Outcome(cell.seed, values, score, seconds, measured_on=device)

    return evaluate


def objective(workspace: Workspace, study: Study, cell: Cell) -> tuple[float, float, float, float]:
    """The four objectives of a cell's method; see ``tuning_values``.

    ``retrained`` compares with the accuracies of the retrained model, as in Deep Unlearn (arXiv
    2410.01276). ``no_retrain`` needs only the original model: the target accuracy on retain and
    validation rows is the original's, and on forget rows the original's on validation rows, which
    it has not seen:  RA = RA_O, FA = VA_O, VA = VA_O.  This target is wrong where forget rows are
    easier or harder than validation rows, as when they are one class.

    Args:
        workspace: the device, and the store of the reference models.
        study: the study, which determines the target.
        cell: the cell, with the settings of the trial.

    Raises:
        Failed: outputs are not finite.
        Skip: the method does not support this cell, or the data set has no classes.
    """
    data = dataset(cell, workspace.device)
    if not data.n_classes:
        raise Skip("a search looks at accuracies; this is a regression")
    unlearned = _in_memory(workspace, cell)
    attack = target(cell.attack["call"])
    scores = attack[0](unlearned, **attack[1])
    retain, forget, val = _accuracies(unlearned)
    mia_val = float(scores.metrics["mia_val"][0])
    return tuning_values((retain, forget, val), _wished(workspace, study, cell), mia_val)


def _in_memory(workspace: Workspace, cell: Cell) -> Predictions:
    """Predictions of the cell's model on retain, forget and validation rows only."""
    net, data = unlearn_in_memory(workspace, cell), dataset(cell, workspace.device)
    split = split_of(cell, data)
    rows = (split.retain, split.forget, split.val)
    rows_N = torch.cat([subset_rows.cpu() for subset_rows in rows])
    split_N = np.repeat(np.array(PARTS, np.int8), [len(subset_rows) for subset_rows in rows])
    inputs = batches(cell, data, rows_N.to(data.x.device), "all")
    logits_NC = loop.logits(net, inputs)
    if not logits_NC.isfinite().all():
        raise Failed("outputs are not finite")
    status_N = np.select([split_N == RETAIN, split_N == FORGET], [RETAINED, FORGOTTEN], UNSEEN)
    return Predictions(
        logits_MQNC=logits_NC.numpy()[None, None],
        y_N=inputs.y.cpu().numpy(),
        rows_N=rows_N.numpy(),
        split_N=split_N,
        status_MN=status_N[None].astype(np.int8),
        kind_M=("unlearned",),
        parent_M=(-1,),
    )


def _accuracies(outputs: Predictions) -> Accuracies:
    logits_NC = outputs.logits_MQNC[0, 0]
    chosen = (outputs.split_N == subset for subset in PARTS)
    retain, forget, val = (utility.accuracy(logits_NC[rows], outputs.y_N[rows]) for rows in chosen)
    return retain, forget, val


def _wished(workspace: Workspace, study: Study, cell: Cell) -> Accuracies:
    """The target accuracies."""
    if study.objective == "retrained":
        return _accuracies(predictions(workspace, replace(cell, method=cell.reference)))
    retain, _, val = _accuracies(predictions(workspace, cell.original()))
    return retain, val, val


def tuning_values(
    unlearned: tuple[float, float, float], wished: tuple[float, float, float], mia: float
) -> tuple[float, float, float, float]:
    """The four objectives of a search, each 0 at best.

        J = (|RA_U − RA|/3, |FA_U − FA|/3, |VA_U − VA|/3, Disc),   Disc = |2·MIA − 1|

    Deep Unlearn (arXiv 2410.01276), where RA, FA, VA are those of the retrained model.

    Args:
        unlearned: accuracies of the unlearned model on retain, forget and validation rows.
        wished: the target accuracies on the same rows.
        mia: accuracy of the attack that distinguishes forget rows from validation rows.
    """
    retain, forget, val = (abs(u - w) / 3 for u, w in zip(unlearned, wished, strict=True))
    return retain, forget, val, 1 - indisc(mia)


def tuning_score(values: Sequence[float]) -> float:
    """Euclidean norm of the objectives, by which trials are ranked."""
    return float(np.linalg.norm(values))
