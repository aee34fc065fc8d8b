"""CIFAR training on a GPU, kernel by kernel, as a CUDA graph, compiled: the same losses, and exact resume."""

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first use of cuBLAS

from backbones.config import ClassificationData, ModelConfig, OptimizerConfig, PretrainConfig
from backbones.engine import loop
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.train import pretrain
from backbones.weights import load_weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no usable GPU"),
]


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10's layout: 300 training and 60 test pictures, whose class is their brightness."""
    root = tmp_path_factory.mktemp("cifar")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]:
        labels = np.arange(60) % 10
        pixels = (25 * labels[:, None] + rng.integers(0, 25, (60, 3072))).astype(np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=2))
    return root


def train(root: Path, output: Path, *, options: dict[str, Any], dropout: float = 0.1, **train_options: Any) -> None:
    pretrain(
        PretrainConfig(
            model=ModelConfig("cifar_resnet20", {"dropout": dropout}),
            data=ClassificationData(
                name="cifar10",
                root=str(root),
                test_split="test",
                input_size=32,
                test_resize=None,
                augmentation="pad_crop_flip",
                mean="pixel",
                std=[1.0] * 3,
                resident=True,
            ),
            train=TrainOptions(
                **{"steps": 24, "batch_size": 64, "checkpoint_every": 7, "log_every": 1, "workers": 0} | train_options
            ),
            optimizer=OptimizerConfig(lr=0.05),
            schedule=ScheduleOptions(milestones=[12], warmup="error", warmup_window=3),
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
    tolerance = 1e-3 if precision == "fp32" else 5e-2
    assert captured[0] == pytest.approx(plain[0], rel=tolerance)
    assert captured == pytest.approx(plain, rel=20 * tolerance)  # rounding adds up


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
def test_the_loop_waits_for_the_gpu_only_where_it_logs(
    root: Path, tmp_path: Path, capture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch raises at every synchronisation of host and device while steps are taken."""
    prepare = loop._prepare_step

    def strictly(*given: Any) -> Any:
        take_step = prepare(*given)
        steps = iter(range(1000))

        def step(batches: Iterator[Any]) -> dict[str, torch.Tensor]:
            if next(steps) < 2:  # the capture, and libraries that start
                return take_step(batches)
            torch.cuda.set_sync_debug_mode("error")
            try:
                return take_step(batches)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return step

    monkeypatch.setattr(loop, "_prepare_step", strictly)
    train(root, tmp_path / "run", options={}, capture=capture)
