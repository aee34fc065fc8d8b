"""The benchmark: its arithmetic by hand, that both loops train, and the command on a tiny setting. No test times."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backbones import get_model
from backbones.benchmark.cifar import random_pictures, steps_until_paid
from backbones.benchmark.curve import milestones
from backbones.benchmark.floor import StepCost, cifar_complexity, clock, floor_seconds, step_cost
from backbones.benchmark.jobs import rates_side_by_side, together
from backbones.benchmark.limits import copy_rate, matrix_product_rate, probe_limits
from backbones.benchmark.measure import Plan, Segment, interleave, pinned, ratios, spread
from backbones.benchmark.memory import with_peak_memory
from backbones.benchmark.our_cifar import OurTraining, Variant, resident_input
from backbones.benchmark.plain_cifar import MEAN, STD, PlainTraining
from backbones.benchmark.report import Row, format_rows
from backbones.benchmark.targets import TABLE_6, predict
from backbones.data.datasets import ClassificationDataset
from backbones.errors import UserError

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


# Measuring


def test_median_and_quartiles() -> None:
    found = spread([4.0, 1.0, 3.0, 2.0])
    assert (found.lower, found.median, found.upper) == (1.75, 2.5, 3.25)
    assert Segment(items=30, seconds=1.5).rate == 20


def test_ratios_are_those_of_each_round() -> None:
    """A machine that is slow for a round changes no ratio; the ratio of the medians would be 2 / 4 here."""
    row = Row("part", "name", "images/s", ours=[1.0, 2.0, 9.0], reference=[0.5, 4.0, 4.5])
    assert ratios(row.ours, row.reference) == [2, 0.5, 2]
    assert row.ratio == 2
    values = row.to_json()
    assert (values["ours"], values["reference"], values["ratio"]) == (2, 4, 2)
    assert values["ratio_quartiles"] == [1.25, 2]
    assert "2.00" in format_rows([row])


def test_ways_take_turns_and_every_second_round_goes_backwards() -> None:
    order: list[str] = []

    def way(name: str, items: int) -> Segment:
        order.append(name)
        return Segment(items, 2.0)

    rates = interleave({"a": partial(way, "a", 2), "b": partial(way, "b", 6)}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert rates == {"a": [1, 1, 1], "b": [3, 3, 3]}


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark

    def fail() -> None:
        with pinned(before[0] + 1):
            assert torch.get_num_threads() == before[0] + 1
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert (torch.get_num_threads(), torch.backends.cudnn.benchmark) == before


def test_memory_is_that_of_the_peak() -> None:
    def work() -> int:
        big = torch.ones(2**24)  # 64 MiB
        for _ in range(5):
            big.add_(1)
        return len(big)

    result, peak = with_peak_memory(work, CPU)
    assert result == 2**24
    assert peak is None or 2**26 <= peak < 1.2 * 2**26


# Limits and floor


def test_probes_give_rates_and_leave_settings_alone() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    limits = probe_limits(CPU, side=32, megabytes=1)
    assert set(limits.flops) == {"fp32", "bf16"}
    assert all(0 < rate < math.inf for rate in (*limits.flops.values(), limits.bandwidth))
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_what_a_probe_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.benchmark.limits._best_seconds", lambda work, device: 0.5)
    assert matrix_product_rate(CPU, torch.float32, 10) == 2 * 10**3 / 0.5
    assert copy_rate(CPU, 100) == 2 * 100 / 0.5


def test_the_cost_of_a_step_by_hand() -> None:
    """Plain-20: conv1, 6 layers of 16 channels at 32x32, 6 of 32 at 16x16, 6 of 64 at 8x8, fc."""
    cost = cifar_complexity("cifar_plain20")
    multiply_adds = 442_368 + 6 * 2_359_296 + 2 * (1_179_648 + 5 * 2_359_296) + 640
    activations = 7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8 + 10
    parameters = 432 + 6 * 2_304 + 4_608 + 5 * 9_216 + 18_432 + 5 * 36_864 + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 650
    assert step_cost(cost, batch_size=128, precision="bf16") == StepCost(
        2 * 3 * multiply_adds * 128, 5 * activations * 128 * 2 + 8 * parameters * 4
    )
    in_fp32 = step_cost(cost, batch_size=128, precision="fp32")
    assert in_fp32.bytes == 5 * activations * 128 * 4 + 8 * parameters * 4


def test_the_floor_is_the_longer_of_arithmetic_and_transport() -> None:
    cost = StepCost(operations=100, bytes=60)
    assert floor_seconds(cost, operations_per_second=50, bytes_per_second=20) == (3, "bandwidth")
    assert floor_seconds(cost, operations_per_second=20, bytes_per_second=20) == (5, "arithmetic")


def test_predictions_by_hand() -> None:
    """Plain-20 in bf16: 31.14e9 operations and 249.8e6 bytes a step; on an H200 31.5 and 52.0 microseconds."""
    found = predict("plain-20", ["cifar_plain20"], 60)
    assert found.floor_seconds == pytest.approx(64_000 * 249_816_384 / 4.8e12, rel=1e-12)
    assert found.predicted_seconds - found.floor_seconds == pytest.approx(64_000 * 20 * 10 * 2.5e-6)
    slow = predict("plain-20", ["cifar_plain20"] * 2, 60, operations_per_second=1e12, kernels_per_layer=0)
    assert slow.floor_seconds == slow.predicted_seconds == pytest.approx(2 * 64_000 * 31_143_198_720 / 1e12)
    depths = [int("".join(filter(str.isdigit, name))) for name in TABLE_6]
    assert (len(set(TABLE_6)), sum(depths)) == (9, 20 + 32 + 44 + 56 + 110 + 20 + 32 + 44 + 56)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3_599, "0:59:59"), (36e4, "100:00:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_when_compiling_has_paid() -> None:
    assert steps_until_paid(10, before=0.5, after=0.25) == 40
    assert steps_until_paid(10.1, before=0.5, after=0.25) == 41
    assert steps_until_paid(-1, before=0.5, after=0.25) == 0
    assert steps_until_paid(10, before=0.5, after=0.5) is None


def test_milestones_are_the_papers_scaled() -> None:
    assert milestones(64_000) == [32_000, 48_000]
    assert milestones(8) == [4, 6]
    assert milestones(1) == [1]


# The two loops


def gray_pictures(count: int) -> ClassificationDataset:
    """Picture i has the value 20 i everywhere, and the label i % 2."""
    pixels = np.repeat(np.arange(count, dtype=np.uint8) * 20, 32 * 32 * 3).reshape(count, 32, 32, 3)
    labels = np.arange(count) % 2
    return ClassificationDataset(["a", "b"], labels, lambda i: Image.fromarray(pixels[i]), str, "gray", pixels)


class Recorder(nn.Module):
    """Notes which of the gray pictures it is shown: their largest value is no padding's."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        values = (images[:, 0] * STD[0] + MEAN[0]).amax((1, 2)) * 255
        self.seen += [round(float(value) / 20) for value in values]
        return self.fc(images.mean((2, 3)))


