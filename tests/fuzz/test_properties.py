"""Documents, valid and nearly so: read as a plain reading has it, or refused by an error that names the file."""

# ruff: noqa: PT017 (whether a document is refused is what is found out here)

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbones.cli import read_options
from backbones.config import PretrainConfig
from backbones.errors import ConfigError, DataError
from detection.data.annotations import DetectionDataset
from detection.data.coco import read_coco
from detection.data.voc import read_voc
from detection.evaluate.files import ONE_BASED, read_coco_results, read_voc_results

from .seeds import HEIGHT, WIDTH, annotations, coco, picture
from .strategies import (
    coco_documents,
    coco_results,
    file_stems,
    json_bytes,
    nearly,
    scores,
    voc_documents,
)

few = settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def make_year(folder: Path, xml: bytes) -> Path:
    for place, content in (
        ("Annotations/a.xml", xml),
        ("JPEGImages/a.jpg", picture()),
        ("ImageSets/Main/test.txt", b"a\n"),
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    return folder


def check_invariants(dataset: DetectionDataset, bad_boxes: str) -> None:
    found = dataset.annotations
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.areas).all()
    assert len(set(found.image_ids)) == len(found) == len(dataset)
    if bad_boxes != "keep":
        sides = found.sizes[found.images][:, [1, 0, 1, 0]]
        outside = 0 if bad_boxes == "repair" else 1
        assert (found.boxes >= -outside).all()
        assert (found.boxes <= sides + outside).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    for index in range(len(dataset)):
        target = dataset.target(index)
        assert target.boxes.isfinite().all()


@few
@given(document=coco_documents())
def test_a_valid_coco_file_is_read_as_a_plain_reading_has_it(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "valid.json"
    file.write_bytes(json_bytes(document))
    found = read_coco(None, file).annotations
    objects = document["annotations"]
    assert found.image_ids == [image["id"] for image in document["images"]]
    assert sorted(zip(found.category_ids, found.class_names, strict=True)) == sorted(
        (category["id"], category["name"]) for category in document["categories"]
    )
    for index, image in enumerate(document["images"]):
        mine = [o for o in objects if o["image_id"] == image["id"]]
        rows = slice(found.offsets[index], found.offsets[index + 1])
        x, y, w, h = np.array([o["bbox"] for o in mine]).reshape(-1, 4).T
        assert (found.boxes[rows] == np.stack([x, y, x + w, y + h], axis=1)).all()
        assert [found.category_ids[k - 1] for k in found.labels[rows]] == [o["category_id"] for o in mine]
        assert found.ignore[rows].tolist() == [bool(o.get("iscrowd", 0)) for o in mine]


@few
@given(document=nearly(coco_documents()), bad_boxes=st.sampled_from(["keep", "error", "repair"]))
def test_a_nearly_valid_coco_file_is_read_or_refused(
    document: Any, bad_boxes: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "nearly.json"
    file.write_bytes(json_bytes(document))
    try:
        dataset = read_coco(None, file, bad_boxes=bad_boxes)
    except DataError as error:
        assert "nearly.json" in str(error)
        return
    check_invariants(dataset, bad_boxes)
    assert len(dataset) == len(document["images"])
    assert len(dataset.annotations.labels) + dataset.dropped == len(document["annotations"])


@few
@given(data=st.data())
def test_a_coco_results_file_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    document = data.draw(coco_documents())
    (folder / "truth.json").write_bytes(json_bytes(document))
    truth = read_coco(None, folder / "truth.json").annotations
    valid = data.draw(coco_results(document))
    given_results = data.draw(st.just(valid) | nearly(st.just(valid)))
    (folder / "found.json").write_bytes(json_bytes(given_results))
    try:
        table = read_coco_results(folder / "found.json", truth)
    except DataError as error:
        assert given_results is not valid
        assert "found.json" in str(error)
        return
    assert len(table) == len(given_results)
    assert np.isfinite(table.boxes).all()
    assert table.scores.tolist() == [float(entry["score"]) for entry in given_results]
    assert [truth.image_ids[i] for i in table.images] == [entry["image_id"] for entry in given_results]


@few
@given(data=st.data())
def test_a_voc_annotation_is_read_as_a_plain_reading_has_it_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    document = data.draw(voc_documents(WIDTH, HEIGHT))
    bad_boxes: Any = data.draw(st.sampled_from(["keep", "error", "repair"]))
    changed = data.draw(st.booleans())
    if changed:
        rows = data.draw(nearly(st.just([[document.size[0], *corners] for _, corners, _ in document.objects])))
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 5 for row in rows):
            return
        texts = [[str(value).replace("\0", "") for value in row[1:]] for row in rows]
        document.objects = [(f"c{i}", row, "0") for i, row in enumerate(texts)]
    year = make_year(tmp_path_factory.getbasetemp() / "year", document.encode())
    try:
        dataset = read_voc(year, "test", bad_boxes=bad_boxes)
    except DataError as error:
        assert changed
        assert "a.xml" in str(error) or "no objects in split" in str(error)
        return
    check_invariants(dataset, bad_boxes)
    found = dataset.annotations
    assert len(found.labels) + dataset.dropped == len(document.objects)
    if not changed:
        assert Counter(found.class_names[k - 1] for k in found.labels) == Counter(n for n, _, _ in document.objects)
        plain = [[float(c) for c in corners] for _, corners, _ in document.objects]
        np.testing.assert_allclose(found.boxes + ONE_BASED, plain, atol=1 if bad_boxes == "repair" else 1e-9)


@few
@given(data=st.data())
def test_a_file_of_voc_results_is_read_as_a_plain_reading_has_it_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    truth = read_voc(make_year(folder / "results_year", annotations()[0]), "test", ["cat"]).annotations
    numbers = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, 1e300, 10**400])
    rows = data.draw(st.lists(st.tuples(st.just("a") | file_stems, scores, *[numbers] * 4), max_size=4))
    (folder / "comp4_det_test_cat.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    good = all(
        row[0] == "a"
        and all(abs(value) <= 1e9 for value in row[1:])
        and row[4] - row[2] + 1 >= -1e-9
        and row[5] - row[3] + 1 >= -1e-9
        for row in rows
    )
    try:
        table = read_voc_results(folder, "test", truth)
    except DataError as error:
        assert not good
        assert "comp4_det_test_cat.txt" in str(error)
        return
    assert good
    corners = np.array([row[2:] for row in rows]).reshape(-1, 4)
    np.testing.assert_allclose(table.boxes + ONE_BASED, corners, rtol=0, atol=1e-9)
    assert table.scores.tolist() == [row[1] for row in rows]


