"""ImageNet detection, ILSVRC's DET: pictures of everyday scenes, and boxes of the objects of 200 classes."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backbones.errors import DataError
from detection.data.annotations import BadBoxes, DetectionDataset, duplicate
from detection.data.ilsvrc import (
    XmlEntry,
    XmlObjects,
    ilsvrc_folder,
    make_dataset,
    read_blacklist,
    read_image_list,
    read_xml_objects,
)

_OF_A_CLASS = re.compile(r"train_[0-9]{1,4}")  # lists whose lines end in 1, 0 or -1
_KINDS = ("train", "val", "test")


def read_det(
    root: str | Path,
    split: str,
    class_names: Sequence[str] | None = None,
    bad_boxes: BadBoxes = "error",
    need_annotations: bool = True,
) -> DetectionDataset:
    """Pictures and objects of a split of ILSVRC's DET.

    Ids of pictures are their names in the lists, names of classes are WordNet ids; boxes: see `detection.data.ilsvrc`.
    Objects of a class in a picture that the development kit's blacklist names
    (devkit/data/ILSVRC*_det_validation_blacklist.txt, if it is there) are to be ignored.

    Args:
        root: the ILSVRC folder, or the one above it: Data/DET/{train/ILSVRC2013_train/<wnid>/*.JPEG,
            train/ILSVRC2014_train_0000/*.JPEG, ..., val/*.JPEG}, Annotations/DET likewise (*.xml), ImageSets/DET/*.txt.
        split: lists ImageSets/DET/NAME.txt, joined by "+": `train+val1`. Their names begin with train, val or test,
            the folder of their pictures; what stands after a picture's name does not matter. But train_1 to train_200
            end in 1 (all objects of the class are annotated), 0 (some) or -1 (there is none): only pictures with a 1
            are taken, and `train` is all that have one in any of these lists (where there are none, train.txt). The
            halves val1 and val2 of the validation set are no official lists: R-CNN's authors made them.
        class_names: the classes, in label order; by default those found in the split, sorted.
        bad_boxes: see `check_boxes` and `read_xml_objects`.
        need_annotations: false to read a split that has no folder of annotations (test) as pictures alone, if
            `class_names` are given.

    Raises:
        DataError: something is missing or wrong; the message names the file.
    """
    folder = ilsvrc_folder(Path(root), "DET")
    if folder is None:
        problem = (
            "no DET set (Data/DET, here or in a folder ILSVRC) is in it" if Path(root).is_dir() else "no such folder"
        )
        raise DataError(f"{root}: {problem}")
    lists = [_split_kind(name.strip()) for name in split.split("+")]
    annotated = {kind: (folder / "Annotations/DET" / kind).is_dir() for _, kind in lists}
    has_objects = all(annotated.values())
    if not has_objects and (need_annotations or any(annotated.values()) or class_names is None):
        missing = next(kind for kind, there in annotated.items() if not there)
        raise DataError(
            f"{folder / 'Annotations/DET' / missing}: no such folder, so no objects for the split '{split}'"
        )
    entries = [entry for name, kind in lists for entry in _read_split(folder, name, kind, has_objects)]
    if (twice := duplicate([entry.identity for entry in entries])) is not None:
        raise DataError(f"{root}: picture '{twice}' is listed twice in split '{split}': list it once")
    objects = read_xml_objects(entries, bad_boxes, f"boxes of {split}")
    names = objects.names if class_names is None else list(class_names)
    if not names:
        raise DataError(f"{root}: no objects in split '{split}': name a split with objects")
    ignored = _find_ignored(folder, objects)
    return make_dataset(objects, names, bad_boxes, ignored, name=f"{root}: split '{split}'", annotated=has_objects)


def _split_kind(name: str) -> tuple[str, str]:
    """The name of a list, and the folder of its pictures."""
    kind = next((kind for kind in _KINDS if name.startswith(kind)), None)
    if kind is None or not re.fullmatch(r"[\w-]+", name):
        raise DataError(f"split '{name}' is not the name of a list that begins with {', '.join(_KINDS)}")
    return name, kind


def _read_split(folder: Path, name: str, kind: str, has_objects: bool) -> list[XmlEntry]:
    lists = folder / "ImageSets/DET"
    paths = [lists / f"{name}.txt"]
    if name == "train":
        of_classes = [path for path in lists.glob("train_*.txt") if _OF_A_CLASS.fullmatch(path.stem)]
        paths = sorted(of_classes, key=lambda path: int(path.stem.partition("_")[2])) or paths
    listed: list[str] = []
    for path in paths:
        listed += _positives(path) if _OF_A_CLASS.fullmatch(path.stem) else [each for each, _ in read_image_list(path)]
    if name == "train":
        listed = list(dict.fromkeys(listed))  # a picture may have objects of several classes
    if not listed:
        raise DataError(f"{paths[0]}: lists no pictures with objects of its class")
    pictures, annotations = folder / "Data/DET" / kind, folder / "Annotations/DET" / kind
    return [
        XmlEntry(each, f"{pictures}/{each}.JPEG", f"{annotations}/{each}.xml" if has_objects else None)
        for each in listed
    ]


def _positives(path: Path) -> list[str]:
    """The pictures in which all objects of a class are annotated, of the list of that class."""
    names = []
    for name, flag in read_image_list(path):
        if flag not in ("1", "0", "-1"):
            raise DataError(f"{path}: after '{name}' stands '{flag[:40]}', not 1, 0 or -1: mend it")
        if flag == "1":
            names.append(name)
    return names


def _find_ignored(folder: Path, objects: XmlObjects) -> NDArray[np.bool_]:
    """(M,) whether each object is of a class that does not count in its picture, as it is too ambiguous there."""
    numbered = folder / "ImageSets/DET/val.txt"
    name_of = {number: name for name, number in read_image_list(numbered)} if numbered.exists() else {}

    def is_entry(words: list[str]) -> bool:
        return len(words) == 2 and (words[0] in name_of or not name_of)

    entries = read_blacklist(folder, "det", is_entry, "the number of a picture and a class")
    left_out = {(name_of[number], name) for number, name in entries if number in name_of}
    rows = zip(objects.images.tolist(), objects.labels.tolist(), strict=True)
    return np.array(
        [(objects.entries[image].identity, objects.names[label]) in left_out for image, label in rows], dtype=bool
    )
