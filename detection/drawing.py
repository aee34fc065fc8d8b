"""Pictures with boxes on them, and sheets of pictures."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from backbones.engine.checkpoint import write_atomically
from backbones.errors import RunFolderError
from backbones.text import printable
from detection.structures import Detections

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF"]
_PADDING = 2  # pixels around the text of a label
TITLE_SIZE, TITLE_LINE = 14, 22  # pixels: the font of titles, and what a line of them takes

_Area = tuple[float, float, float, float]


@dataclass
class Mark:
    """A box to draw.

    Args:
        box: (x1, y1, x2, y2) in pixels, x2 and y2 exclusive.
        text: its label; "" for none.
        colour: as PIL names colours.
        dashed: draw its outline so.
    """

    box: Sequence[float]
    text: str
    colour: str
    dashed: bool = False


def class_colour(label: int) -> str:
    """The colour of class `label` (from 1): the first eight for the colour-blind, 150 distinct ones in all."""
    colours = _class_colours()
    return colours[(label - 1) % len(colours)]


@functools.cache
def _class_colours() -> list[str]:
    """Okabe and Ito's, then always the colour that is furthest from those before it."""
    steps = np.arange(0, 256, 51)
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    candidates = candidates[_brightness(candidates) > 60]  # dark lines do not show on dark pictures
    colours = [ImageColor.getrgb(colour)[:3] for colour in _COLOURS]
    distances = np.full(len(candidates), np.inf)
    for place in range(150):
        if place >= len(colours):
            red, green, blue = candidates[distances.argmax()].tolist()
            colours.append((red, green, blue))
        # Green differences show most, blue ones least.
        squares = ((candidates - colours[place]) ** 2) @ np.array([3, 4, 2])
        distances = np.minimum(distances, squares)
    return ["#{:02X}{:02X}{:02X}".format(*colour) for colour in colours]


