"""Forward variances and gradient norms against closed forms; with BN nothing vanishes, the paper's check (4.1)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import get_model
from backbones.analysis.signal_figure import draw_signals
from backbones.analysis.signal_propagation import main
from backbones.analysis.signals import LayerSignal, SignalCase, measure_signals, new_network, spread
from backbones.data.shapes import CLASS_NAMES, shapes_for_classification
from backbones.weights import WeightsMetadata, save_weights

PICTURES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def signals(name: str, norm: str, initialisation: str, seed: int = 0, width: int = 8) -> list[LayerSignal]:
    network = new_network(name, norm=norm, initialisation=initialisation, seed=seed, width=width, num_classes=4)
    return measure_signals(network, PICTURES, LABELS)


def test_a_small_network_by_hand() -> None:
    """Outputs and gradients as written out, although ReLU overwrites what the convolutions put out."""
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)
    network = nn.Sequential(convolution, nn.ReLU(inplace=True), nn.Flatten(), linear).double()
    x, labels = torch.randn(2, 3, 8, 8).double(), torch.tensor([3, 1])
    first, last = measure_signals(network, x, labels)

    a = F.conv2d(x, convolution.weight, convolution.bias)
    b = a.clamp(min=0).flatten(1) @ linear.weight.T + linear.bias
    loss = F.cross_entropy(b, labels)
    for signal, output, weight in [(first, a, convolution.weight), (last, b, linear.weight)]:
        at_output, at_weight = torch.autograd.grad(loss, [output, weight], retain_graph=True)
        assert signal.variance == pytest.approx(float(((output - output.mean()) ** 2).mean().detach()))
        assert signal.gradient_norm == pytest.approx(float(at_output.pow(2).sum().sqrt()))
        assert signal.gradient_rms == pytest.approx(float(at_output.pow(2).mean().sqrt()))
        assert signal.weight_gradient_norm == pytest.approx(float(at_weight.pow(2).sum().sqrt()))
        assert signal.weight_gradient_rms == pytest.approx(float(at_weight.pow(2).mean().sqrt()))
    assert [first.name, last.name] == ["0", "3"]


def test_the_network_is_left_as_it_is() -> None:
    network = get_model("cifar_resnet8", width=2).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rows = measure_signals(network, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert [row.name for row in rows][:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert not network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in network.parameters())


def deep(deviation: float | None, seed: int) -> tuple[nn.Sequential, Tensor]:
    """Ten 1x1 convolutions of 64 channels with ReLU between, which have no border: theory's plain net."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(10):
        convolution = nn.Conv2d(64, 64, 1, bias=False)
        nn.init.normal_(convolution.weight, std=deviation or math.sqrt(2 / 64))
        layers += [convolution, nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network, torch.randn(4, 64, 4, 4).clamp(min=0) * math.sqrt(2)


@pytest.mark.parametrize(("deviation", "factor"), [(None, 1.0), (0.01, 64 / 2 * 0.01**2), (0.5, 64 / 2 * 0.5**2)])
def test_variance_of_a_plain_net_in_closed_form(deviation: float | None, factor: float) -> None:
    """He et al. 2015, equation 10: each layer multiplies the variance by fan-in / 2 times the weights' variance."""
    growth = []
    for seed in range(20):
        network, x = deep(deviation, seed)
        rows = measure_signals(network, x, torch.zeros(4, dtype=torch.long))
        growth.append(rows[-1].variance / rows[0].variance / factor**9)
    # The mean is 1; one draw is a product of nine factors that are each off by some 20%.
    assert sum(growth) / len(growth) == pytest.approx(1, abs=0.45)


def test_careless_weights_scale_signals_exactly() -> None:
    """Without BN and biases a plain net is homogeneous: layer l of weights 10 times as small is 10^l times as small."""
    small, large = signals("plain18", "none", "small"), signals("plain18", "none", "large")
    for depth, (a, b) in enumerate(zip(small, large, strict=True), 1):
        assert a.variance == pytest.approx(b.variance * 100.0**-depth, rel=1e-6)


def test_batch_norm_takes_the_scale_out() -> None:
    """With BN what reaches a layer does not depend on the scale of the weights before, up to BN's eps."""
    small, large = signals("plain18", "batch", "small"), signals("plain18", "batch", "large")
    for a, b in zip(small, large, strict=True):
        assert a.variance == pytest.approx(b.variance / 100, rel=0.05)


@pytest.mark.parametrize("initialisation", ["he", "small", "large"])
def test_with_batch_norm_nothing_vanishes_in_plain34(initialisation: str) -> None:
    """4.1: BN "ensures forward propagated signals to have non-zero variances", and gradients "healthy norms"."""
    rows = signals("plain34", "batch", initialisation)
    assert min(row.variance for row in rows) > 1e-5
    assert spread([row.variance for row in rows]) < 1e3
    assert spread([row.gradient_norm for row in rows]) < 1e4
    assert spread([row.weight_gradient_norm for row in rows]) < 1e4


def test_without_batch_norm_careless_weights_make_gradients_vanish_or_explode() -> None:
    vanishing, exploding = signals("plain34", "none", "small"), signals("plain34", "none", "large", width=32)
    assert vanishing[0].gradient_norm < 1e-20 * vanishing[-1].gradient_norm
    assert vanishing[-1].variance < 1e-40 * vanishing[0].variance
    assert exploding[0].gradient_norm > 1e5 * exploding[-1].gradient_norm
    # Depth makes it worse.
    assert vanishing[0].gradient_norm < 1e-10 * signals("plain18", "none", "small")[0].gradient_norm
    # A shortcut carries the signal past the layers.
    assert signals("resnet34", "none", "small")[0].gradient_norm > 1e10 * vanishing[0].gradient_norm


def test_he_keeps_variances_and_gradients_of_plain34_without_batch_norm() -> None:
    """The closed form, 1 on average at any depth, where borders wrap round (zeros at the border take signal away)."""
    for seed in range(3):
        network = new_network("plain34", norm="none", initialisation="he", seed=seed, width=32, num_classes=4)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.padding_mode = "circular"
        rows = measure_signals(network, PICTURES, LABELS)[1:-1]  # between the max pool and fc
        assert len(rows) == 32
        assert all(0.1 < row.variance / rows[0].variance < 10 for row in rows)
        assert spread([row.gradient_norm for row in rows]) < 4


def test_spread() -> None:
    assert spread([2.0, 8.0, 4.0]) == 4
    assert spread([0.0, 1.0]) == math.inf


def run(*arguments: str) -> None:
    main([*arguments, "--input_size", "32", "--width", "4", "--batch_size", "3"])


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "new" / "signals.json"
    run("plain18", "cifar_resnet8", "--output", str(output))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    cases = json.loads(output.read_text())
    assert len(cases) == 12
    assert [line[:3] for line in lines[2:14]] == [[c["network"], c["norm"], c["initialisation"]] for c in cases]
    for line, case in zip(lines[2:14], cases, strict=True):
        layers = case["layers"]
        assert len(layers) == (18 if case["network"] == "plain18" else 8)
        variances = [layer["variance"] for layer in layers]
        expected = [variances[0], variances[len(layers) // 2], variances[-1], max(variances) / min(variances)]
        assert [float(word) for word in line[3:7]] == pytest.approx(expected, rel=0.06)


def test_the_figure_shows_every_case() -> None:
    layers = [LayerSignal(f"layer{i}", 2.0 * i, 1.0, 0.1, 10.0**-i, 0.1) for i in range(4)]  # 0 has no logarithm
    cases = [SignalCase(name, norm, "he", layers) for name in ("a", "b") for norm in ("batch", "none")]
    figure = draw_signals([*cases, SignalCase("b", "batch", "trained", layers)])
    axes = figure.axes
    assert [panel.get_title() for panel in axes[:2]] == ["a", "b"]
    assert [len(panel.lines) for panel in axes] == [2, 3] * 3
    assert np.array_equal(axes[0].lines[0].get_ydata(), [np.nan, 2, 4, 6], equal_nan=True)
    assert np.array_equal(axes[4].lines[1].get_ydata(), [1, 0.1, 0.01, 0.001])
    assert all(panel.get_yscale() == "log" for panel in axes)
    assert [text.get_text() for text in figure.legends[0].texts] == ["He et al.", "trained", "batch norm",
                                                                     "no batch norm"]  # fmt: skip


def test_every_layer_and_noise(capsys: pytest.CaptureFixture[str]) -> None:
    run("cifar_plain8", "--noise", "--norm", "none", "--initialisation", "he", "--layers", "--seed", "3")
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[-8:]] == [
        "conv1", *(f"layer{i}.0.conv{j}" for i in (1, 2, 3) for j in (1, 2)), "fc"
    ]  # fmt: skip
    run("cifar_plain8", "--noise", "--norm", "none", "--initialisation", "he", "--layers", "--seed", "3")
    assert capsys.readouterr().out == out
    run("cifar_plain8", "--noise", "--norm", "none", "--initialisation", "he", "--layers", "--seed", "4")
    assert capsys.readouterr().out != out


def test_vgg_has_no_batch_norm_to_leave_out(capsys: pytest.CaptureFixture[str]) -> None:
    run("vgg16", "--initialisation", "he")
    (row,) = capsys.readouterr().out.splitlines()[2:]
    assert row.split()[:3] == ["vgg16", "none", "he"]


def test_a_trained_network(tmp_path: Path) -> None:
    """Its own classes, sizes and normalisation, here with a mean for each pixel, and its own batch norm."""
    network = get_model("cifar_resnet8", len(CLASS_NAMES), width=2)
    mean = np.random.default_rng(0).uniform(0, 255, (3, 32, 32))
    metadata = WeightsMetadata(
        "classification", "cifar_resnet8", {"width": 2}, CLASS_NAMES, mean.tolist(), [50.0, 60.0, 70.0], input_size=32
    )
    save_weights(tmp_path / "weights.safetensors", network.state_dict(), metadata)
    main(["--model", str(tmp_path), "--batch_size", "4", "--output", str(tmp_path / "o.json")])
    (case,) = json.loads((tmp_path / "o.json").read_text())
    assert (case["network"], case["norm"], case["initialisation"]) == (str(tmp_path), "batch", "trained")

    pictures = shapes_for_classification("val", 4, 32)
    pixels = np.stack([np.asarray(pictures.picture(i)) for i in range(4)]).transpose(0, 3, 1, 2)
    x = torch.from_numpy((pixels - mean) / np.array([50, 60, 70])[:, None, None])
    expected = measure_signals(network, x, torch.from_numpy(pictures.labels))
    assert [layer["name"] for layer in case["layers"]] == [row.name for row in expected]
    for layer, row in zip(case["layers"], expected, strict=True):
        assert layer["variance"] == pytest.approx(row.variance)
        assert layer["gradient_norm"] == pytest.approx(row.gradient_norm)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet20"], ["resnet20", "resnet18"]),
        (["--batch_size", "1"], ["batch_size 1"]),
        (["--input_size", "0"], ["input_size 0"]),
        (["vgg16", "--input_size", "8"], ["vgg16", "8 pixels"]),
        (["--noise", "--model", "runs/x"], ["--noise"]),
        (["--model", "nowhere"], ["nowhere"]),
        (["--figure", "signals.gif"], ["signals.gif", ".png"]),
        (["--data.name", "folder"], ["data.root"]),
        (["--seed", "9223372036854775808"], ["seed"]),
        (["--width", "1000"], ["width"]),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    message = [line for line in capsys.readouterr().err.splitlines() if line and "network/s]" not in line]
    assert exit_.value.code == 2
    assert len(message) == 1
    assert all(word in message[0] for word in words)
