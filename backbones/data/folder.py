"""Pictures in one folder per class: ImageNet's layout `<root>/<split>/<class>/*.JPEG`, and any like it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.data.datasets import ClassificationDataset
from backbones.data.paths import PackedPaths
from backbones.data.pictures import ENDINGS, MEND, MISSING, decode_image
from backbones.errors import DataError
from backbones.regular import read_regular_file

_LARGEST_FILE = 2**30  # bytes


def read_folder(root: str | Path, split: str, class_names: list[str] | None = None) -> ClassificationDataset:
    """Reads `<root>/<split>/<class>/<picture>`.

    Args:
        class_names: the classes and their order; by default the folders' names, sorted.

    Raises:
        DataError: the folder is missing or empty, a class has no pictures or is not in `class_names`.
    """
    folder = Path(root) / split
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (expected {root}/{split}/<class>/<picture>)")
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not found:
        raise DataError(f"{folder}: holds no class folders (expected {folder}/<class>/<picture>)")
    names = class_names if class_names is not None else found
    if unknown := sorted(set(found) - set(names)):
        raise unknown_class(str(folder / unknown[0]), unknown[0], names)
    paths: list[str] = []
    labels: list[int] = []
    for name in found:
        files = sorted(entry.name for entry in os.scandir(folder / name) if Path(entry.name).suffix.lower() in ENDINGS)
        if not files:
            raise DataError(
                f"{folder / name}: holds no pictures ({', '.join(sorted(ENDINGS))}): put some there or remove it"
            )
        paths += [os.path.join(name, file) for file in files]
        labels += [names.index(name)] * len(files)
    digest = hashlib.sha256("\n".join(paths).encode("utf8", "surrogateescape")).hexdigest()
    pictures = _Files(folder, PackedPaths(paths))
    return ClassificationDataset(
        names, np.array(labels), pictures.picture, pictures.name, f"folder {split} {digest}", encoded=pictures.encoded
    )


def unknown_class(place: str, name: str, class_names: list[str]) -> DataError:
    """The error of a data set with a class that the network does not have."""
    return DataError(
        f"{place}: class {name!r} is not one of the network's {len(class_names)} classes: remove it, or name data of "
        "these classes"
    )


@dataclass(frozen=True)
class _Files:
    folder: Path
    paths: PackedPaths

    def name(self, index: int) -> str:
        return os.path.join(self.folder, self.paths[index])

    def encoded(self, index: int) -> bytes:
        path = self.name(index)
        try:
            return read_regular_file(path, largest=_LARGEST_FILE, advice=MEND)
        except FileNotFoundError as error:
            raise DataError(f"{path}: {MISSING}") from error
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror}): {MEND}") from error

    def picture(self, index: int) -> Image.Image:
        return decode_image(self.encoded(index), self.name(index))
