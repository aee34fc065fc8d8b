"""What is asked of a run: the options and the resolved configuration of its training command."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backbones.engine.run_record import flatten
from backbones.errors import ConfigError
from backbones.reproduce.paper import DataSet, Experiment
from backbones.reproduce.trainers import TRAINERS

Scale = float | Literal["smoke"]
SMOKE_STEPS = 20
_COUNTED_IN_STEPS = (
    "train.steps",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.log_every",
    "schedule.milestones",
    "schedule.warmup_steps",
    "schedule.warmup_window",
    "schedule.plateau_window",
)
_OURS = ("output", "resume", "overwrite", "allow_mismatch", "seed", "data.root")


@dataclass(frozen=True)
class Request:
    """A training as it should be.

    Args:
        module: the training command.
        arguments: of it, but for those that differ from run to run (output, seed) or machine to machine (data folder).
        config: the resolved configuration, by dotted key.
        defaults: that of a command without arguments: what is not in the record of an older run had this value.
        steps: optimizer steps.
        share: of the steps of the whole schedule.
    """

    module: str
    arguments: list[str]
    config: dict[str, Any]
    defaults: dict[str, Any]
    steps: int
    share: float


def request(
    experiment: Experiment, configs: Path, data: DataSet, *, scale: Scale, options: Mapping[str, Any]
) -> Request:
    """What is asked of the runs of an experiment, whatever their seed.

    Args:
        experiment: the network and its training.
        configs: the folder of config files.
        data: the data set to train on.
        scale: shortens the schedule to this share; "smoke" to some steps that only show that it runs.
        options: further ones of the training command by dotted key; they count as they are.

    Raises:
        ConfigError: options that the command does not take, or a scale that makes no sense.
    """
    trainer = TRAINERS[experiment.trainer]
    for key in options:
        if key in _OURS:
            raise ConfigError(f"set.{key}: is chosen by this command itself; leave it out")
    path = configs / experiment.config
    arguments = ["--config", str(path), *_as_arguments(data.options | experiment.options)]
    full = _flat(trainer.read(arguments))
    if scale != 1:
        arguments += _as_arguments(scaled(full, scale))
    arguments += _as_arguments(options)
    try:
        config = _flat(trainer.read(arguments))
    except ConfigError as error:
        raise ConfigError(f"set {dict(options)}: {error}") from error
    defaults = _flat(trainer.read([]))
    steps = config["train.steps"]
    return Request(trainer.module, arguments, config, defaults, steps, steps / full["train.steps"])


def scaled(config: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """What a configuration counts in steps, in a schedule of `scale` times its length: at least 1, but 0 stays 0.

    Raises:
        ConfigError: the scale is not in (0, 1].
    """
    if scale != "smoke" and not 0 < scale <= 1:
        raise ConfigError(f"scale {scale}: give a share above 0 and up to 1, or smoke")
    factor = min(1.0, SMOKE_STEPS / config["train.steps"]) if scale == "smoke" else scale

    def steps(count: int) -> int:
        return max(1, round(count * factor)) if count > 0 else count

    shorter: dict[str, Any] = {}
    for key in _COUNTED_IN_STEPS:
        value = config.get(key)
        if key == "schedule.warmup_window" and config.get("schedule.warmup") != "error":
            continue  # nothing looks at it
        if isinstance(value, list):
            shorter[key] = sorted({steps(count) for count in value})
        elif value is not None:
            shorter[key] = steps(value)
    if scale == "smoke":  # a test takes as long as many steps
        count = shorter["train.steps"]
        shorter |= {"train.evaluate_every": count // 2, "train.checkpoint_every": max(1, count // 4)}
    return shorter


def _flat(config: Any) -> dict[str, Any]:
    """A configuration by dotted key, with the values that its record has."""
    return flatten(json.loads(json.dumps(asdict(config))))


def _as_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options by dotted key as a command takes them."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    return [part for key, text in texts.items() for part in (f"--{key}", text)]
