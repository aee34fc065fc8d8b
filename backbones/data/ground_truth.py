"""Which class each picture of ImageNet's validation set shows: from the development kit, or from a list.

The development kit says it by numbers of its own (`ILSVRC2012_validation_ground_truth.txt`, one for each picture in
order) and which synset each number is (`meta.mat`). Others say it by synset: the lists that are told apart here.
"""

import gzip
import re
from pathlib import Path
from typing import Any

from backbones.data.matlab import read_structures
from backbones.data.tar import Section, read_tar
from backbones.errors import DataError

PICTURE = "ILSVRC2012_val_{:08d}"
_KIT = "give the development kit itself, ILSVRC2012_devkit_t12.tar.gz"
_LARGEST = 2**26  # bytes of a file that is read whole, and of the development kit when decompressed
_LINE = re.compile(r"(?:(ILSVRC2012_val_\d{8})(?:\.JPEG)?[ \t,]+)?(n\d{8})(?:[ \t].*)?", re.ASCII)


def read_ground_truth(path: Path) -> dict[str, str]:
    """Picture -> synset, as `ILSVRC2012_val_00000001` -> `n01751748`; what the file is shows in its content.

    Args:
        path: the archive of the development kit; or lines `<picture> <synset>` or `<picture>,<synset> ...` (such as
            Kaggle's LOC_val_solution.csv); or one synset a line, in the pictures' order.

    Raises:
        DataError: missing, damaged or none of these; the message names the line.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a file: {_KIT}")
    try:
        with path.open("rb") as file:
            head = file.read(512)
            file.seek(0)
            if head[:2] == b"\x1f\x8b":
                return _from_kit(path, gzip.GzipFile(fileobj=file))
            if head[257:262] == b"ustar":
                return _from_kit(path, file)
            content = file.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file: {_KIT}") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    if len(content) > _LARGEST:
        raise DataError(f"{path}: too large to be a ground truth ({_KIT})")
    return _from_lines(path, content)


def _from_kit(path: Path, stream: Any) -> dict[str, str]:
    numbers: list[str] | None = None
    synsets: dict[int, str] | None = None
    archive = Section(stream, _LARGEST, str(path))
    for member in read_tar(archive):
        if member.name.endswith("data/ILSVRC2012_validation_ground_truth.txt"):
            numbers = member.data.read(member.size).decode("latin-1").split()
        elif member.name.endswith("data/meta.mat"):
            synsets = _read_synsets(member.data.source, member.data.read(member.size))
    archive.check_end()
    if numbers is None or synsets is None:
        missing = "ILSVRC2012_validation_ground_truth.txt" if numbers is None else "meta.mat"
        raise DataError(f"{path}: holds no data/{missing}: {_KIT}")
    truth = {}
    for place, text in enumerate(numbers, 1):
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
        if number not in synsets:
            raise DataError(
                f"{path}: ILSVRC2012_validation_ground_truth.txt, line {place}: no class {text[:40]!r}: get it again"
            )
        truth[PICTURE.format(place)] = synsets[number]
    return truth


def _read_synsets(source: str, content: bytes) -> dict[int, str]:
    """ILSVRC2012's number -> synset."""
    synsets = {}
    try:
        for entry in read_structures(content, "synsets"):
            number, synset = entry.get("ILSVRC2012_ID"), entry.get("WNID")
            if not (isinstance(number, float) and isinstance(synset, str) and re.fullmatch(r"n[0-9]{8}", synset)):
                raise ValueError(f"an entry of synsets has ILSVRC2012_ID {number!r}, WNID {str(synset)[:40]!r}")
            synsets[int(number)] = synset
    except (ValueError, OverflowError) as error:
        raise DataError(f"{source}: {error}: get it again") from error
    return synsets


def _from_lines(path: Path, content: bytes) -> dict[str, str]:
    lines = content.decode("utf-8-sig", "replace").rstrip().splitlines()
    start = 1 if lines and lines[0].lower().startswith("imageid") else 0
    if not lines[start:]:
        raise DataError(f"{path}: is empty: {_KIT}")
    truth: dict[str, str] = {}
    named = (match := _LINE.fullmatch(lines[start].strip())) is not None and match[1] is not None
    for number, line in enumerate(lines[start:], start + 1):
        match = _LINE.fullmatch(line.strip())
        if match is None and line.strip().isdecimal():
            raise DataError(
                f"{path}, line {number}: a number of the development kit, which alone says no class: {_KIT}"
            )
        if match is None or (match[1] is not None) != named:
            form = "'<picture> <synset>'" if named else "'<picture> <synset>' or '<synset>'"
            raise DataError(f"{path}, line {number}: {line.strip()[:60]!r} is not of the form {form}")
        picture = match[1] or PICTURE.format(number - start)
        if picture in truth:
            raise DataError(f"{path}, line {number}: {picture} has a line already: remove one")
        truth[picture] = match[2]
    return truth
