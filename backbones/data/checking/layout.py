"""Whether a data set lies in class folders, `<root>/<split>/<class>/<picture>`, and what else lies there."""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backbones.data.findings import Finding, Kind
from backbones.data.glance import folders_below, glance, is_folder
from backbones.data.pictures import ENDINGS

WRONG_ROOT = Kind("wrong_root", "error", "not the folder that holds the splits")
MISSING_SPLIT = Kind("missing_split", "error", "a split without a folder")
FLAT_SPLIT = Kind("flat_split", "error", "a split without class folders")
EMPTY_CLASS = Kind("empty_class", "error", "class folders without pictures")
UNTRAINED_CLASS = Kind("untrained_class", "error", "classes that are tested but not trained")
UNTESTED_CLASS = Kind("untested_class", "warning", "classes that are trained but not tested")
NESTED_FOLDER = Kind("nested_folder", "error", "folders in class folders, which are not looked into")
HIDDEN_FOLDER = Kind("hidden_folder", "error", "hidden folders that count as classes")
HIDDEN_PICTURE = Kind("hidden_picture", "error", "hidden files that count as pictures")
HIDDEN_FILE = Kind("hidden_file", "note", "hidden files, which are not read")
STRAY_FILE = Kind("stray_file", "warning", "files beside the class folders, which are not read")
OTHER_FILE = Kind("other_file", "note", "files in class folders that are not named as pictures and not read")
BROKEN_LINK = Kind("broken_link", "error", "links that lead nowhere")
SPECIAL_FILE = Kind("special_file", "error", "pipes, sockets and devices")
NO_ACCESS = Kind("no_access", "error", "files or folders that may not be read")
MISLABELLED = Kind("mislabelled", "error", "pictures named after another class than their folder's")

_SYNSET_PICTURE = re.compile(r"(n[0-9]{8})_[0-9]+\.", re.ASCII)
_SYNSET = re.compile(r"n[0-9]{8}", re.ASCII)
_OFFICIAL_ARCHIVE = re.compile(r"ILSVRC2012_img_(train|val)\.tar|n[0-9]{8}\.tar", re.ASCII)
_PREPARE = "python tools/prepare_data.py imagenet --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar"
_PREPARE += " --ground_truth ILSVRC2012_devkit_t12.tar.gz --output <folder>"


@dataclass
class ClassFolder:
    """The pictures of a class in a split, by their file names, sorted."""

    split: str
    name: str
    path: str
    pictures: list[str] = field(default_factory=list)


def check_layout(root: Path, splits: Sequence[str]) -> tuple[list[ClassFolder], list[Finding]]:
    """The class folders of each split with the files that `read_folder` takes for pictures, and what is wrong.

    Args:
        splits: the first is the one that is trained on.
    """
    if not any((root / split).is_dir() for split in splits):
        return [], [Finding(WRONG_ROOT, str(root), _what_it_is(root, splits))]
    folders: list[ClassFolder] = []
    findings: list[Finding] = []
    for split in splits:
        folders += _check_split(root / split, split, findings)
    classes = [{f.name for f in folders if f.split == split and f.pictures} for split in splits]
    for split, tested in zip(splits[1:], classes[1:], strict=True):
        if classes[0] and tested:
            for kind, names in ((UNTRAINED_CLASS, tested - classes[0]), (UNTESTED_CLASS, classes[0] - tested)):
                where, other = (split, splits[0]) if kind is UNTRAINED_CLASS else (splits[0], split)
                message = f"has pictures here, and none in {other}"
                findings += [Finding(kind, str(root / where / name), message) for name in sorted(names)]
    return folders, findings


def _check_split(path: Path, split: str, findings: list[Finding]) -> list[ClassFolder]:
    if not path.is_dir():
        findings.append(Finding(MISSING_SPLIT, str(path), "no such folder: name those that there are with --splits"))
        return []
    folders: list[ClassFolder] = []
    flat: list[os.DirEntry] = []
    for entry in _entries(str(path), findings):
        if is_folder(entry):
            if entry.name.startswith("."):
                findings.append(Finding(HIDDEN_FOLDER, entry.path, "is taken for a class: remove it"))
            folders.append(_check_class(entry, split, findings))
        else:
            flat.append(entry)
    if not folders:
        findings.append(Finding(FLAT_SPLIT, str(path), _why_flat(path, [entry.name for entry in flat])))
        return []
    for entry in flat:
        if (odd := _odd_file(entry)) is not None:
            findings.append(odd)
        elif entry.name.startswith("."):
            findings.append(Finding(HIDDEN_FILE, entry.path, "is not read"))
        else:
            findings.append(Finding(STRAY_FILE, entry.path, "is not read: put it into a class folder, or elsewhere"))
    return folders


