"""Layer responses against networks written out by hand; the command and its figure (4.2, Fig. 7)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from backbones import get_model
from backbones.analysis.layer_responses import main, measure_run
from backbones.analysis.response_figure import draw_responses
from backbones.analysis.responses import LayerResponse, NetworkResponses, measure_responses, responding_modules
from backbones.data.shapes import CLASS_NAMES, shapes_for_classification
from backbones.weights import WeightsMetadata, save_weights

PICTURES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trained_looking(name: str, **options: object) -> nn.Module:
    """A network in eval mode whose batch norms have any statistics, scales and biases."""
    torch.manual_seed(0)
    network = get_model(name, **options).eval()  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_()
    return network


def cifar8_by_hand(state: dict[str, Tensor], x: Tensor, residual: bool) -> dict[str, float]:
    """The seven responses of an 8-layer CIFAR network of option A, from the weights alone; nothing is overwritten."""
    state = {name: tensor.double() for name, tensor in state.items()}
    deviations = {}

    def layer(x: Tensor, place: str, number: int, stride: int = 1) -> Tensor:
        convolved = F.conv2d(x, state[f"{place}conv{number}.weight"], stride=stride, padding=1)
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, bias = (state[f"{place}bn{number}.{key}"][None, :, None, None] for key in keys)
        response = (convolved - mean) / (variance + 1e-5).sqrt() * scale + bias
        deviations[f"{place}conv{number}"] = float(np.std(response.numpy()))
        return response

    x = layer(x.double(), "", 1).clamp(min=0)
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        place = f"layer{stage}.0."
        out = layer(layer(x, place, 1, stride).clamp(min=0), place, 2)
        if residual:
            shortcut = torch.zeros_like(out)
            shortcut[:, : x.shape[1]] = x[:, :, ::stride, ::stride]
            out = out + shortcut
        x = out.clamp(min=0)
    return deviations


@pytest.mark.parametrize(("name", "residual"), [("cifar_plain8", False), ("cifar_resnet8", True)])
def test_a_network_written_out_by_hand(name: str, residual: bool) -> None:
    """After batch norm; neither the ReLU nor the addition, which come in place, leaks in."""
    network = trained_looking(name, width=3)
    expected = cifar8_by_hand(network.state_dict(), PICTURES, residual)
    rows = measure_responses(network, [PICTURES])
    assert [row.name for row in rows] == list(expected)
    assert [row.std for row in rows] == pytest.approx(list(expected.values()), rel=1e-5)


class Bias(nn.Module):
    """What may stand in batch norm's place: a bias of each channel."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def twofold(scale: float, bias: float) -> nn.BatchNorm2d:
    """Batch norm of two channels: x / 2 * scale + bias."""
    norm = nn.BatchNorm2d(2, eps=0)
    norm.running_var.fill_(4)  # type: ignore[union-attr]
    nn.init.constant_(norm.weight, scale)
    nn.init.constant_(norm.bias, bias)
    return norm


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


@pytest.mark.parametrize(
    ("after", "std"),
    [
        ((twofold(3, 0), relu()), 1.5),
        ((twofold(3, -9), relu()), 1.5),  # the ReLU lets nothing through
        ((nn.Sequential(twofold(3, -9), relu()),), 1.5),
        ((twofold(3, 1e8), relu()), 1.5),  # the mean of squares would have no digits left for the variance
        ((relu(),), 1.0),
        ((nn.Identity(), relu()), 1.0),
        ((nn.Identity(), twofold(3, 0), relu()), 1.5),
        ((Bias(4.0, -4.0), relu()), 17**0.5),
        ((nn.Dropout(0.5), relu()), 1.0),
        ((nn.MaxPool2d(2), nn.BatchNorm2d(2)), 1.0),  # takes something else than the convolution's output
        ((nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), 1.0),
    ],
)
def test_known_numbers(after: tuple[nn.Module, ...], std: float) -> None:
    """Two channels of -1 and 1 in equal shares, and what may come after them."""
    convolution = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight)
    convolution.weight.data[1] = convolution.weight.data[0]
    network = nn.Sequential(convolution, *after).double().eval()
    chessboard = torch.ones(2, 1, 4, 4).double()
    chessboard[:, :, ::2, ::2] = chessboard[:, :, 1::2, 1::2] = -1
    [row] = measure_responses(network, [chessboard[:1], chessboard[1:]])
    assert row.name == "0"
    assert row.std == pytest.approx(std, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 99))
