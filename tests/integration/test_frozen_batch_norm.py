"""What training may not change, bit for bit: frozen batch norm and frozen stages, also where a run was resumed."""

from pathlib import Path

import pytest
import torch
from detector_commands import SMALL, write_backbone
from torch import Tensor, nn

from backbones.models import StagedNetwork, get_model, run_stages
from backbones.weights import load_weights
from detection.models import get_detector
from detection.train import main as train_main

STAGES = ("conv1", "conv2")


@pytest.fixture(scope="module", params=["resnet18", "resnet50", "vgg16_bn"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("backbone")
    return request.param, write_backbone(folder / "backbone.safetensors", request.param, width=4)


def of_batch_norm(network: StagedNetwork) -> set[str]:
    """Names of statistics and affine parameters, read off the classifier, which has batch norm live."""
    layers = {name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    return {f"{name}.{each}" for name in layers for each in ("weight", "bias", "running_mean", "running_var")}


def of_stages(network: StagedNetwork) -> set[str]:
    """Names of all parameters of the stages that are not trained."""
    frozen = {id(p) for name in STAGES for module in network.stages()[name].modules for p in module.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in frozen}


def bits(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


def test_training_changes_everything_else(backbone: tuple[str, Path], tmp_path: Path) -> None:
    name, file = backbone
    arguments = [*SMALL, "--backbone.name", name, "--backbone.weights", str(file), "--output", str(tmp_path / "run")]
    arguments += ["--backbone.freeze_stages", f"[{', '.join(STAGES)}]", "--train.checkpoint_every", "3"]
    train_main([*arguments, "--train.steps", "3"])
    halfway, _ = load_weights(tmp_path / "run")
    train_main([*arguments, "--train.steps", "6", "--resume", "--allow_mismatch"])
    after, _ = load_weights(tmp_path / "run")

    before, _ = load_weights(file)
    network = get_model(name, 0, width=4)
    fixed = of_batch_norm(network) | of_stages(network)
    for state in (halfway, after):
        own = {key.removeprefix("backbone."): tensor for key, tensor in state.items() if key.startswith("backbone.")}
        assert fixed <= own.keys()
        for key, tensor in own.items():
            assert (bits(tensor) == bits(before[key])) == (key in fixed), key
    for key in after.keys() - {"mean", "std"} - {f"backbone.{each}" for each in fixed}:
        assert bits(after[key]) != bits(halfway[key]), key


@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn"])
def test_the_map_is_that_of_the_classifier_in_tests(name: str) -> None:
    """Its epsilon included: it matters where a variance is small."""
    torch.manual_seed(0)
    network = get_model(name, 0, width=4).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.uniform_(1e-6, 1e-4)
            layer.running_mean.normal_(std=1e-3)
    detector = get_detector(name, 2, backbone_options={"width": 4}, mean=(0, 0, 0), std=(1e3, 1e3, 1e3)).double()
    detector.load_backbone(network.state_dict())
    picture = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8)
    last = "conv5" if name.startswith("vgg") else "conv4"
    expected = run_stages(network, picture[None].double() / 1e3, "conv1", last)
    torch.testing.assert_close(detector.train().features([picture]), expected, rtol=1e-9, atol=1e-12)
