"""The limit of loading pictures: how fast libjpeg-turbo decodes the same files, and how fast only what a crop needs.

No way to show the network a part of a JPEG file can do without decoding that part. What this takes is measured as it
would be at best: the source of a random crop, cut out and coded anew as a small file of its own with the quantisation
and sampling of the whole, so that nothing around it has to be passed by.
"""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from backbones.benchmark.measure import Segment


def decode(files: Iterator[Path | bytes], count: int) -> Segment:
    """Decodes the next `count` files, those that are given by their paths read first."""
    started = time.perf_counter()
    for _ in range(count):
        file = next(files)
        simplejpeg.decode_jpeg(file if isinstance(file, bytes) else file.read_bytes(), strict=False)
    return Segment(count, time.perf_counter() - started)


def needed_parts(paths: list[Path], *, size: int, scales: tuple[int, int], seed: int) -> list[bytes]:
    """For each file a JPEG of what one random crop of Section 3.4 shows of it, with the file's own pixels.

    Args:
        size: side of the crop.
        scales: range of the shorter side after resizing.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for path in paths:
        with Image.open(path, formats=("JPEG",)) as picture:
            tables = picture.quantization  # type: ignore[attr-defined]
            sampling = JpegImagePlugin.get_sampling(picture)
            shorter = int(rng.integers(scales[0], scales[1] + 1))
            side = min(*picture.size, round(size * min(picture.size) / shorter))
            left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
            data = io.BytesIO()
            part = picture.crop((left, top, left + side, top + side))
            part.save(data, "JPEG", qtables=tables, subsampling=sampling)
        parts.append(data.getvalue())
    return parts
