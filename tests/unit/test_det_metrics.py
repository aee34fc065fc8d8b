"""ILSVRC DET's average precision: by hand, and against a slow plain reading of the development kit's rules."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from voc_files import box, make_year, obj, xml

from detection.data.annotations import Annotations
from detection.evaluate.det import det_metrics, least_overlaps
from detection.evaluate.evaluate import evaluate_detections, format_results
from detection.score import main
from detection.structures import Detections


def annotations(objects, pictures=1, classes=("a", "b")):
    """From (picture, label, box, ignored) in any order."""
    return Annotations.from_objects(
        class_names=classes,
        image_ids=[f"{i:06d}" for i in range(pictures)],
        sizes=[[200, 200]] * pictures,
        images=[o[0] for o in objects],
        labels=[o[1] for o in objects],
        boxes=[o[2] for o in objects],
        ignore=[o[3] for o in objects],
    )


def detections(found, pictures=1):
    """From (picture, label, box, score)."""
    return [
        Detections(
            boxes=torch.tensor([f[2] for f in found if f[0] == i], dtype=torch.float64).reshape(-1, 4),
            scores=torch.tensor([f[3] for f in found if f[0] == i], dtype=torch.float64),
            labels=torch.tensor([f[1] for f in found if f[0] == i], dtype=torch.int64),
        )
        for i in range(pictures)
    ]


def ap(objects, found, pictures=1):
    return det_metrics(annotations(objects, pictures), detections(found, pictures))["per_class"]["a"]


def test_small_objects_want_less_overlap():
    """The development kit's own example: an object of 10x10 pixels may be found 5 pixels larger on each side."""
    small = [20, 20, 30, 30]
    assert least_overlaps(np.array([small, [0, 0, 24, 24], [0, 0, 25, 25], [0, 0, 90, 90.0]])) == pytest.approx(
        [0.25, 24**2 / 34**2, 0.5, 0.5]
    )
    assert ap([(0, 1, small, False)], [(0, 1, [15, 15, 35, 35], 0.5)]) == 100  # an IoU of exactly a quarter
    assert ap([(0, 1, small, False)], [(0, 1, [15, 15, 35, 35.5], 0.5)]) == 0
    large = [100, 100, 200, 200]
    assert ap([(0, 1, large, False)], [(0, 1, [100, 100, 200, 150], 0.5)]) == 100
    assert ap([(0, 1, large, False)], [(0, 1, [100, 100, 200, 149], 0.5)]) == 0


def test_an_object_that_is_found_leaves_the_next_best_one():
    """Unlike VOC's rule, by which the second detection, held to the object that it overlaps most, would be wrong."""
    near, far = [0, 0, 40, 40], [0, 4, 40, 80]
    objects = [(0, 1, near, False), (0, 1, far, False)]
    found = [(0, 1, near, 0.9), (0, 1, [0, 0, 40, 52], 0.8)]
    assert ap(objects, found) == 100
    results = evaluate_detections(annotations(objects), detections(found), ["det", "voc12"])
    assert results["voc12"]["per_class"]["a"] == 50


def test_a_detection_takes_the_object_that_it_overlaps_most_and_the_first_among_equals():
    upper, lower, rest = [0, 0, 40, 40], [0, 10, 40, 50], [0, 14, 40, 60]  # what is left over finds the lower one alone
    objects = [(0, 1, upper, False), (0, 1, lower, False)]
    assert ap(objects, [(0, 1, [0, 0, 40, 42], 0.9), (0, 1, rest, 0.8)]) == 100
    assert ap(objects[::-1], [(0, 1, [0, 0, 40, 42], 0.9), (0, 1, rest, 0.8)]) == 100
    between = [(0, 1, [0, 5, 40, 45], 0.9), (0, 1, rest, 0.8)]
    assert ap(objects, between) == 100
    assert ap(objects[::-1], between) == 50


def test_a_second_detection_of_an_object_is_wrong():
    objects = [(0, 1, [0, 0, 40, 40], False), (1, 1, [0, 0, 40, 40], False)]
    found = [(0, 1, [0, 0, 40, 40], 0.9), (0, 1, [0, 0, 40, 40], 0.8), (1, 1, [0, 0, 40, 40], 0.7)]
    assert ap(objects, found, 2) == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_a_class_of_the_blacklist_does_not_count_in_that_picture():
    where = [0, 0, 40, 40]
    objects = [(0, 1, where, True), (0, 1, [50, 50, 90, 90], False), (1, 1, where, False), (0, 2, where, False)]
    found = [(0, 1, [90, 90, 99, 99], 0.9), (0, 1, where, 0.8), (1, 1, where, 0.7), (0, 2, where, 0.6)]
    assert det_metrics(annotations(objects, 2), detections(found, 2))["per_class"] == {"a": 100, "b": 100}


