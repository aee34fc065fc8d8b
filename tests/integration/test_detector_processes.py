"""Two processes under torchrun do what one does: the same training, the same detections."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detector_commands import SMALL, record, snapshot, write_backbone

from backbones.weights import load_weights
from detection.test import main as evaluate_main
from detection.train import main as train_main

# Training in four steps too.
RUNS = {
    "roi_align": ("--roi.pooling", "roi_align"),
    "roi_pool": ("--roi.pooling", "roi_pool"),
    "alternating": ("--scheme", "alternating", "--train.steps", "8", "--train.checkpoint_every", "8"),
}
PICTURES = (7, 1)  # that two processes can't share alike; fewer than there are processes
# Starting torchrun takes longer than all that these commands do: it starts once for all of them. Each command has a
# port of its own, by which its processes find each other: torchrun's own store serves only one after the other.
COMMANDS = """
import json, os, sys
from detection.test import main as evaluate_main
from detection.train import main as train_main
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
for name, port, arguments in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    {"train": train_main, "evaluate": evaluate_main}[name](arguments)
"""


def training(output: Path, weights: Path, name: str) -> list[str]:
    steps = ["--train.steps", "20", "--train.checkpoint_every", "20", "--precision", "fp64"]
    steps += ["--roi.score_threshold", "0.02"]
    return [*SMALL, *steps, *RUNS[name], "--backbone.weights", str(weights), "--output", str(output)]


def evaluation(output: Path, model: Path, pictures: int) -> list[str]:
    data = ["--data.name", "shapes", "--data.test_split", "test", "--data.test_size", str(pictures)]
    return ["--model", str(model), *data, "--device", "cpu", "--workers", "0", "--output", str(output)]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and two leave: runs ("one roi_align", ...) and tests of the same detector."""
    folder = tmp_path_factory.mktemp("processes")
    weights = write_backbone(folder / "resnet18.safetensors", width=4)
    for name in RUNS:
        train_main(training(folder / f"one {name}", weights, name))
    for pictures in PICTURES:
        evaluate_main(evaluation(folder / f"one test {pictures}", folder / "one roi_align", pictures))

    script = folder / "commands.py"
    script.write_text(COMMANDS)
    ports = free_ports(len(RUNS) + len(PICTURES))
    commands = [("train", ports.pop(), training(folder / f"two {each}", weights, each)) for each in RUNS]
    for pictures in PICTURES:
        arguments = evaluation(folder / f"two test {pictures}", folder / "one roi_align", pictures)
        commands.append(("evaluate", ports.pop(), arguments))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, str(script), json.dumps(commands)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("2 process(es) on cpu") == 2 + 4  # only one of the two speaks
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_training_ends_in_the_same_weights(folder: Path, name: str) -> None:
    start, _ = load_weights(folder / "resnet18.safetensors")
    one, _ = load_weights(folder / f"one {name}")
    two, _ = load_weights(folder / f"two {name}")
    assert one.keys() == two.keys()
    assert {tensor.dtype for tensor in one.values()} == {torch.float64}
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=0, atol=1e-9)
    moved = (one["backbone.layer4.0.conv1.weight"] - start["layer4.0.conv1.weight"]).abs().max()
    assert moved > 1e-3
    assert (record(folder / f"one {name}")["processes"], record(folder / f"two {name}")["processes"]) == (1, 2)


@pytest.mark.parametrize("pictures", PICTURES)
def test_every_picture_is_tested_once(folder: Path, pictures: int) -> None:
    one, two = (snapshot(folder / f"{processes} test {pictures}") for processes in ("one", "two"))
    assert one == two  # numbers and official files, bit for bit
    assert json.loads(one["detections.json"])
