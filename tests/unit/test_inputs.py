"""From a configuration to a network's input and its loss: each option does what it says, against plain formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backbones.config import ClassificationData
from backbones.data.augment import PadCropFlip, RandomResizedCrop, ScaleCropFlip, Whole
from backbones.data.batches import pixel_loader
from backbones.data.cut import cut_picture
from backbones.data.datasets import ClassificationDataset
from backbones.data.sampler import SampleKey
from backbones.data.transforms import NamedTransforms
from backbones.engine.randomness import derive_seed
from backbones.errors import DataError
from backbones.inputs import augmentation, mirror_some, training_statistics
from backbones.models import get_model
from backbones.train import classification_loss

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
DATASET = ClassificationDataset(["a", "b"], np.array([1]), lambda index: PICTURE, lambda index: "it", "test")
SIZES = {"scale_range": (26, 40), "area_range": (0.3, 0.9), "padding": 3, "input_size": 24}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scale_crop_flip", ScaleCropFlip(24, 26, 40)),
        ("random_resized_crop", RandomResizedCrop(24, 0.3, 0.9)),
        ("pad_crop_flip", PadCropFlip(24, 3)),
        ("flip", Whole(flip=True)),
        ("none", Whole(flip=False)),
    ],
)
@pytest.mark.parametrize("transforms", [[], [{"name": "RandomRotation", "degrees": 40}]], ids=["", "rotated"])
def test_a_sample_is_what_its_augmentations_make(name: Any, expected: Any, transforms: list[dict[str, Any]]) -> None:
    augment = augmentation(ClassificationData(augmentation=name, **SIZES))
    transform = NamedTransforms(transforms, 24)
    batch = pixel_loader(DATASET, augment, transform, None, size=24)([SampleKey(0, seed) for seed in range(5)])
    for seed, pixels in enumerate(mirror_some(batch.images, batch.mirrored)):
        by_hand, cut = cut_picture(PICTURE, expected, np.random.default_rng(seed))
        by_hand = by_hand[:, ::-1] if cut.mirrored else by_hand
        by_hand = transform(by_hand, derive_seed(seed, 1)) if transforms else by_hand
        assert np.array_equal(pixels.numpy(), by_hand)
    assert batch.labels.tolist() == [1] * 5
    assert not batch.color_shifts.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_is_cross_entropy_with_smoothed_targets(smoothing: float) -> None:
    """Szegedy et al. 2016: the target is 1 - s, and s / K for every class on top."""
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3])
    model = nn.Flatten(0, 0)  # gives back the input
    loss, numbers = classification_loss(lambda batch: (logits, labels), smoothing)(model, "a batch")
    targets = (1 - smoothing) * torch.eye(4, dtype=torch.float64)[labels] + smoothing / 4
    assert float(loss) == pytest.approx(float(-(targets * logits.log_softmax(1)).sum(1).mean()))
    assert float(numbers["top1_error"]) == 100 * np.mean(logits.argmax(1).numpy() != labels.numpy())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "cifar_resnet20"])
def test_zero_initialised_blocks_start_as_their_shortcuts(name: str) -> None:
    zero, plain = (get_model(name, 3, width=4, zero_init_residual=on).eval() for on in (True, False))
    x = torch.rand(2, zero.get_submodule("layer1.1").conv1.in_channels, 8, 8)
    for network, same in ((zero, True), (plain, False)):
        assert torch.equal(network.get_submodule("layer1.1")(x), x) == same
    assert zero.bn1.weight.eq(1).all()


def test_a_missing_statistics_file_is_named(tmp_path: Path) -> None:
    data = ClassificationData(root=str(tmp_path), color="pca", test_resize=None)
    with pytest.raises(DataError, match=r"statistics_224.*--input_size 224 --resize null"):
        training_statistics(data, DATASET, shown=False)
