"""Multiply-adds against the paper's and against closed forms; the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones import get_model
from backbones.analysis.bottlenecks import bottleneck_costs
from backbones.analysis.complexity import PAPER_MULTIPLY_ADDS, complexity
from backbones.analysis.stage_costs import stage_costs
from backbones.analysis.table1 import main

ROOT = Path(__file__).parents[2]
COUNTED: list[tuple[str, dict[str, str], float]] = [
    ("resnet18", {}, 1.814e9),
    ("resnet34", {}, 3.664e9),
    ("resnet50", {}, 3.858e9),
    ("resnet50", {"stride_in": "3x3"}, 4.089e9),
    ("resnet101", {}, 7.570e9),
    ("resnet152", {}, 11.282e9),
    ("vgg16", {}, 15.470e9),
    ("vgg19", {}, 19.632e9),
]


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(arguments)
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "options", "counted"), COUNTED)
def test_multiply_adds_of_table_1(name: str, options: dict[str, str], counted: float) -> None:
    with torch.device("meta"):
        cost = complexity(get_model(name, **options))
    assert round(cost.multiply_adds / 1e9, 3) == counted / 1e9
    if not options:
        assert cost.multiply_adds == pytest.approx(PAPER_MULTIPLY_ADDS[name], rel=0.03)


def test_option_a_costs_what_the_plain_net_costs() -> None:
    """4.1: the same parameters, depth and cost."""
    with torch.device("meta"):
        assert complexity(get_model("resnet34", shortcut="A")) == complexity(get_model("plain34"))


def test_vgg16_without_fc() -> None:
    with torch.device("meta"):
        layers = complexity(get_model("vgg16")).layers
    assert sum(c.multiply_adds for c in layers if c.name.startswith("features")) == pytest.approx(15.347e9, abs=5e5)


@settings(max_examples=20, deadline=None)
@given(
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    bias=st.booleans(),
)
def test_closed_forms(groups, channels, kernel, stride, size, bias) -> None:
    c_in, c_out = (groups * c for c in channels)
    height, width = ((s - kernel) // stride + 1 for s in size)
    network = nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride=stride, groups=groups, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(c_out * height * width, 5, bias=bias),
    )
    cost = complexity(network, (c_in, *size))
    conv, linear = cost.layers
    assert conv.multiply_adds == height * width * c_in * c_out * kernel * kernel // groups
    assert conv.parameters == c_in * c_out * kernel * kernel // groups + bias * c_out
    assert (conv.name, conv.output_shape, conv.activations) == ("0", (c_out, height, width), c_out * height * width)
    assert linear.multiply_adds == c_out * height * width * 5
    assert (linear.name, linear.output_shape, linear.activations) == ("3", (5,), 5)
    assert cost.multiply_adds == conv.multiply_adds + linear.multiply_adds
    assert cost.parameters == conv.parameters + linear.parameters


def test_a_layer_that_runs_twice_has_its_parameters_once() -> None:
    layer = nn.Conv2d(2, 2, 1)
    cost = complexity(nn.Sequential(layer, layer), (2, 3, 3))
    assert [c.parameters for c in cost.layers] == [6, 0]
    assert (cost.parameters, cost.multiply_adds) == (6, 2 * 36)


def test_layers_add_up() -> None:
    with torch.device("meta"):
        cost = complexity(get_model("resnet50"))
    assert sum(layer.parameters for layer in cost.layers) == cost.parameters
    assert sum(layer.multiply_adds for layer in cost.layers) == cost.multiply_adds
    # Fig. 5 and seed 4.1.4: the bottleneck's three convolutions.
    weights = {layer.name: layer.parameters for layer in cost.layers}
    assert [weights[f"layer1.1.conv{i}"] for i in (1, 2, 3)] == [256 * 64, 64 * 64 * 9, 64 * 256]


def test_activations_of_a_network_are_those_of_convolutions_and_linear_layers() -> None:
    """4.2, by hand: conv1 and 2n layers of each size, and fc; batch norm's are not counted again."""
    with torch.device("meta"):
        cost = complexity(get_model("cifar_plain20"), (3, 32, 32))
    assert cost.activations == 7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8 + 10


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "plain34", "vgg16", "cifar_resnet20"])
def test_stages_add_up_to_the_network(name: str) -> None:
    with torch.device("meta"):
        network = get_model(name)
        cost = complexity(network, (3, network.input_size, network.input_size))
    rows = stage_costs(network, cost)
    for key in ("parameters", "multiply_adds", "activations"):
        assert sum(getattr(row, key) for row in rows) == getattr(cost, key)
    for row in rows[:-1]:
        stage = network.stages()[row.name]
        side = network.input_size // stage.stride
        assert row.output_shape == (stage.channels, side, side)


