"""All that is wrong with a detection set: its annotations, its pictures, and pictures that are in two splits."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from backbones.data.checking.class_folders import LEAK, equal_rows
from backbones.data.checking.layout import SPECIAL_FILE
from backbones.data.checking.pictures import DIGEST_SIZE, Inspection, inspect_pictures
from backbones.data.findings import Finding, Kind
from backbones.progress import progress_bar
from detection.data.checking.coco import scan_coco
from detection.data.checking.objects import check_boxes_of, check_classes
from detection.data.checking.scan import NOT_ANNOTATED, UNTRAINABLE, ScannedPicture, SplitScan
from detection.data.checking.voc import scan_voc

OTHER_SIZE = Kind("other_size", "error", "pictures of another size than their annotation says")
DUPLICATE = Kind("duplicate", "warning", "pictures that are in their split already")


def check_detection_set(
    name: Literal["voc", "coco"],
    root: Path,
    splits: Sequence[str],
    *,
    min_side: int,
    min_box: float,
    rare: int,
    workers: int,
) -> list[SplitScan]:
    """Checks a data set of the VOC or COCO layout; reads every picture.

    Args:
        splits: the first is the one that is trained on.
        min_side: pictures with a shorter side below this count as tiny, in pixels.
        min_box: boxes with a shorter side below this count as tiny, in pixels.
        rare: classes of the first split with fewer objects than this are named.
        workers: processes that read pictures; 0 reads in this one.

    Returns:
        What each split holds, with its findings.
    """
    scans = []
    with progress_bar(splits, unit="split", description="annotations") as bar:
        for split in bar:
            scan = (scan_voc if name == "voc" else scan_coco)(root, split)
            check_boxes_of(scan, min_box)
            scans.append(scan)
    scans[0].findings = [replace(f, kind=UNTRAINABLE) if f.kind is NOT_ANNOTATED else f for f in scans[0].findings]
    check_classes(scans, rare)
    _check_pictures(scans, min_side, workers)
    return scans


def all_findings(scans: Sequence[SplitScan]) -> list[Finding]:
    """The findings of all splits, each once (a picture in two of them is said to be damaged once)."""
    return list(dict.fromkeys(finding for scan in scans for finding in scan.findings))


def _check_pictures(scans: Sequence[SplitScan], min_side: int, workers: int) -> None:
    for scan in scans:
        for place, picture in enumerate(scan.pictures):
            if picture.is_there and not os.path.isfile(picture.path):  # reading a pipe may never end
                scan.pictures[place] = picture._replace(is_there=False)
                scan.find(SPECIAL_FILE, picture.path, "is no file, or a link to none: remove it", place)
    paths = list(dict.fromkeys(p.path for scan in scans for p in scan.pictures if p.is_there))
    inspections: dict[str, Inspection] = {}
    found = inspect_pictures(paths, min_side=min_side, workers=workers)
    with progress_bar(found, total=len(paths), unit="picture", description="pictures") as bar:
        for path, inspection in zip(paths, bar, strict=True):
            inspections[path] = inspection
    for scan in scans:
        for place, picture in enumerate(scan.pictures):
            if picture.is_there:
                for finding in inspections[picture.path].findings:
                    scan.find(finding.kind, finding.file, finding.message, place)
                _compare_size(scan, place, picture, inspections[picture.path].size)
    _find_copies(scans, inspections)


def _compare_size(scan: SplitScan, place: int, picture: ScannedPicture, size: tuple[int, int] | None) -> None:
    if size is None or picture.size is None or size == picture.size:
        return
    (height, width), (said_height, said_width) = size, picture.size
    turned = " (turned by a quarter: its boxes may be too)" if size == picture.size[::-1] else ""
    message = f"says {said_width}x{said_height}, and {picture.path} is {width}x{height}{turned}"
    scan.find_in_picture(OTHER_SIZE, place, message)


def _find_copies(scans: Sequence[SplitScan], inspections: dict[str, Inspection]) -> None:
    """Pictures that an earlier split has too, by file or content, and copies within a split."""
    listed = [(scan, place) for scan in scans for place, p in enumerate(scan.pictures) if p.is_there]
    digests = np.zeros((len(listed), DIGEST_SIZE), dtype=np.uint8)
    read = np.zeros(len(listed), dtype=bool)
    for row, (scan, place) in enumerate(listed):
        if (digest := inspections[scan.pictures[place].path].digest) is not None:
            digests[row], read[row] = np.frombuffer(digest, dtype=np.uint8), True
    for group in equal_rows(digests, np.flatnonzero(read)):
        for number, row in enumerate(group[1:], 1):
            scan, place = listed[row]
            path, before = scan.pictures[place].path, [listed[other] for other in group[:number]]
            leak = next((s for s, _ in before if s is not scan), None)
            copy = next((s.pictures[p].path for s, p in before if s is scan), None)
            if leak is not None:
                message = f"is in {leak.name} too, and here in {scan.name}: a test of what was trained on"
                scan.find(LEAK, path, message, place)
            if copy == path:
                scan.find(DUPLICATE, path, f"is the picture of two entries of {scan.name}: remove one of them", place)
            elif copy is not None:
                scan.find(DUPLICATE, path, f"is the same as {copy} in {scan.name}: remove one of them", place)
