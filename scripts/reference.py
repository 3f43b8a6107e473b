"""Copy a sweep's rows and ROC curves to ``results/reference``, which tests and reports read.

    python scripts/reference.py <results folder> <sweep> <new name> <command of the sweep>

Then ``unlearnbench report <name> paths.results=results/reference`` needs no other files. The origin
of the rows is recorded in ``results/reference/manifest.yaml``.
"""

import argparse
import datetime
import platform
from pathlib import Path

import pyarrow as pa
import torch
from omegaconf import OmegaConf

from unlearnbench.results import load, parts
from unlearnbench.results.schema import ROC, ROWS, SWEEP

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def cpu() -> str:
    """The model name of the processor."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Copy the rows and the list of cells, and record their origin in the manifest."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("sweep")
    parser.add_argument("name")
    parser.add_argument("command")
    arguments = parser.parse_args()
    rows = load.load_results(arguments.results, sweep=arguments.sweep)
    cells = load.load_sweep(arguments.results, arguments.sweep).assign(sweep=arguments.name)
    tables = [("rows", rows, ROWS), ("sweeps", cells, SWEEP)]
    if (arguments.results / "roc").is_dir():
        tables.append(("roc", load.load_roc(arguments.results, cells["key"]), ROC))
    for table, frame, schema in tables:
        made = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        parts.write(REFERENCE / table, arguments.name, made, schema)
    path = REFERENCE / "manifest.yaml"
    manifest = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
    manifest[arguments.name] = {
        "command": arguments.command,
        "cells": len(cells),
        "rows": len(rows),
        "commits": sorted(rows["commit"].dropna().unique().tolist()),
        "versions": sorted(rows["version"].dropna().unique().tolist()),
        "devices": sorted(rows["device"].dropna().unique().tolist()),
        "processor": cpu(),
        "torch": str(torch.__version__),
        "kept": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    }
    OmegaConf.save(manifest, path)


if __name__ == "__main__":
    main()
