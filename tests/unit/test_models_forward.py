"""What the networks compute: torchvision's outputs, gradients everywhere, any picture size."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from backbones import get_model, list_models
from backbones.models import StagedNetwork

SMALL = [(n, 8) for n in list_models() if not n.startswith("cifar")]
SMALL += [(n, 2) for n in list_models() if n.startswith("cifar")]


def randomise_statistics(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("resnet34", {}),
        ("resnet50", {"stride_in": "3x3"}),
        ("vgg16", {}),
        ("vgg16_bn", {}),
    ],
)
def test_a_torchvision_checkpoint_gives_torchvisions_outputs(name: str, options: dict[str, str]) -> None:
    torch.manual_seed(1)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=10).eval()
        ours = get_model(name, 10, **options).eval()
    theirs = theirs.to_empty(device="cpu")
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=(2 / max(parameter[0].numel(), 1)) ** 0.5 if parameter.dim() > 1 else 0.1)
    randomise_statistics(theirs)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(2, 3, 64, 80)
    with torch.no_grad():
        expected, actual = theirs(x), ours(x)
    assert expected.std() > 0
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_papers_stride_is_another_network_than_torchvisions() -> None:
    paper, torchvisions = get_model("resnet50", width=4).eval(), get_model("resnet50", width=4, stride_in="3x3").eval()
    torchvisions.load_state_dict(paper.state_dict())
    for name, network, strides in [("paper", paper, (2, 1)), ("torchvision", torchvisions, (1, 2))]:
        for stage in (network.layer2, network.layer3, network.layer4):
            assert (stage[0].conv1.stride[0], stage[0].conv2.stride[0]) == strides, name
            assert all(block.conv1.stride == block.conv2.stride == (1, 1) for block in stage[1:])
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(paper(x), torchvisions(x))


@pytest.mark.parametrize(("name", "width"), SMALL)
def test_every_parameter_gets_a_gradient(name: str, width: int) -> None:
    torch.manual_seed(1)
    size = 8 if name.startswith("cifar") else 64
    network = get_model(name, 5, width=width)
    out = network(torch.randn(2, 3, size, size))
    assert out.shape == (2, 5)
    nn.functional.cross_entropy(out, torch.tensor([0, 3])).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias before batch normalisation shifts what is subtracted again: its gradient is zero but for rounding.
    if name.endswith("_bn"):
        silent = [n for n in silent if not (n.startswith("features") and n.endswith("bias"))]
    assert silent == []


@pytest.mark.parametrize("options", [{}, {"shortcut": "A"}, {"shortcut": "C"}, {"stride_in": "3x3"}])
@pytest.mark.parametrize("size", [(33, 1), (64, 97)])
def test_any_picture_size(options: dict[str, str], size: tuple[int, int]) -> None:
    network = get_model("resnet50", 3, width=2, **options).eval()
    assert network(torch.randn(2, 3, *size)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "plain18", "vgg16", "vgg16_bn", "cifar_resnet20"])
def test_no_classes_gives_the_features_of_the_last_layer(name: str) -> None:
    torch.manual_seed(1)
    network = get_model(name, 6, width=4).eval()
    headless = get_model(name, 0, width=4).eval()
    missing = headless.load_state_dict(network.state_dict(), strict=False)
    assert missing.missing_keys == []
    last = network.fc if hasattr(network, "fc") else network.classifier[6]
    assert isinstance(last, nn.Linear)
    assert isinstance(headless.fc if hasattr(headless, "fc") else headless.classifier[6], nn.Identity)
    x = torch.randn(2, 3, 64, 64)
    features = headless(x)
    assert features.shape == (2, network.num_features) == (2, headless.num_features)
    torch.testing.assert_close(last(features), network(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16_bn", "cifar_resnet20", "cifar_plain20"])
def test_norm_layer_makes_every_batch_normalisation(name: str) -> None:
    torch.manual_seed(1)
    live = get_model(name, 3, width=4).eval().double()
    frozen = get_model(name, 3, width=4, norm_layer=FrozenBatchNorm2d).double()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    randomise_statistics(live)
    frozen.load_state_dict(live.state_dict())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(frozen.eval()(x), live(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "cifar_resnet20"])
def test_he_initialisation(name: str) -> None:
    torch.manual_seed(1)
    network: StagedNetwork = get_model(name, width=32 if name != "vgg16" else 16)
    for key, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            count, fan_in = module.weight.numel(), module.weight[0].numel()
            # The standard error of a standard deviation of `count` normal numbers is sigma / sqrt(2 count).
            assert abs(module.weight.std() * (fan_in / 2) ** 0.5 - 1) < 5 / (2 * count) ** 0.5, key
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()


def test_vgg_has_dropout_on_fc6_and_fc7() -> None:
    network = get_model("vgg16", width=1)
    assert [m.p for m in network.classifier.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert not any(isinstance(m, nn.Dropout) for m in get_model("resnet50", width=1).modules())


@pytest.mark.parametrize("side", range(3, 12))
def test_caffes_pools_look_at_every_pixel(side: int) -> None:
    """Caffe's rule: ceil((side - kernel) / stride) + 1 windows from the first pixel on, the last ones cut off."""
    x = torch.randn(1, 2, side, side)
    for name, pool, kernel in [
        ("resnet18", get_model("resnet18", width=1, pool="caffe").maxpool, 3),
        ("plain18", get_model("plain18", width=1, pool="caffe").maxpool, 3),
        ("vgg16", get_model("vgg16", width=1, pool="caffe").features[4], 2),
    ]:
        count = math.ceil((side - kernel) / 2) + 1
        windows = [slice(2 * i, min(2 * i + kernel, side)) for i in range(count)]
        expected = torch.stack([torch.stack([x[..., r, c].amax((2, 3)) for c in windows], 2) for r in windows], 2)
        assert torch.equal(pool(x), expected), name
        assert pool(x).shape[2] * 2 >= side - 1


def test_caffes_pools_are_an_option_of_imagenets_networks() -> None:
    x = torch.randn(1, 3, 75, 75)
    for name in ("resnet18", "plain18", "vgg16_bn"):
        torchs, caffes = get_model(name, 3, width=2).eval(), get_model(name, 3, width=2, pool="caffe").eval()
        caffes.load_state_dict(torchs.state_dict())
        assert not torch.allclose(torchs(x), caffes(x)), name
        same = get_model(name, 3, width=2, pool="torch").eval()
        same.load_state_dict(torchs.state_dict())
        assert torch.equal(torchs(x), same(x)), name
