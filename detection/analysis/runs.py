"""The detections of several runs on one data set, as the commands of this folder take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import ConfigError, DataError
from detection.data.annotations import Annotations, DetectionDataset
from detection.data.coco import read_coco
from detection.data.voc import read_voc
from detection.evaluate.files import read_coco_results, read_voc_results, split_name
from detection.structures import Detections


@dataclass
class Run:
    """What a detector found in each picture of a data set.

    Args:
        name: what to call it.
        path: the file or folder that its detections come from.
        detections: one item a picture.
    """

    name: str
    path: Path
    detections: list[Detections]


def read_truth(
    annotations: Path, split: str, *, images: Path | None = None, need_pictures: bool = False
) -> DetectionDataset:
    """The data set that runs are compared on. Boxes are kept as the files have them, as official scores do.

    Args:
        annotations: COCO annotation file (JSON), or VOC year folder.
        split: the split of a VOC year folder.
        images: the folder of COCO's pictures.
        need_pictures: whether pictures will be loaded.

    Raises:
        ConfigError: pictures are needed and `images` does not say where they are.
        DataError: something is missing or wrong.
    """
    if annotations.is_dir():
        return read_voc(annotations, split, bad_boxes="keep", need_pictures=need_pictures)
    if need_pictures and images is None:
        raise ConfigError(f"--images is missing: name the folder of the pictures of {annotations}")
    return read_coco(images if need_pictures else None, annotations, bad_boxes="keep")


def read_runs(
    annotations: Path, split: str, truth: Annotations, detections: Sequence[Path], names: Sequence[str]
) -> list[Run]:
    """The detections of each run.

    Args:
        annotations, split: as `read_truth` was given.
        truth: what it read.
        detections: for COCO, a results JSON each, or the folder with the `detections.json` of `evaluate_detector`;
            for VOC, a folder of `comp4_det_<split>_<class>.txt` each.
        names: of the runs; none to call them as their files and folders are called.

    Raises:
        ConfigError: not one name for each, or two of the same.
        DataError: a file is missing or does not fit the annotations.
    """
    if names and len(names) != len(detections):
        raise ConfigError(f"--names: {len(names)} for {len(detections)} run(s); give one for each")
    names = list(names) or [path.stem or str(path) for path in detections]
    if len(set(names)) != len(names):
        raise ConfigError(f"two runs are called {max(names, key=names.count)}: give each its own with --names")
    read = _read_voc if annotations.is_dir() else _read_coco
    found = [read(path, split, truth) for path in detections]
    return [Run(*row) for row in zip(names, detections, found, strict=True)]


def _read_coco(path: Path, split: str, truth: Annotations) -> list[Detections]:
    return read_coco_results(path / "detections.json" if path.is_dir() else path, truth)


def _read_voc(path: Path, split: str, truth: Annotations) -> list[Detections]:
    if not path.is_dir():
        raise DataError(f"{path}: not a folder of comp4_det_{split_name(split)}_<class>.txt, as VOC annotations need")
    return read_voc_results(path, split_name(split), truth)
