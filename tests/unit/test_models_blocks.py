"""Shortcuts against explicit loops and closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones import get_model
from backbones.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut, make_shortcut


def option_a(x: Tensor, channels: int, stride: int) -> Tensor:
    """The paper's words, number by number: zeros for the new channels, every stride-th pixel of the others."""
    batch, in_channels, height, width = x.shape
    out = torch.zeros(batch, channels, -(-height // stride), -(-width // stride))
    for b in range(batch):
        for c in range(in_channels):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    out[b, c, i, j] = x[b, c, i * stride, j * stride]
    return out


@settings(max_examples=20, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 3), st.integers(0, 4)),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 3),
)
def test_option_a_is_subsampling_and_zeros(channels: tuple[int, int], size: tuple[int, int], stride: int) -> None:
    x = torch.randn(2, channels[0], *size)
    shortcut = ZeroPadShortcut(channels[0], sum(channels), stride=stride)
    assert list(shortcut.parameters()) == []
    assert torch.equal(shortcut(x), option_a(x, sum(channels), stride))


@pytest.mark.parametrize(
    ("option", "changes", "kind"),
    [
        (None, True, type(None)),
        (None, False, type(None)),
        ("A", True, ZeroPadShortcut),
        ("A", False, nn.Identity),
        ("B", True, nn.Sequential),
        ("B", False, nn.Identity),
        ("C", True, nn.Sequential),
        ("C", False, nn.Sequential),
    ],
)
def test_options(option, changes: bool, kind: type) -> None:
    shortcut = make_shortcut(option, 8, 16 if changes else 8, stride=2 if changes else 1, norm_layer=nn.BatchNorm2d)
    assert type(shortcut) is kind


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("option", [None, "A", "B", "C"])
def test_a_block_without_its_last_scale_is_its_shortcut(block, stride: int, option) -> None:
    """With the last BN's scale at 0 the residual is 0: what is left is ReLU of the shortcut, or 0 in a plain block."""
    module = block(8, 8, stride=stride, shortcut=option, norm_layer=nn.BatchNorm2d).eval()
    last = module.bn2 if block is BasicBlock else module.bn3
    nn.init.zeros_(last.weight)
    x = torch.randn(2, 8, 7, 7)
    given = x.clone()
    out = module(x)
    if option is None:
        expected = torch.zeros_like(out)
    elif option == "A" or (option == "B" and stride == 1 and block is BasicBlock):
        expected = option_a(x, 8 * block.expansion, stride).relu()
    else:
        weight = module.downsample[0].weight[:, :, 0, 0]
        # Fresh statistics: mean 0, variance 1, epsilon 1e-5.
        expected = torch.einsum("oc,bchw->bohw", weight, x[:, :, ::stride, ::stride]).relu() / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(out, expected)
    assert torch.equal(x, given), "the input must stay as it is: others may hold it"


def test_a_residual_net_is_the_plain_net_but_for_the_shortcuts() -> None:
    residual, plain = get_model("cifar_resnet20", width=4).eval(), get_model("cifar_plain20", width=4).eval()
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, 3, 16, 16)
    out = torch.relu(plain.bn1(plain.conv1(x)))
    added = out
    for layer in (plain.layer1, plain.layer2, plain.layer3):
        for block in layer:
            out = block(out)
            inner = torch.relu(block.bn1(block.conv1(added)))
            identity = option_a(added, block.conv2.out_channels, block.conv1.stride[0])
            added = torch.relu(block.bn2(block.conv2(inner)) + identity)
    torch.testing.assert_close(plain(x), plain.fc(out.mean((2, 3))))
    torch.testing.assert_close(residual(x), residual.fc(added.mean((2, 3))))
