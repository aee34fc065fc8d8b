"""Receptive fields: known sizes, and the pixels that a position's gradient reaches."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import get_model
from backbones.analysis.features import stage_maps
from backbones.analysis.receptive_field import ReceptiveField, stage_fields

# Sizes as published for VGG-16 (conv5_3: 196) and for torchvision's ResNet-18 (435).
SIZES = {
    "resnet18": [7, 43, 99, 211, 435],
    "plain18": [7, 43, 99, 211, 435],
    "vgg16": [5, 14, 40, 92, 196],
    "cifar_resnet20": [3, 15, 37, 81],
}
SUPPORTS = [
    ("resnet18", {"shortcut": "A"}, 480),
    ("resnet50", {}, 512),
    ("resnet50", {"stride_in": "3x3"}, 480),
    ("vgg16", {}, 256),
    ("cifar_resnet20", {}, 128),
    ("cifar_resnet20", {"block_layers": 1, "shortcut": "B"}, 128),
    ("cifar_resnet20", {"block_layers": 3, "norm": "none"}, 128),
    ("cifar_plain20", {}, 128),
]


class AveragePool(nn.MaxPool2d):
    """A max pool lets a gradient through at one of its pixels only; an average depends on all of them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_strides(name: str) -> None:
    with torch.device("meta"):
        network = get_model(name)
    fields = stage_fields(network)
    assert [field.size for field in fields.values()] == SIZES[name]
    assert [field.stride for field in fields.values()] == [stage.stride for stage in network.stages().values()]


@pytest.mark.parametrize("block_layers", [1, 2, 3])
def test_the_layers_of_a_block_do_not_change_how_far_a_stage_sees(block_layers: int) -> None:
    with torch.device("meta"):
        network = get_model("cifar_resnet20", block_layers=block_layers)
    assert [field.size for field in stage_fields(network).values()] == SIZES["cifar_resnet20"]


@pytest.mark.parametrize(("name", "options", "side"), SUPPORTS)
def test_the_gradient_reaches_these_pixels_and_no_others(name: str, options: dict[str, Any], side: int) -> None:
    with torch.device("meta"):
        network = get_model(name, width=1, **options)
    fields = stage_fields(network)
    network = get_model(name, width=1, **options).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())  # above 0: nothing cancels, no ReLU closes
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.MaxPool2d):
            module.__class__ = AveragePool
    # Rows are enough, as all kernels are square.
    x = torch.ones(1, 3, side, side).double()[:, :, :, :64].requires_grad_()
    for stage, maps in stage_maps(network, x, list(fields)).items():
        height, width = maps.shape[2:]
        for row in (height // 2, 0, height - 1):
            (gradient,) = torch.autograd.grad(maps[0, 0, row, width // 2], x, retain_graph=True)
            reached = gradient[0].abs().sum((0, 2)).nonzero().flatten()
            first, end = fields[stage].extent(row)
            assert (reached.min(), reached.max()) == (max(first, 0), min(end, side) - 1), (stage, row)


def test_of_one_convolution() -> None:
    field = ReceptiveField().then(kernel=7, stride=2, padding=3)
    assert (field.size, field.stride, field.start) == (7, 2, -3)
    assert field.extent(0) == (-3, 4)
    assert field.extent(5) == (7, 14)
