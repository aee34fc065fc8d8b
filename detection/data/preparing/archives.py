"""What the official archives of detection sets have in common: their files are checked and counted before any is read.

A layout says which files of an archive are wanted, and where they go.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from backbones.data.pictures import ENDINGS
from backbones.data.tar import TarMember
from backbones.data.unpacking import LARGEST_PICTURE
from backbones.data.zip import ZipMember
from backbones.errors import DataError

NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"  # of a file, as a pattern; nothing of this form leads out of a folder


@dataclass(frozen=True)
class Layout:
    """Which files of the archives of a data set are wanted.

    Args:
        place: gives where a file of that name belongs below the output folder, None if it is not wanted.
        known: the names of files that are left out without a word.
        largest: of files that are no pictures, in bytes.
        example: what names look like.
    """

    place: Callable[[str], str | None]
    known: re.Pattern[str]
    largest: int
    example: str


@dataclass
class Contents:
    """What archives hold of a data set.

    Args:
        files: names of the wanted files below the output folder, with their sizes in bytes.
        foreign: by folder, how many files are none of such a data set's, and are left out.
        written: how many of the wanted files were not there before, or with another content.
    """

    files: dict[str, int] = field(default_factory=dict)
    foreign: Counter[str] = field(default_factory=Counter)
    written: int = 0

    def survey(self, archive: Path, members: Iterable[TarMember | ZipMember], layout: Layout) -> None:
        """Takes note of all files of an archive, as far as its headers tell.

        Raises:
            DataError: it holds nothing new, or what no such archive can hold.
        """
        before = len(self.files)
        for member in members:
            name = _harmless(member.name, archive)
            if (place := layout.place(name)) is not None:
                self.add(place, member.size, layout.largest, f"{archive}: {place}")
            elif not layout.known.fullmatch(name):
                self.foreign[name.rpartition("/")[0] or name] += 1
        if len(self.files) == before:
            raise DataError(
                f"{archive}: holds nothing new of the form {layout.example}: name the official archives, each once"
            )

    def add(self, place: str, size: int, largest: int, source: str) -> None:
        """Takes note of a wanted file.

        Raises:
            DataError: it is empty, larger than such a file can be, or there already with another size.
        """
        largest = LARGEST_PICTURE if Path(place).suffix.lower() in ENDINGS else largest
        if not 0 < size <= largest:
            raise DataError(f"{source}: can't be of {size:,} bytes: the archive is damaged: get it again")
        if self.files.setdefault(place, size) != size:
            raise DataError(f"{source}: is there twice, with {size:,} and with {self.files[place]:,} bytes")


def _harmless(name: str, archive: Path) -> str:
    """The name without a leading "./". Raises DataError if it leads out of the folder, or no such name can be meant."""
    plain = name.removeprefix("./")
    if not plain.isprintable() or "\\" in plain or any(part in ("", ".", "..") for part in plain.split("/")):
        raise DataError(f"{archive}: holds {name[:100]!r}, which names no file below a folder: get it again")
    return plain
