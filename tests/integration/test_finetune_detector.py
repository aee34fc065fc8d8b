"""`train_detector --weights`: from a trained detector to one of other classes, which some of its own are among."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detector_commands import SMALL, record, refusal, stopped_by_its_first_checkpoint, train, write_backbone, write_voc

from backbones.weights import load_weights, save_weights
from detection.data.shapes import shapes_for_detection
from detection.models import FasterRCNN
from detection.train import main as train_main
from detection.weights import load_detector

# VOC's data lists its classes by the alphabet: sofa and tvmonitor are couch and tv in the old list, in other places.
OLD = ["bird", "couch", "person", "star", "tv", "zebra"]
NEW = ["sofa", "tvmonitor", "quagga", "bird", "gnu", "person"]
KNOWN = {"bird": "bird", "person": "person", "sofa": "couch", "tvmonitor": "tv", "gnu": None, "quagga": None}
SAME = ("--train.steps", "1", "--train.checkpoint_every", "1", "--optimizer.lr", "0")  # which changes no weight


def write_data(root: Path, names: list[str]) -> list[str]:
    """The built-in shapes under these names; the options that name the data."""
    write_voc(root / "VOC2007", "trainval", shapes_for_detection("train", 16, 64), names)
    write_voc(root / "VOC2007", "test", shapes_for_detection("val", 5, 64), names)
    splits = ["--data.train_split", "trainval", "--data.test_split", "test"]
    return ["--data.name", "voc", "--data.root", str(root), *splits]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of six classes."""
    folder = tmp_path_factory.mktemp("old")
    weights = write_backbone(folder / "resnet18.safetensors", width=4)
    train(folder / "run", weights, *write_data(folder, OLD))
    return folder / "run"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_data(tmp_path_factory.mktemp("new"), NEW)


