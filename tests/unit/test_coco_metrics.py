"""COCO's numbers: the same as pycocotools'."""

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.data.annotations import Annotations
from detection.data.coco import read_coco_split
from detection.evaluate.coco import COCO_METRICS, coco_metrics
from detection.evaluate.files import read_coco_results, write_coco_results
from detection.structures import Detections


def pycocotools_numbers(truth: COCO, results: list, names: dict[int, str]) -> dict:
    """The twelve numbers in percent, and the six of each class by their means over `precision`; None for -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        if results:
            found = truth.loadRes(results)
        else:  # loadRes fails on an empty list
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = {n: None if v == -1 else 100 * v for n, v in zip(COCO_METRICS, evaluation.stats, strict=True)}
    precision = evaluation.eval["precision"][..., -1]  # thresholds, recalls, classes, areas; of 100 detections
    per_class = {
        names[category]: {
            "AP": mean_of_known(precision[:, :, k, 0]),
            "AP50": mean_of_known(precision[0, :, k, 0]),
            "AP75": mean_of_known(precision[5, :, k, 0]),
            "APs": mean_of_known(precision[:, :, k, 1]),
            "APm": mean_of_known(precision[:, :, k, 2]),
            "APl": mean_of_known(precision[:, :, k, 3]),
        }
        for k, category in enumerate(evaluation.params.catIds)
    }
    return numbers | {"per_class": per_class}


def mean_of_known(values: np.ndarray) -> float | None:
    return 100 * float(values[values > -1].mean()) if (values > -1).any() else None


def ground_truth(annotations: Annotations) -> COCO:
    rows = zip(
        annotations.images.tolist(),
        annotations.labels.tolist(),
        annotations.boxes.tolist(),
        annotations.ignore.tolist(),
        annotations.areas.tolist(),
        strict=True,
    )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in annotations.image_ids],
        "categories": [{"id": i} for i in annotations.category_ids],
        "annotations": [
            {
                "id": k,
                "image_id": annotations.image_ids[image],
                "category_id": annotations.category_ids[label - 1],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": int(ignore),
                "area": area,
            }
            for k, (image, label, (x1, y1, x2, y2), ignore, area) in enumerate(rows, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def reference(annotations: Annotations, detections: list[Detections]) -> dict:
    results = [
        {
            "image_id": image_id,
            "category_id": annotations.category_ids[label - 1],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image_id, d in zip(annotations.image_ids, detections, strict=True)
        for label, (x1, y1, x2, y2), score in zip(
            d.labels.tolist(), d.boxes.double().tolist(), d.scores.tolist(), strict=True
        )
    ]
    names = dict(zip(annotations.category_ids, annotations.class_names, strict=True))
    return pycocotools_numbers(ground_truth(annotations), results, names)


def assert_same(ours: dict, theirs: dict) -> None:
    assert list(ours) == [*COCO_METRICS, "per_class"]
    ours, theirs = flat(ours), flat(theirs)
    assert ours.keys() == theirs.keys()
    assert {n for n, v in ours.items() if v is None} == {n for n, v in theirs.items() if v is None}
    for name, value in theirs.items():
        if value is not None:
            assert abs(ours[name] - value) < 1e-7, name  # percent: 1e-9 of the fraction


def flat(numbers: dict) -> dict:
    """{"AP": ..., "cat AP": ...}"""
    classes = numbers["per_class"].items()
    per_class = {f"{name} {metric}": value for name, values in classes for metric, value in values.items()}
    return {metric: numbers[metric] for metric in COCO_METRICS} | per_class


def random_case(seed, pictures=12, classes=3, objects=8, found=30, crowds=0.15, side=150, scores=None):
    """Objects of all sizes in random pictures, ids in no order; detections near objects and elsewhere."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, objects + 1, pictures)
    images = np.repeat(np.arange(pictures), count)
    corners = rng.uniform(0, 200, (len(images), 2))
    boxes = np.concatenate([corners, corners + side * rng.random((len(images), 2)) ** 2 + 1], axis=1)
    labels = rng.integers(1, classes + 1, len(images))
    annotations = Annotations.from_objects(
        class_names=[f"c{k}" for k in range(classes)],
        category_ids=rng.permutation(100)[:classes].tolist(),
        image_ids=rng.permutation(1000)[:pictures].tolist(),
        sizes=[[400, 400]] * pictures,
        images=images,
        boxes=boxes,
        labels=labels,
        ignore=rng.random(len(images)) < crowds,
        areas=rng.uniform(0.4, 1, len(images)) * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )
    detections = []
    for i in range(pictures):
        n = int(rng.integers(0, found + 1)) if i else 0  # the first picture has none
        near = rng.integers(0, len(images), n)
        mine = np.flatnonzero(images == i)
        near = np.where(rng.random(n) < 0.9, rng.choice(mine, n) if len(mine) else near, near)
        jitter = rng.normal(0, 4, (n, 4)) * (rng.random((n, 1)) < 0.8)
        b = boxes[near] + jitter
        b[:, 2:] = np.maximum(b[:, 2:], b[:, :2] + 0.5)
        s = rng.random(n) if scores is None else rng.choice(scores, n)
        order = np.argsort(-s, kind="stable")
        detections.append(
            Detections(
                torch.from_numpy(b[order]).float(),
                torch.from_numpy(s[order]).float(),
                torch.from_numpy(np.where(rng.random(n) < 0.9, labels[near], 1)[order]),
            )
        )
    return annotations, detections


