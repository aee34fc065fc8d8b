"""Parts of a data set: for tests that take long, and those that can be trained on."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backbones.errors import DataError
from detection.data.annotations import Annotations, DetectionDataset


def evenly_spaced(dataset: DetectionDataset, count: int | None) -> DetectionDataset:
    """At most `count` of the pictures, evenly spaced in their order; None: all."""
    if count is None or count >= len(dataset):
        return dataset
    return _part(dataset, np.arange(count) * len(dataset) // count)


def trainable(dataset: DetectionDataset) -> DetectionDataset:
    """The pictures but those all of whose objects are to be ignored: the blacklist of the validation pictures.

    Raises:
        DataError: none is left.
    """
    annotations = dataset.annotations
    chosen = np.unique(annotations.images[~annotations.ignore])
    if not len(chosen):
        raise DataError("all pictures of data.train_split are on the development kit's blacklist: there are no others")
    return dataset if len(chosen) == len(dataset) else _part(dataset, chosen)


def _part(dataset: DetectionDataset, chosen: NDArray[np.int64]) -> DetectionDataset:
    """The pictures at some places, in rising order."""
    annotations = dataset.annotations
    objects = np.isin(annotations.images, chosen)

    def load_image(index: int) -> Tensor:
        return dataset.load_image(int(chosen[index]))

    part = Annotations.from_objects(
        class_names=annotations.class_names,
        category_ids=annotations.category_ids,
        image_ids=[annotations.image_ids[index] for index in chosen],
        sizes=annotations.sizes[chosen],
        images=np.searchsorted(chosen, annotations.images[objects]),
        boxes=annotations.boxes[objects],
        labels=annotations.labels[objects],
        ignore=annotations.ignore[objects],
        areas=annotations.areas[objects],
    )
    return replace(dataset, annotations=part, load_image=load_image)
