"""VOC's average precision: by hand, and against a slow plain reading of the devkit's rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data.annotations import Annotations
from detection.evaluate.evaluate import evaluate_detections, format_results
from detection.evaluate.voc import voc_metrics
from detection.structures import Detections


def annotations(objects, pictures=1, classes=("a",)):
    """From (picture, label, box, difficult) in any order."""
    return Annotations.from_objects(
        class_names=classes,
        image_ids=[f"{i:06d}" for i in range(pictures)],
        sizes=[[100, 100]] * pictures,
        images=[o[0] for o in objects],
        labels=[o[1] for o in objects],
        boxes=[o[2] for o in objects],
        ignore=[o[3] for o in objects],
    )


def detections(found, pictures=1):
    """From (picture, label, box, score); those of one picture in the order given."""
    per_picture = [[f for f in found if f[0] == i] for i in range(pictures)]
    return [
        Detections(
            boxes=torch.tensor([f[2] for f in fs], dtype=torch.float64).reshape(-1, 4),
            scores=torch.tensor([f[3] for f in fs], dtype=torch.float64),
            labels=torch.tensor([f[1] for f in fs], dtype=torch.int64),
        )
        for fs in per_picture
    ]


A, B, C, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [70, 70, 80, 80]


def ap(objects, found, metric, pictures=1):
    return voc_metrics(annotations(objects, pictures), detections(found, pictures), metric)["mAP"]


def test_by_hand():
    objects = [(0, 1, A, False), (0, 1, B, False)]
    # right, wrong, right: precision 1 at recall 1/2, 2/3 at recall 1.
    found = [(0, 1, A, 0.9), (0, 1, FAR, 0.8), (0, 1, B, 0.7)]
    assert ap(objects, found, "voc12") == pytest.approx(100 * (0.5 * 1 + 0.5 * 2 / 3))
    assert ap(objects, found, "voc07") == pytest.approx(100 * (6 * 1 + 5 * 2 / 3) / 11)
    # only one of two found: recalls 0 to 0.5 have precision 1, the others 0.
    assert ap(objects, found[:1], "voc12") == pytest.approx(50)
    assert ap(objects, found[:1], "voc07") == pytest.approx(100 * 6 / 11)


def test_a_recall_of_three_tenths_reaches_the_point_three_tenths():
    objects = [(i, 1, A, False) for i in range(10)]
    found = [(i, 1, A, 0.5) for i in range(3)]
    assert ap(objects, found, "voc07", pictures=10) == pytest.approx(100 * 4 / 11)


def test_a_second_detection_of_an_object_is_wrong():
    objects = [(0, 1, A, False), (0, 1, B, False)]
    found = [(0, 1, A, 0.9), (0, 1, A, 0.8), (0, 1, B, 0.7)]
    assert ap(objects, found, "voc12") == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_difficult_objects_do_not_count_at_all():
    objects = [(0, 1, A, False), (0, 1, B, True)]
    for found in ([(0, 1, B, 0.9), (0, 1, B, 0.8), (0, 1, A, 0.7)], [(0, 1, A, 0.7)]):
        assert ap(objects, found, "voc12") == 100
        assert ap(objects, found, "voc07") == 100


def test_an_overlap_of_exactly_half_is_enough():
    objects = [(0, 1, A, False)]
    assert ap(objects, [(0, 1, [0, 0, 10, 5], 0.5)], "voc12") == 100
    assert ap(objects, [(0, 1, [0, 0, 10, 4.999], 0.5)], "voc12") == 0


def test_a_detection_is_held_to_the_object_that_it_overlaps_most():
    # It overlaps B by 0.6 and C by 0.55, but B is taken: wrong, though C is free.
    b, c = [0, 0, 10, 10], [0, 1, 10, 20]
    objects = [(0, 1, b, False), (0, 1, c, False)]
    found = [(0, 1, b, 0.9), (0, 1, [0, 0, 10, 14.5], 0.8)]
    outcome = voc_metrics(annotations(objects), detections(found), "voc12", iou_threshold=0.5)
    assert outcome["mAP"] == pytest.approx(50)


def test_classes_without_objects_are_left_out_of_the_mean():
    truth = annotations([(0, 1, A, False), (0, 2, B, False), (0, 3, C, True)], classes=("a", "b", "c", "d"))
    result = voc_metrics(truth, detections([(0, 1, A, 0.9), (0, 3, C, 0.9), (0, 4, C, 0.9)]), "voc07")
    assert result == {"mAP": 50, "per_class": {"a": 100, "b": 0, "c": None, "d": None}}
    nothing = voc_metrics(annotations([]), detections([]), "voc12")
    assert nothing == {"mAP": None, "per_class": {"a": None}}


def test_scores_are_not_rounded():
    objects = [(0, 1, A, False)]
    found = [(0, 1, FAR, 0.5), (0, 1, A, 0.5 + 1e-12)]
    assert ap(objects, found, "voc12") == 100


def test_equal_scores_are_taken_in_order():
    objects = [(0, 1, A, False)]
    assert ap(objects, [(0, 1, FAR, 0.5), (0, 1, A, 0.5)], "voc12") == 50
    assert ap(objects, [(0, 1, A, 0.5), (0, 1, FAR, 0.5)], "voc12") == 100


def slow_ap(objects, found, label, metric):
    """The devkit's VOCevaldet, a line at a time."""
    count = sum(1 for o in objects if o[1] == label and not o[3])
    if not count:
        return None
    taken = set()
    right = wrong = 0
    curve = []
    ordered = sorted(sorted((f for f in found if f[1] == label), key=lambda f: f[0]), key=lambda f: -f[3])
    for picture, _, b, _ in ordered:
        best, best_iou = None, 0.0
        for k, (owner, name, g, _) in enumerate(objects):
            if owner != picture or name != label:
                continue
            w, h = min(b[2], g[2]) - max(b[0], g[0]), min(b[3], g[3]) - max(b[1], g[1])
            if w > 0 and h > 0:
                iou = w * h / ((b[2] - b[0]) * (b[3] - b[1]) + (g[2] - g[0]) * (g[3] - g[1]) - w * h)
                if iou > best_iou:
                    best, best_iou = k, iou
        if best is None or best_iou < 0.5:
            wrong += 1
        elif objects[best][3]:
            continue
        elif best in taken:
            wrong += 1
        else:
            taken.add(best)
            right += 1
        curve.append((right / count, right / (right + wrong)))
    if metric == "voc07":
        return 100 * sum(max([p for r, p in curve if r >= k / 10], default=0) for k in range(11)) / 11
    area, last = 0.0, 0.0
    for k, (recall, _) in enumerate(curve):
        area += (recall - last) * max(p for _, p in curve[k:])
        last = recall
    return 100 * area


