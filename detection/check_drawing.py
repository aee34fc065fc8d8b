"""Sheets of pictures with their annotated boxes, for `check_data`."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from backbones.data.findings import printable
from backbones.data.pictures import read_image
from backbones.engine.checkpoint import write_atomically
from backbones.errors import DataError, RunFolderError
from backbones.progress import progress_bar
from detection.data.checking.scan import SplitScan
from detection.drawing import draw_detections, grid
from detection.structures import Detections

COLUMNS, ROWS = 4, 3  # of a sheet
CELL = 480  # pixels: the longer side of a drawn picture
_DASH = 6  # pixels
_CAPTION = 14  # pixels: height of its font


def draw_sheets(scans: Sequence[SplitScan], count: int, folder: Path) -> int:
    """Writes `folder/sheet_<n>.png`: pictures with errors and warnings first, then evenly spaced ones.

    Objects that are difficult or crowds are drawn with grey dashes. A picture that can't be read is left out.

    Args:
        count: pictures to draw at most.

    Returns:
        How many sheets there are.

    Raises:
        RunFolderError: the folder can't be written.
    """
    sheets, cells = 0, []
    chosen = choose(scans, count)
    with progress_bar(chosen, unit="picture", description="drawing") as bar:
        for number, (scan, place) in enumerate(bar, 1):
            with suppress(DataError):  # one that can't be read is among the findings
                cells.append(draw_picture(scan, place))
            if cells and (len(cells) == COLUMNS * ROWS or number == len(chosen)):
                sheets += 1
                _save(grid(cells, min(COLUMNS, len(cells))), folder / f"sheet_{sheets}.png")
                cells = []
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
    """One picture with its objects and a caption. Raises DataError if it can't be read."""
    path = scan.pictures[place].path
    picture = read_image(path)
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    found = scan.objects.of_picture(place)
    edge = np.tile(np.array(size, dtype=np.float64), 2)
    boxes = found.boxes.clip(-1e6, 1e6) * (edge / np.tile(picture.size, 2))
    boxes = boxes.clip(-1, edge + 1)  # those far outside show at the edge
    pixels = torch.from_numpy(np.array(picture.resize(size))).permute(2, 0, 1)
    objects = Detections(torch.from_numpy(boxes), torch.ones(len(boxes)), torch.from_numpy(found.labels + 1))
    names = [printable(name[:40]) for name in scan.class_names]
    drawn = draw_detections(pixels, objects, names, scores=False)
    for box in boxes[found.ignore].tolist():
        _dash(drawn, box)
    kinds = ", ".join(dict.fromkeys(scan.flagged.get(place, [])))
    return _with_caption(drawn, printable(f"{scan.name}: {Path(path).name}{f'  [{kinds}]' if kinds else ''}"))


def _dash(picture: Image.Image, box: Sequence[float]) -> None:
    """Grey dashes over the outline of a box."""
    draw = ImageDraw.Draw(picture)
    x1, y1, x2, y2 = box
    for start in _starts(x1, x2):
        for y in (y1, y2 - 1):
            draw.line((start, y, min(start + _DASH, x2), y), fill="#808080", width=3)
    for start in _starts(y1, y2):
        for x in (x1, x2 - 1):
            draw.line((x, start, x, min(start + _DASH, y2)), fill="#808080", width=3)


def _starts(first: float, last: float) -> Iterator[float]:
    yield from np.arange(first, last, 2 * _DASH).tolist()


def _with_caption(picture: Image.Image, text: str) -> Image.Image:
    font = ImageFont.load_default(size=_CAPTION)
    whole = Image.new("RGB", (max(picture.width, CELL), picture.height + _CAPTION + 8), "white")
    whole.paste(picture, (0, _CAPTION + 8))
    ImageDraw.Draw(whole).text((2, 2), text, fill="black", font=font)
    return whole


def _save(sheet: Image.Image, path: Path) -> None:
    try:
        write_atomically(path, lambda temporary: sheet.save(temporary, "PNG"))
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error
