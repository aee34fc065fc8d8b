"""The commands `train_localiser` and `evaluate_localiser` from start to end, on a few small pictures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detector_commands import ROOT, record, refusal, save_picture, train, write_backbone
from PIL import Image

from backbones.data.shapes import CLASS_NAMES
from backbones.weights import load_weights, save_weights
from detection.localisation.evaluate import main as evaluate_main
from detection.localisation.train import main as train_main
from detection.localisation.weights import load_localiser, load_regions
from detection.test import main as evaluate_detector_main

SMALL = [
    *("--config", str(ROOT / "configs/localisation/pasted_resnet18_w16.yaml"), "--backbone.options", "{width: 4}"),
    *("--data.crop_size", "32", "--data.scale_range", "[36, 44]", "--data.test_resize", "36", "--precision", "fp32"),
    *("--anchors.scales", "[12, 24]", "--rpn.channels", "8", "--schedule.warmup_steps", "1", "--device", "cpu"),
    *("--train.steps", "4", "--train.batch_size", "4", "--train.checkpoint_every", "2", "--train.log_every", "2"),
]
PART_RCNN = ["--part", "rcnn", "--regions.proposals", "5", "--regions.size", "32"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "resnet18.safetensors", width=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLS-LOC's layout: dark pictures with a light rectangle, whose brightness is its class."""
    return write_cls_loc(tmp_path_factory.mktemp("data") / "ILSVRC")


