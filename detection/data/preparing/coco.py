"""COCO from its official archives: `<output>/{train2017,val2017,...}/*.jpg` and `<output>/annotations/*.json`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from backbones.data.unpacking import Unpacking, open_archive
from backbones.data.zip import open_zip
from backbones.errors import DataError
from backbones.progress import progress_bar
from detection.data.coco import picture_folder
from detection.data.json_columns import read_json
from detection.data.preparing.archives import PICTURE_ENDINGS, Unpacked, check_harmless, differences

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
_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_PICTURE = re.compile(rf"((?:train|val|test)[0-9]{{4}})/{_NAME}\.(?:jpg|jpeg|png)")
_ANNOTATIONS = re.compile(r"annotations/(instances|image_info)_([A-Za-z0-9][A-Za-z0-9_-]{0,99})\.json")
_KNOWN = re.compile(r"annotations/(?:captions|person_keypoints|stuff|panoptic)_[A-Za-z0-9_-]+\.(?:json|zip)")


def prepare_coco(archives: Sequence[Path], lists: Sequence[Path], output: Path) -> Unpacked:
    """Writes pictures and annotations of objects below `output`, all but those that are there.

    The archives are gone through first, as far as their directories tell, before anything is written.

    Args:
        archives: zip files of pictures and of annotations.
        lists: loose annotation files, instances_<split>.json, which are copied.

    Raises:
        DataError: an archive is damaged or of another form, or the folder can't be written.
    """
    found = Unpacked()
    total = 0
    for archive in archives:
        before = len(found.files)
        with open_zip(archive) as members:
            for member in members:
                if (name := _wanted(member.name, archive, found)) is not None:
                    found.add(name, member.size, _LARGEST_JSON, f"{archive}: {name}")
                    total += member.packed
        if len(found.files) == before:
            raise DataError(
                f"{archive}: holds nothing new of the form train2017/000000000009.jpg or "
                "annotations/instances_train2017.json: name the official archives, each once"
            )
    for path in lists:
        with open_archive(path) as content:
            if not _ANNOTATIONS.fullmatch(f"annotations/{path.name}"):
                raise DataError(f"{path}: a list of pictures is called instances_<split>.json")
            found.add(f"annotations/{path.name}", content.left, _LARGEST_JSON, str(path))
            total += content.left
    with Unpacking(output, output / ".partial", total, "COCO") as folder:
        done = 0
        for archive in archives:
            with open_zip(archive) as members:
                for member in members:
                    if (name := _wanted(member.name, archive, Unpacked())) is not None:
                        found.written += folder.put(name, member.size, member.data)
                        folder.show(done := done + member.packed)
        for path in lists:
            with open_archive(path) as content:
                size = content.left
                found.written += folder.put(f"annotations/{path.name}", size, content)
                folder.show(done := done + size)
    return found


def _wanted(name: str, archive: Path, found: Unpacked) -> str | None:
    """Where a file belongs below the output, None if it is left out; foreign ones are counted."""
    plain = check_harmless(name, archive)
    if _PICTURE.fullmatch(plain) or _ANNOTATIONS.fullmatch(plain):
        return plain
    if not _KNOWN.fullmatch(plain):
        found.foreign[plain.rpartition("/")[0] or plain] += 1
    return None


def summarise_coco(output: Path, unpacked: Unpacked) -> tuple[str, list[str]]:
    """A table of what the archives are of, with what differs from the official sets, and the splits with objects."""
    matches = [match for name in unpacked.files if (match := _ANNOTATIONS.fullmatch(name))]
    folders = dict.fromkeys(match[1] for name in unpacked.files if (match := _PICTURE.fullmatch(name)))
    names = sorted({match[2]: match[1] for match in matches}.items(), key=lambda n: (not n[0].startswith("train"), n))
    rows = [f"{'split':<20} {'pictures':>9} {'there':>9} {'annotations':>26} {'objects':>9}"]
    notes = []
    there = {folder: _pictures_in(output / folder) for folder in folders}
    with progress_bar(names, unit="file", description="counting") as bar:
        for name, form in bar:
            pictures, objects = _count(output / "annotations" / f"{form}_{name}.json", with_objects=form == "instances")
            folder = picture_folder(output, name).name
            here = there.setdefault(folder, _pictures_in(output / folder))
            lacking = len(pictures - here)
            rows.append(
                f"{name:<20} {len(pictures):>9,} {len(pictures) - lacking:>9,} {form:>26} "
                f"{f'{objects:,}' if form == 'instances' else '-':>9}"
            )
            notes += differences(name, {"pictures": len(pictures), "objects": objects}, OFFICIAL.get(name, {}))
            if lacking:
                notes.append(f"{name}: {lacking:,} of its pictures are not in {folder}/: is an archive missing?")
    annotated = {name for name, _ in names}
    for folder in folders:
        if folder not in annotated:
            rows.append(f"{folder:<20} {'-':>9} {len(there[folder]):>9,} {'not in these archives':>26} {'-':>9}")
            notes += differences(folder, {"pictures": len(there[folder])}, _pictures_alone(folder))
    return "\n".join(rows + notes), [name for name, form in names if form == "instances"]


def _pictures_alone(folder: str) -> dict[str, int]:
    return {key: count for key, count in OFFICIAL.get(folder, {}).items() if key == "pictures"}


def _pictures_in(folder: Path) -> set[str]:
    """Names of the pictures in a folder."""
    if not folder.is_dir():
        return set()
    return {entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(PICTURE_ENDINGS)}


def _count(file: Path, with_objects: bool) -> tuple[set[str], int]:
    """The names of the pictures that an annotation file lists, and how many objects it has."""
    data = read_json(file)
    wanted = ("images", "annotations") if with_objects else ("images",)
    if not isinstance(data, dict) or any(not isinstance(data.get(key), list) for key in wanted):
        raise DataError(f"{file}: not a COCO annotation file (an object with {' and '.join(wanted)})")
    names = {str(image.get("file_name")) for image in data["images"] if isinstance(image, dict)}
    return names, len(data["annotations"]) if with_objects else 0