corner = st.integers(0, 6)
side = st.integers(1, 6)
boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side)
picture = st.integers(0, 2)
label = st.integers(1, 2)
objects_lists = st.lists(st.tuples(picture, label, boxes, st.booleans()), max_size=12)
found_lists = st.lists(st.tuples(picture, label, boxes, st.sampled_from([0.1, 0.5, 0.5000001, 0.9])), max_size=25)


@settings(max_examples=200, deadline=None)
@given(objects_lists, found_lists)
def test_equal_to_the_plain_reading_of_the_rules(objects, found):
    # Small integer boxes: many overlaps, ties and duplicates.
    truth, given_detections = annotations(objects, 3, ("a", "b")), detections(found, 3)
    for metric in ("voc07", "voc12"):
        result = voc_metrics(truth, given_detections, metric)
        expected = {"a": slow_ap(objects, found, 1, metric), "b": slow_ap(objects, found, 2, metric)}
        assert result["per_class"] == pytest.approx(expected)
        known = [v for v in expected.values() if v is not None]
        assert result["mAP"] == (pytest.approx(np.mean(known)) if known else None)


def test_detections_of_other_pictures_are_refused():
    with pytest.raises(ValueError, match="detections of 2 pictures for annotations of 1"):
        voc_metrics(annotations([]), detections([], pictures=2), "voc07")


def test_results_are_printed_with_dashes_for_what_does_not_exist():
    truth = annotations([(0, 1, A, False)], classes=("a", "an absent class"))
    found = detections([(0, 1, A, 0.9)])
    results = evaluate_detections(truth, found, ["voc12", "coco", "voc07"])
    assert list(results) == ["coco", "voc07", "voc12"]
    lines = [line.split("  ") for line in format_results(results).splitlines()]
    cells = {line[0].strip(): [c.strip() for c in line[1:] if c.strip()] for line in lines if line[0]}
    assert cells["APs"] == ["100.00"]
    assert cells["APl"] == ["-"]
    assert cells["mAP"] == cells["a"] == ["100.00"] * 4 + ["-"] * 2 + ["100.00"] * 2
    assert cells["an absent class"] == ["-"] * 8
    assert lines[-1] == ["no object that counts, so left out of the mean: 1 of 2 classes: an absent class"]
    only = evaluate_detections(truth, found, ["voc07"])
    assert list(only) == ["voc07"]
    assert "voc12" not in format_results(only)
