"""Small valid files of each kind: what mutations start from. All of them are read without a complaint."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save as save_arrays

from backbones.importing.caffe_resnet import convolution_names
from backbones.models import get_model
from backbones.weights import WeightsMetadata, save_weights
from detection.models import RoIOptions, RPNOptions, get_detector
from detection.weights import detector_metadata, save_detector

CONFIGS = Path(__file__).parents[2] / "configs"
WIDTH, HEIGHT = 20, 12  # of the pictures that annotations speak of


def configs(*patterns: str) -> list[bytes]:
    """The project's own configurations."""
    return [path.read_bytes() for pattern in patterns for path in sorted(CONFIGS.glob(f"{pattern}.yaml"))]


def picture(size: tuple[int, int] = (WIDTH, HEIGHT), form: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """A picture of a gradient."""
    stream = io.BytesIO()
    rows = np.add.outer(np.arange(size[1]) * 7, np.arange(size[0]) * 3) % 256
    Image.fromarray(rows.astype(np.uint8)).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def pictures() -> list[bytes]:
    """One of each format, and JPEGs of all kinds."""
    jpegs = [picture((40, 33)), picture((40, 33), progressive=True), picture((33, 40), mode="L"), picture(mode="CMYK")]
    jpegs += [picture((40, 33), exif=_turned()), picture((64, 64), subsampling=0, restart_marker_blocks=2)]
    others = [
        picture(form="PNG"),
        picture(form="PNG", mode="P"),
        picture(form="PNG", mode="I;16"),
        picture(form="GIF", mode="P"),
    ]
    others += [
        picture(form="BMP"),
        picture(form="WEBP"),
        picture(form="PPM"),
        picture(form="TIFF"),
        picture(form="TIFF", mode="L"),
    ]
    return jpegs + others + [picture(form="TIFF", compression="tiff_lzw"), picture(form="PNG", mode="RGBA")]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def voc_xml(*objects: tuple[str, tuple[Any, ...], Any]) -> bytes:
    """An annotation of objects (name, xmin ymin xmax ymax, difficult)."""
    parts = [f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"]
    for name, box, difficult in objects:
        corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        parts.append(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
        )
    return f"<annotation><filename>a.jpg</filename>{''.join(parts)}</annotation>".encode()


def annotations() -> list[bytes]:
    """VOC's XML files."""
    return [voc_xml(("cat", (2, 3, 10, 8), 0)), voc_xml(("cat", (1, 1, 20, 12), 1), ("dog", (2.5, 3, 4, 8.25), 0))]


def coco() -> list[bytes]:
    """COCO's annotation files."""
    images = [{"id": i, "width": WIDTH, "height": HEIGHT, "file_name": f"{i}.jpg"} for i in (1, 2)]
    categories = [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}]
    objects: list[dict[str, Any]] = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 5, 6], "area": 21.5, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [0.5, 2.25, 7, 4], "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0, 0, 20, 12], "segmentation": [[1, 2, 3, 4, 5, 6]]},
    ]
    first = {"info": {}, "images": images, "categories": categories, "annotations": objects}
    named = [image | {"id": f"p{image['id']}"} for image in images]
    second = {"images": named, "categories": categories[:1], "annotations": []}
    return [json.dumps(each).encode() for each in (first, second)]


def coco_results() -> list[bytes]:
    """Detections in the pictures of the first of `coco`."""
    found = [
        {"image_id": i, "category_id": c, "bbox": [1.5, 2, 5, 6], "score": s} for i, c, s in ((1, 3, 0.9), (2, 7, 0.5))
    ]
    return [json.dumps(found).encode(), b"[]", json.dumps(found * 20, indent=1).encode()]


def voc_results() -> list[bytes]:
    """Detections of a class."""
    return [b"a 0.9 2 3 10 8\na 0.25 1.5 1 20 12\n", b""]


def cifar10() -> list[bytes]:
    """A batch of two pictures, as Python 2 wrote them and as others do."""
    pixels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    batch = {b"batch_label": b"1 of 5", b"labels": [3, 9], b"data": pixels, b"filenames": [b"a.png", b"b.png"]}
    texts = {"data": pixels, "labels": np.array([3, 9])}
    return [pickle.dumps(batch, protocol=2), pickle.dumps(texts, protocol=4), pickle.dumps(batch, protocol=0)]


