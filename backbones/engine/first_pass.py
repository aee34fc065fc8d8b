"""The passes before the first step of many processes, after which gradients are summed in an order that stays.

DistributedDataParallel sums gradients in buckets, while the backward pass goes on. After its first pass it fills them
anew, in the order in which gradients came, so that a sum starts as early as it can. Of 3 and more numbers a sum depends
on its order: were the first pass the first step, a resumed run would sum that step otherwise than a run without a
break. So the first pass is one that changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, data_parallel, mean_over_processes
from backbones.engine.step import ComputeLoss


def wrap_for_processes(
    model: nn.Module,
    network: nn.Module,
    compute_loss: ComputeLoss,
    batches: Iterator[Any],
    precision: Precision,
    world: World,
) -> tuple[nn.Module, Iterator[Any]]:
    """Wraps `network` for many processes, whose gradients are averaged.

    Args:
        model: as it is in one process, in training mode; its weights and buffers stay as they are, its gradients go.
        network: the same, or compiled.
        compute_loss: as in training.
        batches: whose first serves for the first pass.

    Returns:
        The wrapped network, and all of the batches.
    """
    first = next(batches)

    def backward(through: nn.Module) -> None:
        with autocast(precision, world.device):
            loss, _ = compute_loss(through, first)
        loss.backward()

    with _put_back(model):
        backward(model)
        unused = torch.tensor(float(any(p.grad is None for p in model.parameters() if p.requires_grad)))
        # Where gradients may never come, they are looked for at each step, and buckets stay as they were first built.
        look = mean_over_processes(unused.to(world.device)).item() > 0
        model.zero_grad(set_to_none=True)
        parallel = data_parallel(network, world, unused_parameters=look)
        if not look:
            backward(parallel)
    return parallel, chain([first], batches)


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Lets passes over a model leave nothing behind."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    for buffer, kept in before:
        buffer.copy_(kept)
    model.zero_grad(set_to_none=True)
