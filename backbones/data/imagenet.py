"""ImageNet from its official archives: `<output>/train/<synset>/*.JPEG` and `<output>/val/<synset>/*.JPEG`.

The archive of training pictures holds an archive for each synset, that of validation pictures the pictures side by
side. Both are read in one pass and never unpacked elsewhere.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from backbones.data.tar import Section, TarMember, read_tar
from backbones.data.unpacking import LARGEST_PICTURE, Unpacking, open_archive
from backbones.errors import DataError

OFFICIAL = {"train": (1_281_167, 1000), "val": (50_000, 1000)}  # pictures, classes


class _Form(NamedTuple):
    """What names in an archive look like; the pattern captures what counts of them."""

    pattern: re.Pattern[str]
    example: str


_CLASS_ARCHIVE = _Form(re.compile(r"(n[0-9]{8})\.tar"), "n01440764.tar")
_TRAINING_PICTURE = _Form(re.compile(r"(n[0-9]{8})_[0-9]{1,9}\.JPEG"), "n01440764_10026.JPEG")
_VALIDATION_PICTURE = _Form(re.compile(r"(ILSVRC2012_val_[0-9]{8})\.JPEG"), "ILSVRC2012_val_00000001.JPEG")


@dataclass
class PreparedSplit:
    """What a split holds.

    Args:
        name: "train" or "val".
        classes: pictures of each synset.
        size: of all pictures, in bytes.
        written: pictures that were not there before, or with another content.
        foreign: by folder, how much lies in the class folders that the archive does not hold.
    """

    name: str
    classes: Counter[str] = field(default_factory=Counter)
    size: int = 0
    written: int = 0
    foreign: Counter[str] = field(default_factory=Counter)


def check_training_archive(archive: Path) -> None:
    """Finds out at once whether an archive is whole and of the official form, as far as its outer headers tell.

    Raises:
        DataError: it is not.
    """
    _check_members(archive, _CLASS_ARCHIVE)


def check_validation_archive(archive: Path, truth: Mapping[str, str]) -> None:
    """Finds out at once whether an archive is whole and of the official form, and the class of each picture known.

    Raises:
        DataError: it is not.
    """
    pictures = _check_members(archive, _VALIDATION_PICTURE)
    if unknown := [name for name in pictures if name not in truth]:
        raise DataError(
            f"{archive}: the ground truth says nothing of {len(unknown):,} of its {len(pictures):,} pictures "
            f"({', '.join(unknown[:3])}): give the ground truth that belongs to it"
        )


def prepare_training(archive: Path, output: Path) -> PreparedSplit:
    """Writes the training pictures to `<output>/train/<synset>/`, all but those that are there.

    Raises:
        DataError: the archive is damaged or of another form, or the folder can't be written.
    """
    with _open_split(archive, output, "train") as (tar, folder):
        for outer in read_tar(tar):
            synset, inner = _matched(outer, _CLASS_ARCHIVE, tar), outer.data
            seen: set[str] = set()
            for member in read_tar(inner):
                if _matched(member, _TRAINING_PICTURE, inner) != synset:
                    raise DataError(f"{inner.source}: holds {member.name}, a picture of another class: get it again")
                if _base(member) in seen:
                    raise DataError(f"{inner.source}: holds {_base(member)} twice: get it again")
                seen.add(_base(member))
                folder.add(synset, member)
            if not seen:
                raise DataError(f"{inner.source}: holds no pictures: get it again")
        return folder.finish()


def prepare_validation(archive: Path, truth: Mapping[str, str], output: Path) -> PreparedSplit:
    """Writes the validation pictures to `<output>/val/<synset>/`, all but those that are there.

    Args:
        truth: picture -> synset, of every picture (see `check_validation_archive`).

    Raises:
        DataError: the archive is damaged or of another form, the folder can't be written, or it holds a picture in
            another class than that of the ground truth.
    """
    _check_classes(output / "val", truth)
    with _open_split(archive, output, "val") as (tar, folder):
        for member in read_tar(tar):
            folder.add(truth[_matched(member, _VALIDATION_PICTURE, tar)], member)
        return folder.finish()


def _check_classes(folder: Path, truth: Mapping[str, str]) -> None:
    """Refuses what an earlier run with another ground truth has left: it would stay beside the right pictures."""
    for path in folder.glob("n????????/ILSVRC2012_val_????????.JPEG"):
        synset = truth.get(path.stem)
        if synset not in (None, path.parent.name):
            raise DataError(f"{path}: the ground truth says {synset}: remove {folder} and start again")


def _matched(member: TarMember, form: _Form, archive: Section) -> str:
    """What the form captures of a member's name. Nothing else is let through, so no name leads out of its folder."""
    match = form.pattern.fullmatch(_base(member))
    if match is None:
        raise DataError(
            f"{archive.source}: holds {member.name[:100]!r}, where the official archive has names like {form.example}"
        )
    return match[1]


def _base(member: TarMember) -> str:
    return member.name.removeprefix("./")


def _check_members(archive: Path, form: _Form) -> list[str]:
    with open_archive(archive) as tar:
        names = [_matched(member, form, tar) for member in read_tar(tar)]
    if not names:
        raise DataError(f"{archive}: is empty: get it again")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"{archive}: holds {name} {count} times: get it again")
    return names


class _SplitFolder:
    """The folder of a split, into which pictures are put whole or not at all.

    Args:
        name: of the split.
        archive: what is read; its progress is shown.
        unpacking: the folder, opened.
    """

    def __init__(self, name: str, archive: Section, unpacking: Unpacking):
        self._archive = archive
        self._size = archive.left
        self._unpacking = unpacking
        self._result = PreparedSplit(name)

    def add(self, synset: str, member: TarMember) -> None:
        """Puts a picture there, unless it is there with the same content."""
        if not 0 < member.size <= LARGEST_PICTURE:
            raise DataError(
                f"{member.data.source}: a picture can't be of {member.size:,} bytes: the archive is "
                "damaged: get it again"
            )
        if self._unpacking.put(f"{synset}/{_base(member)}", member.size, member.data):
            self._result.written += 1
        self._result.classes[synset] += 1
        self._result.size += member.size
        self._unpacking.show(self._size - self._archive.left)

    def finish(self) -> PreparedSplit:
        """Looks for what else lies there."""
        self._unpacking.show(self._size)  # what follows the last picture is zeros
        for folder in os.scandir(self._unpacking.folder):
            if folder.is_dir():
                more = sum(1 for _ in os.scandir(folder)) - self._result.classes[folder.name]
                if more > 0:
                    self._result.foreign[folder.name] = more
        return self._result


@contextmanager
def _open_split(archive: Path, output: Path, name: str) -> Iterator[tuple[Section, _SplitFolder]]:
    """An archive, and the folder that its pictures go into. Raises DataError if one of them can't be opened."""
    partial = output / f".{name}.partial"
    with open_archive(archive) as tar, Unpacking(output / name, partial, tar.left, name) as unpacking:
        yield tar, _SplitFolder(name, tar, unpacking)
