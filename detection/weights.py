"""Detectors to and from weights files that rebuild them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.errors import CheckpointError, ConfigError
from backbones.weights import WeightsMetadata, load_state, load_weights, save_weights
from detection.models import FasterRCNN, RoIOptions, RPNOptions, get_detector


def detector_arguments(metadata: WeightsMetadata) -> dict[str, Any]:
    """The arguments of `get_detector` that a weights file's metadata hold."""
    further = dict(metadata.detector)
    return {
        "backbone": metadata.architecture, "num_classes": len(metadata.classes), "backbone_options": metadata.options,
        "mean": metadata.mean, "std": metadata.std, "rpn": RPNOptions(**further.pop("rpn")),
        "roi": RoIOptions(**further.pop("roi")), "norm": further["norm"], "freeze_stages": further["freeze_stages"],
        "anchor_scales": further["anchor_scales"], "anchor_ratios": further["anchor_ratios"],
    }  # fmt: skip


def detector_metadata(
    backbone: WeightsMetadata, classes: list[str], category_ids: list[int], *, norm: str, freeze_stages: list[str],
    anchor_scales: list[float], anchor_ratios: list[float], rpn: RPNOptions, roi: RoIOptions, shorter_side: int, longest_side: int,
) -> WeightsMetadata:  # fmt: skip
    """What a detector's weights file says of it; architecture and normalisation are those of its backbone.

    A mean per pixel becomes one per channel: a detector's pictures come in all sizes.
    """
    mean = backbone.mean if not isinstance(backbone.mean[0], list) else [_mean_of(channel) for channel in backbone.mean]
    return WeightsMetadata(
        task="detection", architecture=backbone.architecture, options=backbone.options, classes=classes, mean=mean,
        std=backbone.std, input_size=shorter_side, color_order=backbone.color_order, category_ids=category_ids,
        detector={
            "norm": norm, "freeze_stages": freeze_stages, "anchor_scales": anchor_scales, "anchor_ratios": anchor_ratios,
            "rpn": asdict(rpn), "roi": asdict(roi), "shorter_side": shorter_side, "longest_side": longest_side,
        },
    )  # fmt: skip


def save_detector(path: Path, detector: FasterRCNN, metadata: WeightsMetadata) -> None:
    """Writes a detector's weights file, whole or not at all."""
    save_weights(path, detector.state_dict(), metadata)


def load_detector(path: str | Path) -> tuple[FasterRCNN, WeightsMetadata]:
    """Rebuilds a detector from its weights file or run folder, in eval mode.

    Raises:
        CheckpointError: the file can't be used or holds something else than a detector.
    """
    state, metadata = load_weights(path)
    if metadata.task != "detection":
        raise CheckpointError(f"{path}: holds a {metadata.task} network, not a detector")
    try:
        detector = get_detector(**detector_arguments(metadata))
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its metadata describe a detector that can't be built ({error})") from error
    load_state(detector, state, str(path))
    return detector.eval(), metadata


def _mean_of(channel: list[list[float]]) -> float:
    values = [value for row in channel for value in row]
    return sum(values) / len(values)
