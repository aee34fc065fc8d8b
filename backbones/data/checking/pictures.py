"""Whether pictures can be read, and what is unusual in them. Each is decoded whole, in processes that may die of it."""

import hashlib
import io
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from backbones.data.checking.layout import NO_ACCESS
from backbones.data.findings import Finding, Kind
from backbones.data.pictures import FORMATS, MAX_PIXELS

EMPTY_FILE = Kind("empty_file", "error", "pictures of no bytes")
NO_PICTURE = Kind("no_picture", "error", "files named as pictures that are none")
DAMAGED = Kind("damaged", "error", "pictures that are cut off or corrupt")
TOO_LARGE = Kind("too_large", "error", "pictures too large to be read")
KILLS_READER = Kind("kills_reader", "error", "pictures that end the process which reads them")
WRONG_FORMAT = Kind("wrong_format", "warning", "pictures of another format than their name says")
TINY = Kind("tiny", "warning", "pictures with a short side")
ELONGATED = Kind("elongated", "warning", "pictures many times as long as wide")
CMYK = Kind("cmyk", "warning", "pictures in CMYK, whose colours are converted without a profile")
FLOATING = Kind("floating", "error", "pictures of floating-point numbers, which can't be used")
DEEP = Kind("deep", "note", "pictures of 16 or 32 bits a channel, of which 8 are used")
GREYSCALE = Kind("greyscale", "note", "greyscale pictures, read as three equal channels")
PALETTE = Kind("palette", "note", "pictures with a palette, converted to RGB")
TRANSPARENT = Kind("transparent", "note", "pictures with transparency, which is left out")
DECODER_WARNING = Kind("decoder_warning", "warning", "pictures of which the decoder warns")

DIGEST_SIZE = 16
LONGEST_RATIO = 10
_LARGEST_FILE = 2**28  # bytes
_CHUNK, _ROUND = 16, 4096  # pictures that a process takes at a time; that are asked for at a time
_FORMAT_OF = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")


class Inspection(NamedTuple):
    """What is to be said of a picture, a digest of the file's content, its height and width (None if it is no good)."""

    findings: list[Finding]
    digest: bytes | None
    size: tuple[int, int] | None = None


def inspect_pictures(paths: Iterable[str], *, min_side: int, workers: int) -> Iterator[Inspection]:
    """Inspects pictures, in their order.

    Args:
        min_side: shorter sides below this count as tiny, in pixels.
        workers: processes that read; 0 reads in this one, which a picture may then end.
    """
    inspect = partial(inspect_picture, min_side=min_side)
    if workers == 0:
        yield from map(inspect, paths)
        return
    paths = iter(paths)
    pool = _pool(workers)
    try:
        while some := list(islice(paths, _ROUND)):
            done = 0
            try:
                for inspection in pool.map(inspect, some, chunksize=_CHUNK):
                    yield inspection
                    done += 1
            except BrokenProcessPool:  # nobody says by which picture
                pool.shutdown()
                yield from _one_by_one(inspect, some[done:])
                pool = _pool(workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(inspect: "partial[Inspection]", paths: Iterable[str]) -> Iterator[Inspection]:
    pool = _pool(1)
    for path in paths:
        try:
            yield pool.submit(inspect, path).result()
        except BrokenProcessPool:
            message = "reading it ended the process that read it (a crash of the decoder, or no memory left): remove it"
            yield Inspection([Finding(KILLS_READER, path, message)], None)
            pool.shutdown()
            pool = _pool(1)
    pool.shutdown()


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=_begin_work)


def _begin_work() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; only the first is to answer
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent can't tell its workers to end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def inspect_picture(path: str, min_side: int) -> Inspection:
    """Reads a picture as `read_image` does, and whole."""
    try:
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length > _LARGEST_FILE:
                return Inspection([Finding(TOO_LARGE, path, f"a file of {length:,} bytes")], None)
            content = file.read()
    except OSError as error:
        return Inspection([Finding(NO_ACCESS, path, f"can't be read ({error.strerror})")], None)
    if not content:
        return Inspection([Finding(EMPTY_FILE, path, "holds nothing: get it again or remove it")], None)
    found, size = _look(content, Path(path).suffix.lower(), min_side)
    findings = [Finding(kind, path, message) for kind, message in found]
    if any(kind.severity == "error" for kind, _ in found):
        return Inspection(findings, None)
    return Inspection(findings, hashlib.blake2b(content, digest_size=DIGEST_SIZE).digest(), size)


def _look(content: bytes, ending: str, min_side: int) -> tuple[list[tuple[Kind, str]], tuple[int, int] | None]:
    """What is found, and height and width."""
    found: list[tuple[Kind, str]] = []
    size = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS decides
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    text = f"is of {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} are read: remove it"
                    return [(TOO_LARGE, text)], None
                size = image.height, image.width
                found += _of_header(image, ending, min_side)
                image.convert("RGB")
        except Image.DecompressionBombError as error:
            found.append((TOO_LARGE, f"{str(error).rstrip('.')}: remove it"))
        except Image.UnidentifiedImageError:
            if content.startswith(_STARTS):
                text = f"its header can't be read (a file of {len(content):,} bytes): get it again or remove it"
                found.append((DAMAGED, text))
            else:
                found.append((NO_PICTURE, f"starts with {content[:16]!r}: get it again or remove it"))
        except Exception as error:  # decoders raise all kinds of errors on corrupt data
            found.append((DAMAGED, f"can't be decoded ({error}): get it again or remove it"))
    texts = sorted({str(warning.message) for warning in caught})
    return found + [(DECODER_WARNING, f"the decoder says: {text}") for text in texts], size


def _of_header(image: Image.Image, ending: str, min_side: int) -> Iterator[tuple[Kind, str]]:
    kind = {"MPO": "JPEG"}.get(image.format or "", image.format)
    if kind != _FORMAT_OF.get(ending, kind):
        yield WRONG_FORMAT, f"is a {kind} picture with the ending {ending}"
    short, long = sorted(image.size)
    if short < min_side:
        yield TINY, f"is of {image.width}x{image.height} pixels"
    if long > LONGEST_RATIO * short:
        yield ELONGATED, f"is of {image.width}x{image.height} pixels"
    mode = image.mode
    if mode == "CMYK":
        yield CMYK, "is in CMYK: convert it to RGB where its colours matter"
    elif mode == "F":
        yield FLOATING, "is of floating-point numbers: write it anew with 8 bits a colour"
    elif mode.startswith("I"):
        yield DEEP, f"is of mode {mode}"
    elif mode in ("1", "L", "LA"):
        yield GREYSCALE, f"is of mode {mode}"
    elif mode in ("P", "PA"):
        yield PALETTE, f"is of mode {mode}"
    elif mode in ("RGBA", "RGBa"):
        yield TRANSPARENT, f"is of mode {mode}"
