"""Checks of a user's files before a run. Imports no torch.

An option's YAML names its check next to ``path``: ``check: {_target_: …}``, a function of the path
and of the option's ``call`` that raises ValueError. The check of a data set returns the number of
its records, or None; the check of a forget set takes that number as ``records`` if it is known.
"""

import json
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "test")

FEWEST = 5
"""Fewest rows of which a fifth can be held out for testing."""


def npz(path: Path, call: Mapping[str, Any]) -> int:
    """Check names, shapes, types and labels of the arrays in an archive.

    Returns:
        The number of records.

    Raises:
        ValueError: the arrays are not valid for ``dataset=npz``.
    """
    try:
        with ZipFile(path) as archive:
            headers_by_name = {
                name.removesuffix(".npy"): _header(archive, name)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    parts = check_arrays(headers_by_name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            n_train = len(arrays["y_train"])
            labels = np.concatenate([arrays[f"y_{subset}"] for subset in parts])
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    n_classes(labels, call["task"], n_train)
    if len(headers_by_name["x_train"][0]) == 2:
        no_image(call)
    return len(labels)


def no_image(call: Mapping[str, Any]) -> None:
    """Refuse image settings for a table."""
    for name in ("augment", "mean", "std"):
        if call[name] not in (None, "none"):
            raise ValueError(f"dataset.call.{name}={call[name]}: a table takes none")


UNREADABLE = (ValueError, TypeError, OSError, EOFError, BadZipFile, zlib.error)

Header = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and type of an array."""


def check_arrays(arrays: Mapping[str, Header]) -> tuple[str, ...]:
    """Check names, shapes and types of the arrays in an archive.

    Returns:
        The existing parts: ``train``, and ``test`` if there is one.

    Raises:
        ValueError: an array is missing, or does not fit the others.
    """
    parts = PARTS if "x_test" in arrays or "y_test" in arrays else PARTS[:1]
    for subset in parts:
        _check_subset(subset, arrays)
    for name in "xy":
        (train, train_dtype), (other, dtype) = (arrays[f"{name}_{parts[end]}"] for end in (0, -1))
        if train[1:] != other[1:] or train_dtype.kind != dtype.kind:
            raise wrong(f"{name}_train and {name}_test differ in shape or type")
    return parts


def _check_subset(subset: str, arrays: Mapping[str, Header]) -> None:
    if absent := [name for name in (f"x_{subset}", f"y_{subset}") if name not in arrays]:
        present = f"; it has {', '.join(arrays)}" if arrays else ""
        raise wrong(f"the archive lacks {', '.join(absent)}{present}")
    (x, x_dtype), (y, y_dtype) = arrays[f"x_{subset}"], arrays[f"y_{subset}"]
    if len(x) < 2 or len(y) != 1 or x[0] != y[0] or not y[0]:
        raise wrong(f"x_{subset} and y_{subset} do not fit: shapes {x} and {y}")
    if subset == "train" and "y_test" not in arrays and y[0] < FEWEST:
        raise wrong(
            f"{y[0]} rows are too few to hold some out: give {FEWEST}, or x_test and y_test"
        )
    for name, dtype in ((f"x_{subset}", x_dtype), (f"y_{subset}", y_dtype)):
        if dtype.kind not in "iuf":
            raise wrong(f"{name} must hold numbers, not {dtype}")
    if len(x) > 2:
        images(x_dtype, x)
    elif not x[1]:
        raise wrong(f"x has the shape {x}: there is nothing in it")


def unreadable(path: Path, error: BaseException) -> ValueError:
    """The error for an archive that cannot be read."""
    return wrong(f"{path} is no archive of plain arrays: {' '.join(str(error).split())}")


def wrong(problem: str) -> ValueError:
    """The error for an archive with invalid content."""
    return ValueError(f"dataset=npz: {problem}")


def images(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse arrays that are not uint8 images in channels-last order.

    Raises:
        ValueError: the array is not valid; the message names the conversion.
    """
    if dtype != np.uint8 or len(shape) > 4:
        hint = "; scale pixels to 0..255 and store x.round().astype(np.uint8)"
        message = f"not {dtype} {shape}{hint if dtype.kind in 'iuf' else ''}"
        raise ValueError(
            f"dataset=npz: x must be uint8 (N, H, W[, C]) or numbers (N, F), {message}"
        )
    if len(shape) == 4 and shape[1] <= 4 and (shape[3] > 4 or shape[1] < shape[2] == shape[3]):
        message = f"x has the shape {shape}, which looks like channels first"
        raise ValueError(
            f"dataset=npz: {message}: store x.transpose(0, 2, 3, 1), of shape (N, H, W, C)"
        )
    if 0 in shape:
        raise ValueError(f"dataset=npz: x has the shape {shape}: there is no pixel in it")


def check_all_finite(name: str, values: NDArray[Any]) -> None:
    """Refuse numbers that are not finite."""
    if not np.isfinite(values).all():
        raise wrong(f"{name} has values that are not finite")


def n_classes(y: NDArray[Any], task: str | None, n_train: int) -> int:
    """The number of classes in labels (N,), whose first ``n_train`` are training labels.

    It is 0 for regression.

    Raises:
        ValueError: the labels are neither classes 0..C-1 nor varying targets, or are ambiguous; or
            a class is in the test part only.
    """
    if task not in (None, "classes", "regression"):
        raise ValueError(f"dataset.call.task={task}: must be null, classes or regression")
    check_all_finite("y", y)
    is_integer = y.dtype.kind != "f" or bool(
        ((y == np.round(y)) & (np.abs(y.astype(float)) < 2.0**53)).all()
    )
    if task is None and y.dtype.kind == "f" and is_integer:
        message = "y holds whole numbers as floats: say dataset.call.task=classes or"
        raise wrong(f"{message} dataset.call.task=regression, or store y.astype(int) for classes")
    if task == "classes" and not is_integer:
        raise wrong("dataset.call.task=classes: y holds numbers that are not whole")
    if task == "regression" or not is_integer:
        if (y[:n_train] == y[0]).all():
            raise wrong(f"all targets are {y[0]}: there is nothing to learn")
        return 0
    present = np.unique(y)
    if len(present) < 2:
        raise wrong(f"all labels are {present[0]}: there must be two classes at least")
    for expected, label in enumerate(present.tolist()):
        if label != expected:
            raise wrong(f"labels must be 0, 1, 2, …: there is {label:g} but no {expected}")
    if len(untrained := np.setdiff1d(y, y[:n_train])):
        raise wrong(f"class {untrained[0]:g} is in y_test, and not in y_train")
    return len(present)


def _header(archive: ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def checkpoint(path: Path, call: Mapping[str, Any]) -> None:
    """Check that a file has the format of its suffix, and holds tensors.

    Raises:
        ValueError: the format is wrong, or there is no tensor.
    """
    valid = "must be safetensors, or a .pt or .pth file of torch.save(net.state_dict(), …)"
    if path.suffix in (".pt", ".pth"):
        with path.open("rb") as file:
            stored = file.read(1) == b"\x80"  # a pickle, as torch stored them before 1.6
        with suppress(BadZipFile), ZipFile(path) as archive:
            stored = any(name.endswith("data.pkl") for name in archive.namelist())
        if not stored:
            raise ValueError(f"train.path={path}: {valid}")
        return
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size < min(100_000_000, path.stat().st_size):
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
        names = [name for name in header if name != "__metadata__"]
        end = 8 + size + max((header[name]["data_offsets"][1] for name in names), default=0)
        if path.stat().st_size < end:
            raise ValueError(f"{end} bytes")
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise ValueError(f"train.path={path}: is no safetensors file; it {valid}") from error
    if not names:
        raise ValueError(f"train.path={path}: holds no tensor; it {valid}")


INTEGER = re.compile(r"[+-]?[0-9]+")


def rows(path: Path, call: Mapping[str, Any], records: int | None = None) -> None:
    """Check that a file holds row numbers, or a mask, of a data set of ``records`` records.

    Raises:
        ValueError: it does not.
    """
    row_numbers(path, records)


def sizes(path: None, call: Mapping[str, Any], records: int | None = None) -> None:
    """Check that exactly one size of a random forget set is set.

    Raises:
        ValueError: neither ``fraction`` nor ``count`` is set, or both are.
    """
    if (call["fraction"] is None) == (call["count"] is None):
        message = "one of them must be a number and the other null"
        fraction, count = (
            "null" if call[key] is None else call[key] for key in ("fraction", "count")
        )
        raise ValueError(f"forget.call.fraction={fraction}, forget.call.count={count}: {message}")


def row_numbers(path: Path, n: int | None) -> NDArray[np.int64]:
    """The row numbers (n,) in a file, sorted.

    Args:
        path: a text file of row numbers separated by white space, a ``.npy`` array of them, or a
            ``.npy`` array of one boolean per record.
        n: number of records; None if it is not known yet.

    Raises:
        ValueError: the file holds something else, is ambiguous, or holds a row twice.
    """
    if not path.is_file():
        raise ValueError(f"forget.path={path}: is no file")
    values = _array(path) if path.suffix == ".npy" else _numbers(path)
    if values.ndim != 1:
        raise _no_rows(path, f"an array of shape {values.shape}", n)
    if values.dtype.kind == "b":
        if n not in (None, len(values)):
            raise _no_rows(path, f"a mask of {len(values)} booleans", n)
        values = np.flatnonzero(values)
    elif values.dtype.kind not in "iu" and len(values):
        raise _no_rows(path, f"{len(values)} values of type {values.dtype}", n)
    elif (len(values) == n or len(values) > 2) and np.isin(values, [0, 1]).all():
        raise _no_rows(path, f"{len(values)} times 0 or 1, which may be a mask", n)
    if not len(values):
        raise _no_rows(path, "no row", n)
    beyond = values[(values < 0) | (values >= (2**63 if n is None else n))]
    if len(beyond):
        raise _no_rows(path, f"row {beyond[0]}", n)
    chosen, times = np.unique(values.astype(np.int64), return_counts=True)
    if len(chosen) < len(values):
        raise _no_rows(path, f"row {chosen[times > 1][0]} more than once", n)
    return chosen


def _no_rows(path: Path, content: str, n: int | None) -> ValueError:
    last, each = ("that of the last record", "a record") if n is None else (n - 1, f"of {n}")
    valid = (
        f"must hold different row numbers from 0 to {last}, as text or as a .npy array of "
        f"integers, or be a .npy array of one boolean {each}"
    )
    return ValueError(f"forget.path={path}: holds {content}; it {valid}")


def _array(path: Path) -> NDArray[Any]:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"forget.path={path}: is no .npy array of integers ({why})") from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise ValueError(f"forget.path={path}: is an archive, and must be one .npy array")
    return values


def _numbers(path: Path) -> NDArray[Any]:
    try:
        texts = path.read_text("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"forget.path={path}: is no text; an array ends in .npy") from error
    for text in texts:
        if not INTEGER.fullmatch(text) or len(text) > 18:
            shown = text if len(text) <= 20 else f"{text[:19]}…"
            message = f"must hold integers apart by white space, not {shown}"
            raise ValueError(f"forget.path={path}: {message}")
    return np.array(texts, np.int64)