def test_nothing_to_find_and_nothing_found():
    nothing = det_metrics(annotations([]), detections([]))
    assert nothing == {"mAP": None, "per_class": {"a": None, "b": None}}
    objects = [(0, 1, [0, 0, 40, 40], False)]
    found = det_metrics(annotations(objects), detections([(0, 2, [0, 0, 40, 40], 0.9)]))
    assert found == {"mAP": 0, "per_class": {"a": 0, "b": None}}
    assert "det" in format_results({"det": found})


def devkit_ap(objects, found, label):
    """eval_detection.m on one class, a picture at a time, in its own coordinates: corners inclusive.

    Args:
        objects: (picture, label, (x1, y1, x2, y2), on the blacklist).
        found: (picture, label, (x1, y1, x2, y2), score).
    """
    positives = 0
    judged = []  # (score, right), in the order of pictures
    for picture in range(3):
        here = [o for o in objects if o[:2] == (picture, label)]
        if any(o[3] for o in here):
            continue
        positives += len(here)
        taken = set()
        for _, _, (x1, y1, x2, y2), score in sorted(
            (f for f in found if f[:2] == (picture, label)), key=lambda f: -f[3]
        ):
            best, most = None, Fraction(-1)
            for k, (_, _, (gx1, gy1, gx2, gy2), _) in enumerate(here):
                w, h = min(x2, gx2) - max(x1, gx1) + 1, min(y2, gy2) - max(y1, gy1) + 1
                if k in taken or w <= 0 or h <= 0:
                    continue
                gw, gh = gx2 - gx1 + 1, gy2 - gy1 + 1
                iou = Fraction(w * h, (x2 - x1 + 1) * (y2 - y1 + 1) + gw * gh - w * h)
                if iou >= min(Fraction(1, 2), Fraction(gw * gh, (gw + 10) * (gh + 10))) and iou > most:
                    best, most = k, iou
            taken.add(best)
            judged.append((score, best is not None))
    if not positives:
        return None
    judged.sort(key=lambda each: -each[0])
    curve, right = [(Fraction(0), Fraction(0))], 0
    for place, (_, is_right) in enumerate(judged, 1):
        right += is_right
        curve.append((Fraction(right, positives), Fraction(right, place)))
    return float(
        100
        * sum(
            (curve[k][0] - curve[k - 1][0]) * max(precision for _, precision in curve[k:]) for k in range(1, len(curve))
        )
    )


corners = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    *(st.sampled_from([0, 1, 3, 8]) for _ in range(2)),
    *(st.sampled_from([0, 2, 5, 11, 30, 39]) for _ in range(2)),
)
picture, label_of = st.integers(0, 2), st.integers(1, 2)
object_lists = st.lists(st.tuples(picture, label_of, corners, st.sampled_from([False] * 7 + [True])), max_size=12)
found_lists = st.lists(st.tuples(picture, label_of, corners, st.sampled_from([0.25, 0.5, 0.75])), max_size=25)


@settings(max_examples=200, deadline=None)
@given(object_lists, found_lists)
def test_equal_to_the_development_kit(objects, found):
    def exclusive(box):
        return (box[0], box[1], box[2] + 1, box[3] + 1)

    truth = annotations([(p, k, exclusive(b), ignored) for p, k, b, ignored in objects], 3)
    result = det_metrics(truth, detections([(p, k, exclusive(b), s) for p, k, b, s in found], 3))
    expected = {name: devkit_ap(objects, found, label) for label, name in enumerate("ab", 1)}
    assert result["per_class"] == pytest.approx(expected)
    known = [value for value in expected.values() if value is not None]
    assert result["mAP"] == (pytest.approx(np.mean(known)) if known else None)


def test_files_are_scored_by_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    year = make_year(tmp_path / "VOC2007", {"x": xml(obj("cat", box(3, 3, 7, 7)))}, {"test": ["x"]})
    (tmp_path / "comp4_det_test_cat.txt").write_text("x 0.9 1 1 11 11\n")  # an IoU of 25 / 121
    main(["--annotations", str(year), "--detections", str(tmp_path), "--metric", "det", "voc12"])
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["AP"] == ["in", "%", "voc12", "det"]
    assert lines["mAP"] == lines["cat"] == ["0.00", "100.00"]