@pytest.mark.parametrize("seed", range(6))
def test_random_detections(seed):
    annotations, detections = random_case(seed)
    theirs = reference(annotations, detections)
    assert 0 < theirs["AP"] < 100  # a case that says something
    assert_same(coco_metrics(annotations, detections), theirs)


def test_a_class_without_objects_one_of_crowds_and_one_without_detections():
    annotations, detections = random_case(16, classes=5, pictures=20)
    annotations.ignore |= annotations.labels == 4
    for d in detections:
        d.labels[d.labels == 3] = 5  # of which there are no objects
    keep = annotations.labels != 5
    offsets = np.searchsorted(annotations.images[keep], np.arange(21))
    annotations = replace(
        annotations,
        offsets=offsets,
        **{n: getattr(annotations, n)[keep] for n in ("boxes", "labels", "ignore", "areas")},
    )
    ours = coco_metrics(annotations, detections)
    assert_same(ours, reference(annotations, detections))
    assert set(ours["per_class"]["c4"].values()) == set(ours["per_class"]["c3"].values()) == {None}
    assert ours["per_class"]["c2"]["AP"] == 0 < ours["per_class"]["c0"]["AP"]
    known = [values["AP"] for values in ours["per_class"].values() if values["AP"] is not None]
    assert ours["AP"] == pytest.approx(np.mean(known), abs=1e-9)


def test_ids_of_pictures_may_be_strings():
    """Equal scores go by the order of ids, so strings in the order of numbers give the numbers' results."""
    annotations, detections = random_case(17, scores=[0.25, 0.5, 0.75])
    strings = replace(annotations, image_ids=[f"{i:06d}" for i in annotations.image_ids])
    theirs = reference(annotations, detections)
    assert_same(coco_metrics(strings, detections), theirs)
    backwards = replace(annotations, image_ids=[f"{1000 - i:06d}" for i in annotations.image_ids])
    assert coco_metrics(backwards, detections)["AP"] != pytest.approx(theirs["AP"], abs=1e-6)


def test_equal_scores():
    annotations, detections = random_case(11, scores=[0.25, 0.5, 0.75])
    assert_same(coco_metrics(annotations, detections), reference(annotations, detections))


def test_lines_of_a_results_file_in_any_order(tmp_path):
    """Equal scores of one picture go by the file, of several by the pictures' ids: as pycocotools has it."""
    annotations, detections = random_case(18, scores=[0.25, 0.5, 0.75], crowds=0)
    names = dict(zip(annotations.category_ids, annotations.class_names, strict=True))
    write_coco_results(tmp_path / "r.json", annotations, detections)
    entries = json.loads((tmp_path / "r.json").read_text())
    found = []
    for seed in range(3):
        np.random.default_rng(seed).shuffle(entries)
        (tmp_path / "r.json").write_text(json.dumps(entries))
        truth = ground_truth(annotations)
        found.append(coco_metrics(annotations, read_coco_results(tmp_path / "r.json", annotations)))
        assert_same(found[-1], pycocotools_numbers(truth, json.loads(json.dumps(entries)), names))
    assert found[0]["AP"] != pytest.approx(found[1]["AP"], abs=1e-6)  # the order does matter


def test_crowds_only_and_many_of_them():
    for crowds in (0.6, 1.0):
        annotations, detections = random_case(12, crowds=crowds)
        assert_same(coco_metrics(annotations, detections), reference(annotations, detections))


def test_more_than_a_hundred_detections_of_a_class():
    annotations, detections = random_case(13, pictures=4, classes=1, found=400, objects=40)
    assert max(map(len, detections)) > 200
    assert_same(coco_metrics(annotations, detections), reference(annotations, detections))


def no_detections(pictures: int) -> list[Detections]:
    return [Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))] * pictures


