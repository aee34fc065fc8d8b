"""The rate falls when the error no longer does, and a resumed watch decides like one that never stopped."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.engine.plateau import Plateau
from backbones.engine.schedule import ScheduleOptions

SCHEDULE = ScheduleOptions(
    name="plateau", plateau_window=2, plateau_patience=2, plateau_improvement=1.0, plateau_reductions=2
)


def factors(errors: list[float], plateau: Plateau) -> list[float]:
    """The factor after each step."""
    found = []
    for error in errors:
        plateau.observe(torch.tensor(error))
        found.append(plateau.factor)
    return found


def windows(*means: float) -> list[float]:
    """Two steps for each window, of that mean."""
    return [error for mean in means for error in (mean - 3, mean + 3)]


def test_two_bad_windows_in_a_row_are_a_plateau() -> None:
    found = factors(windows(90, 80, 79.5, 78, 77.5, 77.2, 60, 60, 60), Plateau(SCHEDULE))
    # 79.5 is bad but 78 is good again; 77.5 and 77.2 are not a point below 78; 60, 60 after 60 neither.
    assert found[::2][:6] == [1, 1, 1, 1, 1, 1]
    assert found[11] == pytest.approx(0.1)  # after the step that ends the sixth window
    assert found[10] == 1
    assert found[16] == pytest.approx(0.1)
    assert found[17] == pytest.approx(0.01)


def test_no_more_reductions_than_allowed() -> None:
    assert factors(windows(*[50] * 20), Plateau(SCHEDULE))[-1] == pytest.approx(0.01)


def test_it_says_what_happened() -> None:
    plateau = Plateau(SCHEDULE)
    said = [plateau.observe(torch.tensor(error)) for error in windows(50, 50, 50)]
    assert said[:-1] == [None] * 5
    assert said[-1] == "the training error stays at 50.00 (best 50.00): the learning rate is lowered"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(0, 40))
def test_saved_and_loaded_anywhere_it_decides_the_same(errors: list[float], cut: int) -> None:
    whole = factors(errors, Plateau(SCHEDULE))
    first, second = Plateau(SCHEDULE), Plateau(SCHEDULE)
    before = factors(errors[:cut], first)
    second.load_state_dict(first.state_dict())
    assert before + factors(errors[cut:], second) == whole
    assert second.state_dict() == (lambda p: (factors(errors, p), p.state_dict())[1])(Plateau(SCHEDULE))


@pytest.mark.parametrize("change", [{"steps": 5}, {"reductions": -1}, {"best": "low"}])
def test_a_foreign_state_is_refused(change: dict) -> None:
    with pytest.raises(ValueError):
        Plateau(SCHEDULE).load_state_dict(Plateau(SCHEDULE).state_dict() | change)
