"""The construction of 1.4: a deeper net whose added layers are identities does exactly what its shallower one does."""

import pytest
import torch
from torch import Tensor, nn

from backbones import get_model
from backbones.models import StagedNetwork
from backbones.models.blocks import BasicBlock

PLAIN = [("plain18", "plain34"), ("cifar_plain20", "cifar_plain56")]
RESIDUAL = [
    ("resnet18", "resnet34", "B"),
    ("resnet18", "resnet34", "A"),
    ("cifar_resnet20", "cifar_resnet110", "A"),
    ("resnet50", "resnet101", "B"),
]


def learned(name: str, **options: object) -> StagedNetwork:
    """A network whose weights and batch-norm statistics are all unlike those it starts with."""
    torch.manual_seed(0)
    network = get_model(name, 5, width=4, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def added_blocks(deeper: StagedNetwork, shallower: StagedNetwork) -> list[nn.Module]:
    """Copies the shallower net into the deeper one, and returns the blocks that the deeper one has more."""
    missing, unexpected = deeper.load_state_dict(shallower.state_dict(), strict=False)
    assert missing
    assert not unexpected
    own = dict(shallower.named_modules())
    return [m for name, m in deeper.named_modules() if name.count(".") == 1 and "layer" in name and name not in own]


def make_identity(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """A 3x3 kernel that copies its channel; in eval mode batch norm's weight / sqrt(variance + eps) is exactly 1."""
    nn.init.dirac_(convolution.weight)
    nn.init.zeros_(norm.running_mean)
    nn.init.zeros_(norm.bias)
    nn.init.ones_(norm.weight)
    norm.eps = 2.0**-16  # 1e-5 is no sum of few powers of two: 1 - eps + eps would be rounded
    nn.init.constant_(norm.running_var, 1 - norm.eps)


def pictures(network: StagedNetwork) -> Tensor:
    return torch.randn(3, 3, 64 if network.input_size > 32 else 32, 64 if network.input_size > 32 else 32)


@pytest.mark.parametrize(("shallow", "deep"), PLAIN)
def test_a_deeper_plain_net_with_identity_layers(shallow: str, deep: str) -> None:
    """ReLU leaves its own output as it is, so that a layer that copies its input adds nothing at all."""
    shallower, deeper = learned(shallow), learned(deep)
    blocks = added_blocks(deeper, shallower)
    for block in blocks:
        assert isinstance(block, BasicBlock)
        make_identity(block.conv1, block.bn1)
        make_identity(block.conv2, block.bn2)
    depths = [int("".join(filter(str.isdigit, name))) for name in (shallow, deep)]
    assert 2 * len(blocks) == depths[1] - depths[0]
    x = pictures(shallower)
    with torch.no_grad():
        out = shallower.eval()(x)
        assert torch.equal(deeper.eval()(x), out)
        assert out.std() > 0
        # The added layers do take part: with one of them changed the output is another.
        blocks[-1].conv2.weight.mul_(1.1)
        assert not torch.equal(deeper(x), out)


@pytest.mark.parametrize(("shallow", "deep", "shortcut"), RESIDUAL)
@pytest.mark.parametrize("training", [False, True])
def test_a_deeper_residual_net_with_zero_residuals(shallow: str, deep: str, shortcut: str, training: bool) -> None:
    """A residual of zero needs but one weight of 0 each channel, and holds for batch statistics as well."""
    shallower, deeper = learned(shallow, shortcut=shortcut), learned(deep, shortcut=shortcut)
    blocks = added_blocks(deeper, shallower)
    assert blocks
    for block in blocks:
        last = block.bn2 if isinstance(block, BasicBlock) else block.bn3
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    x = pictures(shallower)
    with torch.no_grad():
        out = shallower.train(training)(x)
        assert torch.equal(deeper.train(training)(x), out)
        assert out.std() > 0
        last.bias.fill_(1.0)
        assert not torch.equal(deeper(x), out)


def test_zero_residuals_start_out_trainable() -> None:
    """The solution of the construction is no dead end: the added blocks' last batch norms get a gradient."""
    shallower, deeper = learned("cifar_resnet20"), learned("cifar_resnet32")
    blocks = added_blocks(deeper, shallower)
    for block in blocks:
        nn.init.zeros_(block.bn2.weight)
        nn.init.zeros_(block.bn2.bias)
    nn.functional.cross_entropy(deeper.train()(pictures(deeper)), torch.tensor([0, 1, 2])).backward()
    assert all(block.bn2.weight.grad.abs().max() > 0 for block in blocks)
