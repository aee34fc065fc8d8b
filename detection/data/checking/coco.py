"""Reading a COCO annotation file for a check: whatever is wrong becomes a finding, and the reading goes on."""

import math
from pathlib import Path
from typing import Any

from backbones.errors import ConfigError, DataError
from detection.data.checking.scan import (
    BAD_ENTRY,
    LISTED_TWICE,
    MISSING_PICTURE,
    MISSING_SPLIT,
    NAMELESS,
    NOT_ANNOTATED,
    PARTLY_ANNOTATED,
    UNKNOWN_CLASS,
    UNREADABLE,
    Box,
    ScannedPicture,
    SplitScan,
)
from detection.data.coco import (
    PICTURE_FOLDERS,
    PictureSearch,
    annotation_files,
    check_split_name,
    listed_splits,
    no_such_split,
    picture_folder,
)
from detection.data.json_columns import read_json, short
from detection.data.roots import coco_root_near, instead


def usual_coco_splits(root: Path) -> list[str]:
    """The splits that have an annotation file, train first; lists out of another such split are left out.

    Raises:
        ConfigError: there is none, or they are of several years.
        PermissionError: their folder can't be listed.
    """
    names = set(listed_splits(root, "instances"))
    names -= {name for name in names if PICTURE_FOLDERS.get(name) in names}
    found = sorted(names, key=lambda name: (not name.startswith("train"), name))
    if not found:
        near = coco_root_near(root)
        advice = instead(near, root) if near else "; name the splits with --splits, or the folder that has annotations/"
        raise ConfigError(f"{root / 'annotations'}: holds no instances_<split>.json{advice}")
    if len({name[-4:] for name in found if name[-4:].isdigit()}) > 1:
        raise ConfigError(
            f"{root}: has splits of several years, which share pictures ({', '.join(found)}): name those of one with "
            "--splits"
        )
    return found


def scan_coco(root: Path, split: str) -> SplitScan:
    """Reads the annotation files of a split, as `detection.data.coco.read_coco_split` takes it."""
    scan = SplitScan(split, "crowd", _describe_box)
    files = [file for part in split.split("+") if (file := _find_file(scan, root, part.strip())) is not None]
    without = [file for file in files if not file.with_objects]
    scan.annotated = len(without) < len(files) or not files
    for file in without:
        if scan.annotated:
            scan.find(PARTLY_ANNOTATED, file.path, f"has no objects, as other parts of {split} have: name them apart")
        else:
            scan.find(NOT_ANNOTATED, file.path, "lists pictures without objects")
    for file in files:
        file.read()
    return scan


def _find_file(scan: SplitScan, root: Path, part: str) -> "_CocoFile | None":
    try:
        check_split_name(part)
    except DataError as error:
        scan.find(MISSING_SPLIT, str(root), str(error))
        return None
    instances, alone = annotation_files(root, part)
    path = instances if instances.exists() or not alone.exists() else alone
    if not path.is_file():
        scan.find(MISSING_SPLIT, str(path), "is not a file" if path.exists() else no_such_split(root))
        return None
    return _CocoFile(scan, str(path), picture_folder(root, part), with_objects=path is instances)


