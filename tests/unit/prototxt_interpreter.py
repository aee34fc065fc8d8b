"""Runs a network that a Caffe prototxt describes: slow, in float64, written from Caffe's documentation alone.

https://caffe.berkeleyvision.org/tutorial/layers.html; pooling windows are rounded and clipped as Caffe does it.
"""

import math
import re
from typing import Any

import numpy as np

Message = list[tuple[str, Any]]
Blobs = dict[str, list[np.ndarray]]

# Types of layers in prototxts of the older generation.
OLD_TYPES = {
    "CONVOLUTION": "Convolution",
    "RELU": "ReLU",
    "POOLING": "Pooling",
    "INNER_PRODUCT": "InnerProduct",
    "DROPOUT": "Dropout",
    "SOFTMAX": "Softmax",
}


def parse(text: str) -> Message:
    """A prototxt as a list of (key, text or message)."""
    tokens = re.findall(r'"[^"]*"|[{}:]|[^\s{}:"]+', re.sub(r"#.*", "", text))
    position = 0

    def message() -> Message:
        nonlocal position
        fields: Message = []
        while position < len(tokens) and tokens[position] != "}":
            key = tokens[position]
            position += 1
            if tokens[position] == ":":
                position += 1
            if tokens[position] == "{":
                position += 1
                value: Any = message()
            else:
                value = tokens[position].strip('"')
            position += 1
            fields.append((key, value))
        return fields

    return message()


def get(message: Message, key: str, default: Any = None) -> Any:
    """The first value of a key."""
    return next((value for name, value in message if name == key), default)


def get_all(message: Message, key: str) -> list[Any]:
    """All values of a key."""
    return [value for name, value in message if name == key]


def run(text: str, blobs: Blobs, picture: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a network.

    Args:
        text: the prototxt.
        blobs: by layer.
        picture: the input `data`, (C, H, W).

    Returns:
        What each name of a top holds in the end.
    """
    values = {"data": np.asarray(picture, np.float64)}
    for key, layer in parse(text):
        if key in ("layer", "layers"):
            name, kind = get(layer, "name"), get(layer, "type")
            bottoms = [values[bottom] for bottom in get_all(layer, "bottom")]
            own = [np.asarray(blob, np.float64) for blob in blobs.get(name, [])]
            (values[get(layer, "top")],) = [LAYERS[OLD_TYPES.get(kind, kind)](layer, own, *bottoms)]
    return values


def number(layer: Message, parameter: str, key: str, default: int) -> int:
    return int(get(get(layer, parameter, []), key, default))


def convolution(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    kernel = number(layer, "convolution_param", "kernel_size", 0)
    stride = number(layer, "convolution_param", "stride", 1)
    pad = number(layer, "convolution_param", "pad", 0)
    outputs = number(layer, "convolution_param", "num_output", 0)
    has_bias = get(get(layer, "convolution_param"), "bias_term", "true") == "true"
    assert len(blobs) == 1 + has_bias
    weight = blobs[0].reshape(outputs, len(x), kernel, kernel)
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    height, width = ((side - kernel) // stride + 1 for side in x.shape[1:])
    out = np.zeros((outputs, height, width))
    for i in range(kernel):
        for j in range(kernel):
            seen = x[:, i : i + stride * height : stride, j : j + stride * width : stride][:, :height, :width]
            out += np.einsum("oc,chw->ohw", weight[:, :, i, j], seen)
    return out + blobs[1].reshape(-1, 1, 1) if has_bias else out


def batch_norm(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    assert get(get(layer, "batch_norm_param"), "use_global_stats") == "true"
    mean, variance, divisor = blobs
    mean, variance = ((total / divisor.item()).reshape(-1, 1, 1) for total in (mean, variance))
    return (x - mean) / np.sqrt(variance + 1e-5)


def scale(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    assert get(get(layer, "scale_param"), "bias_term") == "true"
    factor, shift = (blob.reshape(-1, 1, 1) for blob in blobs)
    return x * factor + shift


def pooling(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    kernel = number(layer, "pooling_param", "kernel_size", 0)
    stride = number(layer, "pooling_param", "stride", 1)
    assert number(layer, "pooling_param", "pad", 0) == 0
    reduce = {"MAX": np.max, "AVE": np.mean}[get(get(layer, "pooling_param"), "pool")]
    height, width = (math.ceil((side - kernel) / stride) + 1 for side in x.shape[1:])
    out = np.empty((len(x), height, width))
    for i in range(height):
        for j in range(width):
            top, left = i * stride, j * stride
            out[:, i, j] = reduce(x[:, top : top + kernel, left : left + kernel], axis=(1, 2))
    return out


def inner_product(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    outputs = number(layer, "inner_product_param", "num_output", 0)
    return blobs[0].reshape(outputs, x.size) @ x.reshape(-1) + blobs[1].reshape(-1)


def eltwise(layer: Message, blobs: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


def relu(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def dropout(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    return x


def softmax(layer: Message, blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    exponential = np.exp(x - x.max())
    return exponential / exponential.sum()


LAYERS = {
    "Convolution": convolution,
    "BatchNorm": batch_norm,
    "Scale": scale,
    "ReLU": relu,
    "Eltwise": eltwise,
    "Pooling": pooling,
    "InnerProduct": inner_product,
    "Dropout": dropout,
    "Softmax": softmax,
}
