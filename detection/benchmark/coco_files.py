"""An annotation file and a results file like COCO's, drawn at random: speed and equality need no real pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CLASSES = 80
OBJECTS = 7.3  # a picture, as in COCO
CROWDS = 0.01  # of all objects
POINTS = 22  # of an outline


def write_coco_files(folder: Path, pictures: int, per_picture: int, seed: int) -> tuple[Path, Path]:
    """Writes `annotations.json` and `detections.json` into `folder`, always the same ones for the same arguments.

    As in COCO, ids of pictures and classes have gaps, some classes are far more frequent than others, many pictures
    have no object, a few objects are crowds, and objects have outlines. Half of the detections are objects with jitter,
    one in five of these with a wrong class; the rest lie anywhere.
    """
    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.choice(600_000, pictures, replace=False))
    category_ids = np.sort(rng.choice(np.arange(1, 91), CLASSES, replace=False))
    sizes = rng.integers(300, 641, (pictures, 2))  # width, height
    counts = np.minimum(rng.geometric(1 / (OBJECTS + 1), pictures) - 1, 60)
    owners = np.repeat(np.arange(pictures), counts)
    labels = _labels(rng, len(owners))
    boxes = _boxes(rng, sizes[owners])
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "width": w, "height": h}
        for i, (w, h) in zip(image_ids.tolist(), sizes.tolist(), strict=True)
    ]
    annotations = {
        "images": images,
        "annotations": _objects(rng, image_ids[owners], category_ids[labels], boxes),
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids.tolist()],
    }
    truth, found = folder / "annotations.json", folder / "detections.json"
    truth.write_bytes(orjson.dumps(annotations))
    starts = np.cumsum(counts) - counts
    found_in = np.repeat(np.arange(pictures), per_picture)
    near = (rng.random(len(found_in)) < 0.5) & (counts[found_in] > 0)
    source = (starts[found_in] + rng.integers(0, np.maximum(counts[found_in], 1)))[near]
    found_boxes, found_labels = _boxes(rng, sizes[found_in]), _labels(rng, len(found_in))
    jitter = rng.normal(0, 0.1, (len(source), 4)) * np.tile(boxes[source, 2:], 2)
    found_boxes[near] = boxes[source] + jitter
    found_boxes[:, 2:] = found_boxes[:, 2:].clip(min=1)
    right = rng.random(len(source)) < 0.8
    found_labels[near] = np.where(right, labels[source], found_labels[near])
    scores = np.where(near, rng.beta(2, 2, len(near)), rng.beta(1, 8, len(near)))
    order = np.lexsort((-scores, found_in))
    columns = image_ids[found_in], category_ids[found_labels[order]], _as_detectors_give(found_boxes[order])
    rows = zip(*(column.tolist() for column in (*columns, _as_detectors_give(scores[order]))), strict=True)
    with found.open("wb") as file:
        file.write(b"[")
        for number, (image, category, box, score) in enumerate(rows):
            entry = {"image_id": image, "category_id": category, "bbox": box, "score": score}
            file.write((b",\n" if number else b"\n") + orjson.dumps(entry))
        file.write(b"\n]\n")
    return truth, found


def _labels(rng: Generator, count: int) -> NDArray[np.int64]:
    """From 0; the k-th class is about 1 / k times as frequent as the first."""
    weights = 1 / np.arange(1, CLASSES + 1) ** 0.9
    return rng.choice(CLASSES, count, p=weights / weights.sum())


def _boxes(rng: Generator, sizes: NDArray[np.int64]) -> Floats:
    """(N, 4) x, y, width, height, of all sizes, in pictures of (N, 2) width and height."""
    sides = np.minimum(np.exp(rng.normal(4.2, 1.0, sizes.shape)).clip(min=4), sizes)
    return np.concatenate([rng.random(sizes.shape) * (sizes - sides), sides], axis=1).round(2)


def _as_detectors_give(values: Floats) -> Floats:
    """In single precision, hence with many digits."""
    return values.astype(np.float32).astype(np.float64)


def _objects(
    rng: Generator, image_ids: NDArray[np.int64], category_ids: NDArray[np.int64], boxes: Floats
) -> list[dict[str, Any]]:
    """Entries of the annotation file."""
    crowds = rng.random(len(boxes)) < CROWDS
    areas = (boxes[:, 2:].prod(axis=1) * rng.uniform(0.4, 0.9, len(boxes))).round(2)
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    circle = (0.5 + 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).ravel()
    outlines = (np.tile(boxes[:, :2], POINTS) + np.tile(boxes[:, 2:], POINTS) * circle).round(2)
    columns = (image_ids, category_ids, boxes, areas, crowds.astype(int), outlines)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": crowd,
            "segmentation": {"counts": [0, 9], "size": [3, 3]} if crowd else [outline],
        }
        for number, (image, category, box, area, crowd, outline) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    ]
