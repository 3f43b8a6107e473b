"""Weight files of users: no code in them is executed, and they must fit the net."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Names under which training scripts store the state dict, next to epochs and optimizers."""

PARALLEL = "module."
"""Prefix that DataParallel adds to each name."""

HALVES = (torch.float16, torch.bfloat16)


def load(net: nn.Module, path: Path, model: str) -> None:
    """Load a file into a net of the same architecture.

    Args:
        net: receives the weights of the file.
        path: safetensors, or a ``.pt``/``.pth`` state dict as ``torch.save`` writes it.
        model: name of the net's option, for messages.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it holds no state dict, or that of another net; names the first mismatch.
    """
    setting = f"train.path={path}"
    state, own = _read(path, setting), net.state_dict()
    if state and all(name.startswith(PARALLEL) for name in state) and not set(state) <= set(own):
        state = {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    for name, tied in _ties(own).items():
        if name not in state and tied in state:  # a tied weight may be stored once
            state[name] = state[tied]
        if name in state and tied in state and not torch.equal(state[name], state[tied]):
            raise ValueError(f"{setting}: {name} and {tied} differ, and are tied in model={model}")
    for name in (*own, *state):
        stored, wanted = state.get(name), own.get(name)
        shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (stored, wanted)]
        if shapes[0] != shapes[1]:
            shown = ["missing" if shape is None else str(shape) for shape in shapes]
            raise ValueError(
                f"{setting}: {name} is {shown[0]} in the file, {shown[1]} in model={model}"
            )
        assert stored is not None
        assert wanted is not None
        halved = stored.dtype in HALVES and wanted.dtype == torch.float32
        if stored.dtype != wanted.dtype and not halved:
            shown = [str(tensor.dtype).removeprefix("torch.") for tensor in (stored, wanted)]
            message = f"{name} is {shown[0]} in the file, {shown[1]} in model={model}"
            raise ValueError(f"{setting}: {message}; only float16 and bfloat16 become float32")
    net.load_state_dict(state)


def _ties(own: Mapping[str, Tensor]) -> dict[str, str]:
    """Tied tensors: names of tensors that share memory, each with the name of the other."""
    first: dict[tuple[Any, ...], str] = {}
    ties = {}
    for name, tensor in own.items():
        place = tensor.data_ptr(), tensor.shape, tensor.stride()
        if tensor.numel() and first.setdefault(place, name) != name:
            ties[name] = first[place]
    return {**ties, **{earlier: name for name, earlier in ties.items()}}


def _read(path: Path, setting: str) -> dict[str, Tensor]:
    if path.suffix not in (".pt", ".pth"):
        try:
            return load_tensors(path.read_bytes())
        except SafetensorError as error:
            raise ValueError(f"{setting}: is no safetensors file ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        why = "torch reads no weights in it, or more than weights; store net.state_dict()"
        raise ValueError(f"{setting}: {why} ({type(error).__name__})") from error
    wrapped = [
        name for name in WRAPPERS if isinstance(content, Mapping) and _is_state(content.get(name))
    ]
    if not _is_state(content) and len(wrapped) == 1:
        content = content[wrapped[0]]
    if not _is_state(content):
        inside = f"several of them: {', '.join(wrapped)}" if wrapped else "none"
        raise ValueError(
            f"{setting}: must hold one state dict of tensors by name, and holds {inside}"
        )
    return dict(content)


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )
