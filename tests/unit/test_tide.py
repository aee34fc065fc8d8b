"""TIDE's error analysis where the numbers can be told by hand; tests/golden compares it with the authors' package."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.analysis.outcomes import Kind, find_outcomes
from detection.analysis.tide import ERROR_TYPES, Errors, find_errors
from detection.data.annotations import Annotations
from detection.structures import Detections

BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]
HALF_OFF = [5.0, 0.0, 15.0, 10.0]  # an IoU of 1/3 with BOX


def truth(*objects: tuple, pictures: int = 1, classes: int = 2) -> Annotations:
    """Objects (picture, label, box), with True after these for one to ignore."""
    return Annotations.from_objects(
        class_names=["cat", "dog", "cow", "owl"][:classes],
        image_ids=range(pictures),
        sizes=[[100, 100]] * pictures,
        images=[o[0] for o in objects],
        labels=[o[1] for o in objects],
        boxes=[o[2] for o in objects],
        ignore=[len(o) > 3 for o in objects],
    )


def found(*rows: tuple) -> Detections:
    """The detections (label, box, score) of a picture."""
    return Detections(
        torch.tensor([r[1] for r in rows], dtype=torch.float64).reshape(-1, 4),
        torch.tensor([r[2] for r in rows], dtype=torch.float64),
        torch.tensor([r[0] for r in rows], dtype=torch.int64),
    )


def overall(annotations: Annotations, *detections: Detections) -> Errors:
    result = find_errors(annotations, detections).overall
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((1, BOX, 0.9), Kind.FOUND),
        ((2, BOX, 0.9), Kind.CLASSIFICATION),
        ((1, HALF_OFF, 0.9), Kind.LOCALISATION),
        ((2, HALF_OFF, 0.9), Kind.BOTH),
        ((1, FAR, 0.9), Kind.BACKGROUND),
        ((1, [9.0, 0.0, 19.0, 10.0], 0.9), Kind.BACKGROUND),  # an IoU of 1/19
    ],
)
def test_one_object_and_one_detection(detection: tuple, kind: Kind) -> None:
    """What is wrong costs all of the AP, and nothing else does, where mending it finds the object.

    Of a detection of another class only, mending the miss leaves the object's class with nothing wrong; mended misses
    beside a wrong detection of the class leave it at 0.
    """
    annotations = truth((0, 1, BOX))
    assert find_outcomes(annotations, [found(detection)]).kinds.tolist() == [kind]
    errors = overall(annotations, found(detection))
    assert errors.ap == (100 if kind == Kind.FOUND else 0)
    mended_by = {
        Kind.CLASSIFICATION: "classification",
        Kind.LOCALISATION: "localisation",
        Kind.BOTH: "missed",
    }.get(kind)
    assert errors.lost == {name: 100 if name == mended_by else 0 for name in ERROR_TYPES}
    assert errors.special["false positives"] == 0
    assert errors.special["false negatives"] == (100 if kind in (Kind.CLASSIFICATION, Kind.BOTH) else 0)


def test_thresholds_belong_to_localisation_unless_the_object_is_free() -> None:
    tenth = [0.0, 0.0, 10.0, 1.0]
    half = [0.0, 0.0, 10.0, 5.0]
    kinds = find_outcomes(truth((0, 1, BOX)), [found((1, BOX, 0.9), (1, half, 0.8), (1, tenth, 0.7))]).kinds
    assert kinds.tolist() == [Kind.FOUND, Kind.LOCALISATION, Kind.LOCALISATION]
    assert find_outcomes(truth((0, 1, BOX)), [found((1, half, 0.8))]).kinds.tolist() == [Kind.FOUND]
    assert find_outcomes(truth((0, 1, BOX)), [found((2, tenth, 0.8))]).kinds.tolist() == [Kind.BACKGROUND]


def test_a_miss() -> None:
    errors = overall(truth((0, 1, BOX)), found())
    assert errors.ap == 0
    assert errors.lost == {name: 100 if name == "missed" else 0 for name in ERROR_TYPES}
    assert errors.special == {"false positives": 0, "false negatives": 100}
    # One of two objects missed: recalls to 0.5 are reached, 51 of the 101.
    errors = overall(truth((0, 1, BOX), (0, 1, FAR)), found((1, BOX, 0.9)))
    assert errors.ap == pytest.approx(100 * 51 / 101)
    assert errors.lost == pytest.approx({name: 100 * 50 / 101 if name == "missed" else 0 for name in ERROR_TYPES})


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ((1, [0.0, 0.0, 10.0, 9.0], 0.8), "duplicate"),
        ((1, FAR, 0.8), "background"),
        ((1, HALF_OFF, 0.8), "localisation"),
    ],
)
def test_a_wrong_detection_between_two_right_ones(extra: tuple, name: str) -> None:
    """Precision is 1 to recall 0.5 (51 recalls) and 2/3 after it (50): the wrong detection costs 50/3 of 101."""
    annotations = truth((0, 1, BOX), (1, 1, BOX), pictures=2)
    errors = overall(annotations, found((1, BOX, 0.9), extra), found((1, BOX, 0.7)))
    assert errors.ap == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    cost = 100 * 50 / 3 / 101
    assert errors.lost == pytest.approx({each: cost if each == name else 0 for each in ERROR_TYPES})
    assert errors.special == pytest.approx({"false positives": cost, "false negatives": 0})


def test_a_wrong_class_costs_two_classes() -> None:
    """The dog taken for a cat: a false positive among the cats, and a dog less."""
    annotations = truth((0, 1, BOX), (0, 2, FAR))
    result = find_errors(annotations, [found((1, FAR, 0.9), (1, BOX, 0.8))])
    assert result.overall is not None
    cat, dog = result.per_class["cat"], result.per_class["dog"]
    assert cat is not None
    assert dog is not None
    assert (cat.ap, dog.ap) == (50, 0)
    assert (cat.lost["classification"], dog.lost["classification"]) == (50, 100)
    assert result.overall.lost == {name: 75 if name == "classification" else 0 for name in ERROR_TYPES}
    assert result.counts == {
        "found": 1, "classification": 1, "localisation": 0, "both": 0, "duplicate": 0, "background": 0, "missed": 0,
    }  # fmt: skip


def test_only_the_best_claim_to_an_object_is_mended() -> None:
    outcomes = find_outcomes(truth((0, 1, BOX)), [found((1, HALF_OFF, 0.9), (2, BOX, 0.8), (1, HALF_OFF, 0.7))])
    assert outcomes.mends.tolist() == [True, False, False]
    assert outcomes.objects.tolist() == [0, 0, 0]
    assert not outcomes.missed.any()


def test_ignored_objects() -> None:
    """Detections in one are not counted, unless of another class; nobody misses it."""
    crowd = (0, 1, [40.0, 40.0, 90.0, 90.0], True)
    outcomes = find_outcomes(truth((0, 1, BOX), crowd), [found((1, BOX, 0.7), (1, FAR, 0.9), (2, FAR, 0.8))])
    assert outcomes.ignored.tolist() == [True, False, False]
    assert outcomes.kinds.tolist() == [Kind.BACKGROUND, Kind.BACKGROUND, Kind.FOUND]
    errors = overall(truth((0, 1, BOX), crowd), found((1, BOX, 0.7), (1, FAR, 0.9)))
    assert errors.ap == 100
    only_ignored = find_errors(truth(crowd), [found((1, FAR, 0.9))])
    assert only_ignored.overall is None
    assert only_ignored.per_class == {"cat": None, "dog": None}
    assert only_ignored.counts["missed"] == only_ignored.counts["background"] == 0


def test_no_more_than_a_hundred_of_a_picture_count() -> None:
    annotations = truth((0, 1, BOX))
    wrong = [(2, FAR, 0.9)] * 99
    assert overall(annotations, found(*wrong, (1, BOX, 0.5))).ap == 100
    assert overall(annotations, found(*wrong, (2, FAR, 0.9), (1, BOX, 0.5))).ap == 0


@pytest.mark.parametrize("pictures", [0, 3])
def test_nothing_at_all(pictures: int) -> None:
    result = find_errors(truth(pictures=pictures), [found()] * pictures)
    assert result.overall is None
    assert sum(result.counts.values()) == 0


box = st.builds(
    lambda x, y, w, h: [float(x), float(y), float(x + w), float(y + h)],
    *[st.integers(0, 30)] * 2,
    *[st.integers(1, 20)] * 2,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), box), max_size=10),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), box), max_size=20),
)
def test_what_holds_always(objects: list, drawn: list) -> None:
    annotations = truth(*objects, pictures=3)
    rows = [(image, (label, box, 1 - place / 50)) for place, (image, label, box) in enumerate(drawn)]
    detections = [found(*(row for image, row in rows if image == picture)) for picture in range(3)]
    outcomes = find_outcomes(annotations, detections)
    # An object is found by one detection, or claimed by one error, or missed.
    finders = np.bincount(outcomes.objects[outcomes.kinds == Kind.FOUND], minlength=len(objects))
    claims = np.bincount(outcomes.objects[outcomes.mends], minlength=len(objects))
    assert (finders + claims + outcomes.missed == 1).all()
    assert (finders == outcomes.found).all()
    result = find_errors(annotations, detections)
    if result.overall is None:
        assert not objects
        return
    for errors in (result.overall, *filter(None, result.per_class.values())):
        assert all(0 <= gain <= 100 - errors.ap + 1e-9 for gain in errors.lost.values())
