"""Parts of the recipes through the command: colours, plateau, averages, exact batch norm, fine-tuning, bad batches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import metrics, pretrain, record

from backbones.config import ClassificationData
from backbones.data.batches import Batch, pixel_loader
from backbones.data.readers import read_split
from backbones.data.sampler import SampleKey
from backbones.data.statistics import compute_statistics, save_statistics, statistics_path
from backbones.data.transforms import NamedTransforms
from backbones.engine.checkpoint import latest_checkpoint, load_checkpoint
from backbones.evaluate import error_rates
from backbones.inputs import augmentation, input_maker
from backbones.scores import class_scores
from backbones.train import main
from backbones.weights import WeightsMetadata, load_classifier, load_weights

PLATEAU = (
    *("--schedule.name", "plateau", "--schedule.plateau_window", "3", "--schedule.plateau_patience", "1"),
    *("--schedule.plateau_improvement", "100", "--train.steps", "16", "--train.log_every", "1"),
)
ALL_PARTS = (
    *PLATEAU,
    *("--train.ema_decay", "0.9", "--label_smoothing", "0.1", "--exact_bn", "--data.color", "pca"),
    *("--data.mean", "pixel", "--data.transforms", "[{name: RandomRotation, degrees: 10}]"),
)
ON_CPU: dict[str, Any] = {"device": torch.device("cpu"), "batch_size": 64, "workers": 0}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_weights(output)[0]


def write_statistics(root: Path, size: int) -> None:
    train = read_split("folder", str(root), "train", None, 0, 0)
    found = compute_statistics(train, size=size, shorter=None, workers=0, progress=False)
    save_statistics(statistics_path(root, size), found)


def test_the_rate_falls_when_the_error_stays(tmp_path: Path) -> None:
    pretrain(tmp_path / "run", *PLATEAU, "--schedule.warmup_steps", "0")
    rates = [line["lr"] for line in metrics(tmp_path / "run") if line["split"] == "train"]
    # The first window sets the best; from then on none is 100 points better: three reductions, and no fourth.
    assert rates == pytest.approx([0.1] * 6 + [0.01] * 3 + [0.001] * 3 + [0.0001] * 4)


@pytest.mark.parametrize("cut", ["4", "7"])
def test_all_parts_resume_to_the_same_bits(tmp_path: Path, cut: str) -> None:
    """Stopped in the middle of a plateau's window, and with other checkpoints than the run that was not."""
    pretrain(tmp_path / "whole", *ALL_PARTS)
    pretrain(tmp_path / "cut", *ALL_PARTS, "--train.steps", cut, "--train.checkpoint_every", cut)
    pretrain(tmp_path / "cut", *ALL_PARTS, "--train.checkpoint_every", "5", "--resume", "--allow_mismatch")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [[m for m in metrics(tmp_path / run) if m["split"] == "train"] for run in ("whole", "cut")]
    assert lines[0] == lines[1]


def test_the_average_is_what_is_tested_and_kept(tmp_path: Path) -> None:
    often = ("--train.evaluate_every", "1", "--train.checkpoint_every", "1", "--train.keep_checkpoints", "9")
    for decay in ("0", "0.5"):
        pretrain(tmp_path / decay, "--train.ema_decay", decay, *often)
    last = load_checkpoint(latest_checkpoint(tmp_path / "0.5" / "checkpoints"))
    plain, averaged = weights(tmp_path / "0"), weights(tmp_path / "0.5")
    for name, tensor in plain.items():
        assert torch.equal(last["model"][name], tensor)  # training itself goes its way
    assert torch.equal(averaged["fc.weight"], last["average"]["tensors"]["fc.weight"])
    assert not torch.equal(averaged["fc.weight"], plain["fc.weight"])
    # Each test in the middle of the run is of that step's average.
    network, metadata = load_classifier(tmp_path / "0.5")
    test_set = read_split("shapes", None, "val", metadata.classes, 32, 13)
    different = 0
    for line in [line for line in metrics(tmp_path / "0.5") if line["split"] == "test"][:-1]:
        saved = load_checkpoint(tmp_path / "0.5" / "checkpoints" / f"step_{line['step']:08d}.pt")
        rates = []
        for state in (saved["average"]["tensors"], saved["model"]):
            network.load_state_dict(saved["model"] | state)
            scores = class_scores(network, metadata, test_set, "center", range(13), **ON_CPU)
            wrong = error_rates(scores, torch.from_numpy(test_set.labels))
            rates.append([100 * wrong[1] / 13, 100 * wrong[2] / 13])
        assert [line["top1_error"], line["top5_error"]] == pytest.approx(rates[0]), line
        different += rates[0] != rates[1]
    assert different  # else this could not tell


