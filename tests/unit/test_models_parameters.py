"""Parameter counts of the paper, to the digit, and names of torchvision."""

import pytest
import torch
import torchvision

from backbones import get_model, list_models

RESIDUAL = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}
COUNTS: list[tuple[str, dict[str, str], int]] = [
    ("resnet18", {}, 11_689_512),
    ("resnet18", {"shortcut": "A"}, 11_515_688),
    ("plain18", {}, 11_515_688),
    ("resnet34", {}, 21_797_672),
    ("resnet34", {"shortcut": "A"}, 21_623_848),
    ("resnet34", {"shortcut": "C"}, 22_716_840),
    ("plain34", {}, 21_623_848),
    ("resnet50", {}, 25_557_032),
    ("resnet50", {"stride_in": "3x3"}, 25_557_032),
    ("resnet101", {}, 44_549_160),
    ("resnet152", {}, 60_192_808),
    ("vgg16", {}, 138_357_544),
    ("vgg19", {}, 143_667_240),
    *((f"cifar_resnet{depth}", {}, count) for depth, count in RESIDUAL.items()),
    *((f"cifar_plain{depth}", {}, count) for depth, count in RESIDUAL.items()),
]
TORCHVISION = [n for n in list_models() if n.startswith(("resnet", "vgg"))]


@pytest.mark.parametrize(("name", "options", "count"), COUNTS)
def test_parameters_are_those_of_the_paper(name: str, options: dict[str, str], count: int) -> None:
    with torch.device("meta"):
        network = get_model(name, **options)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("name", TORCHVISION)
def test_state_dict_has_torchvisions_keys_and_shapes(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = get_model(name), torchvision.models.get_model(name)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("option", ["A", "B", "C"])
def test_projections_of_bottlenecks(option: str) -> None:
    """Where each option has projections: nowhere, in the first block of each stage, in every block."""
    with torch.device("meta"):
        keys = get_model("resnet50", shortcut=option).state_dict()
    projections = {k.removesuffix(".downsample.0.weight") for k in keys if k.endswith(".downsample.0.weight")}
    blocks = {"A": [0, 0, 0, 0], "B": [1, 1, 1, 1], "C": [3, 4, 6, 3]}[option]
    assert projections == {f"layer{stage}.{i}" for stage, count in enumerate(blocks, 1) for i in range(count)}
    assert not any("downsample" in k for k in keys) or option != "A"


@pytest.mark.parametrize("depth", [8, 14, 26])
def test_any_depth_of_6n_plus_2(depth: int) -> None:
    with torch.device("meta"):
        network = get_model(f"cifar_resnet{depth}")
    weighted = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == depth


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("resnet50", 2048), ("vgg16", 4096)])
def test_width_scales_every_layer(name: str, features: int) -> None:
    with torch.device("meta"):
        full, quarter = get_model(name, 7), get_model(name, 7, width=16)
    assert full.num_features == features
    assert quarter.num_features == features // 4
    small = quarter.state_dict()
    for key, value in full.state_dict().items():
        fixed = {3, 7, 1}  # the picture's colours, the classes, and kernel sizes don't scale
        assert [a // 4 if a not in fixed else a for a in value.shape] == list(small[key].shape), key
