"""Pictures with random objects and detections that make errors of every type, for comparisons of TIDE's numbers."""

import random

import torch

from detection.data.annotations import Annotations
from detection.structures import Detections

SEEDS = range(12)
CLASSES = 4


def tide_case(seed: int) -> tuple[Annotations, list[Detections]]:
    """Whole numbers in even cases, so that overlaps are equal or on a threshold; scores are distinct.

    The stream of `random.Random(seed).random()` is the same in every version of Python.
    """
    stream = random.Random(seed)
    pictures = 6 + 2 * seed
    whole = seed % 2 == 0

    def uniform(low: float, high: float) -> float:
        value = low + (high - low) * stream.random()
        return float(round(value)) if whole else value

    def pick(count: int) -> int:
        return int(count * stream.random())

    objects = []  # picture, label, box, ignore
    for image in range(pictures):
        for _ in range(pick(8)):
            x, y, width, height = uniform(0, 60), uniform(0, 60), uniform(5, 40), uniform(5, 40)
            objects.append((image, 1 + pick(CLASSES), [x, y, x + width, y + height], stream.random() < 0.12))
    drawn = []  # picture, label, box
    for image in range(pictures):
        mine = [each for each in objects if each[0] == image]
        for _ in range(pick(3 + 4 * len(mine) if seed != 5 else 130)):
            x, y, width, height = uniform(0, 60), uniform(0, 60), uniform(5, 40), uniform(5, 40)
            label, box = 1 + pick(CLASSES), [x, y, x + width, y + height]
            if mine and stream.random() < 0.85:  # near an object, of its class more often than not
                _, label_there, (x1, y1, x2, y2), _ = mine[pick(len(mine))]
                label = label_there if stream.random() < 0.7 else label
                spread = (0, 2, 6, 12)[pick(4)]
                x1, y1 = x1 + uniform(-spread, spread), y1 + uniform(-spread, spread)
                x2, y2 = x2 + uniform(-spread, spread), y2 + uniform(-spread, spread)
                box = [x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)]
            drawn.append((image, label, box))
    scores = [(place + 1) / (len(drawn) + 1) for place in range(len(drawn))]
    for place in reversed(range(len(scores))):
        other = pick(place + 1)
        scores[place], scores[other] = scores[other], scores[place]
    annotations = Annotations.from_objects(
        class_names=[f"class {k}" for k in range(1, CLASSES + 1)],
        image_ids=range(pictures),
        sizes=[[100, 100]] * pictures,
        images=[o[0] for o in objects],
        labels=[o[1] for o in objects],
        boxes=[o[2] for o in objects],
        ignore=[o[3] for o in objects],
    )
    detections = []
    for image in range(pictures):
        rows = sorted(((s, d) for s, d in zip(scores, drawn, strict=True) if d[0] == image), reverse=True)
        detections.append(
            Detections(
                torch.tensor([d[2] for _, d in rows], dtype=torch.float64).reshape(-1, 4),
                torch.tensor([s for s, _ in rows], dtype=torch.float64),
                torch.tensor([d[1] for _, d in rows], dtype=torch.int64),
            )
        )
    return annotations, detections
