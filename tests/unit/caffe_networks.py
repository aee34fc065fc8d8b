"""Narrow networks as MSRA and Oxford released them, with random weights: a prototxt, its blobs, and the binary file."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

COUNTS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VGG_COUNTS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@dataclass
class CaffeFiles:
    """A prototxt's text and the blobs of its layers, written layer by layer."""

    rng: np.random.Generator
    old: bool = False
    text: str = 'name: "a network"\ninput: "data"\n'
    blobs: dict[str, list[np.ndarray]] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=lambda: {"data": 3})

    def layer(self, name: str, kind: str, bottoms: list[str], top: str, parameters: str = "") -> None:
        quoted = kind if self.old else f'"{kind}"'
        lines = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
        self.text += f'{"layers" if self.old else "layer"} {{{lines} top: "{top}" name: "{name}" type: {quoted}\n'
        self.text += f"  {parameters}\n}}\n"
        self.channels[top] = self.channels[bottoms[0]]

    def convolution(self, name: str, bottom: str, outputs: int, kernel: int, stride: int, pad: int, bias: bool) -> None:
        size = f"num_output: {outputs} kernel_size: {kernel} pad: {pad} stride: {stride}"
        term = "" if bias else " bias_term: false"
        kind = "CONVOLUTION" if self.old else "Convolution"
        self.layer(name, kind, [bottom], name, f"convolution_param {{ {size}{term} }}")
        self._weights(name, (outputs, self.channels[bottom], kernel, kernel), bias)
        self.channels[name] = outputs

    def norm(self, name: str, scale_name: str, top: str) -> None:
        self.layer(name, "BatchNorm", [top], top, "batch_norm_param { use_global_stats: true }")
        self.layer(scale_name, "Scale", [top], top, "scale_param { bias_term: true }")
        n = self.channels[top]
        divisor = 999.98
        mean, variance = self.rng.normal(0, 0.3, n), self.rng.uniform(0.5, 1.5, n)
        self.blobs[name] = [mean * divisor, variance * divisor, np.array([divisor])]
        self.blobs[scale_name] = [self.rng.uniform(0.4, 1, n), self.rng.normal(0, 0.3, n)]

    def relu(self, top: str) -> None:
        self.layer(f"{top}_relu", "RELU" if self.old else "ReLU", [top], top)

    def pool(self, name: str, bottom: str, method: str, kernel: int, stride: int) -> None:
        kind = "POOLING" if self.old else "Pooling"
        parameters = f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} }}"
        self.layer(name, kind, [bottom], name, parameters)

    def inner_product(self, name: str, bottom: str, inputs: int, outputs: int) -> None:
        kind = "INNER_PRODUCT" if self.old else "InnerProduct"
        self.layer(name, kind, [bottom], name, f"inner_product_param {{ num_output: {outputs} }}")
        self._weights(name, (outputs, inputs), True)

    def _weights(self, name: str, shape: tuple[int, ...], bias: bool) -> None:
        fan_in = np.prod(shape[1:])
        self.blobs[name] = [self.rng.normal(0, np.sqrt(2 / fan_in), shape)]
        if bias:
            self.blobs[name].append(self.rng.normal(0, 0.5, shape[0]))


def resnet(depth: int, width: int, classes: int, seed: int = 0) -> CaffeFiles:
    """MSRA's: ResNet-50's conv1 has a bias; blocks are 4a, 4b, ... in 50, 4a, 4b1, ... in conv3 and conv4 of others."""
    net = CaffeFiles(np.random.default_rng(seed))
    net.convolution("conv1", "data", width, 7, 2, 3, bias=depth == 50)
    net.norm("bn_conv1", "scale_conv1", "conv1")
    net.relu("conv1")
    net.pool("pool1", "conv1", "MAX", 3, 2)
    top = "pool1"
    for stage, count in enumerate(COUNTS[depth], start=2):
        letters = list("abcdef") if depth == 50 or stage in (2, 5) else ["a", *(f"b{i}" for i in range(1, count))]
        for block in letters[:count]:
            top = _bottleneck(net, f"{stage}{block}", top, width * 2 ** (stage - 2), block == "a", stage)
    net.pool("pool5", top, "AVE", 7, 1)
    net.inner_product("fc1000", "pool5", 32 * width, classes)
    net.layer("prob", "Softmax", ["fc1000"], "prob")
    return net


