"""Training on CIFAR-10's layout with the pictures on the device: the recipe of 4.2, exact resume, several processes."""

import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, launch, metrics, record, start
from safetensors.torch import load_file

from backbones.engine.checkpoint import latest_checkpoint
from backbones.train import main as pretrain_main
from backbones.weights import load_weights


@pytest.fixture(scope="module")
def root(bright_cifar10: Callable[[int], Path]) -> Path:
    """60 training and 12 test pictures."""
    return bright_cifar10(12)


def arguments(root: Path, output: Path, *more: str) -> list[str]:
    """A network so small that a step takes some milliseconds; 60 pictures in batches of 16: epochs end within steps."""
    return [
        *("--config", str(ROOT / "configs/cifar/resnet20.yaml"), "--data.root", str(root), "--output", str(output)),
        *("--model.name", "cifar_resnet8", "--model.options", "{width: 4}", "--train.batch_size", "16"),
        *("--train.steps", "30", "--train.checkpoint_every", "5", "--train.evaluate_every", "0"),
        *("--train.log_every", "5", "--train.workers", "0", "--schedule.milestones", "[20]", "--expected", "[]"),
        *more,
    ]


def pretrain(root: Path, output: Path, *more: str) -> dict[str, Any]:
    pretrain_main(arguments(root, output, *more))
    return record(output)


def bits(output: Path) -> dict[str, torch.Tensor]:
    return load_weights(output)[0]


def same_bits(one: Path, two: Path) -> bool:
    a, b = bits(one), bits(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_pictures_on_the_device_train_as_those_that_are_loaded(tmp_path: Path, root: Path) -> None:
    """Without augmentation, whose draws differ, both see the same numbers in the same order."""
    for resident in ("true", "false"):
        pretrain(root, tmp_path / resident, "--data.resident", resident, "--data.augmentation", "none")
    assert same_bits(tmp_path / "true", tmp_path / "false")
    assert metrics(tmp_path / "true") == metrics(tmp_path / "false")
    pretrain(root, tmp_path / "varied")
    assert not same_bits(tmp_path / "true", tmp_path / "varied")


# All that has a state: the warm-up ends after 12 steps, dropout draws random numbers.
WHOLE_RECIPE = [
    *("--schedule.warmup", "error", "--schedule.warmup_window", "4", "--schedule.warmup_error", "200"),
    *("--model.options", "{width: 4, dropout: 0.2}", "--train.log_gradient_norm", "true", "--train.capture", "true"),
]


def test_a_run_killed_at_a_random_moment_resumes_to_the_same_bits(tmp_path: Path, root: Path) -> None:
    moment = random.Random(time.time_ns())
    # An error that random weights do not reach at once.
    recipe = [*WHOLE_RECIPE, "--schedule.warmup_error", "60", "--train.steps", "200", "--schedule.milestones", "[150]"]
    cut = tmp_path / "cut"
    process = start("pretrain", *arguments(root, cut, *recipe))
    last = moment.randrange(5, 150)
    while process.poll() is None and _step(cut) < last:
        time.sleep(0.002)
    time.sleep(moment.random() / 50)
    process.kill()
    process.communicate()
    killed_at = _step(cut)
    assert killed_at > 0
    pretrain(root, cut, *recipe, "--resume")
    pretrain(root, tmp_path / "whole", *recipe)
    assert same_bits(cut, tmp_path / "whole"), f"killed after step {killed_at}"
    assert metrics(cut) == metrics(tmp_path / "whole")


def _step(output: Path) -> int:
    """Of the latest checkpoint."""
    latest = latest_checkpoint(output / "checkpoints")
    return int(latest.stem.removeprefix("step_")) if latest else 0


def test_the_warm_up_ends_by_the_training_error(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture) -> None:
    """A window's mean error is always below 200 %, so the first ends it; never below 0."""
    pretrain(root, tmp_path / "ends", *WHOLE_RECIPE)
    output = capsys.readouterr()
    assert "step 4: the training error is " in output.out + output.err
    assert "train.capture: goes on without it: CUDA graphs need a GPU, this runs on cpu" in output.out
    pretrain(root, tmp_path / "stays", *WHOLE_RECIPE, "--schedule.warmup_error", "0")
    rates = {
        name: [line["lr"] for line in metrics(tmp_path / name) if line["split"] == "train"]
        for name in ("ends", "stays")
    }
    assert rates["ends"] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert rates["stays"] == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.001, 0.001])
    assert all(line["gradient_norm"] > 0 for line in metrics(tmp_path / "ends") if line["split"] == "train")


