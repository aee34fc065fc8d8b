"""The command `reproduce` end to end, on tiny networks: stopped in every way, continued, and shown."""

import json
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from backbones import jobs
from backbones.reproduce.command import main
from backbones.train import main as pretrain

CONFIG = """
model: {{name: cifar_{name}}}
data: {{name: cifar10, input_size: 32, test_resize: null, augmentation: pad_crop_flip, mean: pixel, std: [1, 1, 1],
  resident: true, test_split: test}}
train: {{steps: 60, batch_size: 4, checkpoint_every: 7, evaluate_every: 30, log_every: 1, workers: 0,
  log_gradient_norm: true}}
optimizer: {{lr: 0.01}}
schedule: {{name: step, milestones: [30, 45]}}
device: cpu
"""
PAPER: dict[str, Any] = {
    "machine": {"name": "a GPU", "price": 2.0, "cpu_factor": 100},
    "data": {
        "cifar10": {"title": "CIFAR-10", "options": {"data.official": True}},
        "tiny": {"title": "tiny pictures", "stands_for": "cifar10", "note": "They are noise."},
    },
    "experiments": {
        name: {"label": label, "config": f"{name}.yaml", "data": "cifar10", "gpu_hours": 0.5}
        for name, label in {"resnet8": "ResNet-8", "plain8": "plain-8"}.items()
    },
    "tables": {
        "both": {
            "title": "Both",
            "metric": "center.top1_error",
            "unit": "%",
            "rows": [{"experiment": "resnet8", "paper": 90.0, "band": 5.0}, {"experiment": "plain8"}],
            "claims": [{"text": "errors are errors", "conditions": [{"experiment": "resnet8", "above": -1.0}]}],
        }
    },
    "figures": {
        "curves": {
            "title": "Curves",
            "curves": {"error_range": [0, 20], "panels": [{"title": "all", "experiments": ["plain8", "resnet8"]}]},
        },
        "layers": {"title": "Layers", "responses": {"experiments": ["plain8", "resnet8"], "pictures": 4}},
        "both": {
            "title": "The beginning",
            "beginning": {"experiments": ["resnet8"], "steps": 10, "numbers": {"gradient_norm": "norm"}},
        },
    },
}


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A declarative file of two networks of eight layers, and pictures to train them on."""
    for name in PAPER["experiments"]:
        (tmp_path / f"{name}.yaml").write_text(CONFIG.format(name=name))
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(PAPER))
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        batch = {b"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), b"labels": rng.integers(0, 10, 4).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path / "paper.yaml"


def arguments(paper: Path, runs: str, *more: str, names: list[str] = ["both", "curves", "layers"]) -> list[str]:  # noqa: B006
    folder = paper.parent
    options = {"data": "tiny", "root": folder / "data", "runs": folder / runs, "output": folder / f"{runs}-out"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [*names, "--paper", str(paper), *words, "--jobs", "2", *more]


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def train_by_hand(paper: Path) -> Path:
    """The run of ResNet-8 that nothing disturbs, in this process, with one thread as the others."""
    output = paper.parent / "whole"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(
        ["--config", f"{paper.parent}/resnet8.yaml", "--data.root", f"{paper.parent}/data", "--output", str(output)]
    )
    torch.set_num_threads(threads)
    return output


def when(condition: Callable[[], Any], act: Callable[[], None]) -> threading.Thread:
    """Acts once, as soon as the condition holds, beside what the test does."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if condition():
                act()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_stopped_in_every_way_and_continued_it_ends_in_the_same_bits(
    paper: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = paper.parent
    whole = train_by_hand(paper)

    processes: dict[str, subprocess.Popen] = {}
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen:
        process = popen(command, **options)
        processes[Path(command[command.index("--output") + 1]).name] = process
        return process

    monkeypatch.setattr(jobs.subprocess, "Popen", start)
    runs = folder / "stopped" / "tiny"
    resnet, plain = runs / "resnet8-seed0", runs / "plain8-seed0"

    # One process is killed: the other goes on, and the command says what failed.
    thread = when(lambda: jobs.last_metrics(resnet).get("step", 0) > 15, lambda: processes["resnet8-seed0"].kill())
    with pytest.raises(SystemExit) as end:
        main(arguments(paper, "stopped"))
    thread.join()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert f"resnet8-seed0 failed: ended by SIGKILL (all of it in {resnet}.log)" in err
    assert "1 of 2 run(s) failed" in err
    assert (record(resnet)["status"], record(plain)["status"]) == ("running", "finished")
    (row,) = [line for line in out.splitlines() if line.startswith("| ResNet-8")]
    assert "| failed" in row
    before = (plain / "run.json").stat().st_mtime_ns, (plain / "run.json").read_bytes()

    # What is left can be seen, and then the whole command is interrupted.
    main([*arguments(paper, "stopped"), "--plan"])
    plan = capsys.readouterr().out
    step = int(plan.split("interrupted at step ")[1].split(" of 60")[0])
    assert step >= 14
    assert step % 7 == 0
    assert f"| {60 - step:>10} |" in plan
    assert "1 finished, 1 to train or go on with" in plan
    thread = when(
        lambda: "resnet8-seed0" in processes and jobs.last_metrics(resnet).get("step", 0) > step + 8,
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    processes.clear()
    with pytest.raises(SystemExit) as end:
        main(arguments(paper, "stopped"))
    thread.join()
    assert end.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert record(resnet)["status"] == "interrupted"
    assert "plain8-seed0" not in processes

    main(arguments(paper, "stopped"))
    assert (whole / "weights.safetensors").read_bytes() == (resnet / "weights.safetensors").read_bytes()
    assert record(whole)["results"] == record(resnet)["results"]
    assert before == ((plain / "run.json").stat().st_mtime_ns, (plain / "run.json").read_bytes())
    shown = capsys.readouterr().out
    check_what_is_shown(folder, shown)

    # Seen again, nothing is trained; asked for otherwise, nothing is mixed up.
    monkeypatch.setattr(jobs.subprocess, "Popen", None)
    main(arguments(paper, "stopped"))
    assert capsys.readouterr().out == shown.partition("\n")[2]
    with pytest.raises(SystemExit) as end:
        main(arguments(paper, "stopped", "--set", "{optimizer.momentum: 0.5}", names=["both"]))
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert f"{resnet}: its run had optimizer.momentum = 0.9, now 0.5 is asked for" in err
    assert "error: 2 run folder(s) can't be used, see above" in err


def check_what_is_shown(folder: Path, printed: str) -> None:
    """Of the runs in `stopped`: every number is that of the runs, and the data are said not to be the paper's."""
    output = folder / "stopped-out" / "tiny"
    table = json.loads((output / "both.json").read_text())
    for row in table["rows"]:
        run = folder / "stopped" / "tiny" / f"{row['experiment']}-seed0"
        error = record(run)["results"]["center"]["top1_error"]
        assert row["values"] == {"0": error}
        assert row["mean"] == error
        assert (row["difference"], row["verdict"]) == (None, "no verdict")
        (line,) = [line for line in printed.splitlines() if line.startswith(f"| {row['label']}")]
        assert f" {error:.2f} |" in line
    assert "tiny pictures; the paper's schedule\n" in printed
    title, *_, rows = (output / "both.md").read_text().split("\n\n", 3)
    assert f"{title}\n\n{rows}" in printed
    assert "NOT COMPARABLE with the paper: not the paper's data (tiny pictures)" in printed
    assert "They are noise." in printed
    assert "**holds**: errors are errors (ResNet-8 " in printed
    for name in ("both", "curves", "layers"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    layers = json.loads((output / "layers.json").read_text())
    assert [(network["label"], len(network["layers"])) for network in layers["networks"]] == [
        ("plain-8", 7),
        ("ResNet-8", 7),
    ]


def test_what_is_asked_must_be_what_was_run(paper: Path, capsys: pytest.CaptureFixture) -> None:
    """Nothing is trained here: each is refused, in one line that names the culprit."""

    def refusal(*words: str, **names: list[str]) -> str:
        with pytest.raises(SystemExit) as end:
            main(arguments(paper, "none", *words, **names))
        out, err = capsys.readouterr()
        assert end.value.code == 2
        assert (out, len(err.splitlines())) == ("", 1)
        assert not (paper.parent / "none").exists()
        return err

    assert "table or figure of the file; it has both, curves, layers" in refusal(names=["fig99"])
    assert "experiments resnet9" in refusal("--experiments", "resnet9")
    assert "data imagenet: give one of cifar10, tiny" in refusal("--data", "imagenet")
    assert "train.stps" in refusal("--set", "{train.stps: 3}")
    assert "set.output" in refusal("--set", "{output: elsewhere}")
    assert "scale 2.0" in refusal("--scale", "2")
    assert "jobs 0" in refusal("--jobs", "0")
    assert "seeds 1 1" in refusal("--seeds", "1", "1")
    assert "root /nowhere" in refusal("--root", "/nowhere")
