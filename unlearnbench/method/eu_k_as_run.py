"""EU-k as its authors' benchmark runs it: fresh weights under the old batch-norm statistics."""

from dataclasses import replace

from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.method.cf_k import cf_k


def eu_k_as_run(
    model: nn.Module,
    task: Task,
    *,
    lr: float,
    decay: float,
    proximity: float,
    epochs: int,
    batch_size: int,
    k: int,
) -> nn.Module:
    """Draw new weights for the head and the k stages before it, then do as CF-k, augmented.

        W ~ Kaiming-uniform (fan out) for convolutions, Xavier-uniform for linear layers; b ← 0
        θ_k ← θ_k − lr_e · ∇ [ CE(B_r) + (λ/2) · ‖θ_k − θ_start,k‖² ]

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "EU-k".

    Differs from ``eu_k``: layer norms and batch-norm statistics are not reset, and in eval mode new
    convolutions are normalised by the old ones'; L2 to the start; no momentum; never the stem, nor
    a stage of convolutions before those of a transformer.
    """
    draw = task.generator("reset")
    k = min(k, ops.blocks(model))
    names = ops.tail(model, k)
    for path, module in model.named_modules():
        if not any(f"{path}.{name}" in names for name, _ in module.named_parameters(recurse=False)):
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, 0, "fan_out", "relu", generator=draw)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=draw)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    task = replace(task, retain=task.retain.augmented())
    return cf_k(
        model,
        task,
        lr=lr,
        decay=decay,
        proximity=proximity,
        epochs=epochs,
        batch_size=batch_size,
        k=k,
    )
