"""The four steps of alternating training: what each starts from, trains and leaves, and that it can stop anywhere."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_commands import ROOT, record, refusal, snapshot, train, write_backbone

from backbones.weights import load_weights
from detection.alternating import STAGES
from detection.models import FasterRCNN
from detection.train import main as train_main
from detection.weights import load_detector

ALTERNATING = ("--scheme", "alternating", "--train.steps", "4", "--rpn_stages.steps", "5")
REGIONS = ("roi_heads.", "backbone.layer4.")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "resnet18.safetensors", width=4)


@pytest.fixture(scope="module")
def run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alternating") / "run"
    train(folder, weights, *ALTERNATING, "--train.checkpoint_every", "2")
    return folder


def stage_weights(run: Path, number: int) -> dict[str, torch.Tensor]:
    return load_weights(run / "stages" / STAGES[number - 1].name)[0]


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the detector in which something has another value."""
    names = {name for name in after if not torch.equal(before[name], after[name])}
    return {"regions" if n.startswith(REGIONS) else "rpn" if n.startswith("rpn.") else "shared" for n in names}


def test_each_step_trains_its_part(run: Path, weights: Path) -> None:
    classifier, steps = load_weights(weights)[0], [stage_weights(run, number) for number in (1, 2, 3, 4)]
    rpn, fast_rcnn, rpn_on_shared, detector = steps
    for step, still in ((rpn, "layer4"), (fast_rcnn, "")):  # both from the classifier
        for name in ("conv1.weight", "layer2.0.conv1.weight", "layer4.0.conv1.weight"):
            same = torch.equal(step[f"backbone.{name}"], classifier[name])
            assert same == (name == "conv1.weight" or (bool(still) and name.startswith(still)))
    assert changed(rpn, fast_rcnn) == {"shared", "rpn", "regions"}  # two networks that share nothing
    assert changed(fast_rcnn, rpn_on_shared) == {"rpn"}
    assert changed(rpn_on_shared, detector) == {"regions"}


def test_the_run_is_the_detector_of_the_last_step(run: Path) -> None:
    last = run / "stages" / "4_fast_rcnn"
    assert (run / "weights.safetensors").read_bytes() == (last / "weights.safetensors").read_bytes()
    written = record(run)
    assert written["status"] == "finished"
    assert written["results"] == record(last)["results"]
    assert set(written["results"]) == {"coco", "voc07", "voc12"}
    assert load_detector(run)[1].classes[0] == "circle"


def test_steps_have_their_own_length_and_test(run: Path) -> None:
    records = [record(run / "stages" / stage.name) for stage in STAGES]
    assert [each["config"]["train"]["steps"] for each in records] == [5, 4, 5, 4]
    assert len({each["seed"] for each in records}) == 4  # each has its own order of pictures
    for each in (records[0], records[2]):
        recalls = each["results"]["proposals"]
        assert set(recalls) == {"recall50", "recall70", "average_recall"}
        assert all(0 <= value <= 100 for value in recalls.values())
    assert "voc07" in records[1]["results"]


def test_no_proposals_are_left_over(run: Path) -> None:
    assert not list(run.rglob("*.npy*"))


def test_a_run_that_stops_again_and_again_ends_in_the_same_bits(
    run: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within steps of each stage, while proposals are stored, and in tests: after every 23 maps of features."""
    features, left = FasterRCNN.features, [0]

    def count(self: FasterRCNN, images: Any) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return features(self, images)

    monkeypatch.setattr(FasterRCNN, "features", count)
    stops = []
    for _ in range(40):
        left[0] = 23
        try:
            train(tmp_path / "run", weights, *ALTERNATING, "--train.checkpoint_every", "2", "--resume")
            break
        except SystemExit:
            assert record(tmp_path / "run")["status"] == "interrupted"
            stops.append(max(path.name for path in (tmp_path / "run" / "stages").iterdir()))
    assert set(stops) == {stage.name for stage in STAGES}, stops
    assert (tmp_path / "run/weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    assert record(tmp_path / "run")["results"] == record(run)["results"]
    assert not list(tmp_path.rglob("*.npy*"))


def test_a_finished_run_resumes_to_itself_and_is_replaced_whole(weights: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", weights, *ALTERNATING)
    before = snapshot(tmp_path / "run" / "stages")
    train(tmp_path / "run", weights, *ALTERNATING, "--resume")
    assert snapshot(tmp_path / "run" / "stages") == before
    train(tmp_path / "run", weights, "--overwrite")  # a joint training in its place
    assert not (tmp_path / "run" / "stages").exists()


def test_without_a_test_set_nothing_is_tested(weights: Path, tmp_path: Path) -> None:
    for scheme in ("joint", "alternating"):
        arguments = ("--scheme", scheme, "--data.test_split", "null", "--train.steps", "1")
        assert train(tmp_path / scheme, weights, *arguments)["results"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rpn_stages.steps", "5"), "rpn_stages.steps: is of scheme alternating"),
        (("--scheme", "alternating", "--rpn_stages.batch_size", "0"), "train.batch_size 0: .* see rpn_stages"),
        (("--scheme", "alternating", "--rpn_stages.accumulate", "3"), "evenly .* see rpn_stages"),
        (("--scheme", "alternating", "--rpn_stages.milestones", "[9, 3]"), "milestones .* see rpn_stages"),
        (("--data.like_shapes", "0"), "data.like_shapes 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    arguments: tuple[str, ...], message: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = ("--config", str(ROOT / "configs/shapes/detect_resnet.yaml"), "--backbone.weights", str(weights))
    assert re.search(message, refusal(capsys, train_main, *config, "--output", str(tmp_path / "run"), *arguments))
    assert not (tmp_path / "run").exists()