class _CocoFile:
    """One annotation file on its way into a scan.

    Args:
        scan: where it goes.
        path: of the file.
        folder: of its pictures.
        with_objects: false for one that lists pictures alone.
    """

    def __init__(self, scan: SplitScan, path: str, folder: Path, *, with_objects: bool):
        self._scan = scan
        self.path = path
        self._folder = folder
        self.with_objects = with_objects
        self._picture_of: dict[int | str, int] = {}
        self._elsewhere: set[int | str] = set()  # pictures that another part of the split has too
        self._label_of: dict[int, int] = {}

    def read(self) -> None:
        """Reads all that can be read."""
        try:
            data = read_json(Path(self.path))
        except DataError as error:
            self._scan.find(UNREADABLE, self.path, str(error).removeprefix(f"{self.path}: "))
            return
        if not isinstance(data, dict):
            self._scan.find(UNREADABLE, self.path, "is not an object with images, annotations and categories")
            return
        self._read_categories(self._list(data, "categories"))
        self._read_images(self._list(data, "images"))
        if self.with_objects:
            self._read_objects(self._list(data, "annotations"))

    def _list(self, data: dict, key: str) -> list:
        value = data.get(key)
        if isinstance(value, list):
            return value
        self._scan.find(BAD_ENTRY, self.path, f"has no list '{key}'")
        return []

    def _read_categories(self, categories: list) -> None:
        joined_with = dict(self._scan.categories)
        here: dict[str, int] = {}
        for number, entry in enumerate(categories, 1):
            identity, name = _get(entry, "id"), _get(entry, "name")
            if type(identity) is not int or not isinstance(name, str):
                self._find(BAD_ENTRY, f"category number {number} has no id (a whole number) or no name")
            elif identity in self._label_of:
                self._find(BAD_ENTRY, f"category id {str(identity)[:40]} occurs twice")
            else:
                if here.setdefault(name, identity) != identity:
                    self._find(BAD_ENTRY, f"category name '{name[:40]}' has two ids")
                self._scan.categories.setdefault(name, identity)
                self._label_of[identity] = self._scan.add_class(name)
        if not self._label_of:
            self._find(BAD_ENTRY, "has no categories")
        elif joined_with and here != joined_with:
            self._find(BAD_ENTRY, "has other categories than the file it is joined with")

    def _read_images(self, images: list) -> None:
        search = PictureSearch(self._folder)
        for number, entry in enumerate(images, 1):
            identity, name, size = _get(entry, "id"), _get(entry, "file_name"), _size(entry)
            about = f"image {str(identity)[:40]}" if type(identity) in (int, str) else f"image number {number}"
            if type(identity) not in (int, str):
                self._find(BAD_ENTRY, f"{about} has no id")
                continue
            if identity in self._picture_of:
                self._find(LISTED_TWICE, f"image id {str(identity)[:40]} occurs twice: remove one of them")
                continue
            if (before := self._scan.list_picture(identity, self.path)) is not None:
                self._find(LISTED_TWICE, f"image id {str(identity)[:40]} is in {before} too: name one of the splits")
                self._elsewhere.add(identity)
                continue
            place = self._picture_of[identity] = len(self._scan.pictures)
            path = search.path(name) if isinstance(name, str) else None
            is_there = path is not None and search.is_there(path)
            self._scan.pictures.append(
                ScannedPicture(str(path or ""), self.path, about, size, is_there, self.with_objects)
            )
            if size is None:
                sides = f"height {short(_get(entry, 'height'))}, width {short(_get(entry, 'width'))}"
                message = f"has no height and width of 1 or more, below 2^31 ({sides})"
                self._scan.find_in_picture(BAD_ENTRY, place, message)
            if path is None:
                self._scan.find_in_picture(BAD_ENTRY, place, f"file_name {short(name)} names no file in {self._folder}")
            elif not is_there:
                self._scan.find_in_picture(MISSING_PICTURE, place, f"its picture {path} is missing")
        if not self._picture_of and not self._elsewhere:
            self._find(BAD_ENTRY, "lists no pictures")
        if len({type(identity) for identity in self._picture_of}) > 1:
            self._find(BAD_ENTRY, "some image ids are numbers and some are strings")

    def _read_objects(self, objects: list) -> None:
        seen: set[int | str] = set()
        for number, entry in enumerate(objects, 1):
            identity = _get(entry, "id")
            about = f"annotation {str(identity)[:40]}"
            if type(identity) not in (int, str):
                about = f"annotation number {number}"
                self._find(BAD_ENTRY, f"{about} has no id")
            elif identity in seen:
                self._find(BAD_ENTRY, f"annotation id {str(identity)[:40]} occurs twice")
            else:
                seen.add(identity)
            owner, category = _get(entry, "image_id"), _get(entry, "category_id")
            picture = self._picture_of.get(owner) if type(owner) in (int, str) else None
            label = self._label_of.get(category) if type(category) is int else None
            box, area, crowd = _box(entry), _number(_get(entry, "area", -1)), _number(_get(entry, "iscrowd", 0))
            if type(owner) in (int, str) and owner in self._elsewhere:
                continue
            if picture is None:
                self._find(BAD_ENTRY, f"{about}: image_id {short(owner)} is not listed in images")
            elif category is None:
                self._scan.find(NAMELESS, self.path, f"{about} has no category_id", picture)
            elif label is None:
                message = f"{about}: category_id {short(category)} is not listed in categories"
                self._scan.find(UNKNOWN_CLASS, self.path, message, picture)
            elif box is None or area is None or crowd is None:
                values = ", ".join(f"{k} {short(_get(entry, k))}" for k in ("bbox", "area", "iscrowd"))
                self._scan.find(BAD_ENTRY, self.path, f"{about}: not numbers as they should be: {values}", picture)
            else:
                x, y, width, height = box
                self._scan.add_object(
                    picture,
                    label,
                    (x, y, x + width, y + height),
                    area=area if area >= 0 else width * height,
                    has_area=width > 0 and height > 0,
                    ignore=crowd != 0,
                    identity=identity if type(identity) in (int, str) else f"number {number}",
                )

    def _find(self, kind: Any, message: str) -> None:
        self._scan.find(kind, self.path, message)


def _get(entry: Any, key: str, default: Any = None) -> Any:
    return entry.get(key, default) if isinstance(entry, dict) else None


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if type(value) in (int, bool):
        return float(value) if abs(value) < 2**63 else None
    return value if type(value) is float and math.isfinite(value) else None


def _box(entry: Any) -> Box | None:
    value = _get(entry, "bbox")
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, width, height = map(_number, value)
    return None if x is None or y is None or width is None or height is None else (x, y, width, height)


def _size(entry: Any) -> tuple[int, int] | None:
    height, width = _number(_get(entry, "height")), _number(_get(entry, "width"))
    if height is None or width is None or min(height, width) < 1 or max(height, width) >= 2**31:
        return None
    return int(height), int(width)


def _describe_box(box: Box) -> str:
    return f"[{box[0]:g}, {box[1]:g}, {box[2] - box[0]:g}, {box[3] - box[1]:g}]"
