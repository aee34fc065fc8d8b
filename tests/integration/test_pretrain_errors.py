"""What a user can get wrong: one line on stderr that names the culprit, and exit code 2."""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, pretrain, record, start_pretrain
from PIL import Image

from backbones.evaluate import main as evaluate_main
from backbones.weights import load_weights

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Refused:
    """Runs a command that must leave with exit code 2; returns its error message."""

    def refused(command: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(SystemExit) as left:
            command(*arguments)
        assert left.value.code == 2
        return only_error(capsys.readouterr().err)

    return refused


def only_error(stderr: str) -> str:
    """The one line of an error; a progress bar may stand above it."""
    *above, line = stderr.rstrip("\n").split("\n")
    assert line.startswith("error: ")
    assert all(text.strip() == "" or re.search(r"(step|picture)/s|\?(step|picture)", text) for text in above), stderr
    return line


def folder(root: Path, *arguments: str) -> list[str]:
    """Arguments for training on class folders."""
    return ["--data.name", "folder", "--data.root", str(root), "--data.augmentation", "pad_crop_flip", *arguments]


class Trap:
    """A pickle of this makes a folder when it is loaded without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_process_of_its_own_says_one_line(tmp_path: Path) -> None:
    process = start_pretrain(tmp_path / "run", *folder(tmp_path / "nowhere"))
    out, error = process.communicate()
    assert process.returncode == 2
    assert error == (
        f"error: {tmp_path}/nowhere/train: no such folder (expected {tmp_path}/nowhere/train/<class>/<picture>)\n"
    )
    assert out == ""
    assert not (tmp_path / "run").exists()


def test_debug_shows_where(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        pretrain(tmp_path / "run", *folder(tmp_path / "nowhere"), "--debug")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bogus", "1"], "--bogus"),
        (["--train.bogus", "1"], "train.bogus"),
        (["--train.steps", "many"], "train.steps"),
        (["--train.steps", "0"], "train.steps 0"),
        (["--data.name", "imagenet"], "data.name"),
        (["--precision", "fp8"], "precision"),
        (["--model.name", "resnet9"], "no model 'resnet9'"),
        (["--model.options", "{depth: 9}"], "no option 'depth'"),
        (["--model.options", "{width: wide}"], "width of resnet18"),
        (["--model.options", "{num_classes: 9}"], "model.options.num_classes"),
        (["--model.options", "{norm_layer: x}"], "model.options.norm_layer"),
        (["--train.batch_size", "9", "--train.accumulate", "2"], "train.batch_size 9"),
        (["--optimizer.lr", "-1"], "optimizer.lr -1"),
        (["--optimizer.lr", ".nan"], "optimizer.lr nan"),
        (["--schedule.milestones", "[5, 2]"], "schedule.milestones [5, 2]"),
        (["--seed", "99999999999999999999"], "seed 99999999999999999999"),
        (["--data.train_size", "0"], "0 built-in shapes"),
        (["--data.train_split", "dev"], "no split 'dev'"),
        (["--data.input_size", "0"], "data.input_size 0"),
        (["--data.test_resize", "31"], "data.test_resize 31"),
        (["--data.std", "[1, 0, 1]"], "data.std [1.0, 0.0, 1.0]"),
        (["--data.mean", "[1, 2]"], "data.mean [1.0, 2.0]"),
        (["--data.padding", "-1"], "data.padding -1"),
        (["--data.augmentation", "scale_crop_flip", "--data.scale_range", "[16, 20]"], "data.scale_range [16, 20]"),
        (["--data.name", "folder"], "data.root"),
        (["--data.name", "cifar10"], "data.root"),
        (["--sync_bn"], "sync_bn"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--output", ""], "--output"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, refused: Refused, arguments: list[str], named: str) -> None:
    assert named in refused(pretrain, tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, refused: Refused) -> None:
    assert "no usable GPU; set --device cpu" in refused(pretrain, tmp_path / "run", "--device", "cuda")


@pytest.mark.parametrize(
    ("text", "named"),
    [("train: {steps: 1", "mine.yaml"), ("trian: {steps: 1}", "trian"), ("train: {stepz: 1}", "stepz")],
)
def test_a_wrong_config_file_is_named(tmp_path: Path, refused: Refused, text: str, named: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert named in refused(pretrain, tmp_path / "run", "--config", str(tmp_path / "mine.yaml"))


def test_data_without_pictures_are_named(tmp_path: Path, refused: Refused, pictures: Path) -> None:
    assert "nowhere/train: no such folder" in refused(pretrain, tmp_path / "run", *folder(tmp_path / "nowhere"))
    (pictures / "empty").mkdir()
    message = refused(pretrain, tmp_path / "run", *folder(pictures, "--data.train_split", "empty"))
    assert "empty: holds no class folders" in message
    (pictures / "train" / "cow").mkdir()
    assert "train/cow: holds no pictures" in refused(pretrain, tmp_path / "run", *folder(pictures))
    (pictures / "train" / "cow").rmdir()
    (pictures / "val" / "bee").rename(pictures / "val" / "wasp")
    assert "'wasp' is not one of the network's 2 classes" in refused(pretrain, tmp_path / "run", *folder(pictures))


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_corrupt_picture_is_named(tmp_path: Path, refused: Refused, pictures: Path, workers: str, split: str) -> None:
    path = pictures / split / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    message = refused(pretrain, tmp_path / "run", *folder(pictures, "--train.workers", workers))
    assert message.startswith(f"error: {path}: truncated or corrupt picture")
    assert record(tmp_path / "run")["status"] == "failed"
    assert str(path) in record(tmp_path / "run")["error"]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_picture_too_small_is_named(tmp_path: Path, refused: Refused, pictures: Path, workers: str) -> None:
    path = pictures / "train" / "ape" / "2.png"
    Image.new("RGB", (36, 20)).save(path)
    arguments = folder(pictures, "--train.workers", workers)
    message = refused(pretrain, tmp_path / "run", *arguments)
    assert message.startswith(f"error: {path}: a picture of 44x28 is smaller than the crop of 32")  # with padding
    Image.new("RGB", (40, 36)).save(path)
    message = refused(pretrain, tmp_path / "run", *arguments, "--data.augmentation", "flip", "--overwrite")
    assert "a picture of 40x36, data.input_size is 32" in message
    small = pictures / "val" / "ape" / "0.png"
    Image.new("RGB", (40, 31)).save(small)
    message = refused(pretrain, tmp_path / "run", *arguments, "--overwrite")
    assert message.startswith(
        f"error: {small}: a picture of 40x31 is smaller than the crop of 32: set data.test_resize"
    )


def test_cifar_s_pickles_are_not_trusted(tmp_path: Path, refused: Refused) -> None:
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    cifar = ["--data.name", "cifar10", "--data.root", str(tmp_path), "--data.test_split", "test"]
    assert "data_batch_1: no such file" in refused(pretrain, tmp_path / "run", *cifar)
    for content in (pickle.dumps(Trap(tmp_path / "sprung")), pickle.dumps({b"data": 1})[:-5]):
        for number in range(1, 6):
            (batches / f"data_batch_{number}").write_bytes(content)
        assert "data_batch_1: not a batch of CIFAR-10" in refused(pretrain, tmp_path / "run", *cifar)
    assert not (tmp_path / "sprung").exists()


def test_weights_that_do_not_fit_are_named(tmp_path: Path, refused: Refused) -> None:
    pretrain(tmp_path / "run", "--train.steps", "1")
    file = tmp_path / "run" / "weights.safetensors"
    wide = ("--weights", str(file), "--model.options", "{width: 8}")
    assert "options are {'width': 4}, the config asks for model.options.width 8" in refused(
        pretrain, tmp_path / "new", *wide
    )
    other = ("--weights", str(tmp_path / "run"), "--model.name", "vgg16")
    assert "holds a resnet18, the config asks for model.name vgg16" in refused(pretrain, tmp_path / "new", *other)
    assert "nowhere: no such file" in refused(pretrain, tmp_path / "new", "--weights", str(tmp_path / "nowhere"))
    file.write_bytes(file.read_bytes()[:5000])
    for command in (lambda: pretrain(tmp_path / "new", "--weights", str(file)), lambda: evaluate(file)):
        assert f"{file}: not a readable safetensors file" in refused(command)
    torch.save(Trap(tmp_path / "sprung"), file)
    for command in (lambda: pretrain(tmp_path / "new", "--weights", str(file)), lambda: evaluate(file)):
        assert f"{file}: not a readable safetensors file" in refused(command)
    assert not (tmp_path / "sprung").exists()


def evaluate(*models: Path, options: tuple[str, ...] = ()) -> None:
    data = ("--data.name", "shapes", "--data.test_size", "5", "--workers", "0")
    evaluate_main(["--model", *map(str, models), *data, *options])


def test_the_test_command_names_what_is_wrong(tmp_path: Path, refused: Refused, pictures: Path) -> None:
    pretrain(tmp_path / "shapes", "--train.steps", "1")
    pretrain(tmp_path / "folder", "--train.steps", "1", *folder(pictures))
    assert "folder: its 2 classes are not those" in refused(evaluate, tmp_path / "shapes", tmp_path / "folder")
    assert "are not the network's (ape, bee)" in refused(evaluate, tmp_path / "folder")
    assert "protocol" in refused(lambda: evaluate(tmp_path / "shapes", options=("--protocol", "5crop")))
    assert "batch_size 0" in refused(lambda: evaluate(tmp_path / "shapes", options=("--batch_size", "0")))
    assert "no run folder" in refused(evaluate, tmp_path)


def test_another_run_is_not_resumed(tmp_path: Path, refused: Refused, pictures: Path) -> None:
    run = tmp_path / "run"
    pretrain(run, *folder(pictures), "--train.steps", "4")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    same = [*folder(pictures), "--train.steps", "4"]
    assert "--resume or replace it with --overwrite" in refused(pretrain, run, *same)
    assert "seed = 0, now it is 1" in refused(pretrain, run, *same, "--resume", "--seed", "1")
    assert "optimizer.lr = 0.1, now it is 0.5" in refused(pretrain, run, *same, "--resume", "--optimizer.lr", "0.5")
    extra = pictures / "train" / "ape" / "new.png"
    Image.new("RGB", (40, 36)).save(extra)
    assert "data_fingerprint" in refused(pretrain, run, *same, "--resume")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    pretrain(run, *same, "--resume", "--seed", "1", "--allow_mismatch")
    assert record(run)["seed"] == 1


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    pretrain(run)
    expected = load_weights(run)[0]
    latest = run / "checkpoints" / "step_00000006.pt"
    whole = latest.read_bytes()
    torch.save({"model": Trap(tmp_path / "sprung")}, latest)
    trap = latest.read_bytes()
    for content in (b"", whole[:1000], trap, pickle.dumps(Trap(tmp_path / "sprung"))):
        latest.write_bytes(content)
        capsys.readouterr()
        pretrain(run, "--resume")
        said = f"{latest}: not a readable checkpoint of plain tensors"
        assert next(line for line in capsys.readouterr().out.split("\n") if line.startswith(said)).endswith(
            "goes on from step 4, the one before (it is kept as step_00000006.pt.damaged)"
        )
        assert latest.with_name(f"{latest.name}.damaged").read_bytes() == content
        assert all(torch.equal(expected[name], tensor) for name, tensor in load_weights(run)[0].items())
    assert not (tmp_path / "sprung").exists()
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(whole[:1000])
    left = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    message = refused(pretrain, run, "--resume")
    assert f"{latest}: not a readable checkpoint" in message
    assert "nor are the 1 before it: put a good one in its place, or start anew with --overwrite" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == left


def test_divergence_is_named(tmp_path: Path, refused: Refused) -> None:
    message = refused(pretrain, tmp_path / "run", "--optimizer.lr", "1e30", "--train.checkpoint_every", "1")
    assert "not a finite number at step" in message or "not finite numbers after step" in message
    assert "--optimizer.lr" in message
    assert record(tmp_path / "run")["status"] == "failed"


def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    for flag in ([], ["--resume"], ["--overwrite"]):
        assert "no run of ours" in refused(pretrain, tmp_path, *flag)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_console_script_is_the_same_command() -> None:
    script = Path(sys.executable).parent / "resnet-pretrain"
    if not script.exists():
        pytest.skip("the project is not installed here")
    finished = subprocess.run([script, "--bogus"], cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (2, "error: unrecognized arguments: --bogus\n")
