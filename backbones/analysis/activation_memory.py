"""How much memory a training step needs for what its backward pass wants of its forward pass."""

from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks

from backbones.analysis.complexity import without_data
from backbones.models.blocks import Blocks
from backbones.models.stages import StagedNetwork


@dataclass(frozen=True)
class ActivationMemory:
    """Bytes of one training step.

    Args:
        kept: after the forward pass.
        peak: the most at any time: more than `kept` where blocks are computed again in the backward pass.
    """

    kept: int
    peak: int


def activation_memory(network: StagedNetwork, input_shape: tuple[int, int, int, int]) -> ActivationMemory:
    """Counts the bytes of the tensors that autograd keeps in training mode: each once, no parameters and buffers.

    Nothing is computed and the network is left as it is: a copy without data runs on the meta device. Gradients, what a
    layer needs while it runs, and what a GPU's libraries and allocator take, come on top.

    Args:
        network: which of its blocks are computed again is its own (`StagedNetwork.recompute`).
        input_shape: (B, C, H, W) of the pictures, in fp32; they count, as the first convolution keeps them.
    """
    copy = without_data(network).train()
    kept = _Kept({t.untyped_storage()._cdata for t in (*copy.parameters(), *copy.buffers())})
    peak = 0

    def compute_again(stage: nn.Module, inputs: tuple[Tensor]) -> None:
        """When its turn comes a group finds what was kept before it, its input too; all after it is gone by then."""
        nonlocal peak
        assert isinstance(stage, Blocks)
        (x,) = inputs
        before = _Kept(kept.known, kept.bytes)
        blocks = list(stage)
        for start in range(0, len(blocks), stage.recompute):
            before.pack(x)
            group = _Kept(before.known, before.bytes)
            with saved_tensors_hooks(group.pack, _unpack):
                for block in blocks[start : start + stage.recompute]:
                    x = block(x)
            peak = max(peak, group.bytes)

    for module in copy.modules():
        if isinstance(module, Blocks) and module.recompute:
            module.register_forward_pre_hook(compute_again)
    with saved_tensors_hooks(kept.pack, _unpack):
        copy(torch.empty(input_shape, device="meta"))
    return ActivationMemory(kept.bytes, max(kept.bytes, peak))


class _Kept:
    """Bytes of the storages that autograd keeps, each once.

    Args:
        known: storages that do not count, or have been counted.
        bytes: of what is kept already.
    """

    def __init__(self, known: Set[int], bytes: int = 0) -> None:
        self.known = set(known)
        self.bytes = bytes
        self.held: list[UntypedStorage] = []  # so that no other gets the address of a known one

    def pack(self, tensor: Tensor) -> Tensor:
        """What `saved_tensors_hooks` calls with each tensor that is kept."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.held.append(storage)
            self.bytes += storage.nbytes()
        return tensor


def _unpack(tensor: Tensor) -> Tensor:
    return tensor
