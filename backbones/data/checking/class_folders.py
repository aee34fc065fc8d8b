"""All that is wrong with a data set in class folders: its layout, its pictures, and pictures that are there twice."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.data.checking.layout import ClassFolder, check_layout
from backbones.data.checking.pictures import DIGEST_SIZE, inspect_pictures
from backbones.data.findings import Finding, Kind
from backbones.progress import progress_bar

LEAK = Kind("leak", "error", "pictures that are also in a split before theirs")
TWO_CLASSES = Kind("two_classes", "warning", "pictures that are also in another class: one of them is mislabelled")
DUPLICATE = Kind("duplicate", "warning", "pictures that are in their class already")


@dataclass
class FolderReport:
    """What a data set in class folders holds.

    Args:
        splits: of each, how many classes and pictures it has.
        findings: what is wrong, by place.
    """

    splits: dict[str, tuple[int, int]]
    findings: list[Finding]


def check_class_folders(root: Path, splits: Sequence[str], *, min_side: int, workers: int) -> FolderReport:
    """Checks `<root>/<split>/<class>/<picture>`; reads every picture.

    Args:
        splits: the first is the one that is trained on.
        min_side: shorter sides below this count as tiny, in pixels.
        workers: processes that read pictures; 0 reads in this one.
    """
    folders, findings = check_layout(root, splits)
    pictures = sum(len(folder.pictures) for folder in folders)
    paths = (f"{folder.path}/{name}" for folder in folders for name in folder.pictures)
    digests = np.zeros((pictures, DIGEST_SIZE), dtype=np.uint8)
    read = np.zeros(pictures, dtype=bool)
    inspections = inspect_pictures(paths, min_side=min_side, workers=workers)
    with progress_bar(inspections, total=pictures, unit="picture", description="checking") as bar:
        for place, inspection in enumerate(bar):
            findings += inspection.findings
            if inspection.digest is not None:
                digests[place] = np.frombuffer(inspection.digest, dtype=np.uint8)
                read[place] = True
    findings += find_duplicates(folders, digests, read)
    counts = {
        split: (
            sum(folder.split == split for folder in folders),
            sum(len(folder.pictures) for folder in folders if folder.split == split),
        )
        for split in splits
    }
    return FolderReport(counts, findings)


class _Place(NamedTuple):
    split: str
    name: str  # of the class
    path: str


def find_duplicates(folders: Sequence[ClassFolder], digests: np.ndarray, read: np.ndarray) -> Iterator[Finding]:
    """Pictures whose content was there before, in the order of the folders.

    Args:
        folders: N pictures in all.
        digests: (N, DIGEST_SIZE) uint8, of the pictures' content.
        read: (N,) bool, which of them could be read.
    """
    ends = list(accumulate(len(folder.pictures) for folder in folders))

    def place(index: int) -> _Place:
        number = bisect_right(ends, index)
        folder = folders[number]
        name = folder.pictures[index - (ends[number] - len(folder.pictures))]
        return _Place(folder.split, folder.name, f"{folder.path}/{name}")

    for group in equal_rows(digests, np.flatnonzero(read)):
        before: list[_Place] = []
        for this in map(place, group):
            yield from _compare(this, before)
            before.append(this)


def equal_rows(digests: np.ndarray, places: np.ndarray) -> Iterator[list[int]]:
    """Those of the places whose rows are equal, two or more each, in order.

    Args:
        digests: (N, DIGEST_SIZE) uint8.
        places: some of 0..N - 1, in order.
    """
    halves = digests[places].view(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal rows stay in order
    changes = (np.diff(halves[order], axis=0) != 0).any(1)
    bounds = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(order)]])
    several = np.flatnonzero(np.diff(bounds) > 1)
    yield from sorted(places[order[bounds[k] : bounds[k + 1]]].tolist() for k in several)


def _compare(this: _Place, before: Sequence[_Place]) -> Iterator[Finding]:
    """What is to be said of a picture whose content was before in other places."""
    here = [other for other in before if other.split == this.split]
    same_class = next((other for other in here if other.name == this.name), None)
    if same_class:
        yield Finding(DUPLICATE, this.path, f"is the same as {same_class.path}: remove one of them")
    elif here:
        message = f"is the same as {here[0].path} of class {here[0].name}: one of the two is in the wrong class"
        yield Finding(TWO_CLASSES, this.path, message)
    elsewhere = next((other for other in before if other.split != this.split), None)
    if elsewhere:
        also = "" if elsewhere.name == this.name else f", where its class is {elsewhere.name}"
        message = f"is the same as {elsewhere.path}{also}: a test of what was trained on; remove one of them"
        yield Finding(LEAK, this.path, message)
