"""ILSVRC's localisation error: by hand, and against a slow plain reading of the development kit's rules."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data.annotations import Annotations
from detection.evaluate.localisation import localisation_errors, picture_sized

NAMES = ("top1_localisation_error", "top5_localisation_error", "top1_error", "top5_error")


def pictures(objects, labels, ignored=None, size=(30, 40)):
    """Annotations from a list of boxes and a label for each picture."""
    ignored = [False] * len(objects) if ignored is None else ignored
    return Annotations.from_objects(
        class_names=["a", "b", "c"],
        image_ids=list(range(len(objects))),
        sizes=[size] * len(objects),
        images=[i for i, boxes in enumerate(objects) for _ in boxes],
        boxes=[box for boxes in objects for box in boxes],
        labels=[label for boxes, label in zip(objects, labels, strict=True) for _ in boxes],
        ignore=[flag for boxes, flag in zip(objects, ignored, strict=True) for _ in boxes],
    )


def errors(annotations, guesses):
    """From lists of (label, box), one list a picture."""
    classes = torch.tensor([[label for label, _ in row] for row in guesses])
    return localisation_errors(annotations, classes, torch.tensor([[box for _, box in row] for row in guesses]))


def test_by_hand():
    truth = pictures([[[0, 0, 10, 10], [20, 0, 30, 10]]], [2])
    assert errors(truth, [[(2, [20, 0, 30, 10])]]) == dict.fromkeys(NAMES, 0)  # any object will do
    assert errors(truth, [[(2, [0, 0, 10, 5])]]) == dict.fromkeys(NAMES, 0)  # an IoU of exactly a half
    wrong_box = errors(truth, [[(2, [0, 0, 10, 4])]])
    assert wrong_box == dict(zip(NAMES, [100, 100, 0, 0], strict=True))
    wrong_class = errors(truth, [[(1, [0, 0, 10, 10]), (2, [0, 0, 10, 10])]])
    assert wrong_class == dict(zip(NAMES, [100, 0, 100, 0], strict=True))
    # Class and box have to be right in one guess.
    apart = errors(truth, [[(1, [0, 0, 10, 10]), (2, [0, 20, 10, 30])]])
    assert apart == dict(zip(NAMES, [100, 100, 100, 0], strict=True))
    sixth = errors(truth, [[(1, [0, 0, 1, 1])] * 5 + [(2, [0, 0, 10, 10])]])
    assert sixth == dict.fromkeys(NAMES, 100)


def test_pictures_of_the_blacklist_count_in_classification_alone():
    truth = pictures([[[0, 0, 10, 10]]] * 2, [1, 1], [True, False])
    found = errors(truth, [[(2, [0, 0, 10, 10])], [(1, [0, 0, 10, 10])]])
    assert found == dict(zip(NAMES, [0, 0, 50, 50], strict=True))
    nothing = errors(pictures([[[0, 0, 10, 10]]], [1], [True]), [[(1, [0, 0, 10, 10])]])
    assert nothing == dict(zip(NAMES, [None, None, 0, 0], strict=True))


def test_the_whole_picture_is_right_where_the_object_covers_half_of_it():
    truth = pictures([[[0, 0, 40, 15]], [[0, 0, 20, 30]], [[0, 0, 39, 15]], [[3, 3, 9, 9]]], [1, 2, 3, 1])
    found = localisation_errors(truth, *picture_sized(truth))
    assert found == dict(zip(NAMES, [50, 50, 0, 0], strict=True))


def test_what_is_refused():
    truth, box = pictures([[[0, 0, 10, 10]]], [1]), torch.zeros(1, 2, 4)
    with pytest.raises(ValueError, match="for 1 pictures"):
        localisation_errors(truth, torch.ones(1, 3), box)
    with pytest.raises(ValueError, match="for 1 pictures"):
        localisation_errors(truth, torch.ones(2, 2), box)
    with pytest.raises(ValueError, match="for 1 pictures"):
        localisation_errors(truth, torch.ones(1, 0), torch.zeros(1, 0, 4))
    with pytest.raises(ValueError, match="pictures that have objects"):
        localisation_errors(pictures([[[0, 0, 10, 10]], []], [1, 1]), torch.ones(2, 1), torch.zeros(2, 1, 4))
    two = pictures([[[0, 0, 10, 10], [0, 0, 9, 9]]], [1])
    two.labels[1] = 2
    with pytest.raises(ValueError, match="one class in each picture"):
        localisation_errors(two, torch.ones(1, 1), torch.zeros(1, 1, 4))


def devkit_error(objects, labels, ignored, guesses, most):
    """eval_clsloc.m in its own coordinates: corners inclusive, hence + 1."""
    wrong = counted = 0
    for boxes, label, skip, row in zip(objects, labels, ignored, guesses, strict=True):
        if skip:
            continue
        counted += 1
        best = 1
        for guess, (x1, y1, x2, y2) in row[:most]:
            for gx1, gy1, gx2, gy2 in boxes:
                w, h = min(x2, gx2) - max(x1, gx1) + 1, min(y2, gy2) - max(y1, gy1) + 1
                if w <= 0 or h <= 0:
                    continue
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (gx2 - gx1 + 1) * (gy2 - gy1 + 1) - w * h
                best = min(best, max(guess != label, Fraction(w * h, union) < Fraction(1, 2)))
        wrong += best
    return 100 * wrong / counted if counted else None


corners = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 5), st.integers(0, 5)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
label_of = st.integers(1, 3)
guess_lists = st.integers(1, 6).flatmap(
    lambda k: st.lists(
        st.tuples(
            st.lists(corners, min_size=1, max_size=3),
            label_of,
            st.booleans(),
            st.lists(st.tuples(label_of, corners), min_size=k, max_size=k),
        ),
        min_size=1,
        max_size=6,
    )
)


@settings(max_examples=100, deadline=None)
@given(guess_lists)
def test_equal_to_the_development_kit(rows):
    objects, labels, ignored, guesses = (list(column) for column in zip(*rows, strict=True))
    shifted = [[(x1, y1, x2 + 1, y2 + 1) for x1, y1, x2, y2 in boxes] for boxes in objects]
    moved = [[(label, (x1, y1, x2 + 1, y2 + 1)) for label, (x1, y1, x2, y2) in row] for row in guesses]
    found = errors(pictures(shifted, labels, ignored), moved)
    for most in (1, 5):
        expected = devkit_error(objects, labels, ignored, guesses, most)
        assert found[f"top{most}_localisation_error"] == (None if expected is None else pytest.approx(expected))
        missed = [label not in [g for g, _ in row[:most]] for label, row in zip(labels, guesses, strict=True)]
        assert found[f"top{most}_error"] == pytest.approx(100 * sum(missed) / len(missed))
