"""Networks by name, from names and options that may come from a config file."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from backbones.errors import ConfigError
from backbones.models.blocks import NormLayer
from backbones.models.cifar import CifarResNet
from backbones.models.resnet import BASIC_DEPTHS, BOTTLENECK_DEPTHS, ResNet
from backbones.models.stages import StagedNetwork
from backbones.models.vgg import CONVOLUTIONS, VGG


@dataclass(frozen=True)
class _Option:
    """Which values an option may have, and that in words."""

    accepts: Callable[[Any], bool]
    values: str


@dataclass(frozen=True)
class _Architecture:
    """How to build a network, and its options."""

    build: Callable[..., StagedNetwork]
    options: dict[str, _Option]


# The upper bound keeps a hostile weights file from asking for more memory than there is.
_WIDTH = {"width": _Option(lambda v: _is_number(v, int) and 1 <= v <= 256, "an integer from 1 to 256")}
_SHORTCUT = {"shortcut": _Option(lambda v: v in ("A", "B", "C"), "one of A, B, C")}
_STRIDE_IN = {"stride_in": _Option(lambda v: v in ("1x1", "3x3"), "one of 1x1, 3x3")}
_POOL = {"pool": _Option(lambda v: v in ("torch", "caffe"), "one of torch, caffe")}
_DROPOUT = {"dropout": _Option(lambda v: _is_number(v, int, float) and 0 <= v < 1, "a number from 0 to below 1")}
_ZERO_INIT = {"zero_init_residual": _Option(lambda v: isinstance(v, bool), "true or false")}
_RESIDUAL = _SHORTCUT | _ZERO_INIT | _WIDTH
_CIFAR_PLAIN = _DROPOUT | {"norm": _Option(lambda v: v in ("batch", "none"), "one of batch, none")} | _WIDTH
_CIFAR_RESIDUAL = (
    _RESIDUAL | {"block_layers": _Option(lambda v: _is_number(v, int) and 1 <= v <= 3, "one of 1, 2, 3")} | _CIFAR_PLAIN
)
_RESNET = _RESIDUAL | _POOL
_VGG = _DROPOUT | _POOL | _WIDTH
_IMAGENET = {
    **{f"resnet{d}": _Architecture(partial(ResNet, d), _RESNET) for d in BASIC_DEPTHS},
    **{f"resnet{d}": _Architecture(partial(ResNet, d), _RESNET | _STRIDE_IN) for d in BOTTLENECK_DEPTHS},
    **{f"plain{d}": _Architecture(partial(ResNet, d, shortcut=None), _POOL | _WIDTH) for d in BASIC_DEPTHS},
    **{f"vgg{d}": _Architecture(partial(VGG, d), _VGG) for d in CONVOLUTIONS},
    **{f"vgg{d}_bn": _Architecture(partial(VGG, d, batch_norm=True), _VGG) for d in CONVOLUTIONS},
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
            default "B", CIFAR "A") and `zero_init_residual` (blocks start as their shortcuts; off); those of 50 layers
            and more have `stride_in` "1x1" (the paper's) or "3x3" ("v1.5"); VGGs have `dropout` (after fc6 and fc7;
            0.5); all but CIFAR's have `pool` "torch" (max pools as torchvision's) or "caffe" (as in the released
            models, see `ResNet` and `VGG`). CIFAR's have `norm` "batch" or "none" (a bias for each channel instead,
            without `norm_layer`) and `dropout` (inside blocks; 0), its residual ones `block_layers` (of a residual
            function: 1, 2 or 3, see `CifarResNet`).

    Returns:
        The network, in training mode: (B, 3, H, W) float pictures to (B, num_classes) logits.

    Raises:
        ConfigError: no such network, option or value, or options that do not go together.
    """
    architecture = _architecture(name)
    for option, value in options.items():
        _check_option(name, option, value, architecture.options)
    if num_classes is not None:
        if not _is_number(num_classes, int) or num_classes < 0:
            raise ConfigError(f"num_classes must be an integer of 0 or more, not {num_classes!r}")
        options["num_classes"] = num_classes
    if not callable(norm_layer):
        raise ConfigError(f"norm_layer must be a function that makes a layer, not {norm_layer!r}")
    return architecture.build(norm_layer=norm_layer, **options)


def list_models() -> list[str]:
    """The names of the paper's networks."""
    return [*_IMAGENET, *_CIFAR]


def model_options(name: str) -> list[str]:
    """The names of the options that a network has. Raises ConfigError: no such network."""
    return list(_architecture(name).options)


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
                return _Architecture(partial(CifarResNet, depth, shortcut=None), _CIFAR_PLAIN)
            return _Architecture(partial(CifarResNet, depth), _CIFAR_RESIDUAL)
    raise ConfigError(f"no model {name!r}: choose from {', '.join(list_models())}, or another CIFAR depth of 6n+2")


def _check_option(name: str, option: str, value: object, options: dict[str, _Option]) -> None:
    if option not in options:
        raise ConfigError(f"{name} has no option {option!r}: it has {', '.join(options)}")
    if not options[option].accepts(value):
        raise ConfigError(f"{option} of {name} must be {options[option].values}, not {value!r}")


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
