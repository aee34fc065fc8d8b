"""Batches for training and for testing."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from backbones.data.sampler import SampleKey, StepSampler
from backbones.engine.acceleration import usable_cores
from backbones.errors import UserError


class KeyedDataset(Dataset):
    """Gives `load(key)` for each key that a sampler yields."""

    def __init__(self, load: Callable[[Any], Any]):
        self.load = load

    def __getitem__(self, key: Any) -> Any:
        return self.load(key)


class KeyedBatches(Dataset):
    """Gives `load(keys)` for all keys of a batch at once."""

    def __init__(self, load: Callable[[list[SampleKey]], Any]):
        self.load = load

    def __getitems__(self, keys: list[SampleKey]) -> Any:
        return self.load(keys)


def training_batches(
    load: Callable[[list[SampleKey]], Any], sampler: StepSampler, *, workers: int, pin_memory: bool
) -> Iterable[Any]:
    """The micro-batches of a training run, in `sampler`'s order.

    Args:
        load: makes a micro-batch of its keys; runs in `workers` processes (in this one if 0).
        pin_memory: for faster copies to a GPU.
    """
    loader: DataLoader = DataLoader(
        KeyedBatches(load),
        batch_sampler=sampler,
        num_workers=_useful(workers),
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        worker_init_fn=_begin_work,
        # By default a loader draws from the global generator, and so would change the dropout of a resumed run.
        generator=torch.Generator(),
    )
    return _with_plain_errors(loader)


def testing_batches(
    load: Callable[[int], Any],
    indices: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    collate: Callable[[list[Any]], Any],
    pin_memory: bool = False,  # noqa: PT028 (no test of pytest's)
) -> Iterable[Any]:
    """Batches over `indices`, each exactly once and in order; for `pin_memory` see `training_batches`."""
    loader: DataLoader = DataLoader(
        KeyedDataset(load),
        sampler=indices,
        batch_size=batch_size,
        num_workers=_useful(workers),
        collate_fn=collate,  # type: ignore[arg-type]
        pin_memory=pin_memory,
        worker_init_fn=_begin_work,
    )
    return _with_plain_errors(loader)


def shared_empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A new tensor; in a loading process one that the training process sees, so that it is not copied on its way."""
    tensor = torch.empty(shape, dtype=dtype)
    return tensor.share_memory_() if get_worker_info() else tensor


def _as_it_is(batch: Any) -> Any:
    return batch


def _useful(workers: int) -> int:
    return min(workers, usable_cores())


def _begin_work(worker: int) -> None:
    torch.set_num_threads(1)
    sys.excepthook = _leave_quietly


def _leave_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Where the training process has gone, as after Ctrl-C, a thread that hands it tensors would show a traceback."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _with_plain_errors(loader: DataLoader) -> Iterator[Any]:
    """A worker's error comes with its whole traceback as its message; gives back the user's one line."""
    try:
        yield from loader
        return
    except UserError as error:
        kind, text = type(error), str(error)
        error.__traceback__ = None  # it holds the loader, whose processes end slowly when garbage collection ends them
    raise kind(text.strip().split(f"{kind.__name__}: ")[-1])
