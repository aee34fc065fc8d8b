"""Pictures in one folder per class: ImageNet's layout `<root>/<split>/<class>/*.JPEG`, and any like it."""

import hashlib
from pathlib import Path

import numpy as np

from backbones.data.datasets import ClassificationDataset
from backbones.data.pictures import ENDINGS, read_image
from backbones.errors import DataError


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
        raise DataError(f"{folder / unknown[0]}: class {unknown[0]!r} is not one of the network's {len(names)} classes")
    paths: list[Path] = []
    labels: list[int] = []
    for name in found:
        files = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in ENDINGS)
        if not files:
            raise DataError(f"{folder / name}: holds no pictures ({', '.join(sorted(ENDINGS))})")
        paths += files
        labels += [names.index(name)] * len(files)
    relative = "\n".join(str(path.relative_to(folder)) for path in paths)
    identity = f"folder {split} {hashlib.sha256(relative.encode('utf8', 'surrogateescape')).hexdigest()}"
    return ClassificationDataset(
        names, np.array(labels), lambda index: read_image(paths[index]), lambda index: str(paths[index]), identity
    )
