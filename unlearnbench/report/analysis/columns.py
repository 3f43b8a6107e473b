"""Columns of tables: names, controls, directions."""

CONTROLS = ("original", "retrain", "second_retrain")

COLUMNS = {
    "retain_acc": ("RA %", 100, 1),
    "forget_acc": ("FA %", 100, 1),
    "val_acc": ("VA %", 100, 1),
    "test_acc": ("TA %", 100, 1),
    "ret_dev": ("RetDev ↓", 1, 3),
    "mia_test": ("MIA % →50", 100, 1),
    "mia_test_auc": ("MIA AUC", 1, 3),
    "indisc_test": ("Indisc ↑", 1, 3),
    "ulira_auc": ("U-LiRA AUC", 1, 3),
    "lira_auc": ("LiRA AUC", 1, 3),
    "rmia_auc": ("RMIA AUC", 1, 3),
    "double_output_auc": ("Double-output AUC", 1, 3),
    "classical_auc": ("output before AUC", 1, 3),
    "class_shadow_auc": ("Class-shadow AUC", 1, 3),
    "class_shadow_recall": ("its recall %", 100, 1),
    "class_shadow_fpr": ("its FPR %", 100, 1),
    "class_shadow_auc_correct": ("AUC, filtered", 1, 3),
    "class_shadow_recall_correct": ("recall %, filtered", 100, 1),
    "class_shadow_fpr_correct": ("FPR %, filtered", 100, 1),
    "hrec_cos": ("HRec cos", 1, 3),
    "hrec_cos_centered": ("centred", 1, 3),
    "change_cos": ("change cos", 1, 3),
    "max_diff_cos": ("MaxDiff cos", 1, 3),
    "avg_cos": ("Avg cos", 1, 3),
    "hrec_null_cos": ("null cos", 1, 3),
    "hrec_label_acc": ("HRec label %", 100, 1),
    "hrec_target_error": ("HRec target error", 1, 3),
    "inversion_centred_cosine": ("inversion cos", 1, 3),
    "inversion_centred_cosine_forgotten": ("of the forgotten", 1, 3),
    "rte": ("RTE ↑", 1, 1),
    "rte_tuned": ("RTE with tuning", 1, 4),
    "rmse_retain": ("RMSE retain", 1, 3),
    "rmse_forget": ("RMSE forget", 1, 3),
    "rmse_test": ("RMSE test", 1, 3),
    "r2_test": ("R² test", 1, 3),
}
"""Metric → (heading, factor of the unit shown, decimal places)."""

USES_VAL = "†"
"""Marks a method that uses validation rows: its metrics on these rows are not on unseen data."""

ALIKE = "≈"
"""Marks an AUC that is not distinguishable from that of retraining: see ``alike``."""

ATTACKED: tuple[str, ...] = ("mia_", "indisc_", "ulira_", "lira_", "rmia_", "double_", "classical_")

ATTACKED += ("class_shadow_", "hrec_", "change_", "max_diff_", "avg_", "inversion_")
"""Prefixes of attack metrics. A defense changes no other metrics; its table shows only these."""
