"""The order of training on shards: random, and yet each process reads few of them at a time, and only its own."""

import torch
from torch import Tensor

from backbones.engine.randomness import derive_seed


def shard_order(
    pictures_by_shard: Tensor, epoch: int, *, seed: int, batch_size: int, streams: int, window: int
) -> Tensor:
    """The shuffle of one epoch; a function of its arguments alone.

    The shards, in random order, are laid end to end and cut into streams. Column j of every global batch takes its
    pictures from stream j * streams // batch_size. As a process always has the same columns, it reads the shards of its
    own streams only: with W processes (W divides `streams`) one W-th of them, and those at the cuts. The cuts give each
    stream just as many pictures as its columns take in this epoch, so nothing is left over.

    Within a stream shards come one after the other, and pictures stand up to `window` shards late: a picture of shard k
    has the key k + window * u, u uniform in [0, 1), and keys rise. So at any time at most `window + 1` shards of a
    stream are in use, and each is needed for a time without a break.

    Args:
        pictures_by_shard: (S,) int64; pictures are numbered shard after shard.
        epoch: its first picture is number epoch * N of the training, which its column follows from.
        batch_size: of the global batches.
        streams: how many there are, if there are as many shards and columns; else as many as there are of these.
        window: over how many shards pictures are shuffled.

    Returns:
        (N,) int64, each picture once.
    """
    size, shards = int(pictures_by_shard.sum()), len(pictures_by_shard)
    streams = min(streams, shards, batch_size)
    stream = torch.arange(epoch * size, (epoch + 1) * size) % batch_size * streams // batch_size
    places = stream.argsort(stable=True).split(stream.bincount(minlength=streams).tolist())

    turns = torch.randperm(shards, generator=torch.Generator().manual_seed(derive_seed(seed, epoch, -4)))
    counts = pictures_by_shard[turns]
    turn = torch.arange(shards).repeat_interleave(counts)  # of each picture's shard, pictures laid end to end
    first = pictures_by_shard.cumsum(0) - pictures_by_shard
    pictures = (first[turns] - (counts.cumsum(0) - counts))[turn] + torch.arange(size)

    order = torch.empty(size, dtype=torch.int64)
    begin = 0
    for number, there in enumerate(places):
        part = slice(begin, begin + len(there))
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch, -4, number))
        late = torch.rand(len(there), generator=generator, dtype=torch.float64) * window
        order[there] = pictures[part][(turn[part] + late).argsort(stable=True)]
        begin += len(there)
    return order
