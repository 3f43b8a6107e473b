"""Tables as folders of Parquet files: write one, read all that are whole."""

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


def columns(schema: pa.Schema, n: int, **given: Any) -> pa.Table:
    """A table of n rows from whole columns; a single value stands in every row."""
    whole = {k: [v] * n if isinstance(v, str) else v for k, v in given.items()}
    return pa.table(whole, schema=schema)


def write(
    folder: Path, name: str, records: pa.Table | Sequence[Mapping[str, Any]], schema: pa.Schema
) -> Path:
    """Write one part file; whoever reads sees all of it or nothing.

    Args:
        folder: of the table.
        name: the part's content key.
        records: a table, or one mapping a row; what is not given is null.
        schema: of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    if not isinstance(records, pa.Table):
        records = pa.Table.from_pylist(list(records), schema=schema)
    with atomic.writing(path) as file:
        pq.write_table(records, file, write_page_checksum=True)
    return path


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one schema, one after the other."""
    return pa.concat_tables(tables)


def part(path: Path, schema: pa.Schema, repair: str) -> pa.Table:
    """One part alone; without rows where there is none, or none that can be read.

    Args:
        path: of the part.
        schema: of the table.
        repair: what to do about one that cannot be read.
    """
    found = [path] if path.exists() else []
    return decoded(is_complete(found, schema, repair=repair)[0], schema)


def read_table(folder: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The rows of all readable parts of a table."""
    return decoded(read_encoded([folder], schema, columns), schema)


def read_encoded(
    folders: Sequence[Path], schema: pa.Schema, columns: list[str] | None = None
) -> pa.Table:
    """The table with its strings as numbers of entries in a list: few stand in many rows.

    What a part of an earlier schema lacks is null.
    """
    for attempt in range(ATTEMPTS):
        paths = readable_parts(folders)
        try:
            return is_complete(paths, schema, columns)[0]
        except FileNotFoundError:  # ``compact`` has made one of it and of others since
            time.sleep(0.001 * attempt)
    return is_complete(paths, schema, columns)[0]


def readable_parts(folders: Sequence[Path]) -> list[Path]:
    """The parts of a table, in order.

    A folder that changes while it is listed may show neither the parts that became one nor that
    one; so it is listed until nothing has gone since the time before.
    """
    before = None
    while True:
        # Files are named one by one: a part that is being written ends with .tmp.
        paths = [path for folder in folders for path in damage.inside(folder, ".parquet")]
        if before is not None and before <= set(paths):
            return paths
        before = set(paths)


def is_complete(
    paths: Sequence[Path],
    schema: pa.Schema,
    columns: list[str] | None = None,
    repair: str | None = None,
) -> tuple[pa.Table, Sequence[Path]]:
    """The table of some parts, and those of them that can be read; the others are named.

    Args:
        paths: of the parts.
        schema: of the table.
        columns: that are read; all by default.
        repair: what to do about one that cannot be read; by its folder by default.

    Raises:
        FileNotFoundError: one of them is not there.
        OSError: this process cannot read now, which says nothing of a part.
    """
    flaw: Exception | str | None
    texts = [field.name for field in schema if field.type == pa.string()]
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = ds.ParquetFileFormat(dictionary_columns=texts, default_fragment_scan_options=checked)
    listed = pa.schema(
        [(f.name, DICTIONARY_ENCODED if f.name in texts else f.type) for f in schema]
    )
    try:
        parts = ds.dataset([str(path) for path in paths], schema=listed, format=form)
        table = parts.to_table(columns=columns, batch_size=WHOLE)  # one list a file, not many
        if (flaw := _flaw(table)) is None:
            return table, paths
    except (FileNotFoundError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in NO_DAMAGE:
            raise
        flaw = error
    if len(paths) == 1:
        usual = REPAIR.get(paths[0].parent.name, "delete it").format(paths[0].name)
        damage.passed_over(paths[0], flaw, repair or usual)
        return is_complete([], schema, columns)
    half = len(paths) // 2
    (first, some), (second, more) = (
        is_complete(few, schema, columns, repair) for few in (paths[:half], paths[half:])
    )
    return joined([first, second]), [*some, *more]


def _flaw(table: pa.Table) -> str | None:
    """What shows that a table is none of ours, or not whole: what every row has is missing."""
    for name in REQUIRED.intersection(table.column_names):
        if table[name].null_count:
            return f"of another schema: the column {name} is missing or has gaps"
    if "status" in table.column_names and "metric" in table.column_names:
        given = pa.compute.unique(table["status"].cast(pa.string())).to_pylist()
        if unknown := sorted(set(given) - RANK.keys()):
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
"""What to do about a part that cannot be read, by its folder."""

ATTEMPTS = 100
"""How often a table is listed again whose parts go while they are read."""

DICTIONARY_ENCODED = pa.dictionary(pa.int32(), pa.string())

WHOLE = 2**30
"""Rows at once: all."""


def decoded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with its strings spelled out."""
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def upgraded(table: pa.Table) -> pa.Table:
    """Rows in which ``model_key`` holds the key of utility rows, as it did up to schema 4, mended.

    Which model of the store they are of is not known.
    """
    own, other = (table[name].cast(pa.string()) for name in ("utility_key", "model_key"))
    if not own.null_count:
        return table
    earlier = own.is_null()
    mended = {
        "utility_key": pa.compute.if_else(earlier, other, own),
        "model_key": pa.compute.if_else(earlier, pa.scalar(None, pa.string()), other),
    }
    for name, column in mended.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, column.dictionary_encode())
    return table
