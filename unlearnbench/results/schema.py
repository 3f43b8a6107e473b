"""The tables of results, by column."""

import pyarrow as pa

SCHEMA_VERSION = 5

ROWS = pa.schema(
    [
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("train", pa.string()),
        ("forget", pa.string()),
        ("forget_hash", pa.string()),  # of the set of forget rows, whatever chose them
        ("method", pa.string()),
        ("defense", pa.string()),
        ("attack", pa.string()),
        ("traits", pa.string()),  # what the method says of itself: uses_val, from_scratch, …
        ("threat", pa.string()),  # what the attacker holds, in words
        ("overrides", pa.string()),  # settings that differ from the options' defaults
        ("setup_key", pa.string()),  # of what methods share: the options' content, not their text
        ("method_key", pa.string()),  # of the method's option, and what its settings were found by
        ("defense_key", pa.string()),  # of the defense's option
        ("attack_key", pa.string()),  # of the attack's option, and of what its attacker has
        ("seed", pa.int64()),
        ("metric", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("n", pa.int64()),  # records the value was computed on
        ("status", pa.string()),  # ok, skipped, failed
        ("reason", pa.string()),  # of what is not ok, or of a value that is not there
        ("seconds", pa.float64()),  # of the method's own call
        ("measured_on", pa.string()),  # where that was: cpu, or the GPU's name
        ("clock", pa.string()),  # seconds of the processor, or of the wall clock
        ("memory", pa.string()),  # peak_bytes of the whole process, or of a GPU's tensors
        ("key", pa.string()),
        ("utility_key", pa.string()),  # of the utility rows of the same model
        ("model_key", pa.string()),  # of the model in the store
        ("predictions_key", pa.string()),  # of the model's outputs in the store
        ("commit", pa.string()),
        ("version", pa.string()),
        ("device", pa.string()),
        ("schema", pa.int64()),
    ]
)

SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("place", pa.int64()),  # among the cell's scores; null in parts from before it was written
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
        ("phase", pa.string()),  # search, or fresh: the best once more
        ("seed", pa.int64()),
        ("retain_gap", pa.float64()),  # |RA − wished| / 3
        ("forget_gap", pa.float64()),
        ("val_gap", pa.float64()),
        ("disc_val", pa.float64()),  # |2 Val-MIA − 1|
        ("score", pa.float64()),  # the norm of these four; infinite where it failed
        ("status", pa.string()),  # of this seed: complete, failed, skipped
        ("reason", pa.string()),
        ("seconds", pa.float64()),  # of the method and of measuring it
        ("measured_on", pa.string()),  # cpu: of the processor; a GPU's name: of the wall clock
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
"""The list of a sweep's cells as it is read: up to schema 4 ``model_key`` held ``utility_key``."""

DAY = 86_400.0
"""Seconds after which a temporary file is taken to be left by a process that was killed."""
