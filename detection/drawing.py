"""Pictures with boxes on them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detection.structures import Detections

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF"]


def draw_detections(
    image: Tensor,
    detections: Detections,
    class_names: Sequence[str],
    *,
    min_score: float = 0.5,
    enlarge: int = 1,
    scores: bool = True,
) -> Image.Image:
    """The picture (3, H, W) uint8 with a box, class and score for each detection of at least `min_score`, best on top.

    Args:
        scores: write them too (the ground truth has none).
        enlarge: draw on a copy this many times as large (for small pictures).
    """
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    picture = picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 200))
    font = ImageFont.load_default(size=max(10, round(min(picture.size) / 24)))
    for i in torch.argsort(detections.scores):
        if detections.scores[i] < min_score:
            continue
        label = int(detections.labels[i])
        colour = _COLOURS[(label - 1) % len(_COLOURS)]
        x1, y1, x2, y2 = (float(v) * enlarge for v in detections.boxes[i])
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        text = class_names[label - 1] + (f" {float(detections.scores[i]):.2f}" if scores else "")
        left, top, right, bottom = draw.textbbox((x1, y1), text, font=font)
        x, y = min(x1, max(0, picture.width - (right - left) - 4)), max(0, y1 - (bottom - top) - 4)
        draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
        draw.text((x + 2, y + 2 - (top - y1)), text, fill="black", font=font)
    return picture


def grid(pictures: Sequence[Image.Image], columns: int, gap: int = 6) -> Image.Image:
    """Pictures side by side on white, row by row; cells are as large as the largest."""
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        sheet.paste(picture, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet
