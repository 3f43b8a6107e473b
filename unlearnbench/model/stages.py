"""The stages of a net, for methods that work layer by layer without knowing the architecture.

A net carries ``layer_stages``: a tuple of stages, each a tuple of names, first the stem, last the
head. A name is that of a module, as in ``named_modules``, or that of a parameter outside every such
module (``cls_token``). Together they hold every parameter and buffer exactly once. A net without a
stem of its own (logistic regression, MLP) has an empty tuple there: all of its layers but the head
are stages. The head is the classifier alone, the linear layer that gives the logits; a norm before
it belongs to another stage.
"""

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

Names = tuple[tuple[str, ...], ...]


def declare(net: nn.Module, layer_stages: Iterable[Iterable[str]]) -> nn.Module:
    """The net, carrying its stages; deep copies carry them too."""
    # Past nn.Module's own __setattr__, which is typed for tensors and modules only.
    net.__dict__["layer_stages"] = tuple(tuple(names) for names in layer_stages)
    held = [key for stage in tensors(net) for key in stage]
    assert sorted(held) == sorted(_tensors(net)), "every tensor must be in one stage"
    return net


def stages(net: nn.Module) -> list[list[nn.Module]]:
    """The modules of each stage, from the stem to the head.

    Parameters outside every module (``cls_token``) are no modules: ``tensors`` has them.
    """
    modules = dict(net.named_modules())
    return [[modules[name] for name in names if name in modules] for names in _names(net)]


def tensors(net: nn.Module) -> list[dict[str, Tensor]]:
    """Parameters and buffers of each stage by name, from the stem to the head; each exactly once.

    Buffers are in because a stage that is reset or copied takes its batch-norm statistics along.
    They are the net's own tensors: freeze a parameter or copy into it here and the net is changed.
    """
    everything = _tensors(net)
    return [
        {
            key: tensor
            for name in names
            for key, tensor in everything.items()
            if key == name or key.startswith(f"{name}.")
        }
        for names in _names(net)
    ]


def matched(net: nn.Module) -> Names:
    """Stages of a net of timm, after its own ``group_matcher``, by as few names as possible.

    The head is what timm calls the classifier; what its matcher puts beside it (the last norm of a
    ConvNeXt, the last convolution of a MobileNetV3) goes to the stage before.
    """
    from timm.models import group_parameters

    stage_of: dict[str, int]
    try:
        matcher = cast(Any, net).group_matcher(coarse=True)
    except (AttributeError, AssertionError):  # a few have none, or none that is coarse
        stage_of = {key: stage for stage, held in enumerate(tensors(net)) for key in held}
    else:
        stage_of = group_parameters(net, matcher, reverse=True)
    last, classifier = max(stage_of.values()), _classifier(net)
    if any(stage_of.get(key) == last for key in classifier):
        for key, stage in stage_of.items():
            stage_of[key] = stage - (stage == last and key not in classifier)
    stage = 0
    for name in _tensors(net):  # a buffer outside every stage goes with the tensor before it
        stage = stage_of.setdefault(name, stage)
    found: list[list[str]] = [[] for _ in range(max(stage_of.values()) + 1)]

    def walk(module: nn.Module, prefix: str) -> None:
        for name in stage_of:
            if name.startswith(prefix) and "." not in name.removeprefix(prefix):
                found[stage_of[name]].append(name)
        for child_name, child in module.named_children():
            name = f"{prefix}{child_name}"
            among = {stage for key, stage in stage_of.items() if key.startswith(f"{name}.")}
            if len(among) == 1:
                found[among.pop()].append(name)
            elif among:
                walk(child, f"{name}.")

    walk(net, "")
    return tuple(tuple(names) for names in found)


def _classifier(net: nn.Module) -> set[str]:
    """Names of the tensors of what timm calls the classifier; distilled nets have two."""
    try:
        layers = cast(Any, net).get_classifier()
    except AttributeError:
        return set()
    parts = [layers] if isinstance(layers, nn.Module) else list(layers)
    names = [name for name, module in net.named_modules() if any(module is part for part in parts)]
    return {key for key in _tensors(net) for name in names if key.startswith(f"{name}.")}


def _names(net: nn.Module) -> Names:
    """As declared; a net that declares nothing has its children, without a stem."""
    declared: Names | None = getattr(net, "layer_stages", None)
    if declared is not None:
        return declared
    loose = tuple(name for name in _tensors(net) if "." not in name)
    children = [name for name, child in net.named_children() if _tensors(child)]
    return (loose, *((name,) for name in children))


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """What ``state_dict`` names, but the tensors themselves: parameters keep their gradients."""
    return net.state_dict(keep_vars=True)
