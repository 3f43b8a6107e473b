"""Files of weights that a user brings: nothing in them is run, and they must fit the net."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Names under which training scripts put the state dict, beside epochs and optimizers."""

PARALLEL = "module."
"""What DataParallel puts before each name."""

HALVES = (torch.float16, torch.bfloat16)


def load(net: nn.Module, path: Path, model: str) -> None:
    """Load a file into a net of the same architecture.

    Args:
        net: whose weights become the file's.
        path: safetensors, or a ``.pt``/``.pth`` state dict as ``torch.save`` writes it.
        model: name of the net's option, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no state dict, or another net's: the first mismatch is named.
    """
    given = f"train.path={path}"
    state, own = _read(path, given), net.state_dict()
    if state and all(name.startswith(PARALLEL) for name in state) and not set(state) <= set(own):
        state = {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    for name, tied in _ties(own).items():
        if name not in state and tied in state:  # a tied weight may be stored once
            state[name] = state[tied]
        if name in state and tied in state and not torch.equal(state[name], state[tied]):
            raise ValueError(f"{given}: {name} and {tied} differ, and are tied in model={model}")
    for name in (*own, *state):
        there, wanted = state.get(name), own.get(name)
        shapes = [None if one is None else tuple(one.shape) for one in (there, wanted)]
        if shapes[0] != shapes[1]:
            shown = ["missing" if shape is None else str(shape) for shape in shapes]
            raise ValueError(
                f"{given}: {name} is {shown[0]} in the file, {shown[1]} in model={model}"
            )
        assert there is not None
        assert wanted is not None
        halved = there.dtype in HALVES and wanted.dtype == torch.float32
        if there.dtype != wanted.dtype and not halved:
            shown = [str(one.dtype).removeprefix("torch.") for one in (there, wanted)]
            told = f"{name} is {shown[0]} in the file, {shown[1]} in model={model}"
            raise ValueError(f"{given}: {told}; only float16 and bfloat16 become float32")
    net.load_state_dict(state)


def _ties(own: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are an earlier one's memory, and that one's name."""
    first: dict[tuple[Any, ...], str] = {}
    ties = {}
    for name, tensor in own.items():
        place = tensor.data_ptr(), tensor.shape, tensor.stride()
        if tensor.numel() and first.setdefault(place, name) != name:
            ties[name] = first[place]
    return {**ties, **{earlier: name for name, earlier in ties.items()}}


def _read(path: Path, given: str) -> dict[str, Tensor]:
    if path.suffix not in (".pt", ".pth"):
        try:
            return load_tensors(path.read_bytes())
        except SafetensorError as error:
            raise ValueError(f"{given}: is no safetensors file ({error})") from error
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        why = "torch reads no weights in it, or more than weights; store net.state_dict()"
        raise ValueError(f"{given}: {why} ({type(error).__name__})") from error
    wrapped = [name for name in WRAPPERS if isinstance(held, Mapping) and _is_state(held.get(name))]
    if not _is_state(held) and len(wrapped) == 1:
        held = held[wrapped[0]]
    if not _is_state(held):
        inside = f"several of them: {', '.join(wrapped)}" if wrapped else "none"
        raise ValueError(
            f"{given}: must hold one state dict of tensors by name, and holds {inside}"
        )
    return dict(held)


def _is_state(held: Any) -> bool:
    return (
        isinstance(held, Mapping)
        and bool(held)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items())
    )
