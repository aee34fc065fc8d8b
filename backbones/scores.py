"""What a classifier says of pictures: crops or the whole picture at several scales, their scores averaged (3.4)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NotRequired, TypedDict, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from backbones.config import Protocol
from backbones.data.augment import center_crop, ten_crop, whole_picture
from backbones.data.datasets import ClassificationDataset
from backbones.data.loader import testing_batches
from backbones.data.views import PackedViews, pack, pack_array
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.fetch import fetch
from backbones.engine.prefetch import prefetch
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


class Showing(TypedDict):
    """Keyword arguments that running classifiers over a data set takes.

    Args:
        device: where the networks are.
        batch_size: views of the networks' own size at a time; of larger ones as many as have no more pixels.
        workers: data-loading processes.
        scales: shorter sides in pixels for "multiscale", `paper_scales` by default.
        flip: whether "multiscale" shows the mirror images, as it does by default.
        precision: of the networks' arithmetic, fp32 by default.
        bar: moved on by each picture, once for each network.
    """

    device: torch.device
    batch_size: int
    workers: int
    scales: NotRequired[Sequence[int] | None]
    flip: NotRequired[bool]
    precision: NotRequired[Precision]
    bar: NotRequired[tqdm | None]


def class_scores(
    model: StagedNetwork,
    metadata: WeightsMetadata,
    dataset: ClassificationDataset,
    protocol: Protocol,
    indices: Sequence[int],
    **showing: Unpack[Showing],
) -> Tensor:
    """Softmax scores (len(indices), K) of a network in eval mode, averaged over the views of each picture.

    "center" and "10crop" show crops. "multiscale" shows the whole picture at each scale, and its mirror image; the
    logits of a view are averaged over the places of its score map before the softmax (Simonyan and Zisserman, 3.2).
    """
    none = torch.empty(0, len(metadata.classes), dtype=next(model.parameters()).dtype)
    batches = _scores_by_batch([(model, metadata)], dataset, protocol, indices, **showing)
    return torch.cat([none, *(scores for (scores,) in batches)])


def summed_scores(
    networks: Sequence[tuple[StagedNetwork, WeightsMetadata]],
    dataset: ClassificationDataset,
    protocol: Protocol,
    indices: Sequence[int],
    **showing: Unpack[Showing],
) -> Tensor:
    """The sums (len(indices), K) float64 of the `class_scores` of networks that know the same classes.

    Networks that see the same views of a picture see them together: it is decoded once for all of them.
    """
    alike: dict[tuple[int, int | None], list[tuple[StagedNetwork, WeightsMetadata]]] = {}
    for model, metadata in networks:
        alike.setdefault((metadata.input_size, metadata.test_resize), []).append((model, metadata))
    total = torch.zeros(len(indices), len(dataset.class_names), dtype=torch.float64)
    for group in alike.values():
        start = 0
        for scores in _scores_by_batch(group, dataset, protocol, indices, **showing):
            end = start + len(scores[0])
            for each in scores:
                total[start:end] += each
            start = end
    return total


@torch.inference_mode()
def _scores_by_batch(
    networks: Sequence[tuple[StagedNetwork, WeightsMetadata]],
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
) -> Iterator[list[Tensor]]:
    """The scores (B, K) of each of several networks that see the same views; batch by batch, in the order given."""
    metadata = networks[0][1]
    dense = protocol == "multiscale"
    count, cut = _views(protocol, metadata, scales)
    classifiers = [_classifier(*each, dense=dense, device=device, precision=precision) for each in networks]

    def load(index: int) -> list[np.ndarray]:
        try:
            return cut(dataset.picture(index))
        except DataError as error:
            raise error.about(dataset.name(index)) from error

    def show(batches: Iterable[PackedViews]) -> Iterator[tuple[int, list[Tensor]]]:
        for batch in batches:
            totals = [
                torch.zeros(batch.pictures, len(metadata.classes), dtype=next(model.parameters()).dtype, device=device)
                for model, _ in networks
            ]
            for images, pictures in batch.portions(pixels=batch_size * metadata.input_size**2):
                shown = [images, images.flip(2)] if dense and flip else [images]
                for total, classify in zip(totals, classifiers, strict=True):
                    for view in shown:
                        total.index_add_(0, pictures, classify(view) / (count * len(shown)))
            yield batch.pictures, totals

    portion = max(1, batch_size // count)
    views = dataset.center_views(metadata.input_size, metadata.test_resize) if protocol == "center" else None
    on_gpu = device.type == "cuda"
    batches: Iterable[PackedViews] = (
        testing_batches(load, indices, batch_size=portion, workers=workers, collate=pack, pin_memory=on_gpu)
        if views is None
        else (pack_array(views[indices[i : i + portion]]) for i in range(0, len(indices), portion))
    )
    for pictures, scores in fetch(show(prefetch(batches, device)), device):
        if bar is not None:
            bar.update(pictures * len(networks))
        yield scores


def _classifier(
    model: StagedNetwork, metadata: WeightsMetadata, *, dense: bool, device: torch.device, precision: Precision
) -> Callable[[Tensor], Tensor]:
    """Makes softmax scores (B, K) of views (B, H, W, 3) uint8."""
    score_map = dense_classifier(model, metadata.input_size) if dense else lambda x: model(x)[:, :, None, None]
    dtype = next(model.parameters()).dtype
    mean, std = (torch.tensor(v, dtype=dtype, device=device) for v in (metadata.mean, metadata.std))

    def classify(images: Tensor) -> Tensor:
        with autocast(precision, device):
            maps = score_map(normalize(images, mean, std))
        return maps.to(dtype).mean((2, 3)).softmax(1)

    return classify


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
