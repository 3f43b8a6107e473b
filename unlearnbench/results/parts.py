"""Tables as folders of Parquet files: write one file, read all readable files."""

import time
from collections.abc import Mapping, Sequence
from errno import EMFILE, ENFILE, ENOMEM
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from unlearnbench.core import atomic, damage
from unlearnbench.results.schema import RANK, REQUIRED


def columns(schema: pa.Schema, n: int, **values: Any) -> pa.Table:
    """A table of n rows from arrays; a string is repeated in every row."""
    arrays = {k: [v] * n if isinstance(v, str) else v for k, v in values.items()}
    return pa.table(arrays, schema=schema)


def write(
    folder: Path, name: str, records: pa.Table | Sequence[Mapping[str, Any]], schema: pa.Schema
) -> Path:
    """Write one part file atomically.

    Args:
        folder: folder of the table.
        name: content key of the part.
        records: a table, or one mapping per row; missing values are null.
        schema: schema of the table.

    Returns:
        The path of the part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    if not isinstance(records, pa.Table):
        records = pa.Table.from_pylist(list(records), schema=schema)
    with atomic.writing(path) as file:
        pq.write_table(records, file, write_page_checksum=True)
    return path


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """The concatenation of tables of one schema."""
    return pa.concat_tables(tables)


def part(path: Path, schema: pa.Schema, repair: str) -> pa.Table:
    """One part; an empty table if the part does not exist or is unreadable.

    Args:
        path: path of the part.
        schema: schema of the table.
        repair: advice on how to repair an unreadable part.
    """
    paths = [path] if path.exists() else []
    return decoded(read_parts(paths, schema, repair=repair)[0], schema)


def read_table(folder: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The rows of all readable parts of a table."""
    return decoded(read_encoded([folder], schema, columns), schema)


def read_encoded(
    folders: Sequence[Path], schema: pa.Schema, columns: list[str] | None = None
) -> pa.Table:
    """The table with dictionary-encoded strings: few distinct values fill many rows.

    Columns that a part of an earlier schema lacks are null.
    """
    for attempt in range(ATTEMPTS):
        paths = readable_parts(folders)
        try:
            return read_parts(paths, schema, columns)[0]
        except FileNotFoundError:  # ``compact`` has merged it since
            time.sleep(0.001 * attempt)
    return read_parts(paths, schema, columns)[0]


def readable_parts(folders: Sequence[Path]) -> list[Path]:
    """The parts of a table, in order.

    A listing of a folder that changes meanwhile may show neither merged parts nor the file that
    replaces them; so it is repeated until no part has disappeared since the previous listing.
    """
    before = None
    while True:
        # Files are listed by suffix: a part that is being written ends with .tmp.
        paths = [path for folder in folders for path in damage.inside(folder, ".parquet")]
        if before is not None and before <= set(paths):
            return paths
        before = set(paths)


def read_parts(
    paths: Sequence[Path],
    schema: pa.Schema,
    columns: list[str] | None = None,
    repair: str | None = None,
) -> tuple[pa.Table, Sequence[Path]]:
    """The table of several parts, and the readable ones; unreadable parts are reported.

    Args:
        paths: paths of the parts.
        schema: schema of the table.
        columns: columns to read; all by default.
        repair: advice on how to repair an unreadable part; by its folder by default.

    Raises:
        FileNotFoundError: a part does not exist.
        OSError: the process lacks files or memory, which is no damage of a part.
    """
    flaw: Exception | str | None
    strings = [field.name for field in schema if field.type == pa.string()]
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = ds.ParquetFileFormat(dictionary_columns=strings, default_fragment_scan_options=checked)
    listed = pa.schema(
        [(f.name, DICTIONARY_ENCODED if f.name in strings else f.type) for f in schema]
    )
    try:
        parts = ds.dataset([str(path) for path in paths], schema=listed, format=form)
        # One dictionary per file, not many.
        table = parts.to_table(columns=columns, batch_size=WHOLE)
        if (flaw := _flaw(table)) is None:
            return table, paths
    except (FileNotFoundError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in NO_DAMAGE:
            raise
        flaw = error
    if len(paths) == 1:
        usual_repair = REPAIR.get(paths[0].parent.name, "delete it").format(paths[0].name)
        damage.passed_over(paths[0], flaw, repair or usual_repair)
        return read_parts([], schema, columns)
    half = len(paths) // 2
    (first, first_readable), (second, second_readable) = (
        read_parts(subset, schema, columns, repair) for subset in (paths[:half], paths[half:])
    )
    return joined([first, second]), [*first_readable, *second_readable]


def _flaw(table: pa.Table) -> str | None:
    """The reason why a table has another schema or is incomplete; None if it is valid."""
    for name in REQUIRED.intersection(table.column_names):
        if table[name].null_count:
            return f"of another schema: the column {name} is missing or has gaps"
    if "status" in table.column_names and "metric" in table.column_names:
        statuses = pa.compute.unique(table["status"].cast(pa.string())).to_pylist()
        if unknown := sorted(set(statuses) - RANK.keys()):
            return f"of another schema: the column status has {unknown[0]!r}"
    return None


NO_DAMAGE = (EMFILE, ENFILE, ENOMEM)
"""Errors of a process that lacks files or memory."""

REPAIR = {
    "rows": "delete it, and run the sweep again for its rows",
    "scores": "delete it and rows/{0}, and run the sweep again for what it held",
    "roc": "delete it and rows/{0}, and run the sweep again for what it held",
    "sweeps": "the sweep's own command writes it again",
    "trials": "delete it, and the command of the search writes it again",
}
"""Advice on an unreadable part, by its folder."""

ATTEMPTS = 100
"""Maximum number of listings of a table whose parts disappear while they are read."""

DICTIONARY_ENCODED = pa.dictionary(pa.int32(), pa.string())

WHOLE = 2**30
"""Batch size in rows, so large that a file is one batch."""


def decoded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with plain strings instead of dictionary-encoded ones."""
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def upgraded(table: pa.Table) -> pa.Table:
    """Rows with ``utility_key``, which up to schema 4 was stored in ``model_key``.

    The model in the store of such earlier rows is unknown: their ``model_key`` becomes null.
    """
    own, other = (table[name].cast(pa.string()) for name in ("utility_key", "model_key"))
    if not own.null_count:
        return table
    is_earlier = own.is_null()
    corrected = {
        "utility_key": pa.compute.if_else(is_earlier, other, own),
        "model_key": pa.compute.if_else(is_earlier, pa.scalar(None, pa.string()), other),
    }
    for name, column in corrected.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, column.dictionary_encode())
    return table
