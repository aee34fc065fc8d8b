"""Localisers, and the networks of the R-CNN step, to and from weights files that rebuild them."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from backbones.errors import CheckpointError, ConfigError
from backbones.weights import WeightsMetadata, load_state, load_weights
from detection.localisation.model import Localiser, build_backbone
from detection.localisation.regions import RegionNetwork, RegionOptions
from detection.localisation.rpn import ClassRPNOptions
from detection.models.checks import require

SMALLEST_REGION = 32
"""Pixels: the stride of a whole network, whose last map would have no cell of a smaller region."""

Network = TypeVar("Network", bound=nn.Module)


def localiser_metadata(
    backbone: WeightsMetadata,
    classes: list[str],
    *,
    norm: str,
    freeze_stages: list[str],
    anchor_scales: list[float],
    anchor_ratios: list[float],
    options: ClassRPNOptions,
    crop_size: int,
    shorter: int,
) -> WeightsMetadata:
    """What a localiser's weights file says of it; architecture and normalisation are those of its backbone."""
    return WeightsMetadata(
        task="localisation",
        architecture=backbone.architecture,
        options=backbone.options,
        classes=classes,
        mean=_mean_of_channels(backbone),
        std=backbone.std,
        input_size=crop_size,
        test_resize=shorter,
        detector={
            "norm": norm,
            "freeze_stages": freeze_stages,
            "anchor_scales": anchor_scales,
            "anchor_ratios": anchor_ratios,
            "rpn": asdict(options),
        },
    )


def build_localiser(metadata: WeightsMetadata) -> Localiser:
    """A localiser with new weights, as a weights file's metadata describe it."""
    more = metadata.detector
    return Localiser(
        build_backbone(metadata.architecture, metadata.options, more["norm"], more["freeze_stages"]),
        len(metadata.classes),
        anchor_scales=more["anchor_scales"],
        anchor_ratios=more["anchor_ratios"],
        mean=metadata.mean,
        std=metadata.std,
        options=ClassRPNOptions(**more["rpn"]),
    )


def load_localiser(path: str | Path) -> tuple[Localiser, WeightsMetadata]:
    """Rebuilds a localiser from its weights file or run folder, in eval mode.

    Raises:
        CheckpointError: the file can't be used or holds something else than a localiser.
    """
    state, metadata = load_weights(path)
    if metadata.task != "localisation":
        raise CheckpointError(f"{path}: holds a {metadata.task} network, not a localiser (a run of train_localiser.py)")
    if metadata.test_resize is None or metadata.test_resize < metadata.input_size:
        raise CheckpointError(f"{path}: its metadata's test_resize is not a side of {metadata.input_size} or more")
    return _rebuild(path, state, metadata, build_localiser), metadata


def region_metadata(
    backbone: WeightsMetadata,
    classes: list[str],
    *,
    norm: str,
    freeze_stages: list[str],
    options: RegionOptions,
) -> WeightsMetadata:
    """What the weights file of an R-CNN step's network says of it."""
    return WeightsMetadata(
        task="region classification",
        architecture=backbone.architecture,
        options=backbone.options,
        classes=classes,
        mean=_mean_of_channels(backbone),
        std=backbone.std,
        input_size=options.size,
        detector={"norm": norm, "freeze_stages": freeze_stages, "regions": asdict(options)},
    )


def build_regions(metadata: WeightsMetadata) -> RegionNetwork:
    """An R-CNN step's network with new weights, as a weights file's metadata describe it."""
    more = metadata.detector
    size = RegionOptions(**more["regions"]).size  # of a file: may be anything
    require(size >= SMALLEST_REGION, "regions.size", size, f"{SMALLEST_REGION} or more")
    backbone = build_backbone(metadata.architecture, metadata.options, more["norm"], more["freeze_stages"])
    return RegionNetwork(backbone, len(metadata.classes), mean=metadata.mean, std=metadata.std)


def load_regions(path: str | Path) -> tuple[RegionNetwork, WeightsMetadata]:
    """Rebuilds an R-CNN step's network from its weights file or run folder, in eval mode.

    `RegionOptions(**metadata.detector["regions"])` says what it was trained on.

    Raises:
        CheckpointError: the file can't be used or holds something else.
    """
    state, metadata = load_weights(path)
    if metadata.task != "region classification":
        raise CheckpointError(
            f"{path}: holds a {metadata.task} network, not one of the R-CNN step (train_localiser.py --part rcnn)"
        )
    return _rebuild(path, state, metadata, build_regions), metadata


def _rebuild(
    path: str | Path, state: dict[str, Tensor], metadata: WeightsMetadata, build: Callable[[WeightsMetadata], Network]
) -> Network:
    try:
        with torch.device("meta"):  # takes no memory, whatever the file asks for
            fitting = build(metadata)
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise CheckpointError(f"{path}: its metadata describe a network that can't be built ({reason})") from error
    load_state(fitting, state, str(path), assign=True)
    network = build(metadata)
    load_state(network, state, str(path))
    return network.eval()


def _mean_of_channels(backbone: WeightsMetadata) -> list[float]:
    """A mean per pixel becomes one per channel: pictures of all sizes are shown."""
    return torch.tensor(backbone.mean).reshape(3, -1).mean(dim=1).tolist()
