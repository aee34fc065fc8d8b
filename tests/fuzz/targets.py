"""Every parser of files that someone else may have made, as a function of one file's bytes.

Each calls what a command calls. The other files around the one that is fuzzed are valid.
"""

import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.analysis.curves import read_curve
from backbones.cli import run_command
from backbones.config import PretrainConfig, check_data, check_options, check_optimizer
from backbones.data.augment import RandomResizedCrop, ScaleCropFlip
from backbones.data.cifar10 import read_cifar10
from backbones.data.cut import cut_file
from backbones.data.ground_truth import read_ground_truth
from backbones.data.jpeg import read_jpeg_header
from backbones.data.matlab import read_structures
from backbones.data.pictures import decode_image, read_image, read_image_size
from backbones.data.shards.reading import read_shards
from backbones.data.statistics import load_statistics
from backbones.data.tar import read_tar
from backbones.data.transforms import NamedTransforms
from backbones.data.unpacking import open_archive
from backbones.engine.checkpoint import load_checkpoint
from backbones.engine.loop import portion_size
from backbones.engine.run import open_run
from backbones.engine.schedule import check_schedule
from backbones.errors import ConfigError, DataError
from backbones.fidelity import recipe_defaults, resolve
from backbones.importing.caffe import read_mean, read_network
from backbones.importing.caffe_classifiers import import_caffe
from backbones.importing.torchvision import import_torchvision
from backbones.inputs import augmentation
from backbones.models import get_model
from backbones.record import record_run
from backbones.train import check_test
from backbones.weights import load_classifier
from detection.config import DetectorConfig
from detection.config import check_data as check_detection_data
from detection.data.cls_loc import read_cls_loc
from detection.data.coco import read_coco
from detection.data.det import read_det
from detection.data.proposals import StoredProposals
from detection.data.voc import read_voc
from detection.models import get_detector
from detection.prepare import main as prepare_data
from detection.score import main as score_detections
from detection.weights import load_detector

from . import mutations, seeds
from .guard import Finding, judge

Parser = Callable[[bytes], Any]
Mutate = Callable[[bytes, random.Random], bytes | None]


@dataclass(frozen=True)
class Target:
    """A parser, and what to feed it with.

    Args:
        open: makes, in an empty folder, the function that is fuzzed.
        seeds: makes valid inputs.
        mutate: changes an input so that it keeps its structure; None: only bytes are changed.
        tokens: words that such files consist of.
        mebibytes: what an input, of 64 KiB at most, may take on top of what the process has.
        seconds: what it may take of the processor's time.
        names: what each message of an error has to name; "/" any file, as lists name other files; None: where a command
            names its option.
    """

    open: Callable[[Path], Parser]
    seeds: Callable[[], list[bytes]]
    mutate: Mutate | None = None
    tokens: tuple[str, ...] = ()
    mebibytes: int = 256
    seconds: float = 5
    names: str | None = "fuzzed"


