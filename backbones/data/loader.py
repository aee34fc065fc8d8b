"""Batches for training and for testing."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from backbones.data.sampler import SampleKey, StepSampler
from backbones.data.workers import in_a_loading_process, load_in_processes
from backbones.engine.acceleration import usable_cores


def training_batches(
    load: Callable[[list[SampleKey]], Any], sampler: StepSampler, *, workers: int, pin_memory: bool
) -> Iterator[Any]:
    """The micro-batches of a training run, in `sampler`'s order.

    Args:
        load: makes a micro-batch of its keys, always the same; runs in `workers` processes (in this one if 0), but no
            more than two to a core: while some wait for a disk, others work.
        pin_memory: for faster copies to a GPU.
    """
    return _batches(load, sampler, workers, pin_memory)


def testing_batches(
    load: Callable[[int], Any],
    indices: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    collate: Callable[[list[Any]], Any],
    pin_memory: bool = False,  # noqa: PT028 (no test of pytest's)
) -> Iterator[Any]:
    """Batches over `indices`, each exactly once and in order; for `pin_memory` see `training_batches`."""

    def load_batch(some: Sequence[int]) -> Any:
        return collate([load(index) for index in some])

    portions = (indices[first : first + batch_size] for first in range(0, len(indices), batch_size))
    return _batches(load_batch, portions, workers, pin_memory)


def shared_empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A new tensor; in a loading process one that the training process sees, so that it is not copied on its way."""
    tensor = torch.empty(shape, dtype=dtype)
    return tensor.share_memory_() if in_a_loading_process() else tensor


def _batches(load: Callable[[Any], Any], tasks: Iterable[Any], workers: int, pin_memory: bool) -> Iterator[Any]:
    useful = min(workers, 2 * usable_cores())
    batches = load_in_processes(load, tasks, useful) if useful else (load(task) for task in tasks)
    return in_a_thread(_pin, batches, _begin_pinning, torch.cuda.current_device()) if pin_memory else batches


def in_a_thread(
    change: Callable[[Any], Any], batches: Iterator[Any], begin: Callable[[Any], None], argument: Any
) -> Iterator[Any]:
    """`change(batch)` of each, made in a thread while the one before is used.

    An error comes in its turn: after the batches before it.

    Args:
        begin: called with `argument` in the thread, at first.
    """
    ahead: deque[Future] = deque()
    failure: Exception | None = None
    with ThreadPoolExecutor(1, initializer=begin, initargs=(argument,)) as thread:
        while failure is None:
            try:
                ahead.append(thread.submit(change, next(batches)))
            except StopIteration:
                break
            except Exception as error:
                failure = error
            if len(ahead) > 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # else it and this frame would hold each other


def _begin_pinning(device: int) -> None:
    torch.cuda.set_device(device)  # a thread begins with the first; others' memory is none of its business
    torch.set_num_threads(1)


def _pin(batch: Any) -> Any:
    """A batch in pinned memory: by its own method, where it has one; a list or tuple element by element."""
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(_pin, batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map(_pin, batch))
    return batch
