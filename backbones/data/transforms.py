"""Further augmentations, by their names in `torchvision.transforms.v2`: RandomRotation, ColorJitter and others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from backbones.errors import ConfigError


class NamedTransforms:
    """torchvision's transforms, one after another, as a function of (pixels, seed).

    Args:
        specifications: each names a transform and its arguments: {"name": "RandomRotation", "degrees": 10}.
        size: of the square pictures that it will be given.

    Raises:
        ConfigError: no such transform, arguments that it does not take, or one that changes the picture's form.
    """

    def __init__(self, specifications: Sequence[Mapping[str, Any]], size: int):
        self._transforms = [_build(specification, size) for specification in specifications]

    def __bool__(self) -> bool:
        return bool(self._transforms)

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """uint8 (H, W, 3) to the same; which change is drawn depends on the seed alone."""
        with torch.random.fork_rng(devices=[]):  # they draw from the global generator
            torch.default_generator.manual_seed(seed)  # not the GPU's, from which dropout draws
            image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
            for transform in self._transforms:
                image = transform(image)
        return image.permute(1, 2, 0).numpy()


def _build(specification: Mapping[str, Any], size: int) -> v2.Transform:
    arguments = dict(specification)
    name = arguments.pop("name", None)
    kind = getattr(v2, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, v2.Transform)):
        raise ConfigError(f"data.transforms {dict(specification)}: name a transform of torchvision.transforms.v2")
    try:
        transform = kind(**arguments)
        probe = transform(torch.zeros(3, size, size, dtype=torch.uint8))
    except Exception as error:  # each transform checks its arguments in its own way
        raise ConfigError(
            f"data.transforms {name}: {' '.join(str(error).split())[:200]}: mend its arguments"
        ) from error
    if not (isinstance(probe, torch.Tensor) and probe.dtype == torch.uint8 and probe.shape == (3, size, size)):
        raise ConfigError(
            f"data.transforms {name}: does not give back a colour picture of whole numbers, {size}x{size} as it was: "
            "leave it out"
        )
    return transform
