"""What the stages of a network respond to: their activation maps, and the patches that excite a channel most (1.1)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.models.stages import StagedNetwork


def stage_maps(network: StagedNetwork, pictures: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
    """The output (B, C, H, W) of each of some stages; the network runs no further than the last of them.

    Args:
        network: in eval mode.
        pictures: (B, 3, H, W), normalised.
        stages: names, as "conv3".
    """
    maps = {}
    x = pictures
    for name, stage in network.stages().items():
        for module in stage.modules:
            x = module(x)
        if name in stages:
            maps[name] = x
        if len(maps) == len(set(stages)):
            break
    return maps


@dataclass
class TopResponses:
    """The strongest responses of each channel of a stage, strongest first, each in another picture.

    Args:
        values: (K, C), -inf where there were fewer pictures.
        pictures: (K, C), the picture's index in the data set.
        rows, columns: (K, C), the place in the feature map.
    """

    values: Tensor
    pictures: Tensor
    rows: Tensor
    columns: Tensor

    def of(self, channel: int) -> list[tuple[int, int, int]]:
        """(picture, row, column) of what a channel responds to at all (above 0), strongest first."""
        found = self.values[:, channel] > 0
        places = (table[found, channel].tolist() for table in (self.pictures, self.rows, self.columns))
        return list(zip(*places, strict=True))


def top_responses(
    batches: Iterable[tuple[Sequence[int], dict[str, Tensor]]], stages: Sequence[str], count: int
) -> dict[str, TopResponses]:
    """Goes through any number of pictures and keeps only `count` responses of each channel.

    Of equal responses the earlier picture's, and in it the one that comes first, is kept: the result does not depend
    on how the pictures are split into batches.

    Args:
        batches: indices of pictures, and their `stage_maps`.
        stages: which maps to look at.
        count: how many responses to keep.
    """
    best: dict[str, TopResponses] = {}
    for indices, maps in batches:
        for stage in stages:
            best[stage] = _merge(best.get(stage), _strongest(indices, maps[stage]), count)
    return best


def _strongest(indices: Sequence[int], maps: Tensor) -> TopResponses:
    """The strongest response of each picture and channel: K is the number of pictures."""
    batch, channels, _, width = maps.shape
    values, places = maps.flatten(2).max(2)
    pictures = torch.tensor(indices)[:, None].expand(batch, channels)
    places = places.cpu()
    return TopResponses(values.float().cpu(), pictures, places // width, places % width)


def _merge(before: TopResponses | None, new: TopResponses, count: int) -> TopResponses:
    parts = [new] if before is None else [before, new]
    values, pictures, rows, columns = (
        torch.cat([getattr(part, key) for part in parts]) for key in ("values", "pictures", "rows", "columns")
    )
    order = values.argsort(dim=0, descending=True, stable=True)[:count]
    return TopResponses(*(table.gather(0, order) for table in (values, pictures, rows, columns)))


def responding_channels(top: TopResponses, count: int) -> list[int]:
    """`count` channels, spread evenly over those that respond to anything; all of them where there are fewer."""
    alive = (top.values[0] > 0).nonzero().flatten().tolist()
    places = torch.linspace(0, max(len(alive) - 1, 0), min(count, len(alive))).round().long().tolist()
    return [alive[place] for place in places]
