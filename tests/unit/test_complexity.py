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
from backbones.analysis import complexity as module
from backbones.analysis.complexity import PAPER_MULTIPLY_ADDS, complexity
from backbones.cli import run_command

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
    run_command(module.report, positional="names", argv=arguments)
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


def test_the_network_is_left_as_it_is() -> None:
    network = get_model("cifar_resnet8", width=4).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    complexity(network, (3, 32, 32))
    assert all(m.training and not m._forward_hooks for m in network.modules())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.device.type == "cpu" for p in network.parameters())


def test_table_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    lines = command(capsys).splitlines()
    assert lines[0].split() == ["name", "parameters", "multiply_adds", "paper", "difference"]
    assert [line.split()[0] for line in lines[1:]] == list(PAPER_MULTIPLY_ADDS)
    assert lines[3].split() == ["resnet50", "25,557,032", "3,857,973,248", "3.8e9", "+1.5%"]


def test_json_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(command(capsys, "cifar_resnet20", "plain18", "--json"))
    # 4.2: conv1, six layers a stage (the first of a stage from fewer channels), fc.
    first = 32 * 32 * 9 * 16 * (3 + 6 * 16)
    later = 16 * 16 * 9 * 32 * (16 + 5 * 32) + 8 * 8 * 9 * 64 * (32 + 5 * 64)
    assert rows[0] == {"name": "cifar_resnet20", "parameters": 269_722, "multiply_adds": first + later + 640}
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet20"], ["resnet20", "resnet18"]),
        (["vgg16", "--input_size", "16"], ["vgg16", "16 pixels"]),
        (["vgg16", "--input_size", "0"], ["input_size"]),
        (["--input_size", "x"], ["input_size"]),
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
