"""The training order: the same whatever the number of processes, the portions, and the step it starts from."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.data.loader import testing_batches as batches_for_tests
from backbones.data.loader import training_batches
from backbones.data.sampler import (
    LikeShapes,
    SampleKey,
    StepSampler,
    epoch_order,
    group_like_shapes,
    like_shapes_order,
)


@dataclass(frozen=True)
class Order:
    """A training order; the batch can be dealt to 1, 2 and 4 processes in 1 or 2 portions."""

    size: int
    batch_size: int
    steps: int
    seed: int
    group: int = 0  # pictures of like shape that stand together

    def sampler(self, *, rank: int = 0, world_size: int = 1, accumulate: int = 1, start_step: int = 0) -> StepSampler:
        return StepSampler(
            self.size,
            batch_size=self.batch_size,
            accumulate=accumulate,
            start_step=start_step,
            steps=self.steps,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            order=like_shapes_order(LikeShapes(ratios(self.size, self.seed), self.group), self.seed)
            if self.group
            else None,
        )

    def global_batches(self, world_size: int, accumulate: int, start_step: int = 0) -> list[list[SampleKey]]:
        """What all processes together read in each step, portion by portion."""
        read = [
            list(self.sampler(rank=rank, world_size=world_size, accumulate=accumulate, start_step=start_step))
            for rank in range(world_size)
        ]
        steps = range(self.steps - start_step)
        turns = range(accumulate)
        return [
            [key for turn in turns for rank in range(world_size) for key in read[rank][step * accumulate + turn]]
            for step in steps
        ]


def ratios(size: int, seed: int) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed)) + 0.5


orders = st.builds(
    Order,
    size=st.integers(1, 50),
    batch_size=st.integers(1, 3).map(lambda n: 8 * n),
    steps=st.integers(1, 8),
    seed=st.integers(0, 2**40),
    group=st.sampled_from([0, 2, 4, 8]),
)


@settings(deadline=None)
@given(orders, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_any_number_of_processes_and_portions_reads_the_same_batches(order: Order, world: int, accumulate: int) -> None:
    assert order.global_batches(world, accumulate) == order.global_batches(1, 1)


@settings(deadline=None)
@given(orders)
def test_every_picture_comes_once_in_an_epoch(order: Order) -> None:
    stream = [key.index for batch in order.global_batches(2, 2) for key in batch]
    assert len(stream) == order.batch_size * order.steps
    for start in range(0, len(stream), order.size):
        epoch = stream[start : start + order.size]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(order.size))


@settings(deadline=None)
@given(orders, st.integers(0, 8), st.sampled_from([1, 2, 4]))
def test_a_resumed_sampler_goes_on_where_it_stopped(order: Order, stop: int, world: int) -> None:
    stop = min(stop, order.steps)
    whole = order.global_batches(world, 2)
    assert order.global_batches(world, 2, start_step=stop) == whole[stop:]
    assert len(order.sampler(start_step=stop, accumulate=2)) == 2 * (order.steps - stop)


@settings(deadline=None)
@given(orders)
def test_a_sample_s_seed_is_a_function_of_run_seed_epoch_and_index(order: Order) -> None:
    # The same pictures dealt by batches of another size meet the same seeds.
    other = Order(order.size, 8, order.steps * order.batch_size // 8, order.seed, order.group)
    keys = [key for batch in order.global_batches(1, 1) for key in batch]
    assert keys == [key for batch in other.global_batches(4, 1) for key in batch]
    assert len({key.seed for key in keys}) == len(keys)  # each epoch has its own


def test_epochs_and_seeds_have_their_own_orders() -> None:
    def order(seed: int) -> list[int]:
        return [key.index for batch in Order(64, 64, 3, seed).sampler() for key in batch]

    first, again, other = order(1), order(1), order(2)
    assert first == again
    assert first != other
    epochs = [first[i : i + 64] for i in (0, 64, 128)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(range(64)) not in epochs


def test_order_and_seeds_leave_the_global_generator_alone() -> None:
    """Else dropout would draw something else after a resume."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    batches = training_batches(
        lambda keys: [key.index for key in keys], Order(9, 8, 2, 0).sampler(), workers=0, pin_memory=False
    )
    assert len(list(batches)) == 2
    assert torch.equal(torch.rand(3), expected)


def test_workers_change_nothing() -> None:
    def load(keys: list[SampleKey]) -> list[tuple[int, float]]:
        return [(key.index, float(np.random.default_rng(key.seed).random())) for key in keys]

    sampler = Order(11, 8, 4, 3).sampler(accumulate=2)
    alone, helped = (list(training_batches(load, sampler, workers=workers, pin_memory=False)) for workers in (0, 2))
    assert alone == helped
    assert len(alone) == 8


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(1, 7))
def test_testing_takes_each_picture_once_and_in_order(count: int, batch_size: int) -> None:
    batches = list(batches_for_tests(int, range(count), batch_size=batch_size, workers=0, collate=list))
    assert [index for batch in batches for index in batch] == list(range(count))


@given(orders, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_the_indices_of_a_step_are_those_of_its_batch(order: Order, world_size: int, accumulate: int) -> None:
    """Whoever asks, and wherever the run was resumed: they name the pictures of a diverged step."""
    batches = order.global_batches(world_size, accumulate)
    last = order.sampler(rank=world_size - 1, world_size=world_size, accumulate=accumulate, start_step=order.steps - 1)
    for step, keys in enumerate(batches):
        assert last.indices_of(step) == [key.index for key in keys]


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 5), st.integers(2, 9), st.integers(0, 2**40))
def test_groups_are_of_like_shape_and_begin_at_multiples_of_their_size(
    size: int, epoch: int, group: int, seed: int
) -> None:
    shuffle = epoch_order(size, seed, epoch)
    shapes = torch.arange(size) % 2  # wide pictures and tall ones
    order = group_like_shapes(shuffle, LikeShapes(shapes.float(), group), seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(size))
    start = epoch * size
    whole = [p for p in range(-(-start // group) * group, start + size, group) if p + group <= start + size]
    mixed = sum(len(set(shapes[order[p - start : p - start + group]].tolist())) > 1 for p in whole)
    assert mixed <= -(-len(whole) // 64)  # one where wide ones end and tall ones begin, in each window of 64 groups
    ends = [p for p in range(start, start + size) if not any(q <= p < q + group for q in whole)]
    assert all(order[p - start] == shuffle[p - start] for p in ends)


def test_groups_come_in_random_order_and_change_with_the_epoch() -> None:
    shapes = LikeShapes(torch.arange(256) % 2 + 1.0, 2)
    orders = [group_like_shapes(epoch_order(256, 3, e), shapes, seed=3, epoch=e) for e in range(2)]
    assert not torch.equal(orders[0], orders[1])
    kinds = (orders[0].view(-1, 2)[:, 0] % 2).tolist()
    assert 30 < sum(kinds) < 98  # about half of 128 groups
    assert 40 < sum(a != b for a, b in itertools.pairwise(kinds)) < 88  # not one kind after the other
