"""What ILSVRC's two sets with boxes have in common: where they lie, and their XML files, VOC's but for the pixels.

Corners count from zero and are inclusive (the development kit adds 1 to widths and heights alone), so that a box is
(xmin, ymin, xmax + 1, ymax + 1) here. That is our reading of the files: their documentation does not say where pixels
begin.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backbones.data.pictures import read_image_size
from backbones.errors import DataError
from backbones.progress import progress_bar
from detection.data.annotations import FURTHEST, Annotations, BadBoxes, DetectionDataset, check_boxes
from detection.data.pictures import PictureFiles
from detection.data.voc import EMPTY_LIST, OTHER_CLASSES, WRONG_LINE, parse_xml, read_lines, read_object, read_size

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
        has_area: (M,) bool: a box that is one pixel wide in its file is taken for a mistake, as VOC's.
        rescaled: (M,) bool: boxes that were scaled since their file is of a picture of another size.
    """

    entries: Sequence[XmlEntry]
    names: list[str]
    sizes: NDArray[np.int64]
    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    has_area: NDArray[np.bool_]
    rescaled: NDArray[np.bool_]

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
            raise DataError(
                f"{file}: class '{name}' is not one of the {len(class_names)} that are known: {OTHER_CLASSES}"
            )
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
    has_area, rescaled = array("b"), array("b")
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
                found = read_object(element, xml)
                xmin, ymin, xmax, ymax = found.corners
                if max(map(abs, found.corners)) > FURTHEST:
                    raise DataError(
                        f"{xml}: a box of '{found.name}' reaches further than {FURTHEST:,.0f} pixels: mend its numbers"
                    )
                images.append(image)
                labels.append(place_of.setdefault(found.name, len(place_of)))
                corners.extend((xmin * scale_x, ymin * scale_y, (xmax + 1) * scale_x, (ymax + 1) * scale_y))
                has_area.append(found.has_area)
                rescaled.append((scale_x, scale_y) != (1, 1))
    names = sorted(place_of)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[[place_of[name] for name in names]] = np.arange(len(names))
    return XmlObjects(
        entries=entries,
        names=names,
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        images=np.array(images, dtype=np.int64),
        labels=ranks[np.array(labels, dtype=np.int64)],
        boxes=np.array(corners, dtype=np.float64).reshape(-1, 4),
        has_area=np.array(has_area, dtype=bool),
        rescaled=np.array(rescaled, dtype=bool),
    )


def make_dataset(
    objects: XmlObjects,
    class_names: Sequence[str],
    bad_boxes: BadBoxes,
    ignored: NDArray[np.bool_],
    *,
    name: str,
    keep_empty: bool = True,
    annotated: bool = True,
    without_boxes: int = 0,
) -> DetectionDataset:
    """The pictures, and their objects once `check_boxes` has looked at their boxes.

    Args:
        class_names: the classes, in label order.
        bad_boxes: see `check_boxes`.
        ignored: (M,) the objects that do not count.
        name: of the set, for messages.
        keep_empty: false to leave out the pictures that no box is left of.
        annotated, without_boxes: see `DetectionDataset`.

    Raises:
        DataError: an object is of another class, a box is bad, or all of them were dropped.
    """
    labels = objects.labels_in(class_names)
    boxes, kept, _ = check_boxes(
        objects.boxes, objects.sizes[objects.images], objects.has_area, bad_boxes, objects.describe
    )
    if len(kept) and not kept.any():
        raise DataError(f"{name}: none of its {len(kept):,} boxes has an area inside its picture: mend them")
    pictures = np.arange(len(objects.entries)) if keep_empty else np.unique(objects.images[kept])
    annotations = Annotations.from_objects(
        class_names=class_names,
        image_ids=[objects.entries[picture].identity for picture in pictures],
        sizes=objects.sizes[pictures],
        images=np.searchsorted(pictures, objects.images[kept]),
        boxes=boxes[kept],
        labels=labels[kept],
        ignore=ignored[kept],
    )
    changed = objects.rescaled | (boxes != objects.boxes).any(axis=1)
    return DetectionDataset(
        annotations,
        PictureFiles([objects.entries[picture].path for picture in pictures]),
        repaired=int((changed & kept).sum()),
        dropped=int((~kept).sum()),
        annotated=annotated,
        without_boxes=without_boxes,
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
            raise DataError(f"{path}, line {number}: '{line[:80]}' does not name a picture: {WRONG_LINE}")
        listed.append((name, rest.strip()))
    if not listed:
        raise DataError(f"{path}: {EMPTY_LIST}")
    return listed


def read_blacklist(folder: Path, task: str, is_entry: Callable[[list[str]], bool], description: str) -> list[list[str]]:
    """The words of each line of the development kit's blacklist, the latest year's; none where there is no such file.

    Args:
        folder: the ILSVRC folder.
        task: clsloc or det.
        is_entry: whether words are what a line has to hold,
        description: which this says, for messages.

    Raises:
        DataError: a line is no entry.
    """
    path = max((folder / "devkit/data").glob(f"ILSVRC*_{task}_validation_blacklist.txt"), default=None)
    lines = [] if path is None else [line.split() for line in read_lines(path)]
    for number, words in enumerate(lines, 1):
        if words and not is_entry(words):
            raise DataError(f"{path}, line {number}: '{' '.join(words)[:80]}' is not {description}: {WRONG_LINE}")
    return [words for words in lines if words]
