"""The COCO layout: all objects of a split in one JSON file (cocodataset.org/#format-data)."""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from backbones.errors import DataError
from detection.data.annotations import (
    Annotations,
    BadBoxes,
    DetectionDataset,
    check_boxes,
    concatenate,
    duplicate,
    looked_through,
)
from detection.data.json_columns import Describe, column_of_ids, column_of_numbers, look_up, read_json, short
from detection.data.pictures import MISSING, PictureFiles

# Lists of pictures that lie in the folder of another split.
PICTURE_FOLDERS = {
    "minival2014": "val2014",
    "valminusminival2014": "val2014",
    "test-dev2015": "test2015",
    "test-dev2017": "test2017",
}
_OTHER = "rename it, or name data of the model's classes"


def read_coco_split(
    root: str | Path,
    split: str,
    class_names: Sequence[str] | None = None,
    bad_boxes: BadBoxes = "error",
    need_annotations: bool = True,
) -> DetectionDataset:
    """A split of the COCO layout: pictures in root/SPLIT, objects in root/annotations/instances_SPLIT.json.

    Args:
        root: the folder of both.
        split: `train2017`; several are joined by "+": `train2014+valminusminival2014`. The pictures of `minival2014`
            and `valminusminival2014` are those of `val2014`, those of `test-dev2017` lie in `test2017`.
        class_names: see `read_coco`.
        bad_boxes: see `check_boxes`.
        need_annotations: false to read a split that has no instances_SPLIT.json, but COCO's image_info_SPLIT.json, as
            pictures alone.
    """
    parts = []
    for name in (n.strip() for n in split.split("+")):
        file, has_objects = _annotation_file(Path(root), name, need_annotations)
        with looked_through("coco"):
            parts.append(read_coco(picture_folder(Path(root), name), file, class_names, bad_boxes, has_objects))
    if len(parts) == 1:
        return parts[0]
    if len({part.annotated for part in parts}) > 1:
        raise DataError(f"{root}: of the splits {split}, some have annotations and some have not; name them apart")
    paths = [path for p in parts if isinstance(p.load_image, PictureFiles) for path in p.load_image.paths]
    annotations = concatenate([p.annotations for p in parts])
    repaired, dropped = sum(p.repaired for p in parts), sum(p.dropped for p in parts)
    return DetectionDataset(annotations, PictureFiles(paths), repaired, dropped, parts[0].annotated)


def check_split_name(name: str) -> None:
    """Raises DataError if a split can't be called so, or names something outside the data set."""
    if not name or "/" in name or "\\" in name or "\0" in name or name == "..":
        raise DataError(f"'{name}' is not the name of a split")


def picture_folder(root: Path, split: str) -> Path:
    """Where the pictures of a split lie."""
    return root / PICTURE_FOLDERS.get(split, split)


def annotation_files(root: Path, split: str) -> tuple[Path, Path]:
    """Where the annotations of a split belong, and the list of its pictures where those are not published."""
    return root / "annotations" / f"instances_{split}.json", root / "annotations" / f"image_info_{split}.json"


def listed_splits(root: Path, form: str = "(?:instances|image_info)") -> list[str]:
    """The splits that have files of a form (a pattern) in root/annotations, sorted.

    Raises:
        OSError: the folder is there, and can't be listed.
    """
    try:
        names = os.listdir(root / "annotations")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted({match[1] for name in names if (match := re.fullmatch(rf"{form}_([^\n]+)\.json", name))})


def no_such_split(root: Path) -> str:
    """What to say of an annotation file that is missing."""
    return f"no such file; there are the splits: {', '.join(listed_splits(root)) or 'none'}"


def _annotation_file(root: Path, name: str, need_annotations: bool) -> tuple[Path, bool]:
    """The file of a split, and whether it has objects."""
    check_split_name(name)
    instances, pictures_alone = annotation_files(root, name)
    if instances.exists():
        return instances, True
    if not pictures_alone.exists():
        raise DataError(f"{instances}: {no_such_split(root)}")
    if need_annotations:
        raise DataError(f"{instances}: no such file; {pictures_alone} has no objects: name another split")
    return pictures_alone, False


def read_coco(
    images_folder: str | Path | None,
    annotation_file: str | Path,
    class_names: Sequence[str] | None = None,
    bad_boxes: BadBoxes = "error",
    has_objects: bool = True,
) -> DetectionDataset:
    """Pictures and objects of a COCO annotation file, in its order. Crowds are ignored.

    Args:
        images_folder: where the pictures are; None to score detections without them.
        annotation_file: the JSON file.
        class_names: the classes, in label order: those of the file in any order; by default, in the order of their ids.
        bad_boxes: see `check_boxes`.
        has_objects: false for COCO's image_info_*.json, which has images and categories alone.

    Raises:
        DataError: something is missing or wrong; the message names the file and the id.
    """
    file = Path(annotation_file)
    data = read_json(file)
    if not isinstance(data, dict):
        raise DataError(f"{file}: not a COCO annotation file (an object with images, annotations and categories)")
    images, categories = _list(data, "images", file), _list(data, "categories", file)
    objects = _list(data, "annotations", file) if has_objects else []
    names, category_ids = _read_categories(categories, class_names, file)

    def image_at(row: int) -> str:
        return f"{file}: image {_identity(images, row)}"

    image_ids = _distinct(column_of_ids(images, "id", (int, str), image_at), "image id", file)
    sizes = column_of_numbers(images, ("height", "width"), image_at)
    if len({type(i) for i in image_ids}) > 1:
        raise DataError(f"{file}: some image ids are numbers and some are strings: write them alike")
    if len(sizes) and not (sizes.min() >= 1 and sizes.max() < 2**31):
        row = int((~((sizes >= 1) & (sizes < 2**31)).all(axis=1)).argmax())
        raise DataError(
            f"{image_at(row)} has the size {sizes[row, 1]:g}x{sizes[row, 0]:g}: give its width and height in pixels"
        )
    load_image = _no_pictures if images_folder is None else _find_pictures(Path(images_folder), images, image_at)
    arrays, repaired, dropped = _read_objects(objects, image_ids, category_ids, sizes, bad_boxes, file)
    annotations = Annotations.from_objects(
        class_names=names, category_ids=category_ids, image_ids=image_ids, sizes=sizes, **arrays
    )
    return DetectionDataset(annotations, load_image, repaired, dropped, has_objects)


