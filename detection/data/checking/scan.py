"""What a check of a detection set reads of a split: all that can be read, and a finding for whatever can't."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backbones.data.findings import Finding, Kind

MISSING_SPLIT = Kind("missing_split", "error", "splits that are not there")
UNREADABLE = Kind("unreadable", "error", "annotation files that can't be read")
BAD_ENTRY = Kind("bad_entry", "error", "entries that are not of the layout's form")
NAMELESS = Kind("nameless", "error", "objects without a name")
UNKNOWN_CLASS = Kind("unknown_class", "error", "classes that are not listed, or that the first split lacks")
MISSING_PICTURE = Kind("missing_picture", "error", "pictures that are not there")
MISSING_ANNOTATION = Kind("missing_annotation", "error", "pictures without an annotation file, where others have one")
LISTED_TWICE = Kind("listed_twice", "error", "pictures that a split lists twice")
PARTLY_ANNOTATED = Kind("partly_annotated", "error", "joined splits of which some have annotations and some have not")
UNTRAINABLE = Kind("untrainable", "error", "a first split, which is trained on, without annotations")
NOT_ANNOTATED = Kind("not_annotated", "note", "splits without annotations, of which only the pictures are checked")

Box = tuple[float, float, float, float]
_COLUMNS = 9  # picture, label, x1, y1, x2, y2, area, has_area, ignore


class ScannedPicture(NamedTuple):
    """A picture of a split.

    Args:
        path: its file.
        file: where its annotation is.
        about: names the picture where `file` has those of others too; else empty.
        size: (height, width) as annotated, None where nothing is said.
        is_there: whether there is such a file.
        annotated: False where the objects of its part of the split are not published.
    """

    path: str
    file: str
    about: str
    size: tuple[int, int] | None
    is_there: bool
    annotated: bool = True


@dataclass
class ScannedObjects:
    """The objects of a split, M in all, in the order of its files.

    Args:
        images: (M,) int64, the place of each object's picture.
        labels: (M,) int64, counted from 0.
        boxes: (M, 4) float64 (x1, y1, x2, y2), of any finite numbers.
        areas: (M,) float64, in pixels, as COCO counts them.
        has_area: (M,) bool, what the data set's own form of the box says.
        ignore: (M,) bool: difficult objects and crowds.
    """

    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    has_area: NDArray[np.bool_]
    ignore: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def of_picture(self, picture: int) -> "ScannedObjects":
        """Those of one picture."""
        rows = self.images == picture
        return ScannedObjects(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class SplitScan:
    """Pictures and objects of a split as far as they can be read, and what was found.

    Args:
        name: of the split.
        ignored: what objects are called that are neither objects nor background: difficult or crowd.
        describe_box: writes a box (x1, y1, x2, y2) as the annotation has it.
    """

    def __init__(self, name: str, ignored: str, describe_box: Callable[[Box], str]):
        self.name = name
        self.ignored = ignored
        self.annotated = True
        self.categories: dict[str, int] = {}  # the data set's own number of each class, where it has any
        self.pictures: list[ScannedPicture] = []
        self.findings: list[Finding] = []
        self.flagged: dict[int, list[str]] = {}  # kinds of errors and warnings by picture
        self.flagged_objects: set[int] = set()  # rows of objects with errors and warnings
        self.class_names: list[str] = []
        self._describe_box = describe_box
        self._labels: dict[str, int] = {}
        self._listed_in: dict[int | str, str] = {}
        self._numbers = array("d")  # _COLUMNS of each object; as Python objects they would take ten times the room
        self._identities: list[str | int] = []

    def find(self, kind: Kind, file: str, message: str, picture: int | None = None) -> None:
        """Adds a finding; `picture` is the place of the one it is about."""
        self.findings.append(Finding(kind, file, message))
        if picture is not None and kind.severity != "note":
            self.flagged.setdefault(picture, []).append(kind.name)

    def find_in_picture(self, kind: Kind, picture: int, message: str) -> None:
        """Adds a finding about the annotation of a picture."""
        found = self.pictures[picture]
        self.find(kind, found.file, f"{found.about}: {message}" if found.about else message, picture)

    def find_in_box(self, kind: Kind, row: int, message: str) -> None:
        """Adds a finding about the object `row`."""
        objects = self.objects
        if kind.severity != "note":
            self.flagged_objects.add(row)
        box, name = self._describe_box(tuple(objects.boxes[row].tolist())), self.class_names[objects.labels[row]]
        identity = f"annotation {str(self._identities[row])[:40]}: " if self._identities[row] != "" else ""
        self.find_in_picture(kind, int(objects.images[row]), f"{identity}box {box} of '{name[:40]}' {message}")

    def list_picture(self, identity: int | str, file: str) -> str | None:
        """Takes note of the file that lists a picture; gives the one that has listed it before, if any has.

        Identities count in the whole split: the readers refuse to join parts that share a picture.
        """
        before = self._listed_in.get(identity)
        self._listed_in.setdefault(identity, file)
        return before

    def add_class(self, name: str) -> int:
        """The label of a class, counted from 0."""
        if name not in self._labels:
            self._labels[name] = len(self.class_names)
            self.class_names.append(name)
        return self._labels[name]

    def add_object(
        self,
        picture: int,
        label: int,
        box: Box,
        *,
        area: float,
        has_area: bool,
        ignore: bool,
        identity: str | int = "",
    ) -> None:
        """Adds an object.

        Args:
            picture: place of its picture.
            label: as `add_class` gives it.
            box: (x1, y1, x2, y2).
            area: in pixels, as COCO counts it.
            has_area: what the data set's own form of the box says.
            ignore: difficult or crowd.
            identity: the data set's own number of the object, if it has any.
        """
        self._numbers.extend((picture, label, *box, area, has_area, ignore))
        self._identities.append(identity)

    @cached_property
    def objects(self) -> ScannedObjects:
        """All that were added; to be asked for when none will be any more."""
        table = np.array(self._numbers, dtype=np.float64).reshape(-1, _COLUMNS)
        images, labels, x1, y1, x2, y2, areas, has_area, ignore = table.T
        return ScannedObjects(
            images.astype(np.int64),
            labels.astype(np.int64),
            np.stack([x1, y1, x2, y2], axis=1),
            areas,
            has_area != 0,
            ignore != 0,
        )
