"""From a classifier, trained or imported, to a detector by the commands: what travels with the weights and is used."""

from pathlib import Path

import pytest
import torch
import torchvision
from commands import pretrain
from detector_commands import train, write_backbone

from backbones.data.shapes import CLASS_NAMES
from backbones.errors import ConfigError
from backbones.import_weights import main as import_main
from backbones.weights import load_weights
from detection.config import DetectorConfig
from detection.models import RoIOptions
from detection.train import _check_training
from detection.weights import load_detector

ALL_STAGES = "[conv1, conv2, conv3, conv4, conv5]"


def test_an_imported_network_of_torchvisions(tmp_path: Path) -> None:
    """Its shared map is that of torchvision's own layers: stride in the 3x3, mean, deviation, epsilon."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(num_classes=3)
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    (tmp_path / "names.txt").write_text("ape\nbee\ncow\n")
    source = ["--format", "torchvision", "--input", str(tmp_path / "resnet50.pth"), "--arch", "resnet50"]
    import_main([*source, "--classes", str(tmp_path / "names.txt"), "--output", str(tmp_path / "resnet50.safetensors")])
    _, imported = load_weights(tmp_path / "resnet50.safetensors")
    assert imported.classes == ["ape", "bee", "cow"]

    network = ("--backbone.name", "resnet50", "--backbone.options", "{stride_in: 3x3}")
    steps = ("--train.steps", "1", "--train.batch_size", "1", "--data.test_size", "1", "--train.checkpoint_every", "1")
    fixed = ("--backbone.freeze_stages", ALL_STAGES)
    train(tmp_path / "run", tmp_path / "resnet50.safetensors", *network, *steps, *fixed)
    detector, metadata = load_detector(tmp_path / "run")
    assert metadata.classes == CLASS_NAMES  # the detection data's, not the classifier's
    assert metadata.options == {"stride_in": "3x3", "pool": "torch"}
    assert metadata.color_order == "RGB"
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # torchvision's 0.485, 0.229, ... times 255
    assert metadata.mean == pytest.approx(mean)
    assert metadata.std == pytest.approx(std)

    picture = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    x = (picture - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    theirs.eval()
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x[None]))))
        expected = theirs.layer3(theirs.layer2(theirs.layer1(x)))
        torch.testing.assert_close(detector.features([picture]), expected, rtol=1e-4, atol=1e-4)


def test_a_run_of_pretrain(tmp_path: Path) -> None:
    pretrain(tmp_path / "classifier")
    state, classifier = load_weights(tmp_path / "classifier")
    options = ("--train.steps", "1", "--backbone.freeze_stages", ALL_STAGES)
    train(tmp_path / "detector", tmp_path / "classifier", *options)
    detector, metadata = load_detector(tmp_path / "detector")
    assert (metadata.mean, metadata.std) == (classifier.mean, classifier.std)
    assert (metadata.architecture, metadata.options) == (classifier.architecture, classifier.options)
    for name, tensor in detector.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert detector.mean.flatten().tolist() == pytest.approx(classifier.mean)
    assert detector.std.flatten().tolist() == pytest.approx(classifier.std)


def test_the_table_of_trained_and_frozen_parameters(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Counted by hand, of a ResNet-18 and a VGG-16 of width 4, RPNs of 16 channels and 9 anchors, and 6 classes."""
    convolutions = {
        "conv3": 4 * 8 * 9 + 3 * 8 * 8 * 9 + 4 * 8,  # four 3x3, a projection
        "conv4": 8 * 16 * 9 + 3 * 16 * 16 * 9 + 8 * 16,
        "conv5": 16 * 32 * 9 + 3 * 32 * 32 * 9 + 16 * 32,
    }
    resnet = {
        "conv1": (0, 3 * 4 * 7 * 7 + 2 * 4),  # batch norm: weight and bias
        "conv2": (0, 4 * 4 * 4 * 9 + 4 * 2 * 4),
        **{f"conv{k}": (convolutions[f"conv{k}"], 5 * 2 * 2 ** (k)) for k in (3, 4, 5)},
        "rpn": (16 * 16 * 9 + 16 + (16 + 1) * 9 + (16 + 1) * 36, 0),
        "roi": ((32 + 1) * (6 + 1) + (32 + 1) * 6 * 4, 0),
    }
    vgg = {
        "conv1": (0, 3 * 4 * 9 + 4 + 4 * 4 * 9 + 4),
        "conv2": (0, 4 * 8 * 9 + 8 + 8 * 8 * 9 + 8),
        "conv3": (8 * 16 * 9 + 16 + 2 * (16 * 16 * 9 + 16), 0),
        "conv4": (16 * 32 * 9 + 32 + 2 * (32 * 32 * 9 + 32), 0),
        "conv5": (3 * (32 * 32 * 9 + 32), 0),
        "fc": (32 * 7 * 7 * 256 + 256 + 256 * 256 + 256, 0),
        "rpn": (32 * 16 * 9 + 16 + (16 + 1) * 9 + (16 + 1) * 36, 0),
        "roi": ((256 + 1) * (6 + 1) + (256 + 1) * 6 * 4, 0),
    }
    for name, expected in (("resnet18", resnet), ("vgg16", vgg)):
        weights = write_backbone(tmp_path / f"{name}.safetensors", name, width=4)
        options = ("--backbone.name", name, "--backbone.freeze_stages", "[conv1, conv2]", "--train.steps", "1")
        capsys.readouterr()
        train(tmp_path / name, weights, *options)
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        rows = {row[0]: row[1:] for row in lines if len(row) == 3 and row[0] in expected}
        assert rows == {part: [f"{trained:,}", f"{frozen:,}"] for part, (trained, frozen) in expected.items()}


def test_roi_pooling_that_is_to_be_deterministic_is_refused_on_a_gpu() -> None:
    """torchvision's backward pass adds in any order there."""
    config = DetectorConfig(deterministic=True)
    assert config.roi.pooling == "roi_pool"
    with pytest.raises(ConfigError, match=r"RoI pooling can't be so on a GPU; set --roi\.pooling roi_align"):
        _check_training(config, on_gpu=True)
    _check_training(config, on_gpu=False)
    _check_training(DetectorConfig(deterministic=False), on_gpu=True)
    _check_training(DetectorConfig(deterministic=True, roi=RoIOptions(pooling="roi_align")), on_gpu=True)
