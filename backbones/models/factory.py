"""Networks by name, from names and options that may come from a config file."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeGuard

from torch import nn

from backbones.errors import ConfigError
from backbones.models.blocks import NormLayer
from backbones.models.cifar import CifarResNet
from backbones.models.resnet import BASIC_DEPTHS, BOTTLENECK_DEPTHS, ResNet
from backbones.models.stages import StagedNetwork
from backbones.models.vgg import CONVOLUTIONS, VGG


@dataclass(frozen=True)
class _Architecture:
    """How to build a network, and the values of its options other than `width`, which all have."""

    build: Callable[..., StagedNetwork]
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)


_SHORTCUT: dict[str, tuple[str, ...]] = {"shortcut": ("A", "B", "C")}
_STRIDE_IN: dict[str, tuple[str, ...]] = {"stride_in": ("1x1", "3x3")}
_IMAGENET = {
    **{f"resnet{d}": _Architecture(partial(ResNet, d), _SHORTCUT) for d in BASIC_DEPTHS},
    **{f"resnet{d}": _Architecture(partial(ResNet, d), _SHORTCUT | _STRIDE_IN) for d in BOTTLENECK_DEPTHS},
    **{f"plain{d}": _Architecture(partial(ResNet, d, shortcut=None)) for d in BASIC_DEPTHS},
    **{f"vgg{d}": _Architecture(partial(VGG, d)) for d in CONVOLUTIONS},
    **{f"vgg{d}_bn": _Architecture(partial(VGG, d, batch_norm=True)) for d in CONVOLUTIONS},
}
_CIFAR = [f"cifar_resnet{d}" for d in (20, 32, 44, 56, 110, 1202)] + [f"cifar_plain{d}" for d in (20, 32, 44, 56, 110)]


def get_model(
    name: str, num_classes: int | None = None, *, norm_layer: NormLayer = nn.BatchNorm2d, **options: object
) -> StagedNetwork:
    """Builds a network of the paper with new weights (He et al. 2015).

    Args:
        name: one of `list_models()`, or `cifar_resnet<6n+2>` or `cifar_plain<6n+2>` for any other n.
        num_classes: length of the output; 0 for no last layer (the output is then the features); by default that of
            the paper's data set: 1000 for ImageNet, 10 for CIFAR-10.
        norm_layer: makes every batch normalisation from its number of channels.
        options: `width` (channels of conv1; 64, CIFAR 16); residual networks have `shortcut` "A", "B" or "C" (3.3;
            default "B", CIFAR "A"); those of 50 layers and more have `stride_in` "1x1" (the paper's) or "3x3" ("v1.5").

    Returns:
        The network, in training mode: (B, 3, H, W) float pictures to (B, num_classes) logits.

    Raises:
        ConfigError: no such network, option or value.
    """
    architecture = _architecture(name)
    for option, value in options.items():
        _check_option(name, option, value, architecture.choices)
    if num_classes is not None:
        if not _is_integer(num_classes) or num_classes < 0:
            raise ConfigError(f"num_classes must be an integer of 0 or more, not {num_classes!r}")
        options["num_classes"] = num_classes
    if not callable(norm_layer):
        raise ConfigError(f"norm_layer must be a function that makes a layer, not {norm_layer!r}")
    return architecture.build(norm_layer=norm_layer, **options)


def list_models() -> list[str]:
    """The names of the paper's networks."""
    return [*_IMAGENET, *_CIFAR]


def _architecture(name: str) -> _Architecture:
    if isinstance(name, str):
        if name in _IMAGENET:
            return _IMAGENET[name]
        cifar = re.fullmatch(r"cifar_(resnet|plain)([1-9][0-9]{0,3})", name)
        if cifar:
            depth = int(cifar[2])
            if depth < 8 or depth % 6 != 2:
                raise ConfigError(f"no model {name!r}: CIFAR networks have 6n+2 layers (8, 14, 20, ...), not {depth}")
            if cifar[1] == "plain":
                return _Architecture(partial(CifarResNet, depth, shortcut=None))
            return _Architecture(partial(CifarResNet, depth), _SHORTCUT)
    raise ConfigError(f"no model {name!r}: choose from {', '.join(list_models())}, or another CIFAR depth of 6n+2")


def _check_option(name: str, option: str, value: object, choices: dict[str, tuple[str, ...]]) -> None:
    if option == "width":
        if not _is_integer(value) or value < 1:
            raise ConfigError(f"width of {name} must be an integer of 1 or more, not {value!r}")
    elif option not in choices:
        raise ConfigError(f"{name} has no option {option!r}: it has {', '.join([*choices, 'width'])}")
    elif value not in choices[option]:
        raise ConfigError(f"{option} of {name} must be one of {', '.join(choices[option])}, not {value!r}")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
