"""What is wrong with, or unusual about, the objects of a detection set."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from backbones.data.findings import Kind
from detection.data.annotations import judge_boxes
from detection.data.checking.scan import UNKNOWN_CLASS, SplitScan

NO_AREA = Kind("no_area", "error", "boxes without area (data.bad_boxes repair leaves them out)")
OUTSIDE = Kind("outside", "error", "boxes that reach more than a pixel outside (data.bad_boxes repair clips them)")
CLIPPED = Kind("clipped", "note", "boxes that reach up to a pixel outside, which are clipped")
TINY_BOX = Kind("tiny_box", "warning", "boxes with a short side")
SAME_BOX = Kind("same_box", "warning", "objects that are there twice: the same box and class in a picture")
NO_OBJECTS = Kind("no_objects", "note", "pictures without objects")
ONLY_IGNORED = Kind("only_ignored", "note", "pictures whose objects are all difficult or crowd")
UNTESTED_CLASS = Kind("untested_class", "note", "classes of the first split that another one lacks")
RARE_CLASS = Kind("rare_class", "note", "classes with few objects in the first split")
ALIKE_CLASSES = Kind("alike_classes", "note", "class names that differ in upper and lower case alone")
OTHER_CATEGORIES = Kind("other_categories", "error", "categories that differ between splits")

_ROUNDING = 1e-6  # pixels; what sums of COCO's corners and sizes may be off by


def check_boxes_of(scan: SplitScan, min_box: float) -> None:
    """Adds findings about boxes, and about what pictures hold.

    Args:
        min_box: boxes with a shorter side than this count as tiny, in pixels.
    """
    if not scan.annotated:
        return
    boxes, has_area = scan.objects.boxes, scan.objects.has_area
    sizes = np.array([p.size or (0, 0) for p in scan.pictures], dtype=np.int64).reshape(-1, 2)[scan.objects.images]
    known = (sizes > 0).all(1)
    with np.errstate(over="ignore", invalid="ignore"):  # boxes may be of any numbers
        judged = judge_boxes(boxes, sizes, has_area)
        sides = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf)
    outside = has_area & known & judged.bad
    for row in np.flatnonzero(~has_area).tolist():
        scan.find_in_box(NO_AREA, row, "has no area")
    for row in np.flatnonzero(outside).tolist():
        height, width = sizes[row]
        scan.find_in_box(OUTSIDE, row, f"reaches outside its {width}x{height} picture")
    for row in np.flatnonzero(has_area & known & ~judged.bad & (judged.beyond > _ROUNDING)).tolist():
        scan.find_in_box(CLIPPED, row, f"reaches {judged.beyond[row]:.2g} pixels outside")
    for row in np.flatnonzero(has_area & (sides < min_box)).tolist():
        scan.find_in_box(TINY_BOX, row, "is tiny")
    _find_same(scan)
    _find_empty(scan)


def _find_same(scan: SplitScan) -> None:
    objects = scan.objects
    rows = np.column_stack([objects.images, objects.labels, objects.boxes])
    if not len(rows):
        return
    order = np.lexsort(rows.T[::-1])  # stable: of equal rows the first comes first
    same = (np.diff(rows[order], axis=0) == 0).all(1)
    for row in np.sort(order[1:][same]).tolist():
        scan.find_in_box(SAME_BOX, row, "is there before: remove one of them")


def _find_empty(scan: SplitScan) -> None:
    images = scan.objects.images
    objects = np.bincount(images, minlength=len(scan.pictures))
    counted = np.bincount(images[~scan.objects.ignore], minlength=len(scan.pictures))
    for picture in np.flatnonzero(objects == 0).tolist():
        # An annotation that can't be read has none either.
        if picture not in scan.flagged and scan.pictures[picture].annotated:
            scan.find_in_picture(NO_OBJECTS, picture, "has no objects")
    for picture in np.flatnonzero((objects > 0) & (counted == 0)).tolist():
        scan.find_in_picture(ONLY_IGNORED, picture, f"all its {objects[picture]} object(s) are {scan.ignored}")


def check_classes(scans: Sequence[SplitScan], rare: int) -> None:
    """Adds findings about classes: the first split is the one that is trained on.

    Args:
        rare: classes with fewer objects than this are named.
    """
    scans = [scan for scan in scans if scan.annotated]
    if not scans:
        return
    first, counts = scans[0], count_classes(scans[0])
    place = first.pictures[0].file if first.pictures else first.name
    for name, count in counts.items():
        if count < rare and len(first.objects):
            first.find(RARE_CLASS, place, f"class '{name[:40]}' has {count} object(s) in {first.name}")
    _find_alike(scans)
    for scan in scans[1:]:
        if not scan.pictures or not first.pictures:
            continue
        here, file = count_classes(scan), scan.pictures[0].file
        for name in sorted(here.keys() - counts.keys()):
            if scan.categories:
                message = f"category '{name[:40]}' is not in {first.name}"
            else:
                message = f"class '{name[:40]}' has {here[name]} object(s) in {scan.name} and none in {first.name}"
            scan.find(UNKNOWN_CLASS, _file_with(scan, name), message)
        for name in sorted(counts.keys() - here.keys()):
            if scan.categories:
                scan.find(OTHER_CATEGORIES, file, f"has no category '{name[:40]}', as {first.name} has")
            else:
                scan.find(UNTESTED_CLASS, file, f"class '{name[:40]}' of {first.name} has no object in {scan.name}")
        for name in sorted(scan.categories.keys() & first.categories.keys()):
            if (number := scan.categories[name]) != (other := first.categories[name]):
                scan.find(
                    OTHER_CATEGORIES, file, f"category '{name[:40]}' has id {number}, and {other} in {first.name}"
                )


def _find_alike(scans: Sequence[SplitScan]) -> None:
    scans = [scan for scan in scans if scan.pictures]
    totals: Counter[str] = Counter()
    for scan in scans:
        totals.update(count_classes(scan))
    spelled: dict[str, str] = {}
    for name in sorted(totals):
        other = spelled.setdefault(name.casefold(), name)
        if name != other:
            rarer = min(name, other, key=totals.__getitem__)
            scan = next(scan for scan in scans if rarer in scan.class_names)
            message = f"class '{other[:40]}' ({totals[other]} object(s)) and class '{name[:40]}' ({totals[name]})"
            scan.find(ALIKE_CLASSES, _file_with(scan, rarer), f"{message} differ in upper and lower case alone")


def count_classes(scan: SplitScan) -> dict[str, int]:
    """Objects of each class, difficult ones and crowds included; classes sorted by number, or else by name."""
    counts = np.bincount(scan.objects.labels, minlength=len(scan.class_names)).tolist()
    count_of = dict(zip(scan.class_names, counts, strict=True))
    return {name: count_of[name] for name in sorted(count_of, key=lambda n: (scan.categories.get(n, 0), n))}


def _file_with(scan: SplitScan, name: str) -> str:
    """The annotation file of the first object of a class."""
    images = scan.objects.images[scan.objects.labels == scan.class_names.index(name)]
    return scan.pictures[int(images[0]) if len(images) else 0].file
