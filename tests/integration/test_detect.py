"""The command `detect`: pictures with boxes, and what was found as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detector_commands import refusal, save_picture, snapshot, train, write_backbone
from PIL import Image

from backbones.data.shapes import CLASS_NAMES
from backbones.engine.distributed import World
from detection.data.pictures import read_image
from detection.data.shapes import shapes_for_detection
from detection.detect import main as detect_main
from detection.inference.detect import detect_in_dataset
from detection.inference.ensemble import make_ensemble
from detection.inference.options import InferenceOptions
from detection.weights import load_detector


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector after a few steps: it finds much that is not there, and is not sure of it."""
    folder = tmp_path_factory.mktemp("detect")
    train(folder / "run", write_backbone(folder / "resnet18.safetensors", width=4), "--roi.score_threshold", "0.005")
    return folder / "run"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A picture of 64 x 64 with shapes."""
    save_picture(tmp_path / "scene.png", shapes_for_detection("test", 1, 64).load_image(0))
    return tmp_path / "scene.png"


def detect(run: Path, output: Path, *images: Path, score: float = 0.04) -> list[dict[str, Any]]:
    options = ["--model", str(run), "--output", str(output), "--min_score", str(score), "--device", "cpu"]
    detect_main([*options, "--images", *map(str, images)])
    return json.loads((output / "detections.json").read_text())


def test_pictures_with_boxes_and_json(run: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (everything,) = detect(run, tmp_path / "everything", scene, score=0)
    least = everything["objects"][3]["score"]  # four are drawn, and more were found
    (row,) = detect(run, tmp_path / "found", scene, score=least)
    assert row == everything
    assert (row["image"], row["drawn"]) == (str(scene), "scene.png")
    assert row["objects"][0].keys() == {"class", "score", "box"}
    assert {each["class"] for each in row["objects"]} <= set(CLASS_NAMES)
    scores = [each["score"] for each in row["objects"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 4
    assert f"1 picture(s), 4 object(s) with a score of {least:g} or more" in capsys.readouterr().out
    # What the evaluation finds in the same picture.
    ensemble = make_ensemble([load_detector(run)], InferenceOptions())
    found = detect_in_dataset(ensemble, shapes_for_detection("test", 1, 64), world=World(0, 1, torch.device("cpu")))[0]
    assert scores == found.scores.tolist()
    assert [each["box"] for each in row["objects"]] == found.boxes.tolist()
    # The picture has changed where boxes are drawn, and nowhere if no score is high enough.
    original = np.asarray(Image.open(scene))
    assert (np.asarray(Image.open(tmp_path / "found" / "scene.png")) != original).any()
    detect(run, tmp_path / "none", scene, score=1.0)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "none" / "scene.png")), original)


def test_pictures_of_every_kind(run: Path, tmp_path: Path) -> None:
    kinds = {
        "panorama.jpg": ((4000, 60), "RGB"),
        "tower.png": ((30, 2000), "RGB"),
        "line.png": ((500, 1), "RGB"),
        "dot.png": ((1, 1), "RGB"),
        "grey.jpg": ((70, 50), "L"),
        "press.jpg": ((70, 50), "CMYK"),
        "clear.png": ((70, 50), "RGBA"),
        "palette.png": ((70, 50), "P"),
        "scan.png": ((70, 50), "1"),
    }
    (tmp_path / "in").mkdir()
    for name, (size, mode) in kinds.items():
        Image.radial_gradient("L").resize(size).convert("RGB").convert(mode).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture, and not asked for")
    rows = detect(run, tmp_path / "found", tmp_path / "in", score=0.0)
    assert [Path(row["image"]).name for row in rows] == sorted(kinds)
    for row in rows:
        (width, height), _ = kinds[Path(row["image"]).name]
        with Image.open(tmp_path / "found" / row["drawn"]) as drawn:
            assert drawn.size == (width, height)
            assert drawn.mode == "RGB"
        for each in row["objects"]:
            x1, y1, x2, y2 = each["box"]
            assert 0 <= x1 <= x2 <= width * (1 + 1e-6)
            assert 0 <= y1 <= y2 <= height * (1 + 1e-6)
    panorama = max(each["box"][2] for row in rows if "panorama" in row["image"] for each in row["objects"])
    assert panorama > 2000  # in the pixels of the file, not of the 96 that the network sees


def test_pictures_are_turned_upright(run: Path, scene: Path, tmp_path: Path) -> None:
    upright = Image.open(scene).resize((90, 60))
    upright.save(tmp_path / "upright.png")
    tag = Image.Exif()
    tag[0x0112] = 6  # to be shown turned by a quarter, clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=tag)
    rows = detect(run, tmp_path / "found", tmp_path / "turned.png", tmp_path / "upright.png")
    assert rows[0]["objects"] == rows[1]["objects"]
    with Image.open(tmp_path / "found" / "turned.png") as drawn:
        assert drawn.size == (90, 60)
        assert 0x0112 not in drawn.getexif()  # else a viewer would turn it again


def test_folders_inside_folders(run: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    inner = tmp_path / "trip" / "day 1"
    inner.mkdir(parents=True)
    (tmp_path / "trip" / "folder.jpg").mkdir()
    (inner / "scene.PNG").write_bytes(scene.read_bytes())
    options = ["--model", str(run), "--output", str(tmp_path / "found"), "--device", "cpu"]
    options += ["--images", str(tmp_path / "trip")]
    assert "--recursive" in refusal(capsys, detect_main, *options)
    detect_main([*options, "--recursive"])
    (row,) = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert row["image"] == str(inner / "scene.PNG")


def test_bad_pictures_are_named_and_the_others_done(
    run: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cut, text, good = tmp_path / "cut.png", tmp_path / "text.jpg", tmp_path / "good.bmp"
    cut.write_bytes(scene.read_bytes()[:4000])
    text.write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    good.write_bytes(b"")
    Image.open(scene).save(good)
    options = ["--model", str(run), "--output", str(tmp_path / "found"), "--device", "cpu"]
    line = refusal(capsys, detect_main, *options, "--images", str(cut), str(scene), str(text), str(good))
    assert "2 of 4 pictures" in line
    assert str(cut) in line
    assert str(text) in line
    assert str(good) not in line
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert [row["image"] for row in rows] == [str(scene), str(good)]
    assert {p.name for p in (tmp_path / "found").iterdir()} == {"detections.json", "scene.png", "good.png"}


def test_pictures_of_one_name_from_several_folders(run: Path, scene: Path, tmp_path: Path) -> None:
    pictures = []
    for place, folder in enumerate(["a", "b", "c"]):
        (tmp_path / folder).mkdir()
        pictures.append(tmp_path / folder / ("scene.png" if place < 2 else "scene.jpg"))
        image = shapes_for_detection("val", 3, 48 + 8 * place).load_image(place)
        save_picture(pictures[-1], image)
    rows = detect(run, tmp_path / "found", *pictures)
    assert len({row["drawn"] for row in rows}) == 3
    for place, row in enumerate(rows):
        assert row["image"] == str(pictures[place])
        with Image.open(tmp_path / "found" / row["drawn"]) as drawn:
            assert drawn.size == (48 + 8 * place,) * 2


def test_nothing_is_overwritten(run: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    detect(run, tmp_path / "found", scene)
    before = snapshot(tmp_path)
    again = ["--model", str(run), "--device", "cpu", "--images", str(scene), "--output"]
    line = refusal(capsys, detect_main, *again, str(tmp_path / "found"))
    assert str(tmp_path / "found") in line
    assert "--overwrite" in line
    # A picture with boxes would have the name of the picture itself.
    assert str(tmp_path) in refusal(capsys, detect_main, *again, str(tmp_path))
    assert str(tmp_path) in refusal(capsys, detect_main, *again, str(tmp_path), "--overwrite")
    assert snapshot(tmp_path) == before
    detect_main([*again, str(tmp_path / "found"), "--overwrite"])
    (tmp_path / "album").mkdir()
    save_picture(tmp_path / "album" / "scene.png", shapes_for_detection("test", 2, 64).load_image(1))
    assert "album holds results already (scene.png)" in refusal(capsys, detect_main, *again, str(tmp_path / "album"))


def test_who_stops_it_has_what_is_done(run: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = scene.with_name("other.png")
    other.write_bytes(scene.read_bytes())

    def read(path: Path, **options: Any) -> torch.Tensor:
        if path == other:
            raise KeyboardInterrupt
        return read_image(path, **options)

    monkeypatch.setattr("detection.detect.read_image", read)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        detect(run, tmp_path / "found", scene, other)
    (row,) = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert row["drawn"] == "scene.png"


def test_bad_input(run: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    classifier = write_backbone(tmp_path / "classifier.safetensors", width=4)
    (tmp_path / "empty").mkdir()
    cases = [
        (run, [tmp_path / "nothing.jpg"], tmp_path / "found", "nothing.jpg"),
        (run, [scene, tmp_path / "empty"], tmp_path / "found", "empty"),
        (classifier, [scene], tmp_path / "found", "classifier.safetensors"),
        (tmp_path / "nowhere", [scene], tmp_path / "found", "nowhere"),
        (run, [scene], scene, str(scene)),
    ]
    for model, images, output, culprit in cases:
        options = ["--model", str(model), "--output", str(output), "--device", "cpu"]
        assert culprit in refusal(capsys, detect_main, *options, "--images", *map(str, images))
    assert not (tmp_path / "found").exists()
