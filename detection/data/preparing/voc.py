"""PASCAL VOC from its official archives: `<output>/VOCdevkit/VOC<year>/{JPEGImages,Annotations,ImageSets/Main}`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from backbones.data.tar import TarMember, read_tar
from backbones.data.unpacking import Unpacking, open_archive
from backbones.errors import DataError
from backbones.progress import progress_bar
from detection.data.checking.scan import SplitScan
from detection.data.checking.voc import scan_voc
from detection.data.preparing.archives import Unpacked, check_harmless, differences

OFFICIAL = {
    "VOC2007/trainval": {"pictures": 5_011, "objects": 15_662},
    "VOC2007/test": {"pictures": 4_952, "objects": 14_976},
    "VOC2012/trainval": {"pictures": 11_540, "objects": 31_561},
    "VOC2012/test": {"pictures": 10_991},
}

_LARGEST_TEXT = 2**24  # bytes: of annotations and lists
# Mirrors have a folder more around the devkit, as TrainVal/VOCdevkit.
_OF_DEVKIT = re.compile(r"(?:[A-Za-z0-9_-]+/)?VOCdevkit/(VOC[0-9]{4}/.+)")
_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_WANTED = re.compile(
    rf"VOC[0-9]{{4}}/(?:JPEGImages/{_NAME}\.(?:jpg|jpeg|png|JPG|JPEG|PNG)|Annotations/{_NAME}\.xml"
    rf"|ImageSets/Main/{_NAME}\.txt)"
)
_KNOWN = re.compile(r"VOC[0-9]{4}/(?:Segmentation(?:Class|Object)|ImageSets/(?:Layout|Segmentation|Action))/.+")


def prepare_voc(archives: Sequence[Path], output: Path) -> Unpacked:
    """Writes pictures, annotations and the lists of whole pictures to `<output>/VOCdevkit`, all but those there.

    The archives are gone through first, as far as their headers tell, before anything is written.

    Raises:
        DataError: an archive is damaged or of another form, or the folder can't be written.
    """
    found = Unpacked()
    for archive in archives:
        before = len(found.files)
        with open_archive(archive) as tar:
            for member in read_tar(tar):
                if (name := _wanted(member, archive, found)) is not None:
                    found.add(name, member.size, _LARGEST_TEXT, f"{archive}: {name}")
        if len(found.files) == before:
            raise DataError(
                f"{archive}: holds nothing new of the form VOCdevkit/VOC2007/JPEGImages/000001.jpg: name the official "
                "archives, each once"
            )
    total = sum(archive.stat().st_size for archive in archives)
    with Unpacking(output / "VOCdevkit", output / ".VOCdevkit.partial", total, "VOC") as folder:
        for name, member, done in _members(archives):
            found.written += folder.put(name, member.size, member.data)
            folder.show(done)
        folder.show(total)
    return found


def _members(archives: Sequence[Path]) -> Iterator[tuple[str, TarMember, int]]:
    """The wanted files with their names, and how many bytes have been read when they are done."""
    before = 0
    for archive in archives:
        with open_archive(archive) as tar:
            size = tar.left
            for member in read_tar(tar):
                if (name := _wanted(member, archive, Unpacked())) is not None:
                    yield name, member, before + size - tar.left
            before += size


def _wanted(member: TarMember, archive: Path, found: Unpacked) -> str | None:
    """Where a file belongs below VOCdevkit, None if it is left out; foreign ones are counted."""
    plain = check_harmless(member.name, archive)
    match = _OF_DEVKIT.fullmatch(plain)
    if match and _WANTED.fullmatch(match[1]):
        return match[1]
    if not (match and _KNOWN.fullmatch(match[1])):
        found.foreign[plain.rpartition("/")[0] or plain] += 1
    return None


def summarise_voc(devkit: Path, unpacked: Unpacked) -> tuple[str, list[str]]:
    """A table of the splits that the archives are of, with what differs from the official sets, and their names."""
    lists = {
        f"{year}/{name}"
        for year in {file.split("/")[0] for file in unpacked.files}
        for name in ("trainval", "test")
        if f"{year}/ImageSets/Main/{name}.txt" in unpacked.files
    }
    names = sorted(lists, key=lambda name: (name.endswith("/test"), name))
    rows = [f"{'split':<18} {'pictures':>9} {'annotations':>12} {'objects':>9} {'difficult':>10}"]
    notes = []
    with progress_bar(names, unit="split", description="counting") as bar:
        for name in bar:
            scan = scan_voc(devkit, name)
            counts = _count(scan)
            rows.append(
                f"{name:<18} {counts['pictures']:>9,} {counts['annotations']:>12,} {counts['objects']:>9,} "
                f"{counts['difficult']:>10,}"
            )
            notes += differences(name, counts, OFFICIAL.get(name, {}))
            if lacking := sum(not picture.is_there for picture in scan.pictures):
                notes.append(f"{name}: {lacking:,} of its pictures are not there: is an archive missing?")
    return "\n".join(rows + notes), names


def _count(scan: SplitScan) -> dict[str, int]:
    return {
        "pictures": len(scan.pictures),
        "annotations": sum(Path(picture.file).is_file() for picture in scan.pictures),
        "objects": len(scan.objects),
        "difficult": int(scan.objects.ignore.sum()),
    }
