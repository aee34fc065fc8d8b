"""VOC's average precision: by hand, and against a slow plain reading of the devkit's rules."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data.annotations import Annotations
from detection.evaluate.evaluate import evaluate_detections, format_results
from detection.evaluate.files import read_voc_results, voc_results_file
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


def test_a_class_of_which_nothing_is_found_has_an_ap_of_zero():
    truth = annotations([(0, 1, A, False), (0, 2, B, False)], classes=("a", "b"))
    for metric in ("voc07", "voc12"):
        result = voc_metrics(truth, detections([(0, 1, A, 0.9)]), metric)
        assert result == {"mAP": 50, "per_class": {"a": 100, "b": 0}}


def test_only_difficult_objects_are_found():
    objects = [(0, 1, A, False), (0, 1, B, True)]
    assert ap(objects, [(0, 1, B, 0.9)], "voc07") == ap(objects, [(0, 1, B, 0.9)], "voc12") == 0


def test_scores_are_not_rounded():
    objects = [(0, 1, A, False)]
    found = [(0, 1, FAR, 0.5), (0, 1, A, 0.5 + 1e-12)]
    assert ap(objects, found, "voc12") == 100


def test_equal_scores_are_taken_in_order():
    objects = [(0, 1, A, False)]
    assert ap(objects, [(0, 1, FAR, 0.5), (0, 1, A, 0.5)], "voc12") == 50
    assert ap(objects, [(0, 1, A, 0.5), (0, 1, FAR, 0.5)], "voc12") == 100


def devkit_ap(objects, lines, metric):
    """VOCevaldet.m on one class, a line of its results file at a time, in the devkit's own coordinates.

    Args:
        objects: (picture, xmin, ymin, xmax, ymax, difficult), one-based and inclusive, in the order of the XML files.
        lines: (picture, score, xmin, ymin, xmax, ymax), in the order of the file.
    """
    positives = sum(not difficult for *_, difficult in objects)
    if not positives:
        return None
    found = [False] * len(objects)
    hits, counts = [], []  # after each detection: how many were right, and how many were right or wrong
    right = wrong = 0
    for picture, _, xmin, ymin, xmax, ymax in sorted(lines, key=lambda line: -line[1]):  # a stable sort
        nearest, overlap = None, -1.0
        for k, (owner, gx, gy, gX, gY, _) in enumerate(objects):
            width, height = min(xmax, gX) - max(xmin, gx) + 1, min(ymax, gY) - max(ymin, gy) + 1
            if owner != picture or width <= 0 or height <= 0:
                continue
            union = (xmax - xmin + 1) * (ymax - ymin + 1) + (gX - gx + 1) * (gY - gy + 1) - width * height
            if width * height / union > overlap:
                nearest, overlap = k, width * height / union
        if nearest is None or overlap < 0.5:
            wrong += 1
        elif not objects[nearest][5]:
            right, wrong = (right, wrong + 1) if found[nearest] else (right + 1, wrong)
            found[nearest] = True
        hits.append(right)
        counts.append(right + wrong)
    recall = [Fraction(h, positives) for h in hits]
    precision = [Fraction(h, c) if c else Fraction(0) for h, c in zip(hits, counts, strict=True)]
    if metric == "voc07":
        best = [
            max((p for r, p in zip(recall, precision, strict=True) if r >= Fraction(t, 10)), default=0)
            for t in range(11)
        ]
        return float(100 * sum(best) / 11)
    recall, precision = [Fraction(0), *recall, Fraction(1)], [Fraction(0), *precision, Fraction(0)]
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    return float(100 * sum((recall[k] - recall[k - 1]) * precision[k] for k in range(1, len(recall))))


# Small boxes, whole numbers and halves: many overlaps, equal ones too, and duplicates. Two scores differ only in digits
# that a file rounded to six places would lose.
pixel = st.sampled_from([1, 2, 3, 3.5, 4, 5])
length = st.sampled_from([0, 1, 2, 2.5, 4])
corners = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), pixel, pixel, length, length)
picture, name = st.integers(0, 2), st.sampled_from(["a", "b"])
objects_lists = st.lists(st.tuples(picture, name, corners, st.booleans()), max_size=12)
lines_lists = st.lists(st.tuples(picture, name, corners, st.sampled_from([-3, 0.5, 0.50000001, 0.9])), max_size=25)


@settings(max_examples=120, deadline=None)
@given(objects_lists, lines_lists, st.permutations(range(3)))
def test_equal_to_the_devkit(tmp_path_factory, objects, lines, order):
    """From results files, in whatever order their lines are: equal scores are ranked by it, over all pictures."""
    folder = tmp_path_factory.getbasetemp() / "voc results"
    folder.mkdir(exist_ok=True)
    ids = [f"{k:06d}" for k in order]  # the pictures are not in the order of their ids
    truth = annotations([(p, "ab".index(n) + 1, box, d) for p, n, box, d in objects], 3, ("a", "b"))
    truth = replace(truth, image_ids=ids, boxes=truth.boxes - [1, 1, 0, 0])
    for each in "ab":
        rows = [f"{ids[p]} {score!r} {' '.join(map(repr, box))}\n" for p, n, box, score in lines if n == each]
        voc_results_file(folder, "test", each).write_text("".join(rows))
    table = read_voc_results(folder, "test", truth)
    for metric in ("voc07", "voc12"):
        expected = {
            each: devkit_ap(
                [(p, *box, d) for p, n, box, d in objects if n == each],
                [(p, score, *box) for p, n, box, score in lines if n == each],
                metric,
            )
            for each in "ab"
        }
        result = voc_metrics(truth, table, metric)
        assert result["per_class"] == pytest.approx(expected, abs=1e-9)
        known = [v for v in expected.values() if v is not None]
        assert result["mAP"] == (pytest.approx(np.mean(known), abs=1e-9) if known else None)


def test_equal_scores_go_by_the_lines_of_the_file_not_by_pictures(tmp_path):
    truth = annotations([(0, 1, A, False), (1, 1, A, False)], pictures=2)
    for ids in (["000001", "000000"], ["000000", "000001"]):
        lines = [f"{ids[0]} 0.5 1 1 10 10", f"{ids[1]} 0.5 71 71 80 80", f"{ids[1]} 0.25 1 1 10 10"]
        voc_results_file(tmp_path, "test", "a").write_text("\n".join(lines))
        table = read_voc_results(tmp_path, "test", truth)
        # Right, wrong, right, in whichever picture: precision 1 and 2/3.
        assert voc_metrics(truth, table, "voc12")["mAP"] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


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