def _check_class(folder: os.DirEntry, split: str, findings: list[Finding]) -> ClassFolder:
    found = ClassFolder(split, folder.name, folder.path)
    before = len(findings)
    for entry in _entries(folder.path, findings):
        named_as_picture = Path(entry.name).suffix.lower() in ENDINGS
        if is_folder(entry):
            taken = " and itself taken for a picture" if named_as_picture else ""
            message = f"is not looked into{taken}: pictures lie in <split>/<class>, no deeper"
            findings.append(Finding(NESTED_FOLDER, entry.path, message))
        elif (odd := _odd_file(entry)) is not None:
            findings.append(odd)
        elif not named_as_picture:
            kind = HIDDEN_FILE if entry.name.startswith(".") else OTHER_FILE
            findings.append(Finding(kind, entry.path, "is not read"))
        elif entry.name.startswith("."):
            findings.append(Finding(HIDDEN_PICTURE, entry.path, "is taken for a picture: remove it"))
        else:
            found.pictures.append(entry.name)
            named = _SYNSET_PICTURE.match(entry.name)
            if named and _SYNSET.fullmatch(folder.name) and named[1] != folder.name:
                message = f"is of class {named[1]} by its name, and in the folder of {folder.name}"
                findings.append(Finding(MISLABELLED, entry.path, message))
    if not found.pictures and not any(f.kind is NO_ACCESS for f in findings[before:]):
        findings.append(Finding(EMPTY_CLASS, folder.path, "holds no pictures: remove it, or fill it"))
    return found


def _entries(folder: str, findings: list[Finding]) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        findings.append(Finding(NO_ACCESS, folder, f"can't be read ({error.strerror})"))
        return []


def _odd_file(entry: os.DirEntry) -> Finding | None:
    """What is no file with a content of its own."""
    if entry.is_file(follow_symlinks=False):
        return None
    try:
        mode = entry.stat().st_mode
    except OSError:
        if not entry.is_symlink():
            return Finding(NO_ACCESS, entry.path, "can't be looked at")
        return Finding(BROKEN_LINK, entry.path, f"is a link to {os.readlink(entry.path)}, which is not there")
    if stat.S_ISREG(mode):
        return None
    return Finding(SPECIAL_FILE, entry.path, "is a pipe, socket or device; reading it may never end: remove it")


def _why_flat(path: Path, names: Sequence[str]) -> str:
    if any(name.startswith("ILSVRC2012_val_") for name in names):
        return f"holds the validation pictures without their classes: make the folders with {_PREPARE}"
    if any(_OFFICIAL_ARCHIVE.fullmatch(name) for name in names):
        return f"holds archives: make class folders of the official ones with {_PREPARE}"
    if any(Path(name).suffix.lower() in ENDINGS for name in names):
        return f"holds pictures side by side: put each into {path}/<class>/"
    return f"holds no class folders: pictures belong into {path}/<class>/"


def _what_it_is(root: Path, splits: Sequence[str]) -> str:
    """What a folder without any of the splits is instead, and what to do."""
    place = Path(os.path.abspath(root))
    names, folders = glance(place)
    if any(_OFFICIAL_ARCHIVE.fullmatch(name) for name in names):
        return f"holds archives: make class folders of the official ones with {_PREPARE}"
    pictures = any(Path(name).suffix.lower() in ENDINGS for name in names)
    if pictures and place.parent.name in splits:
        return f"is a class folder: give --root {place.parent.parent}"
    if any(_holds_pictures(folder) for folder in folders):
        return f"is a split itself: give --root {place.parent} --splits {place.name}"
    if pictures:
        return _why_flat(place / splits[0], names)
    for below in folders_below(place, depth=4):
        if any((below / split).is_dir() for split in splits):
            return f"the splits lie deeper: give --root {below}"
    if any(_holds_pictures(inner) for folder in folders for inner in glance(folder)[1][:5]):
        return f"has no {' or '.join(splits)}: name its splits with --splits {' '.join(f.name for f in folders[:5])}"
    return f"holds none of {', '.join(splits)} (expected {root}/{splits[0]}/<class>/<picture>)"


def _holds_pictures(folder: Path) -> bool:
    return any(Path(name).suffix.lower() in ENDINGS for name in glance(folder)[0])
