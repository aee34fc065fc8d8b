"""Sheets of pictures with their annotated boxes, for `check_data`."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from backbones.errors import DataError, RunFolderError
from backbones.progress import progress_bar
from detection.data.checking.scan import SplitScan
from detection.data.pictures import read_image
from detection.drawing import draw_marks, grid, object_marks, save_picture

COLUMNS, ROWS = 4, 3  # of a sheet
CELL = 480  # pixels: the longer side of a drawn picture
FLAG, FLAG_WIDTH = "#FF0000", 5  # the outline of boxes with findings; pixels

_SHEET = re.compile(r"sheet_[0-9]+\.png")


def draw_sheets(scans: Sequence[SplitScan], count: int, folder: Path) -> str:
    """Writes `folder/sheet_<n>.png`: pictures with errors and warnings first, then evenly spaced ones.

    Objects that are difficult or crowds are drawn dashed, and those with errors or warnings have a thick red outline. A
    picture that can't be read is an empty cell. Sheets that are there already are removed.

    Args:
        count: pictures to draw at most.

    Returns:
        A line about them.

    Raises:
        RunFolderError: the folder can't be written.
    """
    _remove_sheets(folder)
    sheets, unreadable = 0, 0
    cells: list[Image.Image] = []
    captions: list[str] = []
    chosen = choose(scans, count)
    with progress_bar(chosen, unit="picture", description="drawing") as bar:
        for number, (scan, place) in enumerate(bar, 1):
            captions.append(caption(scan, place))
            try:
                cells.append(draw_picture(scan, place))
            except DataError:  # it is among the findings
                cells.append(Image.new("RGB", (CELL, CELL // 2), "lightgrey"))
                captions[-1] = f"can't be read: {captions[-1]}"
                unreadable += 1
            if len(cells) == COLUMNS * ROWS or number == len(chosen):
                sheets += 1
                sheet = grid(cells, min(COLUMNS, len(cells)), titles=captions, narrowest=CELL)
                save_picture(sheet, folder / f"sheet_{sheets}.png")
                cells, captions = [], []
    empty = f", {unreadable:,} of them as empty cells (can't be read)" if unreadable else ""
    red = "; boxes with errors or warnings have a red outline" if any(scan.flagged_objects for scan in scans) else ""
    return f"{len(chosen):,} picture(s) drawn on {sheets:,} sheet(s) in {folder}{empty}{red}"


def _remove_sheets(folder: Path) -> None:
    """Those of another run would be taken for this one's."""
    for path in folder.glob("sheet_*.png"):
        if _SHEET.fullmatch(path.name):
            try:
                path.unlink()
            except OSError as error:
                raise RunFolderError(f"{path}: can't be removed ({error.strerror})") from error


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
    drawn = draw_marks(image, marks, scale=scale)
    for box, row in zip(boxes, np.flatnonzero(scan.objects.images == place).tolist(), strict=True):
        if row in scan.flagged_objects:
            _draw_flag(drawn, box * scale)
    return drawn


def _draw_flag(picture: Image.Image, box: NDArray[np.float64]) -> None:
    """An outline around a box (x1, y1, x2, y2), of which some is to be seen wherever the box is."""
    ends = np.array(picture.size) - 1
    corners = np.sort(box.reshape(2, 2), axis=0)  # they may be swapped
    first = np.minimum(np.maximum(corners[0] - FLAG_WIDTH, 0), ends - FLAG_WIDTH)
    last = np.maximum(np.minimum(corners[1] + FLAG_WIDTH, ends), FLAG_WIDTH)
    ImageDraw.Draw(picture).rectangle([*first.tolist(), *last.tolist()], outline=FLAG, width=FLAG_WIDTH)


def caption(scan: SplitScan, place: int) -> str:
    """Split and name of a picture, and what was found of it."""
    kinds = ", ".join(dict.fromkeys(scan.flagged.get(place, [])))
    return f"{scan.name}: {Path(scan.pictures[place].path).name}{f'  [{kinds}]' if kinds else ''}"
