"""Blocks that are computed again in the backward pass: the same bits, in less memory."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from backbones import get_model
from backbones.analysis.activation_memory import activation_memory
from backbones.errors import ConfigError
from backbones.models import StagedNetwork
from backbones.models.blocks import Blocks

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("cifar_resnet32", {}),
    ("cifar_resnet20", {"dropout": 0.3, "block_layers": 3, "shortcut": "C"}),
    ("cifar_resnet20", {"norm": "none", "block_layers": 1}),
    ("cifar_plain20", {"dropout": 0.5}),
    ("resnet18", {}),
    ("resnet50", {"zero_init_residual": True}),
]


def pair(name: str, blocks: int, **options: Any) -> tuple[StagedNetwork, StagedNetwork]:
    torch.manual_seed(0)
    one = get_model(name, 5, width=4, **options)
    two = copy.deepcopy(one)
    two.recompute(blocks)
    return one, two


def train(network: StagedNetwork, steps: int = 2) -> tuple[list[Tensor], Tensor]:
    """Some steps of SGD: their outputs, and the state in which they leave the generator of random numbers."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(network.parameters(), 1e-5, momentum=0.9)
    outs = []
    for _ in range(steps):
        optimizer.zero_grad()
        outs.append(network(torch.randn(4, 3, 32, 32)))
        nn.functional.cross_entropy(outs[-1], torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()
    return outs, torch.get_rng_state()


def same_bits(one: nn.Module, two: nn.Module) -> None:
    other = two.state_dict()
    assert other.keys() == one.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other[name]), name
    gradients = {name: parameter.grad for name, parameter in two.named_parameters()}
    for name, parameter in one.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None), name
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name]), name


@pytest.mark.parametrize(
    ("name", "options", "blocks"),
    [*((name, options, 2) for name, options in NETWORKS), (*NETWORKS[0], 1), (*NETWORKS[0], 100), (*NETWORKS[1], 1)],
)
def test_outputs_gradients_and_statistics_are_the_same_bits(name: str, options: dict[str, Any], blocks: int) -> None:
    one, two = pair(name, blocks, **options)
    (outs, generator), (again, generator_again) = train(one), train(two)
    assert all(map(torch.equal, outs, again))
    assert torch.equal(generator, generator_again)
    same_bits(one, two)
    for module in two.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked == 2
            assert module.running_mean.any()


def test_statistics_and_draws_are_what_would_go_wrong() -> None:
    """The same by `torch.utils.checkpoint` alone: batch norm counts twice."""
    one, _ = pair("cifar_resnet8", 1)
    block = one.layer1[0]
    x = torch.randn(4, 4, 8, 8, requires_grad=True)
    torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False).sum().backward()
    assert block.bn1.num_batches_tracked == 2


def test_each_block_runs_twice_in_training_and_once_in_tests() -> None:
    _, two = pair("cifar_resnet20", 2)
    counts = dict.fromkeys([m for m in two.modules() if isinstance(m, nn.Conv2d)], 0)
    for convolution in counts:
        convolution.register_forward_pre_hook(lambda module, _: counts.update({module: counts[module] + 1}))
    x = torch.randn(2, 3, 8, 8)
    two(x).sum().backward()
    assert [count for module, count in counts.items() if module is not two.conv1] == [2] * 18
    with torch.no_grad():
        two.eval()(x)
    assert [count for module, count in counts.items() if module is not two.conv1] == [3] * 18
    assert counts[two.conv1] == 2


def test_in_eval_mode_gradients_are_the_same_too() -> None:
    one, two = pair("cifar_resnet20", 2)
    for network in (one, two):
        train(network)
        network.eval()
        network(torch.ones(2, 3, 8, 8)).sum().backward()
    same_bits(one, two)


def test_with_fixed_stages() -> None:
    one, two = pair("resnet18", 1)
    for network in (one, two):
        network.freeze(["conv1", "conv2"])
        train(network)
    same_bits(one, two)
    assert two.layer1[0].conv1.weight.grad is None
    assert two.layer1[0].bn1.num_batches_tracked == 0