def _brightness(colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Luma (...) of colours (..., 3) of 0 to 255."""
    return colours @ np.array([0.299, 0.587, 0.114])


def draw_detections(
    image: Tensor,
    detections: Detections,
    class_names: Sequence[str],
    *,
    min_score: float = 0.5,
    enlarge: int = 1,
) -> Image.Image:
    """The picture (3, H, W) uint8 with a box, class and score for each detection of at least `min_score`, best on top.

    Args:
        enlarge: draw on a copy this many times as large (for small pictures).
    """
    marks = []
    for i in torch.argsort(detections.scores, descending=True):
        if detections.scores[i] >= min_score:
            label = int(detections.labels[i])
            text = f"{class_names[label - 1]} {float(detections.scores[i]):.2f}"
            marks.append(Mark(detections.boxes[i].tolist(), text, class_colour(label)))
    return draw_marks(image, marks, scale=enlarge)


def object_marks(
    class_names: Sequence[str], boxes: Sequence[Sequence[float]], labels: Sequence[int], ignore: Sequence[bool]
) -> list[Mark]:
    """The objects of a picture, in the colours of their classes; those to ignore are dashed.

    Args:
        boxes: of N objects.
        labels: N, from 1.
        ignore: N.
    """
    return [
        Mark(box, class_names[label - 1] + " (ignored)" * ignored, class_colour(label), dashed=ignored)
        for box, label, ignored in zip(boxes, labels, ignore, strict=True)
    ]


def draw_marks(image: Tensor, marks: Sequence[Mark], *, scale: float = 1) -> Image.Image:
    """The picture (3, H, W) uint8 with marks, the first on top; labels stand where they hide no other, if they can.

    Args:
        scale: draw on a copy this many times as large; marks are in the pixels of `image`.
    """
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    if scale != 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 200))
    marks = [replace(mark, text=printable(mark.text)) for mark in marks]
    boxes = [tuple(float(v) * scale for v in mark.box) for mark in marks]
    reach = (
        np.array([*picture.size, *picture.size]) + 9 * line
    )  # outside, nothing shows; and dashes are drawn one by one
    for box, mark in reversed(list(zip(boxes, marks, strict=True))):
        x1, y1, x2, y2 = np.clip(box, -9 * line, reach).tolist()
        _draw_box(draw, (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), mark, line)
    font_size = max(10, round((picture.width * picture.height) ** 0.5 / 34))
    labels: list[tuple[_Area, Mark, ImageFont.FreeTypeFont]] = []
    for (x1, y1, x2, y2), mark in zip(boxes, marks, strict=True):
        if mark.text:
            font = _font(mark.text, font_size, picture.width)
            area = _free_place((x1, y1, x2, y2), _text_size(mark.text, font), picture, [a for a, _, _ in labels])
            labels.append((area, mark, font))
    for area, mark, font in reversed(labels):
        _draw_label(draw, area, mark, font)
    return picture


def _draw_box(draw: ImageDraw.ImageDraw, area: _Area, mark: Mark, line: int) -> None:
    if not mark.dashed:
        draw.rectangle(area, outline=mark.colour, width=line)
        return
    x1, y1, x2, y2 = area
    dash = 4 * line
    for start in np.arange(x1, x2, 2 * dash):
        end = min(start + dash - 1, x2)
        draw.rectangle((start, y1, end, min(y1 + line - 1, y2)), fill=mark.colour)
        draw.rectangle((start, max(y2 - line + 1, y1), end, y2), fill=mark.colour)
    for start in np.arange(y1, y2, 2 * dash):
        end = min(start + dash - 1, y2)
        draw.rectangle((x1, start, min(x1 + line - 1, x2), end), fill=mark.colour)
        draw.rectangle((max(x2 - line + 1, x1), start, x2, end), fill=mark.colour)


@functools.cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, as Matplotlib brings it: Latin with all accents, Greek, Cyrillic and more, as names of classes need.

    Args:
        size: in pixels.
    """
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _font(text: str, size: int, room: int) -> ImageFont.FreeTypeFont:
    """A font of the size, or a smaller one (but legible) with which the text is no wider than the picture."""
    font = load_font(size)
    width = font.getlength(text) + 2 * _PADDING
    return font if width <= room else load_font(max(8, int(size * room / width)))


def _text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[float, float]:
    """Width of the text and height of its line."""
    left, _, right, _ = font.getbbox(text)
    top, bottom = _line(text, font)
    return right - left + 2 * _PADDING, bottom - top + 2 * _PADDING


def _line(text: str, font: ImageFont.FreeTypeFont) -> tuple[float, float]:
    """Top and bottom of a line: the same for all texts, so that labels look alike, but for accents on capitals."""
    boxes = [font.getbbox(each) for each in ("Ag", text)]
    return min(top for _, top, _, _ in boxes), max(bottom for _, _, _, bottom in boxes)


def _free_place(box: _Area, size: tuple[float, float], picture: Image.Image, taken: Sequence[_Area]) -> _Area:
    """Where a label hides none before it: above its box, inside it at the top or bottom, below; else above."""
    areas = list(_places(box, size, picture))
    return next((area for area in areas if not any(_overlap(area, other) for other in taken)), areas[0])


def _places(box: _Area, size: tuple[float, float], picture: Image.Image) -> Iterator[_Area]:
    (x1, y1, x2, y2), (width, height) = box, size
    for x, y in ((x1, y1 - height), (x1, y1), (x1, y2 - height), (x1, y2), (x2 - width, y1 - height)):
        left, top = (max(0.0, min(v, room - s)) for v, room, s in zip((x, y), picture.size, size, strict=True))
        yield left, top, left + width, top + height


def _overlap(a: _Area, b: _Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_label(draw: ImageDraw.ImageDraw, area: _Area, mark: Mark, font: ImageFont.FreeTypeFont) -> None:
    x1, y1, x2, y2 = area
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), fill=mark.colour)
    left, _, _, _ = font.getbbox(mark.text)
    top, _ = _line(mark.text, font)
    draw.text((x1 + _PADDING - left, y1 + _PADDING - top), mark.text, fill=text_colour(mark.colour), font=font)


def text_colour(background: str) -> str:
    """Black or white, whichever reads better on a colour."""
    return "black" if _brightness(np.array(ImageColor.getrgb(background)[:3])) > 100 else "white"


def grid(
    pictures: Sequence[Image.Image], columns: int, *, titles: Sequence[str] = (), narrowest: int = 0, gap: int = 6
) -> Image.Image:
    """Pictures side by side on white, row by row; cells are as large as the largest.

    Args:
        titles: of the first pictures, each above its picture; titles of the first row only are those of the columns.
        narrowest: width of a cell, in pixels, that long titles need.
        gap: pixels between cells.
    """
    width, height = max(narrowest, *(p.width for p in pictures)), max(p.height for p in pictures)
    rows = -(-len(pictures) // columns)
    titled = -(-len(titles) // columns)  # rows
    size = (columns * (width + gap) + gap, rows * (height + gap) + titled * TITLE_LINE + gap)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), load_font(TITLE_SIZE)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        x, y = gap + column * (width + gap), gap + row * (height + gap) + min(row + 1, titled) * TITLE_LINE
        sheet.paste(picture, (x, y))
        if place < len(titles):
            draw.text((x, y - TITLE_LINE), _fit(printable(titles[place]), font, width), fill="black", font=font)
    return sheet


def _fit(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """The text, cut where it is wider than `room` pixels."""
    while len(text) > 1 and font.getlength(text) > room:
        text = text[:-2].rstrip() + "…"
    return text


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a PNG, whole or not at all. Raises RunFolderError if it can't be written."""
    try:
        write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error