def test_stages_of_table_1() -> None:
    with torch.device("meta"):
        network = get_model("resnet101")
    rows = stage_costs(network, complexity(network))
    assert [row.layers for row in rows] == [
        "[7x7, 64], stride 2",
        "3x3 max pool, stride 2, [1x1, 64; 3x3, 64; 1x1, 256] x 3",
        "[1x1, 128; 3x3, 128; 1x1, 512] x 4",
        "[1x1, 256; 3x3, 256; 1x1, 1024] x 23",
        "[1x1, 512; 3x3, 512; 1x1, 2048] x 3",
        "average pool, 1000-d fc",
    ]


@pytest.mark.parametrize(("name", "blocks"), [("resnet50", 16), ("resnet101", 33), ("resnet152", 50)])
def test_the_saving_of_bottlenecks(name: str, blocks: int) -> None:
    """Seed 4.1.4: 256x256x3x3 weights against 256x64 + 64x64x3x3 + 64x256, at every width."""
    with torch.device("meta"):
        network = get_model(name)
    rows = bottleneck_costs(network, complexity(network))
    assert len(rows) == blocks
    assert [row.has_projection for row in rows] == [row.name.endswith(".0") for row in rows]
    for row in rows:
        narrow, positions = row.output_shape[0] // 4, row.output_shape[1] * row.output_shape[2]
        if not row.has_projection:
            scale = (narrow // 64) ** 2
            assert row.weights == scale * (256 * 64 + 64 * 64 * 3 * 3 + 64 * 256)
            assert row.wide_weights == scale * 2 * (256 * 256 * 3 * 3)
            assert row.projection_weights == scale * 256 * 256
        assert row.multiply_adds == row.weights * positions
        assert row.wide_multiply_adds == row.wide_weights * positions
    assert rows[0].wide_weights == 9 * (64 * 256 + 256 * 256)


def test_what_option_c_adds() -> None:
    """The projections of the blocks that have none are the difference to the network with option C, less its BN."""
    with torch.device("meta"):
        b, c = get_model("resnet50"), get_model("resnet50", shortcut="C")
        cost_b, cost_c = complexity(b), complexity(c)
    added = [row for row in bottleneck_costs(b, cost_b) if not row.has_projection]
    assert cost_c.multiply_adds - cost_b.multiply_adds == sum(row.projection_multiply_adds for row in added)
    batch_norm = sum(2 * row.output_shape[0] for row in added)
    assert cost_c.parameters - cost_b.parameters == sum(row.projection_weights for row in added) + batch_norm
    # 4.1: time and size of a block about double.
    assert all(0.9 < row.projection_weights / row.weights < 1 for row in added)
    assert all(row.has_projection for row in bottleneck_costs(c, cost_c))


def test_the_network_is_left_as_it_is() -> None:
    network = get_model("cifar_resnet8", width=4).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    complexity(network, (3, 32, 32))
    assert all(m.training and not m._forward_hooks for m in network.modules())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.device.type == "cpu" for p in network.parameters())


