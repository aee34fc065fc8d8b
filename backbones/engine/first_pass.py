"""The passes before the first step. Of many processes: after them gradients are summed in an order that stays.

DistributedDataParallel sums gradients in buckets, while the backward pass goes on. After its first pass it fills them
anew, in the order in which gradients came, so that a sum starts as early as it can. Of 3 and more numbers a sum depends
on its order: were the first pass the first step, a resumed run would sum that step otherwise than a run without a
break. So the first pass is one that changes nothing.

A compiled network is tried in such a pass too: whether its kernels can be made shows when they are asked for, forward
and backward.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import nn

from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, data_parallel, gather_objects, mean_over_processes
from backbones.engine.step import ComputeLoss, describe
from backbones.errors import UserError


def eagerly() -> AbstractContextManager[None]:
    """What is compiled, in whole or in part, runs in this context as if it were not."""
    return torch.compiler.set_stance("force_eager")  # type: ignore[return-value]


def try_compiled(
    model: nn.Module,
    network: nn.Module,
    compute_loss: ComputeLoss,
    batches: Iterator[Any],
    precision: Precision,
    world: World,
) -> tuple[str | None, Iterator[Any]]:
    """Passes forward and backward through a compiled network.

    Args:
        model: as it is in one process, in training mode; its weights and buffers stay as they are, its gradients go.
        network: the same, compiled, and wrapped where there are many processes.
        compute_loss: as in training; what is wrong with the data, or too large for the device, it raises.
        batches: whose first is tried.

    Returns:
        Why it can't be compiled in one of the processes, None where it can in all; and all of the batches.
    """
    first = next(batches)
    reason = None
    # Gradients are not exchanged: a process that has none would keep the others waiting.
    with _put_back(model), network.no_sync() if hasattr(network, "no_sync") else nullcontext():  # type: ignore[operator]
        try:
            _backward(network, compute_loss, first, precision, world)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of Dynamo, of the compiler, of Triton: each has its own
            reason = describe(error)
    reasons = [each for each in gather_objects(reason) if each]
    return reasons[0] if reasons else None, chain([first], batches)


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
        network: the same, or compiled; the passes here run it as if it were not.
        compute_loss: as in training.
        batches: whose first serves for the first pass.

    Returns:
        The wrapped network, and all of the batches.
    """
    first = next(batches)
    with _put_back(model), eagerly():
        _backward(model, compute_loss, first, precision, world)
        unused = torch.tensor(float(any(p.grad is None for p in model.parameters() if p.requires_grad)))
        # Where gradients may never come, they are looked for at each step, and buckets stay as they were first built.
        look = mean_over_processes(unused.to(world.device)).item() > 0
        model.zero_grad(set_to_none=True)
        parallel = data_parallel(network, world, unused_parameters=look)
        if not look:
            _backward(parallel, compute_loss, first, precision, world)
    return parallel, chain([first], batches)


def _backward(through: nn.Module, compute_loss: ComputeLoss, batch: Any, precision: Precision, world: World) -> None:
    with autocast(precision, world.device):
        loss, _ = compute_loss(through, batch)
    loss.backward()


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Lets passes over a model leave nothing behind."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    for buffer, kept in before:
        buffer.copy_(kept)
    model.zero_grad(set_to_none=True)
