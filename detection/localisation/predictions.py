"""What a localiser found, as JSON and as pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from detection.data.annotations import Annotations, DetectionDataset
from detection.data.samples import resize_scale
from detection.drawing import Mark, draw_marks, grid, save_picture
from detection.evaluate.localisation import localisation_errors
from detection.localisation.scoring import Outcome

ROWS, COLUMNS = 4, 6  # of a sheet
CELL = (160, 320)  # pixels: the shorter side of its pictures, or the longer one if that is less
OBJECT, RIGHT, WRONG = "#FFFFFF", "#009E73", "#D55E00"


def prediction_records(annotations: Annotations, tested: Outcome) -> list[dict[str, Any]]:
    """A record of each picture and way of testing; boxes in the pixels of the picture, scores in [0, 1].

    "own" is the box of the picture's own class, "predicted" those of the classes that a classifier predicts, best
    first.
    """
    names = annotations.class_names
    records = []
    for index, identity in enumerate(annotations.image_ids):
        for way, located in tested.found.items():
            objects = [
                {"class": names[int(label) - 1], "score": float(score), "box": box.tolist()}
                for label, score, box in zip(
                    tested.labels[way][index], located.scores[index], located.boxes[index], strict=True
                )
            ]
            records.append({"image": identity, "way": way, "own": objects[0], "predicted": objects[1:]})
    return records


def draw_sheet(path: Path, dataset: DetectionDataset, tested: Outcome) -> None:
    """Writes a PNG: evenly spaced pictures with their objects (white, dashed) and the last way's box of their own class
    (green where it is right, red where not).

    Raises:
        RunFolderError: it can't be written.
    """
    way = list(tested.found)[-1]
    located, labels = tested.found[way], tested.labels[way]
    count = min(ROWS * COLUMNS, len(dataset))
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist():
        image, target = dataset.load_image(index), dataset.target(index)
        box = located.boxes[index, 0]
        right = _is_right(dataset.annotations, index, labels[index, :1], box)
        found = Mark(box.tolist(), f"{float(located.scores[index, 0]):.2f}", RIGHT if right else WRONG)
        objects = [Mark(each, "", OBJECT, dashed=True) for each in target.boxes.tolist()]
        pictures.append(draw_marks(image, [found, *objects], scale=resize_scale(image.shape[1], image.shape[2], *CELL)))
    save_picture(grid(pictures, COLUMNS), path)


def _is_right(annotations: Annotations, index: int, label: Tensor, box: Tensor) -> bool:
    objects = slice(annotations.offsets[index], annotations.offsets[index + 1])
    one = Annotations.from_objects(
        class_names=annotations.class_names,
        image_ids=[annotations.image_ids[index]],
        sizes=annotations.sizes[index : index + 1],
        images=[0] * (objects.stop - objects.start),
        boxes=annotations.boxes[objects],
        labels=annotations.labels[objects],
    )
    return localisation_errors(one, label[None], box[None, None])["top1_localisation_error"] == 0
