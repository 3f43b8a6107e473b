"""HRec: the one deleted record, from the parameters before and after, with public data only."""

from typing import TypedDict

from unlearnbench.attack import _gradient_inversion, _rank_one
from unlearnbench.attack._judged import judged
from unlearnbench.core.outputs import Scores
from unlearnbench.protocol._audit import Audit, NetAudit

WORDS = {
    "label": ("auto", "largest", "least", "intercept"),
    "space": ("probabilities", "logits"),
}


def hrec(
    deletions: Audit | NetAudit, *, label: str, space: str, restarts: int, steps: int
) -> Scores:
    """Reconstruct every deleted record of an audit; baselines use the public records only.

        ĝ = ((n−1)/m) Σ_j ∇²ℓ(θ₊; z_j) v + Λv − λ'θ₊,   v = θ₋ − θ₊

    estimates the gradient of the record, with public records in place of the other training rows.
    For a linear model x̂ is its direction (``_rank_one``), inverted to inputs if there is an
    embedding; for any other net x̂ is the input whose gradient has the largest cosine with it
    (``_gradient_inversion``). The latter is experimental: the formula holds at an optimum, which a
    net trained by SGD does not reach.

        Avg: the mean of the public records;   MaxDiff: the one whose prediction changes most

    Metrics are means over deletions of the cosine with the deleted record, plain and after
    subtracting the public mean from both, with medians, and the share of correct labels (for a
    regression the median absolute error of the target); medians of the norm of x̂ over that of the
    record, of s₂/s₁, and of the rank of the record among public records. ``change_cos`` uses the
    change of the parameters in place of the gradient; ``deletion_trace`` is the share of deletions
    that change any parameter. Null: the records of other deletions. A score is the cosine of one
    deletion, its pool the name of the attack. Bertran et al., Reconstruction Attacks on Machine
    Unlearning: Simple Models are Vulnerable (2405.20272); not checked against the paper's text.

    Args:
        deletions: the data of the attacker, and the deleted records.
        label: rule that reads the class from the gradient of the last layer: ``largest`` (A),
            ``least`` (B) or ``intercept`` (C), see ``_rank_one.reconstruct``; ``auto``: A or B for
            a linear model, C for a net.
        space: space in which MaxDiff compares predictions: ``probabilities`` (of a softmax, else
            the outputs) or ``logits``.
        restarts: number of descents from the nearest public records, in addition to the descent
            from the public mean.
        steps: maximal number of steps of each descent.

    Raises:
        ValueError: an unknown choice, a negative number, or parameters are not finite.
    """
    for name, word in (("label", label), ("space", space)):
        if word not in WORDS[name]:
            message = f"must be one of {', '.join(WORDS[name])}"
            raise ValueError(f"attack.call.{name}={word}: {message}")
    for name, value in (("restarts", restarts), ("steps", steps)):
        if value < 0:
            raise ValueError(f"attack.call.{name}={value}: must not be negative")
    settings = _Settings(label=label, space=space, restarts=restarts, steps=steps)
    if isinstance(deletions, NetAudit):
        return judged(deletions, _gradient_inversion.guess(deletions, **settings))
    return judged(deletions, _rank_one.guess(deletions, **settings))


class _Settings(TypedDict):
    label: str
    space: str
    restarts: int
    steps: int