def test_exact_batch_norm_says_so(tmp_path: Path) -> None:
    for name, arguments in {"moving": (), "exact": ("--exact_bn",)}.items():
        pretrain(tmp_path / name, *arguments)
        assert load_weights(tmp_path / name)[1].batch_norm == name
    moving, exact = weights(tmp_path / "moving"), weights(tmp_path / "exact")
    for name in moving:
        same = torch.equal(moving[name], exact[name])
        assert same == (not name.endswith(("running_mean", "running_var", "num_batches_tracked"))), name


def test_colours_vary_along_the_components_on_the_device(pictures: Path) -> None:
    dataset = read_split("folder", str(pictures), "train", None, 0, 0)
    found = compute_statistics(dataset, size=36, shorter=None, workers=0, progress=False)
    data = ClassificationData(root=str(pictures), input_size=36, augmentation="none", color="pca")
    data.augmentation = "pad_crop_flip"
    no_transforms = NamedTransforms([], 36)
    load = pixel_loader(dataset, augmentation(data), no_transforms, found.color_directions, size=36)
    shifts = load([SampleKey(0, seed) for seed in range(3000)]).color_shifts.numpy()
    draws = shifts @ np.linalg.inv(found.color_directions).T
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(np.cov(draws.T), 0.01 * np.eye(3), atol=0.001)  # a deviation of 0.1, independent
    assert np.array_equal(load([SampleKey(0, 7)]).color_shifts[0], shifts[7])
    # On the device: pixel + shift, less the mean, over the deviation.
    metadata = WeightsMetadata("classification", "resnet18", {}, [], [10.0, 20.0, 30.0], [2.0, 4.0, 5.0], 4)
    images = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    shift = torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    batch = Batch(images, torch.tensor([False, True]), torch.zeros(2), shift)
    result, _ = input_maker(metadata, torch.device("cpu"), torch.float64)(batch)
    result[1] = result[1].flip(2)  # the mirror image was shown
    for b, c, y, x in np.ndindex(2, 3, 4, 4):
        expected = (float(images[b, y, x, c]) + float(shift[b, c]) - metadata.mean[c]) / metadata.std[c]
        assert float(result[b, c, y, x]) == pytest.approx(expected)


