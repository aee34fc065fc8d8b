"""The training commands that experiments can name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backbones.cli import read_options
from backbones.config import PretrainConfig
from backbones.fidelity import recipe_defaults, resolve


@dataclass(frozen=True)
class Trainer:
    """A command that trains into a run folder.

    Args:
        module: what `python -m` runs.
        read: from its arguments, the resolved configuration (a dataclass) that it would record; raises UserError.
    """

    module: str
    read: Callable[[Sequence[str]], Any]


def _read_pretrain(arguments: Sequence[str]) -> PretrainConfig:
    return resolve(read_options(PretrainConfig, defaults=recipe_defaults, argv=arguments))


TRAINERS = {"pretrain": Trainer("backbones.train", _read_pretrain)}
