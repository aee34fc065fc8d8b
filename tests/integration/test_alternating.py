"""The four steps of alternating training: what each starts from, trains and leaves, and that it can stop anywhere."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detector_commands import ROOT, SMALL, record, refusal, snapshot, train, write_backbone

from backbones.errors import CheckpointError
from backbones.weights import load_weights
from detection import alternating, training
from detection.alternating import STAGES
from detection.data.proposals import StoredProposals
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


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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


def test_the_steps_are_those_of_faster_rcnn() -> None:
    """Its section 3.2: what is trained, what it starts from, whose proposals, whether shared layers are fixed."""
    rows = [(each.name, each.part, each.start, each.proposals, each.fixed) for each in STAGES]
    assert rows == [
        ("1_rpn", "rpn", None, None, False),
        ("2_fast_rcnn", "regions", None, "1_rpn", False),
        ("3_rpn", "rpn", "2_fast_rcnn", None, True),
        ("4_fast_rcnn", "regions", "3_rpn", "3_rpn", True),
    ]


def test_proposals_come_from_the_step_before_as_they_should(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its weights, in eval mode, as many as in training for the training set; step 2 is tested on step 1's."""
    store, detect = alternating.store_proposals, training.detect_in_dataset
    stored, tested = [], []

    def watch_storing(detector: FasterRCNN, dataset: Any, path: Path, *, to_train: bool, **viewing: Any) -> None:
        rpn = stage_weights(tmp_path / "run", int(path.parent.name[0]))
        assert all(torch.equal(value, rpn[name]) for name, value in detector.state_dict().items())
        assert not detector.training
        store(detector, dataset, path, to_train=to_train, **viewing)
        stored.append((path.parent.name, path.name, to_train, len(dataset), np.load(path).shape))

    def watch_testing(*arguments: Any, proposals: StoredProposals | None = None, **viewing: Any) -> Any:
        tested.append(None if proposals is None else (proposals.path.parent.name, proposals.path.name))
        return detect(*arguments, proposals=proposals, **viewing)

    monkeypatch.setattr(alternating, "store_proposals", watch_storing)
    monkeypatch.setattr(training, "detect_in_dataset", watch_testing)
    train(tmp_path / "run", weights, *ALTERNATING)
    assert stored == [
        ("1_rpn", "proposals_train.npy", True, 16, (16, 200, 4)),
        ("1_rpn", "proposals_test.npy", False, 5, (5, 50, 4)),
        ("3_rpn", "proposals_train.npy", True, 16, (16, 200, 4)),
    ]
    assert tested == [("1_rpn", "proposals_test.npy"), None]


def test_nothing_is_left_over(run: Path) -> None:
    assert not list(run.rglob("*.npy*"))
    assert not list(run.rglob("*.pt"))


def test_the_curve_is_that_of_all_steps(run: Path) -> None:
    lines = metrics(run)
    starts = [0, 5, 9, 14]  # 5 and 4 steps in turn
    expected = [
        {**line, "step": line["step"] + start}
        for start, stage in zip(starts, STAGES, strict=True)
        for line in metrics(run / "stages" / stage.name)
    ]
    assert lines == expected
    assert lines[-1]["step"] == 18
    assert {"rpn_box", "classification", "recall50", "AP50"} <= {key for line in lines for key in line}


@pytest.mark.parametrize("stage", ["1_rpn", "2_fast_rcnn", "3_rpn"])
def test_a_step_is_no_detector(run: Path, stage: str) -> None:
    with pytest.raises(CheckpointError, match="a step of alternating training"):
        load_detector(run / "stages" / stage)


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
    stops, storing = [], 0
    for _ in range(40):
        left[0] = 23
        try:
            train(tmp_path / "run", weights, *ALTERNATING, "--train.checkpoint_every", "2", "--resume")
            break
        except SystemExit:
            assert record(tmp_path / "run")["status"] == "interrupted"
            stops.append(max(path.name for path in (tmp_path / "run" / "stages").iterdir()))
            storing += len(list(tmp_path.rglob(".proposals_*")))
    assert set(stops) == {stage.name for stage in STAGES}, stops
    assert storing > 0
    same_as(run, tmp_path / "run")


@pytest.mark.parametrize("moment", ["save_detector", "create_proposals"])
def test_a_killed_run_resumes_to_the_same_bits(run: Path, weights: Path, tmp_path: Path, moment: str) -> None:
    """Killed outright right after a step's weights were written, and when proposals begin to be stored."""
    arguments = [*SMALL, *ALTERNATING, "--backbone.weights", str(weights), "--output", str(tmp_path / "run")]
    arguments += ["--train.checkpoint_every", "2"]
    script = f"""
import os, signal
from detection import train, training
from detection.inference import propose
module = training if "{moment}" == "save_detector" else propose
whole = getattr(module, "{moment}")
def killed(*arguments):
    whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, "{moment}", killed)
train.main({arguments!r})
"""
    killed = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert record(tmp_path / "run")["status"] == "running"
    train_main([*arguments, "--resume"])
    same_as(run, tmp_path / "run")


def same_as(whole: Path, cut: Path) -> None:
    """That a run ended as an undisturbed one did."""
    assert (whole / "weights.safetensors").read_bytes() == (cut / "weights.safetensors").read_bytes()
    assert record(whole)["results"] == record(cut)["results"]
    assert record(cut)["status"] == "finished"
    assert not list(cut.rglob("*.npy*"))
    tests = [[line for line in metrics(path) if line["split"] == "test"] for path in (whole, cut)]
    assert tests[0] == tests[1]


def test_a_finished_step_is_not_taken_for_one_with_other_options(weights: Path, tmp_path: Path, capsys: Any) -> None:
    train(tmp_path / "run", weights, *ALTERNATING)
    options = [*SMALL, *ALTERNATING, "--backbone.weights", str(weights), "--output", str(tmp_path / "run")]
    line = refusal(capsys, train_main, *options, "--resume", "--allow_mismatch", "--optimizer.lr", "0.5")
    assert "1_rpn: its run had optimizer.lr = 0.02, now it is 0.5; this step is finished" in line


def test_a_damaged_record_of_a_step_is_named(weights: Path, tmp_path: Path, capsys: Any) -> None:
    train(tmp_path / "run", weights, *ALTERNATING)
    (tmp_path / "run/stages/2_fast_rcnn/run.json").write_text("{")
    options = [*SMALL, *ALTERNATING, "--backbone.weights", str(weights), "--output", str(tmp_path / "run")]
    assert "2_fast_rcnn/run.json: not readable" in refusal(capsys, train_main, *options, "--resume")


def test_replacing_a_run_leaves_what_is_not_its_own(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    train(tmp_path / "run", weights, *ALTERNATING)
    (tmp_path / "run/stages/notes").mkdir()
    (tmp_path / "run/stages/1_rpn/mine.txt").write_text("mine")
    train(tmp_path / "run", weights, "--overwrite")
    left = sorted(str(path.relative_to(tmp_path / "run/stages")) for path in (tmp_path / "run/stages").rglob("*"))
    assert left == ["1_rpn", "1_rpn/mine.txt", "notes"]


def test_a_finished_run_resumes_to_itself_and_is_replaced_whole(weights: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", weights, *ALTERNATING)
    before = snapshot(tmp_path / "run" / "stages")
    train(tmp_path / "run", weights, *ALTERNATING, "--resume")
    same_as(tmp_path / "run", tmp_path / "run")
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
