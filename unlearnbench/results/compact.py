"""Many small files of a table as one."""

import secrets
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from unlearnbench.results.frame import deduplicated
from unlearnbench.results.parts import ATTEMPTS, decoded, is_complete, readable_parts, write
from unlearnbench.results.schema import DAY, ROC, ROWS, SCORES


def compact(results: Path) -> dict[str, int]:
    """Make one file of the many that a sweep leaves; whoever reads meanwhile reads all rows.

    Rows that a better row stands for are left out: of a cell that failed once and worked later.

    Args:
        results: the results folder.

    Returns:
        How many files have become one, by table; 0 where there was one at most.
    """
    token, merged = secrets.token_hex(8), {}
    for name, schema in (("rows", ROWS), ("scores", SCORES), ("roc", ROC)):
        merged[name] = _compacted(results / name, schema, token)
    return merged


def _compacted(folder: Path, schema: pa.Schema, token: str) -> int:
    """Make one of a table's parts, named after a token; returns how many there were.

    What is deleted are the files that were read and no others: a part that has been written again
    since is another file of the same name. It is moved aside first, where readers still see it,
    and is known for the one that was read, or for another, when it cannot be replaced any more.
    """
    for left in folder.glob(".*.tmp"):  # of processes that were killed
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > DAY:
                left.unlink()
    for attempt in range(ATTEMPTS):
        try:
            files = {path: _identity(path) for path in readable_parts([folder])}
            table, read = is_complete([*files], schema)
            break
        except FileNotFoundError:  # somebody else is at it too
            time.sleep(0.001 * attempt)
    else:
        return 0
    if len(read) < 2:
        return 0
    if "status" in schema.names:
        table = deduplicated(table)
    write(folder, f"{token}-{len(read)}", decoded(table, schema), schema)
    for path in read:  # only now: between the two rows stand twice, and are read once
        aside = path.with_name(f"{path.stem}.{token}.parquet")
        with suppress(FileNotFoundError):
            path.rename(aside)
            if _identity(aside) == files[path]:
                aside.unlink()
    return len(read)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """What tells a file from another that has taken its name; a file is never written twice."""
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size
