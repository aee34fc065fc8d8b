"""Annotations and detections of as many pictures as are wanted, in COCO's and VOC's files, written as they are made."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CLASSES = 80
OBJECTS = 7
"""In a picture, as in COCO."""

_PORTION = 1000
"""Pictures made at a time."""


def write_coco(folder: Path, pictures: int, each: int, advance: Callable[[int], object]) -> tuple[Path, Path]:
    """Annotations of OBJECTS objects a picture, and `each` detections a picture: objects and chance finds.

    Args:
        advance: told how many pictures are done, again and again.

    Returns:
        The annotation file and the file of detections.
    """
    truth, found = folder / "annotations.json", folder / "detections.json"
    with truth.open("w") as objects, found.open("w") as detections:
        names = [{"id": k, "name": f"class {k:02d}"} for k in range(1, CLASSES + 1)]
        images = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(pictures)]
        objects.write(f'{{"categories":{json.dumps(names)},"images":{json.dumps(images)},"annotations":[')
        detections.write("[")
        comma = ""
        for first, boxes, labels in _portions(pictures):
            ids = np.arange(first, first + len(boxes))
            rows = zip(
                np.repeat(ids, OBJECTS).tolist(), labels.ravel().tolist(), boxes.reshape(-1, 4).tolist(), strict=True
            )
            objects.write(comma + ",".join(_OBJECT % (first * OBJECTS + n, i, k, *box, box[2] * box[3])
                                           for n, (i, k, box) in enumerate(rows)))  # fmt: skip
            rows = _detections(first, boxes, labels, each)
            detections.write(comma + ",".join(_DETECTION % (i, k, *box, score) for i, k, box, score in rows))
            comma = ",\n"
            advance(len(ids))
        objects.write("]}\n")
        detections.write("]\n")
    return truth, found


_OBJECT = '{"id":%d,"image_id":%d,"category_id":%d,"bbox":[%.1f,%.1f,%.1f,%.1f],"area":%.1f,"iscrowd":0}'
_DETECTION = '{"image_id":%d,"category_id":%d,"bbox":[%.1f,%.1f,%.1f,%.1f],"score":%.5f}'


def _portions(pictures: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The first picture, boxes (P, OBJECTS, 4) x, y, width, height, and labels (P, OBJECTS) of some pictures."""
    for first in range(0, pictures, _PORTION):
        rng = np.random.default_rng(first)
        count = min(_PORTION, pictures - first)
        sides = rng.uniform(10, 300, (count, OBJECTS, 2))
        corners = rng.uniform(0, 1, (count, OBJECTS, 2)) * ([640, 480] - sides)
        yield first, np.concatenate([corners, sides], 2), rng.integers(1, CLASSES + 1, (count, OBJECTS))


def _detections(
    first: int, boxes: np.ndarray, labels: np.ndarray, each: int
) -> Iterator[tuple[int, int, list[float], float]]:
    """Picture, class, box and score of each detection: an object of the picture that was seen about where it is."""
    rng = np.random.default_rng([first, 1])
    count = len(boxes)
    seen = rng.integers(0, OBJECTS, (count, each))
    rows = np.arange(count)[:, None]
    noisy = boxes[rows, seen] + rng.normal(0, 8, (count, each, 4))
    noisy[..., 2:] = noisy[..., 2:].clip(min=1)
    wrong = rng.uniform(size=(count, each)) < 0.3
    classes = np.where(wrong, rng.integers(1, CLASSES + 1, (count, each)), labels[rows, seen])
    pictures = np.repeat(np.arange(first, first + count), each)
    columns = (pictures, classes.ravel(), noisy.reshape(-1, 4), rng.uniform(size=count * each))
    yield from zip(*(column.tolist() for column in columns), strict=True)


def write_voc(folder: Path, pictures: int, each: int, advance: Callable[[int], object]) -> tuple[Path, Path]:
    """The same as a VOC year folder and a folder of results files.

    Returns:
        The two folders.
    """
    year, found = folder / "VOC2007", folder / "found"
    for path in (year / "Annotations", year / "ImageSets" / "Main", found):
        path.mkdir(parents=True)
    files = [(found / f"comp4_det_test_class {k:02d}.txt").open("w") for k in range(1, CLASSES + 1)]
    try:
        for first, boxes, labels in _portions(pictures):
            for place in range(len(boxes)):
                (year / "Annotations" / f"{first + place:06d}.xml").write_text(_xml(boxes[place], labels[place]))
            for i, k, (x, y, width, height), score in _detections(first, boxes, labels, each):
                files[k - 1].write(f"{i:06d} {score:.5f} {x + 1:.1f} {y + 1:.1f} {x + width:.1f} {y + height:.1f}\n")
            advance(len(boxes))
    finally:
        for file in files:
            file.close()
    (year / "ImageSets" / "Main" / "test.txt").write_text("".join(f"{i:06d}\n" for i in range(pictures)))
    return year, found


def _xml(boxes: np.ndarray, labels: np.ndarray) -> str:
    objects = "".join(
        f"<object><name>class {k:02d}</name><difficult>0</difficult><bndbox><xmin>{x + 1:.1f}</xmin>"
        f"<ymin>{y + 1:.1f}</ymin><xmax>{x + width:.1f}</xmax><ymax>{y + height:.1f}</ymax></bndbox></object>"
        for (x, y, width, height), k in zip(boxes.tolist(), labels.tolist(), strict=True)
    )
    return f"<annotation><size><width>640</width><height>480</height><depth>3</depth></size>{objects}</annotation>"
