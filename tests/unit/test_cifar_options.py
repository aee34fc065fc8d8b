"""Options of the CIFAR networks: layers of a residual function, dropout, no batch norm."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from backbones import get_model
from backbones.analysis.complexity import complexity
from backbones.analysis.signals import measure_signals, new_network
from backbones.analysis.stage_costs import stage_costs
from backbones.errors import CheckpointError, ConfigError
from backbones.models import StagedNetwork
from backbones.models.blocks import BasicBlock, ChannelBias
from backbones.weights import WeightsMetadata, check_same_network, load_classifier, save_weights

COMBINATIONS = [
    ("cifar_resnet20", {"block_layers": layers, "norm": norm, "shortcut": shortcut} | dropout)
    for layers, norm, shortcut, dropout in product((1, 2, 3), ("batch", "none"), "ABC", ({}, {"dropout": 0.3}))
    if layers > 1 or not dropout
] + [("cifar_plain20", {"norm": norm, "dropout": p}) for norm, p in product(("batch", "none"), (0, 0.3))]


def network(name: str, **options: Any) -> StagedNetwork:
    torch.manual_seed(0)
    return get_model(name, 5, width=4, **options)


def plain_formula(model: StagedNetwork, x: Tensor, block_layers: int, batch_norm: bool) -> Tensor:
    """A residual net of options A from its state dict alone: y = ReLU(F(x) + x), layer after layer, in eval mode."""
    state = model.state_dict()

    def layer(x: Tensor, conv: str, norm: str, stride: int) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        bias = state[f"{norm}.bias"][:, None, None]
        if not batch_norm:
            return x + bias
        mean, variance, weight = (
            state[f"{norm}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = layer(x, "conv1", "bn1", 1).relu()
    for stage, block in product((1, 2, 3), range(6 // block_layers)):
        stride = 2 if stage > 1 and block == 0 else 1
        residual = x
        for i in range(1, block_layers + 1):
            name = f"layer{stage}.{block}"
            residual = layer(residual, f"{name}.conv{i}", f"{name}.bn{i}", stride if i == 1 else 1)
            residual = residual.relu() if i < block_layers else residual
        identity = x[:, :, ::stride, ::stride]
        zeros = torch.zeros(len(x), residual.shape[1] - x.shape[1], *residual.shape[2:])
        x = (residual + torch.cat([identity, zeros], 1)).relu()
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("block_layers", [1, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_residual_function_of_one_to_three_layers(block_layers: int, norm: str) -> None:
    model = network("cifar_resnet20", block_layers=block_layers, norm=norm).eval()
    for name, value in model.state_dict().items():
        if name.endswith("bias") or "running" in name:
            value.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(x), plain_formula(model, x, block_layers, norm == "batch"))


@pytest.mark.parametrize("block_layers", [1, 2, 3])
@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (56, 853_018), (110, 1_727_962)])
def test_depth_and_parameters_are_the_same_whatever_the_blocks(depth: int, count: int, block_layers: int) -> None:
    with torch.device("meta"):
        model = get_model(f"cifar_resnet{depth}", block_layers=block_layers)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(isinstance(m, BasicBlock) for m in model.modules()) == (depth - 2) // block_layers


@pytest.mark.parametrize("depth", [32, 44, 1202])
def test_depths_that_three_layers_a_block_do_not_divide(depth: int) -> None:
    with pytest.raises(ConfigError, match=f"block_layers 3 .* {depth} layers .* 20, 38, 56") as error:
        get_model(f"cifar_resnet{depth}", block_layers=3)
    assert "\n" not in str(error.value)
    for good in (20, 38, 56, 74, 92, 110):
        with torch.device("meta"):
            get_model(f"cifar_resnet{good}", block_layers=3)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cifar_resnet20", {"block_layers": 4}, ["block_layers", "4", "1, 2, 3"]),
        ("cifar_resnet20", {"block_layers": 0}, ["block_layers", "0", "1, 2, 3"]),
        ("cifar_resnet20", {"block_layers": True}, ["block_layers", "True"]),
        ("cifar_resnet20", {"block_layers": 2.0}, ["block_layers", "2.0"]),
        ("cifar_plain20", {"block_layers": 2}, ["cifar_plain20", "no option 'block_layers'"]),
        ("resnet18", {"block_layers": 2}, ["resnet18", "no option 'block_layers'"]),
        ("resnet18", {"norm": "none"}, ["resnet18", "no option 'norm'"]),
        ("cifar_resnet20", {"norm": "group"}, ["norm", "'group'", "batch, none"]),
        ("cifar_resnet20", {"norm": None}, ["norm", "None"]),
        ("cifar_plain20", {"dropout": 1}, ["dropout", "from 0 to below 1"]),
        ("cifar_plain20", {"dropout": -0.1}, ["dropout", "-0.1"]),
        ("cifar_resnet20", {"dropout": 0.3, "block_layers": 1}, ["dropout 0.3", "block_layers 1"]),
        ("cifar_resnet20", {"norm": "none", "norm_layer": FrozenBatchNorm2d}, ["norm none", "norm_layer"]),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        get_model(name, **options)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "options"), COMBINATIONS)
def test_every_parameter_gets_a_gradient(name: str, options: dict[str, Any]) -> None:
    model = network(name, **options)
    out = model(torch.randn(4, 3, 8, 8))
    F.cross_entropy(out, torch.tensor([0, 3, 1, 2])).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_option_a_has_no_parameters_of_its_own() -> None:
    with torch.device("meta"):
        plain, residual = (get_model(f"cifar_{kind}20").state_dict() for kind in ("plain", "resnet"))
    assert {name: tensor.shape for name, tensor in plain.items()} == {n: t.shape for n, t in residual.items()}


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain20"])
def test_without_batch_norm_each_channel_has_a_bias(name: str) -> None:
    batch, none = network(name), network(name, norm="none")
    layers = sum(isinstance(m, nn.Conv2d) for m in none.modules())
    assert layers == 19
    assert sum(isinstance(m, ChannelBias) for m in none.modules()) == layers
    assert not any(isinstance(m, nn.BatchNorm2d) for m in none.modules())
    assert list(none.buffers()) == []
    biases, both = ({n for n, _ in m.named_parameters() if "bn" in n} for m in (none, batch))
    assert biases == {n for n in both if n.endswith("bias")}
    # New weights are the same draws, the biases 0.
    own = batch.state_dict()
    assert all(torch.equal(tensor, own[n]) for n, tensor in none.state_dict().items())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(none.train()(x), none.eval()(x))


def test_signals_may_leave_out_biases_too() -> None:
    bare = new_network(
        "cifar_resnet20", norm="none", initialisation="he", seed=0, num_classes=5, width=4, block_layers=3
    )
    assert [n for n, _ in bare.named_parameters() if "bn" in n] == []
    biased = network("cifar_resnet20", norm="none", block_layers=3)
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    one, two = (measure_signals(m, x, labels) for m in (bare, biased))
    assert one == two
    assert len(one) == 20


@pytest.mark.parametrize(("name", "options"), [("cifar_resnet20", {"block_layers": 3}), ("cifar_plain20", {})])
def test_dropout_sets_its_share_between_the_layers_to_0(name: str, options: dict[str, Any]) -> None:
    model = network(name, dropout=0.3, **options)
    block = model.layer1[0]
    ones = torch.ones(50, 4, 32, 32)
    dropped = block.dropout(ones)
    # Binomial: of 204,800 numbers 0.3 with a standard error of 0.001.
    assert abs((dropped == 0).float().mean() - 0.3) < 0.005
    torch.testing.assert_close(dropped[dropped > 0], torch.full_like(dropped[dropped > 0], 1 / 0.7))
    seen: list[tuple[Tensor, Tensor]] = []
    block.dropout.register_forward_hook(lambda _, x, out: seen.append((x[0], out)))
    fed: list[Tensor] = []
    block.conv1.register_forward_pre_hook(lambda _, x: fed.append(x[0]))
    for layer in block.layers()[1:]:
        layer.conv.register_forward_pre_hook(lambda _, x: fed.append(x[0]))
    model(torch.randn(2, 3, 8, 8))
    first, *later = fed
    assert len(seen) == len(later) == options.get("block_layers", 2) - 1
    for (before, after), convolved in zip(seen, later, strict=True):
        assert before.min() == 0, "after ReLU"
        assert convolved is after
    assert all(first is not out for _, out in seen)
    places = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)]
    assert len(places) == sum(isinstance(m, BasicBlock) for m in model.modules())


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain20"])
def test_dropout_does_nothing_in_tests_and_is_drawn_from_the_seed(name: str) -> None:
    with_dropout, without = network(name, dropout=0.5), network(name)
    assert with_dropout.state_dict().keys() == without.state_dict().keys()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(with_dropout.eval()(x), without.eval()(x))
    with_dropout.train()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(with_dropout(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert torch.equal(network(name, dropout=0).train()(x), without.train()(x))


@pytest.mark.parametrize("block_layers", [1, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_zero_initialised_blocks_start_as_their_shortcuts(block_layers: int, norm: str) -> None:
    model = network("cifar_resnet20", block_layers=block_layers, zero_init_residual=True, shortcut="B", norm=norm)
    for block in (m for m in model.modules() if isinstance(m, BasicBlock)):
        x = torch.rand(2, block.conv1.in_channels, 8, 8)
        torch.testing.assert_close(block(x), block.downsample(x).relu())
    kind = nn.BatchNorm2d if norm == "batch" else nn.Conv2d
    assert sum(not m.weight.any() for m in model.modules() if isinstance(m, kind)) == 18 // block_layers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block_layers": 1}, "[3x3, 16] x 6"),
        ({}, "[3x3, 16; 3x3, 16] x 3"),
        ({"block_layers": 3}, "[3x3, 16; 3x3, 16; 3x3, 16] x 2"),
    ],
)
def test_stages_in_words(options: dict[str, Any], words: str) -> None:
    with torch.device("meta"):
        model = get_model("cifar_resnet20", **options)
    cost = complexity(model, (3, 32, 32))
    rows = {row.name: row for row in stage_costs(model, cost)}
    assert rows["conv2"].layers == words
    assert sum(row.parameters for row in rows.values()) == 269_722


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet20", {"block_layers": 3, "dropout": 0.25, "norm": "batch"}),
        ("cifar_resnet20", {"block_layers": 1, "norm": "none", "shortcut": "C"}),
        ("cifar_plain20", {"dropout": 0.5, "norm": "none"}),
    ],
)
def test_weights_files_rebuild_the_network(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = network(name, **options).eval()
    metadata = WeightsMetadata("classification", name, {"width": 4} | options, list("abcde"), [0.0] * 3, [1.0] * 3, 32)
    save_weights(tmp_path / "weights.safetensors", model.state_dict(), metadata)
    loaded, found = load_classifier(tmp_path)
    assert found.options == {"width": 4} | options
    assert str(loaded) == str(model)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(x), model(x))
    check_same_network("it", found, name, options, "model")
    for option, other in (("dropout", 0.1), ("norm", "none" if options["norm"] == "batch" else "batch")):
        if options.get("block_layers") == 1 and option == "dropout":
            continue
        with pytest.raises(CheckpointError, match=f"model.options.{option} {other}"):
            check_same_network("it", found, name, {option: other}, "model")
