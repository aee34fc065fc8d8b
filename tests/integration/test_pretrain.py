"""The command `pretrain` from start to end: what it leaves, and that a kill changes nothing."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from commands import metrics, pretrain, record, start_pretrain, wait_for

from backbones.engine.checkpoint import latest_checkpoint
from backbones.engine.run import RunFolder
from backbones.evaluate import main as evaluate_main
from backbones.weights import load_classifier, load_weights

VGG = ("--model.name", "vgg16_bn")
LONG = ("--train.steps", "40", "--train.evaluate_every", "16", "--optimizer.lr", "0.02")


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_weights(output)[0]


def same_bits(one: Path, two: Path) -> bool:
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_all_that_is_promised(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    expected = "[{metric: center.top1_error, value: 50, tolerance: 50, source: a guess}]"
    written = pretrain(tmp_path / "run", "--expected", expected)
    out = capsys.readouterr().out
    assert "resnet18: " in out
    assert "40 training and 13 test pictures of 6 classes" in out
    assert "center.top1_error: expected 50 ± 50 (a guess), measured" in out
    assert written["status"] == "finished"
    assert written["config"]["model"]["options"] == {"width": 4}
    assert written["processes"] == written["threads"] == 1
    error = written["results"]["center"]["top1_error"]
    assert error == pytest.approx(100 * round(error * 13 / 100) / 13)  # of thirteen pictures
    lines = metrics(tmp_path / "run")
    assert [(line["step"], line["split"]) for line in lines] == [(2, "train"), (4, "train"), (6, "train"), (6, "test")]
    assert lines[-1] == {"step": 6, "split": "test"} | written["results"]["center"]
    assert lines[0].keys() == {"step", "split", "loss", "top1_error", "lr"}
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step_00000004.pt", "step_00000006.pt"]
    network, metadata = load_classifier(tmp_path / "run")  # no config
    assert sum(p.numel() for p in network.parameters()) == 44_970
    assert (metadata.input_size, metadata.mean, metadata.classes[0]) == (32, [127.5] * 3, "circle")


def test_the_seed_decides_all_bits(tmp_path: Path) -> None:
    for name, arguments in {
        "first": [],
        "again": ["--deterministic"],
        "other": ["--seed", "1"],
        "split": ["--train.accumulate", "2", "--train.workers", "2"],
    }.items():
        pretrain(tmp_path / name, *arguments)
    assert same_bits(tmp_path / "first", tmp_path / "again")
    assert metrics(tmp_path / "first") == metrics(tmp_path / "again")
    assert not same_bits(tmp_path / "first", tmp_path / "other")
    assert metrics(tmp_path / "split")[0]["lr"] == metrics(tmp_path / "first")[0]["lr"]


@pytest.mark.parametrize(("arguments", "workers"), [((), "0"), (VGG, "2")], ids=["resnet", "vgg with dropout"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, arguments: tuple[str, ...], workers: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = (*arguments, *LONG, "--train.workers", workers)
    process = start_pretrain(cut, *arguments)
    checkpoints = RunFolder(cut, {}).checkpoints
    wait_for(lambda: (latest_checkpoint(checkpoints) or Path()).name >= "step_00000008.pt", process)
    process.kill()
    process.communicate()
    pretrain(whole, *arguments)
    assert record(cut)["status"] == "running"
    assert not (cut / "weights.safetensors").exists()
    # What a kill in the middle of writing leaves.
    latest = latest_checkpoint(checkpoints)
    assert latest is not None
    (checkpoints / ".step_00000036.pt.tmp").write_bytes(latest.read_bytes()[:1000])
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"step": 38, "split": "tr')
    pretrain(cut, *arguments, "--resume")
    assert record(cut)["status"] == "finished"
    assert (cut / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert metrics(cut) == metrics(whole)
    assert record(cut)["results"] == record(whole)["results"]


def test_an_interrupted_run_says_so_and_resumes(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start_pretrain(cut, *LONG, "--train.workers", "2")
    wait_for(lambda: latest_checkpoint(cut / "checkpoints") is not None, process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does: the loading processes get it too
    error = process.communicate()[1]
    assert process.returncode == 130
    step = int(latest_checkpoint(cut / "checkpoints").stem.removeprefix("step_"))
    assert error.rstrip("\n").split("\n")[-1] == f"interrupted by SIGINT after step {step}: go on with --resume"
    assert "Traceback" not in error
    assert record(cut)["status"] == "interrupted"
    pretrain(whole, *LONG)
    pretrain(cut, *LONG, "--resume")  # without helpers, which changes nothing
    assert same_bits(cut, whole)
    assert metrics(cut) == metrics(whole)


def test_a_finished_run_resumed_stays_as_it_is(tmp_path: Path) -> None:
    first = pretrain(tmp_path / "run")
    before = (tmp_path / "run" / "weights.safetensors").read_bytes(), metrics(tmp_path / "run")
    again = pretrain(tmp_path / "run", "--resume")
    assert ((tmp_path / "run" / "weights.safetensors").read_bytes(), metrics(tmp_path / "run")) == before
    assert (again["status"], again["results"]) == ("finished", first["results"])


def test_longer_training_goes_on_where_asked_for(tmp_path: Path) -> None:
    pretrain(tmp_path / "run")
    pretrain(tmp_path / "run", "--train.steps", "8", "--resume", "--allow_mismatch")
    steps = [(line["step"], line["split"]) for line in metrics(tmp_path / "run")]
    assert steps[2:] == [(6, "train"), (6, "test"), (8, "train"), (8, "test")]


@pytest.mark.parametrize(("name", "last"), [("resnet18", "fc"), ("vgg16_bn", "classifier.6")])
def test_fine_tuning_replaces_the_last_layer_only(tmp_path: Path, pictures: Path, name: str, last: str) -> None:
    pretrain(tmp_path / "first", "--model.name", name)
    still = ("--optimizer.lr", "0", "--train.steps", "1", "--model.name", name, "--weights", str(tmp_path / "first"))
    folder = ("--data.name", "folder", "--data.root", str(pictures), "--data.augmentation", "pad_crop_flip")
    pretrain(tmp_path / "same", *still)
    pretrain(tmp_path / "new", *still, *folder)
    before, same, new = (weights(tmp_path / run) for run in ("first", "same", "new"))
    parameters = [key for key, _ in load_classifier(tmp_path / "first")[0].named_parameters()]
    assert all(torch.equal(before[key], same[key]) for key in parameters)
    changed = {
        key for key in parameters if before[key].shape != new[key].shape or not torch.equal(before[key], new[key])
    }
    assert changed == {f"{last}.weight", f"{last}.bias"}
    assert new[f"{last}.weight"].shape[0] == 2
    assert load_weights(tmp_path / "new")[1].classes == ["ape", "bee"]


def test_the_test_command_finds_the_numbers_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    results = [pretrain(run, "--seed", str(seed))["results"] for seed, run in enumerate(runs)]
    data = ["--data.name", "shapes", "--data.test_size", "13", "--workers", "0"]
    output = tmp_path / "results" / "r.json"
    output.parent.mkdir()
    evaluate_main(["--model", str(runs[1]), *data, "--output", str(output)])
    assert json.loads(output.read_text()) == results[1]
    evaluate_main(["--model", *map(str, runs), *data, "--protocol", "center", "10crop", "--output", str(output)])
    assert json.loads(output.read_text()).keys() == {"center", "10crop"}
    assert "13 pictures, 2 network(s)" in capsys.readouterr().out