def _read_categories(categories: list, class_names: Sequence[str] | None, file: Path) -> tuple[list[str], list[int]]:
    """Names and ids of the classes, in label order."""

    def category_at(row: int) -> str:
        return f"{file}: category {_identity(categories, row)}"

    ids = _distinct(column_of_ids(categories, "id", (int,), category_at), "category id", file)
    names = _distinct(column_of_ids(categories, "name", (str,), category_at), "category name", file)
    if not ids:
        raise DataError(f"{file}: no categories: list the classes there")
    id_of = dict(sorted(zip(names, ids, strict=True), key=lambda item: item[1]))
    if class_names is None:
        class_names = list(id_of)
    for name in class_names:
        if name not in id_of:
            raise DataError(f"{file}: no category is called '{name}', as a class of the model is: {_OTHER}")
    for name in id_of:
        if name not in class_names:
            raise DataError(f"{file}: category '{name}' is not one of the model's classes: {_OTHER}")
    return list(class_names), [id_of[name] for name in class_names]


def _read_objects(
    objects: list, image_ids: list, category_ids: list[int], sizes: NDArray, bad_boxes: BadBoxes, file: Path
) -> tuple[dict[str, NDArray], int, int]:
    """The arrays of the objects, and how many boxes were repaired and dropped."""

    def object_at(row: int) -> str:
        return f"{file}: annotation {_identity(objects, row)}"

    _distinct(column_of_ids(objects, "id", (int, str), object_at), "annotation id", file)
    images = look_up(objects, "image_id", {v: i for i, v in enumerate(image_ids)}, object_at)
    labels = look_up(objects, "category_id", {v: k for k, v in enumerate(category_ids, 1)}, object_at)
    boxes = column_of_numbers(objects, "bbox", object_at, length=4)
    crowd = column_of_numbers(objects, "iscrowd", object_at, default=0)
    areas = column_of_numbers(objects, "area", object_at, default=-1)
    with np.errstate(over="ignore"):  # infinite corners are refused next
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners, kept, repaired = check_boxes(
        corners,
        sizes[images].astype(np.int64),
        (boxes[:, 2] > 0) & (boxes[:, 3] > 0),
        bad_boxes,
        lambda row: f"{object_at(row)}: box {objects[row]['bbox']}",
    )
    areas = np.where(areas < 0, boxes[:, 2] * boxes[:, 3], areas)
    arrays = {"images": images, "boxes": corners, "labels": labels, "ignore": crowd != 0, "areas": areas}
    return {name: array[kept] for name, array in arrays.items()}, repaired, int((~kept).sum())


def _find_pictures(folder: Path, images: list, image_at: Describe) -> PictureFiles:
    search, paths = PictureSearch(folder), []
    for row, name in enumerate(column_of_ids(images, "file_name", (str,), image_at)):
        if (path := search.path(name)) is None:
            raise DataError(f"{image_at(row)}: file_name {short(name)} leads out of {folder}: name a file in it")
        if not search.is_there(path):
            raise DataError(f"{image_at(row)}: its picture {path} {MISSING}")
        paths.append(str(path))
    return PictureFiles(paths)


class PictureSearch:
    """Looks for pictures in a folder: one listing is far cheaper than a look at each of 118,000 files."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._listings: dict[str, set[str]] = {}

    def path(self, name: str) -> Path | None:
        """Where the picture of that `file_name` belongs; None if no picture in the folder can be called so."""
        inner = PurePosixPath(name)
        if "\\" in name or "\0" in name or inner.is_absolute() or ".." in inner.parts or not inner.parts:
            return None
        return self._folder / inner

    def is_there(self, path: Path) -> bool:
        """Whether there is such a file. Raises OSError if its folder is there and can't be listed."""
        parent = str(path.parent)
        if parent not in self._listings:
            try:
                self._listings[parent] = set(os.listdir(parent))
            except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that can't be encoded
                self._listings[parent] = set()
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):  # a name of the file, or links of the folder
                    raise
                self._listings[parent] = set()
        return path.name in self._listings[parent]


def _no_pictures(index: int) -> torch.Tensor:
    raise DataError("this data set was read without a folder of pictures")


def _list(data: dict, key: str, file: Path) -> list:
    if key not in data:
        raise DataError(f"{file}: has no '{key}': name a file of annotations")
    if not isinstance(data[key], list):
        raise DataError(f"{file}: '{key}' is not a list: name a file of annotations")
    return data[key]


def _distinct(values: list, what: str, file: Path) -> list:
    if len(set(values)) != len(values):
        raise DataError(f"{file}: {what} {duplicate(values)} occurs twice: remove or change one")
    return values


def _identity(entries: list, row: int) -> str:
    """How to name an entry in a message: by its id, or its place where it has none."""
    entry = entries[row]
    return str(entry["id"])[:40] if isinstance(entry, dict) and "id" in entry else f"number {row + 1}"
