"""Recipes: the paper's for each family of networks, a modern one, and how far a configuration is from the paper's.

A recipe is a flat dictionary of the dotted keys of `PretrainConfig`. Named by `fidelity`, it gives the defaults; every
run prints where it departs from the paper's, whether it names one or not.
"""

import re
from dataclasses import asdict, replace
from typing import Any

from backbones.config import PretrainConfig
from backbones.engine.run_record import flatten
from backbones.errors import ConfigError
from backbones.models import model_options

_PAPER_IMAGENET: dict[str, Any] = {  # Section 3.4
    "model.freeze_stages": [],
    "data.input_size": 224,
    "data.test_resize": 256,
    "data.augmentation": "scale_crop_flip",
    "data.scale_range": [256, 480],
    "data.color": "pca",
    "data.transforms": [],
    "data.mean": "pixel",
    "data.std": [1.0, 1.0, 1.0],
    "train.steps": 600_000,
    "train.batch_size": 256,
    "train.clip_grad_norm": 0.0,
    "train.ema_decay": 0.0,
    "optimizer.lr": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "schedule.name": "plateau",
    "schedule.factor": 0.1,
    "schedule.warmup": "linear",
    "schedule.warmup_steps": 0,
    "label_smoothing": 0.0,
    "exact_bn": True,
    "weights": None,
    "sync_bn": False,
    "precision": "fp32",
}
_PAPER_VGG = _PAPER_IMAGENET | {  # Simonyan and Zisserman, 3.1
    "data.scale_range": [256, 512],
    "train.steps": 370_000,
    "optimizer.lr": 0.01,
    "optimizer.weight_decay": 5e-4,
    "exact_bn": False,
}
_PAPER_CIFAR = _PAPER_IMAGENET | {  # Section 4.2
    "data.name": "cifar10",
    "data.train_split": "train",
    "data.test_split": "test",
    "data.input_size": 32,
    "data.test_resize": None,
    "data.augmentation": "pad_crop_flip",
    "data.padding": 4,
    "data.color": "none",
    "train.steps": 64_000,
    "train.batch_size": 128,
    "schedule.name": "step",
    "schedule.milestones": [32_000, 48_000],
    "exact_bn": False,
}
del _PAPER_CIFAR["data.scale_range"]
_PAPER_CIFAR_DEEP = _PAPER_CIFAR | {  # 4.2, "Exploring Over 1000 layers" included: ResNet-110 and deeper
    "schedule.warmup": "error",
    "schedule.warmup_factor": 0.1,
    "schedule.warmup_error": 80.0,
}
_MODERN: dict[str, Any] = {
    "data.augmentation": "random_resized_crop",
    "data.color": "none",
    "data.mean": None,
    "data.std": None,
    "train.ema_decay": 0.9999,
    "schedule.name": "cosine",
    "schedule.warmup": "linear",
    "label_smoothing": 0.1,
}
_CONVENIENCE: dict[str, Any] = {  # What a recipe sets without it being part of the paper's.
    "train.checkpoint_every": 5000,
    "train.evaluate_every": 25_000,
    "train.log_every": 100,
    "train.workers": 16,
    "protocol": ["center", "10crop", "multiscale"],
}
_PAPER_OPTIONS: dict[str, Any] = {"stride_in": "1x1", "zero_init_residual": False, "dropout": 0.5}
_PAPER_CIFAR_OPTIONS: dict[str, Any] = {"shortcut": "A", "block_layers": 2, "dropout": 0.0, "norm": "batch"}
_MODERN_OPTIONS: dict[str, Any] = {"stride_in": "3x3", "zero_init_residual": True}


def paper_recipe(name: str) -> dict[str, Any]:
    """The paper's recipe for a network: 3.4 for ImageNet's, 4.2 for CIFAR's, VGG's own."""
    if deep := re.fullmatch(r"cifar_resnet(\d+)", name):
        return _PAPER_CIFAR_DEEP if int(deep[1]) >= 110 else _PAPER_CIFAR
    if name.startswith("cifar_"):
        return _PAPER_CIFAR
    return _PAPER_VGG if name.startswith("vgg") else _PAPER_IMAGENET


