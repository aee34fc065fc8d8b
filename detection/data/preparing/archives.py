"""What the official archives of detection sets have in common: names that are checked, and what is told of them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from backbones.data.unpacking import LARGEST_PICTURE
from backbones.errors import DataError

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass
class Unpacked:
    """What came of archives.

    Args:
        files: names of the wanted files below the output folder, with their sizes in bytes.
        written: how many of them were not there before.
        foreign: by folder, how many files are none of such a data set's, and were left out.
    """

    files: dict[str, int] = field(default_factory=dict)
    written: int = 0
    foreign: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, size: int, largest: int, source: str) -> None:
        """Takes note of a wanted file.

        Raises:
            DataError: it is empty, larger than such a file can be, or there already with another size.
        """
        largest = LARGEST_PICTURE if name.lower().endswith(PICTURE_ENDINGS) else largest
        if not 0 < size <= largest:
            raise DataError(f"{source}: can't be of {size:,} bytes: the archive is damaged")
        if self.files.setdefault(name, size) != size:
            raise DataError(f"{source}: is there twice, with {size:,} and with {self.files[name]:,} bytes")


def check_harmless(name: str, archive: Path) -> str:
    """The name of a member without a leading "./".

    Raises:
        DataError: it leads out of the folder, or no such name can be meant.
    """
    plain = name.removeprefix("./")
    if not plain.isprintable() or "\\" in plain or any(part in ("", ".", "..") for part in plain.split("/")):
        raise DataError(f"{archive}: holds {name[:100]!r}, which names no file below a folder")
    return plain


def describe_unpacked(unpacked: Unpacked) -> list[str]:
    """Lines about what was written and what was left out."""
    size = sum(unpacked.files.values())
    amount = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
    lines = [f"{len(unpacked.files):,} files ({amount}), of which {unpacked.written:,} were written now"]
    if unpacked.foreign:
        some = ", ".join(f"{folder} ({count:,})" for folder, count in unpacked.foreign.most_common(5))
        lines.append(f"left out: {unpacked.foreign.total():,} files that are not of the official form, in {some}")
    return lines


def differences(name: str, found: dict[str, int], official: dict[str, int]) -> list[str]:
    """A line where a split is not as large as the official one."""
    parts = [f"{official[key]:,} {key}" for key in official if found.get(key, 0) != official[key]]
    return [f"{name}: the official set has {' and '.join(parts)}."] if parts else []
