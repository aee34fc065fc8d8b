"""What a classifier says of pictures: crops or the whole picture at several scales, their scores averaged (3.4)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from backbones.config import Protocol
from backbones.data.augment import center_crop, ten_crop, whole_picture
from backbones.data.datasets import ClassificationDataset
from backbones.data.loader import testing_batches
from backbones.engine.acceleration import Precision, autocast
from backbones.errors import DataError
from backbones.models import StagedNetwork
from backbones.models.dense import dense_classifier
from backbones.weights import WeightsMetadata

Views = Callable[[Image.Image], list[np.ndarray]]

PAPER_SCALES = (224, 256, 384, 480, 640)  # of networks for 224 pixels (3.4)


def normalize(images: Tensor, mean: Tensor, std: Tensor, shifts: Tensor | None = None) -> Tensor:
    """uint8 (B, H, W, 3) to the network's input (B, 3, H, W), in channels_last; all of 0..255.

    Args:
        mean: (3,) or (3, H', W'). A mean per pixel fits pictures of its own size; from others its average over the
            pixels is subtracted.
        std: (3,), what the values are divided by.
        shifts: (B, 3), added to all pixels of each picture.
    """
    count, height, width, _ = images.shape
    if mean.ndim == 3 and mean.shape[1:] != images.shape[1:3]:
        mean = mean.mean((1, 2))
    # Lines as rows of numbers: operations on them are vectorised, on pixels of three numbers they are not.
    mean = mean.repeat(width) if mean.ndim == 1 else mean.permute(1, 2, 0).reshape(height, 3 * width)
    lines = images.reshape(count, height, 3 * width).to(mean.dtype)
    lines = lines.sub_(mean).div_(std.repeat(width))
    if shifts is not None:
        lines = lines.add_((shifts / std).repeat(1, width)[:, None])
    return lines.view(count, height, width, 3).permute(0, 3, 1, 2)


def paper_scales(input_size: int) -> list[int]:
    """The paper's scales in proportion to the network's training crops: for 112 pixels 112, 128, 192, 240 and 320."""
    return [round(scale * input_size / 224) for scale in PAPER_SCALES]


@torch.inference_mode()
def class_scores(
    model: StagedNetwork,
    metadata: WeightsMetadata,
    dataset: ClassificationDataset,
    protocol: Protocol,
    indices: Sequence[int],
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
    scales: Sequence[int] | None = None,
    flip: bool = True,
    precision: Precision = "fp32",
    bar: tqdm | None = None,
) -> Tensor:
    """Softmax scores (len(indices), K) of a network in eval mode, averaged over the views of each picture.

    "center" and "10crop" show crops. "multiscale" shows the whole picture at each scale, and its mirror image; the
    logits of a view are averaged over the places of its score map before the softmax (Simonyan and Zisserman, 3.2).

    Args:
        batch_size: views of the network's own size at a time; of larger ones as many as have no more pixels.
        scales: shorter sides in pixels for "multiscale", `paper_scales` by default.
        flip: whether "multiscale" shows the mirror images.
        bar: moved on by each picture.
    """
    dense = protocol == "multiscale"
    count, cut = _views(protocol, metadata, scales)
    score_map = dense_classifier(model, metadata.input_size) if dense else lambda x: model(x)[:, :, None, None]
    dtype = next(model.parameters()).dtype
    mean, std = (torch.tensor(v, dtype=dtype, device=device) for v in (metadata.mean, metadata.std))

    def load(index: int) -> list[np.ndarray]:
        try:
            return cut(dataset.picture(index))
        except DataError as error:
            raise error.about(dataset.name(index)) from error

    def classify(images: Tensor) -> Tensor:
        with autocast(precision, device):
            maps = score_map(normalize(images, mean, std))
        return maps.to(dtype).mean((2, 3)).softmax(1)

    scores = [torch.empty(0, len(metadata.classes), dtype=dtype)]
    portion = max(1, batch_size // count)
    views = dataset.center_views(metadata.input_size, metadata.test_resize) if protocol == "center" else None
    batches: Iterable[_PackedViews] = (
        testing_batches(load, indices, batch_size=portion, workers=workers, collate=_pack)
        if views is None
        else (_pack_array(views[indices[i : i + portion]]) for i in range(0, len(indices), portion))
    )
    for batch in batches:
        total = torch.zeros(batch.pictures, len(metadata.classes), dtype=dtype, device=device)
        for images, pictures in batch.portions(pixels=batch_size * metadata.input_size**2):
            images, pictures = images.to(device), pictures.to(device)
            shown = [images, images.flip(2)] if dense and flip else [images]
            for view in shown:
                total.index_add_(0, pictures, classify(view) / (count * len(shown)))
        scores.append(total.cpu())
        if bar is not None:
            bar.update(batch.pictures)
    return torch.cat(scores)


def _views(protocol: Protocol, metadata: WeightsMetadata, scales: Sequence[int] | None) -> tuple[int, Views]:
    """How many views a protocol has of a picture, and what makes them."""
    size, shorter = metadata.input_size, metadata.test_resize
    match protocol:
        case "center":
            return 1, partial(center_crop, size=size, shorter=shorter)
        case "10crop":
            return 10, partial(ten_crop, size=size, shorter=shorter)
        case "multiscale":
            scales = paper_scales(size) if scales is None else scales
            return len(scales), partial(whole_picture, scales=scales)


@dataclass
class _PackedViews:
    """Views of some pictures, those of the same shape together; one tensor, which loading processes hand over fast.

    Args:
        pixels: all views' values, one after another.
        shapes: (height, width): the places in the batch of the pictures that have views of this shape.
        pictures: how many there are.
    """

    pixels: Tensor
    shapes: dict[tuple[int, int], list[int]]
    pictures: int

    def portions(self, pixels: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Views (B, H, W, 3) and their pictures' places (B,), as many at a time as `pixels` allow, but at least one."""
        start = 0
        for (height, width), places in self.shapes.items():
            end = start + len(places) * height * width * 3
            count = max(1, pixels // (height * width))
            views = self.pixels[start:end].view(-1, height, width, 3)
            yield from zip(views.split(count), torch.tensor(places).split(count), strict=True)
            start = end


def _pack_array(views: np.ndarray) -> _PackedViews:
    """One view of each picture, (B, H, W, 3)."""
    count, height, width, _ = views.shape
    return _PackedViews(torch.from_numpy(views).flatten(), {(height, width): list(range(count))}, count)


def _pack(pictures: list[list[np.ndarray]]) -> _PackedViews:
    groups: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for place, views in enumerate(pictures):
        for view in views:
            groups.setdefault((view.shape[0], view.shape[1]), []).append((place, view))
    pixels = np.concatenate([view.ravel() for group in groups.values() for _, view in group])
    shapes = {shape: [place for place, _ in group] for shape, group in groups.items()}
    return _PackedViews(torch.from_numpy(pixels), shapes, len(pictures))
