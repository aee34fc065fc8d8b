"""A part of a data set, for tests that take long."""

import numpy as np
from torch import Tensor

from detection.data.annotations import Annotations, DetectionDataset


def evenly_spaced(dataset: DetectionDataset, count: int | None) -> DetectionDataset:
    """At most `count` of the pictures, evenly spaced in their order; None: all."""
    if count is None or count >= len(dataset):
        return dataset
    annotations = dataset.annotations
    chosen = np.arange(count) * len(dataset) // count
    objects = np.isin(annotations.images, chosen)

    def load_image(index: int) -> Tensor:
        return dataset.load_image(int(chosen[index]))

    return DetectionDataset(
        Annotations.from_objects(
            class_names=annotations.class_names,
            category_ids=annotations.category_ids,
            image_ids=[annotations.image_ids[index] for index in chosen],
            sizes=annotations.sizes[chosen],
            images=np.searchsorted(chosen, annotations.images[objects]),
            boxes=annotations.boxes[objects],
            labels=annotations.labels[objects],
            ignore=annotations.ignore[objects],
            areas=annotations.areas[objects],
        ),
        load_image,
    )
