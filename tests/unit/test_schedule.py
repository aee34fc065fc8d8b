"""The learning rate at every boundary, against the paper's numbers and PyTorch's own schedulers."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.engine.schedule import ScheduleOptions, check_schedule, learning_rate
from backbones.errors import ConfigError


def torch_rates(make_scheduler, base: float, steps: int) -> list[float]:
    """The rates that one of PyTorch's schedulers sets, step by step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return rates


def test_the_paper_s_cifar_schedule_divides_at_32k_and_48k() -> None:
    schedule = ScheduleOptions(milestones=[32000, 48000])
    rates = [learning_rate(s, base=0.1, steps=64000, schedule=schedule) for s in (0, 31999, 32000, 47999, 48000, 63999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-12)


def test_the_paper_s_warm_up_of_resnet_110_is_a_constant_hundredth() -> None:
    schedule = ScheduleOptions(milestones=[32000], warmup="constant", warmup_steps=400, warmup_factor=0.1)
    rates = [learning_rate(step, base=0.1, steps=64000, schedule=schedule) for step in (0, 399, 400)]
    assert rates == pytest.approx([0.01, 0.01, 0.1], rel=1e-12)


def test_linear_warm_up_rises_evenly_and_ends_at_the_full_rate() -> None:
    schedule = ScheduleOptions(name="constant", warmup_steps=4, warmup_factor=0.2)
    rates = [learning_rate(step, base=1.0, steps=9, schedule=schedule) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0], rel=1e-12)


def test_warm_up_multiplies_the_schedule_under_it() -> None:
    schedule = ScheduleOptions(milestones=[2], warmup="constant", warmup_steps=4, warmup_factor=0.5)
    rates = [learning_rate(step, base=1.0, steps=9, schedule=schedule) for step in (1, 2, 3, 4)]
    assert rates == pytest.approx([0.5, 0.05, 0.05, 0.1], rel=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(0, 29), unique=True, max_size=4), st.floats(0.05, 0.9))
def test_step_is_pytorch_s_multi_step(milestones: list[int], factor: float) -> None:
    schedule = ScheduleOptions(milestones=sorted(milestones), factor=factor)
    ours = [learning_rate(step, base=0.3, steps=30, schedule=schedule) for step in range(30)]
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, milestones, factor), 0.3, 30)
    assert ours == pytest.approx(theirs, rel=1e-9)


@settings(deadline=None)
@given(st.integers(2, 40))
def test_cosine_is_pytorch_s_and_falls_to_zero(steps: int) -> None:
    ours = [learning_rate(step, base=0.2, steps=steps, schedule=ScheduleOptions("cosine")) for step in range(steps + 1)]
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps), 0.2, steps)
    assert ours[:-1] == pytest.approx(theirs, abs=1e-9)
    assert (ours[0], ours[-1]) == (0.2, pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"milestones": [5, 3]}, "milestones"),
        ({"milestones": [5, 5]}, "milestones"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"factor": float("nan")}, "factor"),
        ({"warmup_factor": -0.1}, "warmup_factor"),
    ],
)
def test_a_schedule_without_sense_is_refused(options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_schedule(ScheduleOptions(**options))
