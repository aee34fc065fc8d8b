"""Reading a VOC split for a check: whatever is wrong becomes a finding, and the reading goes on."""

import os
from pathlib import Path
from xml.etree.ElementTree import Element

from backbones.data.pictures import read_image_size
from backbones.errors import ConfigError, DataError
from detection.data.checking.scan import (
    BAD_ENTRY,
    LISTED_TWICE,
    MISSING_ANNOTATION,
    MISSING_PICTURE,
    MISSING_SPLIT,
    NAMELESS,
    NOT_ANNOTATED,
    UNREADABLE,
    Box,
    ScannedPicture,
    SplitScan,
)
from detection.data.voc import (
    VocEntry,
    find_entries,
    is_name,
    parse_xml,
    read_lines,
    read_object,
    read_size,
    voc_lists,
    year_folder,
)


def usual_voc_splits(root: Path) -> list[str]:
    """`trainval test`, or what there is of `train val test`, of the only year below `root`.

    Raises:
        DataError: `root` has no year folder, or several.
        ConfigError: it has none of these lists.
    """
    folder, _ = year_folder(root, "trainval")
    there = {path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt")}
    usual = ["trainval", "test"] if "trainval" in there else ["train", "val", "test"]
    if not (found := [name for name in usual if name in there]):
        names = ", ".join(sorted(there)[:10])
        raise ConfigError(f"{folder}: has no list {', '.join(usual)}; name the splits with --splits ({names})")
    return found


def scan_voc(root: Path, split: str) -> SplitScan:
    """Reads the lists and annotation files of a split, as `detection.data.voc.read_voc` takes it."""
    scan = SplitScan(split, "difficult", _describe_box)
    try:
        lists = voc_lists(root, split)
    except DataError as error:
        scan.find(MISSING_SPLIT, str(root), _reason(error, root))
        return scan
    entries = [entry for folder, name in lists for entry in _list_entries(scan, folder, name)]
    scan.annotated = any(entry.xml.exists() for entry in entries)
    if entries and not scan.annotated:
        scan.find(NOT_ANNOTATED, str(entries[0].xml.parent), f"has no annotation of any picture of {split}")
    for entry in entries:
        _scan_picture(scan, entry)
    return scan


def _list_entries(scan: SplitScan, folder: Path, name: str) -> list[VocEntry]:
    path = folder / "ImageSets" / "Main" / f"{name}.txt"
    try:
        lines = read_lines(path)
    except DataError as error:
        scan.find(MISSING_SPLIT, str(path), _reason(error, path))
        return []
    if not any(map(is_name, lines)):
        scan.find(MISSING_SPLIT, str(path), "lists no pictures")
    identities = []
    for number, line in enumerate(lines, 1):
        if line and not is_name(line):
            scan.find(BAD_ENTRY, str(path), f"line {number}: '{line[:60]}' is not the name of a picture")
        elif line and (before := scan.list_picture(line, str(path))):
            where = "before: remove one of them" if before == str(path) else f"in {before} too: name one of the lists"
            scan.find(LISTED_TWICE, str(path), f"line {number}: '{line[:60]}' is listed {where}")
        elif line:
            identities.append(line)
    return find_entries(folder, identities)


def _scan_picture(scan: SplitScan, entry: VocEntry) -> None:
    xml, picture = str(entry.xml), len(scan.pictures)
    root, size = Element("annotation"), None
    problems = []
    if scan.annotated and not entry.xml.is_file():
        problems.append((MISSING_ANNOTATION, "is not a file" if entry.xml.exists() else "no such file"))
    elif scan.annotated:
        try:
            root = parse_xml(entry.xml, entry.path)
            size = read_size(root, entry.xml) or _size_of_picture(entry.path)
        except DataError as error:
            problems.append((UNREADABLE, _reason(error, entry.xml)))
    scan.pictures.append(ScannedPicture(entry.path, xml, "", size, entry.is_there))
    if not entry.is_there:
        problems.append((MISSING_PICTURE, f"its picture {entry.path} is missing"))
    for number, element in enumerate(root.findall("object"), 1):
        if not (element.findtext("name") or "").strip():
            problems.append((NAMELESS, f"object {number} has no name"))
            continue
        try:
            found = read_object(element, entry.xml)
        except DataError as error:
            problems.append((BAD_ENTRY, f"object {number}: {_reason(error, entry.xml)}"))
            continue
        x1, y1, x2, y2 = found.box
        scan.add_object(
            picture,
            scan.add_class(found.name),
            found.box,
            area=(x2 - x1) * (y2 - y1),
            has_area=found.has_area,
            ignore=found.difficult,
        )
    for kind, message in problems:
        scan.find(kind, xml, message, picture)


def _size_of_picture(path: str) -> tuple[int, int] | None:
    """Where an annotation does not say it, as `read_voc` does."""
    try:
        return read_image_size(path) if os.path.isfile(path) else None
    except DataError:
        return None


def _reason(error: DataError, path: Path) -> str:
    """The message without the file that findings name anyway."""
    return str(error).removeprefix(f"{path}: ")


def _describe_box(box: Box) -> str:
    return f"({box[0] + 1:g}, {box[1] + 1:g}, {box[2]:g}, {box[3]:g})"