def test_table_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    lines = command(capsys).splitlines()
    assert lines[0].split() == ["name", "parameters", "multiply_adds", "paper", "difference", "activations"]
    assert [line.split()[0] for line in lines[1:]] == list(PAPER_MULTIPLY_ADDS)
    assert lines[3].split() == ["resnet50", "25,557,032", "3,857,973,248", "3.8e9", "+1.5%", "10,588,136"]


def test_json_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(command(capsys, "cifar_resnet20", "plain18", "--json"))
    # 4.2: conv1, six layers a stage (the first of a stage from fewer channels), fc.
    first = 32 * 32 * 9 * 16 * (3 + 6 * 16)
    later = 16 * 16 * 9 * 32 * (16 + 5 * 32) + 8 * 8 * 9 * 64 * (32 + 5 * 64)
    assert rows[0] == {"name": "cifar_resnet20", "parameters": 269_722, "multiply_adds": first + later + 640,
                       "activations": 7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8 + 10}  # fmt: skip
    assert (rows[1]["name"], rows[1]["parameters"]) == ("plain18", 11_515_688)
    layers = json.loads(command(capsys, "cifar_resnet20", "--json", "--layers"))[0]["layers"]
    assert layers[-1] == {"name": "fc", "output_shape": [10], "parameters": 650, "multiply_adds": 640,
                          "activations": 10}  # fmt: skip


def test_layers_and_size_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    out = command(capsys, "resnet18", "--layers", "--input_size", "64")
    assert "3.6e9" not in out
    assert "1.8e9" not in out, "the paper's number is of 224 pixels"
    row = next(line.split() for line in out.splitlines() if line.startswith("layer1.0.conv1"))
    assert row == ["layer1.0.conv1", "64x16x16", "36,864", f"{16 * 16 * 36864:,}", f"{64 * 16 * 16:,}"]


def test_stages_and_blocks_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    out = command(capsys, "resnet18", "resnet50", "--stages", "--blocks")
    assert out.count("average pool, 1000-d fc") == 2
    blocks = [line.split() for line in out.splitlines() if line.startswith("layer")]
    assert len(blocks) == 16
    assert blocks[1][:8] == ["layer1.1", "256x56x56", "69,632", f"{69632 * 56 * 56:,}", f"{2 * 589824:,}",
                             f"{2 * 589824 * 56 * 56:,}", "16.9", "16.9"]  # fmt: skip
    row = json.loads(command(capsys, "resnet50", "--stages", "--blocks", "--json"))[0]
    assert (len(row["stages"]), len(row["blocks"])) == (6, 16)


def test_memory_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    output = command(capsys, "cifar_resnet20", "vgg16", "--memory", "2", "--json")
    resnet, vgg = (row["memory"] for row in json.loads(output))
    assert [row["recompute"] for row in resnet] == [0, 1, 2, 4, 8, 16]
    assert [row["recompute"] for row in vgg] == [0]
    # 379,968 numbers of each picture; mean and deviation of each of the 688 channels that have batch norm.
    assert resnet[0]["kept"] == resnet[0]["peak"] == 4 * (2 * 379_968 + 2 * 688)
    assert all(row["kept"] < row["peak"] < resnet[0]["peak"] for row in resnet[1:])
    lines = [line.split() for line in command(capsys, "cifar_resnet20", "--memory", "128").splitlines()]
    assert ["0", "0.181", "GiB", "0.181", "GiB"] in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet34", "--blocks"], ["resnet34", "resnet50"]),
        (["resnet20"], ["resnet20", "resnet18"]),
        (["vgg16", "--input_size", "16"], ["vgg16", "16 pixels"]),
        (["vgg16", "--input_size", "0"], ["input_size"]),
        (["--input_size", "x"], ["input_size"]),
        (["vgg16", "--memory", "0"], ["memory", "0"]),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command(capsys, *arguments)
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message.count("\n") == 1
    assert all(word in message for word in words)


def test_the_tool() -> None:
    command = [sys.executable, str(ROOT / "tools/complexity.py"), "plain18", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)[0]["parameters"] == 11_515_688
