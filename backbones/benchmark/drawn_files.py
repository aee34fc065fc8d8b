"""JPEG files for the part `input`: drawn ones that cost a decoder what photographs cost, or a sample of a user's own.

How long decoding takes depends on the bytes a pixel. A field whose spectrum falls as 1 / f has the statistics of
natural scenes but no edges; a few polygons and some noise of a sensor bring it to the bytes that ImageNet's files have
(0.6 to 0.8 a pixel, about 130 kB for 500x375).
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from backbones.data.folder import read_folder
from backbones.errors import DataError

CLASSES = 4
QUALITY = 93
SPLIT = "train"  # the folder below a root
SENSOR_NOISE = 3.0  # standard deviation, of 0..255
_COLOR_CORRELATION = np.array([[1.0, 0.25, 0.1], [1.0, 0.0, -0.2], [1.0, -0.3, 0.15]])  # brightness, and two of colour


@dataclass(frozen=True)
class Files:
    """What was measured on.

    Args:
        count: files.
        pixels: of all of them.
        size: bytes of all of them.
    """

    count: int
    pixels: int
    size: int

    def __str__(self) -> str:
        return f"{self.count:,} files, {self.size / self.pixels:.2f} bytes a pixel, {self.size / self.count:,.0f} each"


def draw_files(root: Path, *, count: int, width: int, height: int, seed: int) -> Files:
    """Writes `<root>/train/<class>/<number>.jpg`, always the same ones for the same arguments (4:2:0)."""
    rng = np.random.default_rng(seed)
    size = 0
    for number in range(count):
        folder = root / SPLIT / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        draw_picture(rng, width, height).save(data, "JPEG", quality=QUALITY)
        size += len(data.getvalue())
        (folder / f"{number:05d}.jpg").write_bytes(data.getvalue())
    return Files(count, count * width * height, size)


def draw_picture(rng: Generator, width: int, height: int) -> Image.Image:
    """A random field with the spectrum of natural scenes, some polygons and noise."""
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequencies[0, 0] = np.inf  # no mean
    waves = rng.normal(size=(3, *frequencies.shape)) + 1j * rng.normal(size=(3, *frequencies.shape))
    fields = np.fft.irfft2(waves / frequencies, s=(height, width))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    pixels = 120 + 50 * np.einsum("ck,khw->hwc", _COLOR_CORRELATION, fields)
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(12):
        center, radius = rng.uniform((0, 0), (width, height)), rng.uniform(0.03, 0.25) * min(width, height)
        corners = center + radius * rng.normal(size=(int(rng.integers(3, 7)), 2))
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=tuple(rng.integers(0, 256, 4).tolist()))
    noisy = np.asarray(picture) + rng.normal(0, SENSOR_NOISE, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def link_files(source: Path, root: Path, *, count: int) -> Files:
    """Links a sample of a user's files, evenly out of all classes, as `draw_files` lays them.

    Those that are no JPEG of three colours are left out: the way that is compared with reads nothing else.

    Raises:
        DataError: `source` holds no class folders, or no such files.
    """
    dataset = read_folder(source.parent, source.name)
    linked = pixels = size = 0
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist():
        path = Path(dataset.name(index)).resolve()
        try:
            with Image.open(path, formats=("JPEG",)) as picture:
                mode, area = picture.mode, picture.width * picture.height
        except Exception:  # PIL raises all kinds of errors on what it can't read
            continue
        if mode != "RGB":
            continue
        folder = root / SPLIT / Path(dataset.name(index)).parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:08d}.jpg").symlink_to(path)
        linked, pixels, size = linked + 1, pixels + area, size + path.stat().st_size
    if not linked:
        raise DataError(f"{source}: holds no JPEG files in colour")
    return Files(linked, pixels, size)
