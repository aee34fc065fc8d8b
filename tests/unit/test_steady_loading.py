"""Epoch after epoch, evaluation after evaluation: what loading holds of the machine stays as it is.

`python -m tests.load` watches whole trainings for longer.
"""

import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from backbones.data.loader import shared_empty, training_batches
from backbones.data.loader import testing_batches as batches_for_tests
from backbones.data.sampler import SampleKey, StepSampler
from tests.load.flatness import trend_of
from tests.load.processes import Held, held_by

pytestmark = pytest.mark.skipif(held_by(os.getpid()) is None, reason="/proc/self/smaps_rollup can't be read")
PICTURES = 64


def load(keys: list[SampleKey]) -> torch.Tensor:
    return shared_empty((len(keys), 64, 64, 3), torch.uint8).fill_(keys[0].index)


def after_each(epochs: int, keep: Callable[[torch.Tensor], None] = lambda batch: None) -> list[Held]:
    """What this process holds after each epoch of a training, and the evaluation that follows it."""
    held = []
    steps = PICTURES // 8
    sampler = StepSampler(
        PICTURES, batch_size=8, accumulate=1, start_step=0, steps=epochs * steps, seed=0, rank=0, world_size=1
    )
    for step, batch in enumerate(training_batches(load, sampler, workers=2, pin_memory=False), 1):
        keep(batch)
        if step % steps == 0:
            tests = batches_for_tests(torch.tensor, range(16), batch_size=4, workers=2, collate=torch.stack)
            assert torch.cat(list(tests)).tolist() == list(range(16))
            now = held_by(os.getpid())
            assert now is not None
            held.append(now)
    return held


def test_loading_holds_no_more_after_thirty_epochs() -> None:
    early, *_, late = after_each(30)[5:]
    assert late.files == early.files
    assert late.threads == early.threads
    assert late.anonymous - early.anonymous < 4e6  # 25 epochs' pictures are 20 MB


def test_what_is_kept_is_seen() -> None:
    kept: list[Any] = []

    def keep(batch: torch.Tensor) -> None:
        kept.append(batch)
        # Not from the heap, where other tests have left room, and would find it.
        memory = mmap.mmap(-1, 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.write(bytes(2**20))
        kept.append(memory)

    early, *_, late = after_each(15, keep)[3:]
    assert late.files > early.files
    assert late.anonymous - early.anonymous > 6e6


def trend(values: np.ndarray, memory: bool, in_hand: int = 0) -> bool:
    minutes = (np.arange(len(values)) / 20).tolist()
    return trend_of(minutes, values.tolist(), pictures_per_minute=1e5, memory=memory, in_hand=in_hand).flat


def test_a_leak_is_told_from_peaks_and_noise() -> None:
    """Twelve minutes, a measurement in three seconds, and an evaluation a minute that takes 100 MB for six seconds."""
    rng = np.random.default_rng(0)
    place = np.arange(240)
    memory = 500e6 + rng.normal(0, 2e6, 240) + 1e8 * (place % 20 < 2)
    assert trend(memory, memory=True)
    assert not trend(memory + 1e6 * place / 20, memory=True)  # 1 MB a minute
    assert trend(memory - 1e6 * place / 20, memory=True)
    files = 20 + 8.0 * (place % 20 < 2)
    assert trend(files, memory=False)
    assert not trend(files + place // 20, memory=False)  # one for each evaluation
    in_hand = 15 + 32.0 * (rng.uniform(size=240) < 0.6)  # the tensors of a batch, each in a file
    assert trend(in_hand, memory=False)
    assert not trend(in_hand + place // 20, memory=False)
    busier = 14 + 4.0 * (place > 100)  # the training takes longer from then on: two batches wait
    assert trend(busier, memory=False, in_hand=4)
    assert not trend(busier + place // 20, memory=False, in_hand=4)


def test_the_slope_in_its_units() -> None:
    result = trend_of([0, 1, 2, 3], [10.0, 12.0, 14.0, 16.0], pictures_per_minute=4000, memory=False)
    assert (result.per_minute, result.per_1000_pictures, result.rise) == (2, 0.5, 6)
    assert (result.first, result.last, result.median, result.highest) == (10, 16, 13, 16)
