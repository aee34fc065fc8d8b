"""Runs the classifier's commands: in this process where that will do, else as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backbones.train import main as pretrain_main

ROOT = Path(__file__).parents[2]

# A network and data so small that a step takes some milliseconds.
SMALL = [
    *("--config", str(ROOT / "configs/shapes/classify_resnet.yaml"), "--model.options", "{width: 4}"),
    *("--data.input_size", "32", "--data.train_size", "40", "--data.test_size", "13"),
    *("--train.steps", "6", "--train.batch_size", "8", "--train.checkpoint_every", "4", "--train.log_every", "2"),
    *("--train.workers", "0", "--schedule.warmup_steps", "2"),
]


def pretrain(output: Path, *arguments: str) -> dict[str, Any]:
    """Runs `pretrain` on the small data in this process; returns its record."""
    pretrain_main([*SMALL, "--output", str(output), *arguments])
    return record(output)


def start_pretrain(output: Path, *arguments: str) -> subprocess.Popen:
    """Starts `pretrain` on the small data as a process of its own."""
    return start("pretrain", *SMALL, "--output", str(output), *arguments)


def start(tool: str, *arguments: str) -> subprocess.Popen:
    """Starts a tool as a process of its own."""
    command = [sys.executable, str(ROOT / f"tools/{tool}.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )


def launch(processes: int, *command: str) -> subprocess.CompletedProcess:
    """Runs a Python program in several processes under torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*torchrun, *command], env=environment, capture_output=True, text=True, timeout=100)


def interruptible() -> None:
    """For a new process: Ctrl-C reaches it even where the tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 60) -> None:
    """Returns as soon as `condition` holds; fails if the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < end, "took too long"
        time.sleep(0.003)


def record(output: Path) -> dict[str, Any]:
    """What run.json says."""
    return json.loads((output / "run.json").read_text())


def metrics(output: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without their timing."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]
