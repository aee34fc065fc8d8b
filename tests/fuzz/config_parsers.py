"""Parsers of configurations, as functions of one file's bytes."""

from dataclasses import asdict
from pathlib import Path

import torch

from backbones.cli import run_command
from backbones.config import PretrainConfig, check_data, check_optimizer, check_options
from backbones.data.transforms import NamedTransforms
from backbones.engine.loop import portion_size
from backbones.engine.schedule import check_schedule
from backbones.fidelity import recipe_defaults, resolve
from backbones.inputs import augmentation
from backbones.models import get_model
from backbones.train import check_test
from detection.config import DetectorConfig, detector_options
from detection.config import check_data as check_detection_data
from detection.models import get_detector

from .parsers import Parser, in_file


def _check_pretrain(config: PretrainConfig) -> None:
    """All that `pretrain` looks at before it reads data, and what it builds of them."""
    config = resolve(config)
    portion_size(config.train, 1)
    check_schedule(config.schedule)
    check_optimizer(config.optimizer)
    check_data(config.data)
    check_test(config)
    check_options(config.model.options, "model.options")
    with torch.device("meta"):
        get_model(config.model.name, 2, **config.model.options)
    augmentation(config.data)
    NamedTransforms(config.data.transforms, config.data.input_size)
    asdict(config)


def _check_detector(config: DetectorConfig) -> None:
    portion_size(config.train, 1)
    check_schedule(config.schedule)
    check_optimizer(config.optimizer)
    check_detection_data(config.data)
    check_options(config.backbone.options, "backbone.options")
    with torch.device("meta"):
        get_detector(
            config.backbone.name or "resnet18",
            2,
            backbone_options=config.backbone.options,
            **detector_options(config),
        )
    asdict(config)


def pretrain_config(folder: Path) -> Parser:
    def read(path: Path) -> None:
        run_command(PretrainConfig, _check_pretrain, defaults=recipe_defaults, argv=["--config", str(path)])

    return in_file(folder, "fuzzed.yaml", read)


def detector_config(folder: Path) -> Parser:
    return in_file(
        folder, "fuzzed.yaml", lambda path: run_command(DetectorConfig, _check_detector, argv=["--config", str(path)])
    )
