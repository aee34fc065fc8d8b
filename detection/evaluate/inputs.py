"""Annotations and files of detections, whatever made them, as the commands that score and compare them take them."""

from pathlib import Path

from backbones.errors import ConfigError, DataError
from detection.data.annotations import Annotations, DetectionDataset
from detection.data.coco import read_coco
from detection.data.voc import read_voc
from detection.evaluate.arrays import DetectionTable
from detection.evaluate.files import read_coco_results, read_voc_results, results_split


def read_truth(
    annotations: Path, split: str, *, images: Path | None = None, need_pictures: bool = False
) -> DetectionDataset:
    """What detections are compared with. Boxes are kept as the files have them: official numbers count them all.

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


def read_found(annotations: Path, split: str, truth: Annotations, path: Path) -> DetectionTable:
    """The detections of one detector.

    Args:
        annotations, split: as `read_truth` was given.
        truth: what it read.
        path: for COCO, a results JSON, or the folder with the `detections.json` of `evaluate_detector`; for VOC, a
            folder of `comp4_det_<split>_<class>.txt`.

    Raises:
        DataError: a file is missing or does not fit the annotations.
    """
    if annotations.is_dir():
        if not path.is_dir():
            name = f"comp4_det_{results_split(split)}_<class>.txt"
            raise DataError(f"{path}: not a folder of {name}, as VOC annotations need")
        return read_voc_results(path, results_split(split), truth)
    if path.is_dir():
        path /= "detections.json"
        if not path.exists():
            raise DataError(f"{path.parent}: is a folder without detections.json; COCO annotations go with such a file")
    return read_coco_results(path, truth)
