"""Caffe's ImageNet classifiers as networks of ours: which layers belong to which, and how they see pictures."""

from pathlib import Path

import numpy as np

from backbones.errors import CheckpointError
from backbones.importing import caffe_resnet, caffe_vgg
from backbones.importing.caffe import CaffeNetwork, read_mean, read_network
from backbones.importing.network import (
    ImportedNetwork,
    Preprocessing,
    check_architecture,
    empty_network,
    width_option,
)
from backbones.models.resnet import BOTTLENECK_DEPTHS
from backbones.models.vgg import CONVOLUTIONS
from backbones.weights import load_state

ARCHITECTURES = {f"resnet{depth}": (caffe_resnet, depth) for depth in BOTTLENECK_DEPTHS} | {
    f"vgg{depth}": (caffe_vgg, depth) for depth in CONVOLUTIONS
}
VGG_MEAN = [103.939, 116.779, 123.68]  # B, G, R, of ImageNet: published with Oxford's networks
_INPUT_SIZE, _TEST_RESIZE = 224, 256


def import_caffe(path: Path, architecture: str, mean: Path | None) -> ImportedNetwork:
    """Reads MSRA's or Oxford's network from a `.caffemodel`.

    Args:
        path: of the file; layers may be narrower than the released ones.
        architecture: one of `ARCHITECTURES`.
        mean: a `.binaryproto` with the mean picture; by default VGG's mean colour.

    Raises:
        CheckpointError: a file can't be read or does not fit; names the layer.
        ConfigError: no such architecture.
    """
    check_architecture("caffe", architecture, list(ARCHITECTURES))
    module, depth = ARCHITECTURES[architecture]
    source = read_network(path)
    _check_layers(source, architecture)
    num_classes = source.outputs(module.LAST, 2)
    options = dict(module.OPTIONS) | width_option(source.outputs(module.FIRST, 4), 64)
    network = empty_network(path, architecture, num_classes, options)
    state = module.convert(source, network, depth)
    load_state(network, state, str(path), assign=True)
    picture = VGG_MEAN if mean is None else _mean_picture(mean)
    preprocessing = Preprocessing(picture, [1.0, 1.0, 1.0], "BGR", _INPUT_SIZE, _TEST_RESIZE)
    return ImportedNetwork(state, num_classes, options, preprocessing)


def _check_layers(source: CaffeNetwork, architecture: str) -> None:
    """Refuses a network of other layers, and says which architecture has them."""
    fitting = [
        name for name, (module, depth) in ARCHITECTURES.items() if set(module.layer_names(depth)) == set(source.layers)
    ]
    if architecture in fitting:
        return
    module, depth = ARCHITECTURES[architecture]
    expected = module.layer_names(depth)
    missing = [name for name in expected if name not in source.layers]
    unknown = [name for name in source.layers if name not in expected]
    problem = f"lacks layer {missing[0]}" if missing else f"holds layer {unknown[0]!r}, which {architecture} has not"
    hint = f"; its layers are those of --arch {fitting[0]}" if fitting else ""
    raise CheckpointError(f"{source.path}: {problem}: it is no {architecture}{hint}")


def _mean_picture(path: Path) -> list:
    """The mean picture of a file as lists [channel][row][column]."""
    picture = read_mean(path)
    size = (3, _INPUT_SIZE, _INPUT_SIZE)
    if picture.shape != size:
        raise CheckpointError(f"{path}: a mean picture of shape {picture.shape}, expected {size}")
    # As short as float32 is: a mean of 104.00699 and not 104.00698852539062 in the metadata.
    return [[[float(str(value)) for value in row] for row in channel] for channel in picture.astype(np.float32)]
