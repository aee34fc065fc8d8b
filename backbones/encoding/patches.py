"""A network's patches: the vectors of one stage's feature map, whitened; and the pooled feature beside them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backbones.analysis.look import Look
from backbones.encoding.normalisation import unit_length
from backbones.encoding.whitening import Whitening
from backbones.errors import CheckpointError


@dataclass(frozen=True)
class Features:
    """What a network says of N pictures.

    Args:
        patches: (N, P, D) float32, whitened, of one stage.
        average: (N, C), the average over the stage's map.
        pooled: (N, F), that over the map of the last stage: what a ResNet's classifier sees.
    """

    patches: np.ndarray
    average: np.ndarray
    pooled: np.ndarray


@dataclass(frozen=True)
class PatchReader:
    """Reads the patches of one stage.

    Args:
        look: at the pictures of a split; its stages are `stage` and the network's last.
        stage: whose patches are wanted.
        batch_size: pictures at a time.
        workers: data-loading processes.
        done: hears how many pictures each batch had.
    """

    look: Look
    stage: str
    batch_size: int
    workers: int
    done: Callable[[int], object]

    def sample(self, indices: Sequence[int], count: int, seed: int) -> np.ndarray:
        """About `count` patches (S, C) of unit length, equally many of each of these pictures."""
        rng = np.random.default_rng(seed)
        chosen = []
        for patches, _ in self._batches(indices):
            each = min(patches.shape[1], -(-count // len(indices)))
            chosen += [picture[rng.permutation(len(picture))[:each]] for picture in unit_length(patches)]
        return np.concatenate(chosen)

    def read(self, indices: Sequence[int], whitening: Whitening) -> Features:
        """The features of these pictures."""
        read = [
            (whitening(unit_length(patches)), patches.mean(1), pooled) for patches, pooled in self._batches(indices)
        ]
        return Features(*(np.concatenate(part) for part in zip(*read, strict=True)))

    def _batches(self, indices: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Patches (B, P, C) and pooled features (B, F)."""
        last = list(self.look.network.stages())[-1]
        for _, maps in self.look.at(indices, self.batch_size, self.workers, self.done):
            patches = maps[self.stage].flatten(2).transpose(1, 2).float().cpu().numpy()
            pooled = maps[last].mean((2, 3)).float().cpu().numpy()
            if not (np.isfinite(patches).all() and np.isfinite(pooled).all()):
                raise CheckpointError("the network's responses are not finite numbers: its weights can't be used")
            yield patches, pooled


def draw_patches(patches: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the patches (N, P, D) of a split, drawn without regard to pictures; all where there are fewer."""
    total = patches.shape[0] * patches.shape[1]
    places = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    return patches.reshape(total, -1)[places]
