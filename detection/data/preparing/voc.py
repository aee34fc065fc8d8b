"""PASCAL VOC from its official archives: `<output>/VOCdevkit/VOC<year>/{JPEGImages,Annotations,ImageSets/Main}`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from backbones.data.tar import TarMember, read_tar
from backbones.data.unpacking import Unpacking, open_archive
from backbones.markdown import format_table
from backbones.progress import progress_bar
from detection.data.checking.voc import scan_voc
from detection.data.preparing.archives import NAME, Contents, Layout
from detection.data.preparing.summary import count_splits

OFFICIAL = {
    "VOC2007/trainval": {"pictures": 5_011, "objects": 15_662},
    "VOC2007/test": {"pictures": 4_952, "objects": 14_976},
    "VOC2012/trainval": {"pictures": 11_540, "objects": 31_561},
    "VOC2012/test": {"pictures": 10_991},
}

_LARGEST_TEXT = 2**24  # bytes: of annotations and lists
_DEVKIT = "(?:[A-Za-z0-9_-]+/)?VOCdevkit"  # mirrors have a folder more around it, as TrainVal/VOCdevkit
_WANTED = re.compile(
    rf"{_DEVKIT}/(VOC[0-9]{{4}}/(?:JPEGImages/{NAME}\.(?:jpg|jpeg|png|JPG|JPEG|PNG)|Annotations/{NAME}\.xml"
    rf"|ImageSets/Main/{NAME}\.txt))"
)
_KNOWN = re.compile(
    rf"{_DEVKIT}/VOC[0-9]{{4}}/(?:Segmentation(?:Class|Object)|ImageSets/(?:Layout|Segmentation|Action))/.+"
)


def _place(name: str) -> str | None:
    match = _WANTED.fullmatch(name.removeprefix("./"))
    return match[1] if match else None


_LAYOUT = Layout(_place, _KNOWN, _LARGEST_TEXT, "VOCdevkit/VOC2007/JPEGImages/000001.jpg")


def prepare_voc(archives: Sequence[Path], output: Path) -> Contents:
    """Writes pictures, annotations and the lists of whole pictures to `<output>/VOCdevkit`, all but those there.

    The archives are gone through first, as far as their headers tell, before anything is written.

    Raises:
        DataError: an archive is damaged or of another form, or the folder can't be written.
    """
    contents = Contents()
    for archive in archives:
        with open_archive(archive) as tar:
            contents.survey(archive, read_tar(tar), _LAYOUT)
    total = sum(archive.stat().st_size for archive in archives)
    with Unpacking(output / "VOCdevkit", output / ".VOCdevkit.partial", total, "VOC") as folder:
        for place, member, done in _files(archives):
            contents.written += folder.put(place, member.size, member.data)
            folder.show(done)
        folder.show(total)
    return contents


def _files(archives: Sequence[Path]) -> Iterator[tuple[str, TarMember, int]]:
    """The wanted files with their places, and how many bytes have been read when they are done."""
    before = 0
    for archive in archives:
        with open_archive(archive) as tar:
            size = tar.left
            for member in read_tar(tar):
                if (place := _place(member.name)) is not None:
                    yield place, member, before + size - tar.left
            before += size


def summarise_voc(devkit: Path, contents: Contents) -> tuple[str, list[str]]:
    """A table of the splits that the archives are of, with what differs from the official sets, and their names.

    There are none where no split has annotations, as the archive of VOC2012's test set alone: it can't be trained on.
    """
    lists = {
        f"{year}/{name}"
        for year in {file.split("/")[0] for file in contents.files}
        for name in ("trainval", "test")
        if f"{year}/ImageSets/Main/{name}.txt" in contents.files
    }
    names = sorted(lists, key=lambda name: (name.endswith("/test"), name))
    with progress_bar(names, unit="split", description="counting") as bar:
        scans = [scan_voc(devkit, name) for name in bar]
    rows, notes = count_splits(scans, OFFICIAL)
    table = format_table([["split", "pictures", "there", "objects", "difficult"], *rows], texts=1, bars=False)
    return "\n".join([table, *notes]), names if any(scan.annotated for scan in scans) else []
