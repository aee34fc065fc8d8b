"""ResNet-50, 101 and 152 layer by layer against MSRA's published network definitions.

The facts are those of the prototxt files of github.com/KaimingHe/deep-residual-networks (commit a7026cb), for a picture
of 224x224. There every convolution is followed by batch normalisation with a scale and a shift, each block's
convolutions come in the order below, and two branches are added before the ReLU.
"""

import pytest
import torch
from torch import nn

from backbones import get_model
from backbones.analysis.complexity import complexity

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
LAYERS = {"resnet50": 53, "resnet101": 104, "resnet152": 155}  # convolutions
CONV1 = (64, 7, 2, 3, 112)  # channels, kernel, stride, pad, height and width of the output
# Of a stage's blocks: channels, kernel, pad and output of branch2a, 2b and 2c.
BRANCH2 = {
    2: [(64, 1, 0, 56), (64, 3, 1, 56), (256, 1, 0, 56)],
    3: [(128, 1, 0, 28), (128, 3, 1, 28), (512, 1, 0, 28)],
    4: [(256, 1, 0, 14), (256, 3, 1, 14), (1024, 1, 0, 14)],
    5: [(512, 1, 0, 7), (512, 3, 1, 7), (2048, 1, 0, 7)],
}
# Of a stage's first block: stride of branch2a and of the projection branch1; every other stride is 1.
FIRST_STRIDE = {2: 1, 3: 2, 4: 2, 5: 2}

Row = tuple[str, int, int, int, int, int]


def published(name: str) -> list[Row]:
    """(our name of the layer, channels, kernel, stride, pad, output side) of each convolution."""
    rows: list[Row] = [("conv1", *CONV1)]
    for stage, blocks in zip(BRANCH2, BLOCKS[name], strict=True):
        for block in range(blocks):
            first = FIRST_STRIDE[stage] if block == 0 else 1
            for place, (channels, kernel, pad, side) in enumerate(BRANCH2[stage], 1):
                stride = first if place == 1 else 1
                rows.append((f"layer{stage - 1}.{block}.conv{place}", channels, kernel, stride, pad, side))
            if block == 0:
                channels, _, _, side = BRANCH2[stage][-1]
                rows.append((f"layer{stage - 1}.0.downsample.0", channels, 1, first, 0, side))
    return rows


@pytest.mark.parametrize("name", BLOCKS)
def test_every_layer_is_as_published(name: str) -> None:
    with torch.device("meta"):
        network = get_model(name)
    modules = dict(network.named_modules())
    layers = complexity(network).layers
    ours, norms = [], []
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        module = modules[layer.name]
        if isinstance(module, nn.Conv2d):
            (kernel, _), (stride, _), (pad, _) = module.kernel_size, module.stride, module.padding
            channels, side, width = layer.output_shape
            assert (module.kernel_size, module.stride, module.padding) == ((kernel,) * 2, (stride,) * 2, (pad,) * 2)
            assert (module.groups, module.dilation, side) == (1, (1, 1), width)
            ours.append((layer.name, channels, kernel, stride, pad, side))
            assert after is not None
            assert isinstance(modules[after.name], nn.BatchNorm2d)
            assert after.output_shape == layer.output_shape
            norms.append(after.name)
    expected = published(name)
    assert ours == expected
    assert len(expected) == LAYERS[name]
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in modules.values())
    assert modules["maxpool"].kernel_size == 3
    assert modules["maxpool"].stride == 2
    assert (layers[-1].name, layers[-1].output_shape, layers[-1].parameters) == ("fc", (1000,), 2048 * 1000 + 1000)


@pytest.mark.parametrize("name", BLOCKS)
def test_no_convolution_has_a_bias(name: str) -> None:
    """As published, but for conv1 of ResNet-50, where it changes nothing: batch norm subtracts it again."""
    with torch.device("meta"):
        biases = {n for n, m in get_model(name).named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None}
    assert biases == set()


def test_stride_in_the_3x3_is_another_network() -> None:
    with torch.device("meta"):
        modules = dict(get_model("resnet50", stride_in="3x3").named_modules())
    assert (modules["layer2.0.conv1"].stride, modules["layer2.0.conv2"].stride) == ((1, 1), (2, 2))
