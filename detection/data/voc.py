"""The PASCAL VOC layout: one XML file a picture, splits as lists of names (VOC2012 devkit, section 4)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from backbones.data.pictures import ENDINGS, read_image_size
from backbones.errors import DataError
from backbones.regular import read_regular_file
from detection.data.annotations import Annotations, BadBoxes, DetectionDataset, check_boxes, duplicate, looked_through
from detection.data.json_columns import MEND
from detection.data.pictures import MISSING, PictureFiles
from detection.data.roots import instead, voc_root_near

CORNERS = ("xmin", "ymin", "xmax", "ymax")
# The training sets of the paper by their usual names (4.3).
UNIONS = {
    "07": "VOC2007/trainval",
    "12": "VOC2012/trainval",
    "07+12": "VOC2007/trainval+VOC2012/trainval",
    "07++12": "VOC2007/trainval+VOC2007/test+VOC2012/trainval",
}

WRONG_LINE = "mend or remove the line"
EMPTY_LIST = "lists no pictures: fill it or name another split"
OTHER_CLASSES = "rename it, or name data of these classes"
_LARGEST_XML = 2**24  # bytes
_LONGEST_NAME = 240  # bytes: file systems allow 255, endings included


class VocObject(NamedTuple):
    """An object as its annotation file has it; corners are xmin, ymin, xmax, ymax, one-based and inclusive."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2) that count from zero, as everywhere else here."""
        xmin, ymin, xmax, ymax = self.corners
        return xmin - 1, ymin - 1, xmax, ymax

    @property
    def has_area(self) -> bool:
        """False where corners are swapped or coincide: that would be one pixel, and is taken for a mistake."""
        xmin, ymin, xmax, ymax = self.corners
        return xmax > xmin and ymax > ymin


class VocEntry(NamedTuple):
    """A picture that a list names, where its annotation and itself belong, and whether the picture is there."""

    identity: str
    xml: Path
    path: str
    is_there: bool


@dataclass
class _Picture:
    identity: str
    xml: Path
    path: str
    size: tuple[int, int]  # height, width
    objects: list[VocObject]


def read_voc(
    root: str | Path,
    split: str,
    class_names: Sequence[str] | None = None,
    bad_boxes: BadBoxes = "error",
    need_pictures: bool = True,
    need_annotations: bool = True,
) -> DetectionDataset:
    """Pictures and objects of a VOC split. The id of a picture is its file's stem; difficult objects are ignored.

    Args:
        root: a year folder (with JPEGImages, Annotations and ImageSets/Main), or a VOCdevkit folder of year folders.
        split: `[YEAR/]NAME`, several joined by "+": `trainval`, `VOC2007/trainval+VOC2012/trainval`. The year may be
            left out where `root` is a year folder or has only one. Or, as the whole split, a name of `UNIONS`: `07`,
            `12`, `07+12`, `07++12` (`07` and `12` want quotes in YAML; a list that is itself called so is written with
            its year: `VOC2007/07`).
        class_names: the classes, in label order; by default those found in the split, sorted.
        bad_boxes: see `check_boxes`.
        need_pictures: false to read annotations whose picture files are not there.
        need_annotations: false to read a split none of whose pictures has an annotation file (VOC2012's test set) as
            pictures alone, if `class_names` are given.

    Raises:
        DataError: something is missing or wrong; the message names the file.
    """
    lists = [_read_list(folder, name) for folder, name in voc_lists(Path(root), split)]
    annotated = need_annotations or any(entry.xml.exists() for entries in lists for entry in entries)
    with looked_through("voc"):
        pictures = [_read_picture(entry, need_pictures, annotated) for entries in lists for entry in entries]
    identities = [p.identity for p in pictures]
    if len(set(identities)) != len(identities):
        raise DataError(f"{root}: picture '{duplicate(identities)}' is listed twice in split '{split}': list it once")
    if class_names is None and not annotated:
        raise DataError(
            f"{root}: split '{split}' has no annotations, so its classes are not known: name a split with annotations"
        )
    if class_names is None:
        class_names = sorted({o.name for p in pictures for o in p.objects})
        if not class_names:
            raise DataError(f"{root}: no objects in split '{split}': name a split with objects")
    annotations, repaired, dropped = _flatten(pictures, list(class_names), bad_boxes)
    return DetectionDataset(annotations, PictureFiles([p.path for p in pictures]), repaired, dropped, annotated)


