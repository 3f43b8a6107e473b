"""The metrics of the page: heading, direction, definition and source of each."""

from dataclasses import dataclass

from unlearnbench.report.tables.tables import COLUMNS

HIGHER, LOWER = "higher is better", "lower is better"
AS_RETRAINED = "best is what retraining has"
HALF = "best is ½, where the attack guesses"
LEAKS = "higher leaks more"


@dataclass(frozen=True)
class Entry:
    """The description of a metric.

    Attributes:
        definition: one or two sentences.
        better: which values are better; empty where neither direction is.
        source: paper that defines the metric; empty where there is none.
    """

    definition: str
    better: str
    source: str = ""


DEEP = "Cadet et al., Deep Unlearn (2410.01276)"
ULIRA = "Hayes et al., Inexact Unlearning Needs More Careful Evaluations (2403.01218)"
LIRA = "Carlini et al., Membership Inference Attacks From First Principles (2112.03570)"
RMIA = "Zarifzadeh et al., Low-Cost High-Power Membership Inference Attacks (2312.03262)"
DOUBLE = "Chen et al., When Machine Unlearning Jeopardizes Privacy (2005.02205)"
AMNESIAC = "Graves et al., Amnesiac Machine Learning (2010.10981)"
BERTRAN = "Bertran et al., Reconstruction Attacks on Machine Unlearning (2405.20272)"
INVERSION = "Fredrikson et al. (CCS 2015), as modified by Graves et al. (2010.10981)"

ZHAO = "Zhao et al., What makes unlearning hard (2406.01257)"
LIN = "Lin (IEEE Transactions on Information Theory 1991)"

_JS = "Mean Jensen–Shannon divergence from the retrained model's answers on {}, bits."
_AUC = "Area under the ROC of {} forgotten against never seen records."
_CORRECT = "The same, of records that the original classifies right, as published."

ENTRIES = {
    "retain_acc": Entry("Accuracy on the training rows that stay (RA).", AS_RETRAINED, DEEP),
    "forget_acc": Entry("Accuracy on the rows to forget (FA).", AS_RETRAINED, DEEP),
    "val_acc": Entry("Accuracy on validation rows (VA).", HIGHER, DEEP),
    "test_acc": Entry("Accuracy on test rows, which no method sees (TA).", HIGHER, DEEP),
    "test_acc_forgotten": Entry("Accuracy on test rows of classes forgotten whole.", AS_RETRAINED),
    "test_acc_others": Entry("Accuracy on test rows of the other classes.", HIGHER),
    "ret_dev": Entry(
        "Retain deviation: Σ over retain, forget and test rows of |accuracy / accuracy of the "
        "model retrained with the same seed − 1|. 0 is as retrained.",
        LOWER,
        DEEP,
    ),
    "rte": Entry("Seconds of retraining over seconds of the method, on one machine.", HIGHER, DEEP),
    "rte_tuned": Entry(
        "The same with the seconds of the search that found the method's settings added.", HIGHER
    ),
    "mia_test": Entry(
        "Accuracy of an attack on the losses of forget rows against test rows (U-MIA).",
        "best is 50 %, where the attack guesses",
        DEEP,
    ),
    "mia_test_auc": Entry(
        "Area under the ROC of the loss, forget rows against test rows (U-MIA).", HALF, DEEP
    ),
    "indisc_test": Entry("1 − |2·MIA − 1|: 1 where the attack guesses.", HIGHER, DEEP),
    "ulira_auc": Entry(_AUC.format("U-LiRA, which knows the method,"), HALF, ULIRA),
    "lira_auc": Entry(_AUC.format("LiRA, whose shadows are originals,"), HALF, LIRA),
    "rmia_auc": Entry(_AUC.format("RMIA, whose shadows are originals,"), HALF, RMIA),
    "double_output_auc": Entry(
        "Area under the ROC of the attack on a record's outputs before and after the deletion, "
        "deleted against never seen records. Of the original, and of whatever leaves it as it was, "
        "both outputs are the same: ½, though all of the data are still in it.",
        HALF,
        DOUBLE,
    ),
    "classical_auc": Entry(
        "The same classifier on the output before the deletion alone.", HALF, DOUBLE
    ),
    "class_shadow_auc": Entry(_AUC.format("the shadow attack on a class,"), HALF, AMNESIAC),
    "class_shadow_recall": Entry(
        "Share of members of the forgotten class that the shadow attack finds.",
        "best is the false positive rate",
        AMNESIAC,
    ),
    "class_shadow_fpr": Entry("Share of others that it takes for members.", "", AMNESIAC),
    "class_shadow_auc_correct": Entry(_CORRECT, HALF, AMNESIAC),
    "class_shadow_recall_correct": Entry(_CORRECT, "best is the false positive rate", AMNESIAC),
    "class_shadow_fpr_correct": Entry(_CORRECT, "", AMNESIAC),
    "hrec_cos": Entry(
        "Mean cosine of the record that HRec reconstructs with the deleted one.", LEAKS, BERTRAN
    ),
    "hrec_cos_centered": Entry("The same after the public mean is taken off both.", LEAKS, BERTRAN),
    "change_cos": Entry("Mean cosine of the change of the parameters with the record.", LEAKS),
    "max_diff_cos": Entry(
        "Mean cosine with the record whose prediction changes most, a baseline.", LEAKS, BERTRAN
    ),
    "avg_cos": Entry("Mean cosine with the mean of the public records, a baseline.", "", BERTRAN),
    "hrec_null_cos": Entry("HRec's cosine with records of other deletions.", "", BERTRAN),
    "hrec_label_acc": Entry(
        "Share of deleted records whose class HRec tells right.", LEAKS, BERTRAN
    ),
    "hrec_target_error": Entry(
        "Median error of the target that HRec tells.", "lower leaks more", BERTRAN
    ),
    "inversion_centred_cosine": Entry(
        "Cosine of inverted images with the mean of their class, the mean of all taken off.",
        LEAKS,
        INVERSION,
    ),
    "inversion_centred_cosine_forgotten": Entry(
        "The same for classes that are forgotten whole.", LEAKS, INVERSION
    ),
    "tow": Entry(
        "Tug of war: Π over retain, forget and test rows of (1 − |accuracy − that of the model "
        "retrained with the same seed|). 1 is as retrained.",
        HIGHER,
        ZHAO,
    ),
    "tow_mia": Entry(
        "Tug of war with U-MIA's accuracy in place of that on forget rows.", HIGHER, ZHAO
    ),
    "js_retain": Entry(_JS.format("rows that stay"), LOWER, LIN),
    "js_forget": Entry(_JS.format("forget rows"), LOWER, LIN),
    "js_test": Entry(_JS.format("test rows"), LOWER, LIN),
    "zrf": Entry(
        "Zero retrain forgetting: 1 − mean Jensen–Shannon divergence from an untrained net over "
        "forget rows.",
        AS_RETRAINED,
        "Chundawat et al. (2205.08096)",
    ),
    "weight_distance": Entry("Distance of the parameters from the retrained model's.", LOWER),
    "relearn_ratio": Entry(
        "Steps of finetuning on forget rows until nearly the original's loss is reached again, "
        "over those the retrained model takes. Below 1 the model still knew.",
        AS_RETRAINED,
        "Golatkar et al. (1911.04933)",
    ),
    "klom_retrain_unlearned_forget_p95": Entry(
        "KL divergence of margins over models, retrained to unlearned, nats; 95th percentile over "
        "forget rows.",
        LOWER,
        "after Georgiev et al. (2410.23232)",
    ),
    "rte_prepared": Entry(
        "RTE with the seconds of what is prepared before the request added.", HIGHER
    ),
    "peak_bytes": Entry(
        "Most memory held during the method's call: by the process on a CPU, by tensors on a GPU.",
        LOWER,
    ),
    "prepared_bytes": Entry("What the method stores while the original is trained.", LOWER),
    "rmse_retain": Entry(
        "Root mean squared error on rows that stay, in standard deviations of the target.",
        AS_RETRAINED,
    ),
    "rmse_forget": Entry("The same on rows to forget.", AS_RETRAINED),
    "rmse_test": Entry("The same on test rows.", LOWER),
    "r2_test": Entry("Share of the variance of test targets that is explained.", HIGHER),
}
"""All metrics of a leaderboard, and metrics along runs."""

