"""Ground truth beside what runs found: which pictures to show, and the sheet of one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from detection.analysis.outcomes import Kind, Outcomes, find_outcomes
from detection.data.annotations import Annotations
from detection.drawing import TITLE_LINE, TITLE_SIZE, Mark, draw_marks, grid, load_font, object_marks
from detection.evaluate.arrays import DetectionTable, Floats, Indices

# Dashed: a box without an object, or an object without a box.
STYLES = {
    "found": ("#00B050", False),
    "classification": ("#E69F00", False),
    "localisation": ("#56B4E9", False),
    "both": ("#CC79A7", False),
    "duplicate": ("#F0E442", False),
    "background": ("#E03020", True),
    "ignored": ("#999999", False),
    "missed": ("#FF00D0", True),
}
"""Colour of a box, and whether it is dashed."""
MEANINGS = {
    "found": "right",
    "classification": "wrong class",
    "localisation": "wrong place",
    "both": "wrong class and place",
    "duplicate": "duplicate",
    "background": "nothing there",
    "ignored": "in an ignored object",
    "missed": "missed object",
}
_CELL = 640  # pixels that the longer side of a picture may take in a sheet; twice this where they stand in a column
_SMALL = 320  # pictures whose longer side is shorter are enlarged
_NARROWEST = 400  # column, for its title
_GAP = 8


@dataclass
class Counts:
    """What a run made of one picture.

    Args:
        right: detections that found an object.
        wrong: other detections, without those in ignored objects.
        overlooked: objects that were not found.
        claimed: those of them that a detection of the wrong class or place is meant for, in TIDE's sense.
    """

    right: int
    wrong: int
    overlooked: int
    claimed: int = 0

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + overlooked); 1 where there was nothing to find and nothing was found."""
        everything = 2 * self.right + self.wrong + self.overlooked
        return 2 * self.right / everything if everything else 1.0


def outcomes_from(annotations: Annotations, detections: DetectionTable, min_score: float) -> Outcomes:
    """The outcomes of the detections that have at least `min_score`, as if there were no others."""
    return find_outcomes(annotations, detections.where(detections.scores >= min_score))


def count_by_picture(annotations: Annotations, outcomes: Outcomes) -> list[Counts]:
    """The counts of each picture."""
    pictures = len(annotations)
    right = outcomes.kinds == Kind.FOUND
    overlooked = ~annotations.ignore & ~outcomes.found
    columns = [outcomes.images[right], outcomes.images[~right & ~outcomes.ignored]]
    columns += [annotations.images[overlooked], annotations.images[overlooked & ~outcomes.missed]]
    return [Counts(*row) for row in zip(*(np.bincount(c, minlength=pictures).tolist() for c in columns), strict=True)]


def most_different(counts: Sequence[Sequence[Counts]], number: int) -> list[int]:
    """The pictures in which the F1 of the runs is furthest apart, the furthest first.

    Args:
        counts: of each run, of each picture.
    """
    f1: Floats = np.array([[each.f1 for each in run] for run in counts])
    return np.argsort(f1.min(axis=0) - f1.max(axis=0), kind="stable")[:number].tolist()


def evenly_spaced(pictures: int, number: int) -> list[int]:
    """So many of the pictures, the first and the last among them."""
    return sorted(set(np.linspace(0, pictures - 1, min(number, pictures)).round().astype(int).tolist()))


def kind_of(outcomes: Outcomes, row: int) -> str:
    """What a detection is, by the names of STYLES."""
    return "ignored" if outcomes.ignored[row] else Kind(int(outcomes.kinds[row])).name.lower()


def rows_of(images: Indices, index: int) -> list[int]:
    """The places of a picture's entries in ascending indices of pictures."""
    return list(range(np.searchsorted(images, index), np.searchsorted(images, index, side="right")))


def draw_sheet(
    image: Tensor, index: int, annotations: Annotations, outcomes: dict[str, Outcomes], titles: Sequence[str]
) -> Image.Image:
    """A picture with its objects, then with what each run found; beside each other, or below where it is very wide.

    Args:
        image: (3, H, W) uint8.
        index: which picture of `annotations` it is.
        outcomes: by the names of the runs.
        titles: of the ground truth and of each run.
    """
    height, width = image.shape[1:]
    wide = width > 2.5 * height
    longer = max(height, width)
    room = _CELL * (2 if wide else 1)
    scale: float = room / longer if longer > room else max(1, _SMALL // longer)
    marks = [_truth_marks(annotations, index), *(_run_marks(annotations, each, index) for each in outcomes.values())]
    panels = [draw_marks(image, each, scale=scale) for each in marks]
    panes = grid(panels, 1 if wide else len(panels), titles=titles, narrowest=_NARROWEST, gap=_GAP)
    legend = _legend(panes.width - 2 * _GAP)
    sheet = Image.new("RGB", (panes.width, panes.height + legend.height + _GAP), "white")
    sheet.paste(panes, (0, 0))
    sheet.paste(legend, (_GAP, panes.height))
    return sheet


def _truth_marks(annotations: Annotations, index: int) -> list[Mark]:
    rows = rows_of(annotations.images, index)
    columns = (annotations.boxes[rows], annotations.labels[rows], annotations.ignore[rows])
    return object_marks(annotations.class_names, *(column.tolist() for column in columns))


def _run_marks(annotations: Annotations, outcomes: Outcomes, index: int) -> list[Mark]:
    marks = []
    for row in rows_of(outcomes.images, index):
        colour, dashed = STYLES[kind_of(outcomes, row)]
        text = f"{annotations.class_names[outcomes.labels[row] - 1]} {outcomes.scores[row]:.2f}"
        marks.append(Mark(outcomes.boxes[row].tolist(), text, colour, dashed))
    colour, dashed = STYLES["missed"]
    for row in rows_of(annotations.images, index):
        if outcomes.missed[row]:
            name = annotations.class_names[annotations.labels[row] - 1]
            marks.append(Mark(annotations.boxes[row].tolist(), f"{name} missed", colour, dashed))
    return marks


def _legend(width: int) -> Image.Image:
    """What the styles mean, in as many lines as the width needs."""
    font = load_font(TITLE_SIZE)
    entries: list[tuple[int, int, str]] = []
    x = y = 0
    for name, meaning in MEANINGS.items():
        length = 40 + int(font.getlength(meaning)) + 18
        if x and x + length > width:
            x, y = 0, y + TITLE_LINE
        entries.append((x, y, name))
        x += length
    picture = Image.new("RGB", (width, y + TITLE_LINE), "white")
    draw = ImageDraw.Draw(picture)
    for left, top, name in entries:
        colour, dashed = STYLES[name]
        draw.rectangle((left, top + 2, left + 33, top + 19), fill="#606060")  # white shows on it, too
        for start in range(left + 4, left + 29, 10) if dashed else [left + 4]:
            draw.rectangle((start, top + 9, start + 5 if dashed else left + 29, top + 12), fill=colour)
        draw.text((left + 40, top + 1), MEANINGS[name], fill="black", font=font)
    return picture
