"""Stages of a net, for methods that work layer by layer on any architecture.

The attribute ``layer_stages`` of a net is a tuple of stages, each a tuple of names, with the stem
first and the head last. A name is that of a module, as in ``named_modules``, or of a parameter
outside all these modules (``cls_token``). Together they cover each parameter and buffer exactly
once. In a net without a stem (logistic regression, MLP) the first tuple is empty: all layers except
the head are stages. The head is the classifier, the linear layer that computes the logits; a norm
before it belongs to another stage.
"""

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

Names = tuple[tuple[str, ...], ...]


def declare(net: nn.Module, layer_stages: Iterable[Iterable[str]]) -> nn.Module:
    """Set the stages of a net, and return the net; deep copies have them too."""
    # Not through ``nn.Module.__setattr__``, which is typed for tensors and modules only.
    net.__dict__["layer_stages"] = tuple(tuple(names) for names in layer_stages)
    keys = [key for stage in tensors(net) for key in stage]
    assert sorted(keys) == sorted(_tensors(net)), "every tensor must be in one stage"
    return net


def stages(net: nn.Module) -> list[list[nn.Module]]:
    """The modules of each stage, from the stem to the head.

    Parameters outside all modules (``cls_token``) are only in ``tensors``.
    """
    modules = dict(net.named_modules())
    return [[modules[name] for name in names if name in modules] for names in _names(net)]


def tensors(net: nn.Module) -> list[dict[str, Tensor]]:
    """Parameters and buffers of each stage by name, from the stem to the head; each exactly once.

    Buffers are included because resets and copies of a stage apply to its batch-norm statistics.
    The tensors are not copies: changing one changes the net.
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
    """Stages of a net of timm by its ``group_matcher``, with as few names as possible.

    The head is the classifier of timm; other layers that its matcher groups with the head (the last
    norm of a ConvNeXt, the last convolution of a MobileNetV3) belong to the stage before.
    """
    from timm.models import group_parameters

    stage_of: dict[str, int]
    try:
        matcher = cast(Any, net).group_matcher(coarse=True)
    except (AttributeError, AssertionError):  # some nets have no coarse matcher
        stage_of = {key: stage for stage, group in enumerate(tensors(net)) for key in group}
    else:
        stage_of = group_parameters(net, matcher, reverse=True)
    last, classifier = max(stage_of.values()), _classifier(net)
    if any(stage_of.get(key) == last for key in classifier):
        for key, stage in stage_of.items():
            stage_of[key] = stage - (stage == last and key not in classifier)
    stage = 0
    for name in _tensors(
        net
    ):  # a buffer outside all stages joins the stage of the tensor before it
        stage = stage_of.setdefault(name, stage)
    stage_names: list[list[str]] = [[] for _ in range(max(stage_of.values()) + 1)]

    def collect(module: nn.Module, prefix: str) -> None:
        for name in stage_of:
            if name.startswith(prefix) and "." not in name.removeprefix(prefix):
                stage_names[stage_of[name]].append(name)
        for child_name, child in module.named_children():
            name = f"{prefix}{child_name}"
            among = {stage for key, stage in stage_of.items() if key.startswith(f"{name}.")}
            if len(among) == 1:
                stage_names[among.pop()].append(name)
            elif among:
                collect(child, f"{name}.")

    collect(net, "")
    return tuple(tuple(names) for names in stage_names)


def _classifier(net: nn.Module) -> set[str]:
    """Names of the tensors of the classifiers of timm; distilled nets have two."""
    try:
        layers = cast(Any, net).get_classifier()
    except AttributeError:
        return set()
    heads = [layers] if isinstance(layers, nn.Module) else list(layers)
    names = [name for name, module in net.named_modules() if any(module is head for head in heads)]
    return {key for key in _tensors(net) for name in names if key.startswith(f"{name}.")}


def _names(net: nn.Module) -> Names:
    """Return the declared stages, or else the children of the net as stages without a stem."""
    declared: Names | None = getattr(net, "layer_stages", None)
    if declared is not None:
        return declared
    loose = tuple(name for name in _tensors(net) if "." not in name)
    children = [name for name, child in net.named_children() if _tensors(child)]
    return (loose, *((name,) for name in children))


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of ``state_dict`` without detaching them: parameters keep gradients."""
    return net.state_dict(keep_vars=True)