ATTACKS = {
    "umia": "U-MIA",
    "ulira": "U-LiRA",
    "lira": "LiRA",
    "rmia": "RMIA",
    "double_output": "double output",
    "class_shadow": "class shadow",
    "hrec": "HRec",
    "model_inversion": "inversion",
}

GROUPS = {"none": "Utility", "cost": "Cost", **ATTACKS, "other": "Other probes"}
"""Groups of metrics, in the order of their columns."""

BEGINNINGS = {
    "rte": "cost",
    "peak_": "cost",
    "prepared_": "cost",
    "zrf": "other",
    "weight_": "other",
    "relearn_": "other",
    "klom_": "other",
    "mia_": "umia",
    "indisc_": "umia",
    "ulira_": "ulira",
    "lira_": "lira",
    "rmia_": "rmia",
    "double_": "double_output",
    "classical_": "double_output",
    "class_shadow_": "class_shadow",
    "hrec_": "hrec",
    "change_": "hrec",
    "max_diff_": "hrec",
    "avg_": "hrec",
    "inversion_": "model_inversion",
}
"""Group of a metric, by the beginning of its name."""

OWN_LABELS = {
    "classical_auc": "output before AUC",
    "class_shadow_recall": "Class-shadow recall",
    "class_shadow_fpr": "Class-shadow FPR",
    "inversion_centred_cosine": "Inversion cosine",
    "inversion_centred_cosine_forgotten": "Inversion cosine, forgotten classes",
    "mia_test_auc": "U-MIA AUC",
    "mia_test": "U-MIA accuracy",
    "retain_acc": "retain accuracy",
    "forget_acc": "forget accuracy",
    "val_acc": "validation accuracy",
    "test_acc": "test accuracy",
    "test_acc_forgotten": "test accuracy, forgotten classes",
    "test_acc_others": "test accuracy, other classes",
}
"""Names of metrics where they are not a column heading."""


def attack_of(metric: str) -> str:
    """The group of a metric: an attack, ``none`` for utility, ``cost`` or ``other``."""
    return next((group for begin, group in BEGINNINGS.items() if metric.startswith(begin)), "none")


def attack(name: str) -> str:
    """The heading of an attack; options named ``<attack>_<study>`` get spaces for underscores."""
    return ATTACKS.get(name, name.replace("_", " "))


def label(metric: str) -> str:
    """The displayed name of the metric, without unit and direction."""
    heading = COLUMNS[metric][0] if metric in COLUMNS else metric.replace("_", " ")
    return OWN_LABELS.get(metric, heading.partition(" %")[0].rstrip(" ↓↑"))


def headed(metric: str) -> str:
    """The label of the metric and its direction in letters, as arrows need a second font."""
    better = ENTRIES[metric].better if metric in ENTRIES else ""
    says = {HIGHER: f" ({HIGHER})", LOWER: f" ({LOWER})", HALF: " (½ is best)"}.get(better, "")
    return label(metric) + says