CONFIG = {"seed": 3, "model": {"name": "resnet50", "options": {"width": 8}}, "train": {"steps": 5, "batch_size": 4}}
CONFIG |= {"data": {"name": "shapes", "scale_range": [256, 480], "mean": [1.0, 2.0, 3.0]}, "optimizer": {"lr": 0.5}}


@settings(few, max_examples=15)
@given(document=nearly(st.just(CONFIG)))
def test_a_config_is_read_as_it_is_or_refused(document: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "nearly.yaml"
    try:
        file.write_text(yaml.safe_dump(document, allow_unicode=True), errors="surrogatepass")
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    try:
        config = read_options(PretrainConfig, argv=["--config", str(file)])
    except ConfigError:
        return
    if isinstance(document.get("train"), dict) and isinstance(document["train"].get("steps"), int):
        assert config.train.steps == document["train"]["steps"]
    assert isinstance(config.optimizer.lr, float)
    assert isinstance(config.seed, int)


HUGE = "9" * 100_000
DOCUMENT = coco()[0].decode()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[" * 10_000 + b"]" * 10_000, "nested too deep"),
        (DOCUMENT.replace('"info": {}', f'"info": {"[" * 10_000}{"]" * 10_000}').encode(), "nested too deep"),
        (DOCUMENT.replace('"id": 1,', f'"id": {HUGE},', 1).encode(), "not a JSON file that can be read"),
        (
            DOCUMENT.replace('"id": 1,', f'"id": {2**64},', 1).encode(),
            "not a whole number or a string of at most 64 bits",
        ),
        (DOCUMENT.replace('"id": 1,', '"id": 1.0,', 1).encode(), "'id' is 1.0, not a whole number"),
        (DOCUMENT.replace('"id": 2,', '"id": 1,', 1).encode(), "image id 1 occurs twice"),
        (DOCUMENT.replace('"dog"', '"cat"').encode(), "category name cat occurs twice"),
        (DOCUMENT.replace("[1, 2, 5, 6]", "[NaN, 2, 5, 6]").encode(), "not finite numbers"),
        (DOCUMENT.replace("[1, 2, 5, 6]", "[1, 2, 1e999, 6]").encode(), "not finite numbers"),
        (DOCUMENT.replace("[1, 2, 5, 6]", "[1, 2, 1e308, 6]").encode(), "reaches further than"),
        (DOCUMENT.encode("utf-16"), "not a JSON file that can be read"),
        (b"\xef\xbb\xbf" + DOCUMENT.encode(), "not a JSON file that can be read"),
        (DOCUMENT.encode() + b"\0", "not a JSON file that can be read"),
        (b"", "not a JSON file that can be read"),
    ],
)
def test_hostile_json_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    file = tmp_path / "hostile.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"hostile\.json.*{named}"):
        read_coco(None, file, bad_boxes="keep")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "a/../../b.jpg", "..", "", "a\\..\\b.jpg", "a\0.jpg", "\ud800.jpg", "x" * 5000],
)
def test_a_picture_outside_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "hostile.json"
    document = json.loads(DOCUMENT)
    document["images"][0]["file_name"] = name
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"hostile\.json: image 1"):
        read_coco(tmp_path, file)
