"""The order of training on shards: a shuffle in which each process reads few shards, and only its own."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backbones.data.sampler import SampleKey, StepSampler
from backbones.data.shards.order import shard_order

counts = st.lists(st.integers(1, 30), min_size=1, max_size=12).map(torch.tensor)
seeds, epochs = st.integers(-(2**62), 2**62), st.integers(0, 5)


def shards_of(pictures_by_shard: torch.Tensor, pictures: torch.Tensor) -> np.ndarray:
    return np.searchsorted(pictures_by_shard.cumsum(0).numpy(), pictures.numpy(), side="right")


@settings(deadline=None)
@given(counts, seeds, epochs, st.integers(1, 40), st.integers(1, 12), st.integers(1, 20))
def test_each_picture_comes_once(
    shards: torch.Tensor, seed: int, epoch: int, batch_size: int, streams: int, window: int
) -> None:
    options = {"seed": seed, "batch_size": batch_size, "streams": streams, "window": window}
    order = shard_order(shards, epoch, **options)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(int(shards.sum())))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(shard_order(shards, epoch, **options), order)
    assert torch.equal(torch.rand(1), expected)  # the global generator is left alone


def test_every_seed_and_epoch_has_its_own() -> None:
    shards = torch.full((6,), 20)
    options = {"batch_size": 8, "streams": 4, "window": 2}
    orders = [shard_order(shards, epoch, seed=seed, **options) for seed, epoch in itertools.product((0, 1), (0, 1, 2))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(orders, 2))


@settings(deadline=None)
@example(torch.full((12,), 30), 0, 0, 8, 1, 1)
@example(torch.full((24,), 40), 0, 1, 8, 2, 3)
@given(counts, seeds, epochs, st.sampled_from([8, 12, 16]), st.sampled_from([1, 2, 4, 8]), st.integers(1, 4))
def test_a_stream_uses_few_shards_at_a_time(
    shards: torch.Tensor, seed: int, epoch: int, batch_size: int, streams: int, window: int
) -> None:
    """From the first to the last of its pictures a shard is in use; of each stream window + 1 at most."""
    size = int(shards.sum())
    order = shard_order(shards, epoch, seed=seed, batch_size=batch_size, streams=streams, window=window)
    found = min(streams, len(shards))
    stream = np.arange(epoch * size, (epoch + 1) * size) % batch_size * found // batch_size
    for number in range(found):
        used = shards_of(shards, order)[stream == number]
        first = {shard: place for place, shard in reversed(list(enumerate(used)))}
        last = {shard: place for place, shard in enumerate(used)}
        for place in range(len(used)):
            assert sum(first[shard] <= place <= last[shard] for shard in first) <= window + 1


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_process_reads_its_share_of_shards(world: int, accumulate: int) -> None:
    """Of 64 shards 64 / W, and at most one more for each cut; any number of processes sees the same global batches."""
    shards = torch.full((64,), 10)

    def keys(rank: int, world: int, accumulate: int, start: int = 0) -> list[list[SampleKey]]:
        return list(
            StepSampler(
                640,
                batch_size=16,
                accumulate=accumulate,
                start_step=start,
                steps=40,
                seed=1,
                rank=rank,
                world_size=world,
                order=lambda epoch: shard_order(shards, epoch, seed=1, batch_size=16, streams=8, window=3),
            )
        )

    alone = keys(0, 1, 1)
    each = [keys(rank, world, accumulate) for rank in range(world)]
    for step, batch in enumerate(alone):
        turns = range(step * accumulate, (step + 1) * accumulate)
        assert [key for turn in turns for rank in range(world) for key in each[rank][turn]] == batch
    for rank in range(world):
        read = set(shards_of(shards, torch.tensor([key.index for batch in each[rank] for key in batch])))
        assert len(read) <= 64 // world + 8
        assert keys(rank, world, accumulate, start=17) == each[rank][17 * accumulate :]


def test_places_in_the_order_are_fair() -> None:
    """Over many epochs every picture's mean place is the middle of the epoch, as that of a plain shuffle."""
    shards = torch.full((10,), 10)
    places = torch.stack(
        [shard_order(shards, e, seed=3, batch_size=10, streams=2, window=2).argsort() for e in range(2000)]
    ).double()
    # A uniform place has the deviation 100 / sqrt(12) = 28.9: means of 2000 deviate by 0.65.
    assert (places.mean(0) - 49.5).abs().max() < 5 * 0.65
    assert (places.std(0) - 28.9).abs().max() < 2


def test_a_batch_mixes_shards() -> None:
    shards = torch.full((64,), 100)
    order = shard_order(shards, 0, seed=0, batch_size=64, streams=8, window=4)
    kinds = [len(set(shards_of(shards, batch))) for batch in order.split(64)]
    assert np.mean(kinds) > 20