def _bottleneck(net: CaffeFiles, name: str, bottom: str, narrow: int, first: bool, stage: int) -> str:
    stride = 2 if first and stage > 2 else 1
    shortcut = bottom
    if first:
        shortcut = f"res{name}_branch1"
        net.convolution(shortcut, bottom, 4 * narrow, 1, stride, 0, bias=False)
        net.norm(f"bn{name}_branch1", f"scale{name}_branch1", shortcut)
    top = bottom
    for part, (outputs, kernel) in {"a": (narrow, 1), "b": (narrow, 3), "c": (4 * narrow, 1)}.items():
        branch = f"{name}_branch2{part}"
        net.convolution(f"res{branch}", top, outputs, kernel, stride if part == "a" else 1, kernel // 2, bias=False)
        top = f"res{branch}"
        net.norm(f"bn{branch}", f"scale{branch}", top)
        if part != "c":
            net.relu(top)
    net.layer(f"res{name}", "Eltwise", [shortcut, top], f"res{name}")
    net.relu(f"res{name}")
    return f"res{name}"


def vgg(depth: int, width: int, classes: int, seed: int = 0) -> CaffeFiles:
    """Oxford's, of the older generation of layers."""
    net = CaffeFiles(np.random.default_rng(seed), old=True)
    top = "data"
    for stage, count in enumerate(VGG_COUNTS[depth], start=1):
        for i in range(1, count + 1):
            name = f"conv{stage}_{i}"
            net.convolution(name, top, width * min(2 ** (stage - 1), 8), 3, 1, 1, bias=True)
            net.relu(name)
            top = name
        net.pool(f"pool{stage}", top, "MAX", 2, 2)
        top = f"pool{stage}"
    for name, inputs, outputs in [("fc6", 8 * width * 49, 64 * width), ("fc7", 64 * width, 64 * width)]:
        net.inner_product(name, top, inputs, outputs)
        net.relu(name)
        net.layer(f"drop{name[2]}", "DROPOUT", [name], name, "dropout_param { dropout_ratio: 0.5 }")
        top = name
    net.inner_product("fc8", "fc7", 64 * width, classes)
    net.layer("prob", "SOFTMAX", ["fc8"], "prob")
    return net


# The binary format, from https://protobuf.dev/programming-guides/encoding and the field numbers of caffe.proto.


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode_blob(blob: np.ndarray, *, legacy: bool = False, packed: bool = True, double: bool = False) -> bytes:
    """A BlobProto; `legacy` has four numbers for a shape, with 1s before those there are."""
    if legacy:
        four = (1,) * (4 - blob.ndim) + blob.shape
        shape = b"".join(varint(i << 3) + varint(side) for i, side in enumerate(four, start=1))
    elif packed:
        shape = delimited(7, delimited(1, b"".join(map(varint, blob.shape))))
    else:
        shape = delimited(7, b"".join(varint(1 << 3) + varint(side) for side in blob.shape))
    values = blob.astype("<f8" if double else "<f4")
    number = 8 if double else 5
    if packed:
        return shape + delimited(number, values.tobytes())
    tag = varint(number << 3 | (1 if double else 5))
    return shape + b"".join(tag + value.tobytes() for value in values.reshape(-1))


def encode(blobs: dict[str, list[np.ndarray]], *, old: bool = False, extra: Iterable[str] = (), **how: bool) -> bytes:
    """A `.caffemodel`; `extra` are layers without blobs; `how` of `encode_blob`."""
    result = delimited(1, b"a network")
    for name, arrays in [*blobs.items(), *((name, []) for name in extra)]:
        content = b"".join(delimited(6 if old else 7, encode_blob(blob, **how)) for blob in arrays)
        if old:
            kind = 4 if len(arrays) and arrays[0].ndim == 4 else 14
            layer = delimited(2, b"bottom") + delimited(4, name.encode()) + varint(5 << 3) + varint(kind) + content
        else:
            layer = delimited(1, name.encode()) + delimited(2, b"Convolution") + delimited(3, b"bottom") + content
        result += delimited(2 if old else 100, layer)
    return result
