"""Time and memory of planning, status and loading rows by the size of a sweep.

    python scripts/bench_scale.py --forget-sets 56 --rows 1000000 --folder /tmp/scale

The cells are 18 methods × 10 seeds × 5 data sets × 2 models × ``--forget-sets``; no data is needed.
The script first makes artifacts, folders with a manifest only, and rows with random values. Each
measurement runs in a separate process. Prints wall-clock seconds, processor seconds and the peak
memory of each.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

METHODS = "finetune gradient_ascent random_labels neggrad_plus cf_k eu_k scrub bad_teacher fisher"
METHODS += " influence salun fcs msg cfw prmq ct kde rni"
DATASETS = "mnist,fashion_mnist,cifar10,cifar100,utkface"
CELLS_A_FILE, METRICS = 50, 10


def words(forget_sets: int) -> list[str]:
    """The overrides of the grid, as on the command line."""
    return [
        f"method={','.join(METHODS.split())}",
        "seed=range(10)",
        f"dataset={DATASETS}",
        "model=resnet18,tiny_vit",
        f"forget.call.seed=range({forget_sets})",
    ]


def key(number: int) -> str:
    """A key with the form of an artifact's key."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def planned(folder: Path, forget_sets: int) -> str:
    """Expand the grid, compose the cells, plan their jobs, list the artifacts they need."""
    from unlearnbench.config import compose
    from unlearnbench.store.artifacts import Store
    from unlearnbench.sweep.plan import needed, plan

    os.environ["UNLEARNBENCH_DATA"] = str(folder / "none")
    grid = compose.expand(words(forget_sets))
    cells = compose.cells(grid, ["original", "retrain", "second_retrain"])
    made = plan(cells, Store(folder / "none"), set())
    keys = needed(cells)
    torch = "torch is imported" if "torch" in sys.modules else "no torch"
    return f"{made}; {len(made.jobs):,} jobs, {len(keys):,} artifacts, {torch}"


def begun(folder: Path, forget_sets: int) -> str:
    """Plan the same grid and write its record, as a launcher does; then make half the artifacts."""
    from unlearnbench.config import compose
    from unlearnbench.sweep import local as launch
    from unlearnbench.sweep import run_record

    os.environ["UNLEARNBENCH_DATA"] = str(folder / "none")
    paths = {"results": folder / "sweep", "store": folder / "sweep" / "store"}
    cells = compose.cells(compose.expand(words(forget_sets)), ["original", "retrain"])
    settings = {**compose.settings([]), "paths": paths}
    made = launch.planned(cells, settings)
    launch.keep_list(cells, settings, "bench")
    run = run_record.begin(
        "bench", made, settings, words=words(forget_sets), launcher={"name": "slurm"}
    )
    run_record.write_jobs(run, run_record.listed(made.jobs, {}))
    done = [job.key for job in made.jobs if job.kind != "rows"][::2]
    for artifact_key in done:
        artifact(folder / "sweep" / "store", artifact_key)
    return f"{len(made.jobs):,} jobs, {len(done):,} artifacts written"


def status(folder: Path) -> str:
    """Compute the table of ``unlearnbench status``."""
    from unlearnbench.cli.status import status as status_of

    table, _ = status_of("bench", [f"paths.results={folder / 'sweep'}"])
    line = table.set_index("wave").loc["2 unlearned"]
    return f"{line['done']} of {line['all']} unlearned models are there"


def everything(folder: Path) -> str:
    """List all artifacts of the store, as verify, gc and du do."""
    from unlearnbench.store.artifacts import Store

    return f"{sum(1 for _ in Store(folder / 'store').artifacts()):,} artifacts"


def loaded(folder: Path, files: str) -> str:
    """Load all rows as a frame."""
    import unlearnbench

    return f"{len(unlearnbench.load_results(folder / files)):,} rows"


def done(folder: Path, files: str) -> str:
    """Load the keys of finished cells."""
    from unlearnbench.results import load

    return f"{len(load.finished(folder / files)):,} cells"


def make_store(folder: Path, artifacts: int) -> None:
    """Write the given number of artifacts."""
    for number in range(artifacts):
        artifact(folder / "store", key(number))


def artifact(store: Path, key: str) -> None:
    """Write a finished artifact without files."""
    path = store / key[:2] / key
    path.mkdir(parents=True, exist_ok=True)
    (path / "manifest.json").write_text(json.dumps({"key": key, "files": {}}))