def test_the_plain_loop_shows_each_picture_once_an_epoch() -> None:
    model = Recorder()
    training = PlainTraining(model, gray_pictures(10), batch_size=4, device=CPU, workers=0)
    for _ in range(2):
        assert [training.step() for _ in range(3)] == [4, 4, 2]
    training.close()
    assert sorted(model.seen[:10]) == sorted(model.seen[10:]) == list(range(10))
    assert model.seen[:10] != model.seen[10:]


def test_the_plain_loop_learns() -> None:
    torch.manual_seed(0)
    training = PlainTraining(
        get_model("cifar_plain8", 2, width=4), gray_pictures(8), batch_size=8, device=CPU, workers=0
    )
    losses = []
    for _ in range(25):
        training.step()
        losses.append(float(training.loss))
    training.close()
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_the_plain_loop_lowers_its_rate_at_milestones() -> None:
    training = PlainTraining(Recorder(), gray_pictures(4), batch_size=4, device=CPU, workers=0, milestones=(1, 2))
    rates = []
    for _ in range(3):
        rates.append(training.optimizer.param_groups[0]["lr"])
        training.step()
    training.close()
    assert rates == pytest.approx([0.1, 0.01, 0.001])


def test_a_plain_segment_leaves_out_what_was_loaded_ahead() -> None:
    training = PlainTraining(Recorder(), gray_pictures(4), batch_size=2, device=CPU, workers=1)
    taken: list[int] = []
    step = training.step
    training.step = lambda: taken.append(step()) or taken[-1]  # type: ignore[method-assign, func-returns-value]
    assert training.segment(3, 1).items == 3 * 2
    assert len(taken) == training.batches_ahead + 3 == 2 + 3
    training.close()