def test_no_detections():
    annotations, _ = random_case(14)
    ours = coco_metrics(annotations, no_detections(len(annotations)))
    assert_same(ours, reference(annotations, no_detections(len(annotations))))
    assert ours["AP"] == 0


@pytest.mark.parametrize("pictures", [0, 2])
def test_no_objects(pictures):
    annotations = Annotations.from_objects(
        class_names=["a"], image_ids=range(pictures), sizes=[[9, 9]] * pictures, images=[], boxes=[], labels=[]
    )
    assert set(flat(coco_metrics(annotations, no_detections(pictures))).values()) == {None}


def test_a_number_that_does_not_exist_is_none():
    annotations, detections = random_case(15, side=20)  # nothing larger than 21 x 21
    ours = coco_metrics(annotations, detections)
    assert ours["APl"] is None
    assert ours["ARm"] is None
    assert ours["APs"] is not None


corner = st.integers(0, 60)
side = st.sampled_from([1, 2, 30, 32, 40, 96, 100])
box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2), box, st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2), box, st.sampled_from([0.25, 0.5])), max_size=12),
)
def test_ties_of_overlap_score_and_area(objects, found):
    annotations = Annotations.from_objects(
        class_names=["a", "b"],
        image_ids=[7, 3],
        sizes=[[200, 200]] * 2,
        images=[o[0] for o in objects],
        labels=[o[1] for o in objects],
        boxes=[o[2] for o in objects],
        ignore=[o[3] for o in objects],
    )
    detections = []
    for i in range(2):
        mine = sorted((f for f in found if f[0] == i), key=lambda f: -f[3])
        boxes = torch.tensor([f[2] for f in mine], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([f[1] for f in mine], dtype=torch.int64)
        detections.append(Detections(boxes, torch.tensor([f[3] for f in mine]), labels))
    assert_same(coco_metrics(annotations, detections), reference(annotations, detections))


@pytest.mark.parametrize("swap", [False, True])
def test_of_two_objects_equally_near_the_last_is_taken(swap):
    # The first detection overlaps both alike; the second is on the left one, which may be taken by then.
    left, right = [0, 0, 10, 10], [4, 0, 14, 10]
    annotations = Annotations.from_objects(
        class_names=["a"],
        image_ids=[1],
        sizes=[[20, 20]],
        images=[0, 0],
        boxes=[right, left] if swap else [left, right],
        labels=[1, 1],
    )
    boxes = torch.tensor([[2, 0, 12, 10], left], dtype=torch.float32)
    detections = [Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 1]))]
    ours = coco_metrics(annotations, detections)
    assert_same(ours, reference(annotations, detections))
    assert (ours["AP50"] == 100) is not swap


def perfect(annotations: Annotations) -> list[Detections]:
    """The objects themselves, crowds left out."""
    targets = [annotations.target(i) for i in range(len(annotations))]
    return [Detections(t.boxes[~t.ignore], torch.ones(int((~t.ignore).sum())), t.labels[~t.ignore]) for t in targets]


@pytest.mark.data
def test_real_annotations(data_pack, tmp_path):
    """From COCO's files to the numbers, pycocotools reading the annotation file and our results file itself."""
    root = data_pack("coco_subset")
    annotations = read_coco_split(root, "val2017").annotations
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations/instances_val2017.json"))
    names = dict(zip(annotations.category_ids, annotations.class_names, strict=True))
    rng = np.random.default_rng(0)
    found = perfect(annotations)
    for d in found[:150]:
        scale = (d.boxes[:, 2:] - d.boxes[:, :2]).repeat(1, 2)
        d.boxes += scale * torch.from_numpy(rng.normal(0, 0.08, d.boxes.shape)).float()
        d.boxes[:, 2:] = d.boxes[:, 2:].maximum(d.boxes[:, :2] + 1)
        d.scores = torch.from_numpy(np.sort(rng.random(len(d)))[::-1].copy()).float()
        swap = torch.from_numpy(rng.random(len(d)) < 0.2)
        d.labels = torch.where(swap, torch.from_numpy(rng.integers(1, 81, len(d))), d.labels)
    for detections in (perfect(annotations), found):
        write_coco_results(tmp_path / "results.json", annotations, detections)
        theirs = pycocotools_numbers(truth, json.loads((tmp_path / "results.json").read_text()), names)
        ours = coco_metrics(annotations, detections)
        assert_same(ours, theirs)
        if detections is not found:
            assert ours["AP"] == pytest.approx(100)
            assert theirs["AP"] == pytest.approx(100)
        else:
            assert 20 < ours["AP"] < 90
