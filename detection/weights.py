"""Detectors to and from weights files that rebuild them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from backbones.errors import CheckpointError, ConfigError
from backbones.text import printable
from backbones.weights import WeightsMetadata, is_side, load_state, load_weights, save_weights
from detection.models import FasterRCNN, Part, RoIOptions, RPNOptions, get_detector


def detector_arguments(metadata: WeightsMetadata) -> dict[str, Any]:
    """The arguments of `get_detector` that a weights file's metadata hold."""
    detector = metadata.detector
    return {
        "backbone": metadata.architecture,
        "num_classes": len(metadata.classes),
        "backbone_options": metadata.options,
        "mean": metadata.mean,
        "std": metadata.std,
        "rpn": RPNOptions(**detector["rpn"]),
        "roi": RoIOptions(**detector["roi"]),
        "norm": detector["norm"],
        "freeze_stages": detector["freeze_stages"],
        "anchor_scales": detector["anchor_scales"],
        "anchor_ratios": detector["anchor_ratios"],
    }


def detector_metadata(
    backbone: WeightsMetadata,
    classes: list[str],
    category_ids: list[int],
    *,
    norm: str,
    freeze_stages: list[str],
    anchor_scales: list[float],
    anchor_ratios: list[float],
    rpn: RPNOptions,
    roi: RoIOptions,
    shorter_side: int,
    longest_side: int,
) -> WeightsMetadata:
    """What a detector's weights file says of it; architecture and normalisation are those of its backbone.

    A mean per pixel becomes one per channel: a detector's pictures come in all sizes.
    """
    mean = backbone.mean if not isinstance(backbone.mean[0], list) else [_mean_of(channel) for channel in backbone.mean]
    return WeightsMetadata(
        task="detection",
        architecture=backbone.architecture,
        options=backbone.options,
        classes=classes,
        mean=mean,
        std=backbone.std,
        input_size=shorter_side,
        color_order=backbone.color_order,
        category_ids=category_ids,
        detector={
            "norm": norm,
            "freeze_stages": freeze_stages,
            "anchor_scales": anchor_scales,
            "anchor_ratios": anchor_ratios,
            "rpn": asdict(rpn),
            "roi": asdict(roi),
            "shorter_side": shorter_side,
            "longest_side": longest_side,
        },
    )


def of_a_part(metadata: WeightsMetadata, part: Part) -> WeightsMetadata:
    """The metadata of a detector of which only a part is trained: no whole one is made of its file."""
    return replace(metadata, detector=metadata.detector | {"part": part})


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
        raise CheckpointError(
            f"{path}: holds a {metadata.task} network, not a detector: name a run of train_detector.py"
        )
    if "part" in metadata.detector:
        raise CheckpointError(f"{path}: a step of alternating training, not a whole detector: name the run it is of")
    try:
        arguments = detector_arguments(metadata)
        with torch.device("meta"):  # takes no memory, whatever the file asks for
            fitting = get_detector(**arguments)
        for side in ("shorter_side", "longest_side"):
            if not is_side(metadata.detector[side]):
                raise ConfigError(f"{side} {metadata.detector[side]}")
    # RuntimeError: tensors of sizes that can't be.
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise CheckpointError(f"{path}: its metadata describe a detector that can't be built ({reason})") from error
    load_state(fitting, state, str(path), assign=True)
    detector = get_detector(**arguments)
    load_state(detector, state, str(path))
    return detector.eval(), metadata


def load_detectors(paths: Sequence[str]) -> list[tuple[FasterRCNN, WeightsMetadata]]:
    """Several detectors that are to look at the same pictures.

    Raises:
        CheckpointError: there is none, or one can't be used, or two know different classes.
    """
    if not paths:
        raise CheckpointError("--model: name one or more detectors")
    models = [load_detector(path) for path in paths]
    first = models[0][1].classes
    for path, (_, metadata) in zip(paths[1:], models[1:], strict=True):
        if metadata.classes != first:
            raise CheckpointError(f"{path}: does not go with {paths[0]}: {_difference(metadata.classes, first)}")
    return models


def _difference(classes: Sequence[str], others: Sequence[str]) -> str:
    """How a list of classes differs from another."""
    if sorted(classes) == sorted(others):
        return "their classes are the same in another order"
    if set(classes) == set(others):
        return "one of them has a class twice"
    known = [name for name in classes if name not in set(others)], [name for name in others if name not in set(classes)]
    texts = [
        f"{label} knows {printable(', '.join(names[:3]))}" + (" ..." if len(names) > 3 else "")
        for label, names in zip(("only it", "only the other"), known, strict=True)
        if names
    ]
    return f"their classes differ ({'; '.join(texts)})"


def _mean_of(channel: list[list[float]]) -> float:
    values = [value for row in channel for value in row]
    return sum(values) / len(values)