def voc_lists(root: Path, split: str) -> list[tuple[Path, str]]:
    """The year folders and list names that a split as `read_voc` takes it stands for. Raises DataError as it does."""
    if split not in UNIONS:
        return [year_folder(root, part.strip()) for part in split.split("+")]
    parts = UNIONS[split].split("+")
    missing = sorted({part.split("/")[0] for part in parts if not _is_year(_year(root, part.split("/")[0]))})
    if missing and root.is_dir():
        raise DataError(
            f"{root}: split '{split}' is {UNIONS[split]}, and there is no year folder {' or '.join(missing)} "
            f"(with ImageSets/Main) in it{instead(voc_root_near(root), root)}"
        )
    return [year_folder(root, part) for part in parts]


def year_folder(root: Path, part: str) -> tuple[Path, str]:
    """The year folder and the list's name that `[YEAR/]NAME` stands for under `root`, as `read_voc` takes them."""
    year, _, name = part.rpartition("/")
    if not name or os.sep in year or ".." in (year, name):
        raise DataError(f"split '{part}' is not of the form NAME or YEAR/NAME")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if year:
        folder = _year(root, year)
        if not _is_year(folder):
            raise DataError(f"{folder}: not a VOC year folder (no ImageSets/Main in it)")
        return folder, name
    if _is_year(root):
        return root, name
    years = sorted(f for f in root.iterdir() if _is_year(f))
    if len(years) == 1:
        return years[0], name
    if not years:
        problem = "neither a VOC year folder (no ImageSets/Main in it) nor a VOCdevkit folder of them"
        raise DataError(f"{root}: {problem}{instead(voc_root_near(root), root)}")
    raise DataError(f"{root} has {', '.join(y.name for y in years)}: write the split as {years[0].name}/{name}")


def _year(root: Path, year: str) -> Path:
    return root.parent / year if _is_year(root) and root.name == year else root / year


def _is_year(folder: Path) -> bool:
    return (folder / "ImageSets" / "Main").is_dir()


def _read_list(folder: Path, name: str) -> list[VocEntry]:
    path = folder / "ImageSets" / "Main" / f"{name}.txt"
    identities = []
    for number, line in enumerate(read_lines(path), 1):
        if line and not is_name(line):
            raise DataError(f"{path}, line {number}: '{line}' is not the name of a picture: {WRONG_LINE}")
        if line:
            identities.append(line)
    if not identities:
        raise DataError(f"{path}: {EMPTY_LIST}")
    return find_entries(folder, identities)


