"""Data sets of a million small pictures that take the room of a few hundred: names of the same files."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

MOST_NAMES = 60_000
"""Of one file; ext4 allows 65,000."""


def link_class_folders(root: Path, pictures: int, classes: int, advance: Callable[[int], object]) -> None:
    """`train/<class>/*.jpg`, and `val` with a hundredth of that, of at most 2,000 names.

    Args:
        advance: told how many pictures are done, again and again.
    """
    originals = _draw(root, max(200, pictures // MOST_NAMES + 1), side=40)
    for split, count in (("train", pictures), ("val", min(2_000, pictures // 100))):
        each = -(-count // classes)
        for label in range(classes):
            folder = root / split / f"class{label:04d}"
            folder.mkdir(parents=True)
            for number in range(min(each, count - label * each)):
                os.link(originals[(label * each + number) % len(originals)], folder / f"{number:06d}.jpg")
            advance(max(0, min(each, count - label * each)))


def link_coco(root: Path, pictures: int, advance: Callable[[int], object]) -> None:
    """COCO's layout, of two classes: `train`, and `val` with a hundredth of that, of at most 100."""
    originals = _draw(root, max(100, pictures // MOST_NAMES + 1), side=64)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", pictures), ("val", min(100, pictures // 100))):
        (root / split).mkdir()
        images, objects = [], []
        for i in range(count):
            os.link(originals[i % len(originals)], root / split / f"{i:08d}.jpg")
            images.append({"id": i, "file_name": f"{i:08d}.jpg", "width": 64, "height": 64})
            for _ in range(3):
                x, y, width, height = rng.integers(1, 32, 4).tolist()
                objects.append({"id": len(objects), "image_id": i, "category_id": 1 + len(objects) % 2,
                                "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0})  # fmt: skip
            if i % 1000 == 999:
                advance(1000)
        categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
        everything = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(everything))


def _draw(root: Path, count: int, side: int) -> list[Path]:
    """Different pictures of noise, side x side."""
    rng = np.random.default_rng(0)
    (root / "originals").mkdir(parents=True)
    paths = [root / "originals" / f"{number}.jpg" for number in range(count)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((side, side)).save(path, quality=80)
    return paths
