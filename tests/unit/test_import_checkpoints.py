"""Checkpoints of torchvision and akamaster: the same outputs as the source's own networks."""

import argparse
import os
import pickle
import re
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
    main(
        ["--format", source, "--input", str(folder / name), "--arch", arch, "--output", str(output), *arguments]
    )  # fmt: skip
    return output


def refusal(capsys: pytest.CaptureFixture, *arguments: Any) -> str:
    """The one line with which the command refuses a checkpoint."""
    with pytest.raises(SystemExit) as left:
        import_file(*arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(arguments[0]) in line
    return line


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


def preprocess(rgb: Tensor) -> Tensor:
    """As torchvision does it: 0..1, then mean and deviation."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET)
    return (rgb / 255 - mean) / std


def normalised(rgb: Tensor, metadata: Any) -> Tensor:
    """As a weights file's metadata say."""
    return (rgb - torch.tensor(metadata.mean).view(3, 1, 1)) / torch.tensor(metadata.std).view(3, 1, 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_checkpoint_of_torchvision_gives_its_outputs(name: str, tmp_path: Path) -> None:
    theirs = torchvisions(name)
    network, metadata = load_classifier(import_file(tmp_path, theirs.state_dict(), "torchvision", name))
    rgb = torch.randint(0, 256, (1, 3, 97, 75)).float()
    with torch.no_grad():
        expected, actual = theirs(preprocess(rgb)), network(normalised(rgb, metadata))
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert metadata.options == {"pool": "torch"} | ({"stride_in": "3x3"} if name == "resnet50" else {})
    assert metadata.classes == ["0", "1", "2", "3", "4"]
    assert (metadata.color_order, metadata.input_size, metadata.test_resize) == ("RGB", 224, 256)
