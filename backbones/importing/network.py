"""What every importer gives: a network of ours with weights from elsewhere, and how its pictures are prepared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from backbones.errors import CheckpointError, ConfigError
from backbones.models import StagedNetwork, get_model


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become a network's input; see `WeightsMetadata`."""

    mean: list
    std: list[float]
    color_order: Literal["RGB", "BGR"]
    input_size: int
    test_resize: int | None


@dataclass(frozen=True)
class ImportedNetwork:
    """A network from elsewhere.

    Args:
        state: its weights under our names, in float32, checked to fit.
        num_classes: of its last layer.
        options: of `get_model`.
        preprocessing: that it was trained with.
    """

    state: dict[str, Tensor]
    num_classes: int
    options: dict[str, Any]
    preprocessing: Preprocessing


def check_architecture(source: str, architecture: str, known: list[str]) -> None:
    """Refuses an architecture that an importer does not know.

    Raises:
        ConfigError: names those it knows.
    """
    if architecture not in known:
        raise ConfigError(f"--arch {architecture}: {source} has {', '.join(known)}")


def empty_network(path: Path, architecture: str, num_classes: int, options: dict[str, Any]) -> StagedNetwork:
    """The network that weights of a file are for, without memory for its own.

    Raises:
        CheckpointError: names the file; there is no such network.
    """
    try:
        with torch.device("meta"):
            return get_model(architecture, num_classes, **options)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def width_option(width: int, usual: int) -> dict[str, int]:
    """The option `width` of `get_model`, where a network is not as wide as usual."""
    return {} if width == usual else {"width": width}