def classifier_weights() -> list[bytes]:
    """Weights files of tiny classifiers."""
    files = []
    for name, options in (("cifar_resnet8", {"width": 1}), ("cifar_plain8", {"width": 1, "norm": "none"})):
        metadata = WeightsMetadata(
            task="classification",
            architecture=name,
            options=options,
            classes=["cat", "dog"],
            mean=[1.0, 2.0, 3.0],
            std=[1.0, 1.0, 1.0],
            input_size=32,
            test_resize=None,
            color_order="BGR" if name == "cifar_plain8" else "RGB",
        )
        files.append(
            _written(
                lambda path, n=name, o=options, m=metadata: save_weights(path, get_model(n, 2, **o).state_dict(), m)
            )
        )
    return files


def detector_weights() -> list[bytes]:
    """A weights file of a tiny detector."""
    rpn, roi = RPNOptions(channels=1), RoIOptions()
    backbone = WeightsMetadata(
        "classification", "resnet18", {"width": 1}, ["x"], mean=[1.0, 2.0, 3.0], std=[1.0] * 3, input_size=32
    )
    arguments: dict[str, Any] = {"norm": "frozen", "freeze_stages": [], "anchor_scales": [8.0], "anchor_ratios": [1.0]}
    metadata = detector_metadata(
        backbone, ["cat", "dog"], [3, 7], **arguments, rpn=rpn, roi=roi, shorter_side=60, longest_side=100
    )
    detector = get_detector("resnet18", 2, backbone_options={"width": 1}, rpn=rpn, roi=roi, **arguments)
    return [_written(lambda path: save_detector(path, detector, metadata))]


def checkpoints() -> list[bytes]:
    """Checkpoints of this project and of others."""
    state = {
        "step": 3,
        "model": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1)},
        "rng": torch.zeros(9).byte(),
    }
    files = []
    for value in (state, {"state_dict": {"module.a": torch.ones(2)}}):
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            stream = io.BytesIO()
            torch.save(value, stream, **options)
            files.append(stream.getvalue())
    return files


def torchvision() -> list[bytes]:
    """A narrow ResNet-18, as torchvision saves it."""
    stream = io.BytesIO()
    torch.save(dict(get_model("resnet18", 2, width=1).state_dict()), stream)
    return [stream.getvalue()]


def shard_index() -> list[bytes]:
    """An index of two shards with three pictures."""
    arrays = {
        "shard_sizes": np.array([4096, 2048]),
        "shard_digests": np.zeros((2, 32), np.uint8),
        "pictures_by_shard": np.array([2, 1]),
        "offsets": np.array([512, 1536, 512]),
        "lengths": np.array([100, 200, 300], np.int32),
        "labels": np.array([0, 1, 0], np.int32),
        "name_ends": np.array([3, 6, 9]),
        "names": np.frombuffer(b"a/1b/2a/3", np.uint8),
    }
    return [save_arrays(arrays, {"class_names": json.dumps(["a", "b"])})]


def statistics() -> list[bytes]:
    """Statistics of a training set, for crops of 2 pixels."""
    arrays = {"mean_picture": np.zeros((3, 2, 2)), "mean": np.ones(3), "covariance": np.eye(3)}
    arrays |= {"eigenvalues": np.ones(3), "eigenvectors": np.eye(3)}
    return [save_arrays(arrays, {"count": "2", "shorter": "None", "fingerprint": "f"})]


