"""Augmentations by torchvision's names: a function of the seed, and the same as torchvision's own."""

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from backbones.data.transforms import NamedTransforms
from backbones.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
ALL = [
    {"name": "RandomRotation", "degrees": 30},
    {"name": "RandomAffine", "degrees": 0, "translate": [0.2, 0.2], "scale": [0.7, 1.3]},
    {"name": "ColorJitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
]


@pytest.mark.parametrize("specification", ALL, ids=lambda s: s["name"])
def test_the_seed_decides(specification: dict[str, Any]) -> None:
    transform = NamedTransforms([specification], 20)
    before = torch.get_rng_state()
    results = [transform(PIXELS, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)  # dropout's draws are not touched
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert results[0].shape == PIXELS.shape
    assert results[0].dtype == np.uint8


def test_it_is_torchvisions() -> None:
    torch.manual_seed(5)
    expected = v2.RandomRotation(30)(torch.from_numpy(PIXELS).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.array_equal(NamedTransforms(ALL[:1], 20)(PIXELS, 5), expected)


def test_none_leaves_the_picture_alone() -> None:
    assert not NamedTransforms([], 20)
    assert np.array_equal(NamedTransforms([], 20)(PIXELS, 1), PIXELS)


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"name": "RandomRotatoin", "degrees": 3}, "name a transform of torchvision"),
        ({"degrees": 3}, "name a transform of torchvision"),
        ({"name": "functional"}, "name a transform of torchvision"),
        ({"name": "RandomRotation"}, "degrees"),
        ({"name": "RandomRotation", "degrees": -3}, "RandomRotation"),
        ({"name": "ColorJitter", "hue": 7}, "ColorJitter"),
        ({"name": "ToDtype", "dtype": "float"}, "ToDtype"),
        ({"name": "Grayscale"}, "does not give back a colour picture"),
        ({"name": "CenterCrop", "size": 16}, "20x20 as it was"),
        ({"name": "RandomCrop", "size": 24}, "RandomCrop"),
    ],
)
def test_bad_names_and_arguments(specification: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NamedTransforms([specification], 20)