def our_training(variant: Variant) -> tuple[nn.Module, OurTraining]:
    torch.manual_seed(0)
    dataset, model = random_pictures(16, 0), get_model("cifar_plain8", width=4)
    source = resident_input(dataset, "cifar_plain8", CPU)
    return model, OurTraining(model, source, variant, size=16, batch_size=4, device=CPU, lr=0.01)


@pytest.mark.parametrize("variant", [Variant(), Variant("bf16")])
def test_segments_of_ours_are_one_training(variant: Variant) -> None:
    """Measuring in segments changes nothing: the weights are those of a training in one go."""
    (model, training), (other, whole) = our_training(variant), our_training(variant)
    before = model.fc.weight.detach().clone()
    assert training.segment(2, 1).items == training.segment(2, 1).items == 2 * 4
    whole.segment(6, 0)
    assert not torch.equal(model.fc.weight, before)
    for ours, theirs in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_our_input_is_less_the_mean_picture() -> None:
    dataset = random_pictures(60, 0)
    source = resident_input(dataset, "cifar_plain8", CPU)
    rows = torch.tensor([[5, 4, 4, 0]])  # the middle of the padded picture: as it is
    images, labels = source.prepare(rows)
    assert dataset.pixels is not None
    expected = (dataset.pixels[5] - dataset.pixels.mean(0)).transpose(2, 0, 1)
    assert images[0].numpy() == pytest.approx(expected, abs=1e-4)
    assert int(labels) == dataset.labels[5]


# Side by side


class FixedWay:
    """In the place of a training; picklable."""

    def __init__(self, items: int):
        self.items = items

    def segment(self, steps: int, discard: int, wait: Callable[[], object] = lambda: None) -> Segment:
        if self.items < 0:
            raise ValueError("no such thing")
        time.sleep(discard * 0.05)
        wait()
        started = time.perf_counter()
        time.sleep(steps * 0.01)
        return Segment(self.items * steps, time.perf_counter() - started)


def test_jobs_side_by_side_add_up_and_failures_are_told() -> None:
    side_by_side = partial(rates_side_by_side, FixedWay, threads=1, start_method="fork")
    rates = side_by_side((5,), jobs=2, plan=Plan(3, 2, 0))
    assert len(rates) == 3
    assert all(0 < rate < math.inf for rate in rates)
    # What does not count is not timed: with it, a round would take 0.21 s instead of 0.01 s.
    (rate,) = side_by_side((5,), jobs=2, plan=Plan(1, 1, 4))
    assert 10 / 0.2 < rate <= 10 / 0.01
    with pytest.raises(UserError, match="2 jobs side by side: ValueError: no such thing"):
        side_by_side((-1,), jobs=2, plan=Plan(1, 1, 0))
    # 5 items in 0..2 and 5 in 1..5 are 10 in 5 seconds.
    assert together([(5, 0.0, 2.0), (5, 1.0, 5.0)]) == 2
