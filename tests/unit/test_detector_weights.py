"""A detector's weights file: enough to rebuild it, whatever else it holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from backbones.errors import CheckpointError
from backbones.weights import WeightsMetadata, load_weights
from detection import get_detector
from detection.models import RoIOptions, RPNOptions
from detection.weights import detector_arguments, detector_metadata, load_detector, load_detectors, save_detector

CLASSIFIER = WeightsMetadata("classification", "resnet18", {"width": 4}, ["x"], [10.0, 20.0, 30.0], [1.0, 2.0, 3.0], 48)


def metadata(backbone: WeightsMetadata = CLASSIFIER, **changes: Any) -> WeightsMetadata:
    settings: dict[str, Any] = {
        "norm": "frozen",
        "freeze_stages": ["conv1", "conv3"],
        "anchor_scales": [16.0, 40.0],
        "anchor_ratios": [0.5, 1.0, 3.0],
        "rpn": RPNOptions(channels=8, nms_iou=0.65),
        "roi": RoIOptions(pooling="roi_align", pool_size=5, score_threshold=0.0),
        "shorter_side": 70,
        "longest_side": 90,
    }
    return detector_metadata(backbone, ["cat", "dog"], [17, 3], **(settings | changes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_detector(tmp_path / "weights.safetensors", get_detector(**detector_arguments(metadata())), metadata())
    return tmp_path / "weights.safetensors"


def test_a_detector_is_rebuilt_with_all_its_settings(file: Path) -> None:
    torch.manual_seed(0)
    original = get_detector(**detector_arguments(metadata())).eval()
    torch.manual_seed(1)
    detector, loaded = load_detector(file)
    assert loaded == metadata()
    assert not detector.training
    assert detector.rpn.options == RPNOptions(channels=8, nms_iou=0.65)
    assert detector.roi_heads.options == RoIOptions(pooling="roi_align", pool_size=5, score_threshold=0.0)
    assert detector.freeze_stages == ("conv1", "conv3")
    assert detector.rpn.objectness.out_channels == 6
    assert detector.mean.flatten().tolist() == [10, 20, 30]
    image = torch.randint(0, 256, (3, 70, 80), dtype=torch.uint8)
    with torch.no_grad():
        (found,), (again,) = original([image]), detector([image])
    assert len(found) > 0
    assert torch.equal(found.boxes, again.boxes)
    assert torch.equal(found.scores, again.scores)
    assert torch.equal(found.labels, again.labels)
    assert load_detector(file.parent)[1] == loaded  # a run folder


def test_a_mean_per_pixel_becomes_one_per_channel() -> None:
    """A classifier of 2 x 2 pictures with a mean per pixel."""
    mean = [[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [5.0, 5.0]], [[0.0, 0.0], [0.0, 8.0]]]
    backbone = WeightsMetadata("classification", "resnet18", {"width": 4}, ["x"], mean, [1.0, 1.0, 1.0], 2)
    assert metadata(backbone).mean == [3.0, 5.0, 2.0]


def rewrite(file: Path, **texts: Any) -> Path:
    """The same weights with other metadata; None drops an entry."""
    with safe_open(file, "pt") as opened:
        before = opened.metadata()
    changed = before | {key: json.dumps(value) for key, value in texts.items() if value is not None}
    kept = {key: value for key, value in changed.items() if texts.get(key, True) is not None}
    save_file(load_weights(file)[0], file.parent / "odd.safetensors", kept)
    return file.parent / "odd.safetensors"


DETECTOR = metadata().detector


@pytest.mark.parametrize(
    "change",
    [
        {"task": "classification"},
        {"task": "poetry"},
        {"architecture": "resnet19"},
        {"architecture": "resnet34"},
        {"architecture": "cifar_resnet20"},
        {"architecture": ["resnet18"]},
        {"options": {"width": 8}},
        {"options": {"norm_layer": "os.system"}},
        {"options": {"width": "4"}},
        {"classes": ["cat"]},
        {"classes": []},
        {"mean": [[[1.0, 2.0]]] * 3},
        {"mean": [1.0]},
        {"mean": ["a", "b", "c"]},
        {"std": [0.0, 1.0, 1.0]},
        {"detector": {}},
        {"detector": None},
        {"detector": [1, 2]},
        *({"detector": {k: v for k, v in DETECTOR.items() if k != key}} for key in DETECTOR),
        *({"detector": DETECTOR | {key: value}} for key in DETECTOR for value in (None, "x", -1, [["x"]], {"x": 1})),
        {"detector": DETECTOR | {"rpn": DETECTOR["rpn"] | {"channels": 10**12}}},
        {"detector": DETECTOR | {"rpn": DETECTOR["rpn"] | {"channels": "many"}}},
        {"detector": DETECTOR | {"roi": DETECTOR["roi"] | {"pool_size": 0}}},
        {"detector": DETECTOR | {"anchor_scales": [1.0, 2.0, 3.0]}},
        {"detector": DETECTOR | {"shorter_side": 0}},
    ],
    ids=lambda change: str(change)[:80],
)
def test_metadata_that_do_not_fit_are_refused(change: dict[str, Any], file: Path) -> None:
    odd = rewrite(file, **change)
    with pytest.raises(CheckpointError, match=r"odd\.safetensors") as error:
        load_detector(odd)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (["dog", "cat"], "their classes are the same in another order"),
        (["cat", "cat", "dog"], "one of them has a class twice"),
        (["cat", "cow"], "only it knows cow; only the other knows dog"),
    ],
)
def test_detectors_of_other_classes_do_not_go_together(classes: list[str], problem: str, tmp_path: Path) -> None:
    for name, known in (("a", ["cat", "dog"]), ("b", ["cat", "dog"]), ("c", classes)):
        its = replace(metadata(), classes=known, category_ids=list(range(len(known))))
        save_detector(tmp_path / f"{name}.safetensors", get_detector(**detector_arguments(its)), its)
    paths = [str(tmp_path / f"{name}.safetensors") for name in "abc"]
    assert [its.classes for _, its in load_detectors(paths[:2])] == [["cat", "dog"]] * 2
    with pytest.raises(CheckpointError, match=rf"c\.safetensors: does not go with .*a\.safetensors: .*{problem}"):
        load_detectors(paths)
    with pytest.raises(CheckpointError, match="--model"):
        load_detectors([])


def test_damaged_files_are_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in (0, 5, 400, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
            load_detector(file)
