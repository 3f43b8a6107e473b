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
    """Every deleted record of an audit, reconstructed; beside it what public records alone say.

        ĝ = ((n−1)/m) Σ_j ∇²ℓ(θ₊; z_j) v + Λv − λ'θ₊,   v = θ₋ − θ₊

    is the record's gradient, but for what public records cannot know. Of a linear model x̂ is its
    direction (``_rank_one``), inverted to inputs where there is an embedding; of any other net x̂
    is the input whose gradient is most parallel to it (``_gradient_inversion``). That part is
    experimental: the formula is of optima, and a net trained by SGD is at none.

        Avg: the mean of the public records;   MaxDiff: the one whose prediction changes most

    Figures are means over deletions of the cosine with the truth, plain and after the public mean
    is taken off both, with medians, and the share of right labels (of a regression the median
    error of the target, without its sign); medians of the length of x̂ over that of the truth, of
    s₂/s₁, and of the truth's rank among public records. ``change_cos`` reads the change of the
    parameters as if it were the gradient; ``deletion_trace`` is the share of deletions that changed
    any. Null: the truths exchanged among deletions. A score is the cosine of one deletion, its pool
    who made the guess. Bertran et al., Reconstruction Attacks on Machine Unlearning: Simple Models
    are Vulnerable (2405.20272); without the paper's text at hand.

    Args:
        deletions: what the attacker sees, and the truth.
        label: how the class is read off the gradient of the last layer: ``largest`` (A), ``least``
            (B) or ``intercept`` (C), see ``_rank_one.reconstruct``; ``auto``: A or B of a linear
            model, C of a net.
        space: in which MaxDiff compares predictions: ``probabilities`` (of a softmax, else the
            outputs themselves) or ``logits``.
        restarts: descents of an inversion from the nearest public records, beside that from the
            public mean.
        steps: of each descent, at most.

    Raises:
        ValueError: an unknown word, a negative number, or parameters that are not finite.
    """
    for name, word in (("label", label), ("space", space)):
        if word not in WORDS[name]:
            told = f"must be one of {', '.join(WORDS[name])}"
            raise ValueError(f"attack.call.{name}={word}: {told}")
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
