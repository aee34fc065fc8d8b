"""Checkpoints of torchvision and akamaster: the same outputs as the source's own networks."""

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from backbones.data.cifar10 import CLASS_NAMES
from backbones.import_weights import main
from backbones.weights import load_classifier

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def import_file(folder: Path, content: Any, source: str, arch: str, name: str = "net.pth", *arguments: str) -> Path:
    """Saves a checkpoint and runs the command on it."""
    if name.endswith(".safetensors"):
        save_file(content, folder / name)
    else:
        torch.save(content, folder / name)
    output = folder / "weights.safetensors"
    files = ["--input", str(folder / name), "--output", str(output)]
    main(["--format", source, "--arch", arch, *files, *arguments])
    return output


def randomise(network: nn.Module) -> nn.Module:
    """Weights and statistics with which every part of a network counts."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def narrow_vgg(name: str, width: int) -> nn.Module:
    """torchvision's VGG with fewer channels; it has no such option."""
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
    layers = [2, 2, 3, 3, 3] if "16" in name else [2, 2, 4, 4, 4]
    channels = [c for n, factor in zip(layers, (1, 2, 4, 8, 8), strict=True) for c in [factor * width] * n + ["M"]]
    network.features = torchvision.models.vgg.make_layers(channels, batch_norm=name.endswith("bn"))
    for i, (inputs, outputs) in {0: (8 * 49, 64), 3: (64, 64), 6: (64, None)}.items():
        network.classifier[i] = nn.Linear(inputs * width, outputs * width if outputs else 5)
    return network


def preprocess(rgb: Tensor) -> Tensor:
    """As torchvision does it: 0..1, then mean and deviation."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET)
    return (rgb / 255 - mean) / std


def normalised(rgb: Tensor, metadata: Any) -> Tensor:
    """As a weights file's metadata say."""
    return (rgb - torch.tensor(metadata.mean).view(3, 1, 1)) / torch.tensor(metadata.std).view(3, 1, 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "vgg19_bn"])
