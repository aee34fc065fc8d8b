"""Files of the VOC layout, written by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

BOX = "<bndbox><ymin>3</ymin><xmin>2</xmin><xmax>10</xmax><ymax>8</ymax></bndbox>"


def obj(name: str = "cat", box: str = BOX, difficult: str = "<difficult>0</difficult>", more: str = "") -> str:
    """An object, by default one that the reader takes for [1, 2, 10, 8]."""
    return f"<object><name>{name}</name>{difficult}{more}{box}</object>"


def box(xmin: object, ymin: object, xmax: object, ymax: object) -> str:
    """A box, of anything."""
    return f"<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"


def xml(*objects: str, size: str = "<size><width>20</width><height>12</height><depth>3</depth></size>") -> str:
    """An annotation."""
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def make_year(
    folder: Path, files: Mapping[str, str], splits: Mapping[str, Sequence[str]], suffix: str = ".jpg"
) -> Path:
    """A year folder: annotations by name, each with a red picture of 20x12, and lists of names."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for stem, text in files.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
        Image.new("RGB", (20, 12), (255, 0, 0)).save(folder / "JPEGImages" / f"{stem}{suffix}")
    for split, stems in splits.items():
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{s}\n" for s in stems))
    return folder