def read_lines(path: Path) -> list[str]:
    """The lines of a list of pictures, stripped. Raises DataError if there is none that can be read."""
    try:
        content = read_regular_file(path, advice="put a list of pictures there")
        return [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        names = sorted(f.stem for f in path.parent.glob("*.txt"))
        raise DataError(f"{path}: no such split; there are: {', '.join(names) or 'none'}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not in UTF-8 ({error.reason}): save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def is_name(line: str) -> bool:
    """Whether a line of a list names a picture, and nothing outside its folder."""
    return len(line.split()) == 1 and not set(line) & {"/", "\\", "\0"} and len(line.encode()) <= _LONGEST_NAME


def find_entries(folder: Path, identities: Sequence[str]) -> list[VocEntry]:
    """Where annotation and picture of each lie in a year folder."""
    picture_folder = folder / "JPEGImages"
    files = sorted(os.listdir(picture_folder)) if picture_folder.is_dir() else []
    file_of = {Path(f).stem: f for f in files if Path(f).suffix.lower() in ENDINGS}
    return [
        VocEntry(
            identity,
            folder / "Annotations" / f"{identity}.xml",
            os.path.join(picture_folder, file_of.get(identity, f"{identity}.jpg")),
            identity in file_of,
        )
        for identity in identities
    ]


def _read_picture(entry: VocEntry, need_pictures: bool, annotated: bool) -> _Picture:
    identity, xml, path, is_there = entry
    if need_pictures and not is_there:
        raise DataError(f"{xml}: its picture {path} {MISSING}")
    if not annotated:
        return _Picture(identity, xml, path, read_image_size(path), [])
    root = parse_xml(xml, path)
    # Some files leave the size out or have zeros there.
    size = read_size(root, xml) or read_image_size(path)
    return _Picture(identity, xml, path, size, [read_object(e, xml) for e in root.findall("object")])


def parse_xml(xml: Path, path: str) -> Element:
    """The annotation of the picture `path`. Raises DataError if there is none that can be read."""
    try:
        return defusedxml.ElementTree.fromstring(read_regular_file(xml, largest=_LARGEST_XML, advice=MEND))
    except FileNotFoundError as error:
        raise DataError(
            f"{xml}: no such annotation file (of picture {path}): put it there or take the picture off the list"
        ) from error
    except DefusedXmlException as error:
        raise DataError(f"{xml}: has a DOCTYPE with entities, as no annotation needs: remove it") from error
    except (ParseError, ValueError, LookupError, OSError, RecursionError) as error:
        raise DataError(f"{xml}: not an XML file that can be read ({type(error).__name__}: {error}): {MEND}") from error


def read_size(root: Element, xml: Path) -> tuple[int, int] | None:
    """(height, width) as an annotation says, None where it does not. Raises DataError if that is no size."""
    height = _number(root, "size/height", xml, default="0")
    width = _number(root, "size/width", xml, default="0")
    if max(height, width) >= 2**31:
        raise DataError(f"{xml}: a picture of {width:g}x{height:g} pixels can't be: mend its size")
    return (int(height), int(width)) if int(height) > 0 and int(width) > 0 else None


def read_object(element: Element, xml: Path) -> VocObject:
    """One object of an annotation. Raises DataError if something of it is missing or wrong."""
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{xml}: an object without a name: name or remove it")
    difficult = _number(element, "difficult", xml, default="0")
    if difficult not in (0, 1):
        raise DataError(f"{xml}: object '{name}': difficult is {difficult:g}, neither 0 nor 1: mend it")
    xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{corner}", xml) for corner in CORNERS)
    return VocObject(name, (xmin, ymin, xmax, ymax), bool(difficult))


def _number(element: Element, path: str, xml: Path, default: str | None = None) -> float:
    text = element.findtext(path, default)
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        problem = "is missing" if text is None else f"is '{text.strip()[:40]}', not a number"
        raise DataError(f"{xml}: <{path}> of <{element.tag}> {problem}: mend it")
    return value


def _flatten(pictures: list[_Picture], class_names: list[str], bad_boxes: BadBoxes) -> tuple[Annotations, int, int]:
    """The annotations, and how many boxes were repaired and dropped."""
    owners = [i for i, p in enumerate(pictures) for _ in p.objects]
    objects = [o for p in pictures for o in p.objects]
    label_of = {name: k for k, name in enumerate(class_names, 1)}
    for owner, item in zip(owners, objects, strict=True):
        if item.name not in label_of:
            known = f"the detector's classes ({', '.join(class_names)})"
            raise DataError(f"{pictures[owner].xml}: class '{item.name}' is not one of {known}: {OTHER_CLASSES}")

    def describe(row: int) -> str:
        corners = ", ".join(f"{c:g}" for c in objects[row].corners)
        return f"{pictures[owners[row]].xml}: box ({corners}) of '{objects[row].name}'"

    sizes = np.array([p.size for p in pictures], dtype=np.int64).reshape(-1, 2)
    boxes = np.array([o.box for o in objects], dtype=np.float64).reshape(-1, 4)
    has_area = np.array([o.has_area for o in objects], dtype=bool)
    images = np.array(owners, dtype=np.int64)
    boxes, kept, repaired = check_boxes(boxes, sizes[images], has_area, bad_boxes, describe)

    def keep(values: list[Any]) -> np.ndarray:
        return np.array(values)[kept] if values else np.zeros(0)

    annotations = Annotations.from_objects(
        class_names=class_names,
        image_ids=[p.identity for p in pictures],
        sizes=sizes,
        images=images[kept],
        boxes=boxes[kept],
        labels=keep([label_of[o.name] for o in objects]),
        ignore=keep([o.difficult for o in objects]),
    )
    return annotations, repaired, int((~kept).sum())
