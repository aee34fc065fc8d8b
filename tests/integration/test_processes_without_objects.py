"""A process whose pictures hold no objects, or crowds alone, beside one with objects: no hang, and the same weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detector_commands import SMALL, record, write_backbone, write_coco

from backbones.data.shapes import CLASS_NAMES
from backbones.weights import load_weights
from detection.data.annotations import Annotations, DetectionDataset
from detection.train import main as train_main

SECONDS = 120
SCRIPT = "import sys; from detection.train import main; main(sys.argv[1:])"


def write_data(root: Path) -> None:
    """Pictures of 64 x 64: one with an object, three with nothing, three that are one crowd from border to border."""
    pixels = torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    annotations = Annotations.from_objects(
        class_names=CLASS_NAMES,
        image_ids=list(range(7)),
        sizes=[(64, 64)] * 7,
        images=[0, 4, 5, 6],
        boxes=[[8, 10, 40, 44], *[[0, 0, 64, 64]] * 3],
        labels=[1, 2, 3, 1],
    )
    file = write_coco(root, "all", DetectionDataset(annotations, lambda index: pixels[index]))
    data = json.loads(file.read_text())
    for each in data["annotations"][1:]:
        each["iscrowd"] = 1
    file.write_text(json.dumps(data))


def run_in_two_processes(script: Path, arguments: list[str]) -> None:
    """Fails after SECONDS, and leaves no process behind."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*torchrun, str(script), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail(f"two processes hung for {SECONDS} seconds")
    assert process.returncode == 0, errors


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Two pictures a step, one for each process: over two epochs most steps have a process without objects."""
    weights = write_backbone(tmp_path / "resnet18.safetensors", width=4)
    write_data(tmp_path / "data")
    arguments = [*SMALL, "--backbone.weights", str(weights), "--precision", "fp64", "--data.flip", "false"]
    arguments += ["--data.name", "coco", "--data.root", str(tmp_path / "data"), "--data.train_split", "all"]
    arguments += ["--data.test_split", "all", "--train.steps", "14", "--train.batch_size", "2"]
    arguments += [
        "--train.checkpoint_every",
        "14",
        "--roi.background_iou_low",
        "0.1",
    ]  # no object: no region to train on
    train_main([*arguments, "--output", str(tmp_path / "one")])
    (tmp_path / "script.py").write_text(SCRIPT)
    run_in_two_processes(tmp_path / "script.py", [*arguments, "--output", str(tmp_path / "two")])
    assert [record(tmp_path / name)["processes"] for name in ("one", "two")] == [1, 2]
    one, two = (load_weights(tmp_path / name)[0] for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-9)
    start, _ = load_weights(weights)
    assert (one["backbone.layer4.0.conv1.weight"] - start["layer4.0.conv1.weight"]).abs().max() > 1e-4
