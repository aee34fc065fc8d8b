"""The benchmark's part `train`: its networks are one function, all ways train, and what is refused. No test times."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from backbones.benchmark import steps, train_part
from backbones.benchmark.limits import Limits
from backbones.benchmark.measure import Plan
from backbones.benchmark.our_cifar import Variant
from backbones.benchmark.report import format_rows
from backbones.benchmark.train_part import (
    TrainPartOptions,
    _ready_ways,
    benchmark_train,
    check_train,
    choose_variants,
    compare,
    full_options,
    network_cost,
    network_pair,
)
from backbones.engine.step import Step
from backbones.errors import ConfigError

CPU = torch.device("cpu")
LIMITS = Limits({"fp32": 1e12, "bf16": 2e12}, 1e10)
SMALL = TrainPartOptions(["resnet18"], ["fp32"], batch_size=2, input_size=32)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_both_networks_are_one_function(name: str) -> None:
    ours, theirs = network_pair(name, 0)
    picture = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(picture), theirs.eval()(picture))
    assert network_cost(name, 32).parameters == sum(p.numel() for p in theirs.parameters())


def test_all_ways_take_the_same_steps() -> None:
    ways = _ready_ways("resnet18", Variant("fp32"), SMALL, CPU)
    losses = {key: [float(way.step()) for _ in range(3)] for key, way in ways.items()}
    assert losses["ours"] == pytest.approx(losses["theirs"], rel=1e-4)
    # In another layout other kernels run, and batch norm over two values makes much of rounding.
    assert losses["ours"][0] == pytest.approx(losses["usual"][0], rel=1e-3)
    assert losses["ours"][0] != losses["ours"][1]


def test_memory_is_measured_around_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stand-in for a captured step: its first call, and no other, is the capture."""
    events: list[str] = []

    class Captured:
        def __init__(self, step: Step, model: nn.Module):
            self.step, self.captured = step, False

        def __call__(self, batches: Iterator[Any]) -> dict[str, torch.Tensor]:
            if not self.captured:
                self.captured = True
                gradients = [p.grad for group in self.step.optimizer.param_groups for p in group["params"]]
                events.append("capture" if all(each is None for each in gradients) else "capture with gradients")
            return self.step(batches)

    def measure(work: Callable[[], Any], device: torch.device) -> tuple[Any, int]:
        events.append("measured from")
        result = work()
        events.append("to")
        return result, 1

    monkeypatch.setattr(steps, "CapturedStep", Captured)
    monkeypatch.setattr(train_part, "with_peak_memory", measure)
    compare("resnet18", Variant("fp32", captured=True), SMALL, plan=Plan(1, 1, 0), device=CPU, limits=LIMITS)
    ours = ["capture", "measured from", "capture", "to"]
    assert events == [*ours, *ours, "measured from", "to"]


def test_rows_and_the_share_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(SMALL, precisions=["fp32", "bf16"])
    report = benchmark_train(options, plan=Plan(2, 1, 0), device=CPU, threads=1, limits=LIMITS)
    assert [row.name for row in report.rows] == [
        f"resnet18 {precision} / torchvision in {loop}"
        for precision in ("fp32", "bf16")
        for loop in ("our loop", "the usual loop")
    ]
    for row in report.rows:
        values = row.to_json()
        assert values["rounds"] == 2
        assert values["share_of_limit"] == pytest.approx(values["floor_seconds"] / values["step_seconds"])
        # 8 passes over the weights of 4 bytes at 10 GB/s take longer than the arithmetic here.
        assert values["bound"] == "bandwidth"
        assert values["floor_seconds"] > 8 * 4 * 11.6e6 / 1e10
    assert format_rows(report.rows).count("of the limit") == 2


def test_what_does_not_run_here_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_part, "why_not_compiled", lambda device: None)
    messages: list[str] = []
    variants = choose_variants(replace(SMALL, compiled=True, captured=True), CPU, messages)
    assert [variant.name for variant in variants] == ["fp32", "fp32-compiled"]
    assert len(messages) == 1
    assert "need a GPU" in messages[0]
    gpu = full_options(TrainPartOptions(), torch.device("cuda"))
    assert (gpu.batch_size, gpu.input_size, gpu.precisions) == (256, 224, ["bf16"])
    assert [v.name for v in choose_variants(gpu, torch.device("cuda"), [])] == [
        *("bf16", "bf16-captured", "bf16-compiled", "bf16-compiled-captured")
    ]
    assert full_options(SMALL, CPU) == replace(SMALL, input_size=224)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"nets": []}, "nets"),
        ({"nets": ["resnet18", "resnet18"]}, "each once"),
        ({"nets": ["cifar_resnet20"]}, "torchvision has no cifar_resnet20"),
        ({"precisions": ["fp16"]}, "fp16"),
        ({"batch_size": 1}, "batch_size 1"),
        ({"input_size": 16}, "input_size 16"),
    ],
)
def test_options_without_sense_are_refused(changes: dict, named: str) -> None:
    check_train(SMALL)
    with pytest.raises(ConfigError, match=named):
        check_train(replace(SMALL, **changes))