def test_folders_take_mean_and_colours_from_their_file(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = (
        *("--data.name", "folder", "--data.root", str(pictures), "--data.augmentation", "pad_crop_flip"),
        *("--data.mean", "pixel", "--data.color", "pca", "--data.std", "[1, 1, 1]"),
    )

    def refused(words: str) -> None:
        with pytest.raises(SystemExit) as exit_info:
            pretrain(tmp_path / "refused", *folder)
        assert exit_info.value.code == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert words in message
        assert "prepare_data.py statistics --root" in message

    refused("no such file")
    write_statistics(pictures, 32)
    pretrain(tmp_path / "run", *folder)
    metadata = load_weights(tmp_path / "run")[1]
    assert np.shape(metadata.mean) == (3, 32, 32)
    assert metadata.std == [1, 1, 1]
    (pictures / "train/ape/0.png").rename(pictures / "train/ape/9.png")
    pretrain(tmp_path / "other", *folder[:6])  # which needs no statistics
    capsys.readouterr()
    refused("is of other pictures")
    write_statistics(pictures, 36)
    statistics_path(pictures, 36).rename(statistics_path(pictures, 32))
    refused("was made with {'input_size': 36")


def test_fine_tuning_with_fixed_stages(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture) -> None:
    pretrain(tmp_path / "first", "--data.mean", "pixel", "--data.std", "[50, 60, 70]")
    folder = ("--data.name", "folder", "--data.root", str(pictures), "--data.augmentation", "pad_crop_flip")
    tune = (*folder, "--weights", str(tmp_path / "first"), "--data.mean", "null", "--data.std", "null")
    pretrain(tmp_path / "tuned", *tune, "--model.freeze_stages", "[conv1, conv2]")
    before, after = weights(tmp_path / "first"), weights(tmp_path / "tuned")
    for name in before:
        fixed = name.startswith(("conv1", "bn1", "layer1"))
        same = before[name].shape == after[name].shape and torch.equal(before[name], after[name])
        assert same == fixed, name
    # Its pictures are treated as those it first learned from.
    metadata = [load_weights(tmp_path / run)[1] for run in ("first", "tuned")]
    assert metadata[0].mean == metadata[1].mean
    assert metadata[1].std == [50, 60, 70]
    table = capsys.readouterr().out
    assert "conv1                  0           596" in table
    assert "classifier            66             0" in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.freeze_stages", "[conv1]"], "model.freeze_stages: new weights can't be fixed"),
        (["--label_smoothing", "1"], "label_smoothing 1.0: give a number from 0"),
        (["--protocol"], "protocol: name one or more"),
        (["--scale_batch", "0.3"], "scale_batch 0.3"),
        (["--train.ema_decay", "1"], "train.ema_decay 1.0"),
        (["--weights", ""], "weights: is empty"),
        (["--schedule.milestones", "[-5]"], "schedule.milestones [-5]"),
        (["--data.augmentation", "scale_crop_flip", "--data.scale_range", "[32, 100000]"], "data.scale_range"),
        (["--data.transforms", "[{name: CenterCrop, size: 16}]"], "32x32 as it was"),
        (
            ["--model.name", "vgg16", "--data.input_size", "544", "--protocol", "multiscale"],
            "for pictures of 544",
        ),
        (["--train.steps", "-5", "--scale_batch", "2"], "train.steps -5: give 1 or more"),
        (["--scale_batch", "4", "--schedule.milestones", "[1, 2]"], "schedule.milestones [1, 2] fall together"),
        (["--schedule.plateau_window", "0"], "schedule.plateau_window 0: give 1 or more"),
        (["--data.augmentation", "random_resized_crop", "--data.area_range", "[0, 1]"], "data.area_range [0.0, 1.0]"),
        (["--data.transforms", "[{name: Rotate}]"], "data.transforms {'name': 'Rotate'}"),
        (["--fidelity", "exact"], "fidelity"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        pretrain(tmp_path / "run", *arguments)
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1]
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_diverged_run_names_its_batch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    explodes = ("--train.steps", "20", "--train.checkpoint_every", "5", "--train.log_every", "1")
    explodes += ("--schedule.name", "step", "--schedule.milestones", "[5]", "--schedule.warmup_steps", "0")
    with pytest.raises(SystemExit) as exit_info:
        pretrain(run, "--optimizer.lr", "1e-3", *explodes, "--schedule.factor", "1e15")
    assert exit_info.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert record(run)["status"] == "failed"
    batch: dict[str, Any] = json.loads((run / "diverged_batch.json").read_text())
    assert f"at step {batch['step']}, a batch of 8 ({batch['samples'][0]}, " in message
    assert "lower --optimizer.lr" in message
    assert len(batch["samples"]) == 8
    assert all(name.startswith("shapes train picture ") for name in batch["samples"])
    state = load_checkpoint(latest_checkpoint(run / "checkpoints"))
    assert all(t.isfinite().all() for t in state["model"].values())
    assert batch["step"] > state["step"] == 5
    pretrain(run, "--optimizer.lr", "1e-3", *explodes, "--schedule.factor", "0.1", "--resume", "--allow_mismatch")
    assert not (run / "diverged_batch.json").exists()


def test_a_run_prints_where_it_departs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pretrain(tmp_path / "run")
    out = capsys.readouterr().out
    assert "recipe: departs from the paper's in" in out
    assert "  schedule.name: cosine (paper: plateau)\n" in out


def test_weights_of_another_network_are_refused_and_their_options_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Stride in the 3x3 and Caffe's pool change no shape: loaded into another network they would be silently wrong."""
    net = ("--model.name", "resnet50", "--train.steps", "1", "--optimizer.lr", "0")
    pretrain(tmp_path / "first", *net, "--model.options", "{width: 2, stride_in: 3x3, pool: caffe}")
    start = (*net, "--weights", str(tmp_path / "first"))
    pretrain(tmp_path / "tuned", *start, "--model.options", "{width: 2}")
    assert load_weights(tmp_path / "tuned")[1].options == {"width": 2, "stride_in": "3x3", "pool": "caffe"}
    # The modern recipe brings no stride of its own to given weights, the paper's no mean.
    pretrain(tmp_path / "modern", *start, "--model.options", "{}", "--fidelity", "modern", "--protocol", "center")
    capsys.readouterr()
    for arguments, words in [
        (("--model.options", "{width: 2, stride_in: 1x1}"), "the config asks for model.options.stride_in 1x1"),
        (("--model.options", "{width: 2, pool: torch}"), "the config asks for model.options.pool torch"),
        (("--model.options", "{width: 4}"), "the config asks for model.options.width 4"),
        (("--model.name", "resnet101", "--model.options", "{width: 2}"), "holds a resnet50, the config asks for"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            pretrain(tmp_path / "refused", *start, *arguments)
        assert exit_info.value.code == 2
        assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_papers_recipe_leaves_given_weights_their_preprocessing(tmp_path: Path) -> None:
    pretrain(tmp_path / "first", "--model.name", "cifar_resnet8", "--model.options", "{}")
    small = ("--data.name", "shapes", "--train.steps", "1", "--train.batch_size", "8", "--train.checkpoint_every", "1")
    sizes = ("--data.train_size", "8", "--data.test_size", "5", "--train.workers", "0", "--data.test_split", "val")
    output = ("--output", str(tmp_path / "tuned"), "--weights", str(tmp_path / "first"))
    main(["--fidelity", "paper", "--model.name", "cifar_resnet8", *small, *sizes, *output, "--train.log_every", "1"])
    metadata = load_weights(tmp_path / "tuned")[1]
    assert (metadata.mean, metadata.std) == ([127.5] * 3, [64] * 3)


def test_transforms_that_change_the_size_at_times_name_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sometimes = "[{name: RandomResize, min_size: 31, max_size: 34}]"
    messages = set()
    for _ in range(6):  # the probe may be of the right size by luck
        with pytest.raises(SystemExit) as exit_info:
            pretrain(tmp_path / "run", "--data.transforms", sometimes, "--overwrite")
        assert exit_info.value.code == 2
        messages.add(capsys.readouterr().err.strip().splitlines()[-1].split(":")[1].strip().split(" picture")[0])
    assert messages <= {"data.transforms RandomResize", "shapes train"}


def test_the_curve_stays_one_of_centre_crops(tmp_path: Path) -> None:
    results = pretrain(tmp_path / "run", "--protocol", "10crop", "--train.evaluate_every", "3")["results"]
    assert results.keys() == {"center", "10crop"}
    last = [line for line in metrics(tmp_path / "run") if line["split"] == "test"][-1]
    assert last == {"step": 6, "split": "test"} | results["center"]


def test_parts_that_a_run_was_without_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pretrain(tmp_path / "run")
    for arguments, name in [(("--train.ema_decay", "0.9"), "average"), (("--schedule.name", "plateau"), "plateau")]:
        with pytest.raises(SystemExit):
            pretrain(tmp_path / "run", *arguments, "--train.steps", "8", "--resume", "--allow_mismatch")
        assert f"holds no {name}, its run went without" in capsys.readouterr().err


def test_a_scaled_run_resumes(tmp_path: Path) -> None:
    scaled = ("--scale_batch", "0.5", "--train.checkpoint_every", "2")
    pretrain(tmp_path / "run", *scaled)
    written = record(tmp_path / "run")["config"]
    assert (written["train"]["batch_size"], written["train"]["steps"], written["scale_batch"]) == (4, 12, 1)
    pretrain(tmp_path / "run", *scaled, "--resume")
    assert record(tmp_path / "run")["status"] == "finished"
