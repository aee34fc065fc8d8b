"""Which object a box stands for, and how boxes are drawn for a loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.models.matching import best_for_an_object, match, select
from detection.structures import Target


def target(boxes: list[list[float]], labels: list[int], ignore: list[bool] | None = None) -> Target:
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(ignore or [False] * len(labels), dtype=torch.bool),
    )


def test_each_box_gets_the_object_that_it_overlaps_most():
    objects = target([[0, 0, 10, 10], [10, 0, 20, 10]], [3, 5])
    boxes = torch.tensor([[0.0, 0, 10, 5], [8, 0, 18, 10], [0, 0, 20, 10], [50, 50, 60, 60]])
    matches = match(boxes, objects)
    torch.testing.assert_close(matches.best_iou, torch.tensor([0.5, 80 / 120, 0.5, 0.0]))
    assert matches.labels[:2].tolist() == [3, 5]
    assert torch.equal(matches.boxes[:2], objects.boxes)
    assert not matches.ignored.any()


def test_ignored_objects_match_nothing_but_hide_what_lies_in_them():
    objects = target([[0, 0, 10, 10], [100, 100, 200, 200]], [1, 2], [False, True])
    boxes = torch.tensor([[100.0, 100, 200, 200], [110, 110, 120, 120], [90, 100, 110, 110], [89, 100, 110, 110]])
    matches = match(boxes, objects)
    assert matches.best_iou.tolist() == [0, 0, 0, 0]
    # The third has exactly half of its area in the ignored one, the fourth less.
    assert matches.ignored.tolist() == [True, True, True, False]


@pytest.mark.parametrize("objects", [target([], []), target([[0, 0, 50, 50]], [1], [True])])
def test_without_objects_nothing_overlaps(objects: Target):
    matches = match(torch.tensor([[0.0, 0, 20, 20], [60, 60, 80, 80]]), objects)
    assert matches.best_iou.tolist() == [0, 0]
    assert matches.ignored.tolist() == [bool(objects.ignore.any()), False]


def test_best_for_an_object_takes_ties_among_the_allowed_and_never_a_zero():
    iou = torch.tensor([[0.2, 0.6, 0.6, 0.9], [0.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.3]])
    allowed = torch.tensor([True, True, True, False])
    assert best_for_an_object(iou, allowed).tolist() == [True, True, True, False]
    assert best_for_an_object(iou, torch.ones(4, dtype=torch.bool)).tolist() == [False, False, False, True]


@settings(max_examples=150, deadline=None)
@given(
    positives=st.integers(0, 60),
    negatives=st.integers(0, 60),
    others=st.integers(0, 20),
    count=st.integers(1, 40),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 2**62),
)
def test_draws_as_many_as_allowed(positives: int, negatives: int, others: int, count: int, fraction: float, seed: int):
    n = positives + negatives + others
    if n == 0:
        return
    kind = torch.tensor([1] * positives + [-1] * negatives + [0] * others)[
        torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    ]
    limit = int(fraction * count)
    drawn = select(kind == 1, kind == -1, count=count, max_positives=limit, seed=seed)
    chosen_positives = min(positives, limit)
    chosen_negatives = min(negatives, min(count, n) - chosen_positives)
    assert len(drawn.index) == min(count, n)
    assert len(set(drawn.index.tolist())) == len(drawn.index)
    assert drawn.positive.sum() == chosen_positives
    assert drawn.selected.sum() == chosen_positives + chosen_negatives
    assert (kind[drawn.index[drawn.positive]] == 1).all()
    assert (kind[drawn.index[drawn.selected & ~drawn.positive]] == -1).all()
    weight = drawn.weight(torch.float64)
    assert (weight[~drawn.selected] == 0).all()
    if drawn.selected.any():
        torch.testing.assert_close(weight.sum().item(), 1.0)


def test_the_seed_decides_and_every_box_has_the_same_chance():
    positive = torch.arange(40) < 10
    negative = torch.arange(40) >= 20

    def draw(seed: int) -> torch.Tensor:
        return select(positive, negative, count=10, max_positives=5, seed=seed).index

    torch.manual_seed(1)
    first = draw(7)
    torch.manual_seed(2)
    assert torch.equal(first, draw(7))
    times = torch.zeros(40)
    for seed in range(2000):
        times[draw(seed)] += 1
    assert (times[10:20] == 0).all()
    # 2000 draws with a chance of 1/2 (deviation 22) and 1/4 (19).
    assert ((times[:10] - 1000).abs() < 110).all()
    assert ((times[20:] - 500).abs() < 100).all()