def test_two_processes_see_the_batches_of_one(tmp_path: Path, root: Path) -> None:
    """Without batch norm, which is each process's own."""
    recipe = ["--model.options", "{width: 4, norm: none}", "--optimizer.lr", "0.001", "--precision", "fp64"]
    finished = launch(2, str(ROOT / "tools/pretrain.py"), *arguments(root, tmp_path / "two", *recipe))
    assert finished.returncode == 0, finished.stderr
    pretrain(root, tmp_path / "one", *recipe)
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-12, rtol=0)
    assert record(tmp_path / "one")["results"] == record(tmp_path / "two")["results"]


def test_the_record_says_whether_the_files_are_the_published_ones(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        pretrain(root, tmp_path / "run", "--train.steps", "2", "--schedule.milestones", "[1]")["official_data"] is False
    )
    assert "the files are not the published ones" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refusal:
        pretrain(root, tmp_path / "other", "--data.official", "true")
    assert refusal.value.code == 2
    assert "data_batch_1: md5" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in root.rglob("data_batch_*")}
    monkeypatch.setattr("backbones.data.cifar10._OFFICIAL_MD5", sums | {"test_batch": "that of another file"})
    with pytest.raises(SystemExit):
        pretrain(root, tmp_path / "other", "--data.official", "true")
    assert "test_batch: md5" in capsys.readouterr().err


SHAPES = ["--data.name", "shapes", "--data.train_size", "20", "--data.test_size", "5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.input_size", "28", "--data.test_resize", "32"], "data.resident: data.input_size 28"),
        (["--data.augmentation", "random_resized_crop"], "data.resident: data.augmentation random_resized_crop"),
        (["--data.color", "pca"], "data.resident: not with data.color"),
        ([*SHAPES, "--data.test_split", "val"], "data.resident: only with CIFAR-10's pictures"),
        (["--data.test_split", "val5k"], "data.test_split val5k: is a part of train"),
        (["--data.train_split", "validation"], "no split 'validation': use train, train45k, val5k, test"),
        (["--schedule.warmup", "error", "--schedule.warmup_steps", "5"], "schedule.warmup_steps 5: leave it at 0"),
        (
            ["--model.recompute", "2", "--train.capture", "true", "--model.options", "{dropout: 0.1}"],
            "train.capture: not with model.recompute and dropout",
        ),
    ],
)
def test_what_does_not_go_is_one_line(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as refusal:
        pretrain(root, tmp_path / "run", *options)
    assert refusal.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.slow
def test_a_compiled_run_is_close_to_a_plain_one_and_resumes_to_the_same_bits(tmp_path: Path, root: Path) -> None:
    recipe = ["--train.compile", "true", "--optimizer.lr", "0.01"]
    pretrain(root, tmp_path / "whole", *recipe)
    pretrain(root, tmp_path / "plain", "--optimizer.lr", "0.01")
    pretrain(root, tmp_path / "cut", *recipe, "--train.steps", "15", "--schedule.milestones", "[]")
    pretrain(root, tmp_path / "cut", *recipe, "--resume", "--allow_mismatch")
    assert same_bits(tmp_path / "cut", tmp_path / "whole")
    losses = [[line["loss"] for line in metrics(tmp_path / n) if line["split"] == "train"] for n in ("whole", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
