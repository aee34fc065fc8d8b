"""Every parser of files that someone else may have made, and what to feed it with.

Each calls what a command calls.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backbones.data.ground_truth import read_ground_truth
from backbones.data.pictures import decode_image
from backbones.data.statistics import load_statistics
from backbones.engine.checkpoint import load_checkpoint
from backbones.errors import ConfigError
from backbones.importing.caffe import read_mean
from backbones.importing.torchvision import import_torchvision
from backbones.weights import load_classifier
from detection.data.proposals import StoredProposals
from detection.weights import load_detector

from . import (
    annotation_parsers,
    config_parsers,
    parsers,
    seeds,
)
from .archive_mutations import mutate_checkpoint, mutate_pickle, mutate_tar, mutate_zip
from .binary_mutations import mutate_array, mutate_protobuf, mutate_safetensors
from .guard import Finding, judge
from .parsers import Parser
from .picture_mutations import mutate_picture
from .text_mutations import mutate_json, mutate_json_lines, mutate_lines, mutate_xml, mutate_yaml

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
        names: what each message of an error has to name; "/" any path, as lists name other files and a split
            without objects its folder; None: where a command names its option.
    """

    open: Callable[[Path], Parser]
    seeds: Callable[[], list[bytes]]
    mutate: Mutate | None = None
    tokens: tuple[str, ...] = ()
    mebibytes: int = 256
    seconds: float = 5
    names: str | None = "fuzzed"


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
        config_parsers.pretrain_config, partial(seeds.configs, "cifar/*", "imagenet/resnet50*"), mutate_yaml, names=None
    ),
    "detector_config": Target(
        config_parsers.detector_config, partial(seeds.configs, "voc/*", "coco/*"), mutate_yaml, names=None
    ),
    "voc_xml": Target(annotation_parsers.voc_xml, seeds.annotations, mutate_xml, _XML, names="/"),
    "voc_list": Target(annotation_parsers.voc_list, lambda: [b"a\nb\n"], mutate_lines, names="/"),
    "coco": Target(annotation_parsers.coco, lambda: seeds.coco()[:1], mutate_json, _JSON),
    "coco_scored": Target(annotation_parsers.coco_scored, seeds.coco, mutate_json, _JSON),
    "coco_results": Target(annotation_parsers.coco_results, seeds.coco_results, mutate_json, _JSON),
    "voc_results": Target(
        annotation_parsers.voc_results, seeds.voc_results, mutate_lines, names="comp4_det_test_cat.txt"
    ),
    "det_xml": Target(annotation_parsers.det_xml, seeds.annotations, mutate_xml, _XML, names="/"),
    "det_list": Target(annotation_parsers.det_list, lambda: [b"a 1\n"], mutate_lines, names="/"),
    "det_blacklist": Target(annotation_parsers.blacklist, lambda: [b"1 cat\n"], mutate_lines, names="/"),
    "cls_loc_xml": Target(annotation_parsers.cls_loc_xml, lambda: seeds.annotations()[:1], mutate_xml, _XML, names="/"),
    "cls_loc_list": Target(annotation_parsers.cls_loc_list, lambda: [b"cat/a 1\n"], mutate_lines, names="/"),
    "picture": Target(parsers.picture, seeds.pictures, mutate_picture, **_LARGE),
    "picture_cut": Target(parsers.cut, seeds.pictures, mutate_picture, **_LARGE),
    "picture_bytes": Target(
        lambda folder: lambda data: decode_image(data, "fuzzed"), seeds.pictures, mutate_picture, **_LARGE
    ),
    "shard_index": Target(parsers.shard_index, seeds.shard_index, mutate_safetensors, _ST),
    "statistics": Target(
        lambda folder: parsers.in_file(folder, "fuzzed", load_statistics), seeds.statistics, mutate_safetensors, _ST
    ),
    "tar": Target(parsers.tar, lambda: [seeds.tar(seeds.archived())], mutate_tar),
    "voc_archive": Target(
        partial(parsers.prepared, form="voc", name="fuzzed.tar"), lambda: [seeds.tar(seeds.archived())], mutate_tar
    ),
    "coco_archive": Target(partial(parsers.prepared, form="coco", name="fuzzed.zip"), seeds.coco_archives, mutate_zip),
    "ground_truth": Target(
        lambda folder: parsers.in_file(folder, "fuzzed", read_ground_truth), seeds.ground_truths, mutate_tar
    ),
    "matlab": Target(parsers.matlab, lambda: [seeds.matlab()]),
    "cifar10": Target(parsers.cifar10, seeds.cifar10, mutate_pickle, names="test_batch"),
    "classifier_weights": Target(
        lambda folder: parsers.in_file(folder, "fuzzed.safetensors", load_classifier),
        seeds.classifier_weights,
        mutate_safetensors,
        _ST,
    ),
    "detector_weights": Target(
        lambda folder: parsers.in_file(folder, "fuzzed.safetensors", load_detector),
        seeds.detector_weights,
        mutate_safetensors,
        _ST,
    ),
    "checkpoint": Target(
        lambda folder: parsers.in_file(folder, "fuzzed.pt", load_checkpoint), seeds.checkpoints, mutate_checkpoint
    ),
    "torchvision": Target(
        lambda folder: parsers.in_file(folder, "fuzzed.pth", lambda path: import_torchvision(path, "resnet18")),
        seeds.torchvision,
        mutate_checkpoint,
    ),
    "caffe_network": Target(parsers.caffe, seeds.caffe_networks, mutate_protobuf),
    "caffe_mean": Target(
        lambda folder: parsers.in_file(folder, "fuzzed.binaryproto", read_mean), seeds.caffe_means, mutate_protobuf
    ),
    "run_record": Target(parsers.record, lambda: seeds.run_records()[:1], mutate_json),
    "recorded_run": Target(parsers.recorded, lambda: seeds.run_records()[1:], mutate_json),
    "resumed_record": Target(parsers.resumed, seeds.default_records, mutate_json),
    "metrics": Target(parsers.metrics, seeds.metrics, mutate_json_lines),
    "proposals": Target(
        lambda folder: parsers.in_file(folder, "fuzzed.npy", lambda path: StoredProposals(path, 2)(1)),
        seeds.proposals,
        mutate_array,
    ),
}


def look(target: Target, run: Parser, data: bytes) -> Finding | None:
    """What an input does to a target that was opened."""
    return judge(run, data, mebibytes=target.mebibytes, seconds=target.seconds, names=target.names)


def find(name: str) -> Target:
    """The target of a name. Raises ConfigError if there is none."""
    if name not in TARGETS:
        raise ConfigError(f"no target {name!r}: choose from {', '.join(TARGETS)}")
    return TARGETS[name]
