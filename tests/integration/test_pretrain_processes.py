"""Training and testing in several processes: the same numbers as in one, and an exact resume."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, SMALL, launch, metrics, pretrain, record
from safetensors.torch import load_file

SCRIPT = str(Path(__file__).with_name("run_in_turn.py"))
# Neither batch norm nor dropout, which are each process's own.
PLAIN = [
    *("--model.name", "vgg16", "--model.options", "{width: 4, dropout: 0}", "--precision", "fp64"),
    *("--train.steps", "20", "--train.evaluate_every", "10", "--optimizer.lr", "0.02", "--train.clip_grad_norm", "2"),
    *("--schedule.name", "plateau", "--schedule.plateau_window", "5", "--schedule.plateau_patience", "1"),
    *("--schedule.plateau_improvement", "50", "--train.ema_decay", "0.8", "--label_smoothing", "0.1"),
]


def close(one: Path, two: Path, tolerance: float) -> None:
    a, b = (load_file(path / "weights.safetensors") for path in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=tolerance, rtol=0)


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [str(opened.getsockname()[1]) for opened in sockets]


def numbers(output: Path) -> list[tuple[Any, ...]]:
    return [tuple(line.values()) for line in metrics(output)]


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    one, two, split = tmp_path / "one", tmp_path / "two", tmp_path / "split"
    finished = launch(2, str(ROOT / "tools/pretrain.py"), *SMALL, *PLAIN, "--output", str(two))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("13 test pictures") == 1  # one process prints
    pretrain(one, *PLAIN)
    pretrain(split, *PLAIN, "--train.accumulate", "4")
    start = tmp_path / "start"
    pretrain(start, *PLAIN, "--train.steps", "1", "--optimizer.lr", "0", "--train.evaluate_every", "0")
    for other in (two, split):
        close(one, other, 1e-9)
        for ours, theirs in zip(numbers(other), numbers(one), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-9)
    with pytest.raises(AssertionError):  # there was something to learn
        close(one, start, 1e-3)
    assert {line["lr"] for line in metrics(two) if line["split"] == "train"} >= {0.02, 0.002}  # a plateau was seen
    # Thirteen test pictures, seven in one process and six in the other.
    assert record(two)["results"] == record(one)["results"]
    assert record(two)["processes"] == 2


def test_three_processes_resume_to_the_same_bits(tmp_path: Path) -> None:
    """Three, because a sum of two numbers has no order. Each has its own batch-norm statistics and dropout."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = [
        *(*SMALL, "--model.name", "vgg16_bn", "--train.ema_decay", "0.9", "--exact_bn"),
        *("--schedule.name", "plateau", "--schedule.plateau_window", "4", "--schedule.plateau_patience", "1"),
        *("--schedule.plateau_improvement", "50"),
        *("--train.batch_size", "12", "--train.accumulate", "2", "--train.evaluate_every", "3"),
    ]
    ports = free_ports(3)
    finished = launch(
        *(3, SCRIPT, ports[0], *arguments, "--output", str(whole), "--train.steps", "9"),
        *("--then", ports[1], *arguments, "--output", str(cut), "--train.steps", "6"),
        *("--then", ports[2], *arguments, "--output", str(cut), "--train.steps", "9", "--resume", "--allow_mismatch"),
    )
    assert finished.returncode == 0, finished.stderr
    assert "steps 6 to 9" in finished.stdout
    assert (cut / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    # The test after step 6 was the last of the first part, with exact batch norm; in the middle of a run it is without.
    one, two = ([m for m in metrics(run) if (m["step"], m["split"]) != (6, "test")] for run in (cut, whole))
    assert one == two
    assert record(cut)["processes"] == 3
