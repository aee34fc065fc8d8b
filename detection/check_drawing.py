"""Sheets of pictures with their annotated boxes, for `check_data`."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.errors import DataError
from backbones.progress import progress_bar
from detection.data.checking.scan import SplitScan
from detection.data.pictures import read_image
from detection.drawing import draw_marks, grid, object_marks, save_picture

COLUMNS, ROWS = 4, 3  # of a sheet
CELL = 480  # pixels: the longer side of a drawn picture


def draw_sheets(scans: Sequence[SplitScan], count: int, folder: Path) -> int:
    """Writes `folder/sheet_<n>.png`: pictures with errors and warnings first, then evenly spaced ones.

    Objects that are difficult or crowds are drawn dashed. A picture that can't be read is left out.

    Args:
        count: pictures to draw at most.

    Returns:
        How many sheets there are.

    Raises:
        RunFolderError: the folder can't be written.
    """
    sheets = 0
    cells: list[Image.Image] = []
    captions: list[str] = []
    chosen = choose(scans, count)
    with progress_bar(chosen, unit="picture", description="drawing") as bar:
        for number, (scan, place) in enumerate(bar, 1):
            with suppress(DataError):  # one that can't be read is among the findings
                cells.append(draw_picture(scan, place))
                captions.append(caption(scan, place))
            if cells and (len(cells) == COLUMNS * ROWS or number == len(chosen)):
                sheets += 1
                sheet = grid(cells, min(COLUMNS, len(cells)), titles=captions, narrowest=CELL)
                save_picture(sheet, folder / f"sheet_{sheets}.png")
                cells, captions = [], []
    return sheets


def choose(scans: Sequence[SplitScan], count: int) -> list[tuple[SplitScan, int]]:
    """At most `count` pictures that are there, with their places in their splits."""
    there = [(scan, place) for scan in scans for place, p in enumerate(scan.pictures) if p.is_there]
    flagged = [(scan, place) for scan, place in there if place in scan.flagged][:count]
    others = [(scan, place) for scan, place in there if place not in scan.flagged]
    wanted = min(count - len(flagged), len(others))
    spaced = [others[int(i)] for i in np.linspace(0, len(others) - 1, wanted)] if wanted else []
    return flagged + spaced


def draw_picture(scan: SplitScan, place: int) -> Image.Image:
    """One picture with its objects, its longer side CELL pixels long. Raises DataError if it can't be read."""
    image = read_image(scan.pictures[place].path)
    height, width = image.shape[1:]
    scale = CELL / max(height, width)
    objects = scan.objects.of_picture(place)
    margin = 1 / scale
    boxes = objects.boxes.clip(-margin, np.tile([width, height], 2) + margin)  # those far outside show at the edge
    names = [name[:40] for name in scan.class_names]
    marks = object_marks(names, boxes.tolist(), (objects.labels + 1).tolist(), objects.ignore.tolist())
    return draw_marks(image, marks, scale=scale)


def caption(scan: SplitScan, place: int) -> str:
    """Split and name of a picture, and what was found of it."""
    kinds = ", ".join(dict.fromkeys(scan.flagged.get(place, [])))
    return f"{scan.name}: {Path(scan.pictures[place].path).name}{f'  [{kinds}]' if kinds else ''}"