@pytest.fixture(scope="module")
def tuned(old: Path, data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector of the new classes, as it is before any training."""
    output = tmp_path_factory.mktemp("tuned") / "run"
    finetune(output, old, *data, *SAME)
    return output


def finetune(output: Path, old: Path, *arguments: str) -> dict[str, Any]:
    train_main([*SMALL, "--weights", str(old), "--output", str(output), *arguments])
    return record(output)


@torch.no_grad()
def predict(detector: FasterRCNN, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (R, D), logits (R, K + 1) and box regression (R, K, 4) of the detector's own proposals."""
    proposals = detector.propose(image, to_train=False)
    features = detector.roi_heads.region_features(detector.features([image]), [proposals])
    return features, *detector.roi_heads.predict(features)


def test_known_classes_are_detected_as_before(old: Path, tuned: Path) -> None:
    before, old_metadata = load_detector(old)
    after, metadata = load_detector(tuned)
    assert metadata.classes == sorted(NEW)
    assert (metadata.mean, metadata.std) == (old_metadata.mean, old_metadata.std)
    there = [old_metadata.classes.index(KNOWN[name]) for name in metadata.classes if KNOWN[name]]
    here = [at for at, name in enumerate(metadata.classes) if KNOWN[name]]
    assert there == [0, 2, 1, 4]
    assert here == [0, 2, 4, 5]
    was, now = ([0, *(1 + at for at in places)] for places in (there, here))
    rows, old_rows = (detector.roi_heads.classification.weight for detector in (after, before))
    assert torch.equal(rows[now], old_rows[was])
    rows, old_rows = (detector.roi_heads.box.weight.unflatten(0, (6, 4)) for detector in (after, before))
    assert torch.equal(rows[here], old_rows[there])
    for index in range(5):
        image = shapes_for_detection("val", 5, 64).load_image(index)
        (old_features, old_logits, old_deltas), (features, logits, deltas) = (
            predict(d, image) for d in (before, after)
        )
        assert len(features) > 10
        assert torch.equal(features, old_features)
        # Up to the order in which a matrix product adds: the classes are in other places.
        torch.testing.assert_close(logits[:, now], old_logits[:, was], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(deltas[:, here], old_deltas[:, there], rtol=1e-6, atol=1e-6)
        assert (deltas[:, 1] - deltas[:, 3]).abs().max() > 1e-3  # the new ones have weights of their own


def test_everything_but_the_new_classes_is_the_old_detectors(old: Path, tuned: Path) -> None:
    before, after = load_weights(old)[0], load_weights(tuned)[0]
    assert before.keys() == after.keys()
    layers = {name for name in after if not name.startswith("roi_heads")}
    assert all(torch.equal(before[name], after[name]) for name in layers)
    assert any("running_mean" in name for name in layers)


def test_what_is_known_is_said_and_recorded(
    old: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    written = finetune(tmp_path / "run", old, *data, "--train.steps", "2")
    printed = capsys.readouterr().out
    assert "4 of 6 are among the 6 of the detector" in printed
    assert "under the same name: bird, person\n" in printed
    assert "under another name: sofa = couch, tvmonitor = tv\n" in printed
    assert "new: gnu, quagga\n" in printed
    assert "moving averages of pretraining" not in printed
    assert written["class_origins"] == KNOWN
    assert written["config"]["weights"] == str(old)


def test_training_goes_on_and_a_resumed_run_ends_in_the_same_bits(old: Path, data: list[str], tmp_path: Path) -> None:
    whole = finetune(tmp_path / "whole", old, *data)
    with stopped_by_its_first_checkpoint():
        finetune(tmp_path / "cut", old, *data)
    assert record(tmp_path / "cut")["status"] == "interrupted"
    cut = finetune(tmp_path / "cut", old, *data, "--resume")
    assert cut["results"] == whole["results"]
    assert (tmp_path / "cut/weights.safetensors").read_bytes() == (tmp_path / "whole/weights.safetensors").read_bytes()
    before, after = load_weights(old)[0], load_weights(tmp_path / "whole")[0]
    assert not torch.equal(before["rpn.conv.weight"], after["rpn.conv.weight"])
    assert torch.equal(before["backbone.bn1.running_mean"], after["backbone.bn1.running_mean"])


def test_the_four_steps_start_from_the_detector_too(old: Path, data: list[str], tmp_path: Path) -> None:
    steps = ("--scheme", "alternating", "--train.steps", "1", "--rpn_stages.steps", "1", "--optimizer.lr", "0")
    written = finetune(tmp_path / "run", old, *data, *steps, "--train.checkpoint_every", "1")
    assert written["class_origins"] == KNOWN
    before = load_weights(old)[0]
    for folder in [tmp_path / "run", *(tmp_path / "run" / "stages").iterdir()]:
        after = load_weights(folder)[0]
        assert all(torch.equal(before[name], after[name]) for name in after if not name.startswith("roi_heads")), folder
        background = "roi_heads.classification.weight"
        assert torch.equal(before[background][0], after[background][0])


def test_a_detector_with_context_keeps_the_rows_of_both_halves(old: Path, data: list[str], tmp_path: Path) -> None:
    """Appendix B: the last layers see twice as many features, of the region and of the picture."""
    classifier, context = old.parent / "resnet18.safetensors", ("--roi.context", "true")
    train(tmp_path / "old", classifier, *write_data(tmp_path, OLD), *context, "--train.steps", "2")
    finetune(tmp_path / "run", tmp_path / "old", *data, *context, *SAME)
    before, after = (load_weights(tmp_path / name)[0]["roi_heads.classification.weight"] for name in ("old", "run"))
    assert before.shape == after.shape == (7, 64)
    assert torch.equal(after[[0, 1, 3, 5, 6]], before[[0, 1, 3, 2, 5]])  # background, bird, person, sofa, tvmonitor


def test_classes_of_which_none_is_known(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_data(tmp_path / "data", ["a", "b", "c", "d", "e", "f"])
    finetune(tmp_path / "run", old, *data, *SAME)
    assert "0 of 6 are among the 6" in capsys.readouterr().out
    before, after = load_weights(old)[0], load_weights(tmp_path / "run")[0]
    assert not (before["roi_heads.box.weight"] == after["roi_heads.box.weight"]).any()


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["--backbone.weights", "{classifier}"], ["backbone.weights {classifier}", "weights {old}"]),
        (["--weights", "/nowhere/run"], ["/nowhere/run"]),
        (["--weights", "{classifier}"], ["{classifier}", "classification", "not a detector"]),
        (["--backbone.name", "resnet34"], ["resnet34", "backbone.name", "{old}"]),
        (["--backbone.options", "{width: 16}"], ["width 16", "{old}"]),
        (["--backbone.norm", "batch"], ["backbone.norm batch", "frozen", "{old}"]),
        (["--anchors.scales", "[16, 32]"], ["anchors.scales [16.0, 32.0]", "[16.0, 32.0, 64.0]", "{old}"]),
        (["--anchors.ratios", "[1, 2, 3]"], ["anchors.ratios [1.0, 2.0, 3.0]", "[0.5, 1.0, 2.0]", "{old}"]),
        (["--rpn.channels", "32"], ["rpn.channels 32", "16", "{old}"]),
        (["--roi.pooling", "roi_pool"], ["roi.pooling roi_pool", "roi_align", "{old}"]),
        (["--roi.pool_size", "null"], ["roi.pool_size 14", "7", "{old}"]),
        (["--roi.context", "true"], ["roi.context True", "False", "{old}"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_another_detector_than_the_weights_is_refused(
    arguments: list[str],
    culprits: list[str],
    old: Path,
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    names = {"{classifier}": str(old.parent / "resnet18.safetensors"), "{old}": str(old)}

    def named(text: str) -> str:
        for key, value in names.items():
            text = text.replace(key, value)
        return text

    options = [*SMALL, *data, "--weights", str(old), "--output", str(tmp_path / "run"), *map(named, arguments)]
    line = refusal(capsys, train_main, *options)
    for culprit in map(named, culprits):
        assert culprit in line
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_detector_are_refused(
    old: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    state, metadata = load_weights(old)
    metadata.classes = metadata.classes[:-1]
    save_weights(tmp_path / "liar.safetensors", state, metadata)
    options = [*SMALL, *data, "--weights", str(tmp_path / "liar.safetensors"), "--output", str(tmp_path / "run")]
    assert "liar.safetensors" in refusal(capsys, train_main, *options)
    step = old.parent / "alternating"
    train_main([*SMALL, *data, "--weights", str(old), "--output", str(step), "--scheme", "alternating", *SAME])
    options = [*SMALL, *data, "--weights", str(step / "stages/1_rpn"), "--output", str(tmp_path / "run")]
    assert "a step of alternating training" in refusal(capsys, train_main, *options)