def test_a_checkpoint_of_torchvision_gives_its_outputs(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    is_vgg = name.startswith("vgg")
    theirs = randomise(narrow_vgg(name, 4) if is_vgg else torchvision.models.get_model(name, num_classes=5))
    network, metadata = load_classifier(import_file(tmp_path, theirs.state_dict(), "torchvision", name))
    rgb = torch.randint(0, 256, (1, 3, 97, 75)).float()
    with torch.no_grad():
        expected, actual = theirs(preprocess(rgb)), network(normalised(rgb, metadata))
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()
    extra = {"width": 4} if is_vgg else {"stride_in": "3x3"} if name == "resnet50" else {}
    assert metadata.options == {"pool": "torch"} | extra
    assert metadata.classes == ["0", "1", "2", "3", "4"]
    assert (metadata.color_order, metadata.input_size, metadata.test_resize) == ("RGB", 224, 256)


@pytest.fixture(scope="module")
def vgg() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return randomise(narrow_vgg("vgg16_bn", 1)).state_dict()


def under_data_parallel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("net.safetensors", lambda state: state),
        ("net.pth", under_data_parallel),
        ("net.pth", lambda state: {"state_dict": under_data_parallel(state), "epoch": 3}),
        ("net.pth", lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, data="x"), "epoch": 3}),
        ("net.pth", lambda state: {n: t for n, t in state.items() if "num_batches" not in n}),  # before 2018
        ("net.pth", lambda state: {n: t.double() if t.is_floating_point() else t for n, t in state.items()}),
        ("net.pth", lambda state: {n: torch.stack([t, t])[0] for n, t in state.items()}),  # parts of larger tensors
    ],
)  # fmt: skip
def test_every_form_of_a_checkpoint_is_read(name: str, wrap: Any, vgg: dict[str, Tensor], tmp_path: Path) -> None:
    network, _ = load_classifier(import_file(tmp_path, wrap(vgg), "torchvision", "vgg16_bn", name))
    assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in vgg.items())


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("arch", "change", "words"),
    [
        ("vgg16", {}, ["features.2.weight", "--arch vgg16_bn"]),
        ("vgg19_bn", {}, ["--arch vgg16_bn"]),
        ("resnet50", {}, ["conv1.weight", "--arch vgg16_bn"]),
        ("plain18", {}, ["--arch plain18", "resnet18, resnet34"]),
        ("vgg16_bn", {"features.0.weight": None}, ["lacks features.0.weight"]),
        ("vgg16_bn", {"features.0.weight": torch.ones(300, 3, 3, 3)}, ["width", "300"]),
        ("vgg16_bn", {"features.0.weight": torch.tensor(1.0)}, ["features.0.weight", "()"]),
        ("vgg16_bn", {"features.3.weight": torch.ones(2, 2)}, ["features.3.weight", "(2, 2)"]),
        ("vgg16_bn", {"features.0.bias": torch.tensor([float("nan")])}, ["features.0.bias", "finite"]),
        ("vgg16_bn", {"features.0.bias": torch.tensor([1])}, ["features.0.bias", "int64"]),
        ("vgg16_bn", {"features.99.bias": torch.ones(1)}, ["features.99.bias"]),
        ("vgg16_bn", {"classifier.6.weight": torch.ones(1).expand(10**9, 64)}, ["classifier.6.weight"]),
        ("vgg16_bn", {"features.0.bias": torch.ones(1).to_sparse()}, ["features.0.bias", "plain tensor"]),
        ("vgg16_bn", {"features.0.bias": torch.ones(1, device="meta")}, ["features.0.bias", "plain tensor"]),
        ("vgg16_bn", {"lr": 0.1}, ["'lr'"]),
        ("vgg16_bn", {3: torch.ones(1)}, ["3 is no plain tensor"]),
        ("vgg16_bn", {"code": Code()}, ["not a checkpoint of plain tensors"]),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_tensor(
    arch: str, change: dict, words: list[str], vgg: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    state = {name: tensor for name, tensor in (vgg | change).items() if tensor is not None}
    line = refusal(capsys, tmp_path, state, "torchvision", arch)
    assert all(word in line for word in words), line
    assert not (tmp_path / "ran").exists()


def refusal(capsys: pytest.CaptureFixture, folder: Path, content: Any, source: str, arch: str, *arguments: str) -> str:
    """The one line with which the command refuses a checkpoint."""
    with pytest.raises(SystemExit) as left:
        import_file(folder, content, source, arch, *arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder / "net.") in line or f"--arch {arch}" in line or "--mean" in line
    assert not (folder / "weights.safetensors").exists()
    return line


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"<html>", pickle.dumps([1, 2])])
def test_files_that_are_no_checkpoint(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:  # fmt: skip
    (tmp_path / name).write_bytes(content)
    arguments = ["--format", "torchvision", "--input", str(tmp_path / name), "--arch", "resnet18", "--output"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, str(tmp_path / "out.safetensors")])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line


