"""Residual and plain blocks, their shortcuts, and the initialisation: what all networks of the paper are built from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

NormLayer = Callable[[int], nn.Module]
ShortcutOption = Literal["A", "B", "C"]
StrideIn = Literal["1x1", "3x3"]
Pool = Literal["torch", "caffe"]


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width (divided by the stride); no bias, as BN follows."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias, as bottlenecks and projections have (Fig. 5, equation 2)."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class ZeroPadShortcut(nn.Module):
    """Option A where dimensions change: every stride-th pixel, zeros as new channels, no parameters (3.3)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.extra_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra_channels))


def make_shortcut(
    option: ShortcutOption | None, in_channels: int, out_channels: int, *, stride: int, norm_layer: NormLayer
) -> nn.Module | None:
    """The shortcut of one block (3.3, 4.1).

    Args:
        option: "A" identity, zero-padded where dimensions change; "B" projection where dimensions change, identity
            elsewhere; "C" projection everywhere; None for a plain block: no shortcut.
        in_channels: of the block's input.
        out_channels: of the block's output.
        stride: of the block.
        norm_layer: makes the projection's batch normalisation from the number of channels.

    Returns:
        The module, or None for a plain block.
    """
    if option is None:
        return None
    same_dimensions = stride == 1 and in_channels == out_channels
    if option == "C" or (option == "B" and not same_dimensions):
        return nn.Sequential(conv1x1(in_channels, out_channels, stride), norm_layer(out_channels))
    if same_dimensions:
        return nn.Identity()
    return ZeroPadShortcut(in_channels, out_channels, stride=stride)


class ChannelBias(nn.Module):
    """What networks without batch norm have in its place: a learned number for each channel is added.

    Args:
        channels: C of the input, (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias[:, None, None]


class Layer(NamedTuple):
    """A layer of a block: its convolution and the batch norm after it."""

    conv: nn.Conv2d
    norm: nn.Module


class Block(nn.Module):
    """What all blocks have: layers, named conv1, bn1, conv2, bn2, ... as torchvision names them, and a shortcut."""

    layer_count: int
    downsample: nn.Module | None
    """The shortcut, which may be the identity; None in a plain net."""

    def layers(self) -> list[Layer]:
        """The layers of the residual function, in the order in which they run."""
        return [Layer(getattr(self, f"conv{i}"), getattr(self, f"bn{i}")) for i in range(1, self.layer_count + 1)]


class BasicBlock(Block):
    """Two 3x3 convolutions (Fig. 5, left), or one or three; with the shortcut None layers of a plain net.

    ReLU follows each batch norm; after the last it follows the addition of the shortcut.

    Args:
        in_channels: C of the input, (B, C, H, W).
        channels: of the convolutions; the output is (B, channels, H / stride, W / stride).
        stride: of the first convolution.
        shortcut: see `make_shortcut`.
        norm_layer: makes batch normalisation from the number of channels.
        layers: how many convolutions the residual function has (3.2).
        dropout: share of the numbers between the block's layers, after ReLU, that training sets to 0 (Zagoruyko and
            Komodakis 2016).
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        shortcut: ShortcutOption | None,
        norm_layer: NormLayer,
        layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layer_count = layers
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = norm_layer(channels)
        for i in range(2, layers + 1):
            self.add_module(f"conv{i}", conv3x3(channels, channels))
            self.add_module(f"bn{i}", norm_layer(channels))
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout) if dropout else None
        # Named as torchvision names the projection, so that its checkpoints load.
        self.downsample = make_shortcut(shortcut, in_channels, channels, stride=stride, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.layers()
        out = first.norm(first.conv(x))
        for layer in rest:
            out = self.relu(out)
            if self.dropout is not None:
                out = self.dropout(out)
            out = layer.norm(layer.conv(out))
        if self.downsample is not None:
            out += self.downsample(x)
        return self.relu(out)


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions (Fig. 5, right).

    Args:
        in_channels: C of the input, (B, C, H, W).
        channels: of the narrow part; the output is (B, 4 * channels, H / stride, W / stride).
        stride: of the block.
        shortcut: see `make_shortcut`.
        norm_layer: makes batch normalisation from the number of channels.
        stride_in: which convolution has the stride: the first 1x1 as in the paper, or the 3x3 ("v1.5").
    """

    expansion = 4
    layer_count = 3

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        shortcut: ShortcutOption | None,
        norm_layer: NormLayer,
        stride_in: StrideIn = "1x1",
    ) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = conv1x1(in_channels, channels, stride if stride_in == "1x1" else 1)
        self.bn1 = norm_layer(channels)
        self.conv2 = conv3x3(channels, channels, stride if stride_in == "3x3" else 1)
        self.bn2 = norm_layer(channels)
        self.conv3 = conv1x1(channels, out_channels)
        self.bn3 = norm_layer(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(shortcut, in_channels, out_channels, stride=stride, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out += self.downsample(x)
        return self.relu(out)


class Blocks(nn.Sequential):
    """A stage's blocks, one after another.

    `recompute` is 0, or how many blocks at a time keep nothing for the backward pass but their input, and are computed
    again in it (activation checkpointing, Chen et al. 2016). Outputs, gradients and batch norm's statistics are the
    same bits as without.
    """

    recompute = 0

    def forward(self, x: Tensor) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return super().forward(x)
        blocks = list(self)
        for start in range(0, len(blocks), self.recompute):
            x = _checkpoint(blocks[start : start + self.recompute], x)
        return x


def _checkpoint(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The output of blocks, which are computed again in the backward pass."""

    def run(x: Tensor) -> Tensor:
        for block in blocks:
            x = block(x)
        return x

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _statistics_aside(blocks)

    if torch.compiler.is_compiling():  # a compiled pass that is computed again has no side effects
        return checkpoint(run, x, use_reentrant=False)
    # The generator's state is asked for only where it matters, as a GPU can't tell it while it captures a graph.
    draws = any(isinstance(m, nn.Dropout) and m.training for block in blocks for m in block.modules())
    return checkpoint(run, x, use_reentrant=False, preserve_rng_state=draws, context_fn=contexts)


@contextmanager
def _statistics_aside(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norm counts what it sees in copies of its running statistics, which are thrown away.

    Without any (`track_running_stats` off) it would keep other tensors for the backward pass than the first time.
    """
    norms = [m for block in blocks for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
    for norm, name, buffer in kept:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)


def make_blocks(
    block: Callable[..., nn.Module], count: int, in_channels: int, out_channels: int, stride: int
) -> Blocks:
    """A stage of blocks, of which the first has the stride and the change of channels.

    Args:
        block: makes a block from its input's channels and its stride (keyword `stride`).
        count: how many blocks.
        in_channels: of the stage's input.
        out_channels: of every block's output.
        stride: of the first block.
    """
    rest = (block(out_channels, stride=1) for _ in range(count - 1))
    return Blocks(block(in_channels, stride=stride), *rest)


def zero_residuals(network: nn.Module) -> None:
    """Starts every residual block as its shortcut: the weight of its last batch norm is 0 (Goyal et al. 2017).

    Without batch norm it is the last convolution that is 0 (Zhang et al. 2019).
    """
    for module in network.modules():
        if isinstance(module, Block) and module.downsample is not None:
            last = module.layers()[-1]
            weight = getattr(last.norm, "weight", last.conv.weight)
            if isinstance(weight, nn.Parameter):  # a frozen batch norm has none
                nn.init.zeros_(weight)


def he_initialise(network: nn.Module) -> None:
    """Draws convolutions and linear layers as He et al. 2015 (normal, fan-in, for ReLU), with biases of 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
