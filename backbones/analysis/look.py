"""A trained network looks at pictures: batches of the maps of its stages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backbones.analysis.features import stage_maps
from backbones.data.loader import testing_batches
from backbones.models.stages import StagedNetwork
from backbones.scores import normalize
from backbones.weights import WeightsMetadata

View = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Look:
    """A trained network in eval mode, and what it is to look at.

    Args:
        network: on `device`.
        metadata: says how its input is normalised.
        view: gives a picture by its index.
        stages: whose maps are wanted.
        device: where to compute.
    """

    network: StagedNetwork
    metadata: WeightsMetadata
    view: View
    stages: Sequence[str]
    device: torch.device

    def at(
        self, indices: Sequence[int], batch_size: int, workers: int, done: Callable[[int], object] = lambda count: None
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Batches of these pictures' indices and maps; `done` hears how many pictures each had."""
        metadata = self.metadata
        mean, std = (torch.tensor(value, device=self.device).float() for value in (metadata.mean, metadata.std))
        load = self.view

        def as_tensor(index: int) -> Tensor:
            return torch.from_numpy(np.array(load(index)))

        first = 0
        for views in testing_batches(as_tensor, indices, batch_size=batch_size, workers=workers, collate=torch.stack):
            with torch.inference_mode():
                maps = stage_maps(self.network, normalize(views.to(self.device), mean, std), self.stages)
            yield indices[first : first + len(views)], maps
            first += len(views)
            done(len(views))