@pytest.fixture(scope="module")
def rpn(backbone: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the part "rpn"."""
    output = tmp_path_factory.mktemp("rpn") / "run"
    run(output, backbone, data, "--protocol", "center", "dense", "--train.evaluate_every", "2")
    return output


@pytest.fixture(scope="module")
def rcnn(backbone: Path, data: Path, rpn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the part "rcnn"."""
    output = tmp_path_factory.mktemp("rcnn") / "run"
    run(output, backbone, data, *PART_RCNN, "--proposals_from", str(rpn))
    return output


def write_cls_loc(root: Path, classes: list[str] = CLASS_NAMES, *, count: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for split, prefix in (("train", ""), ("val", "ILSVRC2012_val_")):
        for number in range(count * len(classes)):
            name = classes[number % len(classes)]
            width, height = rng.integers(14, 30, 2)
            left, top = int(rng.integers(0, 60 - width)), int(rng.integers(0, 48 - height))
            image = torch.from_numpy(rng.integers(0, 30, (3, 48, 60), dtype=np.uint8))
            image[:, top : top + height, left : left + width] += 60 + 30 * (number % len(classes))
            stem = f"{name}/{name}_{number}" if split == "train" else f"{prefix}{number:08d}"
            picture, xml = (root / kind / "CLS-LOC" / split / stem for kind in ("Data", "Annotations"))
            for path in (picture, xml):
                path.parent.mkdir(parents=True, exist_ok=True)
            save_picture(picture.with_name(f"{picture.name}.JPEG"), image)
            xml.with_name(f"{xml.name}.xml").write_text(
                f"<annotation><filename>{picture.name}</filename><size><width>60</width><height>48</height></size>"
                f"<object><name>{name}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
                f"<xmax>{left + width - 1}</xmax><ymax>{top + height - 1}</ymax></bndbox></object></annotation>"
            )
    return root


def run(output: Path, backbone: Path, data: Path, *arguments: str) -> dict[str, Any]:
    """Runs `train_localiser` on the small data; returns its record."""
    given = ["--backbone.weights", str(backbone), "--data.root", str(data), "--output", str(output)]
    train_main([*SMALL, *given, *arguments])
    return record(output)


def test_a_run_of_the_rpn_leaves_all_that_is_promised(rpn: Path, backbone: Path) -> None:
    written = record(rpn)
    assert written["status"] == "finished"
    assert written["results"].keys() == {"center", "dense", "picture_box"}
    names = {"own_class_error", "top1_localisation_error", "top5_localisation_error", "top1_error", "top5_error"}
    assert all(errors.keys() == names for errors in written["results"].values())
    lines = [json.loads(line) for line in (rpn / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [(2, "train"), (2, "test"), (4, "train"), (4, "test")]
    assert lines[0]["loss"] == pytest.approx(lines[0]["objectness"] + lines[0]["box"])
    assert "dense_own_class_error" in lines[3]
    assert "dense_own_class_error" not in lines[1]
    localiser, metadata = load_localiser(rpn)
    assert (metadata.task, metadata.classes) == ("localisation", sorted(CLASS_NAMES))
    assert (metadata.input_size, metadata.test_resize) == (32, 36)
    assert localiser.rpn.options.stage == "conv4"
    before, after = load_weights(backbone)[0], load_weights(rpn)[0]
    kept = {
        name for name in before if f"backbone.{name}" in after and torch.equal(before[name], after[f"backbone.{name}"])
    }
    # Batch norm is fixed, and a localiser on conv4 has no use for conv5.
    layers = {name for name in before if before[name].ndim == 4 and not name.startswith("layer4.")}
    assert {name.removeprefix("backbone.") for name in after if name.startswith("backbone.")} - kept == layers


def test_the_r_cnn_step_is_trained_on_proposals_and_tested(rcnn: Path, rpn: Path, backbone: Path) -> None:
    results = record(rcnn)["results"]
    assert results.keys() == {"center", "center_rcnn", "picture_box"}
    assert results["center"] == record(rpn)["results"]["center"]
    assert not list(rcnn.glob("*.npy"))
    network, metadata = load_regions(rcnn)
    assert (metadata.task, metadata.input_size) == ("region classification", 32)
    assert metadata.detector["regions"]["proposals"] == 5
    before, after = load_weights(backbone)[0], network.backbone.state_dict()
    for name in ("bn1.running_mean", "layer4.1.bn2.running_var"):  # fixed
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("part", ["rpn", "rcnn"])
def test_resumed_in_the_middle_ends_in_the_same_bits(
    part: str, request: pytest.FixtureRequest, backbone: Path, data: Path, rpn: Path, tmp_path: Path
) -> None:
    whole = request.getfixturevalue(part)
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/weights.safetensors").unlink()
    (tmp_path / "run/checkpoints/step_00000004.pt").unlink()
    more = (
        [*PART_RCNN, "--proposals_from", str(rpn)]
        if part == "rcnn"
        else ["--protocol", "center", "dense", "--train.evaluate_every", "2"]
    )
    results = run(tmp_path / "run", backbone, data, *more, "--resume")["results"]
    assert results == record(whole)["results"]
    assert (tmp_path / "run/weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_accumulated_portions_make_the_same_step(backbone: Path, data: Path, rpn: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", backbone, data, "--train.accumulate", "2", "--data.test_split", "null")
    found, wanted = load_weights(tmp_path / "run")[0], load_weights(rpn)[0]
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4)


def test_evaluation_prints_and_writes_what_was_found(
    rpn: Path, rcnn: Path, backbone: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = [str(tmp_path / name) for name in ("errors.json", "found.json", "sheet.png")]
    evaluate_main(
        [
            *("--model", str(rpn), "--rcnn", str(rcnn), "--classifier", str(backbone), "--data.root", str(data)),
            *("--protocol", "center", "dense", "--output", files[0], "--predictions", files[1], "--sheet", files[2]),
            *("--workers", "0"),
        ]
    )
    printed = capsys.readouterr().out
    results = json.loads(Path(files[0]).read_text())
    assert list(results) == ["center", "center_rcnn", "dense", "dense_rcnn", "picture_box"]
    for name in ("center", "picture_box"):
        assert results[name] == record(rpn)["results"][name]
    assert results["center_rcnn"] == record(rcnn)["results"]["center_rcnn"]
    assert f"{results['dense']['own_class_error']:.2f}" in printed
    found = json.loads(Path(files[1]).read_text())
    assert len(found) == 4 * 3 * len(CLASS_NAMES)
    assert found[0]["image"] == "ILSVRC2012_val_00000000"
    assert found[0]["own"]["class"] == CLASS_NAMES[0]
    assert len(found[0]["predicted"]) == min(5, len(CLASS_NAMES))
    for one in found:
        for thing in (one["own"], *one["predicted"]):
            x1, y1, x2, y2 = thing["box"]
            assert 0 <= x1 <= x2 <= 60.001
            assert 0 <= y1 <= y2 <= 48.001
    with Image.open(files[2]) as sheet:
        assert sheet.size[0] > 600


def test_the_order_of_the_classifiers_classes_does_not_matter(
    rpn: Path, backbone: Path, data: Path, tmp_path: Path
) -> None:
    state, metadata = load_weights(backbone)
    metadata.classes = metadata.classes[::-1]
    save_weights(
        tmp_path / "turned.safetensors",
        state | {name: state[name].flip(0) for name in ("fc.weight", "fc.bias")},
        metadata,
    )
    given = ["--model", str(rpn), "--data.root", str(data), "--workers", "0", "--output", str(tmp_path / "found.json")]
    evaluate_main([*given, "--classifier", str(tmp_path / "turned.safetensors")])
    assert json.loads((tmp_path / "found.json").read_text())["center"] == record(rpn)["results"]["center"]


def test_what_is_left_out_of_training_is_said(
    backbone: Path, rpn: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = write_cls_loc(tmp_path / "ILSVRC", count=2)
    next((root / "Annotations/CLS-LOC/train").glob("*/*_1.xml")).unlink()
    run(tmp_path / "run", backbone, root, "--train.steps", "1", "--data.test_split", "null")
    assert "1 training pictures have no boxes and are left out" in capsys.readouterr().out
    (root / "devkit/data").mkdir(parents=True)
    (root / "devkit/data/ILSVRC2015_clsloc_validation_blacklist.txt").write_text("1\n3\n")
    given = ["--train.steps", "1", "--data.test_split", "null", "--data.train_split", "val"]
    run(tmp_path / "blacklisted", backbone, root, *given, *PART_RCNN, "--proposals_from", str(rpn))
    assert f"{2 * len(CLASS_NAMES) - 2} training and no test pictures" in capsys.readouterr().out


def test_fewer_pictures_and_no_classifier(rpn: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate_main(["--model", str(rpn), "--data.root", str(data), "--data.test_count", "4", "--workers", "0"])
    printed = capsys.readouterr().out
    assert printed.startswith("4 pictures of val")
    assert "own class" in printed
    assert "top-5" not in printed


Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture) -> Refuse:
    return lambda main, *arguments: refusal(capsys, main, *map(str, arguments))


def test_weights_of_another_kind_are_refused(
    refuse: Refuse, rpn: Path, rcnn: Path, backbone: Path, data: Path, tmp_path: Path
) -> None:
    train(tmp_path / "detector", backbone, "--train.steps", "1", "--data.test_split", "null")
    test = ("--data.root", data)
    assert "detection network, not a localiser" in refuse(evaluate_main, "--model", tmp_path / "detector", *test)
    assert "classification network, not a localiser" in refuse(evaluate_main, "--model", backbone, *test)
    assert "region classification network, not a localiser" in refuse(evaluate_main, "--model", rcnn, *test)
    assert "not one of the R-CNN step" in refuse(evaluate_main, "--model", rpn, "--rcnn", rpn, *test)
    assert "not a classifier" in refuse(evaluate_main, "--model", rpn, "--classifier", rpn, *test)
    assert "holds a localisation network, not a detector" in refuse(evaluate_detector_main, "--model", rpn, *test)
    training = [*SMALL, "--data.root", data, "--output", tmp_path / "run"]
    assert "not a classifier" in refuse(train_main, *training, "--backbone.weights", rpn)
    wrong = [*training, "--backbone.weights", backbone, *PART_RCNN, "--proposals_from", backbone]
    assert "not a localiser" in refuse(train_main, *wrong)
    assert "holds no weights" in refuse(evaluate_main, "--model", tmp_path, *test)


def test_metadata_that_describe_no_localiser_are_refused(refuse: Refuse, rpn: Path, data: Path, tmp_path: Path) -> None:
    state, metadata = load_weights(rpn)
    for change in ({"rpn": {"stage": "conv9"}}, {"rpn": {"channels": "many"}}, {"anchor_scales": []}, {"norm": 3}):
        path = tmp_path / "changed.safetensors"
        altered = {**vars(metadata), "detector": metadata.detector | change}
        save_weights(path, state, type(metadata)(**altered))
        assert "can't be built" in refuse(evaluate_main, "--model", path, "--data.root", data)
    huge = {**vars(metadata), "detector": metadata.detector | {"rpn": {"channels": 10**10}}}
    save_weights(tmp_path / "huge.safetensors", state, type(metadata)(**huge))
    said = refuse(evaluate_main, "--model", tmp_path / "huge.safetensors", "--data.root", data)
    assert "of another architecture" in said


def test_other_classes_are_refused(refuse: Refuse, rpn: Path, backbone: Path, data: Path, tmp_path: Path) -> None:
    state, metadata = load_weights(backbone)
    metadata.classes = [f"other {name}" for name in CLASS_NAMES]
    save_weights(tmp_path / "other.safetensors", state, metadata)
    other = ("--classifier", tmp_path / "other.safetensors")
    said = refuse(evaluate_main, "--model", rpn, "--data.root", data, *other)
    assert "other.safetensors: its 6 classes are not the 6 of" in said
    assert f"'other {CLASS_NAMES[0]}' is none of them" in said
    elsewhere = write_cls_loc(tmp_path / "ILSVRC", ["n01", "n02"], count=1)
    assert "n01" in refuse(evaluate_main, "--model", rpn, "--data.root", elsewhere)
    given = ["--backbone.weights", backbone, "--data.root", elsewhere, "--output", tmp_path / "run"]
    said = refuse(train_main, *SMALL, *given, *PART_RCNN, "--proposals_from", rpn)
    assert f"{rpn}: its classes are not those of {elsewhere}" in said


def test_a_localiser_on_other_classes_than_the_classifiers(backbone: Path, tmp_path: Path) -> None:
    elsewhere = write_cls_loc(tmp_path / "ILSVRC", ["n01", "n02"], count=2)
    results = run(tmp_path / "run", backbone, elsewhere)["results"]
    assert list(results["center"]) == ["own_class_error"]


def test_a_tree_with_missing_boxes_is_refused(refuse: Refuse, rpn: Path, backbone: Path, tmp_path: Path) -> None:
    root = write_cls_loc(tmp_path / "ILSVRC", count=1)
    (root / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml").unlink()
    given = ["--backbone.weights", backbone, "--data.root", root, "--output", tmp_path / "run"]
    for said in (
        refuse(train_main, *SMALL, *given),
        refuse(evaluate_main, "--model", rpn, "--data.root", root),
    ):
        assert "ILSVRC2012_val_00000001" in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data.crop_size", "40"], "data.scale_range [36, 44]: must rise, from data.crop_size 40"),
        (["--data.test_resize", "20"], "data.test_resize 20: give data.crop_size 32 or more"),
        (["--data.min_visible", "2"], "data.min_visible 2.0: give a part from 0 to 1"),
        (["--data.test_scales", "[0]"], "data.test_scales 0: give 1"),
        (["--data.test_count", "0"], "data.test_count 0: give 1 or more"),
        (["--rpn.stage", "conv7"], "rpn.stage must be among conv1, conv2"),
        (["--rpn.positive_iou", "7"], "rpn.positive_iou must be in [0, 1]"),
        (["--anchors.scales", "[]"], "anchor_scales must be a list of numbers above 0"),
        (["--backbone.freeze_stages", "[conv8]"], "no stage 'conv8'"),
        (["--part", "rcnn"], "proposals_from is missing"),
        (["--proposals_from", "somewhere"], "proposals_from: is of --part rcnn"),
        (["--regions.negative_iou", "0.6"], "regions.negative_iou must be at most positive_iou"),
        (["--train.compile", "true"], "train.compile: not for localisers"),
        (["--data.root", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_values_that_make_no_sense_are_refused(
    refuse: Refuse, backbone: Path, data: Path, tmp_path: Path, arguments: list[str], named: str
) -> None:
    given = ["--backbone.weights", backbone, "--data.root", data, "--output", tmp_path / "run"]
    assert named in refuse(train_main, *SMALL, *given, *arguments)
    assert not (tmp_path / "run/checkpoints").exists()


def test_what_is_missing_is_named(refuse: Refuse, rpn: Path, data: Path, tmp_path: Path) -> None:
    assert "backbone.weights is missing" in refuse(
        train_main, *SMALL, "--data.root", data, "--output", tmp_path / "run"
    )
    assert "data.root is missing" in refuse(evaluate_main, "--model", rpn)
    assert "is a folder" in refuse(evaluate_main, "--model", rpn, "--data.root", data, "--output", tmp_path)
