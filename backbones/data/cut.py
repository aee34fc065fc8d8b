"""Cutting the part of a picture that training shows out of its file or its pixels."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.data.augment import Augmentation, Cut, Rng
from backbones.data.jpeg import Box, FractionalBox, decode_part, read_jpeg_header
from backbones.data.pictures import decode_image


def cut_file(data: bytes, name: str, augment: Augmentation, rng: Rng) -> tuple[np.ndarray, Cut]:
    """The part of a picture that `augment` chooses, of a JPEG file without decoding more than that needs.

    Args:
        data: the file, of any format.
        name: what to call it in messages.

    Returns:
        uint8 (height, width, 3) of the cut's size, not mirrored; and the cut.

    Raises:
        DataError: no picture, truncated, corrupt or too large.
    """
    header = read_jpeg_header(data)
    if header is None:
        return cut_picture(decode_image(data, name), augment, rng)
    cut = augment(header.width, header.height, rng)
    part = decode_part(data, header, cut.box, cut.size) if _inside(cut.box, header.width, header.height) else None
    if part is None:
        part = np.asarray(decode_image(data, name)), cut.box
    return resize_part(*part, cut.size), cut


def cut_picture(picture: Image.Image, augment: Augmentation, rng: Rng) -> tuple[np.ndarray, Cut]:
    """The part of a decoded picture that `augment` chooses; as `cut_file`."""
    cut = augment(*picture.size, rng)
    return resize_part(np.asarray(picture), cut.box, cut.size), cut


def resize_part(pixels: np.ndarray, box: Box | FractionalBox, size: tuple[int, int]) -> np.ndarray:
    """A part of a picture (H, W, 3) uint8, zeros where it reaches beyond; resized to (height, width) like PIL does.

    Sides between pixels must lie within the picture.
    """
    height, width = pixels.shape[:2]
    x1, y1 = map(math.floor, box[:2])
    x2, y2 = map(math.ceil, box[2:])
    if (x1, y1, x2, y2) != tuple(box):
        within = (box[0] - x1, box[1] - y1, box[2] - x1, box[3] - y1)
        picture = Image.fromarray(pixels[y1:y2, x1:x2])  # PyTorch knows no sides between pixels
        return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=within))
    part = pixels[max(y1, 0) : y2, max(x1, 0) : x2]
    if not _inside((x1, y1, x2, y2), width, height):
        margins = ((max(-y1, 0), max(y2 - height, 0)), (max(-x1, 0), max(x2 - width, 0)), (0, 0))
        part = np.pad(part, margins)
    if part.shape[:2] == size:
        return part
    # With these strides PyTorch takes its vectorised way. (Pixels of PIL can't be written to, which it warns of.)
    part = np.ascontiguousarray(part) if pixels.flags.writeable else np.array(part)
    views = torch.from_numpy(part).view(1, *part.shape).permute(0, 3, 1, 2)
    return F.interpolate(views, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def resize_part_on_device(picture: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """The same of a picture (3, H, W) uint8 on any device, within it: (height, width, 3) uint8."""
    x1, y1, x2, y2 = box
    part = picture[None, :, y1:y2, x1:x2].float()  # GPUs resize no whole numbers
    resized = F.interpolate(part, size=size, mode="bilinear", antialias=True)[0]
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)


def _inside(box: Box, width: int, height: int) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
