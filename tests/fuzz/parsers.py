"""What every parser under test is called by: the function of one file's bytes. Other files around it are valid."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backbones.analysis.curves import read_curve
from backbones.config import PretrainConfig
from backbones.data.augment import RandomResizedCrop, ScaleCropFlip
from backbones.data.cifar10 import read_cifar10
from backbones.data.cut import cut_file
from backbones.data.jpeg import read_jpeg_header
from backbones.data.matlab import read_structures
from backbones.data.pictures import read_image, read_image_size
from backbones.data.shards.reading import read_shards
from backbones.data.tar import read_tar
from backbones.data.unpacking import open_archive
from backbones.engine.run import open_run
from backbones.errors import DataError
from backbones.importing.caffe import read_network
from backbones.importing.caffe_classifiers import import_caffe
from backbones.record import record_run
from detection.prepare import main as prepare_data

from . import seeds

Parser = Callable[[bytes], Any]


def in_file(folder: Path, name: str, read: Callable[[Path], Any]) -> Parser:
    """Writes the input to a file `name`, which should contain "fuzzed", and reads it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)

    def run(data: bytes) -> Any:
        path.write_bytes(data)
        return read(path)

    return run


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# Pictures


def picture(folder: Path) -> Parser:
    def read(path: Path) -> None:
        height, width = read_image_size(path)
        image = read_image(path)
        if image.mode != "RGB" or image.size != (width, height):
            raise AssertionError(f"{image.mode} {image.size}, the header says {width}x{height}")
        read_image(path, upright=True)

    return in_file(folder, "fuzzed.jpg", read)


def cut(folder: Path) -> Parser:
    """How training shows a part of a picture, decoded no further than that needs."""

    def run(data: bytes) -> None:
        header = read_jpeg_header(data)
        for augment in (ScaleCropFlip(16, 16, 24), RandomResizedCrop(16, 0.08, 1.0)):
            pixels, cut = cut_file(data, "fuzzed.jpg", augment, np.random.default_rng(len(data)))
            if pixels.shape != (*cut.size, 3) or pixels.dtype != np.uint8:
                raise AssertionError(f"{pixels.shape} {pixels.dtype} of {header}")

    return run


# Archives, shards, CIFAR-10


def shard_index(folder: Path) -> Parser:
    def read(path: Path) -> None:
        dataset = read_shards(str(folder), "fuzzed")
        dataset.name(len(dataset) - 1)

    return in_file(folder, "fuzzed/index.safetensors", read)


def tar(folder: Path) -> Parser:
    def read(path: Path) -> None:
        with open_archive(path) as archive:
            for member in read_tar(archive):
                member.data.read(member.size)

    return in_file(folder, "fuzzed.tar", read)


def prepared(folder: Path, form: str, name: str) -> Parser:
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

    return in_file(folder, name, read)


def cifar10(folder: Path) -> Parser:
    return in_file(folder, "cifar-10-batches-py/test_batch", lambda path: read_cifar10(folder, "test").picture(0))


def matlab(folder: Path) -> Parser:
    def run(data: bytes) -> None:
        try:
            list(read_structures(data, "synsets"))
        except ValueError as error:  # what it says that it raises
            raise DataError(f"fuzzed.mat: {error}") from error

    return run


# Weights and checkpoints


def caffe(folder: Path) -> Parser:
    def read(path: Path) -> None:
        network = read_network(path)
        if "conv1" in network.layers:
            import_caffe(path, "resnet50", None)

    return in_file(folder, "fuzzed.caffemodel", read)


# Runs


def record(folder: Path) -> Parser:
    put(folder / "fuzzed/metrics.jsonl", seeds.metrics()[0])

    def read(path: Path) -> None:
        read_curve(folder / "fuzzed")
        record_run([str(folder / "fuzzed")], str(folder / "recorded"))

    return in_file(folder, "fuzzed/run.json", read)


def recorded(folder: Path) -> Parser:
    return in_file(folder, "fuzzed.json", read_curve)


def resumed(folder: Path) -> Parser:
    """The record of a run that is resumed."""

    def read(path: Path) -> None:
        options = {"resume": True, "overwrite": False, "allow_mismatch": False}
        with open_run(str(folder / "fuzzed"), PretrainConfig(), **options, processes=1):
            pass

    return in_file(folder, "fuzzed/run.json", read)


def metrics(folder: Path) -> Parser:
    """What a run that is resumed has logged."""

    def read(path: Path) -> None:
        for left in folder.glob("fuzzed/*"):
            if left != path:
                left.unlink()
        put(folder / "fuzzed/run.json", b"{}")
        with open_run(
            str(folder / "fuzzed"), PretrainConfig(), resume=True, overwrite=False, allow_mismatch=True
        ) as run:
            run.forget_after(5, {10})

    return in_file(folder, "fuzzed/metrics.jsonl", read)
