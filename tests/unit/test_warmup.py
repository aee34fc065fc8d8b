"""The rate stays low until the training error has fallen, and a resumed run decides like one that never stopped."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.engine import error_window
from backbones.engine.schedule import ScheduleOptions, check_schedule, learning_rate
from backbones.engine.warmup import ErrorWarmup
from backbones.errors import ConfigError

SCHEDULE = ScheduleOptions(warmup="error", warmup_window=3)


def factors(errors: list[float], warmup: ErrorWarmup) -> list[float]:
    """The factor of each step, before its error is known."""
    found = []
    for error in errors:
        found.append(warmup.factor)
        warmup.observe(torch.tensor(error))
    return found


def test_it_ends_with_the_first_window_whose_mean_error_is_below_80_percent() -> None:
    """Not by a step (60), not at 80 itself."""
    errors = [90, 90, 60, 80, 80, 80, 79, 80, 80, 95, 95, 95, 95.0]
    assert factors(errors, ErrorWarmup(SCHEDULE)) == [0.1] * 9 + [1.0] * 4  # and never comes back


def test_it_says_so_once() -> None:
    warmup = ErrorWarmup(SCHEDULE)
    said = [warmup.observe(torch.tensor(error)) for error in (70.0, 71.0, 72.0, 70.0, 71.0, 72.0)]
    assert said == [None, None, "the training error is 71.00, below 80: the warm-up is over", None, None, None]


@given(st.lists(st.floats(60, 100), max_size=30), st.integers(0, 30))
def test_saved_and_loaded_anywhere_it_decides_the_same(errors: list[float], cut: int) -> None:
    whole, first, second = (ErrorWarmup(SCHEDULE) for _ in range(3))
    expected = factors(errors, whole)
    before = factors(errors[:cut], first)
    second.load_state_dict(first.state_dict())
    assert before + factors(errors[cut:], second) == expected
    assert second.state_dict() == whole.state_dict()


def test_all_processes_decide_by_their_mean_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """This one's errors are low, those of the others high."""
    monkeypatch.setattr(error_window, "mean_over_processes", lambda error: (error + 99) / 2)
    assert factors([70.0] * 7, ErrorWarmup(SCHEDULE)) == [0.1] * 7
    assert factors([60.0] * 4, ErrorWarmup(SCHEDULE)) == [0.1, 0.1, 0.1, 1.0]


NOT_A_NUMBER = {"done": False, "steps": 2, "total": float("nan")}


@pytest.mark.parametrize(
    "state", [{}, {"done": False, "steps": 3, "total": 0.0}, {"done": False, "steps": "x"}, NOT_A_NUMBER]
)
def test_a_foreign_state_is_refused(state: dict) -> None:
    with pytest.raises((KeyError, ValueError)):
        ErrorWarmup(SCHEDULE).load_state_dict(state)


def test_the_rate_as_a_function_of_the_step_knows_nothing_of_it() -> None:
    schedule = ScheduleOptions(milestones=[10], warmup="error")
    assert [learning_rate(step, base=0.1, steps=20, schedule=schedule) for step in (0, 9, 10)] == pytest.approx(
        [0.1, 0.1, 0.01]
    )


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"warmup_steps": 400}, "warmup_steps 400"),
        ({"warmup_window": 0}, "warmup_window 0"),
        ({"warmup_error": -1}, "warmup_error -1"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=f"schedule.{key}"):
        check_schedule(ScheduleOptions(warmup="error", **options))