def test_batches_of_any_size_give_the_same(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Conv2d(2, 3, 3)).eval()
    pictures = torch.randn(sum(sizes), 1, 6, 6) * torch.arange(1.0, sum(sizes) + 1).view(-1, 1, 1, 1)
    whole, parts = (measure_responses(network, batches) for batches in ([pictures], pictures.split(sizes)))
    assert [row.std for row in whole] == pytest.approx([row.std for row in parts], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "layers", "kind"),
    [
        ("cifar_resnet20", 19, nn.BatchNorm2d),
        ("cifar_plain32", 31, nn.BatchNorm2d),
        ("resnet18", 16, nn.BatchNorm2d),
        ("plain34", 32, nn.BatchNorm2d),
        ("resnet50", 16, nn.BatchNorm2d),
        ("vgg16_bn", 13, nn.BatchNorm2d),
        ("vgg19", 16, nn.Conv2d),
    ],
)
def test_which_layers_a_network_has(name: str, layers: int, kind: type[nn.Module]) -> None:
    """All 3x3 convolutions: 6n+1 of a CIFAR network, one of each bottleneck, not the 7x7 one; in order."""
    network = get_model(name, width=2).eval()
    found = responding_modules(network, PICTURES[:1])
    assert len(found) == layers
    assert all(isinstance(module, kind) for module in found.values())
    convolutions = [key for key, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert list(found) == convolutions
    if name == "resnet50":
        assert all(key.endswith(".conv2") for key in found)


def test_a_network_without_batch_norm() -> None:
    network = get_model("cifar_resnet8", width=2, norm_layer=lambda channels: nn.Identity()).eval()
    expected: list[float] = []
    hooks = [
        module.register_forward_hook(lambda module, _, output: expected.append(float(np.std(output.double().numpy()))))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(PICTURES)
    for hook in hooks:
        hook.remove()
    assert [row.std for row in measure_responses(network, [PICTURES])] == pytest.approx(expected)


def test_the_network_is_left_as_it_is() -> None:
    network = trained_looking("cifar_resnet8", width=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure_responses(network, [PICTURES])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def responses(label: str, residual: bool, *deviations: float) -> NetworkResponses:
    return NetworkResponses(label, residual, [LayerResponse(f"conv{i}", std) for i, std in enumerate(deviations)])


def test_the_figure() -> None:
    """Above in order, below sorted; plain nets dashed; one colour for a plain and a residual net of a depth."""
    figure = draw_responses(
        [
            responses("plain", False, 2.0, 3.0, 1.0),
            responses("ResNet", True, 0.5, 0.25, 1.0),
            responses("deeper", True, 0.5, 0.25, 1.0, 0.1),
            responses("ResNet again", True, 0.5, float("nan"), 0.75),
        ]
    )
    above, below = figure.axes
    for axes, shown in ((above, [[2, 3, 1], [0.5, 0.25, 1]]), (below, [[3, 2, 1], [1, 0.5, 0.25]])):
        assert [list(line.get_ydata()) for line in axes.lines[:2]] == shown
        assert list(axes.lines[2].get_xdata()) == [1, 2, 3, 4]
        styles = [line.get_linestyle() for line in axes.lines]
        assert styles == ["--", "-", "-", "-"]
        colours = [line.get_color() for line in axes.lines]
        assert colours[0] == colours[1]
        assert len(set(colours)) == 3
    assert np.array_equal(above.lines[3].get_ydata(), [0.5, np.nan, 0.75], equal_nan=True)
    assert list(below.lines[3].get_ydata()) == [0.75, 0.5]
    words = [text.get_text() for text in figure.legends[0].texts]
    assert words == ["plain", "ResNet", "deeper", "ResNet again"]


MEAN = np.random.default_rng(0).uniform(0, 255, (3, 32, 32))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., tuple[Path, nn.Module]]:
    """Makes a run folder of a small network."""

    def make(name: str, folder: str, change: Callable[[nn.Module], object] = lambda network: None):
        network = trained_looking(name, num_classes=len(CLASS_NAMES), width=2)
        change(network)
        metadata = WeightsMetadata(
            "classification", name, {"width": 2}, CLASS_NAMES, MEAN.tolist(), [50.0, 60.0, 70.0], input_size=32
        )
        (tmp_path / folder).mkdir()
        save_weights(tmp_path / folder / "weights.safetensors", network.state_dict(), metadata)
        return tmp_path / folder, network

    return make


def test_the_command(save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its numbers are those of the same pictures, normalised here; run folders and files, plain and residual."""
    (plain, plain_network), (residual, residual_network) = save("cifar_plain8", "a"), save("cifar_resnet14", "b")
    files = {kind: tmp_path / "new" / f"responses.{kind}" for kind in ("json", "png")}
    main(["--model", str(plain), str(residual / "weights.safetensors"), "--count", "10", "--batch_size", "4",
          "--workers", "0", "--layers", "--output", str(files["json"]), "--figure", str(files["png"])])  # fmt: skip
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = json.loads(files["json"].read_text())
    assert [row["label"] for row in rows] == ["cifar_plain8 (width 2)", "cifar_resnet14 (width 2)"]
    assert [row["residual"] for row in rows] == [False, True]
    assert [row["pictures"] for row in rows] == [10, 10]

    data = shapes_for_classification("val", 10, 32)
    pixels = np.stack([np.asarray(data.picture(i)) for i in range(10)]).transpose(0, 3, 1, 2)
    x = torch.from_numpy((pixels - MEAN) / np.array([50, 60, 70])[:, None, None]).float()
    for line, row, network in zip(lines[2:4], rows, (plain_network, residual_network), strict=True):
        stds = [layer["std"] for layer in row["layers"]]
        expected = measure_responses(network, [x])
        assert [layer["name"] for layer in row["layers"]] == [layer.name for layer in expected]
        assert stds == pytest.approx([layer.std for layer in expected], rel=1e-5)
        assert int(line[3]) == len(stds)
        shown = [np.mean(stds), np.median(stds), min(stds), max(stds)]
        assert [float(word) for word in line[4:]] == pytest.approx(shown, rel=1e-3)
        start = lines.index(row["label"].split(), 4)
        assert [words[0] for words in lines[start + 2 : start + 2 + len(stds)]] == [e.name for e in expected]
        assert [float(words[1]) for words in lines[start + 2 : start + 2 + len(stds)]] == pytest.approx(stds, rel=1e-3)
    assert len(np.unique(np.asarray(Image.open(files["png"]).convert("L")))) > 20

    measured = measure_run(residual, count=10, label="mine")
    assert (measured.label, measured.residual) == ("mine", True)
    assert [layer.std for layer in measured.layers] == pytest.approx([layer["std"] for layer in rows[1]["layers"]])


def test_labels(save, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = save("cifar_plain8", "a")
    command = ["--model", str(folder), str(folder), "--count", "2", "--workers", "0"]
    main(command)
    assert [line.split(")")[1][:3] for line in capsys.readouterr().out.splitlines()[2:]] == [" #1", " #2"]
    main([*command, "--labels", "one", "the other"])
    assert [line[:9] for line in capsys.readouterr().out.splitlines()[2:]] == ["one      ", "the other"]


def test_responses_beyond_all_numbers(save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = save("cifar_plain8", "a", lambda network: nn.init.constant_(network.layer2[0].bn1.weight, 3e38))
    main(["--model", str(folder), "--count", "2", "--workers", "0", "--output", str(tmp_path / "o.json"),
          "--figure", str(tmp_path / "o.png")])  # fmt: skip
    stds = [layer["std"] for layer in json.loads((tmp_path / "o.json").read_text())[0]["layers"]]
    assert all(stds[:3])
    assert stds[-1] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nowhere"], ["nowhere"]),
        (["--count", "0"], ["count 0"]),
        (["--batch_size", "0"], ["batch_size 0"]),
        (["--workers", "-1"], ["workers -1"]),
        (["--labels", "a", "b"], ["labels", "2 for 1"]),
        (["--figure", "responses.gif"], ["responses.gif", ".png"]),
        (["--data.name", "folder"], ["data.root"]),
        (["--data.name", "cifar10"], ["airplane", "circle"]),
        (["--data.test_split", "all"], ["all"]),
        (["--count", "many"], ["count", "many"]),
    ],
)
def test_bad_input_is_one_line(
    save, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    folder, _ = save("cifar_plain8", "a")
    with pytest.raises(SystemExit) as exit_:
        main(["--model", str(folder), *arguments])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message.count("\n") == 1
    assert all(word in message for word in words)