def recipe_defaults(asked: Any) -> dict[str, Any]:
    """The defaults, by dotted key, that `asked.fidelity` stands for with what else was asked for."""
    fidelity, name, steps = asked.fidelity, asked.model.name, asked.train.steps
    if fidelity is None:
        return {}
    if name.startswith("cifar_"):
        convenience = {"train.checkpoint_every": 4000, "train.evaluate_every": 2000, "train.log_every": 100}
        convenience |= {"data.resident": asked.data.name == "cifar10"}
        modern = {key: value for key, value in _MODERN.items() if not key.startswith("data.")}
    else:
        convenience, modern = _CONVENIENCE, _MODERN
    quarters = sorted({max(1, steps * part // 4) for part in (1, 2, 3)})  # where fixed steps are asked for
    recipe: dict[str, Any] = {"schedule.milestones": quarters}
    recipe |= paper_recipe(name) | convenience
    if fidelity == "modern":
        recipe |= modern | {"schedule.warmup_steps": steps // 20}
    if asked.weights:  # their own count
        recipe |= {"data.mean": None, "data.std": None}
    return recipe


def resolve(config: PretrainConfig) -> PretrainConfig:
    """The configuration that is run and recorded: with the recipe's options of the network, and the batch scaled.

    Raises:
        ConfigError: the batch can't be scaled so.
    """
    if config.fidelity == "modern" and not config.weights:
        known = {key: _MODERN_OPTIONS[key] for key in model_options(config.model.name) if key in _MODERN_OPTIONS}
        config = replace(config, model=replace(config.model, options=known | config.model.options))
    return config if config.scale_batch == 1 else _scale_batch(config, config.scale_batch)


def departures(config: PretrainConfig) -> list[str]:
    """Where a resolved configuration does something else than the paper's recipe for its network."""
    name, options = config.model.name, config.model.options
    found = flatten(asdict(config))
    lines = [
        f"{key}: {_show(found[key])} (paper: {_show(value)})"
        for key, value in paper_recipe(name).items()
        if _plain(found[key]) != _plain(value)
    ]
    if name.endswith("_bn"):
        lines.append(f"model.name: {name} has batch norm (paper: none)")
    wanted = dict(_PAPER_OPTIONS)
    if name.startswith("cifar_"):
        wanted |= _PAPER_CIFAR_OPTIONS
    elif name not in ("resnet18", "resnet34"):  # which the paper trains with all three
        wanted["shortcut"] = "B"
    for key, value in options.items():
        if key in wanted and value != wanted[key]:
            lines.append(f"model.options.{key}: {value} (paper: {wanted[key]})")
        elif key == "width":
            lines.append(f"model.options.width: {value} channels in conv1")
    return lines


def format_departures(config: PretrainConfig) -> str:
    """`departures` as text, to print."""
    lines = departures(config)
    if not lines:
        return "recipe: the paper's"
    return "\n".join([f"recipe: departs from the paper's in {len(lines)}:", *(f"  {line}" for line in lines)])


def _scale_batch(config: PretrainConfig, scale: float) -> PretrainConfig:
    def steps(count: int) -> int:
        return max(1, round(count / scale)) if count > 0 else count

    batch = config.train.batch_size * scale
    if not (0 < scale < float("inf") and batch >= 1 and batch == int(batch)):
        raise ConfigError(
            f"scale_batch {scale}: train.batch_size {config.train.batch_size} can't be scaled by it: "
            "give one that leaves it whole"
        )
    train, schedule = config.train, config.schedule
    milestones = [steps(milestone) for milestone in schedule.milestones]
    if len(set(milestones)) < len(set(schedule.milestones)):
        raise ConfigError(
            f"scale_batch {scale}: schedule.milestones {schedule.milestones} fall together: give a smaller one"
        )
    return replace(
        config,
        scale_batch=1.0,
        train=replace(
            train,
            batch_size=int(batch),
            steps=steps(train.steps),
            checkpoint_every=steps(train.checkpoint_every),
            evaluate_every=steps(train.evaluate_every),
            log_every=steps(train.log_every),
            ema_decay=train.ema_decay**scale,
        ),
        optimizer=replace(config.optimizer, lr=config.optimizer.lr * scale),
        schedule=replace(
            schedule,
            milestones=milestones,
            plateau_window=steps(schedule.plateau_window),
            warmup_steps=steps(schedule.warmup_steps),
            warmup_window=steps(schedule.warmup_window),
        ),
    )


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _show(value: Any) -> str:
    return "none" if value is None or value == [] else str(_plain(value))
