"""Caffe's binary files, read without Caffe: the layers of a `.caffemodel` and the picture of a `.binaryproto`.

Field numbers are those of Caffe's `caffe.proto`. A network's layers are messages of one of two generations: `layer`
(MSRA's ResNets) or the older `layers` (Oxford's VGGs); a blob's shape is a list of dimensions, or in older files
four numbers (num, channels, height, width).
"""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.errors import CheckpointError
from backbones.importing.protobuf import MessageError, read_fields, read_varint

# Of a network's message: the field of its layers to the fields of a layer's name and blobs.
_LAYER_FIELDS = {100: (1, 7), 2: (4, 6)}
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_LEGACY_SHAPE = (1, 2, 3, 4)
_MOST_BLOBS = 16  # of a layer; networks of this project have 3
_MOST_DIMENSIONS = 32  # as in Caffe
_ANOTHER = "its weights are of another architecture"


@dataclass(frozen=True)
class CaffeNetwork:
    """The layers with weights of a `.caffemodel`.

    Args:
        path: of the file.
        layers: blobs by the layer's name: arrays of float32 or float64 that are views of the file.
    """

    path: Path
    layers: dict[str, list[np.ndarray]]

    def blobs(self, layer: str, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Copies of a layer's blobs, which must have these shapes; in old files 1s may stand before them.

        Raises:
            CheckpointError: no such layer, another number of blobs, another shape, or values that are not finite.
        """
        blobs = self._layer(layer)
        if len(blobs) != len(shapes):
            raise CheckpointError(
                f"{self.path}: layer {layer} has {len(blobs)} blobs, expected {len(shapes)}: {_ANOTHER}"
            )
        for i, (blob, shape) in enumerate(zip(blobs, shapes, strict=True)):
            if blob.shape[: -len(shape)].count(1) != blob.ndim - len(shape) or blob.shape[-len(shape) :] != shape:
                raise CheckpointError(
                    f"{self.path}: layer {layer}: blob {i} has shape {blob.shape}, expected {shape}: {_ANOTHER}"
                )
            if not np.isfinite(blob).all():
                raise CheckpointError(
                    f"{self.path}: layer {layer} holds values that are not finite numbers: get it again"
                )
        return [torch.from_numpy(np.array(blob)).reshape(shape) for blob, shape in zip(blobs, shapes, strict=True)]

    def outputs(self, layer: str, dimensions: int) -> int:
        """How many outputs a convolution (4 dimensions) or inner product (2) has, by its weights' shape."""
        blobs = self._layer(layer)
        if not blobs or blobs[0].ndim < dimensions or not blobs[0].size:
            raise CheckpointError(f"{self.path}: layer {layer} has no weights of {dimensions} dimensions")
        return blobs[0].shape[-dimensions]

    def _layer(self, layer: str) -> list[np.ndarray]:
        if layer not in self.layers:
            raise CheckpointError(f"{self.path}: lacks layer {layer}: it is of another architecture")
        return self.layers[layer]


def read_network(path: Path) -> CaffeNetwork:
    """Reads a `.caffemodel`; its weights stay in the file until they are asked for.

    Raises:
        CheckpointError: the file can't be read, is no network, or holds a layer's weights twice.
    """
    layers: dict[str, list[np.ndarray]] = {}
    try:
        for field in read_fields(_map(path)):
            if field.number in _LAYER_FIELDS:
                name, blobs = _parse_layer(field.bytes(), *_LAYER_FIELDS[field.number])
                if name in layers and blobs:
                    raise MessageError(f"layer {name!r} comes twice")
                if blobs:
                    layers[name] = blobs
    except MessageError as error:
        raise CheckpointError(f"{path}: not a .caffemodel, or a damaged one ({error}): get it again") from error
    if not layers:
        raise CheckpointError(f"{path}: holds no layers with weights; is it a .caffemodel?")
    return CaffeNetwork(path, layers)


def read_mean(path: Path) -> np.ndarray:
    """Reads a `.binaryproto`: a mean picture (3, H, W), BGR in 0..255.

    Raises:
        CheckpointError: the file can't be read, or is no such picture.
    """
    try:
        picture = _parse_blob(_map(path))
    except MessageError as error:
        raise CheckpointError(f"{path}: not a .binaryproto, or a damaged one ({error}): get it again") from error
    if picture.ndim == 4 and len(picture) == 1:
        picture = picture[0]
    if picture.ndim != 3 or len(picture) != 3 or not picture.size or not np.isfinite(picture).all():
        raise CheckpointError(f"{path}: holds an array {picture.shape}, not a picture of three channels")
    return picture


def _map(path: Path) -> memoryview:
    """A file's bytes, brought into memory as they are looked at: VGG's are 550 MB."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise CheckpointError(f"{path}: can't be read ({error})") from error


def _parse_layer(message: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    name = ""
    blobs: list[np.ndarray] = []
    try:
        for field in read_fields(message):
            if field.number == name_field:
                name = field.text()
            elif field.number == blobs_field:
                if len(blobs) == _MOST_BLOBS:
                    raise MessageError(f"more than {_MOST_BLOBS} blobs")
                blobs.append(_parse_blob(field.bytes()))
    except MessageError as error:
        raise MessageError(f"layer {name!r}: {error}") from error
    return name, blobs


def _parse_blob(message: memoryview) -> np.ndarray:
    shape: tuple[int, ...] | None = None
    legacy: dict[int, int] = {}
    parts: dict[int, list[np.ndarray]] = {_DATA: [], _DOUBLE_DATA: []}
    for field in read_fields(message):
        if field.number == _SHAPE:
            shape = _parse_shape(field.bytes())
        elif field.number in _LEGACY_SHAPE:
            legacy[field.number] = field.integer()
        elif field.number in parts:
            kind = "<f4" if field.number == _DATA else "<f8"
            values = field.bytes()
            if len(values) % np.dtype(kind).itemsize:
                raise MessageError(f"a blob's data end in the middle of a number ({len(values)} bytes)")
            parts[field.number].append(np.frombuffer(values, kind))
    arrays = parts[_DOUBLE_DATA] or parts[_DATA] or [np.empty(0, np.float32)]
    data = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if shape is None:
        shape = tuple(legacy.get(number, 0) for number in _LEGACY_SHAPE)
    if math.prod(shape) != data.size or max(shape, default=0) > data.size:
        raise MessageError(f"a blob of shape {shape} has {data.size} values")
    return data.reshape(shape)


def _parse_shape(message: memoryview) -> tuple[int, ...]:
    """The dimensions of a `BlobShape`, packed or not."""
    dimensions: list[int] = []
    for field in read_fields(message):
        if field.number != 1:
            continue
        if isinstance(field.value, int):
            dimensions.append(field.value)
        else:
            position = 0
            while position < len(field.value) and len(dimensions) <= _MOST_DIMENSIONS:
                dimension, position = read_varint(field.value, position)
                dimensions.append(dimension)
        if len(dimensions) > _MOST_DIMENSIONS:
            raise MessageError(f"a blob of more than {_MOST_DIMENSIONS} dimensions")
    return tuple(dimensions)
