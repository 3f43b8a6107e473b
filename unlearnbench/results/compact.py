"""Merging of a table's many small files into one."""

import secrets
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from unlearnbench.results.frame import deduplicated
from unlearnbench.results.parts import ATTEMPTS, decoded, read_parts, readable_parts, write
from unlearnbench.results.schema import DAY, ROC, ROWS, SCORES


def compact(results: Path) -> dict[str, int]:
    """Merge the files of each table into one; concurrent readers still see all rows.

    Rows with a better row of the same key are dropped, such as those of a cell that failed once and
    succeeded later.

    Args:
        results: the results folder.

    Returns:
        Table name → number of merged files; 0 if there was at most one file.
    """
    token, merged = secrets.token_hex(8), {}
    for name, schema in (("rows", ROWS), ("scores", SCORES), ("roc", ROC)):
        merged[name] = _compacted(results / name, schema, token)
    return merged


def _compacted(folder: Path, schema: pa.Schema, token: str) -> int:
    """Merge the parts of a table into one named after a token.

    Only the files that were read are deleted: a part that has been written again since is another
    file of the same name. Each path is first renamed to a name that readers still see; then, as the
    file cannot be replaced any more, it is deleted if its identity is unchanged.

    Returns:
        The number of merged parts; 0 if there was at most one.
    """
    for temporary in folder.glob(".*.tmp"):  # left by killed processes
        with suppress(FileNotFoundError):
            if time.time() - temporary.stat().st_mtime > DAY:
                temporary.unlink()
    for attempt in range(ATTEMPTS):
        try:
            files = {path: _identity(path) for path in readable_parts([folder])}
            table, readable = read_parts([*files], schema)
            break
        except FileNotFoundError:  # another process is merging too
            time.sleep(0.001 * attempt)
    else:
        return 0
    if len(readable) < 2:
        return 0
    if "status" in schema.names:
        table = deduplicated(table)
    write(folder, f"{token}-{len(readable)}", decoded(table, schema), schema)
    for path in readable:  # last: until then rows exist twice, and readers deduplicate
        aside = path.with_name(f"{path.stem}.{token}.parquet")
        with suppress(FileNotFoundError):
            path.rename(aside)
            if _identity(aside) == files[path]:
                aside.unlink()
    return len(readable)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """Device, inode, mtime and size, which distinguish a file from one that replaced it."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
