"""What ILSVRC's two sets with boxes have in common: where they lie, and their XML files, VOC's but for the pixels.

Corners count from zero and are inclusive (the development kit adds 1 to widths and heights alone), so that a box is
(xmin, ymin, xmax + 1, ymax + 1) here. That is our reading of the files: their documentation does not say where pixels
begin.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backbones.data.pictures import read_image_size
from backbones.errors import DataError
from backbones.progress import progress_bar
from detection.data.annotations import BadBoxes
from detection.data.voc import parse_xml, read_lines, read_object, read_size

_INCLUSIVE = np.array([0, 0, 1, 1])  # from inclusive corners to (x1, y1, x2, y2)
_MANY = 20_000  # files that take long enough for a bar


class XmlEntry(NamedTuple):
    """A picture of a split, its file, and that of its annotation; None where it is known to hold no object."""

    identity: str
    path: str
    xml: str | None


@dataclass
class XmlObjects:
    """The objects of N pictures, M in all, as their annotation files have them.

    Args:
        entries: the pictures.
        names: of the classes that occur, sorted.
        sizes: (N, 2) int64, (height, width) of each picture file.
        images: (M,) int64, the picture of each object, ascending.
        labels: (M,) int64, places in `names`, from 0.
        boxes: (M, 4) float64.
        has_area: (M,) bool: a box of one pixel's width is taken for a mistake, as VOC's.
        rescaled: how many boxes were scaled since their file is of a picture of another size.
    """

    entries: Sequence[XmlEntry]
    names: list[str]
    sizes: NDArray[np.int64]
    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    has_area: NDArray[np.bool_]
    rescaled: int

    def describe(self, row: int) -> str:
        """File, box and class of an object, for messages."""
        corners = ", ".join(f"{corner:g}" for corner in self.boxes[row] - _INCLUSIVE)
        return f"{self.entries[self.images[row]].xml}: box ({corners}) of '{self.names[self.labels[row]]}'"

    def labels_in(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """(M,) labels 1..K. Raises DataError for an object of another class."""
        label_of = {name: label for label, name in enumerate(class_names, 1)}
        known = np.array([label_of.get(name, 0) for name in self.names], dtype=np.int64)
        labels = known[self.labels] if len(self.labels) else self.labels
        if not labels.all():
            row = int((labels == 0).argmax())
            file, name = self.entries[self.images[row]].xml, self.names[self.labels[row]]
            raise DataError(f"{file}: class '{name}' is not one of the {len(class_names)} that are known")
        return labels


def read_xml_objects(entries: Sequence[XmlEntry], bad_boxes: BadBoxes, description: str) -> XmlObjects:
    """Reads annotation files, and the sizes of their pictures (half a million of both take some minutes).

    Args:
        bad_boxes: where a file speaks of a picture of another size, "error" raises, "repair" scales its boxes, "keep"
            leaves them.
        description: what the bar says.

    Raises:
        DataError: a picture or its annotation is missing or wrong; the message names the file.
    """
    place_of: dict[str, int] = {}
    sizes, images, labels, corners = array("q"), array("q"), array("q"), array("d")
    rescaled = 0
    with progress_bar(entries, unit="file", description=description, shown=len(entries) >= _MANY) as bar:
        for image, (_, path, file) in enumerate(bar):
            height, width = read_image_size(path)
            sizes.extend((height, width))
            if file is None:
                continue
            xml = Path(file)
            root = parse_xml(xml, path)
            scale_x, scale_y = _scale(read_size(root, xml), (height, width), xml, path, bad_boxes)
            for element in root.iterfind("object"):
                name, (xmin, ymin, xmax, ymax), _ = read_object(element, xml)
                images.append(image)
                labels.append(place_of.setdefault(name, len(place_of)))
                corners.extend((xmin * scale_x, ymin * scale_y, (xmax + 1) * scale_x, (ymax + 1) * scale_y))
                rescaled += (scale_x, scale_y) != (1, 1)
    names = sorted(place_of)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[[place_of[name] for name in names]] = np.arange(len(names))
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    return XmlObjects(
        entries=entries,
        names=names,
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        images=np.array(images, dtype=np.int64),
        labels=ranks[np.array(labels, dtype=np.int64)],
        boxes=boxes,
        has_area=np.all(boxes[:, 2:] - boxes[:, :2] > 1, axis=1),
        rescaled=rescaled,
    )


def _scale(
    said: tuple[int, int] | None, size: tuple[int, int], xml: Path, path: str, bad_boxes: BadBoxes
) -> tuple[float, float]:
    """What x and y are multiplied by, of boxes in a picture that is said to be of one size and is of another."""
    if said is None or said == size or bad_boxes == "keep":
        return 1, 1
    if bad_boxes == "error":
        raise DataError(
            f"{xml}: says that its picture is of {said[1]}x{said[0]} pixels, {path} is of {size[1]}x{size[0]}; set "
            "--data.bad_boxes repair to scale its boxes"
        )
    return size[1] / said[1], size[0] / said[0]


def ilsvrc_folder(root: Path, task: str) -> Path | None:
    """The folder with Data/<task>: `root`, or a folder ILSVRC... in it; None if there is none.

    Args:
        task: CLS-LOC or DET.
    """
    inner = sorted(root.glob("ILSVRC*")) if root.is_dir() else []
    return next((folder for folder in (root, *inner) if (folder / "Data" / task).is_dir()), None)


def read_image_list(path: Path) -> list[tuple[str, str]]:
    """Lines `n01440764/n01440764_10026 1` of a file in ImageSets: names and what stands after them, perhaps nothing.

    Raises:
        DataError: there is no such list, it is empty, or a line names no picture below a folder.
    """
    listed = []
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        name, _, rest = line.partition(" ")
        parts = name.split("/")
        if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts) or len(line) > 500:
            raise DataError(f"{path}, line {number}: '{line[:80]}' does not name a picture")
        listed.append((name, rest.strip()))
    if not listed:
        raise DataError(f"{path}: lists no pictures")
    return listed


def newest_devkit_file(folder: Path, pattern: str) -> Path | None:
    """A file of the development kit of an ILSVRC folder, of the latest year; None if there is none."""
    return max((folder / "devkit/data").glob(pattern), default=None)
