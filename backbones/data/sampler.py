"""Which picture comes when: a function of the seed and the step alone, whatever the number of processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from backbones.engine.randomness import derive_seed


@dataclass(frozen=True)
class SampleKey:
    """One picture at one place in the training order.

    Args:
        index: its place in the data set.
        seed: decides its augmentation; a function of run seed, epoch and index.
    """

    index: int
    seed: int


class StepSampler:
    """Yields this process's micro-batches of keys, step after step.

    The training order is the epochs' orders one after the other; step s takes the places [s * batch_size, (s + 1) *
    batch_size) of it. Each step's batch is cut into `accumulate * world_size` equal portions, dealt to the processes in
    turn, so any number of processes sees the same global batches.

    Args:
        size: pictures in the data set.
        batch_size: pictures of one optimizer step, over all processes; divisible by `accumulate * world_size`.
        start_step, steps: the steps to yield batches for.
        order: gives the order (size,) int64 of an epoch; by default its `epoch_order`.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        accumulate: int,
        start_step: int,
        steps: int,
        seed: int,
        rank: int,
        world_size: int,
        order: Callable[[int], torch.Tensor] | None = None,
    ):
        self.size, self.batch_size, self.accumulate = size, batch_size, accumulate
        self.start_step, self.steps, self.seed = start_step, steps, seed
        self.rank, self.world_size = rank, world_size
        self.order = order or (lambda epoch: epoch_order(size, seed, epoch))

    def __len__(self) -> int:
        return (self.steps - self.start_step) * self.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, order = -1, torch.empty(0)
        for portion in self.portions():
            keys = []
            for position in portion:
                if position // self.size != epoch:
                    epoch = position // self.size
                    order = self.order(epoch)
                index = int(order[position % self.size])
                keys.append(SampleKey(index, derive_seed(self.seed, epoch, index)))
            yield keys

    def portions(self) -> Iterator[range]:
        """The places in the training order of each of this process's micro-batches."""
        portion = self.batch_size // (self.accumulate * self.world_size)
        for step in range(self.start_step, self.steps):
            for turn in range(self.accumulate):
                first = step * self.batch_size + (turn * self.world_size + self.rank) * portion
                yield range(first, first + portion)

    def indices_of(self, step: int) -> list[int]:
        """The places in the data set of a step's whole batch, over all processes."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = {position // self.size for position in positions}
        orders = {epoch: self.order(epoch) for epoch in epochs}
        return [int(orders[position // self.size][position % self.size]) for position in positions]


def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """The shuffle of one epoch: (size,) int64."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, -1))
    return torch.randperm(size, generator=generator)


@dataclass(frozen=True)
class LikeShapes:
    """Pictures of like shape shall stand together, so that few of a micro-batch differ in size.

    Args:
        aspect_ratios: (N,) of all pictures.
        size: how many stand together; at best a multiple of a micro-batch, or a divisor.
    """

    aspect_ratios: torch.Tensor
    size: int


_WINDOW = 64
"""Groups are made of as many groups' pictures that follow each other: like enough in shape, and still random."""


def group_like_shapes(order: torch.Tensor, groups: LikeShapes, *, seed: int, epoch: int) -> torch.Tensor:
    """Changes the shuffle (N,) of an epoch so that groups are of like shape.

    Each window of the shuffle is sorted by aspect ratio and cut into groups, and all groups are shuffled again. Groups
    begin at multiples of their size in the order of the whole training: what an epoch begins and ends with, less than a
    group, stays where it was.
    """
    size = groups.size
    head = -epoch * len(order) % size
    count = max(len(order) - head, 0) // size
    body = order[head : head + count * size]
    by_shape = [window[groups.aspect_ratios[window].argsort(stable=True)] for window in body.split(_WINDOW * size)]
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, -3))
    shuffled = torch.cat([body[:0], *by_shape]).view(count, size)[torch.randperm(count, generator=generator)]
    return torch.cat([order[:head], shuffled.flatten(), order[head + count * size :]])


def like_shapes_order(groups: LikeShapes, seed: int) -> Callable[[int], torch.Tensor]:
    """Gives the shuffle of an epoch in which groups are of like shape; for `StepSampler`."""
    size = len(groups.aspect_ratios)
    return lambda epoch: group_like_shapes(epoch_order(size, seed, epoch), groups, seed=seed, epoch=epoch)
