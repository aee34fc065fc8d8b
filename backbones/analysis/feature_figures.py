"""Filters, activation maps and top patches, as figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from backbones.analysis.figures import literal, new_figure

_CELL = 64  # pixels of one patch in a mosaic
_GAP = 4


@dataclass(frozen=True)
class Tiles:
    """A row of small pictures.

    Args:
        titles: of each.
        pictures: each (H, W, 3) uint8, or (H, W) float for an activation map.
    """

    titles: Sequence[str]
    pictures: Sequence[np.ndarray]


_NARROWEST = 7.5  # inches: what a title needs


def draw_filters(filters: np.ndarray, title: str) -> Figure:
    """conv1's filters (C, 3, K, K) as colours; each stretched so that grey is 0 and its largest weight is full.

    Args:
        filters: in the order of the channels.
        title: of the figure.
    """
    columns = min(16, len(filters))
    rows = -(-len(filters) // columns)
    figure = new_figure(max(0.55 * columns + 0.4, _NARROWEST), 0.55 * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, weights in zip(grid.flat, filters, strict=False):
        largest = max(float(np.abs(weights).max()), 1e-12)
        axes.imshow(weights.transpose(1, 2, 0) / (2 * largest) + 0.5, interpolation="nearest")
    figure.suptitle(literal(title))
    return figure


def draw_tiles(sections: Mapping[str, Sequence[Tiles]], title: str) -> Figure:
    """Sections below each other, each of rows of tiles: pictures as they are, maps from black (0) to white (largest).

    Args:
        sections: the rows of tiles by the section's title.
        title: of the figure.
    """
    columns = max([1, *(len(tiles.pictures) for rows in sections.values() for tiles in rows)])
    heights = [len(rows) + 0.35 for rows in sections.values()]
    figure = new_figure(max(1.15 * columns + 0.2, _NARROWEST), 1.15 * sum(heights) + 0.5)
    parts = figure.subfigures(len(sections), 1, height_ratios=heights, squeeze=False)
    for part, (heading, rows) in zip(parts[:, 0], sections.items(), strict=True):
        part.suptitle(heading, fontsize="medium")
        grid = part.subplots(len(rows), columns, squeeze=False)
        for line, tiles in zip(grid, rows, strict=True):
            for axes in line:
                axes.axis("off")
            for axes, text, picture in zip(line, tiles.titles, tiles.pictures, strict=False):
                _show(axes, picture)
                axes.set_title(text, fontsize="x-small", pad=2)
    figure.suptitle(literal(title))
    return figure


def mosaic(patches: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Patches (h, w, 3) uint8 of a channel as a grid on white, all at one scale, each in the middle of its cell."""
    rows = -(-len(patches) // columns)
    sheet = Image.new("RGB", (columns * (_CELL + _GAP) - _GAP, rows * (_CELL + _GAP) - _GAP), "white")
    scale = _CELL / max(max(patch.shape[:2]) for patch in patches)
    for place, patch in enumerate(patches):
        row, column = divmod(place, columns)
        height, width = (max(1, round(side * scale)) for side in patch.shape[:2])
        resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR
        picture = Image.fromarray(np.ascontiguousarray(patch)).resize((width, height), resample)
        corner = (column * (_CELL + _GAP) + (_CELL - width) // 2, row * (_CELL + _GAP) + (_CELL - height) // 2)
        sheet.paste(picture, corner)
    return np.asarray(sheet)


def _show(axes: Axes, picture: np.ndarray) -> None:
    if picture.ndim == 3:
        axes.imshow(picture)
    else:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=max(float(picture.max()), 1e-12), interpolation="nearest")
