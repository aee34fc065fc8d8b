"""A detection data set by the name of its layout."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from backbones.errors import ConfigError, DataError
from detection.data.annotations import BadBoxes, DetectionDataset
from detection.data.coco import read_coco_split
from detection.data.det import read_det
from detection.data.shapes import shapes_for_detection
from detection.data.voc import read_voc


def read_split(
    name: Literal["voc", "coco", "det", "shapes"],
    root: str | None,
    split: str,
    class_names: Sequence[str] | None,
    *,
    bad_boxes: BadBoxes,
    drawn_size: int,
    drawn_count: int,
    need_annotations: bool = True,
) -> DetectionDataset:
    """Reads one split.

    Args:
        class_names: the classes that labels must count in; None takes the data's own.
        drawn_size, drawn_count: side and number of the pictures that the built-in shapes draw.
        need_annotations: False reads a test set whose annotations are not published as pictures alone; its `annotated`
            is False then.

    Raises:
        ConfigError: no root where one is needed, or other classes than the shapes'.
        DataError: the data can't be read.
    """
    if name == "shapes":
        dataset = shapes_for_detection(split, drawn_count, drawn_size)
        if class_names is not None and list(class_names) != dataset.annotations.class_names:
            raise ConfigError(f"data.name shapes: its classes are not the detector's ({', '.join(class_names)})")
        return dataset
    if not root:
        raise ConfigError(f"data.root is missing: name the folder of the {name} data")
    readers: dict[str, Callable[..., DetectionDataset]] = {"voc": read_voc, "coco": read_coco_split, "det": read_det}
    dataset = readers[name](root, split, class_names, bad_boxes, need_annotations=need_annotations)
    if not len(dataset):
        raise DataError(f"{root}: split '{split}' holds no pictures")
    return dataset


def for_testing(bad_boxes: Literal["error", "repair"]) -> BadBoxes:
    """What becomes of bad boxes in a test set: official numbers count every box as the files have it."""
    return "keep" if bad_boxes == "repair" else "error"


def fingerprint(dataset: DetectionDataset) -> str:
    """A short digest of classes, picture ids, boxes and labels (not of the pixels)."""
    annotations = dataset.annotations
    digest = hashlib.sha256("\n".join([*annotations.class_names, *map(str, annotations.image_ids)]).encode())
    for array in (annotations.boxes, annotations.labels, annotations.ignore, annotations.offsets):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
