"""Names and options as a config file may give them."""

import pytest
import torch
from torch import nn

import backbones
from backbones import get_model, list_models
from backbones.errors import ConfigError


def test_list_models_has_the_papers_networks() -> None:
    names = list_models()
    assert len(names) == len(set(names))
    assert {f"resnet{d}" for d in (18, 34, 50, 101, 152)} | {"plain18", "plain34"} <= set(names)
    assert {"vgg16", "vgg19", "vgg16_bn", "vgg19_bn", "cifar_resnet1202", "cifar_plain56"} <= set(names)
    assert set(backbones.__all__) == {"get_model", "list_models"}


@pytest.mark.parametrize(("name", "classes"), [("resnet18", 1000), ("vgg16", 1000), ("plain18", 1000),
                                               ("cifar_resnet20", 10), ("cifar_plain20", 10)])  # fmt: skip
def test_classes_of_the_papers_data_by_default(name: str, classes: int) -> None:
    network = get_model(name, width=1)
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    assert network.num_classes == last.out_features == classes
    assert get_model(name, 3, width=1).num_classes == 3


@pytest.mark.parametrize(
    "name",
    ["resnet", "resnet20", "ResNet18", "vgg11", "cifar_resnet", "cifar_resnet21", "cifar_resnet2", "cifar_resnet020",
     "cifar_resnet99999999998", "cifar_vgg20", "resnet18 ", "cifar_resnet20\n", "", None, 18, ["resnet18"]],
)  # fmt: skip
def test_unknown_names(name) -> None:
    with pytest.raises(ConfigError) as error:
        get_model(name)
    assert repr(name) in str(error.value)
    assert "6n+2" in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet18", {"stride_in": "1x1"}, ["resnet18", "stride_in", "shortcut", "width"]),
        ("resnet50", {"depth": 18}, ["depth", "shortcut", "stride_in", "width"]),
        ("resnet50", {"batch_norm": True}, ["batch_norm"]),
        ("plain18", {"shortcut": "A"}, ["plain18", "shortcut", "width"]),
        ("cifar_plain20", {"shortcut": "A"}, ["cifar_plain20", "shortcut"]),
        ("vgg16", {"batch_norm": True}, ["vgg16", "batch_norm", "width"]),
        ("resnet18", {"shortcut": "D"}, ["shortcut", "'D'", "A, B, C"]),
        ("resnet18", {"shortcut": None}, ["shortcut", "None", "A, B, C"]),
        ("resnet18", {"shortcut": ["A"]}, ["shortcut", "['A']"]),
        ("cifar_resnet20", {"shortcut": "a"}, ["shortcut", "'a'"]),
        ("resnet50", {"stride_in": 3}, ["stride_in", "1x1, 3x3"]),
        *[(n, {"pool": "max"}, ["pool", n, "torch, caffe"]) for n in ("resnet18", "resnet50", "plain34", "vgg19")],
        ("cifar_resnet20", {"pool": "caffe"}, ["cifar_resnet20", "pool", "shortcut", "width", "block_layers"]),
        *[(n, {"width": w}, ["width", n, repr(w)]) for n in ("resnet18", "vgg16", "cifar_resnet20", "plain18")
          for w in (0, -1, 1.5, "64", True, None)],
        *[("resnet18", {"num_classes": n}, ["num_classes", repr(n)]) for n in (-1, 2.0, "10", True)],
        ("resnet18", {"norm_layer": "batch"}, ["norm_layer", "'batch'"]),
    ],
)  # fmt: skip
def test_bad_options(name: str, options: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        get_model(name, **options)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_vgg_drops_out_as_much_as_asked():
    x = torch.rand(2, 3, 32, 32)
    torch.manual_seed(0)
    without = get_model("vgg16", 10, width=4, dropout=0)
    assert torch.equal(without(x), without(x))
    half = get_model("vgg16", 10, width=4)
    assert not torch.equal(half(x), half(x))
    assert without.state_dict().keys() == half.state_dict().keys()


@pytest.mark.parametrize("value", [1, -0.1, "a lot", True])
def test_dropout_outside_its_range_is_refused(value):
    with pytest.raises(ConfigError, match="dropout of vgg16 must be"):
        get_model("vgg16", dropout=value)
