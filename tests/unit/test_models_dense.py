"""Networks applied fully convolutionally, against loops over the places of the last map."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import ConfigError
from backbones.models import StagedNetwork, get_model
from backbones.models.dense import dense_classifier
from backbones.models.vgg import VGG

# (network, options, side of its training crops, side of the window in cells of the last map)
NETWORKS = [
    ("resnet18", {"width": 4, "shortcut": "A"}, 224, 7),
    ("resnet50", {"width": 4}, 112, 4),
    ("plain18", {"width": 4}, 97, 4),
    ("cifar_resnet8", {"width": 4}, 32, 8),
    ("cifar_plain8", {"width": 4}, 30, 8),
    ("vgg16", {"width": 2}, 224, 7),
    ("vgg16_bn", {"width": 2}, 112, 3),
    ("vgg16_bn", {"width": 2}, 288, 9),
    ("vgg19", {"width": 2}, 35, 1),
]


def network(name: str, options: dict[str, Any]) -> StagedNetwork:
    """In eval mode and double precision, its batch norm and biases as after some training."""
    torch.manual_seed(0)
    model = get_model(name, 5, **options).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def slow_map(model: StagedNetwork, x: Tensor, window: int) -> Tensor:
    """Logits (B, K, H', W'), one place at a time."""
    if isinstance(model, VGG):
        maps = model.features(x)
        classify = lambda part: model.classifier(F.adaptive_avg_pool2d(part, 7).flatten(1))  # noqa: E731
    else:
        maps = x
        for stage in model.stages().values():
            for module in stage.modules:
                maps = module(maps)
        classify = lambda part: model.fc(part.sum((2, 3)) / window**2)  # noqa: E731
    height, width = (side - window + 1 for side in maps.shape[2:])
    result = torch.empty(len(x), 5, height, width, dtype=x.dtype)
    for i in range(height):
        for j in range(width):
            result[:, :, i, j] = classify(maps[:, :, i : i + window, j : j + window])
    return result


@pytest.mark.parametrize(("name", "options", "size", "window"), NETWORKS)
@torch.no_grad()
def test_a_picture_of_the_training_size_has_the_ordinary_logits(
    name: str, options: dict[str, Any], size: int, window: int
) -> None:
    model = network(name, options)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    logits = model(x)
    torch.testing.assert_close(dense_classifier(model, size)(x), logits[:, :, None, None])
    assert logits.std(0).min() > 1e-6  # they depend on the picture


@pytest.mark.parametrize(("name", "options", "size", "window"), NETWORKS)
@torch.no_grad()
def test_the_map_is_that_of_a_loop_over_windows(name: str, options: dict[str, Any], size: int, window: int) -> None:
    model = network(name, options)
    stride = 4 if name.startswith("cifar") else 32
    x = torch.randn(2, 3, size + stride, size + 2 * stride + 3, dtype=torch.float64)
    expected = slow_map(model, x, window)
    assert expected.shape[2] > 1
    assert expected.shape[3] > 2
    torch.testing.assert_close(dense_classifier(model, size)(x), expected)


@torch.no_grad()
def test_any_picture_at_least_as_large_as_the_crops_has_a_map() -> None:
    for name, stride in (("resnet18", 32), ("vgg16", 32), ("cifar_resnet8", 4)):
        model = network(name, {"width": 1})
        for size in (64, 75, 95):
            for more in (0, 1, 31, 33):
                x = torch.zeros(1, 3, size, size + more, dtype=torch.float64)
                height, width = dense_classifier(model, size)(x).shape[2:]
                assert height == 1
                assert 1 + more // stride <= width <= 2 + more // stride


def test_pictures_that_a_network_can_t_be_applied_to_are_refused() -> None:
    with pytest.raises(ConfigError, match="a picture of 70x63 is smaller than the network's window of 64"):
        dense_classifier(network("resnet18", {"width": 1}), 64)(torch.zeros(1, 3, 63, 70))
    for size in (31, 10_000):  # its fc6 would take terabytes
        with pytest.raises(ConfigError, match=f"a VGG for pictures of {size} pixels"):
            dense_classifier(network("vgg16", {"width": 1}), size)