def test_a_weights_file_of_this_project_is_not_taken_for_torchvisions(
    vgg: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its metadata may say another preprocessing."""
    output = import_file(tmp_path, vgg, "torchvision", "vgg16_bn")
    arguments = ["--format", "torchvision", "--input", str(output), "--arch", "vgg16_bn"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--output", str(tmp_path / "again.safetensors")])
    assert left.value.code == 2
    assert "weights.safetensors: is a weights file of this project" in capsys.readouterr().err


def test_a_mean_is_for_caffe_only(vgg: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, tmp_path, vgg, "torchvision", "vgg16_bn", "net.pth", "--mean", "mean.binaryproto")
    assert "--mean" in line


class Akamasters:
    """The network that akamaster's repository describes, on a state dict with its names: zeros on both sides."""

    def __init__(self, n: int, width: int, classes: int) -> None:
        self.n = n
        self.state: dict[str, Tensor] = {}
        inputs = width
        self._convolution("conv1", "bn1", 3, width)
        for stage in range(3):
            for block in range(n):
                outputs = width * 2**stage
                self._convolution(f"layer{stage + 1}.{block}.conv1", f"layer{stage + 1}.{block}.bn1", inputs, outputs)
                self._convolution(f"layer{stage + 1}.{block}.conv2", f"layer{stage + 1}.{block}.bn2", outputs, outputs)
                inputs = outputs
        self.state["linear.weight"] = torch.randn(classes, inputs) / inputs**0.5
        self.state["linear.bias"] = torch.randn(classes)

    def _convolution(self, name: str, norm: str, inputs: int, outputs: int) -> None:
        self.state[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / inputs / 9) ** 0.5
        self.state |= {
            f"{norm}.weight": torch.rand(outputs) + 0.5,
            f"{norm}.bias": torch.randn(outputs) / 5,
            f"{norm}.running_mean": torch.randn(outputs) / 5,
            f"{norm}.running_var": torch.rand(outputs) + 0.5,
        }

    def __call__(self, x: Tensor) -> Tensor:
        state = {name: tensor.to(x.dtype) for name, tensor in self.state.items()}

        def convolve(x: Tensor, name: str, norm: str, stride: int = 1) -> Tensor:
            x = F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=1)
            mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
            return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"])

        x = convolve(x, "conv1", "bn1").relu()
        for stage in (1, 2, 3):
            for block in range(self.n):
                name = f"layer{stage}.{block}"
                stride = 2 if stage > 1 and block == 0 else 1
                out = convolve(x, f"{name}.conv1", f"{name}.bn1", stride).relu()
                out = convolve(out, f"{name}.conv2", f"{name}.bn2")
                if stride == 2:
                    zeros = torch.zeros_like(out)[:, : out.shape[1] // 4]
                    x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
                x = (out + x).relu()
        return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def akamaster_checkpoint(network: Akamasters) -> dict[str, Any]:
    return {"state_dict": under_data_parallel(network.state), "best_prec1": 91.7}


@pytest.mark.parametrize(("arch", "n", "width"), [("cifar_resnet20", 3, 16), ("cifar_resnet8", 1, 6)])
def test_a_checkpoint_of_akamaster_gives_its_outputs(arch: str, n: int, width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = Akamasters(n, width, 10)
    network, metadata = load_classifier(
        import_file(tmp_path, akamaster_checkpoint(theirs), "akamaster", arch, "net.th")
    )
    rgb = torch.randint(0, 256, (2, 3, 32, 32)).double()
    with torch.no_grad():
        expected = theirs(preprocess(rgb))
        actual = network.double()(normalised(rgb, metadata))
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert metadata.classes == CLASS_NAMES
    assert metadata.options == {"shortcut": "A"} | ({} if width == 16 else {"width": width})
    assert (metadata.color_order, metadata.input_size, metadata.test_resize) == ("RGB", 32, None)


@pytest.mark.parametrize(
    ("arch", "change", "words"),
    [
        ("cifar_resnet20", {}, ["layer1.1.conv1.weight", "--arch cifar_resnet8"]),
        ("resnet20", {}, ["--arch resnet20", "cifar_resnet20"]),
        ("cifar_resnet21", {}, ["6n+2"]),
        ("cifar_plain8", {}, ["--arch cifar_plain8"]),
        ("cifar_resnet8", {"module.linear.weight": None}, ["linear.weight"]),
        ("cifar_resnet8", {"module.conv1.weight": torch.ones(5, 3, 3, 3)}, ["conv1.weight", "even"]),
        ("cifar_resnet8", {"module.layer3.0.bn2.bias": torch.ones(5)}, ["layer3.0.bn2.bias", "(5,)"]),
        ("cifar_resnet8", {"module.layer2.0.shortcut.0.weight": torch.ones(8, 4, 1, 1)}, ["layer2.0.shortcut.0"]),
    ],
)
def test_what_does_not_fit_akamasters_networks(
    arch: str, change: dict, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    state = under_data_parallel(Akamasters(1, 4, 10).state) | change
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    line = refusal(capsys, tmp_path, {"state_dict": state}, "akamaster", arch)
    assert all(word in line for word in words), line