def make_rows(folder: Path, rows: int) -> None:
    """Write rows as a sweep does, 50 cells per file, and the same rows in one file."""
    from unlearnbench.results import parts, schema

    cells, methods, datasets = rows // METRICS, METHODS.split(), DATASETS.split(",")
    at = np.arange(cells)
    about = {
        "dataset": np.array(datasets)[at // 18 % 5],
        "model": np.array(["resnet18", "tiny_vit"])[at // 90 % 2],
        "forget_hash": np.array([key(number)[:16] for number in range(56)])[at // 1800 % 56],
        "method": np.array(methods)[at % 18],
        "seed": at // 180 % 10,
        "key": np.array([key(number) for number in range(cells)]),
        "utility_key": np.array([key(number + cells) for number in range(cells)]),
        "seconds": np.random.default_rng(0).random(cells),
        "overrides": np.array([f"forget.call.seed={n}" for n in range(56)])[at // 1800 % 56],
    }
    same = {"train": "default", "forget": "random", "defense": "none", "attack": "umia"}
    same |= {"traits": "", "threat": "outputs of one model", "status": "ok", "commit": "0" * 12}
    same |= {"version": "0.1.0", "device": "cpu"}
    table = {name: np.repeat(values, METRICS) for name, values in about.items()}
    table["metric"] = np.tile([f"metric_{n}" for n in range(METRICS)], cells)
    table["value"] = np.random.default_rng(1).random(cells * METRICS)
    table["n"] = np.full(cells * METRICS, 1000)
    table["schema"] = np.full(cells * METRICS, schema.SCHEMA_VERSION)
    columns = {name: pa.array(values) for name, values in table.items()}
    columns |= {name: pa.array([value] * cells * METRICS) for name, value in same.items()}
    for name in schema.ROWS.names:
        columns.setdefault(name, pa.nulls(cells * METRICS, schema.ROWS.field(name).type))
    complete = pa.table({name: columns[name] for name in schema.ROWS.names}).cast(schema.ROWS)
    parts.write(folder / "one_file" / "rows", key(0), complete, schema.ROWS)
    each = CELLS_A_FILE * METRICS
    for first in range(0, len(complete), each):
        name = key(first)
        parts.write(folder / "files" / "rows", name, complete.slice(first, each), schema.ROWS)


def measured(label: str, function: Callable[..., str], *inputs: object) -> None:
    """Run a function in a separate process, and print its time and peak memory."""
    parent_end, child_end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_run_measured, args=(child_end, function, inputs)
    )
    process.start()
    child_end.close()  # otherwise a failed child would block recv
    message, wall, used, peak = parent_end.recv()
    process.join()
    print(f"{label:<34}{wall:8.2f} s {used:8.2f} s cpu {peak / 2**20:8,.0f} MiB   {message}")


def _run_measured(answer: object, function: Callable[..., str], inputs: tuple[object, ...]) -> None:
    import unlearnbench.config.compose
    import unlearnbench.results.load  # noqa: F401 - pandas and Hydra take a second or two

    wall, used = time.perf_counter(), time.process_time()
    message = function(*inputs)
    wall, used = time.perf_counter() - wall, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer.send((message, wall, used, peak))  # type: ignore[attr-defined]


def main() -> None:
    """Make the data if missing, and run all measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forget-sets", type=int, default=56, help="1,800 cells each")
    parser.add_argument("--artifacts", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="for what is made; is kept")
    arguments = parser.parse_args()
    folder = arguments.folder
    if not (folder / "store").is_dir():
        make_store(folder, arguments.artifacts)
    if not (folder / "files").is_dir():
        make_rows(folder, arguments.rows)
    files = f"{-(-arguments.rows // (CELLS_A_FILE * METRICS)):,}"
    measured("plan", planned, folder, arguments.forget_sets)
    if not (folder / "sweep").is_dir():
        measured("begin that sweep, do half of it", begun, folder, arguments.forget_sets)
    measured("status of that sweep", status, folder)
    measured("walk over the store", everything, folder)
    measured(f"load_results, {files} files", loaded, folder, "files")
    measured("load_results, one file", loaded, folder, "one_file")
    measured(f"which cells are done, {files} files", done, folder, "files")


if __name__ == "__main__":
    main()
