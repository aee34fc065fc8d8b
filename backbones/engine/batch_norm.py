"""Exact batch-norm statistics: averages over the training set instead of the moving averages of the last steps.

The detectors of the paper fix batch norm to them (Appendix A).
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def average_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Sets every live batch norm's mean and variance to those of its input over `batches`.

    Layers normalise by each batch while they are measured, as in training. The variance is the whole one: within
    batches and between their means. Several processes measure their own batches and share the averages. Layers that are
    fixed (in eval mode after `model.train()`) stay as they are.

    Args:
        model: in any mode; left in eval mode.
        batches: the network's inputs (B, 3, H, W), all of one size.

    Returns:
        The number of batches, over all processes.
    """
    model.train()
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    if not layers:
        model.eval()
        return 0
    sums: dict[nn.Module, Tensor] = {layer: torch.zeros(3, layer.num_features, dtype=torch.float64) for layer in layers}

    def measure(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].detach()
        x = x if x.dtype == torch.float64 else x.float()
        variance, mean = torch.var_mean(x, dim=[d for d in range(x.ndim) if d != 1], correction=0)
        mean = mean.double()
        sums[layer] = sums[layer].to(x.device) + torch.stack([mean, mean.square(), variance.double()])

    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    count = 0
    try:
        for batch in batches:
            model(batch)
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    model.eval()
    return _store(layers, sums, count)


def _store(layers: list[_BatchNorm], sums: dict[nn.Module, Tensor], count: int) -> int:
    device = next(iter(sums.values())).device
    total = torch.tensor(count, device=device)
    if dist.is_initialized():
        for value in (total, *sums.values()):
            dist.all_reduce(value)
    for layer in layers:
        mean, square, variance = sums[layer] / total
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance + square - mean.square())
    return int(total)
