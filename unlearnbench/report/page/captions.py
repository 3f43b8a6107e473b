"""Kinds of figures and their captions. This module does not import matplotlib."""

SAYS = {
    "pareto": (
        "Forgetting against utility against time",
        "Down is closer to retraining under attack, left is a lower test error, colour is speed. "
        "Ringed and named methods are the Pareto front: no other is better in one of the three and "
        "no worse in the others. Dashed is how far a second retraining is from the first.",
    ),
    "spread": (
        "What seeds make of it",
        "Each point is a seed, the stroke their mean, the grey band the range of second "
        "retrainings. Which differences are real is tested seed by seed, under Statistics.",
    ),
    "ranks": (
        "Ranks",
        "Mean rank over blocks, 1 is the best; methods under one bar cannot be told apart "
        "(Nemenyi's critical difference, 5 %).",
    ),
    "heatmap": (
        "Methods by setting",
        "Mean RetDev; light is close to retraining, a row of one shade is a method that "
        "does not depend on the setting.",
    ),
    "leaks": (
        "What each attack finds",
        "AUC by method and attack: white is ½, a guess; orange tells forgotten records from unseen "
        "ones, violet does so the other way round, which is as much of a trace.",
    ),
    "two_outputs": (
        "One output or two",
        "Whoever saw the model before and after the deletion (blue, with its 95 % interval) "
        "against who saw it before alone (orange). Dashed: exact retraining.",
    ),
    "roc": (
        "ROC of each attack",
        "The left end counts: how many records are told with few false alarms. Black is "
        "retraining, orange the original; coloured are the methods that are highest at that end, "
        "which need not have the highest AUC, grey the others.",
    ),
    "reconstructions": (
        "How near reconstructions come",
        "Share of deleted records whose reconstruction is at most this near. A curve further right "
        "leaks more; dotted are guesses from public records.",
    ),
    "pictures": ("What the attacker sees", "Truth beside reconstructions, by method."),
    "along": (
        "Along the run",
        "Metrics after each epoch of the method; 0 is where it sets out.",
    ),
}
"""Kinds of figures in the order of the page: heading and caption."""