def test_in_mixed_precision() -> None:
    one, two = pair("cifar_resnet20", 2)
    x = torch.randn(2, 3, 8, 8)
    for network in (one, two):
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(x).float().square().mean()
        loss.backward()
    same_bits(one, two)


def test_compiled() -> None:
    one, two = pair("cifar_resnet8", 1)
    x = torch.randn(4, 3, 8, 8)
    for network in (one, torch.compile(two, backend="aot_eager")):
        network(x).square().mean().backward()
    for (name, p), (_, q) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    for (name, b), (_, c) in zip(one.named_buffers(), two.named_buffers(), strict=True):
        torch.testing.assert_close(b, c, msg=name)


def test_it_can_be_turned_off_and_is_no_part_of_the_weights() -> None:
    one, two = pair("cifar_resnet20", 3)
    assert [stage.recompute for stage in two.modules() if isinstance(stage, Blocks)] == [3, 3, 3]
    assert str(one) == str(two)
    assert one.state_dict().keys() == two.state_dict().keys()
    two.recompute(0)
    assert {stage.recompute for stage in two.modules() if isinstance(stage, Blocks)} == {0}


def test_what_can_not_be_computed_again() -> None:
    with torch.device("meta"):
        vgg, resnet = get_model("vgg16", width=1), get_model("cifar_resnet20")
    vgg.recompute(0)
    with pytest.raises(ConfigError, match="recompute 4: a VGG has no blocks"):
        vgg.recompute(4)
    with pytest.raises(ConfigError, match="recompute -1"):
        resnet.recompute(-1)


def kept_bytes(network: StagedNetwork, x: Tensor) -> int:
    """What autograd keeps of a real forward pass on the CPU."""
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}  # the tensors too, so that no storage is freed and used again

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@pytest.mark.parametrize("blocks", [0, 2])
def test_the_memory_counted_is_that_of_a_real_pass(name: str, options: dict[str, Any], blocks: int) -> None:
    _, network = pair(name, blocks, **options)
    before = copy.deepcopy(network.state_dict())
    counted = activation_memory(network, (2, 3, 32, 32))
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert counted.kept == kept_bytes(network, torch.randn(2, 3, 32, 32))
    assert counted.peak >= counted.kept


def test_memory_of_resnet_20_by_hand() -> None:
    """A layer keeps what goes into its convolution and into its batch norm; ReLU's output is the next one's input."""
    with torch.device("meta"):
        network = get_model("cifar_resnet20")
    pictures, maps = 3 * 32 * 32, [16 * 32 * 32, 32 * 16 * 16, 64 * 8 * 8]  # numbers of a picture
    # Batch norm also keeps two numbers a channel, of the whole batch.
    channels, statistics = [16, 32, 64], 2 * (7 * 16 + 6 * 32 + 6 * 64)
    # conv1's batch norm and ReLU, six layers' on each of the three maps, and the features.
    everything = pictures + 2 * maps[0] + sum(6 * 2 * size for size in maps) + 64
    for batch in (2, 128):
        found = activation_memory(network, (batch, 3, 32, 32))
        assert found.kept == found.peak == 4 * (batch * everything + statistics)
    # Computed again three blocks, a stage, at a time: what conv1's layer keeps, then the inputs of the other stages.
    network.recompute(3)
    inputs = pictures + 2 * maps[0] + maps[0] + maps[1] + 64
    found = activation_memory(network, (128, 3, 32, 32))
    assert found.kept == 4 * (128 * inputs + 2 * 16)
    # The first stage is the largest: then its own twelve maps are there again, and all before it.
    assert found.peak == 4 * (128 * (pictures + 14 * maps[0]) + 2 * 7 * channels[0])


def test_memory_of_a_stage_grows_with_its_groups_not_its_blocks() -> None:
    with torch.device("meta"):
        network = get_model("cifar_resnet110")
    shape = (128, 3, 32, 32)
    everything = activation_memory(network, shape)
    network.recompute(4)
    less = activation_memory(network, shape)
    assert 10 * less.kept < everything.kept
    assert 6 * less.peak < everything.peak
