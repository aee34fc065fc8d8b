"""COCO from its official archives: `<output>/{train2017,val2017,...}/*.jpg` and `<output>/annotations/*.json`."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from backbones.data.pictures import ENDINGS
from backbones.data.unpacking import Readable, Unpacking, open_archive
from backbones.data.zip import open_zip
from backbones.errors import DataError
from backbones.markdown import format_table
from backbones.progress import progress_bar
from detection.data.checking.coco import scan_coco
from detection.data.checking.scan import UNREADABLE, SplitScan
from detection.data.json_columns import read_json
from detection.data.preparing.archives import NAME, Contents, Layout
from detection.data.preparing.summary import count_splits, differences

OFFICIAL = {
    "train2014": {"pictures": 82_783, "objects": 604_907},
    "val2014": {"pictures": 40_504, "objects": 291_875},
    "minival2014": {"pictures": 5_000},
    "valminusminival2014": {"pictures": 35_504},
    "train2017": {"pictures": 118_287, "objects": 860_001},
    "val2017": {"pictures": 5_000, "objects": 36_781},
    "test2015": {"pictures": 81_434},
    "test-dev2015": {"pictures": 20_288},
    "test2017": {"pictures": 40_670},
    "test-dev2017": {"pictures": 20_288},
}

_LARGEST_JSON = 2**31  # bytes; the largest official one is of 2**29
_PICTURE = re.compile(rf"((?:train|val|test)[0-9]{{4}})/{NAME}\.(?:jpg|jpeg|png)")
_ANNOTATIONS = re.compile(r"annotations/(?:instances|image_info)_([A-Za-z0-9][A-Za-z0-9_-]{0,99})\.json")
_KNOWN = re.compile(r"annotations/(?:captions|person_keypoints|stuff|panoptic)_[A-Za-z0-9_-]+\.(?:json|zip)")


def _place(name: str) -> str | None:
    plain = name.removeprefix("./")
    return plain if _PICTURE.fullmatch(plain) or _ANNOTATIONS.fullmatch(plain) else None


_LAYOUT = Layout(_place, _KNOWN, _LARGEST_JSON, "train2017/000000000009.jpg or annotations/instances_train2017.json")


def prepare_coco(archives: Sequence[Path], lists: Sequence[Path], output: Path) -> Contents:
    """Writes pictures and annotations of objects below `output`, all but those that are there.

    The archives are gone through first, as far as their directories tell, before anything is written.

    Args:
        archives: zip files of pictures and of annotations.
        lists: loose annotation files, instances_<split>.json, which are copied.

    Raises:
        DataError: an archive is damaged or of another form, or the folder can't be written.
    """
    contents = Contents()
    for archive in archives:
        with open_zip(archive) as members:
            contents.survey(archive, members, _LAYOUT)
    for path in lists:
        with open_archive(path) as content:
            if not _ANNOTATIONS.fullmatch(f"annotations/{path.name}"):
                raise DataError(f"{path}: a list of pictures is called instances_<split>.json")
            contents.add(f"annotations/{path.name}", content.left, _LARGEST_JSON, str(path))
        _check_list(path)
    total = sum(path.stat().st_size for path in [*archives, *lists])
    with Unpacking(output, output / ".partial", total, "COCO") as folder:
        for place, size, data, done in _files(archives, lists):
            contents.written += folder.put(place, size, data)
            folder.show(done)
        folder.show(total)
    return contents


def _check_list(path: Path) -> None:
    """Raises DataError where a loose annotation file is cut off, or of another form: it has no checksum."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise DataError(f"{path}: is not an annotation file of COCO's form (an object with images): get it again")


def _files(archives: Sequence[Path], lists: Sequence[Path]) -> Iterator[tuple[str, int, Readable, int]]:
    """Place, size and content of each wanted file, and how many bytes have been read when it is done."""
    before = 0
    for archive in archives:
        done = before
        with open_zip(archive) as members:
            for member in members:
                done += member.packed
                if (place := _place(member.name)) is not None:
                    yield place, member.size, member.data, done
        before += archive.stat().st_size
    for path in lists:
        with open_archive(path) as content:
            before += content.left
            yield f"annotations/{path.name}", content.left, content, before


def summarise_coco(output: Path, contents: Contents) -> tuple[str, list[str]]:
    """A table of what the archives are of, with what differs from the official sets, and the splits with objects."""
    names = {match[1] for name in contents.files if (match := _ANNOTATIONS.fullmatch(name))}
    in_order = sorted(names, key=lambda name: (not name.startswith("train"), name))
    with progress_bar(in_order, unit="split", description="counting") as bar:
        scans = [_scan(output, name) for name in bar]
    rows, notes = count_splits(scans, OFFICIAL)
    folders = dict.fromkeys(match[1] for name in contents.files if (match := _PICTURE.fullmatch(name)))
    for folder in folders:
        if folder not in names:
            there = sum(Path(entry.name).suffix.lower() in ENDINGS for entry in os.scandir(output / folder))
            rows.append([folder, "-", f"{there:,}", "-", "-"])
            notes += differences(folder, {"pictures": there}, OFFICIAL.get(folder, {}))
            notes.append(f"{folder}: its annotations are not in these archives.")
    table = format_table([["split", "pictures", "there", "objects", "crowd"], *rows], texts=1, bars=False)
    return "\n".join([table, *notes]), [scan.name for scan in scans if scan.annotated]


def _scan(output: Path, name: str) -> SplitScan:
    scan = scan_coco(output, name)
    for finding in scan.findings:
        if finding.kind is UNREADABLE:
            raise DataError(f"{finding.file}: {finding.message}")
    return scan
