"""ImageNet localisation, ILSVRC's CLS-LOC: pictures of one class each, and boxes of its objects."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones.data.pictures import ENDINGS
from backbones.errors import DataError
from backbones.text import printable
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
from detection.data.pictures import MISSING

_WORDNET_ID = re.compile(r"n[0-9]+")


@dataclass
class ClsLocFolders:
    """Where a split of a kind (train or val) lies. In `pictures` and `annotations` files stand in class folders, or
    beside each other."""

    root: Path
    kind: str
    pictures: Path
    annotations: Path
    image_list: Path | None


def read_cls_loc(
    root: str | Path, split: str, class_names: Sequence[str] | None = None, *, bad_boxes: BadBoxes = "error"
) -> DetectionDataset:
    """Pictures with boxes of a split of ILSVRC's CLS-LOC; the objects of a picture are of one class, which is its own.

    Ids of pictures are their files' stems, names of classes are WordNet ids; boxes: see `detection.data.ilsvrc`. Only
    some of the training pictures have boxes: where no list says which, those without are left out, and counted in
    `without_boxes`. The objects of pictures on the development kit's blacklist
    (devkit/data/ILSVRC*_clsloc_validation_blacklist.txt, if it is there) are to be ignored.

    Args:
        root: the ILSVRC folder, or the one above it: Data/CLS-LOC/{train/<wnid>/*.JPEG, val/*.JPEG},
            Annotations/CLS-LOC/{train/<wnid>/*.xml, val/*.xml} and perhaps ImageSets/CLS-LOC/{train_loc,val}.txt. Or
            what `prepare_data.py imagenet` made, {train,val}/<wnid>/*.JPEG, with the official archives of boxes
            unpacked in Annotations/train (ILSVRC2012_bbox_train_v2.tar.gz: <wnid>/*.xml) and Annotations
            (ILSVRC2012_bbox_val_v3.tgz: val/*.xml).
        split: train (the pictures of train_loc.txt, if it is there), val, or a list ImageSets/CLS-LOC/NAME.txt whose
            name begins with train_ or val_.
        class_names: the classes, in label order; by default those found in the split, sorted.
        bad_boxes: see `check_boxes` and `read_xml_objects`; a picture all of whose boxes are dropped is left out.

    Raises:
        DataError: something is missing or wrong, as a listed or validation picture without its XML file, one that has
            no objects or objects of two classes, or a training picture in the folder of another; the message names the
            file.
    """
    folders = cls_loc_folders(Path(root), split)
    entries, without_boxes = _find_entries(folders, split)
    objects = read_xml_objects(entries, bad_boxes, f"boxes of {split}")
    _check_one_class(objects)
    if folders.kind == "train":
        _check_class_folders(objects)
    blacklist = _read_blacklist(folders) if folders.kind == "val" else set()
    ignored = np.array([entries[image].identity in blacklist for image in objects.images], dtype=bool)
    return make_dataset(
        objects,
        objects.names if class_names is None else list(class_names),
        bad_boxes,
        ignored,
        name=f"{root}: split '{split}'",
        keep_empty=False,
        without_boxes=without_boxes,
    )


def cls_loc_folders(root: Path, split: str) -> ClsLocFolders:
    """Where a split lies, as `read_cls_loc` takes it. Raises DataError if it is not there."""
    kind = split.partition("_")[0]
    if kind not in ("train", "val") or not re.fullmatch(r"\w+", split):
        raise DataError(f"split '{split}' is neither train nor val, nor a list whose name begins with train_ or val_")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folder = ilsvrc_folder(root, "CLS-LOC")
    if folder is not None:
        pictures, annotations = folder / "Data/CLS-LOC" / kind, folder / "Annotations/CLS-LOC" / kind
        lists = folder / "ImageSets/CLS-LOC"
    elif (root / "Annotations").is_dir():
        folder, pictures, annotations, lists = root, root / kind, root / "Annotations" / kind, root / "ImageSets"
    else:
        raise DataError(
            f"{root}: no CLS-LOC set (Data/CLS-LOC and Annotations/CLS-LOC, here or in a folder ILSVRC; or {kind} and "
            f"Annotations/{kind}) is in it"
        )
    for each in (pictures, annotations):
        if not each.is_dir():
            raise DataError(f"{each}: no such folder (the {'pictures' if each is pictures else 'boxes'} of '{split}')")
    image_list = lists / f"{'train_loc' if split == 'train' else split}.txt"
    return ClsLocFolders(
        folder, kind, pictures, annotations, image_list if split != kind or image_list.exists() else None
    )


def _find_entries(folders: ClsLocFolders, split: str) -> tuple[list[XmlEntry], int]:
    """The pictures of a split that have an annotation, and how many there are that need none and have none."""
    listed, places = None, []
    if folders.image_list is not None:
        places = [name.rpartition("/")[::2] for name, _ in read_image_list(folders.image_list)]
        listed = [identity for _, identity in places]
        if (twice := duplicate(listed)) is not None:
            raise DataError(f"{folders.image_list}: picture '{twice}' is listed twice: list it once")
    wanted = None if listed is None else set(listed)
    xml_of = _files_by_stem(folders.annotations, {".xml"}, wanted)
    path_of = _files_by_stem(folders.pictures, ENDINGS, wanted)
    for identity in listed or []:
        if identity not in path_of:
            raise DataError(f"{folders.pictures}: picture '{identity}' of {folders.image_list} {MISSING}")
    for place, identity in places:
        there = os.path.dirname(path_of[identity])
        if place and there not in (str(folders.pictures), str(folders.pictures / place)):
            raise DataError(
                f"{folders.image_list}: says that picture '{identity}' is in {place}, it is in {there}: mend the list"
            )
    identities = sorted(path_of) if listed is None else listed
    annotated = [identity for identity in identities if identity in xml_of]
    if not identities:
        raise DataError(f"{folders.pictures}: holds no pictures ({', '.join(sorted(ENDINGS))})")
    if not annotated:
        raise DataError(f"{folders.annotations}: holds no annotation file of any picture of '{split}'")
    if len(annotated) < len(identities) and (listed is not None or split != "train"):
        first, *others = [identity for identity in identities if identity not in xml_of]
        more = f" ({len(others):,} more are missing)" if others else ""
        raise DataError(f"{folders.annotations}: no {first}.xml, of picture {path_of[first]}{more}: put it there")
    entries = [XmlEntry(identity, path_of[identity], xml_of[identity]) for identity in annotated]
    return entries, len(identities) - len(entries)


def _files_by_stem(folder: Path, endings: Collection[str], wanted: set[str] | None) -> dict[str, str]:
    """The files in a folder and in those in it, of some stems or all. Raises DataError if a stem is there twice."""
    found: dict[str, str] = {}
    try:
        with os.scandir(folder) as entries:
            inner = sorted(entry.path for entry in entries if entry.is_dir())
        names_in = {place: os.listdir(place) for place in (str(folder), *inner)}
    except OSError as error:
        raise DataError(f"{error.filename}: can't be listed ({error.strerror})") from error
    for place, names in names_in.items():
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() not in endings or (wanted is not None and stem not in wanted):
                continue
            path = os.path.join(place, name)
            if not name.isprintable():
                raise DataError(
                    f"{printable(path)}: its name is not UTF-8, or has characters that can't be printed: rename it"
                )
            if found.setdefault(stem, path) != path:
                raise DataError(f"{path}: {found[stem]} has the same name: rename or remove one")
    return found


def _check_one_class(objects: XmlObjects) -> None:
    """Raises DataError where a picture has no object, or objects of two classes."""
    counts = np.bincount(objects.images, minlength=len(objects.entries))
    if not counts.all():
        raise DataError(
            f"{objects.entries[int((counts == 0).argmax())].xml}: has no objects: add one or leave the picture out"
        )
    differs = (np.diff(objects.labels) != 0) & (np.diff(objects.images) == 0)
    if differs.any():
        row = int(differs.argmax())
        one, other = (objects.names[label] for label in objects.labels[row : row + 2])
        file = objects.entries[objects.images[row]].xml
        raise DataError(f"{file}: has objects of two classes, '{one}' and '{other}'; a picture is of one: mend it")


def _check_class_folders(objects: XmlObjects) -> None:
    """Raises DataError where a picture lies in the folder of another class than its objects' (both WordNet ids)."""
    for image, label in zip(objects.images.tolist(), objects.labels.tolist(), strict=True):
        name, path = objects.names[label], objects.entries[image].path
        place = os.path.basename(os.path.dirname(path))
        if place != name and _WORDNET_ID.fullmatch(place) and _WORDNET_ID.fullmatch(name):
            raise DataError(
                f"{objects.entries[image].xml}: has objects of '{name}', but {path} is of '{place}': "
                "mend it or move the picture"
            )


def _read_blacklist(folders: ClsLocFolders) -> set[str]:
    """Ids of validation pictures whose boxes are not good enough to count; the file has their numbers."""

    def is_number(words: list[str]) -> bool:
        return len(words) == 1 and re.fullmatch(r"[0-9]{1,8}", words[0]) is not None

    numbers = read_blacklist(folders.root, "clsloc", is_number, "the number of a picture")
    return {f"ILSVRC2012_val_{int(number):08d}" for (number,) in numbers}
