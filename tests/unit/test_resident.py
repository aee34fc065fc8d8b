"""Pictures on the device: the crops of the paper, in the order of the loader, whatever the step and the processes."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.config import ClassificationData
from backbones.data.datasets import ClassificationDataset
from backbones.data.resident import ResidentPictures, epoch_rows, resident_batches
from backbones.data.sampler import StepSampler
from backbones.inputs import training_input
from backbones.weights import WeightsMetadata

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(1, 256, (7, 8, 8, 3), dtype=np.uint8), np.arange(7) % 3


def sampler(
    start: int = 0, steps: int = 9, *, rank: int = 0, world: int = 1, size: int = 7, accumulate: int = 1
) -> StepSampler:
    return StepSampler(
        size,
        batch_size=4,
        accumulate=accumulate,
        start_step=start,
        steps=steps,
        seed=5,
        rank=rank,
        world_size=world,
    )


def batches(of: StepSampler) -> list[list[list[int]]]:
    return [rows.tolist() for rows in resident_batches(of, padding=2, flip=True, device=CPU)]


@given(st.integers(0, 6), st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_a_row_is_a_crop_of_the_padded_picture_or_its_mirror_image(
    place: int, top: int, left: int, mirrored: bool
) -> None:
    expected = np.pad(PIXELS[place], ((2, 2), (2, 2), (0, 0)))[top : top + 8, left : left + 8]
    pictures = ResidentPictures(PIXELS, LABELS, padding=2, device=CPU)
    row = torch.tensor([[place, top, left, int(mirrored)]])
    np.testing.assert_array_equal(pictures.cut(row)[0].numpy(), expected[:, ::-1] if mirrored else expected)
    assert pictures.labels(row).tolist() == [LABELS[place]]


def test_pictures_of_a_batch_keep_apart() -> None:
    pictures = ResidentPictures(PIXELS, LABELS, padding=2, device=CPU)
    rows = torch.tensor([[3, 0, 4, 1], [0, 2, 2, 0], [6, 4, 1, 0]])
    one_by_one = torch.cat([pictures.cut(row[None]) for row in rows])
    assert torch.equal(pictures.cut(rows), one_by_one)
    assert torch.equal(pictures.cut(rows)[1], torch.from_numpy(PIXELS[0]))  # 2, 2: the picture as it is
    assert pictures.labels(rows).tolist() == LABELS[[3, 0, 6]].tolist()


def test_crops_and_mirror_images_are_equally_likely() -> None:
    rows = epoch_rows(81 * 2 * 400, 0, 0, padding=4, flip=True)
    counts = Counter(map(tuple, rows[:, 1:].tolist()))
    assert len(counts) == 81 * 2
    expected = 400
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 161 + 5 * (2 * 161) ** 0.5  # five deviations of the distribution with 161 degrees of freedom


def test_an_epoch_holds_each_picture_once_and_epochs_and_seeds_differ() -> None:
    first, again, second, other = (
        epoch_rows(50, seed, epoch, padding=4, flip=True) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert torch.equal(first, again)
    assert sorted(first[:, 0].tolist()) == list(range(50))
    for different in (second, other):
        assert sorted(different[:, 0].tolist()) == list(range(50))
        assert not torch.equal(first[:, 0], different[:, 0])
        assert not torch.equal(first[:, 1:], different[:, 1:])


def test_without_padding_and_flip_pictures_stay_as_they_are() -> None:
    assert epoch_rows(50, 0, 0, padding=0, flip=False)[:, 1:].eq(0).all()
    assert epoch_rows(50, 0, 0, padding=4, flip=False)[:, 3].eq(0).all()


def test_the_order_is_that_of_the_loader() -> None:
    """Batches of 4 out of 7 pictures: most steps take pictures of two epochs."""
    loaded = [[key.index for key in keys] for keys in sampler()]
    assert [[row[0] for row in rows] for rows in batches(sampler())] == loaded


@pytest.mark.parametrize(
    ("augmentation", "corners", "mirrored"),
    [("pad_crop_flip", {0, 1, 2, 3, 4}, {0, 1}), ("flip", {0}, {0, 1}), ("none", {0}, {0})],
)
def test_the_configurations_augmentation_is_what_the_rows_say(
    augmentation: Any, corners: set[int], mirrored: set[int]
) -> None:
    names = [str(k) for k in range(3)]
    dataset = ClassificationDataset(names, LABELS, lambda index: None, str, "pictures", PIXELS)  # type: ignore[arg-type, return-value]
    data = ClassificationData("cifar10", input_size=8, augmentation=augmentation, padding=2, resident=True)
    metadata = WeightsMetadata("classification", "cifar_resnet8", {}, names, [1.0, 2.0, 3.0], [2.0] * 3, 8)
    source = training_input(dataset, data, None, metadata, workers=0, device=CPU, dtype=torch.float64)
    rows = torch.cat(list(source.batches(sampler(steps=50))))
    assert (set(rows[:, 1:3].flatten().tolist()), set(rows[:, 3].tolist())) == (corners, mirrored)
    pictures, labels = source.prepare(torch.tensor([[4, 0, 0, 0]]))
    expected = PIXELS[4] if augmentation != "pad_crop_flip" else np.pad(PIXELS[4], ((2, 2), (2, 2), (0, 0)))[:8, :8]
    assert torch.equal(pictures[0], torch.from_numpy((expected - np.array([1.0, 2.0, 3.0])) / 2).permute(2, 0, 1))
    assert labels.tolist() == [LABELS[4]]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_may_be_larger_than_the_data_set(size: int) -> None:
    rows = batches(sampler(steps=4, size=size))
    assert [len(batch) for batch in rows] == [4] * 4
    seen = [row[0] for batch in rows for row in batch]
    for epoch in range(len(seen) // size):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(st.integers(0, 9))
def test_a_resumed_run_sees_what_it_would_have_seen(start: int) -> None:
    assert batches(sampler(start)) == batches(sampler())[start:]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (4, 1), (2, 2), (1, 4)])
def test_any_number_of_processes_and_portions_sees_the_same_batches(world: int, accumulate: int) -> None:
    of_ranks = [batches(sampler(rank=rank, world=world, accumulate=accumulate)) for rank in range(world)]
    for step, whole in enumerate(batches(sampler())):
        turns = range(step * accumulate, (step + 1) * accumulate)
        assert [row for turn in turns for rank in of_ranks for row in rank[turn]] == whole