def _file(folder: Path, name: str, read: Callable[[Path], Any]) -> Parser:
    """Writes the input to a file `name`, which should contain "fuzzed", and reads it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)

    def run(data: bytes) -> Any:
        path.write_bytes(data)
        return read(path)

    return run


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# Configurations


def _check_pretrain(config: PretrainConfig) -> None:
    """All that `pretrain` looks at before it reads data, and what it builds of them."""
    config = resolve(config)
    portion_size(config.train, 1)
    check_schedule(config.schedule)
    check_optimizer(config.optimizer)
    check_data(config.data)
    check_test(config)
    check_options(config.model.options, "model.options")
    with torch.device("meta"):
        get_model(config.model.name, 2, **config.model.options)
    augmentation(config.data)
    NamedTransforms(config.data.transforms, config.data.input_size)
    asdict(config)


def _check_detector(config: DetectorConfig) -> None:
    portion_size(config.train, 1)
    check_schedule(config.schedule)
    check_optimizer(config.optimizer)
    check_detection_data(config.data)
    check_options(config.backbone.options, "backbone.options")
    with torch.device("meta"):
        get_detector(
            config.backbone.name or "resnet18",
            2,
            backbone_options=config.backbone.options,
            norm=config.backbone.norm,
            freeze_stages=config.backbone.freeze_stages,
            anchor_scales=config.anchors.scales,
            anchor_ratios=config.anchors.ratios,
            rpn=config.rpn,
            roi=config.roi,
        )
    asdict(config)


def _pretrain_config(folder: Path) -> Parser:
    def read(path: Path) -> None:
        run_command(PretrainConfig, _check_pretrain, defaults=recipe_defaults, argv=["--config", str(path)])

    return _file(folder, "fuzzed.yaml", read)


def _detector_config(folder: Path) -> Parser:
    return _file(
        folder, "fuzzed.yaml", lambda path: run_command(DetectorConfig, _check_detector, argv=["--config", str(path)])
    )


# Annotations and detections


def _voc_folder(folder: Path) -> Path:
    year = folder / "VOC2007"
    for name, xml in zip("ab", seeds.annotations(), strict=True):
        _put(year / f"Annotations/{name}.xml", xml)
        _put(year / f"JPEGImages/{name}.jpg", seeds.picture())
    _put(year / "ImageSets/Main/test.txt", b"a\nb\n")
    return year


def _voc_xml(folder: Path) -> Parser:
    year = _voc_folder(folder)
    _put(year / "ImageSets/Main/test.txt", b"fuzzed\n")
    _put(year / "JPEGImages/fuzzed.jpg", seeds.picture())

    def read(path: Path) -> None:
        for bad_boxes in ("keep", "repair"):
            dataset = read_voc(year, "test", bad_boxes=bad_boxes)
            dataset.target(0)
            dataset.load_image(0)

    return _file(folder, "VOC2007/Annotations/fuzzed.xml", read)


def _voc_list(folder: Path) -> Parser:
    year = _voc_folder(folder)
    return _file(folder, "VOC2007/ImageSets/Main/fuzzed.txt", lambda path: read_voc(year, "fuzzed"))


def _coco(folder: Path) -> Parser:
    for name in ("1.jpg", "2.jpg"):
        _put(folder / name, seeds.picture())

    def read(path: Path) -> None:
        for bad_boxes in ("keep", "repair"):
            dataset = read_coco(folder, path, bad_boxes=bad_boxes)
            for index in range(min(len(dataset), 3)):
                dataset.target(index)
                dataset.load_image(index)

    return _file(folder, "fuzzed.json", read)


def _scored(folder: Path, annotations: Path, name: str, detections: Path) -> Parser:
    """Through the whole command: its notes and its table as well."""
    argv = [
        "--annotations",
        str(annotations),
        "--detections",
        str(detections),
        "--metric",
        "voc07",
        "coco",
        "--split",
        "test",
    ]
    return _file(folder, name, lambda path: score_detections(argv))


def _coco_results(folder: Path) -> Parser:
    _put(folder / "annotations.json", seeds.coco()[0])
    return _scored(folder, folder / "annotations.json", "fuzzed.json", folder / "fuzzed.json")


def _coco_scored(folder: Path) -> Parser:
    _put(folder / "found.json", b"[]")
    return _scored(folder, folder / "fuzzed.json", "fuzzed.json", folder / "found.json")


def _voc_results(folder: Path) -> Parser:
    year = _voc_folder(folder)
    _put(folder / "found/comp4_det_test_dog.txt", b"")
    return _scored(folder, year, "found/comp4_det_test_cat.txt", folder / "found")


def _det_xml(folder: Path) -> Parser:
    _put(folder / "Data/DET/val/fuzzed.JPEG", seeds.picture())
    _put(folder / "ImageSets/DET/val.txt", b"fuzzed 1\n")

    def read(path: Path) -> None:
        for bad_boxes in ("keep", "repair"):
            read_det(folder, "val", bad_boxes=bad_boxes).target(0)

    return _file(folder, "Annotations/DET/val/fuzzed.xml", read)


def _det_list(folder: Path) -> Parser:
    _put(folder / "Data/DET/train/a.JPEG", seeds.picture())
    _put(folder / "Annotations/DET/train/a.xml", seeds.annotations()[0])
    return _file(folder, "ImageSets/DET/train_fuzzed.txt", lambda path: read_det(folder, "train_fuzzed"))


def _blacklist(folder: Path) -> Parser:
    _put(folder / "Data/DET/val/a.JPEG", seeds.picture())
    _put(folder / "Annotations/DET/val/a.xml", seeds.annotations()[0])
    _put(folder / "ImageSets/DET/val.txt", b"a 1\n")
    return _file(folder, "devkit/data/ILSVRC_fuzzed_det_validation_blacklist.txt", lambda path: read_det(folder, "val"))


def _cls_loc_xml(folder: Path) -> Parser:
    _put(folder / "Data/CLS-LOC/val/fuzzed.JPEG", seeds.picture())

    def read(path: Path) -> None:
        for bad_boxes in ("keep", "repair"):
            read_cls_loc(folder, "val", bad_boxes=bad_boxes).target(0)

    return _file(folder, "Annotations/CLS-LOC/val/fuzzed.xml", read)


def _cls_loc_list(folder: Path) -> Parser:
    _put(folder / "Data/CLS-LOC/train/cat/a.JPEG", seeds.picture())
    _put(folder / "Annotations/CLS-LOC/train/cat/a.xml", seeds.annotations()[0])
    return _file(folder, "ImageSets/CLS-LOC/train_fuzzed.txt", lambda path: read_cls_loc(folder, "train_fuzzed"))


# Pictures


def _picture(folder: Path) -> Parser:
    def read(path: Path) -> None:
        height, width = read_image_size(path)
        image = read_image(path)
        if image.mode != "RGB" or image.size != (width, height):
            raise AssertionError(f"{image.mode} {image.size}, the header says {width}x{height}")
        read_image(path, upright=True)

    return _file(folder, "fuzzed.jpg", read)


def _cut(folder: Path) -> Parser:
    """How training shows a part of a picture, decoded no further than that needs."""

    def run(data: bytes) -> None:
        header = read_jpeg_header(data)
        for augment in (ScaleCropFlip(16, 16, 24), RandomResizedCrop(16, 0.08, 1.0)):
            pixels, cut = cut_file(data, "fuzzed.jpg", augment, np.random.default_rng(len(data)))
            if pixels.shape != (*cut.size, 3) or pixels.dtype != np.uint8:
                raise AssertionError(f"{pixels.shape} {pixels.dtype} of {header}")

    return run


# Archives, shards, CIFAR-10


def _shard_index(folder: Path) -> Parser:
    def read(path: Path) -> None:
        dataset = read_shards(str(folder), "fuzzed")
        dataset.name(len(dataset) - 1)

    return _file(folder, "fuzzed/index.safetensors", read)


def _tar(folder: Path) -> Parser:
    def read(path: Path) -> None:
        with open_archive(path) as archive:
            for member in read_tar(archive):
                member.data.read(member.size)

    return _file(folder, "fuzzed.tar", read)


def _prepared(folder: Path, form: str, name: str) -> Parser:
    """Unpacked by the command, which may leave nothing but in its own folder."""

    def read(path: Path) -> None:
        try:
            prepare_data([form, "--archives", str(path), "--output", str(folder / "work/out")])
        finally:
            others = sorted(str(p) for p in folder.rglob("*") if (folder / "work/out") not in (p, *p.parents))
            if others != sorted([str(folder / "work"), str(path)]) and others != [str(path)]:
                raise AssertionError(f"left {others}")
            for root, folders, files in os.walk(folder / "work", topdown=False):
                for each in files:
                    os.unlink(os.path.join(root, each))
                for each in folders:
                    os.rmdir(os.path.join(root, each))

    return _file(folder, name, read)


def _cifar10(folder: Path) -> Parser:
    return _file(folder, "cifar-10-batches-py/test_batch", lambda path: read_cifar10(folder, "test").picture(0))


def _matlab(folder: Path) -> Parser:
    def run(data: bytes) -> None:
        try:
            list(read_structures(data, "synsets"))
        except ValueError as error:  # what it says that it raises
            raise DataError(f"fuzzed.mat: {error}") from error

    return run


# Weights and checkpoints


def _caffe(folder: Path) -> Parser:
    def read(path: Path) -> None:
        network = read_network(path)
        if "conv1" in network.layers:
            import_caffe(path, "resnet50", None)

    return _file(folder, "fuzzed.caffemodel", read)


# Runs


def _record(folder: Path) -> Parser:
    _put(folder / "fuzzed/metrics.jsonl", seeds.metrics()[0])

    def read(path: Path) -> None:
        read_curve(folder / "fuzzed")
        record_run([str(folder / "fuzzed")], str(folder / "recorded"))

    return _file(folder, "fuzzed/run.json", read)


def _recorded(folder: Path) -> Parser:
    return _file(folder, "fuzzed.json", read_curve)


def _resumed(folder: Path) -> Parser:
    """The record of a run that is resumed."""

    def read(path: Path) -> None:
        options = {"resume": True, "overwrite": False, "allow_mismatch": False}
        with open_run(str(folder / "fuzzed"), PretrainConfig(), **options, processes=1):
            pass

    return _file(folder, "fuzzed/run.json", read)


def _metrics(folder: Path) -> Parser:
    """What a run that is resumed has logged."""

    def read(path: Path) -> None:
        for left in folder.glob("fuzzed/*"):
            if left != path:
                left.unlink()
        _put(folder / "fuzzed/run.json", b"{}")
        with open_run(
            str(folder / "fuzzed"), PretrainConfig(), resume=True, overwrite=False, allow_mismatch=True
        ) as run:
            run.forget_after(5, last=10)

    return _file(folder, "fuzzed/metrics.jsonl", read)


_XML = (
    "<object>",
    "<name>",
    "<bndbox>",
    "<xmin>",
    "<difficult>",
    "<size>",
    "<width>",
    "<!DOCTYPE",
    "<!ENTITY",
    "]]>",
    "nan",
    "inf",
)
_JSON = (
    "images",
    "annotations",
    "categories",
    "image_id",
    "category_id",
    "bbox",
    "iscrowd",
    "area",
    "segmentation",
    "counts",
    "size",
)
_JSON += ("score", "file_name", "NaN", "Infinity", "1e999", "\\\\ud800", "\\\\u0000")
_ST = (
    "__metadata__",
    "dtype",
    "shape",
    "data_offsets",
    "BF16",
    "F8_E4M3",
    "F32",
    "format",
    "classes",
    "options",
    "architecture",
)

_LARGE: Any = {
    "mebibytes": 1536,
    "seconds": 20,
}  # for pictures of 2**27 pixels, which are taken, and decoded twice here

TARGETS: dict[str, Target] = {
    "pretrain_config": Target(
        _pretrain_config, partial(seeds.configs, "cifar/*", "imagenet/resnet50*"), mutations.mutate_yaml, names=None
    ),
    "detector_config": Target(_detector_config, partial(seeds.configs, "voc/*", "coco/*"), mutations.mutate_yaml, names=None),
    "voc_xml": Target(_voc_xml, seeds.annotations, mutations.mutate_xml, _XML),
    "voc_list": Target(_voc_list, lambda: [b"a\nb\n"], mutations.mutate_lines, names="/"),
    "coco": Target(_coco, lambda: seeds.coco()[:1], mutations.mutate_json, _JSON),
    "coco_scored": Target(_coco_scored, seeds.coco, mutations.mutate_json, _JSON),
    "coco_results": Target(_coco_results, seeds.coco_results, mutations.mutate_json, _JSON),
    "voc_results": Target(_voc_results, seeds.voc_results, mutations.mutate_lines, names="comp4_det_test_cat.txt"),
    "det_xml": Target(_det_xml, seeds.annotations, mutations.mutate_xml, _XML, names="/"),
    "det_list": Target(_det_list, lambda: [b"a 1\n"], mutations.mutate_lines, names="/"),
    "det_blacklist": Target(_blacklist, lambda: [b"1 cat\n"], mutations.mutate_lines, names="/"),
    "cls_loc_xml": Target(_cls_loc_xml, lambda: seeds.annotations()[:1], mutations.mutate_xml, _XML, names="/"),
    "cls_loc_list": Target(_cls_loc_list, lambda: [b"cat/a 1\n"], mutations.mutate_lines, names="/"),
    "picture": Target(_picture, seeds.pictures, mutations.mutate_picture, **_LARGE),
    "picture_cut": Target(_cut, seeds.pictures, mutations.mutate_picture, **_LARGE),
    "picture_bytes": Target(
        lambda folder: lambda data: decode_image(data, "fuzzed"), seeds.pictures, mutations.mutate_picture, **_LARGE
    ),
    "shard_index": Target(_shard_index, seeds.shard_index, mutations.mutate_safetensors, _ST),
    "statistics": Target(
        lambda folder: _file(folder, "fuzzed", load_statistics), seeds.statistics, mutations.mutate_safetensors, _ST
    ),
    "tar": Target(_tar, lambda: [seeds.tar(seeds.archived())], mutations.mutate_tar),
    "voc_archive": Target(
        partial(_prepared, form="voc", name="fuzzed.tar"), lambda: [seeds.tar(seeds.archived())], mutations.mutate_tar
    ),
    "coco_archive": Target(partial(_prepared, form="coco", name="fuzzed.zip"), seeds.coco_archives, mutations.mutate_zip),
    "ground_truth": Target(
        lambda folder: _file(folder, "fuzzed", read_ground_truth), seeds.ground_truths, mutations.mutate_tar
    ),
    "matlab": Target(_matlab, lambda: [seeds.matlab()]),
    "cifar10": Target(_cifar10, seeds.cifar10, mutations.mutate_pickle, names="test_batch"),
    "classifier_weights": Target(
        lambda folder: _file(folder, "fuzzed.safetensors", load_classifier),
        seeds.classifier_weights,
        mutations.mutate_safetensors,
        _ST,
    ),
    "detector_weights": Target(
        lambda folder: _file(folder, "fuzzed.safetensors", load_detector),
        seeds.detector_weights,
        mutations.mutate_safetensors,
        _ST,
    ),
    "checkpoint": Target(
        lambda folder: _file(folder, "fuzzed.pt", load_checkpoint), seeds.checkpoints, mutations.mutate_checkpoint
    ),
    "torchvision": Target(
        lambda folder: _file(folder, "fuzzed.pth", lambda path: import_torchvision(path, "resnet18")),
        seeds.torchvision,
        mutations.mutate_checkpoint,
    ),
    "caffe_network": Target(_caffe, seeds.caffe_networks, mutations.mutate_protobuf),
    "caffe_mean": Target(
        lambda folder: _file(folder, "fuzzed.binaryproto", read_mean), seeds.caffe_means, mutations.mutate_protobuf
    ),
    "run_record": Target(_record, lambda: seeds.run_records()[:1], mutations.mutate_json),
    "recorded_run": Target(_recorded, lambda: seeds.run_records()[1:], mutations.mutate_json),
    "resumed_record": Target(_resumed, seeds.default_records, mutations.mutate_json),
    "metrics": Target(_metrics, seeds.metrics, mutations.mutate_json_lines),
    "proposals": Target(
        lambda folder: _file(folder, "fuzzed.npy", lambda path: StoredProposals(path, 2)(1)),
        seeds.proposals,
        mutations.mutate_array,
    ),
}  # fmt: skip


def look(target: Target, run: Parser, data: bytes) -> Finding | None:
    """What an input does to a target that was opened."""
    return judge(run, data, mebibytes=target.mebibytes, seconds=target.seconds, names=target.names)


def find(name: str) -> Target:
    """The target of a name. Raises ConfigError if there is none."""
    if name not in TARGETS:
        raise ConfigError(f"no target {name!r}: choose from {', '.join(TARGETS)}")
    return TARGETS[name]
