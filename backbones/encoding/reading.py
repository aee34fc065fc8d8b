"""Features of the pictures of both splits, whitened alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from backbones.analysis.look import Look
from backbones.analysis.samples import evenly_spaced, view_loader
from backbones.config import ClassificationData
from backbones.data.datasets import ClassificationDataset
from backbones.data.readers import read_split
from backbones.encoding.comparison import Split
from backbones.encoding.options import EncodingOptions
from backbones.encoding.patches import PatchReader
from backbones.encoding.whitening import fit_whitening
from backbones.models.stages import StagedNetwork
from backbones.progress import progress_bar
from backbones.weights import WeightsMetadata

_SAMPLED = 1000  # pictures whose patches whitening is fitted to


@dataclass(frozen=True)
class Part:
    """Some pictures of a split, by their places in it, and their labels (N,)."""

    dataset: ClassificationDataset
    indices: list[int]
    labels: np.ndarray


def choose_pictures(
    data: ClassificationData, metadata: WeightsMetadata, train_pictures: int, test_pictures: int
) -> tuple[Part, Part]:
    """So many pictures of the training split and of the test split, spread over them.

    Raises:
        UserError: the data can't be read, or have other classes than the network.
    """
    parts = []
    for split, drawn, count in (
        (data.train_split, data.train_size, train_pictures),
        (data.test_split, data.test_size, test_pictures),
    ):
        dataset = read_split(data.name, data.root, split, metadata.classes, metadata.input_size, drawn)
        indices = evenly_spaced(len(dataset), count)
        parts.append(Part(dataset, indices, dataset.labels[indices]))
    return parts[0], parts[1]


def read_features(
    network: StagedNetwork,
    metadata: WeightsMetadata,
    parts: Sequence[Part],
    stage: str,
    options: EncodingOptions,
    device: torch.device,
) -> list[Split]:
    """The features of each part; the first makes the whitening of all.

    Args:
        network: in eval mode, on `device`.
        stage: of the network, whose patches are read.
        options: how they are read, and what whitening is fitted to.

    Raises:
        UserError: a picture or the network's responses can't be used, or they vary in fewer directions.
    """
    train = parts[0].indices
    sampled = [train[place] for place in evenly_spaced(len(train), _SAMPLED)]
    total = len(sampled) + sum(len(part.indices) for part in parts)
    stages = [stage, list(network.stages())[-1]]
    with progress_bar(total=total, unit="picture", description="patches") as bar:
        readers = []
        for part in parts:
            view = view_loader(part.dataset, metadata.input_size, metadata.test_resize)
            look = Look(network, metadata, view, stages, device)
            readers.append(PatchReader(look, stage, options.batch_size, options.workers, bar.update))
        sample = readers[0].sample(sampled, options.sample, options.seed)
        whitening = fit_whitening(sample, options.dimensions, options.origin)
        both = zip(readers, parts, strict=True)
        return [Split(reader.read(part.indices, whitening), part.labels) for reader, part in both]
