"""The stages of Table 1: sizes, strides, channels, and that they are the network."""

import pytest
import torch
from torch import nn

from backbones import get_model, list_models
from backbones.errors import ConfigError
from backbones.models import run_stages

WIDE = {"resnet18": 1, "resnet34": 1, "plain18": 1, "plain34": 1, "resnet50": 4, "resnet101": 4, "resnet152": 4}
NAMES = [n for n in list_models() if n not in ("cifar_resnet1202", "cifar_resnet110", "cifar_plain110", "resnet152")]


@pytest.mark.parametrize("name", list_models())
def test_sizes_and_channels_of_table_1(name: str) -> None:
    with torch.device("meta"):
        network = get_model(name)
        if name in WIDE:
            sizes, channels = [112, 56, 28, 14, 7], [64, *(WIDE[name] * c for c in (64, 128, 256, 512))]
        elif name.startswith("vgg"):
            sizes, channels = [224, 112, 56, 28, 14], [64, 128, 256, 512, 512]
        else:
            sizes, channels = [32, 32, 16, 8], [16, 16, 32, 64]
        picture = 32 if name.startswith("cifar") else 224
        assert network.input_size == picture
        stages = network.stages()
        assert list(stages) == [f"conv{i + 1}" for i in range(len(sizes))]
        x = torch.empty(2, 3, picture, picture)
        for stage, size, width in zip(stages, sizes, channels, strict=True):
            x = run_stages(network, x, stage, stage)
            assert x.shape == (2, width, size, size)
            assert (stages[stage].channels, stages[stage].stride) == (width, picture // size)


@pytest.mark.parametrize("name", NAMES)
def test_stages_compose_to_the_network(name: str) -> None:
    torch.manual_seed(1)
    network = get_model(name, 4, width=4).eval()
    x = torch.randn(2, 3, 64, 48)
    names = list(network.stages())
    split = run_stages(network, run_stages(network, x, names[0], names[2]), names[3], names[-1])
    out = run_stages(network, x, names[0], names[-1])
    assert torch.equal(out, split)
    if name.startswith("vgg"):
        expected = network.classifier(network.avgpool(nn.functional.max_pool2d(out, 2)).flatten(1))
    else:
        expected = network.fc(out.mean((2, 3)))
    torch.testing.assert_close(network(x), expected)


def test_stages_are_the_networks_own_modules() -> None:
    """Every parameter up to the classifier is in exactly one stage, and is not copied."""
    for name, classifier in [("resnet50", "fc."), ("vgg16_bn", "classifier."), ("cifar_plain20", "fc.")]:
        network = get_model(name, 4, width=2)
        modules = [module for stage in network.stages().values() for module in stage.modules]
        staged = [id(p) for module in modules for p in module.parameters()]
        own = [id(p) for key, p in network.named_parameters() if not key.startswith(classifier)]
        assert sorted(staged) == sorted(own)


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "cifar_resnet20"])
def test_a_stage_leaves_its_input_as_it_is(name: str) -> None:
    network = get_model(name, 4, width=2).eval()
    x = torch.randn(1, 3, 64, 64)
    for stage in network.stages():
        given = x.clone()
        out = run_stages(network, x, stage, stage)
        assert torch.equal(x, given), stage
        x = out


@pytest.mark.parametrize(("first", "last", "word"), [("conv0", "conv2", "conv0"), ("conv1", "conv6", "conv1, conv2"),
                                                     ("conv3", "conv2", "after")])  # fmt: skip
def test_bad_stages(first: str, last: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        run_stages(get_model("resnet18", width=1), torch.zeros(1, 3, 32, 32), first, last)
