"""Bad input to `train_detector`: one line that names the culprit, and nothing lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from detector_commands import SMALL, record, refusal, snapshot, train, write_backbone, write_coco, write_voc

from backbones.weights import load_weights, save_weights
from detection.data.shapes import shapes_for_detection
from detection.train import main as train_main

VGG = ("--backbone.name", "vgg16")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("resnet") / "resnet18.safetensors", width=4)


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["--data.name", "voc"], ["data.root"]),
        (["--data.name", "coco"], ["data.root"]),
        (["--data.name", "voc", "--data.root", "/nowhere"], ["/nowhere"]),
        (["--data.name", "coco", "--data.root", "/nowhere"], ["/nowhere"]),
        (["--data.train_split", "trainval"], ["trainval"]),
        (["--data.test_split", "nothing"], ["nothing"]),
        (["--data.shorter_side", "0"], ["data.shorter_side 0"]),
        (["--data.longest_side", "50"], ["data.longest_side 50", "data.shorter_side"]),
        (["--data.train_size", "0"], ["data.train_size 0"]),
        (["--backbone.weights", "/nowhere/run"], ["/nowhere/run"]),
        (["--backbone.name", "resnet34"], ["resnet34", "resnet18.safetensors"]),
        (["--backbone.options", "{width: 16}"], ["width 16", "resnet18.safetensors"]),
        # The file says nothing of this option, which leaves its default.
        (["--backbone.options", "{shortcut: C}"], ["shortcut C", "resnet18.safetensors"]),
        (["--backbone.options", "{depth: 3}"], ["depth"]),
        (["--backbone.weights", "null"], ["backbone.weights"]),
        (["--backbone.weights", "null", "--backbone.norm", "batch"], ["backbone.weights"]),  # conv1 would stay random
        (["--backbone.weights", "null", "--backbone.freeze_stages", "[]"], ["backbone.weights"]),
        (["--backbone.weights", "null", "--backbone.name", "null"], ["backbone.weights", "backbone.name"]),
        (["--backbone.freeze_stages", "[conv9]"], ["conv9"]),
        (["--backbone.norm", "none"], ["backbone.norm"]),
        (["--anchors.scales", "[]"], ["anchor_scales"]),
        (["--anchors.scales", "[-3]"], ["anchor_scales"]),
        (["--rpn.channels", "0"], ["rpn.channels"]),
        (["--roi.background_iou_low", "0.9"], ["roi.background_iou_low"]),
        (["--train.batch_size", "3", "--train.accumulate", "2"], ["train.batch_size"]),
        (["--train.stepz", "3"], ["stepz"]),
        (["--train.capture", "true"], ["train.capture", "detectors"]),
        (["--schedule.warmup", "error", "--schedule.warmup_steps", "0"], ["schedule.warmup error"]),
        (["--device", "tpu"], ["device"]),
        (["--output", "/dev/null"], ["/dev/null"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_options(
    arguments: list[str], culprits: list[str], resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = [*SMALL, "--backbone.weights", str(resnet), "--output", str(tmp_path / "run"), *arguments]
    line = refusal(capsys, train_main, *options)
    for culprit in culprits:
        assert culprit in line
    assert not (tmp_path / "run").exists()


def test_vgg_fixes_the_pool_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    vgg = write_backbone(tmp_path / "vgg16.safetensors", "vgg16", width=4)
    options = [*SMALL, "--backbone.weights", str(vgg), "--output", str(tmp_path / "run"), "--roi.pool_size", "14", *VGG]
    line = refusal(capsys, train_main, *options)
    assert "roi.pool_size" in line
    assert "7" in line


def test_weights_that_can_not_be_a_backbone(resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state, metadata = load_weights(write_backbone(tmp_path / "good.safetensors", width=4))
    whole = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    save_weights(tmp_path / "lacking.safetensors", {n: t for n, t in state.items() if n != "conv1.weight"}, metadata)
    metadata.architecture = "resnet34"
    save_weights(tmp_path / "liar.safetensors", state, metadata)
    write_backbone(tmp_path / "cifar.safetensors", "cifar_resnet8")
    bad = {
        "truncated.safetensors": "safetensors file",
        "lacking.safetensors": "conv1.weight",
        "liar.safetensors": "lacks",
        "cifar.safetensors": "cifar_resnet8",
    }
    for name, reason in bad.items():
        start = ["--backbone.weights", str(tmp_path / name), "--backbone.name", "null", "--backbone.options", "{}"]
        line = refusal(capsys, train_main, *SMALL, *start, "--output", str(tmp_path / "run"))
        assert reason in line
        assert name in line or name == "cifar.safetensors"
    train(tmp_path / "detector", resnet, "--train.steps", "1")
    start = ["--backbone.weights", str(tmp_path / "detector")]
    line = refusal(capsys, train_main, *SMALL, *start, "--output", str(tmp_path / "run"))
    assert start[1] in line
    assert "detection" in line


def test_an_output_in_use_is_kept(resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    train(run, resnet, "--train.steps", "2")
    before = snapshot(run)
    options = [*SMALL, "--backbone.weights", str(resnet), "--train.steps", "2", "--output", str(run)]
    assert str(run) in refusal(capsys, train_main, *options)
    assert "optimizer.lr" in refusal(capsys, train_main, *options, "--resume", "--optimizer.lr", "0.3")
    nowhere = ["--data.name", "voc", "--data.root", "/nowhere"]
    assert "/nowhere" in refusal(capsys, train_main, *options, "--overwrite", *nowhere)
    assert snapshot(run) == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_mum.txt").write_text("Hello")
    options = [*SMALL, "--backbone.weights", str(resnet), "--output", str(tmp_path / "letters"), "--overwrite"]
    assert "letters" in refusal(capsys, train_main, *options)
    assert [p.name for p in (tmp_path / "letters").iterdir()] == ["to_mum.txt"]


def test_bad_voc_data(resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    year = tmp_path / "VOC2007"
    write_voc(year, "trainval", shapes_for_detection("train", 12, 64))
    write_voc(year, "test", shapes_for_detection("val", 12, 64))
    options = [*SMALL, "--backbone.weights", str(resnet), "--output", str(tmp_path / "run"), "--data.name", "voc"]
    options += ["--data.root", str(tmp_path), "--data.train_split", "trainval", "--data.test_split", "test"]
    test_xml = next(p for p in sorted((year / "Annotations").glob("test_*.xml")) if "<name>" in p.read_text())
    train_xml = next(p for p in sorted((year / "Annotations").glob("trainval_*.xml")) if "<name>" in p.read_text())
    good = train_xml.read_text()

    assert "holidays" in refusal(capsys, train_main, *options, "--data.train_split", "holidays")

    text = test_xml.read_text()
    test_xml.write_text(text.replace("<name>", "<name>un", 1))
    line = refusal(capsys, train_main, *options)
    assert test_xml.name in line
    assert "class 'un" in line
    test_xml.write_text(text)

    for corner, value, problem in (("xmax", "900", "outside"), ("xmax", "1", "no area"), ("ymin", "much", "ymin")):
        start, end = good.index(f"<{corner}>"), good.index(f"</{corner}>")
        train_xml.write_text(f"{good[:start]}<{corner}>{value}{good[end:]}")
        line = refusal(capsys, train_main, *options)
        assert train_xml.name in line
        assert problem in line
        if corner == "xmax":
            assert "--data.bad_boxes repair" in line
    train_xml.write_text(good[:-20])
    assert train_xml.name in refusal(capsys, train_main, *options)
    train_xml.write_text(good)

    picture = year / "JPEGImages" / f"{train_xml.stem}.jpg"
    picture.rename(tmp_path / "away.jpg")
    line = refusal(capsys, train_main, *options)
    assert picture.name in line
    assert train_xml.name in line
    assert not (tmp_path / "run").exists()


def test_bad_coco_data(resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_coco(tmp_path, "train2017", shapes_for_detection("train", 6, 64))
    file = write_coco(tmp_path, "val2017", shapes_for_detection("val", 6, 64))
    options = [*SMALL, "--backbone.weights", str(resnet), "--output", str(tmp_path / "run"), "--data.name", "coco"]
    options += ["--data.root", str(tmp_path), "--data.train_split", "train2017", "--data.test_split", "val2017"]
    good = json.loads(file.read_text())

    def refused(change: dict[str, Any]) -> str:
        data = json.loads(json.dumps(good))
        data["annotations"][0] |= change
        file.write_text(json.dumps(data))
        line = refusal(capsys, train_main, *options)
        assert str(file) in line
        return line

    assert "99" in refused({"category_id": 99})
    assert "4711" in refused({"image_id": 4711})
    assert "repair" in refused({"bbox": [60, 10, 30, 30]})
    assert "repair" in refused({"bbox": [10, 10, 0, 30]})
    good["images"] = good["annotations"] = []
    file.write_text(json.dumps(good))
    assert "val2017" in refusal(capsys, train_main, *options)
    file.write_text(file.read_text()[:-10])
    assert str(file) in refusal(capsys, train_main, *options)
    file.unlink()
    assert str(file) in refusal(capsys, train_main, *options)
    assert not (tmp_path / "run").exists()


def test_a_corrupt_picture_is_named_and_the_run_says_failed(
    resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_voc(tmp_path / "VOC2007", "trainval", shapes_for_detection("train", 4, 64))
    picture = tmp_path / "VOC2007" / "JPEGImages" / "trainval_2.jpg"
    picture.write_bytes(picture.read_bytes()[:700])
    root = ["--data.name", "voc", "--data.root", str(tmp_path)]
    root += ["--data.train_split", "trainval", "--data.test_split", "trainval"]
    for workers in ("0", "1"):
        options = [*SMALL, *root, "--backbone.weights", str(resnet), "--output", str(tmp_path / f"run{workers}")]
        with pytest.raises(SystemExit) as exit_info:
            train_main([*options, "--train.workers", workers])
        line = capsys.readouterr().err.splitlines()[-1]
        assert exit_info.value.code == 2
        assert line.startswith(f"error: {picture}: ")
        assert record(tmp_path / f"run{workers}")["status"] == "failed"
