"""The Arrow schemas of the result tables."""

import pyarrow as pa

SCHEMA_VERSION = 5

ROWS = pa.schema(
    [
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("train", pa.string()),
        ("forget", pa.string()),
        ("forget_hash", pa.string()),  # hash of the set of forget rows
        ("method", pa.string()),
        ("defense", pa.string()),
        ("attack", pa.string()),
        ("traits", pa.string()),  # traits of the method: uses_val, from_scratch, …
        ("threat", pa.string()),  # threat model of the attack, as text
        ("overrides", pa.string()),  # settings that differ from the options' defaults
        ("setup_key", pa.string()),  # digest of the options that methods share, by content
        ("method_key", pa.string()),  # digest of the method's option and tuning
        ("defense_key", pa.string()),  # digest of the defense's option
        ("attack_key", pa.string()),  # digest of the attack's option and inputs
        ("seed", pa.int64()),
        ("metric", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("n", pa.int64()),  # number of records of the value
        ("status", pa.string()),  # ok, skipped, failed
        ("reason", pa.string()),  # reason of a status other than ok, or of a missing value
        ("seconds", pa.float64()),  # seconds of the method's call
        ("measured_on", pa.string()),  # device of the seconds: cpu, or the GPU's name
        ("clock", pa.string()),  # clock of the seconds: processor or wall clock
        ("memory", pa.string()),  # peak_bytes of the whole process, or of a GPU's tensors
        ("key", pa.string()),
        ("utility_key", pa.string()),  # key of the utility rows of the same model
        ("model_key", pa.string()),  # key of the model in the store
        ("predictions_key", pa.string()),  # key of the model's outputs in the store
        ("commit", pa.string()),
        ("version", pa.string()),
        ("device", pa.string()),
        ("schema", pa.int64()),
    ]
)

SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("place", pa.int64()),  # index among the cell's scores; null in earlier parts
        ("pool", pa.string()),
        ("row", pa.int64()),
        ("member", pa.bool_()),
        ("score", pa.float64()),
    ]
)

ROC = pa.schema(
    [("key", pa.string()), ("fpr", pa.float64()), ("tpr", pa.float64()), ("others", pa.int64())]
)

TRIALS = pa.schema(
    [
        ("study", pa.string()),
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("train", pa.string()),
        ("forget", pa.string()),
        ("method", pa.string()),
        ("overrides", pa.string()),  # settings that differ from the options' defaults
        ("objective", pa.string()),  # retrained, no_retrain
        ("sampler", pa.string()),
        ("trial", pa.int64()),  # 0: the method's defaults
        ("settings", pa.string()),  # JSON: hyper-parameters by dotted name
        ("trial_status", pa.string()),  # complete, pruned, failed, skipped
        ("phase", pa.string()),  # search, or fresh: the best trials on fresh seeds
        ("seed", pa.int64()),
        ("retain_gap", pa.float64()),  # |RA − target RA| / 3
        ("forget_gap", pa.float64()),
        ("val_gap", pa.float64()),
        ("disc_val", pa.float64()),  # |2 Val-MIA − 1|
        ("score", pa.float64()),  # norm of these four; infinite after a failure
        ("status", pa.string()),  # status of this seed: complete, failed, skipped
        ("reason", pa.string()),
        ("seconds", pa.float64()),  # seconds of unlearning and evaluation
        ("measured_on", pa.string()),  # cpu: processor seconds; a GPU's name: wall-clock seconds
        ("commit", pa.string()),
        ("version", pa.string()),
    ]
)

SWEEP = pa.schema([("sweep", pa.string()), ("key", pa.string()), ("utility_key", pa.string())])

CELL = ["dataset", "model", "train", "forget", "forget_hash", "method", "defense", "attack"]

CELL += ["overrides", "seed"]

RANK = {"ok": 0, "skipped": 1, "failed": 2}

REQUIRED = frozenset({"key", "status", "pool", "row", "fpr", "study", "trial"})

REQUIRED |= {"kind", "wave", "part", "cells", "task"}
"""Columns without gaps, in whichever tables have them."""

LISTED_CELLS = SWEEP.append(pa.field("model_key", pa.string()))
"""Schema for reading a sweep's cells: up to schema 4 ``model_key`` held ``utility_key``."""

DAY = 86_400.0
"""Seconds after which a temporary file counts as left by a killed process."""
