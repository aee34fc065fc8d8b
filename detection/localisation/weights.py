"""Localisers to and from weights files that rebuild them."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from backbones.errors import CheckpointError, ConfigError
from backbones.weights import WeightsMetadata, load_state, load_weights, save_weights
from detection.localisation.model import Localiser, build_backbone
from detection.localisation.rpn import ClassRPNOptions


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
    """What a localiser's weights file says of it; architecture and normalisation are those of its backbone.

    A mean per pixel becomes one per channel: pictures of all sizes are shown to it.
    """
    return WeightsMetadata(
        task="localisation",
        architecture=backbone.architecture,
        options=backbone.options,
        classes=classes,
        mean=torch.tensor(backbone.mean).reshape(3, -1).mean(dim=1).tolist(),
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


def save_localiser(path: Path, network: nn.Module, metadata: WeightsMetadata) -> None:
    """Writes a weights file, whole or not at all."""
    save_weights(path, network.state_dict(), metadata)


def load_localiser(path: str | Path) -> tuple[Localiser, WeightsMetadata]:
    """Rebuilds a localiser from its weights file or run folder, in eval mode.

    Raises:
        CheckpointError: the file can't be used or holds something else than a localiser.
    """
    state, metadata = load_weights(path)
    if metadata.task != "localisation":
        raise CheckpointError(f"{path}: holds a {metadata.task} network, not a localiser (a run of train_localiser.py)")
    try:
        if metadata.test_resize is None or metadata.test_resize < metadata.input_size:
            raise ConfigError(f"test_resize {metadata.test_resize}")
        localiser = build_localiser(metadata)
    # RuntimeError: tensors of sizes that can't be.
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise CheckpointError(f"{path}: its metadata describe a localiser that can't be built ({reason})") from error
    load_state(localiser, state, str(path))
    return localiser.eval(), metadata
