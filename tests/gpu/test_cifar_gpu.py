"""CIFAR training on a GPU, kernel by kernel, as a CUDA graph, compiled: the same losses, and exact resume."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.config import ClassificationData, ModelConfig, OptimizerConfig, PretrainConfig
from backbones.engine import loop
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.engine.window import Window
from backbones.train import pretrain
from backbones.weights import load_weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no usable GPU"),
]


@pytest.fixture(scope="module")
def root(bright_cifar10: Callable[[int], Path]) -> Path:
    """300 training and 60 test pictures."""
    return bright_cifar10(60)


def train(
    root: Path,
    output: Path,
    *,
    options: dict[str, Any],
    dropout: float = 0.1,
    recompute: int = 0,
    resident: bool = True,
    **train_options: Any,
) -> None:
    """The warm-up ends with its first window, whatever the error is."""
    pretrain(
        PretrainConfig(
            model=ModelConfig("cifar_resnet20", {"dropout": dropout}, recompute=recompute),
            data=ClassificationData(
                name="cifar10",
                root=str(root),
                test_split="test",
                input_size=32,
                test_resize=None,
                augmentation="pad_crop_flip",
                mean="pixel",
                std=[1.0] * 3,
                resident=resident,
            ),
            train=TrainOptions(
                **{"steps": 24, "batch_size": 64, "checkpoint_every": 7, "log_every": 1, "workers": 0} | train_options
            ),
            optimizer=OptimizerConfig(lr=0.05),
            schedule=ScheduleOptions(milestones=[12], warmup="error", warmup_window=3, warmup_error=200),
            output=str(output),
            **{"device": "cuda"} | options,
        )
    )


def losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_captured_run_is_that_of_single_kernels(root: Path, tmp_path: Path, precision: str, compiled: bool) -> None:
    # A compiled network's dropout draws other random numbers.
    same: dict[str, Any] = {"options": {"precision": precision}, "dropout": 0.0 if compiled else 0.1}
    train(root, tmp_path / "plain", **same, log_gradient_norm=True)
    train(root, tmp_path / "captured", **same, capture=True, compile=compiled, log_gradient_norm=True)
    plain, captured = losses(tmp_path / "plain"), losses(tmp_path / "captured")
    first, then = (1e-4, 1e-2) if precision == "fp32" else (1e-2, 5e-2)
    assert captured[0] == pytest.approx(plain[0], rel=first)
    assert captured[:5] == pytest.approx(plain[:5], rel=then)  # rounding adds up
    assert len(captured) == 24
    assert captured[-1] < captured[0]


@pytest.mark.parametrize(
    "how",
    [
        {"recompute": 2, "dropout": 0.0},
        {"resident": False},
        {"evaluate_every": 5, "ema_decay": 0.9, "clip_grad_norm": 1.0},
        {"accumulate": 4},
        {"accumulate": 4, "resident": False},
    ],
    ids=["recompute", "loader", "tests on the way", "portions", "loaded portions"],
)
def test_a_capture_goes_with_the_rest(root: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    for name, capture in (("plain", False), ("captured", True)):
        train(root, tmp_path / name, options={}, capture=capture, log_every=4, **how)
    plain, captured = losses(tmp_path / "plain"), losses(tmp_path / "captured")
    assert captured[0] == pytest.approx(plain[0], rel=1e-2)  # a mean over four steps, each its own
    assert len(captured) == 6


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_cut_at_any_checkpoint_resumes_to_the_same_bits(
    root: Path, tmp_path: Path, capture: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {
        "options": {"deterministic": True, "precision": "bf16"},
        "capture": capture,
        "compile": compiled,
    }
    train(root, tmp_path / "whole", **how)
    save = loop.save_checkpoint

    def interrupt_after_it(*given: Any) -> None:
        save(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", interrupt_after_it)
        with pytest.raises(KeyboardInterrupt):
            train(root, tmp_path / "cut", **how)
    how["options"] = {**how["options"], "resume": True}
    train(root, tmp_path / "cut", **how)
    whole, cut = (load_weights(tmp_path / name)[0] for name in ("whole", "cut"))
    for name, tensor in whole.items():
        assert torch.equal(cut[name], tensor), name


@pytest.mark.parametrize("capture", [False, True])
def test_batches_copied_ahead_are_those_copied_at_once(
    root: Path, tmp_path: Path, capture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: memory that is taken again too early, or read too soon, would show."""
    how: dict[str, Any] = {"options": {"deterministic": True}, "resident": False, "capture": capture, "workers": 2}
    train(root, tmp_path / "ahead", **how)
    monkeypatch.setattr(loop, "prefetch", lambda batches, device: iter(batches))
    train(root, tmp_path / "at once", **how)
    assert losses(tmp_path / "ahead") == losses(tmp_path / "at once")


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize(
    "more",
    [{}, {"ema_decay": 0.9, "clip_grad_norm": 1.0}, {"resident": False}, {"accumulate": 2, "resident": False}],
    ids=["plain", "average and clipping", "copied ahead", "portions copied ahead"],
)
def test_the_loop_waits_for_the_gpu_only_where_it_logs(
    root: Path, tmp_path: Path, capture: bool, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the warm-up is over, PyTorch raises wherever the host waits for the device, until the log's first line."""
    rate, close = loop.set_rate, Window.close
    steps = iter(range(1000))

    def from_the_fourth_step_on(*given: Any) -> None:  # the first ones capture, and start libraries
        if next(steps) == 3:
            torch.cuda.set_sync_debug_mode("error")
        rate(*given)

    def allowed(*given: Any) -> dict[str, float]:
        torch.cuda.set_sync_debug_mode("default")
        return close(*given)

    monkeypatch.setattr(loop, "set_rate", from_the_fourth_step_on)
    monkeypatch.setattr(Window, "close", allowed)
    try:
        train(root, tmp_path / "run", options={}, capture=capture, steps=12, log_every=12, checkpoint_every=12, **more)
    finally:
        torch.cuda.set_sync_debug_mode("default")
