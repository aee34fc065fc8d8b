"""Parsers of annotations and detections, as functions of one file's bytes."""

from collections.abc import Callable
from pathlib import Path

from detection.data.annotations import DetectionDataset
from detection.data.cls_loc import read_cls_loc
from detection.data.coco import read_coco
from detection.data.det import read_det
from detection.data.voc import read_voc
from detection.score import main as score_detections

from . import seeds
from .parsers import Parser, in_file, put


def _voc_folder(folder: Path) -> Path:
    year = folder / "VOC2007"
    for name, xml in zip("ab", seeds.annotations(), strict=True):
        put(year / f"Annotations/{name}.xml", xml)
        put(year / f"JPEGImages/{name}.jpg", seeds.picture())
    put(year / "ImageSets/Main/test.txt", b"a\nb\n")
    return year


def voc_xml(folder: Path) -> Parser:
    year = _voc_folder(folder)
    put(year / "ImageSets/Main/test.txt", b"fuzzed\n")
    put(year / "JPEGImages/fuzzed.jpg", seeds.picture())

    def read(path: Path) -> None:
        for bad_boxes in ("keep", "repair"):
            dataset = read_voc(year, "test", bad_boxes=bad_boxes)
            dataset.target(0)
            dataset.load_image(0)

    return in_file(folder, "VOC2007/Annotations/fuzzed.xml", read)


def voc_list(folder: Path) -> Parser:
    year = _voc_folder(folder)
    return in_file(folder, "VOC2007/ImageSets/Main/fuzzed.txt", lambda path: read_voc(year, "fuzzed"))


def coco(folder: Path) -> Parser:
    for name in ("1.jpg", "2.jpg"):
        put(folder / name, seeds.picture())

    def read(path: Path) -> None:
        for bad_boxes in ("keep", "repair"):
            dataset = read_coco(folder, path, bad_boxes=bad_boxes)
            for index in range(min(len(dataset), 3)):
                dataset.target(index)
                dataset.load_image(index)

    return in_file(folder, "fuzzed.json", read)


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
    return in_file(folder, name, lambda path: score_detections(argv))


def coco_results(folder: Path) -> Parser:
    put(folder / "annotations.json", seeds.coco()[0])
    return _scored(folder, folder / "annotations.json", "fuzzed.json", folder / "fuzzed.json")


def coco_scored(folder: Path) -> Parser:
    put(folder / "found.json", b"[]")
    return _scored(folder, folder / "fuzzed.json", "fuzzed.json", folder / "found.json")


def voc_results(folder: Path) -> Parser:
    year = _voc_folder(folder)
    put(folder / "found/comp4_det_test_dog.txt", b"")
    return _scored(folder, year, "found/comp4_det_test_cat.txt", folder / "found")


def det_xml(folder: Path) -> Parser:
    put(folder / "ImageSets/DET/val.txt", b"fuzzed 1\n")
    return _ilsvrc_xml(folder, "DET", read_det)


def _ilsvrc_xml(folder: Path, name: str, read_split: Callable[..., DetectionDataset]) -> Parser:
    put(folder / f"Data/{name}/val/fuzzed.JPEG", seeds.picture())

    def read(path: Path) -> None:
        for bad_boxes in ("keep", "repair"):
            read_split(folder, "val", bad_boxes=bad_boxes).target(0)

    return in_file(folder, f"Annotations/{name}/val/fuzzed.xml", read)


def det_list(folder: Path) -> Parser:
    put(folder / "Data/DET/train/a.JPEG", seeds.picture())
    put(folder / "Annotations/DET/train/a.xml", seeds.annotations()[0])
    return in_file(folder, "ImageSets/DET/train_fuzzed.txt", lambda path: read_det(folder, "train_fuzzed"))


def blacklist(folder: Path) -> Parser:
    put(folder / "Data/DET/val/a.JPEG", seeds.picture())
    put(folder / "Annotations/DET/val/a.xml", seeds.annotations()[0])
    put(folder / "ImageSets/DET/val.txt", b"a 1\n")
    return in_file(
        folder, "devkit/data/ILSVRC_fuzzed_det_validation_blacklist.txt", lambda path: read_det(folder, "val")
    )


def cls_loc_xml(folder: Path) -> Parser:
    return _ilsvrc_xml(folder, "CLS-LOC", read_cls_loc)


def cls_loc_list(folder: Path) -> Parser:
    put(folder / "Data/CLS-LOC/train/cat/a.JPEG", seeds.picture())
    put(folder / "Annotations/CLS-LOC/train/cat/a.xml", seeds.annotations()[0])
    return in_file(folder, "ImageSets/CLS-LOC/train_fuzzed.txt", lambda path: read_cls_loc(folder, "train_fuzzed"))
