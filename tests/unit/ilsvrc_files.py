"""Files of ILSVRC's layout, written by hand: pictures of 20x12, as `voc_files.xml` says."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def put_picture(path: Path, size: tuple[int, int] = (20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (255, 0, 0)).save(path)


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_ilsvrc(root: Path, task: str, files: Mapping[str, str | None], lists: Mapping[str, str]) -> Path:
    """An ILSVRC folder: by name (train/n01/n01_1) an annotation, None for a picture that has none; and lists."""
    for name, text in files.items():
        put_picture(root / "Data" / task / f"{name}.JPEG")
        if text is not None:
            put_text(root / "Annotations" / task / f"{name}.xml", text)
    for name, text in lists.items():
        put_text(root / "ImageSets" / task / f"{name}.txt", text)
    return root
