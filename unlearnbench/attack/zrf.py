"""ZRF: does the model answer on the forget set as a net that has never learned, or as retrained?"""

from unlearnbench.attack.weights import measured
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Scores
from unlearnbench.core.task import Compared
from unlearnbench.metric import distance
from unlearnbench.train.loop import logits


def zrf(models: Compared) -> Scores:
    """Compare predictions on the forget rows with those of a fresh net and of the retrained model.

        ZRF = 1 − mean over D_F of JS(p_U(x) ‖ p(x)),   JS in bits

    Chundawat et al. (AAAI 2023, arXiv 2205.08096), with p a net of random weights that no training
    starts from. Retrained models do not predict at random: their ZRF is reported too.

    Returns:
        ``zrf`` to the fresh net, ``zrf_of_retrained`` of the retrained model to the fresh net, and
        ``zrf_to_retrained`` between the two models, which is 1 − ``js_forget``.

    Raises:
        Skip: a regression, or a model that predicts nothing before it is trained.
    """
    task = models.task
    if not task.n_classes:
        raise Skip("zrf needs classes; this is a regression")
    if not any(True for _ in models.model.parameters()):
        raise Skip("zrf: the model has no weights to be drawn afresh")
    nets = models.model, models.retrained, task.fresh("zrf")
    unlearned, retrained, fresh = (logits(net, task.forget).numpy() for net in nets)
    metrics = {
        "zrf": distance.zrf(unlearned, fresh),
        "zrf_of_retrained": distance.zrf(retrained, fresh),
        "zrf_to_retrained": distance.zrf(unlearned, retrained),
    }
    return measured({name: (value, len(unlearned)) for name, value in metrics.items()})