def tar(files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def archived() -> dict[str, bytes]:
    """Files of VOC's archive."""
    return {
        "VOCdevkit/VOC2007/Annotations/a.xml": annotations()[0],
        "VOCdevkit/VOC2007/JPEGImages/a.jpg": picture(),
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt": b"a\n",
    }


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def coco_archives() -> list[bytes]:
    """COCO's zip archives."""
    files = {"annotations/instances_val2017.json": coco()[0], "val2017/1.jpg": picture()}
    return [zipped(files), zipped(files, zipfile.ZIP_STORED), zipped({"val2017/": b""} | files)]


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _matrix(kind: int, dimensions: tuple[int, ...], name: bytes, *rest: bytes) -> bytes:
    head = [_element(6, struct.pack("<II", kind, 0)), _element(5, struct.pack(f"<{len(dimensions)}i", *dimensions))]
    return _element(14, b"".join([*head, _element(1, name), *rest]))


def matlab() -> bytes:
    """A meta.mat of two synsets."""
    fields = b"".join(name.ljust(32, b"\0") for name in (b"ILSVRC2012_ID", b"WNID"))
    values = []
    for number, synset in ((1, b"n01440764"), (2, b"n01443537")):
        values.append(_matrix(6, (1, 1), b"", _element(2, bytes([number]))))
        values.append(_matrix(4, (1, len(synset)), b"", _element(16, synset)))
    parts = [_element(5, struct.pack("<i", 32)), _element(1, fields), *values]
    return (
        b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + _matrix(2, (2, 1), b"synsets", *parts)
    )


def ground_truths() -> list[bytes]:
    """The development kit, packed and not, and lists."""
    kit = tar(
        {"kit/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n", "kit/data/meta.mat": matlab()},
        form=tarfile.USTAR_FORMAT,
    )
    lists = [b"n01440764\nn01443537\n", b"ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n"]
    return [kit, gzip.compress(kit, mtime=0), *lists]


def run_records() -> list[bytes]:
    """run.json files."""
    record = {
        "status": "finished",
        "command": "pretrain.py --config a/b.yaml",
        "seed": 0,
        "config": {"model": {"name": "resnet18"}},
    }
    record |= {"results": {"center": {"top1_error": 5.0}}, "wall_clock_seconds": 1.5, "started": "2026-01-01"}
    curve = [{"step": 1, "split": "test", "top1_error": 50.0}]
    return [json.dumps(record).encode(), json.dumps(record | {"curve": curve}).encode()]


def default_records() -> list[bytes]:
    """The run.json of a run with all defaults."""
    return [json.dumps({"status": "interrupted", "config": {}, "processes": 1, "wall_clock_seconds": 3.5}).encode()]


def metrics() -> list[bytes]:
    """metrics.jsonl files."""
    lines = [{"step": s, "split": "train", "loss": 1.5, "lr": 0.1, "top1_error": 80.0} for s in (1, 2)]
    lines.append({"step": 2, "split": "test", "top1_error": 70.0})
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


def proposals() -> list[bytes]:
    """A .npy file of the proposals of two pictures."""
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 3, 4), np.float32))
    return [stream.getvalue()]


def _written(write: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _blob(shape: tuple[int, ...], *, legacy: bool = False) -> bytes:
    """A blob of ones, with its shape as a list, or as four numbers."""
    four = (1,) * (4 - len(shape)) + shape
    said = (
        b"".join(_varint(number << 3) + _varint(side) for number, side in enumerate(four, 1))
        if legacy
        else _field(7, _field(1, b"".join(map(_varint, shape))))
    )
    return said + _field(5, np.ones(shape, "<f4").tobytes())


def caffe_networks() -> list[bytes]:
    """A ResNet-50 of the smallest width, and a network of a layer of each generation."""
    shapes = {name: tuple(tensor.shape) for name, tensor in get_model("resnet50", 2, width=1).state_dict().items()}
    layers: dict[str, list[tuple[int, ...]]] = {}
    for names in convolution_names(50):
        weight = shapes[f"{names.ours}.weight"]
        channels = weight[:1]
        layers[names.caffe] = [weight]
        layers[names.caffe_norm] = [channels, channels, (1,)]
        layers[names.caffe_scale] = [channels, channels]
    layers["fc1000"] = [shapes["fc.weight"], shapes["fc.bias"]]
    resnet = b"".join(
        _field(100, _field(1, name.encode()) + b"".join(_field(7, _blob(blob)) for blob in blobs))
        for name, blobs in layers.items()
    )
    old = _field(
        2, _field(4, b"conv1_1") + _field(6, _blob((2, 3, 3, 3), legacy=True)) + _field(6, _blob((2,), legacy=True))
    )
    new = _field(100, _field(1, b"fc8") + _field(7, _blob((2, 3))))
    return [resnet, old, new]


def caffe_means() -> list[bytes]:
    """Mean pictures of 2x2 pixels."""
    return [_blob((3, 2, 2)), _blob((1, 3, 2, 2), legacy=True)]
