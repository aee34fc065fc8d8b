"""The objects of a whole data set in flat arrays, and the data set made of them and their pictures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from backbones.errors import DataError
from detection.structures import Target

BadBoxes = Literal["error", "repair", "keep"]

# Pixels: areas below these are COCO's small and medium objects. COCO's metric counts an object of exactly such an area
# in the ranges on both sides.
SMALL, MEDIUM = 32**2, 96**2
FURTHEST = 1e9  # pixels that a box can reach: no picture is as large, and areas of such boxes are numbers still


@dataclass
class Annotations:
    """The objects of N pictures, M in all. Picture i has the objects offsets[i] to offsets[i + 1] - 1, in file order.

    All that is needed for a picture lies in arrays: touching Python objects in a worker process would copy the memory
    that it shares with the first one (pytorch#13246).

    Args:
        class_names: of the K classes; label k is class_names[k - 1].
        category_ids: the data set's own number of each class.
        image_ids: the data set's own ids of the pictures.
        sizes: (N, 2) int64, (height, width) of each picture.
        boxes: (M, 4) float64 (x1, y1, x2, y2), as the data set has them: metrics are computed on these.
        labels: (M,) int64 in 1..K.
        ignore: (M,) bool: difficult objects and crowds.
        areas: (M,) float64: of the object where the data set says (COCO's segmentation area), else of the box.
        offsets: (N + 1,) int64.

    Raises:
        ValueError: the arrays do not fit together.
    """

    class_names: list[str]
    category_ids: list[int]
    image_ids: list[int] | list[str]
    sizes: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    areas: NDArray[np.float64]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        n, m, k = len(self.image_ids), len(self.labels), len(self.class_names)
        shapes = {"sizes": (n, 2), "boxes": (m, 4), "labels": (m,), "ignore": (m,), "areas": (m,), "offsets": (n + 1,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        if len(self.category_ids) != k or len(set(self.class_names)) != k or len(set(self.category_ids)) != k:
            raise ValueError("class_names and category_ids are not distinct or not of one length")
        if len(set(self.image_ids)) != n:
            raise ValueError("image_ids are not distinct")
        if m and not (self.labels.min() >= 1 and self.labels.max() <= k):
            raise ValueError(f"labels outside 1..{k}")
        if self.offsets[0] != 0 or self.offsets[-1] != m or (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets do not rise from 0 to the number of objects")

    @classmethod
    def from_objects(
        cls,
        *,
        class_names: Sequence[str],
        image_ids: Sequence[Any],
        sizes: ArrayLike,
        images: ArrayLike,
        boxes: ArrayLike,
        labels: ArrayLike,
        ignore: ArrayLike | None = None,
        areas: ArrayLike | None = None,
        category_ids: Sequence[int] | None = None,
    ) -> "Annotations":
        """Annotations from objects in any order; those of one picture stay in the order given.

        Args:
            images: (M,) the index of each object's picture.
            ignore: none by default.
            areas: those of the boxes by default.
            category_ids: 1..K by default.
        """
        images = np.asarray(images, dtype=np.int64).reshape(-1)
        order = np.argsort(images, kind="stable")
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        if areas is None:
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return cls(
            class_names=list(class_names),
            category_ids=list(range(1, len(class_names) + 1) if category_ids is None else category_ids),
            image_ids=list(image_ids),
            sizes=np.asarray(sizes, dtype=np.int64).reshape(-1, 2),
            boxes=boxes[order],
            labels=np.asarray(labels, dtype=np.int64).reshape(-1)[order],
            ignore=np.asarray(np.zeros(len(images)) if ignore is None else ignore, dtype=bool).reshape(-1)[order],
            areas=np.asarray(areas, dtype=np.float64).reshape(-1)[order],
            offsets=np.concatenate([[0], np.cumsum(np.bincount(images, minlength=len(image_ids)))]).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def images(self) -> NDArray[np.int64]:
        """(M,) the index of each object's picture."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def target(self, index: int) -> Target:
        """The objects of picture `index`, their boxes clipped to it."""
        objects = slice(self.offsets[index], self.offsets[index + 1])
        height, width = self.sizes[index]
        boxes = self.boxes[objects].clip(0, (width, height, width, height))
        return Target(
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            labels=torch.from_numpy(self.labels[objects].copy()),
            ignore=torch.from_numpy(self.ignore[objects].copy()),
        )


@dataclass
class DetectionDataset:
    """Pictures and their objects.

    Args:
        annotations: the objects of all pictures.
        load_image: gives picture i, (3, H, W) uint8 RGB; has to be picklable to be used in worker processes.
        repaired: boxes that were clipped because they reached outside their picture.
        dropped: boxes that were left out because they had no area.
        annotated: False where the objects are not published (a challenge's test set): there are none here then, which
            says nothing of the pictures.
        without_boxes: pictures that were left out because only some of the set have boxes (ImageNet localisation).
    """

    annotations: Annotations
    load_image: Callable[[int], Tensor]
    repaired: int = 0
    dropped: int = 0
    annotated: bool = True
    without_boxes: int = 0

    def __len__(self) -> int:
        return len(self.annotations)

    def target(self, index: int) -> Target:
        """The objects of picture `index`."""
        return self.annotations.target(index)


def concatenate(parts: Sequence[Annotations]) -> Annotations:
    """Several sets of pictures with the same classes as one. Raises DataError if a picture is in two of them."""
    first, image_ids = parts[0], [i for part in parts for i in part.image_ids]
    if any((p.class_names, p.category_ids) != (first.class_names, first.category_ids) for p in parts):
        raise DataError("splits with different classes can't be joined")
    if len(set(image_ids)) != len(image_ids):
        raise DataError(f"image {duplicate(image_ids)} is in two of the splits that are joined: name one of them")
    starts = np.cumsum([0] + [len(p) for p in parts])
    arrays = {
        name: np.concatenate([getattr(p, name) for p in parts]) for name in ("boxes", "labels", "ignore", "areas")
    }
    return Annotations.from_objects(
        class_names=first.class_names,
        category_ids=first.category_ids,
        image_ids=image_ids,
        sizes=np.concatenate([p.sizes for p in parts]),
        images=np.concatenate([p.images + start for p, start in zip(parts, starts, strict=False)]),
        **arrays,
    )


def duplicate(values: Sequence[Any]) -> Any:
    """The first value that has occurred before; None if all are distinct."""
    seen: set[Any] = set()
    return next((v for v in values if v in seen or seen.add(v)), None)  # type: ignore[func-returns-value]


@contextmanager
def looked_through(layout: str) -> Iterator[None]:
    """Errors of a set's content name the command that looks for all of them at once."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error} (check_data.py --name {layout} looks through all of the set)") from error


class JudgedBoxes(NamedTuple):
    """What is to be said of M boxes.

    Args:
        clipped: (M, 4) float64, to their pictures.
        beyond: (M,) float64, how far they reach outside, in pixels.
        kept: (M,) bool: they have an area, and some of it inside.
        bad: (M,) bool: not kept, or more than a pixel outside (less is what rounding, or counting from one, does).
    """

    clipped: NDArray[np.float64]
    beyond: NDArray[np.float64]
    kept: NDArray[np.bool_]
    bad: NDArray[np.bool_]


def judge_boxes(boxes: NDArray[np.float64], sizes: NDArray[np.int64], has_area: NDArray[np.bool_]) -> JudgedBoxes:
    """Which boxes training can use, by the rules of `check_boxes`.

    Args:
        boxes: (M, 4) x1, y1, x2, y2.
        sizes: (M, 2) height and width of each box's picture.
        has_area: (M,) what the data set's own form of the box says.
    """
    clipped = boxes.clip(0, sizes[:, [1, 0, 1, 0]])
    beyond = np.abs(clipped - boxes).max(axis=1, initial=0)
    kept = has_area & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return JudgedBoxes(clipped, beyond, kept, ~kept | (beyond > 1))


def check_boxes(
    boxes: NDArray[np.float64],
    sizes: NDArray[np.int64],
    has_area: NDArray[np.bool_],
    bad_boxes: BadBoxes,
    describe: Callable[[int], str],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Looks for boxes without an area and for boxes that reach more than a pixel outside their picture.

    Boxes that reach further than any picture does are always refused.

    Args:
        boxes, sizes, has_area: see `judge_boxes`.
        bad_boxes: "error" raises on the first bad box; "repair" clips them, and leaves out those with nothing left;
            "keep" takes all as they are (official scores are computed on the boxes of the file).
        describe: names file, object and box of a row, for the error.

    Returns:
        (M, 4) boxes; (M,) which of them are left; how many of these were clipped.

    Raises:
        DataError: a bad box, under "error"; a box that is further away than `FURTHEST`.
    """
    far = ~(np.abs(boxes) <= FURTHEST).all(axis=1)
    if far.any():
        raise DataError(f"{describe(int(far.argmax()))} reaches further than {FURTHEST:,.0f} pixels: mend its numbers")
    if bad_boxes == "keep":
        return boxes, np.ones(len(boxes), dtype=bool), 0
    clipped, _, kept, bad = judge_boxes(boxes, sizes, has_area)
    if bad_boxes == "error" and bad.any():
        first = int(bad.argmax())
        height, width = sizes[first]
        problem = "has no area" if not has_area[first] else f"reaches outside its {width}x{height} picture"
        more = f" ({bad.sum() - 1} more in this set)" if bad.sum() > 1 else ""
        raise DataError(f"{describe(first)} {problem}{more}; set --data.bad_boxes repair to clip and drop such boxes")
    return np.where(bad[:, None], clipped, boxes), kept, int((bad & kept).sum())
