"""What a user's file says of itself at its start, checked before anything runs. Imports no torch.

An option's YAML names its check beside ``path``: ``check: {_target_: …}``, a function of the path
and of the option's ``call`` that raises ValueError.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

PARTS = ("train", "test")


def npz(path: Path, call: Mapping[str, Any]) -> None:
    """Names, shapes and types of the arrays in an archive; what is in them is not read.

    Raises:
        ValueError: they are not those of ``dataset=npz``.
    """
    try:
        with ZipFile(path) as archive:
            found = {
                name.removesuffix(".npy"): _header(archive, name)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
    except (BadZipFile, OSError, ValueError, EOFError, zlib.error) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"dataset=npz: {path} is no archive of plain arrays: {why}") from error
    tested = "x_test" in found or "y_test" in found
    for part in PARTS if tested else PARTS[:1]:
        if absent := [name for name in (f"x_{part}", f"y_{part}") if name not in found]:
            there = f"; it has {', '.join(found)}" if found else ""
            raise ValueError(f"dataset=npz: the archive lacks {', '.join(absent)}{there}")
        (x, x_dtype), (y, y_dtype) = found[f"x_{part}"], found[f"y_{part}"]
        if len(x) < 2 or len(y) != 1 or x[0] != y[0] or not y[0]:
            raise ValueError(f"dataset=npz: x_{part} and y_{part} do not fit: shapes {x} and {y}")
        for name, dtype in ((f"x_{part}", x_dtype), (f"y_{part}", y_dtype)):
            if dtype.kind not in "iuf":
                raise ValueError(f"dataset=npz: {name} must hold numbers, not {dtype}")
        if len(x) > 2:
            images(x_dtype, x)


def images(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse what are no images of channels last.

    Raises:
        ValueError: it names what would make them so.
    """
    if dtype != np.uint8 or len(shape) > 4:
        hint = "; scale pixels to 0..255 and store x.round().astype(np.uint8)"
        told = f"not {dtype} {shape}{hint if dtype.kind in 'iuf' else ''}"
        raise ValueError(f"dataset=npz: x must be uint8 (N, H, W[, C]) or numbers (N, F), {told}")
    if len(shape) == 4 and shape[1] <= 4 and (shape[3] > 4 or shape[1] < shape[2] == shape[3]):
        told = f"x has the shape {shape}, which looks like channels first"
        raise ValueError(
            f"dataset=npz: {told}: store x.transpose(0, 2, 3, 1), of shape (N, H, W, C)"
        )
    if 0 in shape:
        raise ValueError(f"dataset=npz: x has the shape {shape}: there is no pixel in it")


def _header(archive: ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def checkpoint(path: Path, call: Mapping[str, Any]) -> None:
    """Whether a file is of the kind that its name says, and has tensors.

    Raises:
        ValueError: it is not.
    """
    told = "must be safetensors, or a .pt or .pth file of torch.save(net.state_dict(), …)"
    if path.suffix in (".pt", ".pth"):
        with path.open("rb") as file:
            pickled = file.read(1) == b"\x80"  # as torch stored them before 1.6
        if not pickled and not is_zipfile(path):
            raise ValueError(f"train.path={path}: {told}")
        return
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size < min(100_000_000, path.stat().st_size):
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
        names = [name for name in header if name != "__metadata__"]
    except (ValueError, OSError) as error:
        raise ValueError(f"train.path={path}: is no safetensors file; it {told}") from error
    if not names:
        raise ValueError(f"train.path={path}: holds no tensor; it {told}")
